"""semcut in a benchmark: an index in memory, as FAISS's own are, and all searches of a grid.

Codes are scanned by FAISS's list scanner or by the compiled engine, whichever are installed; each is a structure of its
own. Results are the same for all engines.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semcut.connector.benchmark.methods.methods import Data, Ids, Method, Steps
from semcut.indexes import Encodings, FaissIndex
from semcut.indexes.config import Ranking
from semcut.indexes.scanners.protocol import EngineName

CUTOFFS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
SHORTLISTS = (50, 100, 200, 500, None)
RANKINGS: tuple[Ranking, ...] = ("distance", "fused")
CUTOFF, SHORTLIST = 0.2, 100
"""The defaults of a search."""


class Semcut:
    """A `FaissIndex` of an engine.

    Args:
        engine: what scans the codes: one of `indexes.hamming.available`.
        cutoffs, shortlists, rankings: the grid; all combinations.
        stored: search the data set's own stored index through its mapping; what is built to see how long that takes is
            a stored one too, and deleted. For data that memory cannot hold twice.
        whole: whether the first engine's whole rankings are to be had.
    """

    def __init__(
        self,
        engine: EngineName,
        *,
        cutoffs: Sequence[float] = CUTOFFS,
        shortlists: Sequence[int | None] = SHORTLISTS,
        rankings: Sequence[Ranking] = RANKINGS,
        stored: bool = False,
        whole: bool = True,
    ) -> None:
        self.name = f"semcut ({engine})"
        self.engine = engine
        self._grid = [(t, n, ranking) for ranking in rankings for t in cutoffs for n in shortlists]
        self._stored, self._whole = stored, whole
        self.index: FaissIndex

    def build(self, data: Data) -> float:
        """Add all records."""
        self._bytes = sum(file.stat().st_size for file in data.path.rglob("*") if file.is_file())
        if not self._stored:
            self.index = FaissIndex.create(None, data.config, engine=self.engine)
            return _filled(self.index, data)
        with tempfile.TemporaryDirectory(dir=data.path.parent, prefix=".build-") as scratch:
            index = FaissIndex.create(Path(scratch) / "index", data.config, durability="close", engine=self.engine)
            seconds = _filled(index, data)
            start = time.perf_counter()
            index.close()
            seconds += time.perf_counter() - start
        self.index = FaissIndex.open(data.path, engine=self.engine)
        return seconds

    def bytes(self) -> int:
        """Bytes of the data set's stored index: all columns, features and probabilities too."""
        return self._bytes

    def close(self) -> None:
        """Let go of the index."""
        self.index.close()

    def methods(self) -> list[Method]:
        """One per point of the grid."""
        return [self._method(*point) for point in self._grid]

    def _method(self, cutoff: float, shortlist: int | None, ranking: Ranking) -> Method:
        options: dict[str, Any] = {"cutoff": cutoff, "shortlist": shortlist, "ranking": ranking}

        def search(queries: Encodings, k: int) -> Ids:
            return self.index.search(queries, k=k, **options).ids

        def everything(queries: Encodings) -> Ids:
            return self.index.search(queries, k=len(self.index), **options).ids

        def steps(queries: Encodings, k: int) -> Steps:
            result = self.index.search(queries, k=k, **options)
            return {name: getattr(result, name) for name in ("partitions", "cells", "codes", "cut_off")}

        return Method(
            name=f"{self.name}, t={cutoff:g}, shortlist {'all' if shortlist is None else shortlist}, {ranking}",
            family=f"{self.name}, by {ranking}",
            parameters=options,
            structure=self,
            search=search,
            everything=everything if shortlist is None and self._whole else None,
            steps=steps,
        )


def _filled(index: FaissIndex, data: Data) -> float:
    """Add all records and say how many seconds the adding took."""
    seconds = 0.0
    for batch in data.batches():
        start = time.perf_counter()
        index.add(batch)
        seconds += time.perf_counter() - start
    return seconds


def cells_kept(index: FaissIndex, queries: Encodings, cutoff: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(nq, w) int64 cells that pruning leaves, padded with -1: what an engine is given to scan."""
    return index._state.cells.prune(index._similarity.weights(queries.probabilities), cutoff).cells
