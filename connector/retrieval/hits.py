"""`Hit`: a record that a search of images found, with the path of its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.result import SearchResult


@dataclass(frozen=True, slots=True)
class Hit:
    """A record that a search found.

    Attributes:
        id: the id of the record.
        uri: the path of its file; None if the record has no uri.
        distance, relevance, score, hamming, filled: as in `SearchHit`.
    """

    id: int
    uri: str | None
    distance: float
    relevance: float
    score: float
    hamming: int
    filled: bool


def hits_of(result: SearchResult, paths: Callable[[NDArray[np.int64]], list[str | None]]) -> list[list[Hit]]:
    """Convert the result of a search to a list of hits for each query, best first.

    Args:
        result: the result.
        paths: returns the paths of the files of (n,) ids.
    """
    found = np.unique(result.ids[result.ids >= 0])
    uris = dict(zip(found.tolist(), paths(found), strict=True))
    columns = (result.ids, result.distances, result.relevance, result.scores, result.hamming, result.filled)
    return [
        [Hit(record, uris[record], *values) for record, *values in zip(*rows, strict=True) if record >= 0]
        for rows in ((column[query].tolist() for column in columns) for query in range(len(result)))
    ]
