"""Read and write `files.jsonl`: of which file, in which state, each record of an index is the encoding.

No other module reads or writes this file, which is in the directory of the index. Each line is a JSON array:

    [version, id, uri, size, mtime, digest, trained]   the record `id` is the encoding of a file with this content
    [version, id, uri]                                 this is no longer known: the record is about to be changed or
                                                       removed
    [version, -1, uri, size, mtime, reason]            a file that cannot be read as an image, and has no record

`size` is in bytes; `mtime` is the time of the last modification in nanoseconds, or null if the file had only just been
written, so that another change could leave it the same time; `digest` is that of `data.image_contents`, in hex;
`trained` is whether the network of the index was trained or validated on this content, and left out if that is not
known.

The last line of a uri counts. What is known of a record is voided, on the disk, before the record is changed, and
written again after the index has committed the change. `version` is the version of the index in which a line is true:
of a line to void, the next one. So a process that is killed, power that fails, and a backup that was made meanwhile
leave a record of which nothing is known, which counts as changed, but never a record of which something wrong is known:

- a line of a later version than that of the index is of a change that the index does not have, and does not count;
- a line of a record that the index does not have under this uri does not count;
- a line that is torn, or cannot be understood, does not count, and the next line begins on a line of its own; a file
  with more than 1,000 lines that cannot be understood counts as empty.

Lines that do not count are dropped before the next change, since a later version could make them count; all others
that no longer matter are dropped when they are more than half of the file. A file of any content is read in bounded
memory: only what is known of records and files that the caller names is kept. The last lines of all other files without
a record, such as training images that were left out, stay in the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from semcut.connector.data.image_folders import is_text
from semcut.connector.data.sources import DIGEST_BYTES
from semcut.indexes.regular_files import open_binary, open_descriptor, stored_bytes
from semcut.indexes.storage.atomic_write import replacing, sync_to_disk
from semcut.indexes.storage.directory import FACTS
from semcut.indexes.unfinished import storage_errors

MOST_BYTES = 8 << 30
"""The largest file that is read: many times that of ten million records."""
_BLOCK = 1 << 20
_LINE_BYTES = 1 << 16
_REASON = 300
_SPARE_LINES, _MOST_OUTDATED, _AT_ONCE = 1000, 100_000, 10_000
MOST_STRANGE, _MOST_WITHOUT_RECORD = 1000, 4_000_000
_LARGEST = 2**63 - 1
_HEX = frozenset("0123456789abcdef")


class FileFacts(NamedTuple):
    """What is known of a file that a record is the encoding of; see the module docstring for each value."""

    record: int
    size: int
    mtime_ns: int | None
    digest: str
    trained: bool | None = None


class Unreadable(NamedTuple):
    """What is known of a file that cannot be read as an image."""

    size: int
    mtime_ns: int | None
    reason: str


class KnownFiles:
    """What is known of the files of an index, by uri.

    Args:
        place: directory of the index; None keeps everything in memory.
        version: the version of the index.
        records: the id of the record of each uri in the index.
        others: uris of files without a record, of which is read whether they can be read.

    Attributes:
        facts: what is known of the file of each record, by uri.
        unreadable: what is known of the files that cannot be read, by uri.
    """

    def __init__(
        self, place: Path | None, version: int, records: Mapping[str, int], others: Collection[str] = ()
    ) -> None:
        self._file = None if place is None else place / FACTS
        self.facts: dict[str, FileFacts] = {}
        self.unreadable: dict[str, Unreadable] = {}
        self._lines, self._wrong, self._junk = 0, False, False
        self._unnamed = 0  # lines of files without a record that are not in `others`
        self._outdated: set[int] = set()  # hashes of uris of lines that do not count, unless a later line voids them
        strange = 0
        for line in self._stored():
            self._lines += 1
            if line is not None and line[0] <= version:
                self._count(line, records, others)
                continue
            self._wrong = True
            strange += line is None
            if strange > MOST_STRANGE:
                self._junk = True
                self.facts.clear()
                self.unreadable.clear()
                break

    def _count(self, line: list[Any], records: Mapping[str, int], others: Collection[str]) -> None:
        record, uri = line[1], line[2]
        self.facts.pop(uri, None)
        self.unreadable.pop(uri, None)
        self._outdated.discard(hash(uri))
        if len(line) == 3:
            return
        if record < 0:
            if uri in others:
                self.unreadable[uri] = Unreadable(*line[3:])
            else:
                self._unnamed += 1
        elif records.get(uri) == record:
            self.facts[uri] = FileFacts(record, *line[3:])
        elif len(self._outdated) < _MOST_OUTDATED:
            self._outdated.add(hash(uri))
        else:
            self._wrong = True

    def _stored(self) -> Iterator[list[Any] | None]:
        return iter(()) if self._file is None else stored_lines(self._file)

    def prepare(self, version: int) -> None:
        """Drop the lines that do not count, before a change of the index gives it a later version.

        Raises:
            StorageError: the disk refuses.
        """
        matter = len(self.facts) + len(self.unreadable) + self._unnamed
        if self._wrong or self._outdated or self._lines > 2 * matter + _SPARE_LINES:
            self._rewrite(version)

    def mark_trained(self, version: int, contents: Collection[str] | None) -> None:
        """Note on the disk which records a network was trained on, after the index got this network.

        Args:
            version: the version of the index.
            contents: digests of the images of its training in hex; None if they are not known.

        Raises:
            StorageError: the disk refuses.
        """
        for uri, fact in self.facts.items():
            self.facts[uri] = fact._replace(trained=None if contents is None else fact.digest in contents)
        if self.facts:
            self._rewrite(version)

    def void(self, version: int, uris: Iterable[str]) -> None:
        """Note on the disk that records are about to be changed or removed.

        Args:
            version: the version of the index after the change.
            uris: the uris of the records before the change.

        Raises:
            StorageError: the disk refuses; then the records may not be changed.
        """
        known = [(uri, self.facts.pop(uri)) for uri in uris if uri in self.facts]
        self._append([[version, facts.record, uri] for uri, facts in known])

    def note(self, version: int, facts: Mapping[str, FileFacts], unreadable: Mapping[str, Unreadable]) -> None:
        """Note on the disk what is known of files, after the index has committed their records.

        Args:
            version: the version of the index.
            facts, unreadable: what is known, by uri.

        Raises:
            StorageError: the disk refuses.
        """
        for uri in (*facts, *unreadable):
            self.facts.pop(uri, None)
            self.unreadable.pop(uri, None)
        self.facts.update(facts)
        shown = {uri: found._replace(reason=found.reason[:_REASON]) for uri, found in unreadable.items()}
        shown = {uri: found for uri, found in shown.items() if is_text(uri) and is_text(found.reason)}
        self.unreadable.update(shown)
        self._append(
            [
                *(_line_of(version, uri, found) for uri, found in facts.items()),
                *([version, -1, uri, *found] for uri, found in shown.items()),
            ]
        )

    def _append(self, lines: list[list[Any]]) -> None:
        if self._file is None or not lines:
            return
        with storage_errors(self._file):
            new = not os.path.lexists(self._file)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
            with os.fdopen(open_descriptor(self._file, flags), "r+b", buffering=0) as stream:
                size = stream.seek(0, os.SEEK_END)
                torn = size > 0 and os.pread(stream.fileno(), 1, size - 1) != b"\n"
                content = b"\n" * torn + _text(lines)
                while content:
                    content = content[stream.write(content) :]
                os.fsync(stream.fileno())
            if new:
                sync_to_disk(self._file.parent)
        self._lines += len(lines)

    def _rewrite(self, version: int) -> None:
        count = 0
        if self._file is not None:
            facts = (_line_of(version, uri, found) for uri, found in self.facts.items())
            lines = chain(facts, self._without_record(version))
            with storage_errors(self._file), replacing(self._file) as scratch, scratch.open("wb") as stream:
                while part := list(islice(lines, _AT_ONCE)):
                    stream.write(_text(part))
                    count += len(part)
        self._lines, self._wrong, self._junk = count, False, False
        self._unnamed = count - len(self.facts) - len(self.unreadable)
        self._outdated.clear()

    def _without_record(self, version: int) -> Iterator[list[Any]]:
        """Yield the last line of each file without a record, as it is stored; none of a file that counts as empty."""
        if self._junk:
            return
        last: dict[int, int] = {}  # numbers of lines, by hashes of uris: the lines themselves may not fit into memory
        for number, line in enumerate(self._stored()):
            if line is None or line[0] > version:
                continue
            of = hash(line[2])
            last.pop(of, None)
            if line[1] < 0 and len(line) > 3 and len(last) < _MOST_WITHOUT_RECORD:
                last[of] = number
        for number, line in enumerate(self._stored() if last else ()):
            if line is not None and last.get(hash(line[2])) == number:
                yield line


def stored_lines(file: Path) -> Iterator[list[Any] | None]:
    """Yield all lines of the file; None for each that is not understood, and nothing behind one that is too long."""
    try:
        stream = open_binary(file, max_bytes=MOST_BYTES)
    except FileNotFoundError:
        return
    except OSError:  # nothing is known then, and the file is replaced before the next change
        yield None
        return
    with stream:
        found = os.fstat(stream.fileno())
        if stored_bytes(found) < found.st_size:
            yield None
            return
        yield from _lines(stream)


def _line_of(version: int, uri: str, facts: FileFacts) -> list[Any]:
    record, *others, trained = facts
    return [version, record, uri, *others, *(() if trained is None else (trained,))]


def _text(lines: Iterable[list[Any]]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines).encode()


def _lines(stream: IO[bytes]) -> Iterator[list[Any] | None]:
    rest = b""
    while True:
        try:
            block = stream.read(_BLOCK)
        except OSError:  # it grows beyond what is read
            yield None
            return
        *whole, rest = (rest + block).split(b"\n")
        yield from _parsed(whole)
        if len(rest) > _LINE_BYTES or not block:
            if rest:
                yield None
            return


def _parsed(lines: list[bytes]) -> Iterator[list[Any] | None]:
    """Parse lines at once if all are JSON, else each for itself when it is asked for."""
    found: list[Any] = []
    if all(line.startswith(b"[") for line in lines):
        with suppress(ValueError, RecursionError):
            found = json.loads(b"[%s]" % b",".join(lines))
    for line in found if len(found) == len(lines) else map(_parsed_line, lines):
        yield line if _is_line(line) else None


def _parsed_line(line: bytes) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(line) if line.startswith(b"[") else None
    return None


def _is_line(line: Any) -> bool:
    if type(line) is not list or len(line) not in (3, 6, 7):
        return False
    if type(line[0]) is not int or type(line[1]) is not int or type(line[2]) is not str:
        return False
    if not 0 <= line[0] <= _LARGEST or not -1 <= line[1] <= _LARGEST:
        return False
    if not is_text(line[2]):
        return False
    if len(line) == 3:
        return True
    size, mtime, last, *trained = line[3:]
    if trained and (line[1] < 0 or type(trained[0]) is not bool):
        return False
    if type(size) is not int or size < 0 or not (mtime is None or type(mtime) is int) or type(last) is not str:
        return False
    return (
        (len(last) <= _REASON and is_text(last))
        if line[1] < 0
        else len(last) == 2 * DIGEST_BYTES and _HEX.issuperset(last)
    )
