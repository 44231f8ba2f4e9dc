"""The searches of a few selections of records, which are kept for the next search that is limited in the same way.

A search within a selection is the search of a snapshot that has these records alone, with a scanner of its own. To
build it, the filter is evaluated for all records, and the codes of those that match are copied: milliseconds for a
million records. A batch of queries hides that; single queries with the same filter find it done.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from semcut.indexes.attributes.selections import Selection
from semcut.indexes.scanners.choose import AnyScanner
from semcut.indexes.search.beyond_cutoff import Search
from semcut.indexes.storage.snapshot import Snapshot

_MOST = 16
_FEW_RECORDS = 1 << 16


class Limited(NamedTuple):
    """A snapshot that has the records of a selection alone, the scanner of their codes, and its search."""

    snapshot: Snapshot
    scanner: AnyScanner
    search: Search


class PreparedSelections:
    """The last selections of one snapshot that were searched: at most 16, and together at most as many records.

    The caller prevents that two threads use it at the same time.
    """

    def __init__(self) -> None:
        self._whole: Snapshot | None = None
        self._found: OrderedDict[object, Limited] = OrderedDict()

    def get(self, whole: Snapshot, selection: Selection) -> Limited | None:
        """Return what `put` was given for this selection of this snapshot; None if it is not kept.

        Args:
            whole: the snapshot of all records. What is kept for another one is dropped.
            selection: the selection.
        """
        if whole is not self._whole:
            self._whole = whole
            self._found.clear()
        found = self._found.get(selection.key)
        if found is not None:
            self._found.move_to_end(selection.key)
        return found

    def put(self, whole: Snapshot, selection: Selection, limited: Limited) -> None:
        """Keep the search of a selection, and drop those that were not used for longest until all fit."""
        self.get(whole, selection)
        self._found[selection.key] = limited
        most = max(len(whole), _FEW_RECORDS)
        while len(self._found) > 1 and (
            len(self._found) > _MOST or sum(len(one.snapshot) for one in self._found.values()) > most
        ):
            self._found.popitem(last=False)
