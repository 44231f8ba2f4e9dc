"""`Hit`: a record that a search of images found, with the path of its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.index import SemanticIndex
from semcut.indexes.result import SearchResult


@dataclass(frozen=True, slots=True)
class Hit:
    """A record that a search found.

    Attributes:
        id: the id of the record.
        uri: the path of its file; None if the record has no uri.
        distance, relevance, score, hamming, filled: as in `SearchHit`.
        attributes: the attributes of the record, by name.
        key: the id as a string, None if the index has integer ids alone.
    """

    id: int
    uri: str | None
    distance: float
    relevance: float
    score: float
    hamming: int
    filled: bool
    attributes: dict[str, Any] = field(default_factory=dict, hash=False)
    key: str | None = None


def hits_of(
    result: SearchResult, index: SemanticIndex, paths: Callable[[NDArray[np.int64]], list[str | None]]
) -> list[list[Hit]]:
    """Convert the result of a search to a list of hits for each query, best first.

    Args:
        result: the result.
        index: the index that was searched.
        paths: returns the paths of the files of (n,) ids.
    """
    found = np.unique(result.ids[result.ids >= 0])
    uris = dict(zip(found.tolist(), paths(found), strict=True))
    values_of = index.attributes(found) if index.config.attributes else {}
    rows = zip(*values_of.values(), strict=True) if values_of else ((),) * len(found)
    named = {record: dict(zip(values_of, row, strict=True)) for record, row in zip(found.tolist(), rows, strict=True)}
    keys_of = dict(zip(found.tolist(), index.keys(found), strict=True)) if index.config.string_ids else {}
    columns = (result.ids, result.distances, result.relevance, result.scores, result.hamming, result.filled)
    return [
        [
            Hit(record, uris[record], distance, relevance, score, hamming, filled, named[record], keys_of.get(record))
            for record, distance, relevance, score, hamming, filled in zip(*slots, strict=True)
            if record >= 0
        ]
        for slots in ((column[query].tolist() for column in columns) for query in range(len(result)))
    ]
