"""The compiled search from Python: threads, and which queries `pipeline` has to answer after all."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import SearchParams
from semcut.indexes.encodings import Encodings
from semcut.indexes.faiss_library import faiss
from semcut.indexes.index import SearchResult
from semcut.indexes.kernels.jit import frozen
from semcut.indexes.pruning.bounds_kernel import Bounds
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.scanners.numba_lists import NumbaScanner, in_threads
from semcut.indexes.scoring.equations import Similarity
from semcut.indexes.scoring.rounding import error
from semcut.indexes.search.kernel_arrays import ANSWERED, QueryArrays, RecordArrays, ResultArrays, SearchSettings
from semcut.indexes.search.search_kernel import search
from semcut.indexes.search.vectorised import VectorisedSearch
from semcut.indexes.storage.mapped_columns import Columns

_MOST = 1024  # results a query, above which `pipeline` sorts faster
_SPLIT = 16  # queries from which on threads share them
_DOUBT = 1.0


class CompiledSearch:
    """Searches one state of an index, as `Pipeline` does; several threads may at once.

    Args:
        columns: the records, by row.
        cells: the cells that they are in.
        engine: their codes.
        similarity: the S of the index.
    """

    def __init__(self, columns: Columns, cells: Cells, engine: NumbaScanner, similarity: Similarity) -> None:
        self._columns, self._cells, self._engine, self._similarity = columns, cells, engine, similarity
        self._pipeline = VectorisedSearch(columns, cells, engine, similarity)

    def search(self, queries: Encodings, params: SearchParams, scored: bool) -> SearchResult:
        """As `Pipeline.search`."""
        if params.k > _MOST:
            return self._pipeline.search(queries, params, scored)
        threads = faiss.omp_get_max_threads() if len(queries) >= _SPLIT else 1
        order = None
        if len(queries) >= _SPLIT:  # queries of one class, one after the other, find records in the processor's cache
            order = np.argsort(queries.probabilities.argmax(axis=1), kind="stable")
            queries = queries[order]
        result = SearchResult.unfilled(len(queries), params.k)
        reasons = np.empty(len(queries), np.int8)
        task = SearchSettings(
            cutoff=float(params.cutoff),
            shortlist=-1 if params.shortlist is None else params.shortlist,
            slack=error(self._cells.config.classes),
            fused=params.ranking == "fused",
            scored=scored,
            doubt=_DOUBT,
        )
        bounds, lists, rows, bits = self._bounds, self._engine.lists, self._rows(), self._cells.config.bits

        def answer(part: slice) -> None:
            asked = QueryArrays(
                self._engine.words(queries.codes[part]),
                frozen(self._similarity.weights(queries.probabilities[part])),
                frozen(queries.features[part]),
            )
            found = ResultArrays(
                result.ids[part], result.distances[part], result.relevance[part], result.scores[part],
                result.hamming[part], result.partitions[part], result.cells[part], result.codes[part],
                result.cut_off[part], reasons[part],
            )  # fmt: skip
            search(asked, task, bounds, lists, rows, bits, found)

        in_threads(answer, len(queries), threads)
        if reasons.any():
            left = np.flatnonzero(reasons != ANSWERED)
            result.put(left, self._pipeline.search(queries[left], params, scored))
        self._columns.release_pages(rest=1 if threads > 1 else 0)
        return result if order is None else result.in_order(np.argsort(order))

    def _rows(self) -> RecordArrays:
        block, (probabilities, features) = self._columns.compared("probabilities", "features")
        return RecordArrays(*self._read_by_row, block.bit_length() - 1, probabilities, features)

    @cached_property
    def _read_by_row(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        raw = self._columns.raw()
        return frozen(raw["ids"]), frozen(raw["probabilities"]), frozen(raw["features"])

    @cached_property
    def _bounds(self) -> Bounds:
        return bounds_of(self._cells)


def bounds_of(cells: Cells) -> Bounds:
    """The bounds of cells, with a list for every class."""
    lists = cells.lists
    return Bounds(
        starts=frozen(lists.starts),
        cells=frozen(lists.cells),
        values=frozen(lists.values),
        envelopes=frozen(cells.envelopes),
        dominant=frozen(cells.dominant().astype(np.int32)),
        lows=frozen(cells.lows),
        peaks=frozen(cells.peaks),
        edges=frozen(cells.edges),
        sizes=frozen(cells.sizes),
    )
