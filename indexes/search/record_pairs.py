"""`RecordPairs`: all pairs of near records among those of a snapshot that are neighbours.

Two records are neighbours if they have the same most probable class, and so are in one partition; or if the largest
probability of neither is 0.8 or more (the border of confident cells in `pruning.cell_table`), and one of the two most
probable classes of the one is among the two of the other: the cells next to each other where classes change places.
Near records have nearly the same probabilities, so that few near pairs are not neighbours. `near_pairs` finds
candidates; here, their exact distances decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.faiss_library import single_threaded_pool, thread_count
from semcut.indexes.progress import Progress
from semcut.indexes.pruning.cell_table import CONFIDENT
from semcut.indexes.scoring.equations import distance
from semcut.indexes.scoring.packed_rows import PackedRows
from semcut.indexes.search.near_pairs import Lists, Radius, damaged_features, directions, near_pairs
from semcut.indexes.storage.snapshot import Snapshot

_CHUNK = 1 << 14
"""Records that are read at once."""
_VALUES = 1 << 21
"""Values of the features whose exact distances are computed at once."""
_CANDIDATES = 1 << 20
"""Candidates that a kernel may return at once, if no list is longer."""
_PART, _SMALL_PART = 1 << 14, 256
"""Records whose candidates are looked for at once: by a kernel, by numpy."""


class _Task(NamedTuple):
    """Records to compare, each with a stretch of a list; see `near_pairs`."""

    records: Lists
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    lists: Lists


class RecordPairs:
    """The records of a snapshot, prepared to be compared with one another. Records are numbered by their live rows.

    Args:
        snapshot: the records, at least one.
        max_hamming: the largest number of bits in which the codes of a pair differ.
        max_distance: the largest distance of the features of a pair, compared in float32.
        compiled: whether the numba kernel finds candidates, which numpy also does, many times slower.

    Raises:
        DamagedIndexError: a feature is not finite, which semcut never writes.
    """

    def __init__(self, snapshot: Snapshot, max_hamming: int, max_distance: float, *, compiled: bool) -> None:
        self._columns, self._rows = snapshot.columns, snapshot.live
        self._max_hamming, self._max_distance, self._compiled = max_hamming, np.float32(max_distance), compiled
        config, count = snapshot.cells.config, len(snapshot)
        self._dim = config.dim
        self._codes = np.zeros((count, -(-config.bits // 64)), np.uint64)
        codes = self._columns.reading(lambda: self._columns.codes[self._rows])
        self._codes.view(np.uint8).reshape(count, -1)[:, : config.bits // 8] = codes
        self._classes, self._tops = np.empty((count, 2), np.int64), np.empty((count, 2), np.float32)
        chunks = [np.arange(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
        for here in chunks:
            self._classes[here], self._tops[here] = self._two_largest(here)
        found = directions(self._features, self._classes[:, 0], config.dim)
        self._sketches = np.empty((count, found.axes.shape[1]), np.float32)
        for here in chunks:
            self._sketches[here] = found.sketches(self._features(here))
            self._columns.release_pages()
        if not np.isfinite(self._sketches).all():
            raise damaged_features()
        rounding = float(np.abs(self._sketches).max()) * np.sqrt(self._sketches.shape[1]) * 2.0**-20
        self._radius = Radius(max_hamming, float(self._max_distance) * (1 + 2.0**-16) + rounding)

    def __len__(self) -> int:
        return len(self._rows)

    def pairs(
        self, labels: NDArray[np.int32], *, everywhere: bool, progress: Progress
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the pairs, as two (p,) int64 arrays of the numbers of their records. A pair may be found twice.

        Args:
            labels: (records,) int32; pairs with the same label are left out. The caller may change labels between two
                batches, so that records that are known to be connected are not compared.
            everywhere: whether all records are neighbours.
            progress: called with the number of comparisons of a record with a list that are done, and in all.
        """
        tasks = [task for task in (self._everywhere() if everywhere else self._neighbours()) if len(task.starts)]
        size = _PART if self._compiled else _SMALL_PART
        lengths = [len(task.starts) for task in tasks]
        parts = [
            (task, start, min(start + size, length))
            for task, length in zip(tasks, lengths, strict=True)
            for start in range(0, length, size)
        ]
        total, done = sum(lengths), 0
        threads = thread_count()
        with single_threaded_pool(threads) as pool:
            running: dict[Future[tuple[NDArray[np.int64], NDArray[np.int64], int]], tuple[_Task, int, int]] = {}
            while parts or running:
                while parts and len(running) < threads + 1:
                    part = parts.pop()
                    running[pool.submit(self._part, *part, labels)] = part
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task, begin, end = running.pop(future)
                    a, b, stopped = future.result()
                    if stopped < end:
                        parts.append((task, stopped, end))
                    yield a, b
                    done += stopped - begin
                    progress(done, total)

    def _part(
        self, task: _Task, begin: int, end: int, labels: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        """Return pairs of some records of a task, and the record to go on with."""
        records = Lists._make(array[begin:end] for array in task.records)
        part = _Task(records, task.starts[begin:end], task.ends[begin:end], task.lists)
        if self._compiled:
            from semcut.indexes.search.near_pairs_numba import candidates_of

            most = max(_CANDIDATES, int((part.ends - part.starts).max(initial=0)))
            a, b, answered = candidates_of(*part, labels, self._radius, most)
        else:
            a, b = near_pairs(*part, labels, self._radius)
            answered = end - begin
        near = np.zeros(len(a), bool)
        step = max(1, _VALUES // self._dim)
        for start in range(0, len(a), step):
            here = slice(start, start + step)
            near[here] = distance(self._features(a[here]), self._features(b[here])) <= self._max_distance
        return a[near].astype(np.int64), b[near].astype(np.int64), begin + answered

    def _everywhere(self) -> Iterator[_Task]:
        """Yield the comparison of all records with one another."""
        yield self._among(np.arange(len(self)), np.zeros(len(self), np.int64))

    def _neighbours(self) -> Iterator[_Task]:
        """Yield the comparisons of neighbours."""
        every, largest = np.arange(len(self)), self._classes[:, 0]
        yield self._among(every, largest)
        unsure = np.flatnonzero(self._tops[:, 0] < CONFIDENT)
        second = unsure[self._tops[unsure, 1] > 0]
        records = np.concatenate([unsure, second])
        yield self._among(records, np.concatenate([largest[unsure], self._classes[second, 1]]))

    def _among(self, records: NDArray[np.int64], keys: NDArray[np.int64]) -> _Task:
        """Return the comparison of each record with those after it in the list of its key.

        Args:
            records, keys: (m,) int64 each, a record and the number of a list that has it.
        """
        order = np.lexsort((self._sketches[records, 0], keys))
        records, keys = records[order], keys[order]
        lists = Lists(records.astype(np.int32), self._codes[records], self._sketches[records])
        return _Task(lists, np.arange(1, len(keys) + 1), np.searchsorted(keys, keys, "right"), lists)

    def _features(self, records: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        def read() -> NDArray[np.float32]:
            features, at = self._columns.features(self._rows[records])
            return features[at]

        return self._columns.reading(read)

    def _two_largest(self, records: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the classes and the values of the two largest probabilities: (n, 2) int64 and (n, 2) float32."""

        def read() -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            found, at = self._columns.stored_probabilities(self._rows[records])
            if isinstance(found, PackedRows):
                rows = found.taken(at)
                first = rows.place(0)
                second = rows.place(1) if rows.stored > 1 else (first[0], np.zeros_like(first[1]))
                return np.stack([first[0], second[0]], axis=1), np.stack([first[1], second[1]], axis=1)
            dense, row = found[at], np.arange(len(records))
            largest = dense.argmax(axis=1)
            top = dense[row, largest]
            dense[row, largest] = -1
            second_largest = dense.argmax(axis=1)
            classes = np.stack([largest, second_largest], axis=1)
            return classes, np.stack([top, dense[row, second_largest]], axis=1)

        return self._columns.reading(read)
