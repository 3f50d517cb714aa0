"""Who may ask: with a token whoever knows it, without one whoever sits at this machine, but no page of another site.

A page that a browser here has open can send requests to loopback, and by a name of its own that leads here (DNS
rebinding) even read the answers: so `Host` must be a name of this machine, and `Origin` the server itself.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunix_rt.serving.errors import ApiError

OPEN = ("/", "/health")
"""Paths that need no token: the page, which asks for it, and whether the server lives."""
STATIC = "/static/"
LARGEST_BODY = 16 * 2**20
"""Bytes."""
TOO_LARGE = f"the body has more than {LARGEST_BODY:,} bytes"
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host by this name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_authorised(headers: Headers, token: str | None) -> bool:
    """Whether a request knows the token, of ASCII characters; None: there is none to know."""
    _, _, given = headers.get("authorization", "").partition(" ")
    return token is None or hmac.compare_digest(given.strip().encode(), token.encode())


def _split(url: str) -> SplitResult:
    """Raises ApiError."""
    try:
        return urlsplit(url)
    except ValueError:
        raise ApiError(403, f"{url[:80]!r} is no name of a host") from None


@dataclass(frozen=True, slots=True)
class Guard:
    """An ASGI application around another."""

    app: ASGIApp
    token: str | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check(str(scope["path"]), headers)
        except ApiError as error:
            refusal = JSONResponse(error.to_json(), error.status, {**HEADERS, **error.headers})
            await refusal(scope, receive, send)
            return
        await self.app(scope, _limited(receive), _with_headers(send))

    def _check(self, path: str, headers: Headers) -> None:
        """Raises ApiError."""
        host = headers.get("host", "")
        if self.token is None and not is_loopback(_split(f"//{host}").hostname or ""):
            raise ApiError(403, f"Host {host[:80]!r} is no name of this machine, and the server has no token")
        origin = headers.get("origin")
        if origin is not None and _split(origin).netloc != host:
            raise ApiError(403, f"Origin {origin[:80]!r} is another site")
        if int(headers.get("content-length", "0")) > LARGEST_BODY:
            raise ApiError(413, TOO_LARGE)
        if path not in OPEN and not path.startswith(STATIC) and not is_authorised(headers, self.token):
            asked = {"WWW-Authenticate": "Bearer"}
            raise ApiError(401, "no or a wrong token: Authorization: Bearer TOKEN", None, "invalid_api_key", asked)


def _limited(receive: Receive) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > LARGEST_BODY:
            raise HTTPException(413, TOO_LARGE)
        return message

    return counted


def _with_headers(send: Send) -> Send:
    added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return sending
