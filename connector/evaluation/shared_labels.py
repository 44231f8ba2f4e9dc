"""`SharedLabels`: which records are right for which queries, where each can have several labels.

A record is right for a query if they share a label. The right records of one query at a time are marked in an array as
long as the index, because the pairs of all queries and records would not fit into memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.label_sets import LabelSets
from semcut.connector.data.labels import RecordLabels


class SharedLabels:
    """The records that share a label with each query.

    Args:
        records: the labels of n records.
        queries: the labels of nq queries.

    Attributes:
        totals: (nq,) int64, the number of right records of each query.
    """

    def __init__(self, records: RecordLabels, queries: LabelSets) -> None:
        sets = LabelSets.single(records.labels) if records.label_sets is None else records.label_sets
        order = np.argsort(sets.labels, kind="stable")
        self._ids, self._queries = records.ids, queries
        self._with_label, labels = sets.images[order], sets.labels[order]
        every = np.arange(max(int(labels.max(initial=-1)), int(queries.labels.max(initial=-1))) + 2)
        self._starts = np.searchsorted(labels, every).tolist()
        self._right, self._marked = np.zeros(len(records.ids) + 1, bool), np.zeros(0, np.int64)
        self.totals = np.array([np.count_nonzero(self._mark(query)) for query in range(len(queries))], np.int64)

    def right(self, ids: NDArray[np.int64], queries: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mark the right results of some of the queries.

        Args:
            ids: (q, k) int64, the results of q queries; -1 for none.
            queries: (q,) int64, the positions of these queries.

        Returns:
            (q, k) bool.
        """
        places = np.searchsorted(self._ids, ids)
        places[self._ids[np.minimum(places, len(self._ids) - 1)] != ids] = len(self._ids)  # where nothing is right
        found = np.empty(ids.shape, bool)
        for row, query in enumerate(queries.tolist()):
            found[row] = self._mark(query)[places[row]]
        return found

    def _mark(self, query: int) -> NDArray[np.bool_]:
        """Return (n + 1,) bool, whether each record is right for a query; the array is used again for the next."""
        labels = self._queries.labels[self._queries.starts[query] : self._queries.starts[query + 1]]
        if not np.array_equal(labels, self._marked):  # queries of one class often follow each other
            self._right[:] = False
            for label in labels.tolist():
                self._right[self._with_label[self._starts[label] : self._starts[label + 1]]] = True
            self._marked = labels
        return self._right
