"""Find the directory that keeps compiled kernels, and have a process fill it. Imports neither numba nor llvmlite.

The kernels of one version of the sources, compiled for one kind of processor, have a directory of their own:

    semcut-DIGEST/       the digest covers everything that compiled kernels depend on
        *.nbi, *.nbc     numba's files
        complete         written last: names and sizes of the files of all kernels
        lock             locked by the process that compiles; one byte for each process that a search has started

It lies where numba would put it: in the directory that the environment variable NUMBA_CACHE_DIR names; without that in
`kernels/__pycache__` of this package or, if that cannot be written to, in the user's cache. Kernels that are ready are
also used from a directory that cannot be written to, such as one that was filled while a container image was built.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from shutil import rmtree

DIRECTORY_VARIABLE = "NUMBA_CACHE_DIR"

_HERE = Path(__file__).parent
_INDEXES = _HERE.parent
_SOURCES = (
    "kernels/jit.py",
    "search/kernel_arrays.py",
    "encodings.py",
    "pruning/cell_table.py",
    "pruning/class_lists.py",
    "scoring/rounding.py",
    "search/tie_order.py",
    "search_tuning.py",
)
"""What is compiled into kernels besides the modules named *_kernel: decorators, argument types and constants."""
_COMPLETE, _LOCK = "complete", "lock"
_MAX_STARTS = 3
"""Processes that may fail to fill a directory before no further one is started."""
_KEPT_VERSIONS = 4
"""Directories of other versions that are kept when one has been filled."""
_RECHECK_SECONDS = 5.0
"""For how long `start_compiling` trusts that a process is compiling before it looks again."""

_PACKAGE = __package__.rpartition(".")[0]
_COMPILE = f"""
import os, sys
if os.fork():
    os._exit(0)  # the process that compiles has no parent that would have to wait for it
os.nice(19)
sys.path[:] = sys.argv[1:]
from {_PACKAGE}.warmup import compile_kernels
compile_kernels()
"""

_next_check = 0.0  # time.monotonic() before which a process is taken to be compiling


class KernelCacheWarning(UserWarning):
    """Searches are slower than they could be, because compiled kernels cannot be kept or used."""


@cache
def digest() -> str:
    """Return 16 hexadecimal digits that cover everything compiled kernels depend on.

    These are their sources, the versions of Python, numba and llvmlite, and the processor.
    """
    sources = (*sorted(_INDEXES.glob("*/*_kernel.py")), *(_INDEXES / name for name in _SOURCES))
    about = (
        __package__,
        sys.version,
        version("numba"),
        version("llvmlite"),
        platform.machine(),
        *_processor(),
        *(os.environ.get(name, "") for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")),
        *(hashlib.sha256(file.read_bytes()).hexdigest() for file in sources),
    )
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]


def _processor() -> list[str]:
    """Return what Linux reports of the model and the instructions of the first processor."""
    names = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU variant", "CPU part", "Features")
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line.partition(":") for line in takewhile(str.strip, file)]
    except OSError:
        return [platform.processor()]
    return [value.strip() for name, _, value in lines if name.strip() in names]


def candidate_directories() -> list[Path]:
    """List the directories in which kernels of this version may be, the preferred one first."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        parents = [Path(given).absolute()]
    else:
        cached = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        parents = [_HERE / "__pycache__", Path(cached) / "numba"]
    # a path that still begins with "~" belongs to a user without a home directory
    return [parent / f"semcut-{digest()}" for parent in parents if parent.is_absolute()]


def ready_directory() -> Path | None:
    """Return the directory in which all kernels are ready, or None. Takes microseconds where none are."""
    return next((directory for directory in candidate_directories() if _is_complete(directory)), None)


def _is_complete(directory: Path) -> bool:
    try:
        with open(directory / _COMPLETE, "rb") as file:
            files: dict[str, int] = json.load(file)
        return all(os.stat(os.path.join(directory, name)).st_size == size for name, size in files.items())
    except (OSError, ValueError, AttributeError):
        return False


def writable_directory() -> Path | None:
    """Return the directory to keep kernels in, and make it if it is missing; None if none can be written to."""
    for directory in candidate_directories():
        with suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=directory).close()
            return directory
    return None


def mark_complete(directory: Path, files: Iterable[Path]) -> None:
    """Mark a directory as complete, and delete the oldest directories of other versions.

    Args:
        directory: the directory.
        files: the files that must be there, with their present sizes, for the directory to count as complete.

    Raises:
        OSError: a file is missing, or the disk refuses to write.
    """
    sizes = {os.path.relpath(file, directory): file.stat().st_size for file in files}
    written = directory / f"{_COMPLETE}.{os.getpid()}"
    written.write_text(json.dumps(sizes))
    written.replace(directory / _COMPLETE)
    with suppress(OSError):
        os.truncate(directory / _LOCK, 0)
    with suppress(OSError):
        others = [other for other in directory.parent.glob("semcut-*") if other != directory]
        others.sort(key=lambda other: other.stat().st_mtime)
        for other in others[:-_KEPT_VERSIONS]:
            rmtree(other, ignore_errors=True)


def lock_directory(directory: Path) -> int | None:
    """Take the lock of a directory, and delete what another process left there unfinished.

    Returns:
        A file descriptor, or None if another process has the lock. The lock lasts until the descriptor is closed in
        every process that has inherited it.

    Raises:
        OSError: the directory cannot be written to, or its file system has no locks.
    """
    handle = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_complete(directory):
            for file in directory.iterdir():
                if file.name != _LOCK:
                    file.unlink()
    except BaseException as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return handle


def start_compiling() -> bool:
    """Have one process of this machine compile the kernels, detached and at the lowest priority.

    A search may call this again and again until the kernels are ready. While a process is compiling, a call does
    nothing; once that process has ended before the kernels were ready, a call starts another one, within
    `_RECHECK_SECONDS`. Each directory gets `_MAX_STARTS` processes at most.

    Returns:
        Whether kernels can be expected to become ready: a process was started, or is at work already. Otherwise there
        is a `KernelCacheWarning`.
    """
    global _next_check
    if time.monotonic() < _next_check:
        return True
    if not _start_if_idle():
        return False
    _next_check = time.monotonic() + _RECHECK_SECONDS
    return True


def _start_if_idle() -> bool:
    """Start a process that compiles, unless one has the lock of the directory; returns as `start_compiling`."""
    directory = writable_directory()
    if directory is None:
        warn_once(f"{why_not_kept()}; FAISS scans instead, several times slower")
        return False
    try:
        handle = lock_directory(directory)
        if handle is None:
            return True
        try:
            if _is_complete(directory):
                return True
            if os.fstat(handle).st_size >= _MAX_STARTS:
                warn_once(
                    f"search kernels could not be compiled, {_MAX_STARTS} processes that tried have ended too early: "
                    "FAISS scans instead, several times slower; run `semcut warmup` to see why"
                )
                return False
            os.write(handle, b".")
            subprocess.Popen(
                [sys.executable, "-c", _COMPILE, *map(os.path.abspath, sys.path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[handle],  # the process that compiles inherits the lock, and keeps it until it ends
            ).wait()
            return True
        finally:
            os.close(handle)
    except OSError as error:
        warn_once(
            f"search kernels cannot be compiled into {directory}: {error.strerror or error}; FAISS scans instead, "
            "several times slower"
        )
        return False


def why_not_kept() -> str:
    """Return the sentence that says why kernels cannot be kept, and what to do about it."""
    tried = " nor ".join(str(directory.parent) for directory in candidate_directories())
    return (
        f"compiled search kernels cannot be kept, {tried} cannot be written to: set {DIRECTORY_VARIABLE} to a "
        "directory that can"
    )


@cache
def warn_once(text: str) -> None:
    """Give a `KernelCacheWarning`, the same text only once in a process."""
    warnings.warn(text, KernelCacheWarning, stacklevel=2)
