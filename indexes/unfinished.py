"""Mark a stored index while records are added, so that no interrupted command leaves an index that looks whole.

A command that fills an index adds thousands of batches, each of which is a complete change. If it is interrupted, the
index is sound, and only its directory can say that records are missing. So the file `unfinished.json` is there while
records are added: it is on the disk before the first record, and deleted after the last one, however the process ends.
It holds two numbers, `expected`, how many records were to be added, and `before`, how many the index had.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semcut.indexes.errors import LockedError, SemcutWarning, StorageError
from semcut.indexes.regular_files import read_json
from semcut.indexes.storage.atomic_write import sync_to_disk, write_json
from semcut.indexes.storage.catalogue_format import LARGEST
from semcut.indexes.storage.directory import MARK

_BYTES = 4096


@contextmanager
def adding(index: str | os.PathLike[str], expected: int, before: int, *, resumes: bool = False) -> Iterator[None]:
    """Record that records are being added, until the block has ended without an error.

    Args:
        index: the directory of the index.
        expected: the number of records to add.
        before: the number of records that the index has.
        resumes: whether the block adds all that is missing from an unfinished index. Otherwise such an index stays
            unfinished: other records do not replace those that are missing.

    Raises:
        StorageError: the file cannot be written.
        LockedError: as the block raises it: nothing was added, and the index is no more unfinished than before.
    """
    file = Path(index) / MARK
    earlier = _read(file)
    if earlier is not None:
        expected, before = earlier if resumes else (earlier[0] + expected, earlier[1])
    with _as_storage_error(file):
        write_json(file, {"expected": expected, "before": before})
    try:
        yield
    except LockedError:  # raised by the first change, or never
        with _as_storage_error(file):
            if earlier is None:
                file.unlink(missing_ok=True)
            elif file.exists():
                write_json(file, {"expected": earlier[0], "before": earlier[1]})
        raise
    if earlier is None or resumes:
        with _as_storage_error(file):
            file.unlink(missing_ok=True)
            sync_to_disk(file.parent)


@contextmanager
def _as_storage_error(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}") from None


def unfinished(index: str | os.PathLike[str], records: int) -> str | None:
    """Return a sentence that says how many records are missing from an index, None if none are known to be missing.

    Args:
        index: the directory of the index.
        records: the number of records that the index has.
    """
    found = _read(Path(index) / MARK)
    if found is None:
        return None
    return sentence(str(index), records, *found)


def sentence(name: str, records: int, expected: int, before: int = 0) -> str:
    """Say how many records are missing from an index that is marked.

    Args:
        name: the name of the index.
        records: the number of records that it has.
        expected, before: as for `adding`.
    """
    if records - before >= expected:  # other records were added since, or the process ended after its last record
        return (
            f"{name} is unfinished: the command that fills it was interrupted or is still running, and its number of "
            f"records, {records:,}, does not tell whether some are missing"
        )
    return (
        f"{name} is unfinished: it has {max(0, records - before):,} of {expected:,} records, because the command that "
        "fills it was interrupted or is still running"
    )


def warn_if_unfinished(index: str | os.PathLike[str], records: int, stacklevel: int) -> None:
    """Issue a `SemcutWarning` if records are known to be missing from an index; arguments as for `unfinished`."""
    missing = unfinished(index, records)
    if missing is not None:
        warnings.warn(missing, SemcutWarning, stacklevel=stacklevel + 1)


def _read(file: Path) -> tuple[int, int] | None:
    """Return both numbers, zeros where the file cannot be understood, None if there is no file."""
    if not os.path.lexists(file):
        return None
    try:
        content = read_json(file, _BYTES)
    except (OSError, ValueError):
        content = None
    numbers = [content.get(name) if isinstance(content, dict) else None for name in ("expected", "before")]
    expected, before = (number if type(number) is int and 0 <= number <= LARGEST else 0 for number in numbers)
    return expected, before
