"""The process that decodes images: `main` answers the requests of its parent until their socket is closed.

`decoding_pool` starts it as a fresh interpreter, and `decoding_messages` says what they send each other. The process

- takes no more memory for an image than is asked for, besides its own (RLIMIT_AS). Where the system does not keep to
  that limit, as macOS, only the limit of time holds;
- ends when an image takes more processor time than is asked for (SIGPROF), also inside a decoder written in C;
- ends as soon as its parent is gone, however that has ended: the system then sends SIGIO, or the socket is at its end;
- writes no file, dumps no core, opens at most `_FILES` files, and ignores Ctrl-C, which is the parent's matter.

It loads Pillow, numpy and what decodes images, and neither torch nor faiss.
"""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import signal
import socket
import warnings
from contextlib import suppress

from semcut.connector.data.decode_stream import MoreMemory, UnreadableImage, decode_stream, fit, read_header
from semcut.connector.data.decoding_messages import ANSWER, HELLO, REASON_BYTES, REQUEST, Outcome, Wanted
from semcut.connector.data.pillow import Image

_FILES, _SMALL_BYTES = 16, 1 << 16
_STANDARD = (0, 1, 2)


_KEPT_BYTES = 1 << 26
"""A process that keeps more memory than this after an image ends, and another takes its place."""


def main(descriptor: int) -> None:
    """Answer requests until the parent closes the connection.

    Args:
        descriptor: a socket that is connected to the parent.
    """
    for kind in (signal.SIGIO, signal.SIGPROF, signal.SIGTERM):
        signal.signal(kind, signal.SIG_DFL)  # the parent may ignore them, which a child inherits
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # `decode_stream` has a limit of its own, with a better reason
    parent = socket.socket(fileno=descriptor)
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, _FILES)):
        _lower(limit, value)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in _STANDARD:
        os.dup2(nothing, standard)
    os.close(nothing)
    with suppress(ConnectionError):
        _Decoder(parent).run()


def _own_bytes() -> tuple[int, int] | None:
    """Return the size of this process, and how much of it is in memory; None where that cannot be known."""
    try:
        with open("/proc/self/statm", "rb") as stream:
            size, resident = (int(pages) * resource.getpagesize() for pages in stream.read().split()[:2])
            return size, resident
    except OSError:
        return None


def _lower(limit: int, value: int) -> None:
    """Lower a limit of this process for good, or leave it where the system refuses."""
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(limit, (value, value))


class _Decoder:
    """Answers requests; what a request changes of the process is changed only if it differs from the last one."""

    def __init__(self, parent: socket.socket) -> None:
        self._parent, self._own, self._memory = parent, _own_bytes(), -1
        fcntl.fcntl(parent, fcntl.F_SETOWN, os.getpid())
        self._flags = fcntl.fcntl(parent, fcntl.F_GETFL) & ~os.O_ASYNC

    def run(self) -> None:
        """Answer requests until the parent is gone."""
        gc.collect()
        gc.freeze()
        self._parent.sendall(HELLO)
        while self._answer():
            pass

    def _answer(self) -> bool:
        """Answer one request; False if the parent is gone, or if too much memory cannot be given back."""
        head, descriptors, *_ = socket.recv_fds(self._parent, REQUEST.size, 1)
        while head and len(head) < REQUEST.size:
            rest = self._parent.recv(REQUEST.size - len(head))
            head = head + rest if rest else b""
        if not head or not descriptors:
            return False
        wanted, size, memory, milliseconds = REQUEST.unpack(head)
        self._limit_memory(memory)
        signal.setitimer(signal.ITIMER_PROF, milliseconds / 1000)
        self._end_with_parent(True)
        outcome, shape, content = _decode(descriptors[0], Wanted(wanted), size, memory)
        self._end_with_parent(False)
        signal.setitimer(signal.ITIMER_PROF, 0)
        head = ANSWER.pack(outcome, *shape, len(content))
        if len(content) <= _SMALL_BYTES:
            head, content = head + content, b""  # the parent wakes once
        self._parent.sendall(head)
        self._parent.sendall(content)
        del content
        gc.collect()  # Pillow's pictures refer to themselves, and some keep the whole file
        now = _own_bytes()
        return self._own is None or now is None or now[1] - self._own[1] <= _KEPT_BYTES

    def _limit_memory(self, memory: int) -> None:
        if self._own is None or memory == self._memory:
            return
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = self._own[0] + memory
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
        self._memory = memory

    def _end_with_parent(self, wanted: bool) -> None:
        """Have the system end this process when the parent closes the connection, or do so no more."""
        fcntl.fcntl(self._parent, fcntl.F_SETFL, self._flags | (os.O_ASYNC if wanted else 0))
        if wanted:
            with suppress(BlockingIOError):
                self._parent.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                os._exit(0)  # it was closed before; the parent sends nothing now


def _decode(descriptor: int, wanted: Wanted, size: int, memory: int) -> tuple[Outcome, tuple[int, int], bytes]:
    try:
        with open(descriptor, "rb") as stream:
            if wanted == Wanted.HEADER:
                with read_header(stream) as image:
                    return Outcome.DECODED, image.size, b""
            return Outcome.DECODED, *_pixels(decode_stream(stream, memory), wanted, size)
    except MoreMemory as reason:
        return Outcome.MORE_MEMORY, (0, 0), _text(reason)
    except MemoryError:
        return Outcome.MORE_MEMORY, (0, 0), _text(f"takes more than {memory:,} bytes of memory to decode")
    except UnreadableImage as reason:
        return Outcome.PASSING if reason.passing else Outcome.REFUSED, (0, 0), _text(reason)
    except Exception as error:  # in what is done with the pixels of a picture that was decoded
        return Outcome.PASSING, (0, 0), _text(f"cannot be prepared: {error or type(error).__name__}")


def _text(reason: object) -> bytes:
    return str(reason)[: REASON_BYTES // 4].encode(errors="replace")


def _pixels(image: Image.Image, wanted: Wanted, size: int) -> tuple[tuple[int, int], bytes]:
    if wanted == Wanted.CHECK:
        return image.size, b""
    if wanted == Wanted.FIT:
        return (size, size), fit(image, size).tobytes()
    if wanted == Wanted.WITHIN:
        image.thumbnail((size, size))
    return image.size, image.tobytes()
