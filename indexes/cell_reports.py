"""`CellReports`: what an index reports of its cells: what pruning keeps for a query, and who is in a partition.

These methods of every `SemanticIndex` read the cells alone, and search nothing. A backend gives them by two methods.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.argument_checks import instance_given, integer_given
from semcut.indexes.backend import Backend
from semcut.indexes.config import IndexConfig
from semcut.indexes.description import Capabilities
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import ClosedIndexError
from semcut.indexes.pruning.explanation import Explanation, cells_per_partition, explain
from semcut.indexes.scoring.equations import Similarity
from semcut.indexes.search_defaults import DEFAULT_CUTOFF
from semcut.indexes.search_params import SearchParams

MAX_MEMBERS = 10_000
"""The largest number of ids that `SemanticIndex.members` returns."""


class CellReports(Backend):
    """The part of a `SemanticIndex` that reports on its cells."""

    capabilities: ClassVar[Capabilities]
    """What this kind of index can do."""

    config: IndexConfig
    _similarity: Similarity
    _closed: bool

    def explain(self, queries: Encodings, *, cutoff: float | None = DEFAULT_CUTOFF) -> Explanation:
        """Report for every query which cells of each partition pruning keeps, and the bounds on relevance.

        Args:
            queries, cutoff: as for `search`; no cutoff counts as 0.

        Raises:
            InvalidParameterError: as for `search`, or there are too many queries.
            InvalidEncodingsError: as for `search`.
        """
        self._check_open()
        limit = SearchParams(cutoff=cutoff).cutoff or 0.0
        self.config.check(queries)
        weights = self._similarity.weights(queries.probabilities)
        return explain(self._cells(), weights, limit, self.capabilities.counts_codes)

    def members(self, partition: int, limit: int = 100, *, ambiguous: bool = False) -> NDArray[np.int64]:
        """Return ids of some records of a partition: (n,) int64, n at most `limit`.

        Args:
            partition: its dominant class.
            limit: the largest number of ids to return, from 1 to `MAX_MEMBERS`.
            ambiguous: whether to prefer records with a low probability of the dominant class; the order may be
                approximate. Otherwise any records of the partition are returned.

        Raises:
            InvalidParameterError: an argument is out of range.
        """
        self._check_open()
        partition = integer_given("partition", partition, 0, self.config.classes - 1)
        instance_given("ambiguous", ambiguous, bool)
        return self._members(partition, integer_given("limit", limit, 1, MAX_MEMBERS), ambiguous)

    def cells_per_partition(self) -> NDArray[np.int64]:
        """Count the cells of each partition that hold records: (C,) int64."""
        self._check_open()
        return cells_per_partition(self._cells())

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedIndexError
