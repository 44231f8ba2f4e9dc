"""Mark a stored index while records are added, so that no interrupted command leaves an index that looks whole.

A command that fills an index adds thousands of batches, each of which is a complete change. If it is interrupted, the
index is sound, and only its directory can say that records are missing. So the file `unfinished.json` is there while
records are added: it is on the disk before the first record, and deleted after the last one, however the process ends.
It holds two numbers, `expected`, how many records were to be added, and `before`, how many the index had; and `of`,
which identifies the work, or up to three works, so that each of them, done again, ends its part of the mark; and
`outside`, whether some of the images are outside of the folder of the index, so that going through this folder would
not end it; and `makes`, whether the first of the works makes the index. Marks of earlier versions do not say that: it
is so if the index had no records.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from semcut.indexes.errors import LockedError, SemcutWarning, StorageError
from semcut.indexes.regular_files import read_json
from semcut.indexes.storage.atomic_write import sync_to_disk, write_json
from semcut.indexes.storage.catalogue_format import LARGEST
from semcut.indexes.storage.directory import MARK

_BYTES = 4096
_OF = 100
_MOST_WORKS, _AND = 3, "+"


class _Mark(NamedTuple):
    """The content of the file; see the module docstring."""

    expected: int
    before: int
    of: str = ""
    outside: bool = False
    makes: bool = False

    @property
    def works(self) -> tuple[str, ...]:
        """What identifies each work that is unfinished, in the order in which they began; empty if it is not known."""
        return tuple(self.of.split(_AND)) if self.of else ()


@contextmanager
def adding(
    index: str | os.PathLike[str],
    expected: int,
    before: int,
    *,
    resumes: bool = False,
    makes: bool = False,
    new: bool = False,
    whole: bool = False,
    of: str = "",
    outside: bool = False,
) -> Iterator[None]:
    """Record that records are being added, until the block has ended without an error.

    Args:
        index: the directory of the index.
        expected: the number of records to add.
        before: the number of records that the index has.
        resumes: whether the block adds all that is missing from an unfinished index. Otherwise such an index stays
            unfinished: other records do not replace those that are missing.
        makes: whether the block goes on with the work that makes the index, and may have been given other files by now.
        new: whether the index never had a record, so that the block makes it, if there is no mark.
        whole: whether the block adds all that is missing, except for images outside of the folder of the index.
        of: identifies the work: if it was interrupted, the same work ends it. Empty for work that is not done again.
        outside: whether images outside of the folder of the index are added.

    Raises:
        StorageError: the file cannot be written.
        LockedError: as the block raises it: nothing was added, and the index is no more unfinished than before.
    """
    file = Path(index) / MARK
    earlier = _read(file)
    works = () if earlier is None else earlier.works
    others = tuple(work for work in works[makes and earlier is not None and earlier.makes :] if work != of)
    same = len(others) < len(works)
    ends = earlier is None or (same and not others) or resumes or (whole and not earlier.outside)
    mark = _Mark(expected, before, of, outside, makes or new)
    if earlier is not None and (ends or same):
        mark = earlier._replace(outside=earlier.outside or outside)
    elif earlier is not None:  # none of these works alone ends the others
        both = _AND.join([*works, of]) if works and of and len(works) < _MOST_WORKS else ""
        mark = earlier._replace(expected=earlier.expected + expected, of=both, outside=earlier.outside or outside)
    with storage_errors(file):
        write_json(file, mark._asdict())
    try:
        yield
    except LockedError:  # raised by the first change, or never
        with storage_errors(file):
            if earlier is None:
                file.unlink(missing_ok=True)
            elif file.exists():
                write_json(file, earlier._asdict())
        raise
    with storage_errors(file):
        if ends:
            file.unlink(missing_ok=True)
            sync_to_disk(file.parent)
        elif earlier is not None:
            makes = earlier.makes and others[:1] == works[:1]
            left = mark._replace(of=_AND.join(others), outside=earlier.outside, makes=makes)
            write_json(file, left._asdict())


@contextmanager
def storage_errors(file: Path) -> Iterator[None]:
    """Turn what the disk refuses for a file into a `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}") from None


def work_id(kind: str, items: Iterable[str]) -> str:
    """Return what identifies work for `adding`: a digest of its kind and of what it is done to."""
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    for item in items:
        digest.update(b"\0" + item.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def is_marked(index: str | os.PathLike[str]) -> bool:
    """Return whether an index is marked as unfinished."""
    return os.path.lexists(Path(index) / MARK)


def unfinished_works(index: str | os.PathLike[str]) -> tuple[tuple[str, ...], bool]:
    """Return what identifies each unfinished work, and whether the first of them makes the index."""
    found = _read(Path(index) / MARK)
    return ((), False) if found is None else (found.works, found.makes and found.of != "")


def unfinished(index: str | os.PathLike[str], records: int) -> str | None:
    """Return a sentence that says how many records are missing from an index, None if none are known to be missing.

    Args:
        index: the directory of the index.
        records: the number of records that the index has.
    """
    found = _read(Path(index) / MARK)
    if found is None:
        return None
    return sentence(str(index), records, found.expected, found.before)


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


def _read(file: Path) -> _Mark | None:
    """Return what the file says, with zeros where it cannot be understood; None if there is no file."""
    if not os.path.lexists(file):
        return None
    try:
        content = read_json(file, _BYTES)
    except (OSError, ValueError):
        content = None
    found = content if isinstance(content, dict) else {}
    numbers = [found.get(name) for name in ("expected", "before")]
    expected, before = (number if type(number) is int and 0 <= number <= LARGEST else 0 for number in numbers)
    of = found.get("of")
    return _Mark(
        expected,
        before,
        of if isinstance(of, str) and len(of) <= _OF else "",
        found.get("outside", False) is not False,
        found.get("makes", before == 0) is True,
    )
