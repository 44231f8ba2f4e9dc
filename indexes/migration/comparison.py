"""Verify a migration: compare the records of source and target, and their answers to searches.

Before they are copied, records are compared with the cells of the source, which bound the memory that their cells take
in the target.

There are four comparisons: the number of records; the content of each batch, read back from the target, with its
CRC-32 in the journal; the results of some searches in both indexes, value by value; and the records that filters match.
Each comparison returns or yields sentences about what differs. The searches also show whether wrong bounds of cells in
the target prune records, and the filters whether the target filters by the attributes that it returns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.expressions import attribute
from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import DamagedIndexError, InvalidParameterError, UnknownIdError, shown
from semcut.indexes.index import SemanticIndex
from semcut.indexes.migration.journal import Journal, SourceChangedError, checksum
from semcut.indexes.milvus.server_scanner import TooManyRecordsError
from semcut.indexes.progress import Progress
from semcut.indexes.pruning.outside_cells import outside_cells
from semcut.indexes.search_params import Ranking

_COMPARED_FIELDS = ("ids", "distances", "relevance", "scores")
_IDS_SHOWN = 20  # ids in the sentence about a difference


def check_same_config(source: IndexConfig, target: IndexConfig, name: str) -> None:
    """Raise `InvalidParameterError` unless the target, called `name`, has the source's configuration."""
    differing = [key for key, value in source.model_dump().items() if target.model_dump()[key] != value]
    if differing:
        different = ", ".join(
            f"{key} {getattr(target, key)} instead of {getattr(source, key)}"
            if key not in ("prior", "similarity")
            else f"another {key}"
            for key in differing
        )
        raise InvalidParameterError(
            f"{name} has another configuration ({different}): choose another collection, or drop it"
        )


def check_in_cells(source: SemanticIndex, batch: Encodings, name: str) -> None:
    """Raise `DamagedIndexError` unless the records of a batch are in the cells of their index, called `name`."""
    assert batch.ids is not None
    outside = outside_cells(source._cells(), batch.probabilities)
    if outside.any():
        some = _some(source, batch.ids[outside])
        raise DamagedIndexError(
            f"{name} has records outside of their cell, such as {some}: restore it from a backup, "
            "or remove the records that `semcut verify` names, before it is copied"
        )


def compare_counts(target: SemanticIndex, expected: int, target_name: str, source_name: str) -> list[str]:
    """Compare the number of records in the target with the expected number, which is that of the source."""
    found = len(target)
    return [] if found == expected else [f"{target_name} has {found} records, {source_name} has {expected}"]


def compare_records(
    source: SemanticIndex,
    target: SemanticIndex,
    journal: Journal,
    source_changed: SourceChangedError,
    progress: Progress | None = None,
) -> Iterator[str]:
    """Compare the content of every batch in the journal, and yield a sentence for each batch that differs.

    Args:
        source, target: the indexes of the migration.
        journal: the journal of the migration, with the CRC-32 of every batch.
        source_changed: the error to raise if the source no longer has these batches.
        progress: called with the number of records compared so far, and the total number of records.
    """
    total = len(source)
    done, after = 0, -1
    for line in journal.batches:
        batch = next(source.iterate(line.records, after=after), None)
        if batch is None or batch.ids is None or (len(batch), batch.ids[-1]) != (line.records, line.last):
            raise source_changed
        found = _existing(target, batch)
        if len(found) < len(batch) or checksum(found) != line.crc:
            wrong = _differing_ids(batch, found)
            yield f"{len(wrong)} records are missing or not the same: {_some(source, wrong)}"
        after, done = line.last, done + len(batch)
        if progress is not None:
            progress(done, total)


def compare_searches(source: SemanticIndex, target: SemanticIndex, count: int) -> tuple[int, list[str]]:
    """Search both indexes exactly for some records of the source, in every ranking that applies, and compare results.

    Args:
        source, target: the indexes of the migration.
        count: the number of records of the source that are used as queries.

    Returns:
        The number of searches that were compared, and a sentence for each ranking with different results.
    """
    ids = source.ids()
    if not len(ids) or not count:
        return 0, []
    chosen = np.random.default_rng(0).choice(ids, min(count, len(ids)), replace=False)
    queries = source.get(chosen)
    local = source if source.capabilities.cheap_stats else target
    rankings: list[Ranking] = ["distance", "fused"] if local.stats().normalised else ["distance"]
    compared, differences = 0, []
    for ranking in rankings:
        answered, unequal = _unequal_answers(source, target, queries, ranking)
        compared += answered
        if len(unequal):
            differences.append(
                f"{len(unequal)} searches ({ranking}) give different results: queries {_some(source, chosen[unequal])}"
            )
    return compared, differences


def compare_filters(source: SemanticIndex, target: SemanticIndex) -> list[str]:
    """Compare the records that match one filter for each attribute: those that have the value of some record."""
    ids = source.ids()
    differences: list[str] = []
    if not len(ids) or not source.config.attributes:
        return differences
    some = source.get(ids[len(ids) // 2 :][:1])
    for name, (value,) in (some.attributes or {}).items():
        if value is None:
            where = attribute(name).is_missing()
        elif isinstance(value, tuple):
            where = attribute(name).contains_all(value)
        else:
            where = attribute(name) == value
        found, expected = target.matching(where), source.matching(where)
        if not np.array_equal(found, expected):
            wrong = np.setxor1d(found, expected)
            some_wrong = f"{len(wrong)} in all: {_some(source, wrong)}"
            differences.append(f"a filter by {name} matches other records, {some_wrong}")
    return differences


def _unequal_answers(
    source: SemanticIndex, target: SemanticIndex, queries: Encodings, ranking: Ranking
) -> tuple[int, NDArray[np.int64]]:
    """Search both indexes with the same queries and compare the results.

    A query that would fetch too many records from a server is left out.

    Returns:
        The number of queries that were compared, and (n,) int64: the positions of the queries with different results.
    """
    try:
        expected, found = (
            index.search(queries, shortlist=None, ranking=ranking, fill=False) for index in (source, target)
        )
    except TooManyRecordsError:
        if len(queries) == 1:
            return 0, np.empty(0, np.int64)
        compared, positions = 0, [np.empty(0, np.int64)]
        for position in range(len(queries)):
            answered, unequal_here = _unequal_answers(source, target, queries[position : position + 1], ranking)
            compared += answered
            positions.append(unequal_here + position)
        return compared, np.concatenate(positions)
    unequal = np.zeros(len(queries), bool)
    for name in _COMPARED_FIELDS:
        one, other = getattr(expected, name), getattr(found, name)
        unequal |= ~((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=1)
    return len(queries), np.flatnonzero(unequal)


def _existing(index: SemanticIndex, batch: Encodings) -> Encodings:
    """Return the records of an index with the ids of a batch, without those that the index does not have.

    Where there are keys, they are the ids: Milvus 2.3 stores keys twice, and finds and returns records by one each.
    """
    ids = batch.ids if batch.keys is None else batch.keys
    try:
        return index.get(ids)
    except UnknownIdError:
        return index.get(batch[index.contains(ids)].ids)


def _differing_ids(batch: Encodings, found: Encodings) -> NDArray[np.int64]:
    """Return the ids of the records of a batch that are missing or different in `found`: (n,) int64."""
    assert batch.ids is not None
    assert found.ids is not None
    exists = np.isin(batch.ids, found.ids)
    same = exists.copy()
    at = np.flatnonzero(exists)
    for name in ("codes", "probabilities", "features"):
        same[at] &= (getattr(batch, name)[at] == getattr(found, name)).all(axis=1)
    columns = [
        (batch.uris, found.uris),
        (batch.keys, found.keys),
        *((values, (found.attributes or {}).get(name)) for name, values in (batch.attributes or {}).items()),
    ]
    for here, there in columns:
        one, other = here or [None] * len(batch), there or [None] * len(found)
        same[at] &= np.array([one[i] == other[j] for j, i in enumerate(at.tolist())], bool)
    return batch.ids[~same]


def _some(source: SemanticIndex, ids: NDArray[np.int64]) -> str:
    """Return the first ids as text, by their keys in the source if it has keys."""
    first = ids[:_IDS_SHOWN]
    keys = source._keys(first) if source.config.string_ids else [None] * len(first)
    names = [str(number) if key is None else shown(key) for number, key in zip(first.tolist(), keys, strict=True)]
    return ", ".join(names) + (", ..." if len(ids) > _IDS_SHOWN else "")
