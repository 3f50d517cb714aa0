"""One request and its answers: as one object, or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tunix_rt.files import JsonObject
from tunix_rt.inference.writing import Passage, Writing
from tunix_rt.serving.errors import ApiError
from tunix_rt.serving.model import ServedModel
from tunix_rt.serving.shapes import usage
from tunix_rt.serving.ticket import ClientDisconnected, Ticket


class Choice(Protocol):
    """One answer in the shape of an endpoint."""

    writing: Writing

    def opening(self) -> JsonObject | None:
        """What a stream says first of it."""

    def add(self, passage: Passage) -> None:
        """Take the tokens of a passage, whose text `writing` has already."""

    def chunk(self) -> JsonObject | None:
        """What a stream says of what was added since its last chunk; None if nothing is new."""

    def whole(self) -> JsonObject:
        """All of it, when it has ended."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What is answered, and to whom."""

    model: ServedModel
    choices: Sequence[Choice]
    ticket: Ticket | None
    """None if nothing is to be made."""
    kind: str
    """What the answer calls itself in its field `object`."""
    chunk_kind: str
    """What a chunk of a stream calls itself in its field `object`."""
    prefix: str
    """How the id of the answer begins."""
    num_prompt: int
    includes_usage: bool
    seed: int
    head: JsonObject = field(init=False)

    def __post_init__(self) -> None:
        head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": self.model.name}
        object.__setattr__(self, "head", head | {"system_fingerprint": self.model.fingerprint})

    async def respond(self, request: Request, stream: bool) -> Response:
        """The answer; if the client disconnects, its rows make room. Raises ApiError, ClientDisconnected."""
        watch = asyncio.create_task(self._close_with(request))
        if stream:
            return StreamingResponse(self._events(watch), media_type="text/event-stream", headers=NOT_STORED)
        try:
            async for _ in self._written():
                pass
            return JSONResponse(self._whole(), headers=NOT_STORED)
        finally:
            self._end(watch)

    def _whole(self) -> JsonObject:
        choices = [choice.whole() for choice in self.choices]
        answer = {"object": self.kind, "choices": choices, "usage": self._usage(), "tunix_rt": {"seed": self.seed}}
        return self.head | answer

    def _usage(self) -> JsonObject:
        return usage(self.num_prompt, sum(choice.writing.num_tokens for choice in self.choices))

    async def _written(self) -> AsyncIterator[Choice]:
        """Each choice whenever something was added to it. Raises ApiError, ClientDisconnected."""
        if self.ticket is not None:
            async for place, passage in self.model.passages(self.ticket, [choice.writing for choice in self.choices]):
                self.choices[place].add(passage)
                yield self.choices[place]

    async def _events(self, watch: asyncio.Task[None]) -> AsyncIterator[str]:
        try:
            for choice in self.choices:
                if (opening := choice.opening()) is not None:
                    yield self._event([opening])
            async for choice in self._written():
                if (chunk := choice.chunk()) is not None:
                    yield self._event([chunk])
            if self.includes_usage:
                yield self._event([], usage=self._usage())
            yield "data: [DONE]\n\n"
        except ClientDisconnected:
            return
        except ApiError as error:
            yield _data(error.to_json())
        finally:
            self._end(watch)

    def _event(self, choices: Sequence[JsonObject], **further: JsonObject) -> str:
        about = {"object": self.chunk_kind, "choices": choices, "tunix_rt": {"seed": self.seed}}
        return _data(self.head | about | ({"usage": None} if self.includes_usage else {}) | further)

    async def _close_with(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        if self.ticket is not None:
            self.ticket.close()

    def _end(self, watch: asyncio.Task[None]) -> None:
        watch.cancel()
        if self.ticket is not None:
            self.ticket.close()


NOT_STORED: Mapping[str, str] = {"Cache-Control": "no-store"}


def _data(value: JsonObject) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(',', ':'))}\n\n"
