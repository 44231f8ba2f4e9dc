"""Compiles all kernels of a search, or loads those that are kept. Imports numba when it is asked to, not before."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import numpy as np
from rich.console import Console

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import StorageError
from semcut.indexes.faiss_index import FaissIndex
from semcut.indexes.kernels import kernel_cache
from semcut.indexes.storage.store import Store

_CONFIG = IndexConfig(classes=2, bits=64, dim=4)
_RECORDS = 8


def load() -> None:
    """Call every kernel once, as adding, removing and searching do: it is loaded, or compiled where it is not kept.

    Raises:
        RuntimeError: a kernel was not called.
    """
    from semcut.indexes.kernels import jit

    records = Encodings(
        probabilities=np.full((_RECORDS, 2), 0.5, np.float32),
        codes=np.zeros((_RECORDS, _CONFIG.bits // 8), np.uint8),
        features=np.eye(4, dtype=np.float32)[np.arange(_RECORDS) % 4],
        ids=np.arange(_RECORDS),
    )
    with FaissIndex(Store.create(None, _CONFIG), "compiled", "cpu") as index:
        index.add(records)
        index.remove([0])
        index.search(records, k=1, shortlist=2)
        index.scanner.search(records.codes, np.zeros((_RECORDS, 1), np.int64), 1)
    idle = [each.py_func.__qualname__ for each in jit.KERNELS if not each.signatures]
    if idle:
        raise RuntimeError(f"warming up does not call {', '.join(idle)}")


def fill() -> None:
    """Compile all kernels and mark the directory where they are kept as complete.

    Raises:
        OSError, StorageError: they cannot be kept.
    """
    from semcut.indexes.kernels import jit

    load()
    if jit.FOLDER is not None:
        kernel_cache.complete(jit.FOLDER, jit.files())


@cache
def prepare() -> None:
    """Compile all kernels now, unless they are ready; only once in a process. A spinner shows that on a terminal."""
    if kernel_cache.found() is not None:
        return
    folder, lock = kernel_cache.target(), None
    if folder is None:
        kernel_cache.warn(f"{kernel_cache.unkept()}; every process compiles them anew")
    try:
        if folder is not None:
            lock = kernel_cache.lock(folder)  # or another process would clear what is unfinished there
        with spinner():
            fill()
    except (OSError, StorageError) as error:
        kernel_cache.warn(f"compiled search kernels cannot be kept, every process compiles them anew: {error}")
    finally:
        if lock is not None:
            os.close(lock)


def spinner() -> AbstractContextManager[object]:
    """Show that kernels are compiled, on standard error where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return nullcontext()
    return console.status("Compiling search kernels, once on this machine: about half a minute")
