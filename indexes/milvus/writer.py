"""Change the records of a `MilvusIndex` in an order that keeps every record whole if a change is interrupted.

A change first deletes a batch that an earlier call left unfinished. Then it

1. widens the bounds of cells, so that no search prunes the new records;
2. publishes, for an `add`, that the batch is unfinished, so that readers leave its rows out;
3. writes the records;
4. publishes that the batch is finished, or that records changed.

If whole records have a collection of their own (kind "apart" of `schema`), step 3 writes a record to a new row there,
then points the record's id to that row, then deletes the row to which the id pointed before. If this is interrupted,
the id still has one whole record, and a row to which no id points only takes space.
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import Encodings, is_unnormalised
from semcut.indexes.id_checks import refuse_known, refuse_unknown
from semcut.indexes.keys import refuse_keys
from semcut.indexes.milvus.connection import ServerConnection, is_in
from semcut.indexes.milvus.pymilvus_internals import int_column
from semcut.indexes.milvus.reader import IDS_PER_FILTER, Reader
from semcut.indexes.milvus.scalar_index import index_scalars
from semcut.indexes.milvus.schema import Schema, to_keys
from semcut.indexes.milvus.shared_state import SharedState
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.stored_values import norm_tolerance


class Writer:
    """The writer of the records of an index. The index makes sure that only one thread uses it at any moment.

    Args:
        server, schema, shared, reader: the connection, the schema, the shared state and the reader of the index.
    """

    def __init__(self, server: ServerConnection, schema: Schema, shared: SharedState, reader: Reader) -> None:
        self._server, self._schema, self._shared, self._reader = server, schema, shared, reader
        self._half_removed = np.empty(0, np.int64)  # ids of a removal that has failed
        self._half_removed_keys: dict[int, str | None] = {}

    def write(self, encodings: Encodings, *, replace: bool, known: bool) -> None:
        """Write records.

        Args:
            encodings: records with ids.
            replace: replace records with the same ids; otherwise readers see the whole batch or none of it.
            known: do not request the ids that exist already, because the caller expects none (see `MilvusIndex.load`).
                For an index with keys, the ids are requested, but not in the newest state.

        Raises:
            DuplicateIdError: an id is in the index already, and `replace` is off.
            InvalidEncodingsError: the server cannot store such a record, or a key has the id of another.
            ServerError: the server does not answer, or refuses.
        """
        assert encodings.ids is not None
        self._schema.check_storable(encodings)
        self._delete_unfinished()
        before = np.empty(0, np.int64)
        if encodings.keys is not None or not known:
            stored = self._reader.stored(encodings.ids, strong=not known)
            if encodings.keys is not None:
                refuse_keys(encodings.ids, encodings.keys, stored.keys, replace=replace)
            if not replace:
                refuse_known(encodings.ids, stored.visible)
            before = stored.rows
        bounds = Cells.empty(self._schema.config).extended(encodings.probabilities)[0]
        self._shared.widen(bounds, bool(is_unnormalised(encodings.features, norm_tolerance(self._schema.config)).any()))
        first = secrets.randbits(61)
        if not replace:
            self._shared.begin_batch(first, first + len(encodings) - 1)
        for here in self._schema.call_slices(encodings):
            rows, records = self._schema.rows(encodings[here], first + here.start)
            if records:  # their keys are new, so a repeated insert writes the same rows again
                self._server.call("insert", self._schema.record_collection, records)
            self._server.call("upsert", self._schema.name, rows)
        self._delete_records(before[before >= 0])
        if replace:
            self._shared.count_change()
        else:
            self._shared.finish_batch()

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Remove records.

        Args:
            ids: (n,) int64. After a removal that failed, the ids that it has removed already are accepted once more.

        Raises:
            UnknownIdError: ids are not in the index, and the message names them; no record is removed then.
            ServerError: the server does not answer, or refuses.
        """
        self._delete_unfinished()
        stored = self._reader.stored(ids, strong=True)
        removed = np.isin(ids, self._half_removed) & (stored.rows < 0)
        refuse_unknown(ids[~removed], stored.visible[~removed])
        if self._schema.config.string_ids:
            keys = self.with_half_removed(ids, stored.keys)
            self._half_removed_keys = dict(zip(ids.tolist(), keys, strict=True))
        self._half_removed = ids
        for start in range(0, len(ids), IDS_PER_FILTER):
            self._server.delete(self._schema.name, is_in("id", to_keys(ids[start : start + IDS_PER_FILTER])))
        self._delete_records(stored.rows[~removed])
        self._shared.count_change()
        self._half_removed, self._half_removed_keys = ids[:0], {}

    def with_half_removed(self, ids: NDArray[np.int64], keys: list[str | None]) -> list[str | None]:
        """Return the keys of n ids, with those of records that a removal has removed before it failed."""
        before = self._half_removed_keys
        return [key or before.get(number) for number, key in zip(ids.tolist(), keys, strict=True)]

    def sweep(self, ids: NDArray[np.int64]) -> None:
        """Delete the rows of these records to which no id points: see `MilvusIndex.sweep`."""
        if self._schema.record_collection == self._schema.name:
            return
        for start in range(0, len(ids), IDS_PER_FILTER):
            part = ids[start : start + IDS_PER_FILTER]
            found = self._server.read(
                "query", self._schema.record_collection, filter=is_in("id", to_keys(part)), output_fields=["row"],
                strong=True,
            )  # fmt: skip
            written = int_column(found, "row")
            self._delete_records(written[~np.isin(written, self._reader.stored(part, strong=True).rows)])

    def tidy(self) -> None:
        """Delete bounds that were replaced by wider ones, and make the index of cells if the server has none."""
        self._shared.delete_superseded()
        index_scalars(self._server, self._schema.name, self._schema.indexed_fields)

    def _delete_unfinished(self) -> None:
        """Delete the rows of a batch whose `add` has failed."""
        batch = self._shared.unfinished_batch()
        if batch is not None:
            condition = f"row >= {batch[0]} and row <= {batch[1]}"
            self._server.delete_matching(self._schema.name, "id", condition)
            if self._schema.record_collection != self._schema.name:
                self._server.delete_matching(self._schema.record_collection, "row", condition)
            self._shared.discard_batch()

    def _delete_records(self, rows: NDArray[np.int64]) -> None:
        """Delete rows of `record_collection` to which no id points any more, if whole records are stored apart."""
        if self._schema.record_collection != self._schema.name:
            for start in range(0, len(rows), IDS_PER_FILTER):
                part = is_in("row", rows[start : start + IDS_PER_FILTER])
                self._server.delete(self._schema.record_collection, part, visible=False)
