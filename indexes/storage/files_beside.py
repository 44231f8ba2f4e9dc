"""The files beside the catalogue and the columns of an index, and how a backup copies them.

A backup has the state of a snapshot, and commands may change the index and these files while it is made:

- `unfinished.json` and `connector.json` are read with the snapshot (`Beside.read`). A mark that comes later is copied,
  too: a complete backup that is called unfinished is harmless, the opposite is not.
- Of `files.jsonl`, only lines of versions up to that of the snapshot are copied. A line begins with its version. Others
  would become true in the backup with its next changes, though its records are older.
- Scratch files of `atomic_write`, and files that vanish meanwhile, are left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from semcut.indexes.regular_files import open_binary
from semcut.indexes.storage.copied_files import copy_file, copy_lines, write_copy
from semcut.indexes.storage.writer_lock import NAME as LOCK

CATALOGUE = "catalogue.sqlite"
UNFINISHED = "catalogue.new"
MARK = "unfinished.json"
FACTS = "files.jsonl"
REBUILDING = "semcut.rebuilding"
_LINK = "connector.json"

OF_CATALOGUE = re.compile(
    rf"{re.escape(CATALOGUE)}(-journal|-wal|-shm)?|{re.escape(UNFINISHED)}(-journal)?|{LOCK}|{re.escape(REBUILDING)}"
)
_SCRATCH = r"\.[0-9a-f]{16}\.new"
_ANY_SCRATCH = re.compile(rf".*{_SCRATCH}", re.DOTALL)
OWN_SCRATCH = re.compile(rf"({re.escape(_LINK)}|{re.escape(FACTS)}|{re.escape(MARK)}){_SCRATCH}")
"""The scratch files that a process that was killed can leave in the directory of an index."""
_MOST_BYTES = 1 << 20


class Beside(NamedTuple):
    """The content and the state of small files beside a snapshot, by name."""

    files: Mapping[str, tuple[bytes, os.stat_result]] = {}

    @classmethod
    def read(cls, index: Path | None) -> Beside:
        """Read the files of an index; one that cannot be read is left out, but a mark is always there if it is one."""
        files = () if index is None else (index / MARK, index / _LINK)
        return cls({file.name: content for file in files if (content := _content(file)) is not None})

    def or_mark_of(self, later: Beside) -> Beside:
        """Return these files, with the mark of a later reading if there is none here."""
        return self if MARK in self.files or MARK not in later.files else Beside({**later.files, **self.files})


def _content(file: Path) -> tuple[bytes, os.stat_result] | None:
    try:
        with open_binary(file, max_bytes=_MOST_BYTES) as stream:
            return stream.read(), os.fstat(stream.fileno())
    except OSError:
        with suppress(OSError):
            return (b"", os.lstat(file)) if file.name == MARK else None
    return None


def other_files(source: Path | None) -> list[Path]:
    """List the regular files in the directory of an index that do not belong to the index, but to its backups."""
    files = [] if source is None else [file for file in source.iterdir() if file.is_file() and not file.is_symlink()]
    return [file for file in files if not OF_CATALOGUE.fullmatch(file.name) and not _ANY_SCRATCH.fullmatch(file.name)]


def copy_others(source: Path, target: Path, version: int, beside: Beside, copied: list[Path]) -> None:
    """Copy the files beside an index to its backup; nothing is forced to the disk.

    Args:
        source, target: the directories.
        version: version of the snapshot.
        beside: the small files, as they were with the snapshot.
        copied: gets each file of the backup, before it is written.

    Raises:
        OSError: a file cannot be read or written, or is sparse.
    """
    for name, (content, state) in beside.files.items():
        copied.append(target / name)
        write_copy(target / name, content, state)
    for file in other_files(source):
        if file.name in beside.files:
            continue
        copied.append(target / file.name)
        try:
            if file.name == FACTS:
                copy_lines(file, target / file.name, version)
            else:
                copy_file(file, target / file.name)
        except FileNotFoundError:
            if os.path.lexists(file):
                raise
            copied.pop().unlink(missing_ok=True)
