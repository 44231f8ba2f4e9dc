"""The HTTP server, and what a connection may cost it before and after its requests.

Anyone who can connect can open sockets, without a token, so a place belongs to a connection only while the server
answers a complete request on it that `RequestGuard` let pass, and the client reads the answer. All other connections
can lose their place:

- those that have not sent a complete request: nothing, part of a head, part of a body, or nothing more after an answer;
- those whose request is refused, or needs no token: they end with it;
- those whose client does not read its answer.

If there are more than `most_connections` connections, the server closes those of the client address with the most
places that wait, least recently active first. Connections on which a request has passed `RequestGuard` keep theirs
while at most half of all places are such connections that wait: so those who have no token cannot close the connection
of a client that has one, even from its address. If no other waits, the server closes a new connection as soon as there
are `accepted_at_once` more. So idle sockets never keep a request out, one address never closes the connections of
another that has fewer, and files are left for the index. Independently of their number, connections end after
`IDLE_SECONDS` without a complete head, however slowly its bytes arrive, after `STALLED_SECONDS` in which nothing more
of a body arrives, and after `ANSWER_SECONDS` in one request.

This is the only module that uses uvicorn. It subclasses `H11Protocol`, because uvicorn has no time-outs for heads,
and its `limit_concurrency` counts idle connections as requests. WebSockets are not upgraded to: there are none here.
Nothing of a chunked body is parsed: `RequestGuard` refuses it, but only after what arrived with its head was parsed.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections import Counter
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from semcut.connector.explore.request_guard import HOLDS_A_PLACE

IDLE_SECONDS = 10.0
"""How long a connection may take to send the head of a request, from its start or from the end of the last answer."""

STALLED_SECONDS = 5.0
"""How long the next bytes of a body may take. It is checked as often, so it can be twice as long."""

ANSWER_SECONDS = 45.0
"""How long one request may take from its head until its answer is written: longer than `RequestGuard` allows it."""

STOP_SECONDS = 0.5
"""How long requests may go on after the server was asked to stop. What waits then is dropped."""

_MOST_CONNECTIONS = 512
_ACCEPTED_AT_ONCE = 128
_CLOSE = (b"connection", b"close")
_READ_BYTES = 1 << 14  # parsed at once: small pieces of a body cost far more time than their bytes


def most_connections() -> int:
    """Return the number of connections that may be open, at most a quarter of the files that this process may open."""
    return min(_MOST_CONNECTIONS, _most_files() // 4)


def accepted_at_once() -> int:
    """Return how many connections are accepted before what arrived on them is read, and how many the system keeps.

    Up to four times as many are open beyond `most_connections`: those that asyncio has accepted in the last two rounds
    of its loop, those that have not been judged or do not wait, and those that are being closed. Together with
    `most_connections` they take three quarters of the files that this process may open.
    """
    return min(_ACCEPTED_AT_ONCE, _most_files() // 8)


def _most_files() -> int:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if most == resource.RLIM_INFINITY else most


def create_server(app: ASGIApp, *, port: int = 0) -> uvicorn.Server:
    """Create the server of an application; the caller runs it, on sockets of its own or on a port of loopback."""
    config = uvicorn.Config(
        app, port=port, http=GuardedConnection, ws="none", backlog=accepted_at_once(), log_level="error",
        access_log=False, server_header=False, timeout_keep_alive=5,
        timeout_graceful_shutdown=STOP_SECONDS,  # type: ignore[arg-type]  # fractions work as well
    )  # fmt: skip
    return uvicorn.Server(config)


class _Parser(h11.Connection):
    """Parses requests, and nothing behind the head of one whose body is chunked, which is refused.

    Nor anything behind a body that was still arriving when an answer said that the connection ends: if it ended at
    once, the system would drop the answer when the rest of the body arrives.

    Where a head ends, and what is a header, only h11 decides: it accepts several ends of a line, in any pieces.
    """

    _chunked = _is_last = False
    is_over = False
    """Whether the last request and its answer are complete."""

    def send(self, event: h11.Event) -> bytes | None:  # type: ignore[override]
        """Return the bytes of an event; an end of the connection is stated at once, but waits for the body."""
        arriving = self.their_state is h11.SEND_BODY and not self._chunked
        if not arriving or not isinstance(event, h11.Response) or _CLOSE not in event.headers:
            return super().send(event)
        self._is_last = True
        headers = [header for header in event.headers if header != _CLOSE]
        head = super().send(h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)) or b""
        if b"\r\nconnection: close\r\n" in head.lower():  # as the client has asked for
            return head
        return head.removesuffix(b"\r\n") + b"connection: close\r\n\r\n"

    def start_next_cycle(self) -> None:
        """Get ready for the next request, if there may be one."""
        super().start_next_cycle()
        self.is_over = self._is_last

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return what comes next; `PAUSED` stops the reading."""
        if self._chunked or self.is_over:
            return h11.PAUSED
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunked = any(name == b"transfer-encoding" for name, _ in event.headers)
        return event


class GuardedConnection(H11Protocol):
    """A connection that can be closed at any time while it does not hold a complete request."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.conn: _Parser = _Parser(h11.SERVER)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place; other connections may have to leave theirs."""
        transport.max_size = _READ_BYTES  # type: ignore[attr-defined]  # without effect on transports that lack it
        self._active = self._since = self.loop.time()
        self._request: Any = None
        self._passed = False
        super().connection_made(transport)  # type: ignore[arg-type]
        self._timer = self.loop.call_later(STALLED_SECONDS, self._end_if_late)
        surplus = len(self.connections) - most_connections()
        if surplus > accepted_at_once():
            self._make_room()
        elif surplus > 0:
            # What the newest connections have sent is read in the next round of the loop, and they are judged after it.
            self.loop.call_soon(self.loop.call_soon, self._make_room)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the place."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived."""
        self._active = self.loop.time()
        super().data_received(data)
        if self.cycle is not self._request:
            self._request, self._since = self.cycle, self._active
        self._close_if_over()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._active = self._since = self.loop.time()
        self._passed = self._passed or bool(self.cycle.scope.get(HOLDS_A_PLACE, False))
        super().on_response_complete()
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self.conn.is_over:
            self.transport.close()

    @property
    def _answering(self) -> bool:
        """Whether a request is being answered, complete or not."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _waiting(self) -> bool:
        """Whether the connection has no right to its place now."""
        return not self._answering or self.cycle.more_body or self.flow.write_paused or not self._holds_a_place

    @property
    def _holds_a_place(self) -> bool:
        """Whether the last request passed; it has the benefit of the doubt, as no other follows one that did not."""
        return bool(self.cycle.scope.get(HOLDS_A_PLACE, True))

    def _make_room(self) -> None:
        """Close waiting connections until there are as many as there may be; this one if far too many do not wait."""
        surplus = len(self.connections) - most_connections()
        if surplus <= 0:
            return
        waiting = [one for one in self.connections if isinstance(one, GuardedConnection) and one._waiting]
        waiting.sort(key=lambda one: one._active, reverse=True)
        passed = [one for one in waiting if one._passed]
        others = [one for one in waiting if not one._passed]
        for group, spared in ((passed, most_connections() // 2), (others, 0)):
            surplus -= self._close_oldest(group, min(surplus, len(group) - spared))
        if len(self.connections) > most_connections() + accepted_at_once():
            self._end()

    @staticmethod
    def _close_oldest(group: list[GuardedConnection], number: int) -> int:
        """Close that many of a group, newest first, of the address with the most of them; return how many were closed.

        Closed connections are taken from the group.
        """
        places = Counter(one._address for one in group)
        for _ in range(number):
            most = max(places.values())
            oldest = next(at for at in reversed(range(len(group))) if places[group[at]._address] == most)
            connection = group.pop(oldest)
            places[connection._address] -= 1
            connection._end()
        return max(0, number)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _end_if_late(self) -> None:
        """Close the connection if its time is over, otherwise look again when it could be."""
        end = self._since + (ANSWER_SECONDS if self._answering else IDLE_SECONDS)
        if self._answering and self.cycle.more_body:
            end = min(end, self._active + STALLED_SECONDS)
        left = end - self.loop.time()
        if left <= 0:
            self._end()
        else:
            self._timer = self.loop.call_later(min(left, STALLED_SECONDS), self._end_if_late)

    def _end(self) -> None:
        """Close the connection at once, with an answer that its client does not read."""
        self.connections.discard(self)
        self.transport.abort()
