"""Where the time of semcut's searches goes: the scan of an engine alone, and the share of everything else.

Clocks are put around the engine and the re-rank inside the search's own pipeline while a probe runs, since what calls
them decides how often, with how many queries and from how many threads they run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import semcut.indexes.search.vectorised
from semcut.connector.benchmark.methods.semcut_methods import CUTOFF, SHORTLIST, Semcut, cells_kept
from semcut.indexes import Encodings

_DEPTH = 3 * SHORTLIST // 2
"""Places of a search's first scan."""


def probes(structures: list[Semcut], queries: Encodings, k: int) -> dict[str, Callable[[], dict[str, float]]]:
    """What to time beside the methods, by name: see `timing.measure`.

    Args:
        structures: built, one per engine.
        queries: one batch.
        k: results of a search.
    """
    order = np.argsort(queries.probabilities.argmax(axis=1), kind="stable")  # as a search orders them
    found: dict[str, Callable[[], dict[str, float]]] = {}
    for structure in structures:
        found[f"scan {structure.name}"] = _scan(structure, queries[order])
        if structure.engine == "faiss":  # the other does all of it in one
            found[f"parts {structure.name}"] = _parts(structure, queries, k)
    return found


def _scan(structure: Semcut, queries: Encodings) -> Callable[[], dict[str, float]]:
    """The engine alone, on the cells that pruning keeps at the default cutoff."""
    cells = cells_kept(structure.index, queries, CUTOFF)

    def scan() -> dict[str, float]:
        start = time.perf_counter()
        structure.index._engine.search(queries.codes, cells, _DEPTH)
        return {f"scan {structure.name}": time.perf_counter() - start}

    return scan


def _parts(structure: Semcut, queries: Encodings, k: int) -> Callable[[], dict[str, float]]:
    """A search with the defaults: in all, in the engine, in the re-rank, seconds of all threads over their number."""

    def parts() -> dict[str, float]:
        scan, rank = _Clock(), _Clock()
        with _clocked(structure, scan, rank):
            start = time.perf_counter()
            structure.index.search(queries, k=k, cutoff=CUTOFF, shortlist=SHORTLIST)
            total = time.perf_counter() - start
        name = structure.name
        return {f"total {name}": total, f"in scan {name}": scan.seconds(), f"in re-rank {name}": rank.seconds()}

    return parts


class _Clock:
    """Seconds that calls took, summed over threads."""

    def __init__(self) -> None:
        self._lock, self._sum, self._threads = threading.Lock(), 0.0, set[int]()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                taken = time.perf_counter() - start
                with self._lock:
                    self._sum += taken
                    self._threads.add(threading.get_ident())

        return timed

    def seconds(self) -> float:
        return self._sum / max(1, len(self._threads))


class _TimedEngine:
    """An engine with a clock around its searches."""

    def __init__(self, engine: Any, clock: _Clock) -> None:
        self._engine = engine
        self.search = clock.around(engine.search)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@contextmanager
def _clocked(structure: Semcut, scan: _Clock, rank: _Clock) -> Iterator[None]:
    pipeline: Any = structure.index._pipeline
    module: Any = semcut.indexes.search.vectorised
    engine, ranking = pipeline._engine, module.rank
    pipeline._engine, module.rank = _TimedEngine(engine, scan), rank.around(ranking)
    try:
        yield
    finally:
        pipeline._engine, module.rank = engine, ranking
