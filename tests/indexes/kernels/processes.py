"""Python processes with a cache of compiled kernels of their own. None of them outlives the test that started it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from semcut.indexes.kernels import kernel_cache

ROOT = Path(__file__).parents[3]

SECONDS = 300
"""Seconds that a test waits for a process: much longer than a process takes on a busy machine."""

PRELUDE = """
import sys, numpy as np
from semcut.indexes import FaissIndex, IndexConfig
from semcut.indexes.kernels import kernel_cache
from tests.indexes.generate import classified
config = IndexConfig(classes=10, bits=64, dim=8)
rng = np.random.default_rng(0)
records, queries = classified(rng, config, 2000), classified(rng, config, 20)
def engine(index):
    return type(index.scanner).__name__
def answer(index, **parameters):
    results = [index.search(queries, k=5, shortlist=shortlist, **parameters) for shortlist in (None, 15)]
    return [[result.ids.tolist(), result.distances.tolist()] for result in results]
"""


def environment(cache: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a process that stores compiled kernels in `cache`."""
    inherited = {name: value for name, value in os.environ.items() if name != "SEMCUT_ENGINE"}
    return {**inherited, "NUMBA_CACHE_DIR": str(cache), **variables}


class Processes:
    """Starts processes; `kill` ends all of them, and the background processes that they have started."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []
        self._caches: set[Path] = set()

    def start(
        self, cache: Path, script: str, *arguments: object, errors: int = subprocess.PIPE, **variables: str
    ) -> subprocess.Popen[str]:
        """Start a Python process with the records of `PRELUDE`, in a session of its own."""
        self._caches.add(cache)
        process = subprocess.Popen(
            [sys.executable, "-W", "default", "-c", PRELUDE + script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(cache, **variables),
            cwd=ROOT,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def output(self, cache: Path, script: str, **variables: str) -> tuple[list[str], str]:
        """Return the lines of standard output, and the standard error, of a process that must end without an error."""
        process = self.start(cache, script, **variables)
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
        return out.splitlines(), err

    def kill(self) -> None:
        """Kill every process that is still running. No process is left when this returns."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it forked
            process.wait(timeout=SECONDS)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        for cache in self._caches:
            kill_compiling(cache)


@contextlib.contextmanager
def killed_at_the_end() -> Iterator[Processes]:
    """Return a context with a `Processes`. Its processes are killed when the block ends, also after an error."""
    processes = Processes()
    try:
        yield processes
    finally:
        processes.kill()


def compiling(cache: Path) -> list[int]:
    """Return the ids of the processes that compile into a directory."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            about = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            if b"warmup import compile_kernels" in about and f"NUMBA_CACHE_DIR={cache}\0".encode() in about:
                found.append(int(place.name))
    return found


def kill_compiling(cache: Path) -> None:
    """Kill the processes that compile into a directory, and wait until they have ended."""
    for process in compiling(cache):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    wait_until(lambda: not compiling(cache))


def directory_in(cache: Path) -> Path:
    """Return the directory of kernels in a cache."""
    return cache / f"semcut-{kernel_cache.digest()}"


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until a condition is true, and fail after some time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def wait_for_lock(file: Path, seconds: float = SECONDS) -> None:
    """Wait until no process has the lock of a file."""

    def is_free() -> bool:
        with open(file) as opened, contextlib.suppress(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    wait_until(is_free, seconds)


def first_line(process: subprocess.Popen[str]) -> str:
    """Return the first line that a process prints; it must print it in one piece."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], SECONDS)[0], "the process prints nothing"
    return process.stdout.readline()


def read_terminal(descriptor: int) -> bytes:
    """Return what is written to a terminal until its other end is closed, and close this end."""
    shown, deadline = b"", time.monotonic() + SECONDS
    with contextlib.suppress(OSError):  # Linux reports the closed end as an error
        while select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
            part = os.read(descriptor, 1000)
            if not part:
                break
            shown += part
    os.close(descriptor)
    assert time.monotonic() < deadline, "the terminal stays open"
    return shown
