"""Where compiled kernels are kept, and whether they are ready there. Imports neither numba nor llvmlite.

Kernels of one version, compiled for one kind of processor, have a directory of their own:

    semcut-DIGEST/       the digest covers all that compiled kernels depend on
        *.nbi, *.nbc     numba's files
        complete         written last: names and sizes of the files of all kernels
        lock             locked by the process that compiles; a byte for each process started beside a search

It lies where numba would put it: in the directory that the environment variable NUMBA_CACHE_DIR names; without that in
`kernels/__pycache__` of this package or, if that cannot be written to, in the user's cache. Kernels that are ready are
also used from a directory that cannot be written to, such as one that was filled while an image was built.
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
import warnings
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from shutil import rmtree

VARIABLE = "NUMBA_CACHE_DIR"

_HERE = Path(__file__).parent
_INDEXES = _HERE.parent
_SOURCES = (  # beside the modules named *_kernel: how they are compiled, what they are given, the constants they take
    "kernels/jit.py",
    "search/kernel_arrays.py",
    "encodings.py",
    "pruning/cells.py",
    "pruning/class_lists.py",
    "scoring/rounding.py",
    "search/tie_order.py",
)
_COMPLETE, _LOCK = "complete", "lock"
_STARTS = 3  # processes that may fail to compile, before no other one is started
_OTHERS = 4  # directories of other versions that are left when one has been filled

_BESIDE = f"""
import os, sys
if os.fork():
    os._exit(0)  # what compiles is nobody's child, and nobody has to wait for it
os.nice(19)
sys.path[:] = sys.argv[1:]
from {__package__}.warmup import fill
fill()
"""


class KernelCacheWarning(UserWarning):
    """Searches are slower than they could be, since compiled kernels cannot be kept."""


@cache
def digest() -> str:
    """All that compiled kernels depend on, in 16 hexadecimal digits: their sources, Python, numba, llvmlite and the
    processor."""
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
    """What Linux says of the model and the instructions of the first processor."""
    names = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU variant", "CPU part", "Features")
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line.partition(":") for line in takewhile(str.strip, file)]
    except OSError:
        return [platform.processor()]
    return [value.strip() for name, _, value in lines if name.strip() in names]


def candidates() -> list[Path]:
    """The directories in which kernels of this version may be, the preferred one first."""
    given = os.environ.get(VARIABLE)
    if given:
        homes = [Path(given).absolute()]
    else:
        cached = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        homes = [_HERE / "__pycache__", Path(cached) / "numba"]
    return [home / f"semcut-{digest()}" for home in homes if home.is_absolute()]  # "~" stays where there is no home


def found() -> Path | None:
    """The directory where all kernels are ready, or None. Costs microseconds where they are not."""
    return next((folder for folder in candidates() if _is_complete(folder)), None)


def _is_complete(folder: Path) -> bool:
    try:
        with open(folder / _COMPLETE, "rb") as file:
            files: dict[str, int] = json.load(file)
        return all(os.stat(os.path.join(folder, name)).st_size == size for name, size in files.items())
    except (OSError, ValueError, AttributeError):
        return False


def target() -> Path | None:
    """The directory to keep kernels in, made where it is missing; None if none can be written to."""
    for folder in candidates():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
    return None


def complete(folder: Path, files: Iterable[Path]) -> None:
    """Mark a directory as complete, and delete the oldest of the directories of other versions.

    Args:
        folder: the directory.
        files: what must be there for it to count as complete.

    Raises:
        OSError: a file is missing, or the disk refuses.
    """
    sizes = {os.path.relpath(file, folder): file.stat().st_size for file in files}
    written = folder / f"{_COMPLETE}.{os.getpid()}"
    written.write_text(json.dumps(sizes))
    written.replace(folder / _COMPLETE)
    with suppress(OSError):
        os.truncate(folder / _LOCK, 0)
    with suppress(OSError):
        others = [other for other in folder.parent.glob("semcut-*") if other != folder]
        others.sort(key=lambda other: other.stat().st_mtime)
        for other in others[:-_OTHERS]:
            rmtree(other, ignore_errors=True)


def lock(folder: Path) -> int | None:
    """Take the lock of a directory and clear what somebody left there unfinished; None if another process has the lock.

    Returns:
        A file descriptor; the lock lasts until it is closed, in every process that has inherited it.

    Raises:
        OSError: the directory cannot be written to, or its file system knows no locks.
    """
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_complete(folder):
            for file in folder.iterdir():
                if file.name != _LOCK:
                    file.unlink()
    except BaseException as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return handle


@cache
def start() -> bool:
    """Have one process of this machine compile the kernels, detached and at the lowest priority.

    Only the first call in a process does anything. Says whether kernels can be expected to become ready: a process was
    started, or is at work already. Otherwise there is a `KernelCacheWarning`.
    """
    folder = target()
    if folder is None:
        warn(f"{unkept()}; FAISS scans instead, several times slower")
        return False
    try:
        handle = lock(folder)
        if handle is None:
            return True
        try:
            if _is_complete(folder):
                return True
            if os.fstat(handle).st_size >= _STARTS:
                warn(
                    f"search kernels could not be compiled, {_STARTS} processes that tried have ended too early: FAISS "
                    "scans instead, several times slower; run `semcut warmup` to see why"
                )
                return False
            os.write(handle, b".")
            subprocess.Popen(
                [sys.executable, "-c", _BESIDE, *map(os.path.abspath, sys.path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[handle],  # and with it the lock
            ).wait()
            return True
        finally:
            os.close(handle)
    except OSError as error:
        warn(
            f"search kernels cannot be compiled into {folder}: {error.strerror or error}; FAISS scans instead, several "
            "times slower"
        )
        return False


def unkept() -> str:
    """Why kernels cannot be kept, and what to do."""
    tried = " nor ".join(str(folder.parent) for folder in candidates())
    return (
        f"compiled search kernels cannot be kept, {tried} cannot be written to: set {VARIABLE} to a directory that can"
    )


@cache
def warn(text: str) -> None:
    """Give a `KernelCacheWarning`, each only once in a process."""
    warnings.warn(text, KernelCacheWarning, stacklevel=2)
