"""Moving an index between a directory and Milvus so that the copy can be trusted.

`Migration` copies a source to a target in batches in order of ids, in bounded memory. After each batch that the target
has acknowledged, a line goes to a journal beside the source, on the disk before the next batch starts: the last id, the
number of records and the CRC-32 of their content. So a copy that is cut off at any moment goes on after the last line.
The batch in between may be in the target in part or whole; it is written again by id, which makes it whole, and nothing
twice.

`verify` then compares: the number of records, the content of each batch, read back, with its CRC-32 in the journal,
and the answers of both sides to some searches, number by number.

A source that is changed meanwhile is noticed by its version, which counts changes; the copy is then not called done.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.config import IndexConfig, Ranking
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import (
    IndexExistsError,
    InvalidParameterError,
    SemcutError,
    StorageError,
    UnknownIdError,
    shown,
)
from semcut.indexes.faiss_index import FaissIndex
from semcut.indexes.milvus import LARGEST_BATCH
from semcut.indexes.milvus.milvus_index import MilvusIndex
from semcut.indexes.milvus.server_search import TooManyError
from semcut.indexes.progress import Progress
from semcut.indexes.storage.directory import sync_path

FORMAT_VERSION = 1

RECORD_BYTES_A_SECOND = 6_700_000
"""What a copy to Milvus 2.3 manages, roughly, in bytes of records: measured with server and client on 2 cores."""

_COMPARED = ("ids", "distances", "relevance", "scores")
_SHOWN = 20  # ids of a difference


class SourceChangedError(SemcutError):
    """The source was changed while it was copied, or since."""


@dataclass
class Report:
    """What a migration did.

    Attributes:
        source, target: what they are.
        records: records of the source.
        copied: records that this run has copied.
        resumed_at: records that earlier runs had copied.
        seconds: of this run's copying.
        records_per_second: of it.
        verified: whether the copy was compared, and nothing differed; None if it was not compared.
        differences: what differed, in sentences.
        searches: searches that were compared.
    """

    source: str
    target: str
    records: int = 0
    copied: int = 0
    resumed_at: int = 0
    seconds: float = 0.0
    records_per_second: float | None = None
    verified: bool | None = None
    differences: list[str] = field(default_factory=list)
    searches: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Journal:
    """What has been copied: a file of one JSON object a line, the first of which says what is copied where to.

    A line that was cut off is not there.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: dict[str, Any] | None = None
        self.batches: list[dict[str, int]] = []
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"the journal {path} cannot be read: {error.strerror or error}") from None
        whole = content[: content.rfind(b"\n") + 1]
        known = not whole
        with contextlib.suppress(ValueError, TypeError, KeyError):
            lines = [json.loads(line) for line in whole.splitlines()]
            if lines:
                self.header = dict(lines[0])
                self.batches = [{name: int(line[name]) for name in ("last", "records", "crc")} for line in lines[1:]]
                known = self.header["format"] == FORMAT_VERSION
        if not known:
            raise StorageError(f"{path} is no journal of a migration by this version of semcut: move it away")
        if len(whole) < len(content):
            os.truncate(path, len(whole))

    @property
    def copied(self) -> int:
        """Records copied."""
        return sum(batch["records"] for batch in self.batches)

    @property
    def last(self) -> int:
        """The largest id copied, -1 if there is none."""
        return self.batches[-1]["last"] if self.batches else -1

    def begin(self, header: dict[str, Any]) -> None:
        """Start anew."""
        self.header, self.batches = {"format": FORMAT_VERSION, **header}, []
        self._write("wb", self.header)
        sync_path(self.path.absolute().parent)

    def append(self, batch: Encodings) -> None:
        """A batch is in the target."""
        assert batch.ids is not None
        line = {"last": int(batch.ids[-1]), "records": len(batch), "crc": checksum(batch)}
        self._write("ab", line)
        self.batches.append(line)

    def _write(self, mode: str, content: dict[str, Any]) -> None:
        try:
            with open(self.path, mode) as file:
                file.write(json.dumps(content).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"the journal {self.path} cannot be written: {error.strerror or error}") from None


class Migration:
    """A copy of a source to a target.

    Args:
        source: where the records are.
        target: where they go. It has the source's shape.
        journal: what has been copied so far.
        names: what to call source and target in the report and the journal. No addresses.
        batch_size: records that are read, written and noted together.

    Raises:
        InvalidParameterError: the target has another shape, or the size of batches is out of range.
        IndexExistsError: the target holds records, and nothing is known of a copy.
        SourceChangedError: the source is not what the journal is about.
        StorageError: the target does not hold what the journal says.
    """

    def __init__(
        self,
        source: FaissIndex | MilvusIndex,
        target: FaissIndex | MilvusIndex,
        journal: Journal,
        names: tuple[str, str],
        batch_size: int = 5_000,
    ) -> None:
        if not 1 <= batch_size <= LARGEST_BATCH:
            raise InvalidParameterError(f"batch_size = {shown(batch_size)}, expected 1 to {LARGEST_BATCH}")
        check_shape(source.config, target.config, names[1])
        self._source, self._target, self._journal, self._batch_size = source, target, journal, batch_size
        self._version = source.version
        self._size = len(source)
        self._report = Report(*names, records=self._size, resumed_at=journal.copied)
        header = {"source": names[0], "target": names[1], "version": self._version, "records": self._size}
        self._resumed = journal.header is not None
        if self._resumed:
            self._check_journal(header)
            return
        if len(target):
            raise IndexExistsError(
                f"{names[1]} holds {len(target)} records, and the journal {journal.path} is not there that would tell "
                "how far a copy has come: drop them to start anew, or choose another target"
            )
        journal.begin(header)

    def _check_journal(self, header: dict[str, Any]) -> None:
        before = self._journal.header or {}
        for name in ("source", "target"):
            if before.get(name) != header[name]:
                raise StorageError(
                    f"the journal {self._journal.path} is about {before.get('source')} to {before.get('target')}, not "
                    f"{header['source']} to {header['target']}: give another --journal, or delete it"
                )
        if (before.get("version"), before.get("records")) != (header["version"], header["records"]):
            raise SourceChangedError(self._changed())
        lasts = [batch["last"] for batch in self._journal.batches]
        if lasts and not self._target.contains(lasts).any():
            raise StorageError(
                f"the journal {self._journal.path} says that {self._journal.copied} records are in {header['target']}, "
                "but they are not: if that was dropped, or is on another server, delete the journal to start anew"
            )

    def _changed(self) -> str:
        return (
            f"{self._report.source} has been changed since the copy began: what was copied is no copy of it any more. "
            f"Delete the target and the journal {self._journal.path}, and start anew while nothing writes"
        )

    def copy(self, progress: Progress | None = None) -> Report:
        """Copy what has not been copied yet.

        Args:
            progress: told how many records, of how many, are in the target.

        Raises:
            SourceChangedError: the source was changed meanwhile.
            ServerError, StorageError: one side failed. What has been copied stays, and the copy can go on.
        """
        started, done = time.monotonic(), self._journal.copied
        # An earlier run was cut off in a batch, which may be there in part. No batch is larger.
        careful = self._report.resumed_at + (LARGEST_BATCH if self._resumed else 0)
        for batch in self._source.iterate(self._batch_size, after=self._journal.last):
            if isinstance(self._target, MilvusIndex) and done >= careful:
                self._target.load(batch)
            else:
                self._target.upsert(batch)
                if isinstance(self._target, MilvusIndex) and batch.ids is not None:
                    self._target.sweep(batch.ids)
            self._journal.append(batch)
            done += len(batch)
            self._report.copied += len(batch)
            if progress is not None:
                progress(done, self._size)
        self._target.flush()
        self._report.seconds = round(time.monotonic() - started, 3)
        if self._report.copied:
            self._report.records_per_second = round(self._report.copied / max(self._report.seconds, 1e-3), 1)
        self._check_source()
        self._count()
        return self._report

    def _count(self) -> None:
        """Compare the numbers of records."""
        held = len(self._target)
        if held != self._size:
            said = f"{self._report.target} holds {held} records, {self._report.source} {self._size}"
            if said not in self._report.differences:
                self._report.differences.append(said)

    def _check_source(self) -> None:
        if isinstance(self._source, FaissIndex):
            self._source.refresh()
        if self._source.version != self._version:
            raise SourceChangedError(self._changed())

    def verify(self, searches: int = 32, progress: Progress | None = None) -> Report:
        """Compare target and source; what differs is in the report.

        Args:
            searches: how many searches to compare, with records of the source as queries.
            progress: told how many records, of how many, have been compared.

        Raises:
            SourceChangedError: the source was changed meanwhile.
        """
        different = self._report.differences
        self._count()
        done, after = 0, -1
        for line in self._journal.batches:
            batch = next(self._source.iterate(line["records"], after=after), None)
            if batch is None or batch.ids is None or (len(batch), batch.ids[-1]) != (line["records"], line["last"]):
                raise SourceChangedError(self._changed())
            found = self._read_back(batch.ids)
            if len(found) < len(batch) or checksum(found) != line["crc"]:
                wrong = _different(batch, found)
                some = ", ".join(map(str, wrong[:_SHOWN].tolist())) + (", ..." if len(wrong) > _SHOWN else "")
                different.append(f"{len(wrong)} records are missing or not the same: {some}")
            after, done = line["last"], done + len(batch)
            if progress is not None:
                progress(done, self._size)
        if done != self._size:
            different.append(f"{done} of {self._size} records were copied: go on with --resume")
        self._compare_searches(searches)
        self._check_source()
        self._report.verified = not different
        return self._report

    def _read_back(self, ids: NDArray[np.int64]) -> Encodings:
        """Those of these records that the target has."""
        try:
            return self._target.get(ids)
        except UnknownIdError:
            return self._target.get(ids[self._target.contains(ids)])

    def _compare_searches(self, count: int) -> None:
        ids = self._source.ids()
        if not len(ids) or not count:
            return
        chosen = np.random.default_rng(0).choice(ids, min(count, len(ids)), replace=False)
        queries = self._source.get(chosen)
        faiss = self._source if isinstance(self._source, FaissIndex) else self._target
        rankings: list[Ranking] = ["distance", "fused"] if faiss.stats().normalised else ["distance"]
        for ranking in rankings:
            wrong = self._unequal(queries, ranking)
            if len(wrong):
                some = ", ".join(map(str, chosen[wrong][:_SHOWN].tolist()))
                self._report.differences.append(f"{len(wrong)} searches ({ranking}) give other answers: queries {some}")

    def _unequal(self, queries: Encodings, ranking: Ranking) -> NDArray[np.int64]:
        """(n,) which of these queries get other answers from the target than from the source."""
        try:
            mine, theirs = (
                index.search(queries, shortlist=None, ranking=ranking) for index in (self._source, self._target)
            )
        except TooManyError:  # to be ranked on this machine
            if len(queries) == 1:
                return np.empty(0, np.int64)
            parts = [self._unequal(queries[query : query + 1], ranking) + query for query in range(len(queries))]
            return np.concatenate(parts)
        self._report.searches += len(queries)
        unequal = np.zeros(len(queries), bool)
        for name in _COMPARED:
            one, other = getattr(mine, name), getattr(theirs, name)
            unequal |= ~((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=1)
        return np.flatnonzero(unequal)


def checksum(batch: Encodings) -> int:
    """CRC-32 of all that a batch holds."""
    assert batch.ids is not None
    crc = 0
    for column in (batch.ids, batch.codes, batch.probabilities, batch.features):
        crc = zlib.crc32(np.ascontiguousarray(column).data, crc) if column.size else crc
    uris = [b"\0" if uri is None else b"\1" + uri.encode() for uri in batch.uris or [None] * len(batch)]
    return zlib.crc32(b"".join(len(uri).to_bytes(4, "little") + uri for uri in uris), crc)


def check_shape(source: IndexConfig, target: IndexConfig, name: str) -> None:
    """Raise `InvalidParameterError` unless the target has the source's configuration."""
    differing = [key for key, value in source.model_dump().items() if target.model_dump()[key] != value]
    if differing:
        different = ", ".join(
            f"{key} {getattr(target, key)} instead of {getattr(source, key)}"
            if key not in ("prior", "similarity")
            else f"another {key}"
            for key in differing
        )
        raise InvalidParameterError(f"{name} has another shape ({different}): choose another collection, or drop it")


def record_bytes(config: IndexConfig) -> int:
    """What the values of one record take."""
    return 8 + config.bits // 8 + 4 * (config.classes + config.dim)


def _different(mine: Encodings, theirs: Encodings) -> NDArray[np.int64]:
    """Ids of the records of one batch that are not the same, or not there, in another."""
    assert mine.ids is not None
    assert theirs.ids is not None
    there = np.isin(mine.ids, theirs.ids)
    same = there.copy()
    at = np.flatnonzero(there)
    for name in ("codes", "probabilities", "features"):
        same[at] &= (getattr(mine, name)[at] == getattr(theirs, name)).all(axis=1)
    uris = [batch.uris or [None] * len(batch) for batch in (mine, theirs)]
    same[at] &= np.array([uris[0][i] == uris[1][j] for j, i in enumerate(at.tolist())], bool)
    return mine.ids[~same]
