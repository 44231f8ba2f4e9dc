"""Search with semcut: an index in memory, like FAISS's own indexes, with all points of a grid of search parameters.

Each installed scanner of codes, FAISS's inverted lists or the compiled scanner, is a structure of its own. All of them
give the same results.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from semcut.connector.benchmark.methods.structures import Data, Ids, Method, Parameters, StepCounts
from semcut.indexes import Encodings, FaissIndex
from semcut.indexes.config import MAX_SIMILARITY
from semcut.indexes.errors import DataError, shown
from semcut.indexes.scanners.engine_names import EngineName
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_SHORTLIST
from semcut.indexes.search_params import MAX_RESULTS, Ranking

CUTOFFS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
SHORTLISTS = (50, 100, 200, 500, None)
RANKINGS: tuple[Ranking, ...] = ("distance", "fused")
MAX_CUTOFF = MAX_SIMILARITY
"""Largest cutoff that is read."""


@dataclass(frozen=True)
class SearchPoint:
    """One point of the grid of semcut's search parameters; the defaults are those of a search."""

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    cutoff: Annotated[float, Field(ge=0, le=MAX_CUTOFF)] = DEFAULT_CUTOFF
    shortlist: Annotated[int, Field(ge=1, le=MAX_RESULTS)] | None = DEFAULT_SHORTLIST
    ranking: Ranking = "distance"

    @staticmethod
    def of(parameters: Parameters) -> SearchPoint:
        """Return the point that the parameters of one of semcut's methods describe.

        Raises:
            DataError: they describe none.
        """
        try:
            return _POINT.validate_python(parameters)
        except ValidationError:
            raise DataError(
                f"{shown(parameters)} are no parameters of a search, expected cutoff, shortlist and ranking"
            ) from None


_POINT = TypeAdapter(SearchPoint)


class Semcut:
    """The structure of semcut: a `FaissIndex` with one scanner.

    Args:
        engine: name of the scanner, one of `indexes.scanners.engine_names.available_engines`.
        cutoffs, shortlists, rankings: the grid; every combination is a method.
        stored: search the data set's own stored index through its memory mapping, for data that memory cannot hold
            twice. Another stored index is built and deleted, to measure the time of building.
        ranks_all: whether the methods without a shortlist also give rankings of all records.
    """

    def __init__(
        self,
        engine: EngineName,
        *,
        cutoffs: Sequence[float] = CUTOFFS,
        shortlists: Sequence[int | None] = SHORTLISTS,
        rankings: Sequence[Ranking] = RANKINGS,
        stored: bool = False,
        ranks_all: bool = True,
    ) -> None:
        self.name = f"semcut ({engine})"
        self.engine = engine
        self._grid = [SearchPoint(t, n, ranking) for ranking in rankings for t in cutoffs for n in shortlists]
        self._stored, self._ranks_all = stored, ranks_all
        self.index: FaissIndex

    def build(self, data: Data) -> float:
        """Add all records, and return how many seconds that took."""
        self._bytes = sum(file.stat().st_size for file in data.path.rglob("*") if file.is_file())
        if not self._stored:
            self.index = FaissIndex.create(None, data.config, engine=self.engine)
            return _add_all(self.index, data)
        with tempfile.TemporaryDirectory(dir=data.path.parent, prefix=".build-") as scratch:
            index = FaissIndex.create(Path(scratch) / "index", data.config, durability="close", engine=self.engine)
            seconds = _add_all(index, data)
            start = time.perf_counter()
            index.close()
            seconds += time.perf_counter() - start
        self.index = FaissIndex.open(data.path, engine=self.engine)
        return seconds

    def bytes(self) -> int:
        """Return the bytes of the data set's stored index: all columns, including features and probabilities."""
        return self._bytes

    def close(self) -> None:
        """Close the index and release its memory."""
        self.index.close()

    def methods(self) -> list[Method]:
        """List one method per point of the grid."""
        return [self._method(point) for point in self._grid]

    def _method(self, point: SearchPoint) -> Method:
        cutoff, shortlist, ranking = point.cutoff, point.shortlist, point.ranking

        def search(queries: Encodings, k: int) -> Ids:
            return self.index.search(queries, k=k, cutoff=cutoff, shortlist=shortlist, ranking=ranking, fill=False).ids

        def rank_all(queries: Encodings) -> Ids:
            return search(queries, len(self.index))

        def count_steps(queries: Encodings, k: int) -> StepCounts:
            result = self.index.search(queries, k=k, cutoff=cutoff, shortlist=shortlist, ranking=ranking, fill=False)
            return {
                "partitions": result.partitions,
                "cells": result.cells,
                "codes": result.codes,
                "cut_off": result.cut_off,
            }

        return Method(
            name=f"{self.name}, t={cutoff:g}, shortlist {'all' if shortlist is None else shortlist}, {ranking}",
            family=f"{self.name}, by {ranking}",
            parameters=asdict(point),
            structure=self,
            search=search,
            rank_all=rank_all if shortlist is None and self._ranks_all else None,
            count_steps=count_steps,
        )


def _add_all(index: FaissIndex, data: Data) -> float:
    """Add all records and return the seconds that the calls of `add` took."""
    seconds = 0.0
    for batch in data.batches():
        start = time.perf_counter()
        index.add(batch)
        seconds += time.perf_counter() - start
    return seconds


def cells_kept(index: FaissIndex, queries: Encodings, cutoff: float) -> NDArray[np.int64]:
    """Return the cells that pruning keeps, and that a scanner scans, for each query: (nq, w) int64, padded with -1."""
    return index.snapshot.cells.prune(index.similarity.weights(queries.probabilities), cutoff).cells
