"""Records in the form in which an index stores them: made of a batch, read from the columns, and written to them.

A copy of stored records costs what they take on the disk, whatever the number of classes: probabilities that are stored
packed stay packed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.attribute_rows import written_rows
from semcut.indexes.attributes.vocabulary import Vocabulary
from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings
from semcut.indexes.probability_rows import possible_rows
from semcut.indexes.scoring.packed_rows import PackedRows, packed
from semcut.indexes.storage.column_files import Extent
from semcut.indexes.storage.mapped_columns import Columns
from semcut.indexes.storage.stored_attributes import attribute_rows
from semcut.indexes.storage.stored_texts import TextKind, read_keys
from semcut.indexes.stored_values import coded_features, storable_features


class StoredRows(NamedTuple):
    """Records in the form in which an index stores them.

    Attributes:
        ids: (n,) int64.
        codes: (n, bits / 8) uint8.
        probabilities, features: (n, ...) rows of their columns.
        uris: n uris; None if no record has one.
        attributes: (n, bytes of a row) uint8, numbers of categories in the vocabulary of the index; None if the index
            has no attributes.
        keys: n keys; None if the index has none.
    """

    ids: NDArray[np.int64]
    codes: NDArray[np.uint8]
    probabilities: NDArray[Any]
    features: NDArray[Any]
    uris: Sequence[str | None] | None
    attributes: NDArray[np.uint8] | None
    keys: Sequence[str] | None

    @staticmethod
    def read(columns: Columns, rows: NDArray[np.int64]) -> StoredRows:
        """Read the records in (n,) rows.

        Raises:
            DamagedIndexError: a row does not match its checksum, or cannot be read.
        """

        def read() -> StoredRows:
            uris = columns.uris(rows)
            probabilities, at = columns.rows_of("probabilities", rows)
            features, places = columns.rows_of("features", rows)
            return StoredRows(
                ids=columns.ids[rows],
                codes=columns.codes[rows],
                probabilities=probabilities[at],
                features=features[places],
                uris=uris if any(uri is not None for uri in uris) else None,
                attributes=attribute_rows(columns, rows),
                keys=read_keys(columns, rows),
            )

        batch = columns.reading(read)
        columns.release_pages()
        return batch

    @staticmethod
    def of(config: IndexConfig, encodings: Encodings, vocabulary: Vocabulary) -> StoredRows:
        """Convert a batch, with ids and with the values that an index of this configuration stores.

        Args:
            config: the configuration of the index.
            encodings: the batch.
            vocabulary: has the categories of the batch.
        """
        assert encodings.ids is not None
        probabilities: NDArray[Any] = encodings.probabilities
        if config.stored_probabilities < config.classes:
            stored = config.stored_probabilities
            probabilities = packed(probabilities, stored) if encodings.packed is None else encodings.packed
        features = coded_features(config, encodings.features) if encodings.coded is None else encodings.coded
        attributes = None
        if config.attributes:
            assert encodings.attributes is not None
            attributes = written_rows(config.attributes, encodings.attributes, vocabulary, len(encodings))
        return StoredRows(
            ids=encodings.ids,
            codes=encodings.codes,
            probabilities=probabilities,
            features=features,
            uris=encodings.uris,
            attributes=attributes,
            keys=encodings.keys,
        )

    def widened(self, config: IndexConfig, wider: IndexConfig) -> StoredRows:
        """Return the records as an index with more classes stores them, all of whose new probabilities are 0."""
        more = wider.classes - config.classes
        if not more or config.stored_probabilities < config.classes:  # packed rows name the classes of their values
            return self
        return self._replace(probabilities=np.pad(self.probabilities, ((0, 0), (0, more))))

    def by_class(self, config: IndexConfig) -> NDArray[np.float32] | PackedRows:
        """Return the probabilities, (n, C) or packed."""
        small = config.stored_probabilities < config.classes
        return PackedRows(self.probabilities, config.classes) if small else self.probabilities

    def possible(self, config: IndexConfig, features: NDArray[np.float32]) -> bool:
        """Return whether an index can have stored these values; those of packed rows were compared when read.

        Args:
            config: the configuration of the index.
            features: the same features as (n, D) float32.
        """
        small = config.stored_probabilities < config.classes
        whole = storable_features(config, features).all() and (small or possible_rows(self.probabilities).all())
        return bool(whole)


def column_values(rows: StoredRows, cells: NDArray[np.int32], extents: Mapping[str, Extent]) -> dict[str, NDArray[Any]]:
    """Return the rows of every column except `removed` and `vocabulary` for a batch, in order of cells.

    Args:
        rows: n records.
        cells: (n,) position of each record's cell.
        extents: of the columns before the batch.
    """
    order = np.argsort(cells, kind="stable")
    attributes = {} if rows.attributes is None else {"attributes": rows.attributes[order]}
    return {
        "ids": rows.ids[order],
        "codes": rows.codes[order],
        "probabilities": rows.probabilities[order],
        "features": rows.features[order],
        "cells": cells[order],
        **_text_columns("uri", rows.uris, order, extents),
        **attributes,
        **({} if rows.keys is None else _text_columns("key", rows.keys, order, extents)),
    }


def _text_columns(
    kind: TextKind, texts: Sequence[str | None] | None, order: NDArray[np.int64], extents: Mapping[str, Extent]
) -> dict[str, NDArray[Any]]:
    """Return the rows of the columns of n texts, in another order."""
    found = [texts[row] for row in order.tolist()] if texts is not None else []
    written = [b"" if text is None else text.encode() + b"\0" for text in found]
    lengths = list(map(len, written)) if written else np.zeros(len(order), np.int64)
    return {
        f"{kind}_ends": extents[f"{kind}_bytes"].rows + np.cumsum(lengths, dtype=np.int64),
        f"{kind}_bytes": np.frombuffer(b"".join(written), np.uint8),
    }
