"""`CompiledSearch`: splits a batch over threads, calls the kernel, and searches again where it cannot decide.

The kernel (`search.search_numba`) does all steps of a query before the next query. A query whose answer depends on the
order of the terms of a sum is left to the vectorised search. If a query needs a row that has not been compared with its
checksum yet, its block and those around it are compared, and the kernel is called again. If a few calls are not enough,
as for the first searches, the vectorised search answers: it compares exactly what it reads.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import DamagedIndexError
from semcut.indexes.faiss_library import split_over_threads, thread_count
from semcut.indexes.kernels.jit import read_only
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.result import SearchResult
from semcut.indexes.scanners.hamming_numba_cpu import NumbaScanner
from semcut.indexes.scoring.equations import Similarity
from semcut.indexes.scoring.rounding import relative_error
from semcut.indexes.search.beyond_cutoff import EVERY
from semcut.indexes.search.in_parts import codes_alone, search_in_parts
from semcut.indexes.search.numba_arrays import (
    ANSWERED,
    BY_DISTANCE,
    BY_RELEVANCE,
    BY_SCORE,
    LARGE,
    NO_LIMIT,
    UNCHECKED,
    QueryArrays,
    RecordArrays,
    ResultArrays,
    SearchSettings,
    result_arrays,
)
from semcut.indexes.search.prune_numba import CellBounds
from semcut.indexes.search.search_numba import search
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search.vectorised import VectorisedSearch
from semcut.indexes.search_params import SearchParams
from semcut.indexes.search_tuning import TUNING
from semcut.indexes.storage.mapped_columns import Columns

_ROUNDS = 4  # calls of the kernel for a query that needs rows of blocks that were not compared yet
_AROUND = 4  # blocks before and after such a block that are compared as well
_RANKINGS = {"distance": BY_DISTANCE, "fused": BY_SCORE, "relevance": BY_RELEVANCE}
_DOUBT = 1.0  # factor on the error bounds of sums; tests raise it, see `SearchSettings.doubt`


class CompiledSearch:
    """Searches one snapshot of an index, as `VectorisedSearch` does; several threads may search at the same time.

    Args:
        columns: the records, by row.
        cells: the cells of the index.
        scanner: has the codes of the records.
        similarity: the S of the index.
    """

    def __init__(self, columns: Columns, cells: Cells, scanner: NumbaScanner, similarity: Similarity) -> None:
        self._columns, self._cells, self._scanner, self._similarity = columns, cells, scanner, similarity
        self._vectorised = VectorisedSearch(columns, cells, scanner, similarity)

    def search(
        self,
        queries: Encodings,
        params: SearchParams,
        scored: bool,
        cutoffs: NDArray[np.float64],
        trace: SearchTrace | None = None,
    ) -> SearchResult:
        """Find the k best relevant records, see `VectorisedSearch.search`, which also runs traced searches."""
        if params.k > TUNING.most_compiled or trace is not None:
            return self._vectorised.search(queries, params, scored, cutoffs, trace)
        split, order = len(queries) >= TUNING.split_compiled, None
        if split:
            # Queries of one class read the same records, which are then in the processor's cache.
            order = np.argsort(queries.probabilities.argmax(axis=1), kind="stable")
            queries, cutoffs = queries[order], cutoffs[order]
        settings = SearchSettings(
            cutoff=EVERY,
            shortlist=-1 if params.shortlist is None else params.shortlist,
            slack=relative_error(self._cells.config.classes),
            ranking=_RANKINGS[params.ranking],
            scored=scored,
            doubt=_DOUBT,
            mass=self._cells.largest_mass,
            only_above=params.cutoff is None and params.shortlist is None and params.ranking != "distance",
            most_codes=NO_LIMIT if split else codes_alone(params.shortlist, thread_count()),
            part=0,
            parts=1,
        )
        result, reasons = self._answers(queries, cutoffs, params.k, settings)
        for _ in range(_ROUNDS if np.count_nonzero(reasons) else 0):
            unchecked = np.flatnonzero(reasons >= UNCHECKED)
            if not len(unchecked):
                break
            rows = reasons[unchecked] - UNCHECKED
            for name in ("probabilities", "features"):
                self._columns.sources[name].compare_around(self._columns.extents[name], rows, _AROUND)
            again, reasons[unchecked] = self._answers(queries[unchecked], cutoffs[unchecked], params.k, settings)
            result.put(unchecked, again)
        if np.count_nonzero(reasons):
            left = np.flatnonzero(reasons != ANSWERED)
            result.put(left, self._vectorised.answer(queries[left], params, scored, cutoffs[left]))
        self._columns.release_pages(min_interval=1 if split else 0.001)
        return result if order is None else result.in_order(np.argsort(order))

    def _answers(
        self, queries: Encodings, cutoffs: NDArray[np.float64], k: int, settings: SearchSettings
    ) -> tuple[SearchResult, NDArray[np.int64]]:
        """Call the kernel for a batch; return the results, and for each query `ANSWERED` or why it is not answered."""
        result, reasons = SearchResult.allocated(len(queries), k), np.empty(len(queries), np.int64)
        bounds, lists, rows, bits = self._bounds, self._scanner.lists, self._rows(), self._cells.config.bits
        found = result_arrays(result, reasons, np.empty((len(queries), 0), np.int32))

        def arrays_of(part: Encodings, limits: NDArray[np.float64]) -> QueryArrays:
            return QueryArrays(
                self._scanner.words(part.codes),
                read_only(self._similarity.weights(part.probabilities)),
                read_only(part.features),
                read_only(limits),
            )

        def answer_slice(part: slice) -> None:
            to = ResultArrays._make(array[part] for array in found)
            search(arrays_of(queries[part], cutoffs[part]), settings, bounds, lists, rows, bits, to)

        if len(queries) >= TUNING.split_compiled:
            split_over_threads(answer_slice, len(queries), thread_count())
            return result, reasons
        search(arrays_of(queries, cutoffs), settings, bounds, lists, rows, bits, found)
        large = np.flatnonzero(reasons == LARGE)
        if len(large):
            arrays = arrays_of(queries[large], cutoffs[large])

            def kernel(own: SearchSettings, to: ResultArrays) -> None:
                search(arrays, own, bounds, lists, rows, bits, to)

            places = (self._columns.ids, self._columns.cells)
            answered, reasons[large] = search_in_parts(
                kernel, settings, arrays, k, thread_count(), lists, self._cells, places
            )
            result.put(large, answered)
        return result, reasons

    def _rows(self) -> RecordArrays:
        block, (probabilities, features) = self._columns.compared("probabilities", "features")
        shift = block.bit_length() - 1
        return self._read_by_row._replace(shift=shift, probabilities_compared=probabilities, features_compared=features)

    @cached_property
    def _read_by_row(self) -> RecordArrays:
        """The columns, with an array without rows for each form that the index does not use."""
        raw, config = self._columns.raw(), self._cells.config
        probabilities, features = raw["probabilities"], raw["features"]
        halves = features.view(np.uint16) if features.dtype == np.float16 else features

        def in_form(array: NDArray[Any], dtype: type, width: int) -> NDArray[Any]:
            return read_only(array if array.dtype == dtype else np.empty((0, width), dtype))

        none = np.ones(1, bool)
        return RecordArrays(
            ids=read_only(raw["ids"]),
            probabilities=in_form(probabilities, np.float32, config.classes),
            packed=in_form(probabilities, np.uint16, 2),
            features=in_form(features, np.float32, config.dim),
            halves=in_form(halves, np.uint16, config.dim),
            bytes=in_form(features, np.int8, config.dim),
            step=np.float32(config.feature_step),
            shift=0,
            probabilities_compared=none,
            features_compared=none,
        )

    @cached_property
    def _bounds(self) -> CellBounds:
        # The kernel computes the sizes of its buffers from the sizes of cells, and fills them from the lists.
        lists, sizes = self._scanner.lists.sizes, self._cells.sizes
        if not np.array_equal(lists, sizes[: len(lists)]) or sizes[len(lists) :].any():
            raise DamagedIndexError(
                "the cells of the index do not have the records that were scanned: restore the index from a backup, "
                "then open it again"
            )
        bounds = bounds_of(self._cells)
        in_order_of_codes = np.argsort(self._scanner.lists.starts[bounds.used], kind="stable")
        return bounds._replace(used=read_only(bounds.used[in_order_of_codes]))


def bounds_of(cells: Cells) -> CellBounds:
    """Return the bounds of cells, with a list for every class."""
    lists = cells.lists
    return CellBounds(
        starts=read_only(lists.starts),
        cells=read_only(lists.cells),
        values=read_only(lists.values),
        envelopes=read_only(cells.envelopes),
        dominant=read_only(cells.dominant().astype(np.int32)),
        lows=read_only(cells.lows),
        peaks=read_only(cells.peaks),
        edges=read_only(cells.edges),
        sizes=read_only(cells.sizes),
        used=read_only(np.flatnonzero(cells.sizes > 0).astype(np.int32)),
        masses=read_only(cells.masses),
        mass=cells.largest_mass,
    )
