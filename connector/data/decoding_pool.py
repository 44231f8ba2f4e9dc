"""`DecodingPool`: processes that decode images, so that no image can harm this one.

The decoders of images are large programs in C, and each format has ways of its own to take memory or time out of all
proportion to its pixels, or to crash them. Here an image that does so costs one process, and gets a reason:

- It is decoded in a process of its own kind, see `decoding_worker`, with a limit of memory and of time (`Limits`). A
  process that dies, or takes too long, is replaced.
- A file is first decoded in `Limits.first` bytes, as many at a time as there are callers. One that may need more has
  the turn of the large ones: in `Limits.most` bytes, one at a time in the whole process, so the sum is bounded.
- This process opens the file and passes on its descriptor; it gets back pixels of the size that it asked for, or a
  text. No bytes of the file are looked at here.

A process is started when no other is idle, kept for the next image, and ended with this one, however that ends: on
Ctrl-C, by `atexit`, or because the system closes its socket. A process that waits takes about 25 MB. A forked child
has none of its parent's, and starts its own. It needs `sys.executable` to be a Python interpreter.

Memory cannot be limited on macOS; time can, and a crash harms nothing there either.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from importlib.util import find_spec
from typing import NamedTuple
from weakref import WeakSet

from semcut.connector.daemon_threads import DaemonThreads, result_of
from semcut.connector.data.decoding_messages import (
    ANSWER,
    HELLO,
    REQUEST,
    Answer,
    Outcome,
    Wanted,
    is_possible,
    not_decoded,
)
from semcut.indexes.errors import DataError

_PROGRAM = (
    "import sys; sys.path += sys.argv[2:]; from semcut.connector.data.decoding_worker import main; "
    "main(int(sys.argv[1]))"
)
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_MEMORY_RETURNS = {"MALLOC_MMAP_THRESHOLD_": str(1 << 22), "MALLOC_TRIM_THRESHOLD_": str(1 << 24)}
"""Has glibc return the pixels of a picture to the system when they are freed, whatever was allocated after them."""
_PACKAGES = ("semcut", "numpy", "PIL")
_LEAST_BYTES = 1 << 26
_START_SECONDS, _LONGER, _LOOK_SECONDS, _END_SECONDS = 120, 6, 0.5, 5
"""Seconds to wait for the start of a process; how many times longer than its processor time an image may take, for a
slow disk or a busy machine; how often to look whether Ctrl-C came just before a wait; and to wait for an end."""
_NONSENSE = "its decoder gave an answer of a wrong size"


class Limits(NamedTuple):
    """Limits of one image.

    Attributes:
        first: bytes of memory for an image that is decoded beside others.
        most: bytes of memory for an image that is decoded alone.
        seconds: of processor time; and six times as many seconds on the clock.
    """

    first: int = 1 << 29
    most: int = 1 << 31
    seconds: float = 20.0

    @classmethod
    def for_callers(cls, count: int) -> Limits:
        """Return limits for a number of callers at a time: 2 GiB for all but a large one, but 64 MiB for each."""
        every = cls()
        return cls(first=max(_LEAST_BYTES, min(every.first, every.most // count)))


class _Gone(Exception):
    """The process has ended before it answered, or is of no more use; the message is the reason."""


class _Killed(DataError):
    """A signal has ended the process before it was ready."""


class _Worker:
    """A process that decodes one image at a time."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _PROGRAM, str(theirs.fileno()), *_package_folders()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=(theirs.fileno(),),
                    bufsize=0,
                    env=os.environ | _ONE_THREAD | _MEMORY_RETURNS,
                    start_new_session=True,  # a terminal sends Ctrl-C to all processes of a session
                )
        except BaseException:
            self.socket.close()
            raise
        self._ready = False
        self.socket.settimeout(_LOOK_SECONDS)

    def ask(self, descriptor: int, wanted: Wanted, size: int, memory: int, seconds: float) -> Answer:
        """Have a file decoded.

        Raises:
            _Gone: the process has ended, or answers nonsense.
            TimeoutError: it takes too long.
            DataError: the process cannot be started.
        """
        if not self._ready:
            self._wait_until_ready()
        deadline = time.monotonic() + _LONGER * seconds
        request = REQUEST.pack(wanted, size, memory, max(1, round(seconds * 1000)))
        try:
            socket.send_fds(self.socket, [request], [descriptor])
        except OSError as error:
            raise _Gone(str(error)) from None
        head = ANSWER.unpack(self._receive(ANSWER.size, deadline))
        if not is_possible(head, wanted, size):
            raise _Gone(_NONSENSE)
        outcome, width, height, count = head
        content = self._receive(count, deadline)
        if outcome == Outcome.DECODED:
            return Answer(Outcome.DECODED, width, height, content)
        return Answer(Outcome(outcome), 0, 0, bytearray(), content.decode(errors="replace"))

    def _wait_until_ready(self) -> None:
        error = self.process.stderr
        assert error is not None
        killed = False
        try:
            reason = "" if self._receive(len(HELLO), time.monotonic() + _START_SECONDS) == HELLO else "it is another"
        except TimeoutError:
            reason = f"it is not ready after {_START_SECONDS} s"
        except _Gone:
            reason = f"it ended with {self.why()}"
            killed = (self.process.returncode or 0) < 0
        if reason:
            self.process.kill()
            lines = error.read(1 << 16).decode(errors="replace").strip().splitlines()
            raise (_Killed if killed else DataError)(
                f"cannot start the process that decodes images ({sys.executable}): {lines[-1] if lines else reason}"
            )
        error.close()
        self._ready = True

    def _receive(self, count: int, deadline: float) -> bytearray:
        found = bytearray(count)
        left = memoryview(found)
        while left:
            try:
                received = self.socket.recv_into(left)
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise
                continue
            except OSError as error:
                raise _Gone(str(error)) from None
            if not received:
                raise _Gone("")
            left = left[received:]
        return found

    def is_alive(self) -> bool:
        """Return whether the process has not ended."""
        return self.process.poll() is None

    def why(self) -> str:
        """Return how a process has ended that is at its end, for a sentence."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        status = self.process.returncode
        if status is None or status >= 0:
            return f"status {status}"
        return signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"

    def end(self) -> None:
        """End the process, if it has not ended."""
        with contextlib.suppress(OSError):
            self.process.kill()
        self._close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)

    def _close(self) -> None:
        self.socket.close()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def forget(self) -> None:
        """Close what a forked child has of its parent's process."""
        self._close()


def _package_folders() -> list[str]:
    """Return the folders in which the packages of a worker are found here, for its `sys.path`."""
    found = [find_spec(name) for name in _PACKAGES]
    files = [os.path.abspath(str(spec.origin)) for spec in found if spec is not None]
    return list(dict.fromkeys(os.path.dirname(os.path.dirname(file)) for file in files))


class DecodingPool:
    """Processes that decode images. Several threads may use a pool at once."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        # single operations on these are atomic, so Ctrl-C and threads need no lock; a process that Ctrl-C has taken
        # from both the idle ones and the call that wanted it is collected, which closes its socket
        self._all: WeakSet[_Worker] = WeakSet()
        self._idle: deque[_Worker] = deque()
        self._started: set[subprocess.Popen[bytes]] = set()  # waited for here: Ctrl-C may end a finaliser that would
        self._large = threading.Lock()
        self._closed = False

    def ask(self, descriptor: int, wanted: Wanted, size: int = 0, limits: Limits | None = None) -> Answer:
        """Have a file decoded.

        Args:
            descriptor: an open file, which stays open; its position changes.
            wanted: what is asked for.
            size: pixels per side, for `Wanted.FIT` and `Wanted.WITHIN`.
            limits: memory and time for it.

        Returns:
            The picture, or the reason why there is none.

        Raises:
            DataError: the processes cannot be started.
        """
        limits = limits or Limits()
        answer = self._try(descriptor, wanted, size, limits.first, limits)
        if answer.outcome == Outcome.MORE_MEMORY and limits.first < limits.most:
            with self._large:
                answer = self._try(descriptor, wanted, size, limits.most, limits)
        return answer

    def _try(self, descriptor: int, wanted: Wanted, size: int, memory: int, limits: Limits) -> Answer:
        try:
            return self._try_once(descriptor, wanted, size, memory, limits)
        except _Killed:  # by the system, which needs memory, or by a person; no image was to blame
            return self._try_once(descriptor, wanted, size, memory, limits)

    def _try_once(self, descriptor: int, wanted: Wanted, size: int, memory: int, limits: Limits) -> Answer:
        worker: _Worker | None = None
        try:
            worker = self._take()
            answer = worker.ask(descriptor, wanted, size, memory, limits.seconds)
            self._idle.append(worker)
            worker = None
            return answer
        except TimeoutError:
            return not_decoded(f"takes more than {_LONGER * limits.seconds:g} s to decode")
        except _Gone as gone:
            assert worker is not None
            reason = str(gone) or worker.why()
            if reason == signal.SIGPROF.name:
                return not_decoded(f"takes more than {limits.seconds:g} s of processor time to decode")
            reason = f"broken image: its decoder has ended ({reason}), with {memory:,} bytes of memory"
            return not_decoded(reason)._replace(outcome=Outcome.MORE_MEMORY)
        finally:
            if worker is not None:
                self._end(worker)

    def _end(self, worker: _Worker) -> None:
        self._all.discard(worker)  # first: a process that is in no list is ended and waited for, also after Ctrl-C
        worker.end()

    def _take(self) -> _Worker:
        """Return a process that nothing else uses."""
        for process in list(self._started):  # the set itself stays, since another thread may be adding to it
            if process.poll() is not None:
                self._started.discard(process)
        while True:
            with contextlib.suppress(IndexError):
                worker = self._idle.pop()
                if worker.is_alive():
                    return worker
                self._end(worker)
                continue
            if self._closed:
                raise DataError("cannot decode an image: the process is about to end")
            # in another thread: Ctrl-C while a process is started would lose its id, and so leave a zombie
            threads = DaemonThreads(1, "starting")
            try:
                result_of(threads.submit(self._start))
            finally:
                threads.stop()

    def _start(self) -> None:
        """Start a process, which is idle then."""
        try:
            worker = _Worker()
        except OSError as error:
            raise DataError(
                f"cannot start the process that decodes images ({sys.executable}): {error.strerror or error}"
            ) from None
        self._started.add(worker.process)
        self._all.add(worker)
        self._idle.append(worker)

    def prepare(self) -> None:
        """Start a process, if there is none, without waiting for it."""
        if not self._all:
            self._start()

    def end_idle(self, most: int) -> None:
        """End the processes that are idle, but for a number of them."""
        while len(self._idle) > most:
            with contextlib.suppress(IndexError):
                self._end(self._idle.popleft())

    def close(self) -> None:
        """End all processes."""
        self._closed = True
        while self._all:
            with contextlib.suppress(KeyError):
                self._all.pop().end()
        self._idle.clear()

    def forget(self) -> None:
        """Begin anew in a forked child."""
        for worker in self._all:
            worker.forget()
        for process in list(self._started):
            process.returncode = 0  # not a child of this process: nothing to wait for
        self._reset()


POOL = DecodingPool()
"""The processes of this process."""

atexit.register(POOL.close)
os.register_at_fork(after_in_child=POOL.forget)
