"""Changes of a `MilvusIndex`: in which order a batch, a removal and what they leave behind reach the server.

A batch that an earlier call left half written is taken back first. Then bounds are widened, so that no search prunes
what is coming; an `add` is announced as unfinished; records are written; and the batch is told to be finished, or
changed. Where records lie apart from what is searched (`layout`), a record is written under a row that nothing points
to, then its id is pointed to that row, and at last the row that it pointed to before is deleted: whatever stops in
between, the id has one whole record, and rows that nothing points to only take room.
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import Encodings, is_unnormalised
from semcut.indexes.id_checks import refuse_known, refuse_unknown
from semcut.indexes.milvus.connection import Server, among, integers
from semcut.indexes.milvus.reader import IDS, Reader
from semcut.indexes.milvus.schema import Schema, to_keys
from semcut.indexes.milvus.shared_state import SharedState
from semcut.indexes.pruning.cells import Cells


class Writer:
    """Changes what is on the server. One call at a time: the index has the lock.

    Args:
        server, layout, catalogue, reader: of the index.
    """

    def __init__(self, server: Server, layout: Schema, catalogue: SharedState, reader: Reader) -> None:
        self._server, self._layout, self._catalogue, self._reader = server, layout, catalogue, reader
        self._half_removed = np.empty(0, np.int64)  # ids of a removal that has failed

    def write(self, encodings: Encodings, *, replace: bool, known: bool) -> None:
        """Write records.

        Args:
            encodings: with ids.
            replace: those that are there already; otherwise the batch is seen as a whole or not at all.
            known: whether the ids are known not to be there, so that they need not be looked for.

        Raises:
            DuplicateIdError: not to be replaced, and there already.
            InvalidEncodingsError: the server cannot hold such a record.
            ServerError: the server does not answer, or refuses.
        """
        assert encodings.ids is not None
        self._layout.check(encodings)
        self._undo()
        before = np.empty(0, np.int64)
        if not known:
            before, hidden = self._reader.rows_of(encodings.ids, strong=True)
            if not replace:
                refuse_known(encodings.ids, np.where(hidden, -1, before))
        bounds = Cells.empty(self._layout.config).extended(encodings.probabilities)[0]
        self._catalogue.widen(bounds, bool(is_unnormalised(encodings.features).any()))
        first = secrets.randbits(61)
        if not replace:
            self._catalogue.begin(first, first + len(encodings) - 1)
        for here in self._layout.parts(encodings):
            rows, records = self._layout.rows(encodings[here], first + here.start)
            if records:  # their keys are new, and a repetition is the same again
                self._server.call("insert", self._layout.records, records)
            self._server.call("upsert", self._layout.name, rows)
        self._forget(before[before >= 0])
        if replace:
            self._catalogue.changed()
        else:
            self._catalogue.finish()

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Remove records.

        Args:
            ids: (n,) int64. Those that a failed removal of the same ids has removed already may be among them.

        Raises:
            UnknownIdError: naming ids that are not there; then none is removed.
            ServerError: the server does not answer, or refuses.
        """
        self._undo()
        rows, hidden = self._reader.rows_of(ids, strong=True)
        gone = np.isin(ids, self._half_removed) & (rows < 0)
        refuse_unknown(ids[~gone], np.where(hidden, -1, rows)[~gone])
        self._half_removed = ids
        for start in range(0, len(ids), IDS):
            self._server.delete(self._layout.name, among("id", to_keys(ids[start : start + IDS])))
        self._forget(rows[~gone])
        self._catalogue.changed()
        self._half_removed = ids[:0]

    def sweep(self, ids: NDArray[np.int64]) -> None:
        """Delete the rows of these records that nothing points to. See `MilvusIndex.sweep`."""
        if self._layout.records == self._layout.name:
            return
        for start in range(0, len(ids), IDS):
            part = ids[start : start + IDS]
            rows = self._server.read(
                "query", self._layout.records, filter=among("id", to_keys(part)), output_fields=["row"], strong=True
            )
            written = integers(rows, "row")
            self._forget(written[~np.isin(written, self._reader.rows_of(part, strong=True)[0])])

    def _undo(self) -> None:
        """Take back a batch of which adding has failed."""
        batch = self._catalogue.unfinished()
        if batch is not None:
            condition = f"row >= {batch[0]} and row <= {batch[1]}"
            self._server.delete_found(self._layout.name, "id", condition)
            if self._layout.records != self._layout.name:
                self._server.delete_found(self._layout.records, "row", condition)
            self._catalogue.take_back()

    def _forget(self, rows: NDArray[np.int64]) -> None:
        """Delete rows that nothing points to any more."""
        if self._layout.records != self._layout.name:
            for start in range(0, len(rows), IDS):
                self._server.delete(self._layout.records, among("row", rows[start : start + IDS]), noticed=False)
