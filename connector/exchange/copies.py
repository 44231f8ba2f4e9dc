"""Copy a whole index to a file of encodings, and make an index of one.

An export has everything that an index stores, and its configuration, so that an import makes the same index again, bit
for bit. A file of another program becomes an index with the default configuration for its widths.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semcut.connector.exchange.encoding_columns import EncodingFile
from semcut.connector.exchange.numpy_files import ArrayFile
from semcut.connector.retrieval.model_link import LINK, link_content, read_content, write_link
from semcut.indexes import FaissIndex
from semcut.indexes.argument_checks import callback_given, flag_given, path_given
from semcut.indexes.attributes.attribute_types import TYPES, AttributeType, is_attribute_name
from semcut.indexes.errors import DataError, InvalidParameterError, require, shown
from semcut.indexes.open_with import open_with
from semcut.indexes.progress import Progress, silent
from semcut.indexes.storage.directory import delete_index
from semcut.indexes.unfinished import adding

PARQUET, ARRAYS = ".parquet", (".npz", ".npy")
MOST_CELL_BYTES = 1 << 30
"""The most bytes of the envelopes of an index that is imported."""


def export_encodings(
    index: str | os.PathLike[str], file: str | os.PathLike[str], *, progress: Progress | None = None
) -> int:
    """Write all records of a stored index to a Parquet file.

    Args:
        index: the directory of the index.
        file: the file, whose name ends in .parquet; a file that is there is replaced when the new one is complete.
        progress: called with the number of records written, and of all records.

    Returns:
        The number of records.

    Raises:
        DataError: the name has another ending, or the file cannot be written.
        MissingDependencyError: pyarrow is not installed (extra `parquet`).
        StorageError: the index cannot be read.
        InvalidParameterError: an argument has another type.
    """
    place, target = path_given("index", index), path_given("file", file)
    callback_given("progress", progress)
    if target.suffix != PARQUET:
        raise DataError(f"cannot export to {target}: expected a name that ends in {PARQUET}")
    _require_pyarrow()
    from semcut.connector.exchange.parquet_files import write_parquet

    opened, link = open_with(lambda: FaissIndex.open(place, engine="faiss"), lambda _: read_content(place))
    with opened:
        write_parquet(opened, target, link, progress or silent)
        return len(opened)


def import_encodings(
    file: str | os.PathLike[str],
    index: str | os.PathLike[str],
    *,
    any_mass: bool = False,
    attributes: Mapping[str, AttributeType | None] | None = None,
    progress: Progress | None = None,
) -> int:
    """Make a stored index of a file of encodings. After an error there is no index.

    It takes about 30 bytes of memory for each record, besides a batch of them and the cells of the index.

    Args:
        file: a .parquet, .npz or .npy file, see `encoding_columns` for its columns.
        index: a new or empty directory.
        any_mass: whether rows of probabilities may have any sum, see `Encodings`; those of an index that was exported
            may.
        attributes: columns of the file that hold attributes, with their types; None for the type that follows from that
            of the column. Those of a file that semcut has written, and arrays `attribute_NAME`, need not be named.
        progress: called with the number of records added, and of all records.

    Returns:
        The number of records.

    Raises:
        DataError: the file cannot be read, or has rows that are no encodings; the message names file and row.
        DuplicateIdError: an id occurs twice.
        MissingDependencyError: pyarrow is not installed, and the file is a .parquet file.
        IndexExistsError, StorageError: as for `FaissIndex.create` and `add`.
        InvalidParameterError: an argument has another type.
    """
    source, place = path_given("file", file), Path(os.path.realpath(path_given("index", index)))
    callback_given("progress", progress)
    any_mass, asked = flag_given("any_mass", any_mass), _attributes_asked(attributes)
    report, existed, linked = progress or silent, place.is_dir(), False
    opened = _open(source, asked)
    try:
        shape = opened.shape
        made = FaissIndex.create(place, shape.index_config(), durability="close", engine="faiss")
        try:
            with made, adding(place, shape.records, 0):
                for batch in opened.batches(any_mass or shape.config is not None):
                    made.add(batch)
                    _require_few_cells(source, made)
                    report(len(made), shape.records)
                made.flush()
                link = link_content(shape.network or {})
                if link is not None:  # before the mark is gone: an index that looks whole has its link
                    linked = not os.path.lexists(place / LINK)
                    write_link(place, **link)
            return shape.records
        except BaseException:
            if linked:
                (place / LINK).unlink(missing_ok=True)
            delete_index(place)
            if existed:
                place.mkdir(exist_ok=True)
            raise
    finally:
        opened.close()


def _require_few_cells(file: Path, made: FaissIndex) -> None:
    """Refuse a file that makes a cell for nearly every record: a few bytes of it would take 40 KB of memory."""
    cells = made.stats().cells
    if 4 * cells * made.config.classes > MOST_CELL_BYTES:
        raise DataError(
            f"the records of {file} belong to more than {cells:,} cells of {made.config.classes:,} classes, which take "
            f"{MOST_CELL_BYTES:,} bytes of memory: import fewer records, or fewer classes"
        )


def _attributes_asked(given: Any) -> Mapping[str, AttributeType | None]:
    """Read the columns of attributes as a caller passes them."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidParameterError(f"attributes = {shown(given)}, expected types by the names of columns")
    for name, kind in given.items():
        if not is_attribute_name(name):
            raise InvalidParameterError(f"attributes have {shown(name)}, which is no name of an attribute")
        if kind is not None and (not isinstance(kind, str) or kind not in TYPES):
            raise InvalidParameterError(
                f"the attribute {name} is of type {shown(kind)}, expected None or one of {', '.join(TYPES)}"
            )
    return dict(given)


def _open(file: Path, asked: Mapping[str, AttributeType | None]) -> EncodingFile:
    if file.suffix in ARRAYS:
        return ArrayFile(file, asked)
    if file.suffix != PARQUET:
        raise DataError(f"cannot import {file}: expected a name that ends in {', '.join((PARQUET, *ARRAYS))}")
    _require_pyarrow()
    from semcut.connector.exchange.parquet_files import ParquetFile

    return ParquetFile(file, asked)


def _require_pyarrow() -> None:
    require({"pyarrow": "pyarrow"}, "read and write Parquet files", "parquet")
