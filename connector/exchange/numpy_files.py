"""Read encodings from numpy's files, in bounded memory, without pickle.

    .npz  an archive of arrays named like the columns of `encoding_columns`, as `numpy.savez` writes it: `probabilities`
          (n, C), `codes` (n, bits / 8), `features` (n, D), and optionally `ids` (n,), `uris` (n,) and attributes, see
          `attribute_arrays`
    .npy  one array of records, whose fields have these names: `numpy.dtype([("probabilities", "f4", C), ...])`

Every array is read from its start to its end, some rows at a time, through zlib where an archive is compressed. Its
header, of at most 10,000 bytes, is compared with the size of the file before any row is read. A row has at most 1 MiB,
and an archive unpacks to at most 1,000 times its size beyond the first GiB. An index that is made of a file takes about
30 bytes of memory for each record, so a small archive of records of 10 bytes can take 3 GB.
"""

from __future__ import annotations

import io
import math
import os
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.archive_members import MAX_RATIO, UNCHECKED_BYTES
from semcut.connector.exchange.attribute_arrays import array_types, array_values, is_attribute_column
from semcut.connector.exchange.encoding_columns import (
    OPTIONAL,
    REQUIRED,
    FileShape,
    checked_shape,
    encodings_of,
    missing_columns,
)
from semcut.indexes.attributes.attribute_types import AttributeType
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import DataError, shown
from semcut.indexes.regular_files import BoundedReads, open_binary, stored_bytes
from semcut.indexes.unicode_text import values_of

_COLUMNS = (*REQUIRED, *OPTIONAL)
_MOST_MEMBERS, _MOST_ROW_BYTES = 1000, 1 << 20
_HEADER_BYTES, _DIRECTORY_BYTES = 10_000, 1 << 20
"""The longest header of an array, which is numpy's own limit, and the largest directory of an archive."""
_KINDS = {"probabilities": "f", "codes": "u", "features": "f", "ids": "iuUS", "uris": "US"}
"""Kinds of the types of each column."""


class ArrayFile:
    """An open .npz or .npy file of encodings. See `encoding_columns.EncodingFile`.

    Args:
        path: the file.
        asked: attributes that it must have; a type that is not None is theirs.

    Raises:
        DataError: it is no such file, lacks a column, or has columns of other dimensions or lengths.
    """

    def __init__(self, path: Path, asked: Mapping[str, AttributeType | None]) -> None:
        self._path, self._asked = str(path), asked
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(open_binary(path, follow=True))
            except OSError as error:
                raise DataError(f"cannot read {path}: {error.strerror}") from None
            _require_stored(self._path, stream)
            if zipfile.is_zipfile(stream):
                self._columns = _members(self._path, stream, stack)
                self._records: _Rows | None = None
            else:
                stream.seek(0)
                self._records = _Rows(self._path, "the array", stream, os.fstat(stream.fileno()).st_size)
                if self._records.dtype.names is None:
                    raise DataError(
                        f"{path} has one array of {self._records.dtype}, expected an array of records with the fields "
                        f"{', '.join(REQUIRED)}, or an .npz archive with one array for each"
                    )
                self._columns = {}
            self.shape = checked_shape(self._path, self._shape())
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def _shape(self) -> FileShape:
        if self._records is not None:
            fields: Any = self._records.dtype.fields or {}
            for name in self._records.dtype.names or ():
                if len(fields[name]) > 2:  # numpy lists a title beside the names, but no array has it
                    raise DataError(
                        f"{self._path}: the field {shown(name)} has the title {shown(fields[name][2])}, a second name: "
                        "save the array without titles"
                    )
            described = {name: (self._records.shape + fields[name][0].shape) for name in fields if _is_column(name)}
            types = {name: fields[name][0].base for name in described}
        else:
            described = {name: rows.shape for name, rows in self._columns.items()}
            types = {name: rows.dtype for name, rows in self._columns.items()}
        missing_columns(self._path, set(described))
        rows = described["probabilities"][0] if described["probabilities"] else 0
        own = {name: (types.pop(name), described.pop(name)) for name in tuple(types) if is_attribute_column(name)}
        attributes = array_types(self._path, own, rows, self._asked)
        for name, shape in described.items():
            expected = 2 if name in REQUIRED else 1
            if len(shape) != expected:
                raise DataError(f"{self._path}: {name} have shape {shape}, expected {expected} dimension(s)")
            if shape[0] != described["probabilities"][0]:
                raise DataError(
                    f"{self._path}: {name} have {shape[0]:,} rows but probabilities have "
                    f"{described['probabilities'][0]:,}"
                )
            if types[name].kind not in _KINDS[name]:
                kinds = {"f": "floats", "u": "bytes (uint8)", "iuUS": "integers or text", "US": "text"}
                raise DataError(f"{self._path}: {name} have dtype {types[name]}, expected {kinds[_KINDS[name]]}")
        widths = {name: int(described[name][1]) for name in REQUIRED}
        read = [self._records] if self._records is not None else list(self._columns.values())
        row_bytes = sum(rows.row_bytes for rows in read)
        if row_bytes > _MOST_ROW_BYTES:
            raise DataError(f"{self._path} has {row_bytes:,} bytes in a row, expected at most {_MOST_ROW_BYTES:,}")
        return FileShape(
            records=int(described["probabilities"][0]),
            classes=widths["probabilities"],
            bits=8 * widths["codes"],
            dim=widths["features"],
            row_bytes=row_bytes,
            attributes=attributes,
            keys="ids" in types and types["ids"].kind in "US",
        )

    def batches(self, any_mass: bool) -> Iterator[Encodings]:
        """Yield all rows in order, once; see `EncodingFile.batches`."""
        size = self.shape.batch_rows()
        for first in range(0, self.shape.records, size):
            count = min(size, self.shape.records - first)
            if self._records is not None:
                rows = self._records.read(count)
                columns: dict[str, Any] = {name: rows[name] for name in rows.dtype.names or () if _is_column(name)}
            else:
                columns = {name: rows.read(count) for name, rows in self._columns.items()}
            if "uris" in columns:
                columns["uris"] = [uri or None for uri in _texts(self._path, "a uri", columns["uris"])]
            if self.shape.keys:
                columns["ids"] = _texts(self._path, "an id", columns["ids"])
            attributes = array_values(self._path, columns, self.shape.attributes)
            yield encodings_of(self._path, first, columns, self.shape, any_mass, attributes)


def _is_column(name: str) -> bool:
    return name in _COLUMNS or is_attribute_column(name)


def _require_stored(path: str, stream: IO[bytes]) -> None:
    """Raise `DataError` for a file of which most is a hole: it would be read, and stored, as any number of records."""
    found = os.fstat(stream.fileno())
    if stored_bytes(found) < found.st_size:
        raise DataError(
            f"{path} has a size of {found.st_size:,} bytes, most of them a hole that occupies nothing: save it again"
        )


def _members(path: str, stream: IO[bytes], stack: ExitStack) -> dict[str, _Rows]:
    """Open the arrays of an archive that are columns; they share the file."""
    try:
        reads = BoundedReads(stream, _DIRECTORY_BYTES)
        archive = stack.enter_context(zipfile.ZipFile(cast(IO[bytes], reads)))
        reads.most = sys.maxsize - 1
        if len(archive.infolist()) > _MOST_MEMBERS:
            raise DataError(f"{path} has {len(archive.infolist()):,} arrays, expected at most {_MOST_MEMBERS:,}")
        found = {}
        left = UNCHECKED_BYTES + MAX_RATIO * stream.seek(0, os.SEEK_END)
        for item in archive.infolist():
            name = item.filename.removesuffix(".npy")
            if _is_column(name):
                if item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # read in unbounded pieces
                    raise DataError(f"{path}: {name} is compressed in another way than numpy does: save it with numpy")
                left -= item.file_size
                if left < 0:
                    raise DataError(f"{path} unpacks to more than {MAX_RATIO:,} times its size; save it uncompressed")
                member = stack.enter_context(archive.open(item))
                found[name] = _Rows(path, name, member, item.file_size)
        missing_columns(path, {*found, *(set(archive.namelist()) - {f"{name}.npy" for name in _COLUMNS})})
        return found
    except DataError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{path} is no archive of arrays that can be read: {error}") from None


def array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a stored array: its shape, whether it is stored column by column, and the type of its values.

    Raises:
        Exception: it is none, or a long one; numpy evaluates it as text of Python, which can fail in many ways.
    """
    first = np.lib.format.read_magic(stream) == (1, 0)
    stated = stream.read(2 if first else 4)
    length = int.from_bytes(stated, "little")
    if length > _HEADER_BYTES:  # numpy would read it first
        raise ValueError(f"its header has {length:,} bytes, expected at most {_HEADER_BYTES:,}")
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    return read(io.BytesIO(stated + stream.read(length)))


class _Rows:
    """The rows of one stored array, read in order.

    Args:
        path: the file, for errors.
        name: the name of the array.
        stream: begins with the header of the array.
        size: bytes of the array with its header.

    Attributes:
        dtype: type of its values, without objects.
        shape: its shape.
        row_bytes: bytes of a row.
    """

    def __init__(self, path: str, name: str, stream: IO[bytes], size: int) -> None:
        self._path, self._name, self._stream = path, name, stream
        try:
            self.shape, fortran, self.dtype = array_header(stream)
        except Exception as error:  # numpy evaluates the header as text of Python, which can fail in many ways
            reason = str(error).partition("\n")[0][:200]
            raise DataError(f"{path}: {name} cannot be read as an array of numpy: {reason}") from None
        if not self.shape:
            raise DataError(f"{path}: {name} is a single value, expected one row for each image")
        if self.dtype.hasobject:
            raise DataError(f"{path}: {name} hold Python objects, which are not read; save text as an array of strings")
        self.row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        if fortran and len(self.shape) > 1:
            raise DataError(f"{path}: {name} is stored column by column: save numpy.ascontiguousarray({name})")
        expected = self.row_bytes * self.shape[0]
        if not self.row_bytes or stream.tell() + expected != size:
            raise DataError(
                f"{path}: {name} is cut or damaged: its header says {self.shape} of {self.dtype}, {expected:,} bytes, "
                f"and there are {size - stream.tell():,}"
            )

    def read(self, count: int) -> NDArray[Any]:
        """Read the next rows, which must exist: (count, ...)."""
        try:
            content = self._stream.read(count * self.row_bytes)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"{self._path}: {self._name} cannot be read: {error}") from None
        if len(content) < count * self.row_bytes:
            raise DataError(f"{self._path}: {self._name} was cut while it was read")
        return np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])


def _texts(path: str, what: str, texts: NDArray[Any]) -> list[str]:
    """Return text, or bytes in UTF-8, as strings; `what` begins the error."""
    try:
        return [one.decode() if isinstance(one, bytes) else one for one in values_of(texts)]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {what} holds {error.object[error.start : error.start + 1]!r}, not UTF-8") from None
    except ValueError:  # numbers that are no characters
        raise DataError(f"{path}: {what} is not valid text") from None
