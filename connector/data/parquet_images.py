"""Read images and labels from Parquet files, as `datasets` of Hugging Face and others write them.

    image           bytes, or a struct with a field `bytes` and, optionally, `path`; also another column of this type,
                    if it is the only one, or the only one that the metadata calls an `Image`
    label           a text or an integer, optional; also the only column that the metadata calls a `ClassLabel`. The
                    metadata of Hugging Face can have the names of the numbers; -1 is no label then.
    labels          a list of texts or integers, optional
    uri, path       a text, optional: its last part becomes part of the name of the image

A file is read in parts of a row group. pyarrow reads it in semcut's own process, and a forged one can make it take
gigabytes of memory: what the metadata says of every row group is checked before, and no more can be.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from semcut.connector.data.archive_members import MAX_MEMBERS, Budget, RefusedArchiveError
from semcut.connector.data.class_names import MAX_CLASSES, is_class_name, label_names
from semcut.connector.data.sample_folders import MAX_SAMPLE_BYTES, Sample
from semcut.indexes.errors import shown

MAX_GROUP_BYTES = 1 << 30
"""The most bytes of the columns that are read of one row group, decompressed."""

_BATCH_ROWS = 64
_HEADER_BYTES = 64 << 20
"""Limit of every text and list in the metadata of a file."""
_FEATURES_BYTES = 4 << 20
_PLAIN = re.compile(r"[\w .()+-]{1,100}")
"""Names of files that can become part of the name of an image."""


def open_parquet(stream: IO[bytes]) -> Any:
    """Open a Parquet file with limits of what its metadata takes.

    Raises:
        pyarrow.ArrowException, OSError: it is no Parquet file, or beyond a limit.
    """
    return pq.ParquetFile(stream, thrift_string_size_limit=_HEADER_BYTES, thrift_container_size_limit=_HEADER_BYTES)


def parquet_samples(stream: IO[bytes], name: str, budget: Budget, left_out: Counter[str]) -> Iterator[Sample]:
    """Yield the images of a Parquet file, in order of its rows.

    Args:
        stream: the file.
        name: its name, with which the names of the images begin.
        budget: counts the bytes of the images.
        left_out: grows by what is left out, such as "row without the bytes of an image".

    Raises:
        RefusedArchiveError: it is no Parquet file, has no column of images, or is beyond a limit.
    """
    try:
        file = open_parquet(stream)
        columns = _Columns(file.schema_arrow)
        _require_small_groups(file.metadata, columns.names)
        width, row = len(str(max(0, file.metadata.num_rows - 1))), 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns.names):
            for place in range(batch.num_rows):
                content, given = columns.image(batch, place)
                if content is None or len(content) > MAX_SAMPLE_BYTES:
                    left_out["row without the bytes of an image, or with too many"] += 1
                else:
                    budget.charge(len(content))
                    yield Sample((), f"{name}#{row:0{width}d}{given}", content, columns.labels(batch, place, row))
                row += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RefusedArchiveError(f"it is no Parquet file that can be read: {reason}") from None


def _require_small_groups(metadata: Any, names: Sequence[str]) -> None:
    """Raise `RefusedArchiveError` if a row group takes too much memory, or there are too many rows."""
    if metadata.num_rows > MAX_MEMBERS:
        raise RefusedArchiveError(f"it has {metadata.num_rows:,} rows, expected at most {MAX_MEMBERS:,}")
    wanted = [
        place for place in range(metadata.num_columns) if metadata.schema.column(place).path.partition(".")[0] in names
    ]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        size = sum(group.column(place).total_uncompressed_size for place in wanted)
        if not 0 <= size <= MAX_GROUP_BYTES:
            raise RefusedArchiveError(
                f"row group {number} has {size:,} bytes, expected at most {MAX_GROUP_BYTES:,}: write it with fewer "
                "rows in each row group, such as row_group_size=100"
            )


class _Columns:
    """The columns of a file that are read."""

    def __init__(self, schema: Any) -> None:
        if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
            raise RefusedArchiveError(f"it has the column {shown(twice[0])} twice")
        self._schema, self._features = schema, _features(schema.metadata or {})
        self._image = self._image_column()
        self._single = self._column("label", self._only("ClassLabel"))
        self._several = self._column("labels", None)
        for name, is_list in ((self._single, False), (self._several, True)):
            kind = None if name is None else schema.field(name).type
            if kind is not None and not (_is_list(kind) and _is_label(kind.value_type) if is_list else _is_label(kind)):
                expected = "a list of texts or integers" if is_list else "a text or an integer"
                raise RefusedArchiveError(f"the column {shown(name)} has the type {kind}, expected {expected}")
        texts = [one for one in ("uri", "path") if one in schema.names and _is_text(schema.field(one).type)]
        self._uri = texts[0] if texts else None
        self._names_of = {name: self._class_names(name) for name in (self._single, self._several) if name is not None}
        self.names = [name for name in (self._image, self._single, self._several, self._uri) if name is not None]

    def image(self, batch: Any, place: int) -> tuple[memoryview | None, str]:
        """Return the bytes of an image, not copied, None if there are none; and what its name ends with."""
        value = batch.column(self._image)[place]
        path = batch.column(self._uri)[place].as_py() if self._uri is not None else None
        if pa.types.is_struct(value.type) and value.is_valid:
            path = path or (value["path"].as_py() if "path" in value else None)
            value = value["bytes"]
        last = path.rpartition("/")[2] if isinstance(path, str) else ""
        content = memoryview(value.as_buffer()) if value.is_valid else None
        return content or None, f"-{last}" if _PLAIN.fullmatch(last) else ""

    def labels(self, batch: Any, place: int, row: int) -> tuple[str, ...]:
        """Return the different labels of an image."""
        single = None if self._single is None else batch.column(self._single)[place].as_py()
        several = None if self._several is None else batch.column(self._several)[place].as_py()
        single = None if self._single is None else self._named(self._single, single, row)
        named = [self._named(str(self._several), value, row) for value in several or ()]
        labels, wrong = label_names(single, [name for name in named if name is not None])
        if wrong is not None:
            raise RefusedArchiveError(f"row {row:,}, {wrong}")
        return labels

    def _named(self, column: str, value: Any, row: int) -> Any:
        """Return the name of a number, if the metadata has it; None for no label."""
        names = self._names_of[column]
        if names is None or type(value) is not int or value == -1:
            return None if names is not None and value == -1 else value
        if not 0 <= value < len(names):
            raise RefusedArchiveError(
                f"row {row:,}, column {column} has {value}, expected a number from 0 to {len(names) - 1}, of which the "
                "metadata has names"
            )
        return names[value]

    def _image_column(self) -> str:
        # pyarrow takes a dot for a step into a struct
        found = [name for name in self._schema.names if "." not in name and _is_image(self._schema.field(name).type)]
        marked = [name for name in found if self._type_of(name) == "Image"]
        if "image" in found:
            return "image"
        if len(marked or found) != 1:
            columns = ", ".join(map(shown, self._schema.names[:10]))
            raise RefusedArchiveError(
                "it has no column image of bytes, or of a struct with bytes; and "
                f"{'no' if not found else 'more than one'} other column of this type: its columns are {columns}"
            )
        return str((marked or found)[0])

    def _only(self, kind: str) -> str | None:
        found = [name for name in self._schema.names if "." not in name and self._type_of(name) == kind]
        return found[0] if len(found) == 1 else None

    def _column(self, name: str, other: str | None) -> str | None:
        return name if name in self._schema.names else other

    def _type_of(self, name: str) -> Any:
        feature = self._features.get(name)
        return feature.get("_type") if isinstance(feature, dict) else None

    def _class_names(self, column: str) -> list[str] | None:
        """Return the names of the numbers of a column, None if the metadata has none."""
        feature = self._features.get(column)
        if isinstance(feature, dict) and "names" not in feature:
            feature = feature.get("feature")  # of a sequence
        names = feature.get("names") if isinstance(feature, dict) else None
        if names is None:
            return None
        if not isinstance(names, list) or not all(map(is_class_name, names)) or len(names) > MAX_CLASSES:
            raise RefusedArchiveError(f"the names of the classes of the column {shown(column)} are no list of texts")
        return names


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return what the metadata of Hugging Face says of the columns."""
    content = metadata.get(b"huggingface", b"{}")
    try:
        found = json.loads(content)["info"]["features"] if len(content) <= _FEATURES_BYTES else {}
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_image(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_bytes(kind.field(place).type)
    return _is_bytes(kind)


def _is_bytes(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_label(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return _is_text(kind) or bool(pa.types.is_integer(kind))


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
