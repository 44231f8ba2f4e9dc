"""Compile all kernels of a search, or load them from the cache. Imports numba only when a function is called."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import numpy as np
from rich.console import Console

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import StorageError
from semcut.indexes.kernels import kernel_cache
from semcut.indexes.progress import silent
from semcut.indexes.scoring.equations import Similarity
from semcut.indexes.search.record_pairs import RecordPairs
from semcut.indexes.search_params import SearchParams
from semcut.indexes.searchable import Searchable
from semcut.indexes.storage.store import Store

_CONFIG = IndexConfig(classes=2, bits=64, dim=4)
_RECORDS = 8


def load_kernels() -> None:
    """Call every kernel once, by adding, removing and searching a few records.

    A kernel that is in the cache is loaded; any other is compiled.

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
    store = Store.create(None, _CONFIG)
    searchable = Searchable(store.snapshot, Similarity(_CONFIG), "compiled", "cpu")
    searchable.publish(store.write(records))
    searchable.publish(store.write(None, np.array([0])))
    searchable.search(records, SearchParams(k=1, shortlist=2), None)
    searchable.scanner.search(records.codes, np.zeros((_RECORDS, 1), np.int64), 1)
    pairs = RecordPairs(searchable.snapshot, 0, 0.0, compiled=True)
    list(pairs.pairs(np.arange(_RECORDS, dtype=np.int32), everywhere=True, progress=silent))
    uncalled = [each.py_func.__qualname__ for each in jit.KERNELS if not each.signatures]
    if uncalled:
        raise RuntimeError(f"`load_kernels` does not call {', '.join(uncalled)}")


def compile_kernels() -> None:
    """Compile all kernels, and mark the directory of the cache as complete.

    Raises:
        OSError, StorageError: the kernels cannot be written to the cache.
    """
    from semcut.indexes.kernels import jit

    load_kernels()
    if jit.DIRECTORY is not None:
        kernel_cache.mark_complete(jit.DIRECTORY, jit.kept_files())


@cache
def compile_if_missing() -> None:
    """Compile all kernels unless they are ready, once in a process. Shows a spinner on a terminal meanwhile."""
    if kernel_cache.ready_directory() is not None:
        return
    directory, lock = kernel_cache.writable_directory(), None
    if directory is None:
        kernel_cache.warn_once(f"{kernel_cache.why_not_kept()}; every process compiles them again")
    try:
        if directory is not None:
            # without the lock, another process would delete the unfinished files in the directory
            lock = kernel_cache.lock_directory(directory)
        with spinner():
            compile_kernels()
    except (OSError, StorageError) as error:
        kernel_cache.warn_once(f"compiled search kernels cannot be stored, every process compiles them again: {error}")
    finally:
        if lock is not None:
            os.close(lock)


def spinner() -> AbstractContextManager[object]:
    """Return a context that shows a spinner on standard error, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return nullcontext()
    return console.status("Compiling search kernels, once on this machine: about half a minute")
