"""The columns of a file of encodings: named like the attributes of `Encodings`, one row for each image.

probabilities  C numbers; or the probabilities of some classes, whose numbers are in the column `classes`
codes          bits / 8 bytes
features       D numbers
ids            integers, or text for an index with keys; without the column, rows are numbered from 0
uris           text, or nothing; the column may be missing

Further columns hold attributes; `attribute_arrays` and `attribute_arrow` say how.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.attribute_types import AttributeType, columns_of
from semcut.indexes.config import MAX_CLASSES, IndexConfig
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import DataError, InvalidEncodingsError, InvalidParameterError

REQUIRED = ("probabilities", "codes", "features")
OPTIONAL = ("ids", "uris")
_BATCH_ROWS, _BATCH_BYTES = 10_000, 1 << 26


@dataclass(frozen=True)
class FileShape:
    """What a file of encodings says before its rows are read.

    Attributes:
        records: number of rows.
        classes: C.
        bits: length of a code.
        dim: D.
        row_bytes: bytes of a row where it is read.
        config: the configuration of the index that was exported; None if the file has none.
        attributes: the attributes of the rows, with their types.
        keys: whether ids are text; this decides for an index that was exported, too.
        network: the link to the network of that index, as `model_link.read_content` returns it; None if it has none.
    """

    records: int
    classes: int
    bits: int
    dim: int
    row_bytes: int = 0
    config: IndexConfig | None = None
    network: Mapping[str, Any] | None = None
    attributes: Mapping[str, AttributeType] = field(default_factory=dict)
    keys: bool = False

    def index_config(self) -> IndexConfig:
        """Return the configuration of an index for the rows.

        Raises:
            InvalidParameterError: no index can have these widths or attributes.
        """
        own: dict[str, Any] = {"classes": self.classes, "bits": self.bits, "dim": self.dim}
        if self.config is not None:
            own = dict(self.config)
        changed = own | {"attributes": dict(self.attributes), "string_ids": self.keys}
        return self.config if self.config is not None and changed == own else IndexConfig(**changed)

    def batch_rows(self) -> int:
        """Return how many rows are read at a time, so that they take bounded memory."""
        in_memory = 4 * (self.classes + self.dim) + self.bits // 8
        return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(in_memory, self.row_bytes)))


class EncodingFile(Protocol):
    """An open file of encodings.

    Attributes:
        shape: what the file says before its rows are read.
    """

    shape: FileShape

    def batches(self, any_mass: bool) -> Iterator[Encodings]:
        """Yield all rows in order, with ids.

        Args:
            any_mass: whether rows of probabilities may have any sum, see `Encodings`.

        Raises:
            DataError: a row cannot be read, or is no encoding of an image.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def encodings_of(
    path: str,
    first: int,
    columns: Mapping[str, Any],
    shape: FileShape,
    any_mass: bool,
    attributes: Mapping[str, list[Any]] | None = None,
) -> Encodings:
    """Make a batch of the columns of some rows.

    Args:
        path: the file, for errors.
        first: the number of the first of these rows, from 0.
        columns: arrays by name; `ids` and `uris` may be missing.
        shape: that of the file.
        any_mass: see `Encodings`.
        attributes: of each attribute, the values of the rows.

    Raises:
        DataError: the rows are no encodings, or an attribute cannot have one of the values.
    """
    count = len(columns["probabilities"])
    ids = columns.get("ids")
    try:
        return Encodings(
            probabilities=columns["probabilities"],
            codes=columns["codes"],
            features=columns["features"],
            ids=np.arange(first, first + count) if ids is None else ids,
            uris=columns.get("uris"),
            attributes=columns_of(shape.attributes, attributes, count) if shape.attributes else None,
            any_mass=any_mass,
        )
    except InvalidEncodingsError as error:
        counted = f", counted from row {first:,}" if first else ""
        raise DataError(f"{path}{counted}: {error}") from None


def missing_columns(path: str, present: set[str]) -> None:
    """Raise `DataError` unless all columns are there that encodings need."""
    missing = [name for name in REQUIRED if name not in present]
    if missing:
        raise DataError(
            f"{path} has no column {' and no column '.join(missing)}, expected {', '.join(REQUIRED)}, and optionally "
            f"{' and '.join(OPTIONAL)}; it has {', '.join(sorted(present)[:10]) or 'none'}"
        )


def checked_shape(path: str, shape: FileShape) -> FileShape:
    """Return the shape if an index can have it.

    Raises:
        DataError: it has other widths than any index, or than its own configuration says.
    """
    if not 2 <= shape.classes <= MAX_CLASSES:
        raise DataError(f"{path} has probabilities of {shape.classes} classes, expected 2 to {MAX_CLASSES:,}")
    if shape.config is not None:
        for name in ("classes", "bits", "dim"):
            if getattr(shape, name) != getattr(shape.config, name):
                raise DataError(
                    f"{path} has {name} = {getattr(shape, name)}, but its configuration says "
                    f"{getattr(shape.config, name)}: it was changed after it was exported"
                )
    try:
        shape.index_config()
    except InvalidParameterError as error:
        raise DataError(f"{path} cannot become an index: {error}") from None
    return shape


def dense_rows(
    path: str,
    first: int,
    row_of: NDArray[np.int64],
    classes: NDArray[Any],
    values: NDArray[Any],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Return a matrix with the probabilities of some classes of each row, and 0 elsewhere.

    Args:
        path, first: as for `encodings_of`.
        row_of: (n,) the row of each value, from 0.
        classes: (n,) the class of each value.
        values: (n,) the values.
        shape: rows and classes of the matrix.

    Raises:
        DataError: a class does not exist, or occurs twice in a row.
    """
    wrong = (classes < 0) | (classes >= shape[1])
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(
            f"{path}, row {first + row_of[at]:,}: there is no class {classes[at]}, expected 0 to {shape[1] - 1}"
        )
    matrix = np.zeros(shape, np.float32)
    places = row_of * shape[1] + classes.astype(np.int64)
    sorted_places = np.sort(places)
    twice = sorted_places[1:][sorted_places[1:] == sorted_places[:-1]]
    if len(twice):
        row, number = divmod(int(twice[0]), shape[1])
        raise DataError(f"{path}, row {first + row:,}: class {number} occurs twice")
    matrix.reshape(-1)[places] = values
    return matrix
