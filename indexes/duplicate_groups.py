"""`near_duplicates`: groups the records of an index that are nearly the same, by code and by feature.

Two records are a pair if their codes differ in at most `max_hamming` bits and their features are at most `max_distance`
apart, both exactly. A group is what pairs connect, so two records of a group need not be a pair themselves. Records
are compared where their probabilities make them neighbours (`search.record_pairs`), or all with one another.

Groups are found by joining the labels of the records of each pair, the smaller label to both, and of all records with
the same label, until nothing changes. Records with the same label are not compared again, so a thousand copies of one
image take about as many comparisons of features as there are copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.argument_checks import callback_given, flag_given, instance_given, integer_given, number_given
from semcut.indexes.faiss_index import FaissIndex
from semcut.indexes.index import SemanticIndex
from semcut.indexes.progress import Progress, silent
from semcut.indexes.scanners.engine_names import choose_engine
from semcut.indexes.search.record_pairs import RecordPairs
from semcut.indexes.search_defaults import DEFAULT_DUPLICATE_BITS, DEFAULT_DUPLICATE_DISTANCE
from semcut.indexes.storage.snapshot import Snapshot

_COMPILED_FROM = 50_000
"""Records from which compiling the kernel takes less time than it saves."""


@dataclass(frozen=True, eq=False, kw_only=True)
class NearDuplicates:
    """Groups of near-duplicates, the largest group first, then by smallest id. Within a group, ids ascend.

    `len(groups)` is the number of groups, `groups[i]` the ids of one of them, (n,) int64, n at least 2, and iterating
    over the groups gives these arrays.

    Attributes:
        ids: (records in groups,) int64, one group after the other.
        offsets: (groups + 1,) int64, where each group begins.
        records: the number of records that were compared.
        max_hamming, max_distance, everywhere: as they were asked for.
    """

    ids: NDArray[np.int64]
    offsets: NDArray[np.int64]
    records: int
    max_hamming: int
    max_distance: float
    everywhere: bool

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, group: int) -> NDArray[np.int64]:
        """Return the ids of one group: (n,) int64.

        Raises:
            InvalidParameterError: there is no group of this number.
        """
        number = integer_given("group", group, -len(self), len(self) - 1) % max(1, len(self))
        return self.ids[self.offsets[number] : self.offsets[number + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return (self[group] for group in range(len(self)))

    def removable(self) -> NDArray[np.int64]:
        """Return the ids of all records but the first of each group, ascending: (n,) int64."""
        return np.sort(np.delete(self.ids, self.offsets[:-1]))


def near_duplicates(
    index: SemanticIndex,
    *,
    max_hamming: int = DEFAULT_DUPLICATE_BITS,
    max_distance: float = DEFAULT_DUPLICATE_DISTANCE,
    everywhere: bool = False,
    progress: Progress | None = None,
) -> NearDuplicates:
    """Group the records of an index that are nearly the same. Nothing is changed.

    Args:
        index: any index, as it is now. The records of an index that is no `FaissIndex` are copied into memory.
        max_hamming: the largest number of bits in which the codes of a pair differ.
        max_distance: the largest distance of the features of a pair.
        everywhere: whether to compare all records with one another, not only neighbours. The time grows with the square
            of the number of records.
        progress: called with the number of comparisons of a record with a list that are done, and in all.

    Raises:
        InvalidParameterError: an argument is out of range.
    """
    instance_given("index", index, SemanticIndex)  # type: ignore[type-abstract]
    bits = integer_given("max_hamming", max_hamming, 0, index.config.bits)
    reach = number_given("max_distance", max_distance, 0, 1e18)
    everywhere = flag_given("everywhere", everywhere)
    callback_given("progress", progress)
    with _snapshot_of(index) as snapshot:
        count = len(snapshot)
        labels = np.arange(count, dtype=np.int32)
        if count > 1:
            pairs = RecordPairs(snapshot, bits, reach, compiled=_compiled(count))
            for a, b in pairs.pairs(labels, everywhere=everywhere, progress=progress or silent):
                join(labels, a, b)
        ids = snapshot.columns.reading(lambda: snapshot.columns.ids[snapshot.live])
    grouped, offsets = _groups(labels, ids)
    return NearDuplicates(
        ids=grouped, offsets=offsets, records=count, max_hamming=bits, max_distance=reach, everywhere=everywhere
    )


@contextmanager
def _snapshot_of(index: SemanticIndex) -> Iterator[Snapshot]:
    """Yield a snapshot of the records, of a copy in memory if the index has none."""
    if isinstance(index, FaissIndex):
        yield index.snapshot
        return
    with FaissIndex.create(None, index.config, engine="faiss") as copy:
        for batch in index.iterate():
            copy.add(batch)
        yield copy.snapshot


def _compiled(records: int) -> bool:
    """Return whether to compare with the numba kernel: if it is ready, or pays for being compiled."""
    chosen = choose_engine("auto")
    return chosen == "compiled" or (chosen == "auto" and records >= _COMPILED_FROM)


def join(labels: NDArray[np.int32], a: NDArray[np.int64], b: NDArray[np.int64]) -> None:
    """Give the smallest of their labels to all records that pairs connect, in place.

    Args:
        labels: (n,) int32. The label of a record is the smallest number of the records that it is connected with.
        a, b: (p,) int64, the numbers of the records of each pair.
    """
    while True:
        first, second = labels[a], labels[b]
        apart = first != second
        if not apart.any():
            return
        a, b, first, second = a[apart], b[apart], first[apart], second[apart]
        np.minimum.at(labels, np.maximum(first, second), np.minimum(first, second))
        while not np.array_equal(shorter := labels[labels], labels):
            labels[:] = shorter


def _groups(labels: NDArray[np.int32], ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ids of the groups of at least two records, and where each group begins, as in `NearDuplicates`."""
    sizes = np.bincount(labels, minlength=len(labels))
    smallest = np.full(len(labels), np.iinfo(np.int64).max)
    np.minimum.at(smallest, labels, ids)
    inside = np.flatnonzero(sizes[labels] > 1)
    own = labels[inside]
    order = np.lexsort((ids[inside], smallest[own], -sizes[own]))
    inside, own = inside[order], own[order]
    starts = np.flatnonzero(np.concatenate([[True], own[1:] != own[:-1]])) if len(own) else np.empty(0, np.int64)
    return ids[inside], np.append(starts, len(own)).astype(np.int64)
