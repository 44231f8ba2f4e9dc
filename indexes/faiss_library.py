"""Import FAISS, and use as many threads as FAISS does. No other module of `indexes` imports FAISS itself.

So a missing, broken or doubly installed FAISS is always reported by the same error of one sentence. The wheels
faiss-cpu and faiss-gpu both contain the module `faiss` and overwrite each other, so an environment with both of them is
refused.

FAISS runs its loops in threads of OpenMP. `omp_set_num_threads`, or the environment variable OMP_NUM_THREADS, limits
them; the numba kernels, which have no threads of their own, follow the same limit through `thread_count`. In a forked
child, the thread that forked is limited to itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from semcut.indexes.errors import MissingDependencyError, install_hint

__all__ = ["faiss", "single_threaded_pool", "split_over_threads", "thread_count"]

_INSTALL = f"{install_hint('cpu')}; on a machine with a CUDA GPU the extra gpu in place of cpu."

_MAX_PART = 128
"""The largest number of queries in one part of `split_over_threads`."""
_PARTS_PER_THREAD = 4
"""Parts per thread for a small batch, so that a thread that finishes early takes work from the others."""

# Only file names are read: importlib.metadata would read the description of every installed package.
_found = (file.name for folder in sys.path for file in Path(folder).glob("faiss_[cg]pu*-*.dist-info"))
_wheels = sorted({name.split("-")[0].replace("_", "-") for name in _found})
if len(_wheels) > 1:
    raise MissingDependencyError(
        f"{' and '.join(_wheels)} are both installed and overwrite each other: uninstall both with "
        f"`pip uninstall {' '.join(_wheels)}`, then `pip install faiss-cpu`, or faiss-gpu on a machine with a GPU."
    )
if "faiss" not in sys.modules and find_spec("faiss") is None:
    raise MissingDependencyError(f"faiss is not installed: {_INSTALL}")

try:
    import faiss
except ImportError as broken:
    raise MissingDependencyError(f"faiss does not load ({broken}): {_INSTALL}") from None

# The threads of OpenMP that the forking thread has used do not exist in the child, which would wait for them for ever.
os.register_at_fork(after_in_child=partial(faiss.omp_set_num_threads, 1))


def thread_count() -> int:
    """Return how many threads FAISS uses for a call from the current thread."""
    count: int = faiss.omp_get_max_threads()
    return count


def single_threaded_pool(threads: int) -> ThreadPoolExecutor:
    """Return a pool of threads that each limit FAISS to one thread, since the caller has already split the work."""
    return ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,))


def split_over_threads(search: Callable[[slice], None], queries: int, threads: int) -> None:
    """Call a function for consecutive parts of a batch, in several threads. The calling thread is one of them.

    Args:
        search: takes the slice of queries to answer, and must release the interpreter's lock to gain from threads.
        queries: the number of queries in the batch.
        threads: how many threads to use.
    """
    size = max(1, min(_MAX_PART, -(-queries // (threads * _PARTS_PER_THREAD)))) if threads > 1 else _MAX_PART
    parts = [slice(start, start + size) for start in range(0, queries, size)]
    if threads == 1 or len(parts) == 1:
        for part in parts:
            search(part)
        return
    remaining = iter(parts)  # shared by the threads: a thread that finishes a part takes the next one

    def work() -> None:
        for part in remaining:
            search(part)

    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work) for _ in range(threads - 1)]
        work()
        for other in others:
            other.result()
