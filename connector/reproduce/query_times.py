"""Time of a query, for the paper's Table III: an index, and the same network's codes and features without one.

All ways search with the same queries on the same threads, in turns, so that what else the machine does slows down all
of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Literal, get_args

import faiss
import numpy as np

from semcut.connector.benchmark.methods.exact_rerank import rerank
from semcut.indexes import Encodings, SemanticIndex
from semcut.indexes.search_defaults import DEFAULT_SHORTLIST
from semcut.indexes.search_params import SearchParams

Way = Literal["index", "codes", "features"]
WAYS: tuple[Way, ...] = get_args(Way)
"""A search as it is asked for; the codes of every record by Hamming distance, of which the nearest are re-ranked; and
the features of every record by distance."""

_ROUNDS = 5
_SINGLE = 100
"""The largest number of queries that are also searched one by one."""


def query_times(index: SemanticIndex, queries: Encodings, params: SearchParams) -> dict[Way, tuple[float, float]]:
    """Measure the time of a query: all queries in one call, and one query per call.

    Args:
        index: an index with records.
        queries: nq queries.
        params: of the search with the index; k is also that of the other ways.

    Returns:
        For each way, milliseconds per query: in a batch, the median of several rounds; and alone, the median query.
    """
    records = Encodings.concatenate(list(index.iterate()))
    codes, features = faiss.IndexBinaryFlat(index.config.bits), faiss.IndexFlatL2(index.config.dim)
    codes.add(records.codes)
    features.add(records.features)
    settings: dict[str, Any] = params.model_dump(include={"k", "cutoff", "shortlist", "ranking", "fill"})
    first = min(DEFAULT_SHORTLIST, len(records))

    def by_codes(part: Encodings) -> object:
        rows = codes.search(np.ascontiguousarray(part.codes), first)[1].astype(np.int64)
        return rerank(part.features, records.features, rows, params.k)

    searches: dict[Way, Callable[[Encodings], object]] = {
        "index": lambda part: index.search(part, **settings),
        "codes": by_codes,
        "features": lambda part: features.search(np.ascontiguousarray(part.features), params.k),
    }
    alone = [queries[place : place + 1] for place in range(min(_SINGLE, len(queries)))]
    batches, singles = ({way: list[float]() for way in searches} for _ in range(2))
    for search in searches.values():
        search(queries)  # not timed: the first search may have to prepare the index
    for _ in range(_ROUNDS):
        for way, search in searches.items():
            batches[way].append(_milliseconds(search, queries))
    for one in alone:
        for way, search in searches.items():
            singles[way].append(_milliseconds(search, one))
    return {way: (statistics.median(batches[way]) / len(queries), statistics.median(singles[way])) for way in searches}


def _milliseconds(search: Callable[[Encodings], object], queries: Encodings) -> float:
    start = time.perf_counter()
    search(queries)
    return 1000 * (time.perf_counter() - start)
