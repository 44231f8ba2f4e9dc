"""What stands before the API: who may ask, how much may be sent, and how long an answer may take.

- Requests must name this server as it is known (the Host header), so that a page of another site cannot have a browser
  ask for it under a name of its own.
- Where there is a token, it comes as `Authorization: Bearer ...`, or as a cookie that `/?token=...` sets for a browser.
- A body that is too large is refused before it is read, or when it turns out to be; a request has so many seconds.
- Answers forbid browsers to load anything from elsewhere.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "semcut_token"
_OPEN = ("/health",)
_POLICY = (
    "default-src 'none'; script-src 'self'{inline}; style-src 'self'{inline}; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _TooLargeError(Exception):
    pass


class Guard:
    """An application with a guard before it.

    Args:
        app: the application.
        hosts: names that this server is known by.
        token: what must be shown; None where only this machine can ask.
        max_body: bytes.
        seconds: that a request may take.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str | None, max_body: int, seconds: float) -> None:
        self._app, self._hosts, self._token = app, frozenset(hosts), token
        self._max_body, self._seconds = max_body, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = overflow = False
        seen = 0

        async def limited() -> Message:
            nonlocal seen, overflow
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_body:
                overflow = True
                raise _TooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if overflow and not started:  # whatever the application makes of it
                return
            if message["type"] == "http.response.start":
                started = True
                _secured(MutableHeaders(scope=message), scope["path"])
            await send(message)

        answer = self._refused(scope)
        if answer is None:
            try:
                await asyncio.wait_for(self._app(scope, limited, watched), self._seconds)
            except _TooLargeError:
                pass
            except asyncio.TimeoutError:
                answer = problem(503, f"this took longer than {self._seconds:g} seconds")
        if overflow:
            overflow, answer = False, self._too_large()
        if answer is not None and not started:
            await answer(scope, receive, watched)

    def _refused(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        if name.lower() not in self._hosts:
            return problem(
                400, f"this server is not known as {name[:100]!r}: ask for one of {', '.join(sorted(self._hosts))}"
            )
        try:
            if int(headers.get("content-length", "0")) > self._max_body:
                return self._too_large()
        except ValueError:
            return problem(400, "the Content-Length is not a number")
        if self._token is None or scope["path"] in _OPEN:
            return None
        if scope["path"] == "/" and (shown := parse_qs(scope["query_string"].decode("latin-1")).get("token")):
            if not self._is_token(shown[0]):
                return problem(401, "this is not the token of this server")
            answer = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, shown[0], httponly=True, samesite="strict")
            return answer
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return None
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        if cookie is not None and self._is_token(cookie.value):
            return None
        return problem(401, "this server wants a token: send it as Authorization: Bearer TOKEN, or open /?token=TOKEN")

    def _is_token(self, given: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token.encode())

    def _too_large(self) -> Response:
        return problem(413, f"the request is too large: at most {self._max_body >> 20} MB are read")


def problem(status: int, reason: str) -> JSONResponse:
    """An answer that says what is wrong."""
    return JSONResponse({"error": reason}, status)


def _secured(headers: MutableHeaders, path: str) -> None:
    documentation = path in ("/docs", "/redoc")
    facts: dict[str, Any] = {
        "content-security-policy": _POLICY.format(inline=" 'unsafe-inline'" if documentation else ""),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    for name, value in facts.items():
        headers.setdefault(name, value)
