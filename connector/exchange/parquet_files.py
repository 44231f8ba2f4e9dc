"""Write an index to a Parquet file, and read encodings from one; both some rows at a time.

The columns are those of `encoding_columns`: `ids` int64, or string for an index with keys, `uris` string, `codes`
fixed-size binary, `features` a fixed-size list of float16 or float32. Of an index that stores few probabilities of each
record, `classes` and `probabilities` are lists of those that are not 0; otherwise `probabilities` is a fixed-size list
of all. Attributes have columns of their own names, see `attribute_arrow`. A file that semcut writes has its
configuration, and the link to its network, as JSON in the metadata of its schema, under names that begin with `semcut`.
A file of another program may use any integer, float, list, binary or string type.

pyarrow reads a file in semcut's own process: a forged one can make it take gigabytes of memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from semcut.connector.data.parquet_images import open_parquet
from semcut.connector.exchange.attribute_arrow import arrow_array, arrow_fields, arrow_types, arrow_values, is_text
from semcut.connector.exchange.encoding_columns import (
    OPTIONAL,
    REQUIRED,
    FileShape,
    checked_shape,
    dense_rows,
    encodings_of,
    missing_columns,
)
from semcut.indexes.attributes.attribute_types import AttributeType
from semcut.indexes.config import IndexConfig, refuse_many_values, written_config
from semcut.indexes.encodings import Encodings, Records
from semcut.indexes.errors import DataError, InvalidParameterError, shown
from semcut.indexes.index import SemanticIndex
from semcut.indexes.progress import Progress
from semcut.indexes.regular_files import open_binary
from semcut.indexes.storage.atomic_write import replacing_named

_FORMAT_KEY, _CONFIG_KEY, _NETWORK_KEY = b"semcut.format", b"semcut.config", b"semcut.network"
_SPARSE = "classes"
_FORMAT = b"1"
_CONFIG_BYTES, _NETWORK_BYTES = 16 << 20, 64 << 10


def write_parquet(index: SemanticIndex, path: Path, network: Mapping[str, Any] | None, progress: Progress) -> None:
    """Write all records of an index to a file, which appears, or replaces another, when it is complete.

    Args:
        index: the index.
        path: the file.
        network: the link to its network; None for none.
        progress: called with the number of records written, and of all records.

    Raises:
        DataError: the file cannot be written.
    """
    config, total, done = index.config, len(index), 0
    written = config.written().encode()
    if len(written) > _CONFIG_BYTES:
        raise DataError(
            f"the similarity of the index takes {len(written):,} bytes, and a Parquet file has room for "
            f"{_CONFIG_BYTES:,}: copy the index with `semcut backup`"
        )
    link_bytes = len(json.dumps(network, indent=2))  # as an import writes it
    if link_bytes > _NETWORK_BYTES:
        raise DataError(
            f"the link of the index to its network takes {link_bytes:,} bytes as ASCII, and an import reads "
            f"{_NETWORK_BYTES:,}: give it fewer roots, or copy the index with `semcut backup`"
        )
    metadata = {_FORMAT_KEY: _FORMAT, _CONFIG_KEY: written, _NETWORK_KEY: json.dumps(network).encode()}
    schema = _schema(config).with_metadata(metadata)
    try:
        with (
            replacing_named(path) as scratch,
            open(scratch, "wb") as stream,
            pq.ParquetWriter(stream, schema, compression="zstd") as writer,
        ):
            for batch in index.iterate():
                writer.write_batch(_record_batch(batch, config, schema))
                done += len(batch)
                progress(done, total)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None


def _schema(config: IndexConfig) -> Any:
    feature = pa.float16() if config.stored_features == "float16" else pa.float32()
    columns = [
        pa.field("ids", pa.string() if config.string_ids else pa.int64(), nullable=False),
        pa.field("uris", pa.string()),
    ]
    if config.stored_probabilities < config.classes:
        columns.append(pa.field(_SPARSE, pa.list_(pa.uint16()), nullable=False))
        columns.append(pa.field("probabilities", pa.list_(pa.float32()), nullable=False))
    else:
        columns.append(pa.field("probabilities", pa.list_(pa.float32(), config.classes), nullable=False))
    columns.append(pa.field("codes", pa.binary(config.bits // 8), nullable=False))
    columns.append(pa.field("features", pa.list_(feature, config.dim), nullable=False))
    return pa.schema([*columns, *arrow_fields(config.attributes)])


def _record_batch(batch: Records, config: IndexConfig, schema: Any) -> Any:
    probabilities = batch.probabilities
    columns: dict[str, Any] = {
        "ids": pa.array(batch.ids) if batch.keys is None else pa.array(batch.keys, pa.string()),
        "uris": pa.array(batch.uris if batch.uris is not None else [None] * len(batch), pa.string()),
        "codes": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(config.bits // 8), len(batch), [None, pa.py_buffer(batch.codes)]
        ),
        "features": _fixed(batch.features.astype(np.float16 if config.stored_features == "float16" else np.float32)),
    }
    attributes = batch.attributes or {}
    columns |= {name: arrow_array(kind, list(attributes[name])) for name, kind in config.attributes.items()}
    if _SPARSE in schema.names:
        row, column = np.nonzero(probabilities)
        offsets = pa.array(np.searchsorted(row, np.arange(len(batch) + 1)).astype(np.int32))
        columns[_SPARSE] = pa.ListArray.from_arrays(offsets, pa.array(column.astype(np.uint16)))
        columns["probabilities"] = pa.ListArray.from_arrays(offsets, pa.array(probabilities[row, column]))
    else:
        columns["probabilities"] = _fixed(probabilities)
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _fixed(matrix: NDArray[Any]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


class ParquetFile:
    """An open Parquet file of encodings. See `encoding_columns.EncodingFile`.

    Args:
        path: the file.
        asked: further columns that hold attributes; None for the type that follows from that of the column.

    Raises:
        DataError: it is no Parquet file, lacks a column, or has columns of other types.
    """

    def __init__(self, path: Path, asked: Mapping[str, AttributeType | None]) -> None:
        self._path = str(path)
        try:
            stream = open_binary(path, follow=True)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        try:
            self._file = open_parquet(stream)
            names = self._file.schema_arrow.names
            missing_columns(self._path, set(names))
            if twice := [name for name in names if names.count(name) > 1][:1]:
                raise DataError(f"{self._path} has the column {shown(twice[0])} twice")
            self._names = [name for name in (*REQUIRED, *OPTIONAL, _SPARSE) if name in names]
            config, network = _described(self._path, self._file.schema_arrow.metadata or {})
            own = {} if config is None else config.attributes
            attributes = arrow_types(self._path, self._file.schema_arrow, own, asked)
            keys = "ids" in names and is_text(self._file.schema_arrow.field("ids").type)
            shape = replace(self._shape(config), attributes=attributes, keys=keys, network=network)
            self.shape = checked_shape(self._path, shape)
        except (pa.ArrowException, OSError) as error:
            stream.close()
            raise self._unreadable(error) from None
        except BaseException:
            stream.close()
            raise
        self._stream = stream

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._stream.close()

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(f"{self._path} is no Parquet file that can be read: {str(error).partition(chr(10))[0]}")

    def _shape(self, config: IndexConfig | None) -> FileShape:
        first = next(self._file.iter_batches(1, columns=self._names), None)
        records = self._file.metadata.num_rows
        if first is None:
            if config is None:
                raise DataError(f"{self._path} has no rows, expected at least one")
            return FileShape(records, config.classes, config.bits, config.dim, config=config)
        sparse = _SPARSE in self._names
        if sparse and config is None:
            raise DataError(
                f"{self._path} has probabilities of some classes, and does not say how many classes there are: write "
                "all probabilities, with a 0 for each of the others"
            )
        columns = {name: first.column(name) for name in self._names}
        return FileShape(
            records=records,
            classes=config.classes if sparse and config else self._matrix(columns, "probabilities", 0).shape[1],
            bits=8 * self._matrix(columns, "codes", 0).shape[1],
            dim=self._matrix(columns, "features", 0).shape[1],
            config=config,
        )

    def batches(self, any_mass: bool) -> Iterator[Encodings]:
        """Yield all rows in order; see `EncodingFile.batches`."""
        first, types = 0, self.shape.attributes
        try:
            for rows in self._file.iter_batches(self.shape.batch_rows(), columns=[*self._names, *types]):
                columns = {name: rows.column(name) for name in self._names}
                arrays: dict[str, Any] = {
                    "codes": self._codes(columns, first),
                    "features": self._matrix(columns, "features", first),
                    "probabilities": (
                        self._dense(columns, first)
                        if _SPARSE in columns
                        else self._matrix(columns, "probabilities", first)
                    ),
                }
                if "ids" in columns:
                    ids = self._present(columns["ids"], "ids", first)
                    arrays["ids"] = self._texts(ids, "an id") if self.shape.keys else ids.to_numpy(zero_copy_only=False)
                if "uris" in columns:
                    arrays["uris"] = self._texts(columns["uris"], "a uri")
                attributes = {
                    name: arrow_values(self._path, first, name, kind, rows.column(name)) for name, kind in types.items()
                }
                yield encodings_of(self._path, first, arrays, self.shape, any_mass, attributes)
                first += rows.num_rows
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from None

    def _texts(self, column: Any, what: str) -> list[str | None]:
        try:
            texts: list[str | None] = column.to_pylist()
        except UnicodeDecodeError:
            raise DataError(f"{self._path}: {what} is not UTF-8") from None
        return texts

    def _codes(self, columns: Mapping[str, Any], first: int) -> NDArray[Any]:
        """Return the codes; integers of any type are taken, since few programs write bytes."""
        codes = self._matrix(columns, "codes", first)
        if codes.dtype.kind in "iu" and codes.size and 0 <= codes.min() <= codes.max() <= 255:
            return codes.astype(np.uint8)
        return codes

    def _dense(self, columns: Mapping[str, Any], first: int) -> NDArray[np.float32]:
        """Return the matrix of probabilities that are given for some classes."""
        numbers, values = (self._present(columns[name], name, first) for name in (_SPARSE, "probabilities"))
        for name, column in ((_SPARSE, numbers), ("probabilities", values)):
            self._require(_is_list(column.type), name, column.type, "lists of numbers")
        lengths, others = (np.asarray(column.value_lengths(), np.int64) for column in (numbers, values))
        if not np.array_equal(lengths, others):
            row = int(np.argmax(lengths != others))
            raise DataError(
                f"{self._path}, row {first + row:,}: {lengths[row]} classes but {others[row]} probabilities"
            )
        row_of = np.repeat(np.arange(len(lengths)), lengths)
        classes, stored = (
            self._present(column.flatten(), name, first).to_numpy(zero_copy_only=False)
            for name, column in ((_SPARSE, numbers), ("probabilities", values))
        )
        self._require(classes.dtype.kind in "iu", _SPARSE, numbers.type, "lists of integers")
        self._require(stored.dtype.kind == "f", "probabilities", values.type, "lists of floats")
        return dense_rows(self._path, first, row_of, classes, stored, (len(lengths), self.shape.classes))

    def _matrix(self, columns: Mapping[str, Any], name: str, first: int) -> NDArray[Any]:
        """Return a column of lists or bytes, all of one length, as a matrix."""
        column = self._present(columns[name], name, first)
        if pa.types.is_fixed_size_binary(column.type):
            column = column.cast(pa.binary())
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            lengths = np.array([len(one) for one in column.to_pylist()], np.int64)
            flat: NDArray[Any] = np.frombuffer(b"".join(column.to_pylist()), np.uint8)
        else:
            self._require(_is_list(column.type), name, column.type, "lists of numbers, or binary for codes")
            fixed = pa.types.is_fixed_size_list(column.type)
            lengths = (
                np.full(len(column), column.type.list_size) if fixed else np.asarray(column.value_lengths(), np.int64)
            )
            flat = self._present(column.flatten(), name, first).to_numpy(zero_copy_only=False)
        width = int(lengths[0]) if len(lengths) else 0
        wrong = lengths != (width if not hasattr(self, "shape") else self._width(name))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"{self._path}, row {first + row:,}: {name} have {lengths[row]} values, expected "
                f"{self._width(name)} as in row 0"
            )
        return flat.reshape(len(lengths), width)

    def _width(self, name: str) -> int:
        shape = self.shape
        return {"probabilities": shape.classes, "codes": shape.bits // 8, "features": shape.dim}[name]

    def _present(self, column: Any, name: str, first: int) -> Any:
        """Return a column that has no missing values."""
        if column.null_count:
            missing = int(np.argmax(np.asarray(column.is_null())))
            raise DataError(f"{self._path}, rows from {first:,} on: {name} has no value at position {missing:,}")
        return column

    def _require(self, right: bool, name: str, kind: Any, expected: str) -> None:
        if not right:
            raise DataError(f"{self._path}: {name} have the type {kind}, expected {expected}")


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _described(path: str, metadata: Mapping[bytes, bytes]) -> tuple[IndexConfig | None, Mapping[str, Any] | None]:
    """Return the configuration and the link to the network in the metadata of a file, None if it has none."""
    if _CONFIG_KEY not in metadata:
        return None, None
    if metadata.get(_FORMAT_KEY) != _FORMAT:
        raise DataError(f"{path} was exported in format {shown(metadata.get(_FORMAT_KEY))}, expected {_FORMAT!r}")
    config, network = metadata[_CONFIG_KEY], metadata.get(_NETWORK_KEY, b"null")
    try:
        if len(config) > _CONFIG_BYTES or len(network) > _NETWORK_BYTES:
            raise ValueError("it is too long")
        refuse_many_values(config.decode())
        link = json.loads(network)
        return written_config(dict(json.loads(config))), link if isinstance(link, dict) else None
    except (ValueError, TypeError, RecursionError, InvalidParameterError):
        raise DataError(f"{path} has no configuration of an index that can be read: export it again") from None
