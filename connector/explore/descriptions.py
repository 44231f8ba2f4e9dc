"""`Descriptions`: builds the JSON that describes records, search results and partitions from arrays of an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.image_uris import paths_of
from semcut.connector.explore.schemas import (
    AttributeValue,
    ClassProbability,
    FoundRecord,
    PartitionPruning,
    PartitionSummary,
    Record,
    SearchWork,
)
from semcut.indexes import Encodings, IndexStats, SearchResult
from semcut.indexes.attributes.attribute_types import json_value
from semcut.indexes.index import SemanticIndex

_EXACT = 2**53
_CLASSES_NAMED = 3  # most probable classes that are named for each record
_CONFIDENCE_RECORDS = 64  # records over which the mean confidence of a partition is taken


class Descriptions:
    """Describes the content of an index as JSON, for people and programs.

    Args:
        index: index to read; it is not closed here.
        class_names: names of its C classes; the classes are numbered if this is None or has another length.
        root: folder to which uris are relative, see `data.image_uris`.
    """

    def __init__(self, index: SemanticIndex, class_names: Sequence[str] | None, root: str | None = None) -> None:
        classes = index.config.classes
        if class_names is None or len(class_names) != classes:
            class_names = [f"class {number}" for number in range(classes)]
        self._index, self._root = index, root
        self.class_names = list(class_names)

    def records(self, ids: Any) -> list[Record]:
        """Describe the records with these ids, (n,) integers or keys, in the order of the ids.

        Raises:
            UnknownIdError: there is no record with one of the ids.
        """
        found = self._index.get(ids)
        assert found.ids is not None
        uris = paths_of(found.uris if found.uris is not None else [None] * len(found), self._root)
        keys: Sequence[str | None] = found.keys or [None] * len(found)
        classes = self.probable_classes(found.probabilities)
        return [
            Record(id=str(record), key=key, uri=uri, classes=named, attributes=attributes)
            for record, key, uri, named, attributes in zip(
                found.ids.tolist(), keys, uris, classes, attributes_of(found), strict=True
            )
        ]

    def probable_classes(self, probabilities: NDArray[np.float32]) -> list[list[ClassProbability]]:
        """Name the most probable classes of n records, most probable first, from their (n, C) probabilities."""
        top = np.argsort(-probabilities, axis=1, kind="stable")[:, :_CLASSES_NAMED]
        values = np.take_along_axis(probabilities, top, axis=1)
        return [
            [
                ClassProbability(partition=number, name=self.class_names[number], probability=value)
                for number, value in zip(*row, strict=True)
            ]
            for row in zip(top.tolist(), values.tolist(), strict=True)
        ]

    def hits(self, result: SearchResult) -> list[FoundRecord]:
        """Describe the results of the first query of a search, best first."""
        slots = np.flatnonzero(result.ids[0] >= 0)
        records = self.records(result.ids[0][slots])
        return [
            FoundRecord(
                record=record,
                distance=float(result.distances[0, slot]),
                relevance=float(result.relevance[0, slot]),
                score=None if np.isnan(result.scores[0, slot]) else float(result.scores[0, slot]),
                hamming=int(result.hamming[0, slot]),
                filled=bool(result.filled[0, slot]),
            )
            for record, slot in zip(records, slots.tolist(), strict=True)
        ]

    def work(self, result: SearchResult, stats: IndexStats, seconds: float) -> SearchWork:
        """Describe what a search for one query has scanned, and how long the search took."""
        return SearchWork(
            records=stats.records,
            partitions=int(result.partitions[0]),
            cells=int(result.cells[0]),
            codes=_known(result.codes[0]),
            cut_off=int(result.cut_off[0]),
            milliseconds=1000 * seconds,
        )

    def pruning(self, query: Encodings, cutoff: float | None, stats: IndexStats) -> list[PartitionPruning]:
        """Describe what pruning leaves of every partition that holds records, largest bound first."""
        found = self._index.explain(query, cutoff=cutoff)
        order = np.argsort(-found.bounds[0], kind="stable")
        return [
            PartitionPruning(
                partition=partition,
                name=self.class_names[partition],
                records=stats.partitions[partition],
                cells=int(found.cells[partition]),
                bound=float(found.bounds[0, partition]),
                kept_cells=int(found.kept_cells[0, partition]),
                kept_records=_known(found.kept_codes[0, partition]),
            )
            for partition in order.tolist()
            if found.cells[partition]
        ]

    def partition(self, partition: int, records: int, cells: int, samples: int) -> PartitionSummary:
        """Describe a partition.

        Args:
            partition: its number.
            records: its number of records.
            cells: its number of cells.
            samples: maximum number of records to name.
        """
        some = self._index.members(partition, max(samples, _CONFIDENCE_RECORDS))
        spread = np.linspace(0, max(0, len(some) - 1), min(samples, len(some))).astype(int)
        confidence = None
        if len(some):
            confidence = float(self._index.get(some[:_CONFIDENCE_RECORDS]).probabilities.max(axis=1).mean())
        return PartitionSummary(
            partition=partition,
            name=self.class_names[partition],
            records=records,
            cells=cells,
            confidence=confidence,
            sample=[str(record) for record in some[spread].tolist()],
        )


def attributes_of(records: Encodings) -> list[dict[str, AttributeValue]]:
    """Return the attributes of n records as JSON; an integer that JavaScript would round is text."""
    columns = records.attributes or {}
    return [{name: _json(values[row]) for name, values in columns.items()} for row in range(len(records))]


def _json(value: Any) -> AttributeValue:
    large = type(value) is int and abs(value) > _EXACT
    return str(value) if large else json_value(value)


def _known(count: np.integer[Any]) -> int | None:
    """Return a count as an integer, or None for -1, which means that the backend does not count."""
    return None if count < 0 else int(count)
