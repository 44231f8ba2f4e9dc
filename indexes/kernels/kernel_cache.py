"""Find the directory of compiled kernels, and start a process that fills it. Imports neither numba nor llvmlite.

The kernels of one version of the sources, compiled for one kind of processor, have a directory of their own:

    semcut-DIGEST/       the digest covers everything that compiled kernels depend on
        *.nbi, *.nbc     numba's files
        complete         written last: names and sizes of the files of all kernels
        lock             locked by the process that compiles; one byte for each process that a search has started

The directory is where numba would store its files: in the directory that the environment variable NUMBA_CACHE_DIR
names. Without the variable, it is in `kernels/__pycache__` of this package or, if that cannot be written to, in the
user's cache. Ready kernels are also used from a read-only directory, such as one that was filled while a container
image was built.
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
from typing import Any

from semcut.indexes.errors import SemcutWarning
from semcut.indexes.regular_files import open_descriptor, read_json

DIRECTORY_VARIABLE = "NUMBA_CACHE_DIR"

_HERE = Path(__file__).parent
_INDEXES = _HERE.parent
_SOURCES = (
    "kernels/jit.py",
    "search/near_pairs.py",
    "search/numba_arrays.py",
    "encodings.py",
    "pruning/cell_table.py",
    "pruning/class_lists.py",
    "scoring/rounding.py",
    "search/tie_order.py",
    "search_tuning.py",
)
"""Sources of kernels besides the modules named *_numba: decorators, argument types and constants."""
_COMPLETE, _LOCK = "complete", "lock"
_MAX_STARTS = 3
"""The largest number of processes that are started to fill one directory."""
_KEPT_VERSIONS = 4
"""The number of directories of other versions that are not deleted when a directory has been filled."""
_RECHECK_SECONDS = 5.0
"""Time in seconds for which `start_compiling` assumes that a process is compiling before it checks again."""

_PACKAGE = __package__.rpartition(".")[0]
_COMPILE = f"""
import os, sys
if os.fork():
    os._exit(0)  # so that no parent must wait for the process that compiles
os.nice(19)
sys.path[:] = sys.argv[1:]
from {_PACKAGE}.warmup import compile_kernels
compile_kernels()
"""

_next_check = 0.0  # time.monotonic() until which `start_compiling` assumes that a process is compiling


class KernelCacheWarning(SemcutWarning):
    """Compiled kernels cannot be stored or used, so searches are slower."""


@cache
def digest() -> str:
    """Return 16 hexadecimal digits that cover everything that compiled kernels depend on.

    These are the sources of the kernels, the versions of Python, numba and llvmlite, and the processor.
    """
    sources = (*sorted(_INDEXES.glob("*/*_numba.py")), *(_INDEXES / name for name in _SOURCES))
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
    """Return the model and the instructions of the first processor, as Linux reports them."""
    names = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU variant", "CPU part", "Features")
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line.partition(":") for line in takewhile(str.strip, file)]
    except OSError:
        return [platform.processor()]
    return [value.strip() for name, _, value in lines if name.strip() in names]


def candidate_directories() -> list[Path]:
    """List the directories in which kernels of this version may be stored, the preferred one first."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    if given:
        parents = [Path(given).absolute()]
    else:
        cached = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        parents = [_HERE / "__pycache__", Path(cached) / "numba"]
    # a path still begins with "~" if the user has no home directory
    return [parent / f"semcut-{digest()}" for parent in parents if parent.is_absolute()]


def ready_directory() -> Path | None:
    """Return the directory in which all kernels are ready, or None. Takes microseconds if there is none."""
    return next((directory for directory in candidate_directories() if is_complete(directory)), None)


def is_complete(directory: Path) -> bool:
    """Return whether all kernels are stored in a directory, as `mark_complete` has found them."""
    try:
        files: Any = read_json(directory / _COMPLETE)
        return all(os.stat(os.path.join(directory, name)).st_size == size for name, size in files.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def writable_directory() -> Path | None:
    """Return the directory to store kernels in, created if missing; None if no directory can be written to."""
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
        files: the files of all kernels. The directory is complete while it has these files with their present sizes.

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
    """Take the lock of a directory, and delete the unfinished files that another process has left there.

    Returns:
        A file descriptor, or None if another process has the lock. The lock lasts until the descriptor is closed in
        every process that has inherited it.

    Raises:
        OSError: the directory cannot be written to, or its file system has no locks.
    """
    handle = open_descriptor(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_complete(directory):
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
    """Start one process on this machine that compiles the kernels, detached and at the lowest priority.

    Searches call this repeatedly until the kernels are ready. While a process is compiling, a call does nothing. If the
    process ends before the kernels are ready, a call starts another process, after `_RECHECK_SECONDS` at most. For each
    directory, `_MAX_STARTS` processes are started at most.

    Returns:
        Whether the kernels should become ready: a process was started, or is compiling already. If not, a
        `KernelCacheWarning` gives the reason.
    """
    global _next_check
    if time.monotonic() < _next_check:
        return True
    if not _start_if_idle():
        return False
    _next_check = time.monotonic() + _RECHECK_SECONDS
    return True


def _start_if_idle() -> bool:
    """Start a process that compiles, unless one has the lock of the directory; return as `start_compiling` does."""
    directory = writable_directory()
    if directory is None:
        warn_once(f"{why_not_kept()}; FAISS scans instead, several times slower")
        return False
    try:
        handle = lock_directory(directory)
        if handle is None:
            return True
        try:
            if is_complete(directory):
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
    """Return the sentence that says why kernels cannot be stored, and what to do."""
    tried = " and ".join(str(directory.parent) for directory in candidate_directories())
    return (
        f"compiled search kernels cannot be stored, {tried} cannot be written to: set {DIRECTORY_VARIABLE} to a "
        "writable directory"
    )


@cache
def warn_once(text: str) -> None:
    """Issue a `KernelCacheWarning`, with the same text only once in a process."""
    warnings.warn(text, KernelCacheWarning, stacklevel=2)
