"""`BodyReader`: reads the bodies of requests into memory that is bounded for all requests together.

- A body must state its size. The pieces of a chunked body cost far more time than their bytes, and nobody knows where
  they end before the memory is taken.
- All large bodies together hold at most `LARGE_BODIES` bytes, counted as they arrive and until their request is over. A
  body for which there is no space left is refused; the client may try again.
- A body that stops arriving ends with its connection: see `connection_guard`.
- A large body can only be a search with an image in base64, which has few signs other than the letters of the image.
  Everything else is refused before it is parsed: millions of small JSON values take seconds and gigabytes.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope

from semcut.connector.explore.error_responses import busy_response, error_response
from semcut.connector.models.device import release_freed_memory

LARGE_BODIES = 64 << 20
"""Bytes that all large bodies together may hold: three of the largest."""

SMALL_BODY = 1 << 12
"""Bytes up to which a body is small. A search without an image has a few hundred."""

_RELEASED_BYTES = 1 << 22  # a body that is larger is worth the milliseconds that returning its memory takes
_MOST_SIGNS = 100  # of one kind in a large body; a search with an image has far fewer


class BodyReader:
    """Reads bodies, all of which share one limit of memory.

    Args:
        max_body: maximum size of one body, in bytes.
    """

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._held = 0

    def refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the response to a request whose body must not be read, None if it may be read."""
        if "transfer-encoding" in headers:
            return error_response(411, "a body must state its size: send it whole, with a Content-Length")
        try:
            size = int(headers.get("content-length", "0"))
        except ValueError:
            return error_response(400, "the Content-Length is not a number")
        if size and scope["method"] != "POST":
            return error_response(400, f"a {scope['method']} request has no body here: send none")
        if size > self._max_body:
            return error_response(413, f"the request is too large: at most {self._max_body >> 20} MiB are read")
        return None

    async def read(self, receive: Receive, claim: BodyClaim) -> bytes | Response | None:
        """Read a body whose headers were not refused.

        Args:
            receive: the function of ASGI.
            claim: gets the bytes that the body holds.

        Returns:
            The body; a response if it cannot be read; None if the client has left.
        """
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_body:  # a server that does not compare a body with its Content-Length
                return error_response(413, f"the request is too large: at most {self._max_body >> 20} MiB are read")
            if len(body) > SMALL_BODY and not claim.grow_to(len(body)):
                return busy_response("the server holds as many images as it can: try again in a moment")
        if len(body) > SMALL_BODY and any(body.count(sign) > _MOST_SIGNS for sign in b'"[{,:'):
            return error_response(422, "the request has too many fields or values")
        return bytes(body)

    def claim(self) -> BodyClaim:
        """Return a claim of no bytes yet; a context manager that gives its bytes back."""
        return BodyClaim(self)

    def _change(self, by: int) -> bool:
        if by > 0 and self._held + by > LARGE_BODIES:
            return False
        self._held += by
        return True

    def _release(self, size: int) -> None:
        """Give bytes back; if no body is held any more, the memory returns to the system."""
        self._held -= size
        if size > _RELEASED_BYTES and not self._held:
            asyncio.get_running_loop().run_in_executor(None, release_freed_memory)


class BodyClaim:
    """The bytes that one large body holds, of all that a `BodyReader` may hold."""

    def __init__(self, reader: BodyReader) -> None:
        self._reader, self._bytes = reader, 0

    def __enter__(self) -> BodyClaim:
        return self

    def __exit__(self, *exception: object) -> None:
        self._reader._release(self._bytes)

    def grow_to(self, size: int) -> bool:
        """Hold this many bytes in all; False, and no change, if there is not so much space."""
        if not self._reader._change(size - self._bytes):
            return False
        self._bytes = size
        return True
