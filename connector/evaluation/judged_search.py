"""Measure searches for the same thing: average precision where relevant records and junk are known query by query.

Junk is taken out of every answer before it is judged, so it is neither right nor wrong. mAP ranks every record that a
search can return, so with places filled all of them; mAP@k judges the first k of the answer that a search with its
shortlist gives. A query without a relevant record at a level counts as nan there, and not in means.

The figures of an index mean little alone: with classes that do not fit, a ranking by relevance or a cutoff can be worse
than none. So the same queries are compared with every record by distance, by relevance and by the fused score, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semcut.connector.evaluation.metrics import average_precision, trapezoid_average_precision
from semcut.connector.ground_truth.judged_records import JudgedIds
from semcut.indexes import Encodings, SemanticIndex
from semcut.indexes.argument_checks import callback_given, flag_given, instance_given
from semcut.indexes.errors import DataError, InvalidParameterError, shown
from semcut.indexes.progress import Progress, silent
from semcut.indexes.search_params import Ranking, SearchParams

FIRST = 4
"""The number of places of the N-S score."""

_PLACES = 1 << 22
"""Queries times records of the results that are in memory."""

Figures = NDArray[np.float64]
Levels = Mapping[str, Sequence[JudgedIds]]


@dataclass(frozen=True, eq=False)
class SearchFigures:
    """The figures of one way to search, query by query, for each level: (nq,) float64.

    Attributes:
        at_all: average precision of all records that the search can return.
        at_k: average precision of the first k.
        first_four: number of relevant records among the first four, junk left out.
    """

    at_all: dict[str, Figures]
    at_k: dict[str, Figures]
    first_four: dict[str, Figures]


def compare_searches(
    index: SemanticIndex,
    queries: Encodings,
    levels: Levels,
    params: SearchParams,
    *,
    trapezoid: bool,
    progress: Progress | None = None,
) -> dict[str, SearchFigures]:
    """Measure a search as it is asked for, and comparisons with every record.

    Args:
        index: the index.
        queries: nq queries.
        levels: by the name of each level, the judged records of the nq queries.
        params: k, cutoff, shortlist and ranking of the search.
        trapezoid: whether to compute average precision by the trapezoid rule.
        progress: called with the number of searches that were made.

    Returns:
        The figures by name: "index", the search as it is; "index, not filled", the same with relevant records alone;
        "every record by distance", "... by relevance" and, if features have length 1, "... by fused score".

    Raises:
        DataError: the index has no records.
        InvalidEncodingsError: the queries are not of the index.
        InvalidParameterError: an argument is of another type, or the levels are not of the queries.
    """
    judged_search_given(index, queries, levels)
    instance_given("params", params, SearchParams)
    trapezoid = flag_given("trapezoid", trapezoid)
    callback_given("progress", progress)
    ways = {"index": params.model_copy(update={"fill": True})}
    if params.cutoff is not None:
        ways["index, not filled"] = params.model_copy(update={"fill": False})
    rankings: list[tuple[str, Ranking]] = [("distance", "distance"), ("relevance", "relevance")]
    if index.stats().normalised and queries.normalised():
        rankings.append(("fused score", "fused"))
    for name, ranking in rankings:
        ways[f"every record by {name}"] = SearchParams(k=params.k, cutoff=None, shortlist=None, ranking=ranking)
    report, found = progress or silent, dict[str, SearchFigures]()
    for done, (name, way) in enumerate(ways.items()):
        report(done, len(ways), name)
        found[name] = search_figures(index, queries, levels, way, trapezoid=trapezoid)
    report(len(ways), len(ways))
    return found


def judged_search_given(index: SemanticIndex, queries: Encodings, levels: Levels) -> None:
    """Check an index with records, queries for it, and levels that judge them; raise errors as `compare_searches`."""
    instance_given("index", index, SemanticIndex)  # type: ignore[type-abstract]
    index.config.check(queries)
    valid = isinstance(levels, Mapping) and all(
        isinstance(level, list | tuple) and all(isinstance(one, JudgedIds) for one in level)
        for level in levels.values()
    )
    if not valid:
        raise InvalidParameterError(f"levels = {shown(levels)}, expected lists of JudgedIds by the names of levels")
    for name, level in levels.items():
        if len(level) != len(queries):
            raise InvalidParameterError(f"levels[{name!r}] judges {len(level):,} queries, expected {len(queries):,}")
    if not len(index):
        raise DataError("the index has no records: there is nothing to evaluate")


def search_figures(
    index: SemanticIndex, queries: Encodings, levels: Levels, params: SearchParams, *, trapezoid: bool
) -> SearchFigures:
    """Search with every query, and judge the answers at every level."""
    precision = trapezoid_average_precision if trapezoid else average_precision
    figures = SearchFigures(*({name: np.full(len(queries), np.nan) for name in levels} for _ in range(3)))
    for block, every, first in _answers(index, queries, params):
        for name, level in levels.items():
            for place, (whole, beginning) in enumerate(zip(every, first, strict=True), block):
                relevant, junk = level[place]
                if not len(relevant):
                    continue
                total = len(relevant)
                right = _judged(whole, relevant, junk)
                figures.at_all[name][place] = precision(right[None], np.array([total]))[0]
                right = _judged(beginning, relevant, junk)
                figures.at_k[name][place] = precision(right[None, : params.k], np.array([min(params.k, total)]))[0]
                figures.first_four[name][place] = np.count_nonzero(right[:FIRST])
    return figures


def _answers(
    index: SemanticIndex, queries: Encodings, params: SearchParams
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield blocks of answers: the first query, (q, records) ids of all records, and ids of a shortlist, -1 for none.

    The answer with a shortlist has all its records, so that k are left when junk is taken out.
    """
    records = len(index)
    step = max(1, _PLACES // records)
    settings = {"cutoff": params.cutoff, "ranking": params.ranking, "fill": params.fill}
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        every = first = index.search(part, k=records, shortlist=None, **settings).ids  # type: ignore[arg-type]
        if params.shortlist is not None and params.shortlist < records:
            first = index.search(part, k=params.shortlist, shortlist=params.shortlist, **settings).ids  # type: ignore[arg-type]
        yield start, every, first


def _judged(ids: NDArray[np.int64], relevant: NDArray[np.int64], junk: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether each result is relevant, without results that are junk or none."""
    kept = ids[(ids >= 0) & ~np.isin(ids, junk)]
    return np.isin(kept, relevant)
