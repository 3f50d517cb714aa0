"""What a client gets to read when it gets no answer, in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunix_rt.files import JsonObject

RETRY_AFTER = {"Retry-After": "1"}
"""Seconds, which clients wait before they ask again."""


@dataclass(slots=True)
class ApiError(Exception):
    """An answer that is an error."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    def to_json(self) -> JsonObject:
        """`{"error": {message, type, param, code}}`."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def refused(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that cannot be answered as it is."""
    return ApiError(400, message, param, code)


def full(message: str) -> ApiError:
    """A request for which there is no room now."""
    return ApiError(503, f"{message}; ask again in a moment", None, "server_full", RETRY_AFTER)
