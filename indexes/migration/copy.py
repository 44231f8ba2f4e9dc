"""`Migration`: copy the records of one index to another, so that the copy can be resumed, and verify the copy.

A copy reads the source in batches, in order of ids, in bounded memory. When the target has acknowledged a batch, the
copy writes a line to the journal. So a copy that is interrupted at any moment resumes after the last line. The next
batch may already be in the target, whole or in part: it is written again by id, which completes the batch and
duplicates no record.

The version of the source changes with every change of its records. A source that was changed during the copy is an
error.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from semcut.indexes.attributes.attribute_types import dtype_of, has_vocabulary
from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import DamagedIndexError, IndexExistsError, InvalidParameterError, StorageError, shown
from semcut.indexes.index import SemanticIndex
from semcut.indexes.migration.comparison import (
    check_in_cells,
    check_same_config,
    compare_counts,
    compare_filters,
    compare_records,
    compare_searches,
)
from semcut.indexes.migration.journal import Journal, SourceChangedError
from semcut.indexes.milvus import LARGEST_BATCH
from semcut.indexes.progress import Progress

COPY_BYTES_PER_SECOND = 6_700_000
"""The approximate speed of a copy to Milvus 2.3, in bytes of records: measured with server and client on 2 cores."""


@dataclass
class Report:
    """The results of a migration.

    Attributes:
        source, target: the names of both indexes.
        records: number of records of the source.
        copied: number of records that this run has copied.
        resumed_at: number of records that earlier runs had copied.
        seconds: duration of the copy in this run.
        records_per_second: `copied` divided by `seconds`; None if this run has copied no record.
        verified: whether the verification found no difference; None without a verification.
        differences: sentences about what differs.
        searches: number of searches that were compared.
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
        """Return the report as a dict for JSON."""
        return asdict(self)


class Migration:
    """A copy of a source to a target.

    Args:
        source: the index to copy.
        target: the index to copy to, with the configuration of the source.
        journal: the journal of this migration; empty for a new one.
        names: names of source and target for the report, the journal and messages. Addresses do not belong there.
        batch_size: the number of records that are read and written together, and listed in one line of the journal;
            fewer if they would take more than 128 MiB.

    Raises:
        InvalidParameterError: the target has another configuration, or `batch_size` is out of range.
        IndexExistsError: the target has records, and the journal is empty.
        SourceChangedError: the source has been changed since the journal was begun.
        StorageError: the journal belongs to another migration, or the target does not have the records that the
            journal lists.
    """

    def __init__(
        self,
        source: SemanticIndex,
        target: SemanticIndex,
        journal: Journal,
        names: tuple[str, str],
        batch_size: int = 5_000,
    ) -> None:
        if not 1 <= batch_size <= LARGEST_BATCH:
            raise InvalidParameterError(f"batch_size = {shown(batch_size)}, expected 1 to {LARGEST_BATCH}")
        check_same_config(source.config, target.config, names[1])
        self._source, self._target, self._journal = source, target, journal
        self._batch_size = source.config.batch_records(batch_size)
        self._version = source.version
        self._size = len(source)
        self._report = Report(*names, records=self._size, resumed_at=journal.copied)
        header: dict[str, Any] = {"source": names[0], "target": names[1]}
        header |= {"version": self._version, "records": self._size}
        if source.config.attributes:
            header["attributes"] = source.config.attributes
        if source.config.string_ids:
            header["keys"] = True
        self._resumed = journal.header is not None
        if self._resumed:
            self._check_journal(header)
            return
        if len(target):
            raise IndexExistsError(
                f"{names[1]} has {len(target)} records, but there is no journal {journal.path} that lists which of "
                f"them were copied: drop {names[1]} to start again, or choose another target"
            )
        journal.begin(header)

    def _check_journal(self, header: dict[str, Any]) -> None:
        """Raise an error unless the journal belongs to this source, without later changes, and to this target."""
        before = self._journal.header or {}
        for name in ("source", "target"):
            if before.get(name) != header[name]:
                raise StorageError(
                    f"the journal {self._journal.path} belongs to a copy from {before.get('source')} to "
                    f"{before.get('target')}, not from {header['source']} to {header['target']}: give another "
                    "--journal, or delete this one"
                )
        if any(before.get(name) != header.get(name) for name in ("version", "records", "attributes", "keys")):
            raise self._source_changed()
        largest = self._source.config.batch_records(LARGEST_BATCH)
        if any(batch.records > largest for batch in self._journal.batches):
            raise StorageError(
                f"the journal {self._journal.path} lists batches of more than {largest:,} records, which semcut does "
                f"not copy together: delete it, drop {header['target']}, and start again"
            )
        last_ids = self._journal.last_ids
        if len(last_ids) and not self._target.contains(last_ids).any():
            raise StorageError(
                f"the journal {self._journal.path} lists {self._journal.copied} records as copied to "
                f"{header['target']}, but they are not there: if {header['target']} was dropped, or is on another "
                "server, delete the journal to start again"
            )

    def copy(self, progress: Progress | None = None) -> Report:
        """Copy the records that have not been copied yet.

        Args:
            progress: called with the number of records in the target so far, and the total number of records.

        Raises:
            SourceChangedError: the source was changed during the copy.
            DamagedIndexError: the source has records outside of their cells; they are not copied.
            ServerError, StorageError: source or target failed. The copied records stay, and the copy can be resumed.
        """
        started, done = time.monotonic(), self._journal.copied
        # An interrupted run may have written a part of one more batch than its journal lists. No batch is larger than
        # LARGEST_BATCH.
        certainly_absent_from = self._report.resumed_at + (LARGEST_BATCH if self._resumed else 0)
        for batch in self._source.iterate(self._batch_size, after=self._journal.last_id):
            self._check_cells(batch)
            self._write(batch, absent=done >= certainly_absent_from)
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
        self._compare_counts()
        return self._report

    def _check_cells(self, batch: Encodings) -> None:
        """Raise an error if the batch has records outside of the cells of the source, unless the source was changed."""
        try:
            check_in_cells(self._source, batch, self._report.source)
        except DamagedIndexError:
            self._check_source()
            raise

    def _write(self, batch: Encodings, absent: bool) -> None:
        """Write a batch to the target.

        Args:
            batch: the records, with ids.
            absent: whether the target certainly has none of these records, not even in part.
        """
        if absent:
            self._target.load(batch)
        else:
            self._target.upsert(batch)
            assert batch.ids is not None
            self._target.sweep(batch.ids)

    def verify(self, searches: int = 32, progress: Progress | None = None) -> Report:
        """Compare counts, contents, results of searches and filters. The report lists what differs.

        Args:
            searches: the number of records of the source that are used as queries.
            progress: called with the number of records compared so far, and the total number of records.

        Raises:
            SourceChangedError: the source was changed during the migration.
        """
        different = self._report.differences
        self._compare_counts()
        for difference in compare_records(self._source, self._target, self._journal, self._source_changed(), progress):
            different.append(difference)
        if self._journal.copied != self._size:
            different.append(f"{self._journal.copied} of {self._size} records were copied: resume with --resume")
        compared, unequal = compare_searches(self._source, self._target, searches)
        self._report.searches += compared
        different += unequal + compare_filters(self._source, self._target)
        self._check_source()
        self._report.verified = not different
        return self._report

    def _compare_counts(self) -> None:
        """Add a difference to the report if the target has another number of records."""
        for difference in compare_counts(self._target, self._size, self._report.target, self._report.source):
            if difference not in self._report.differences:
                self._report.differences.append(difference)

    def _check_source(self) -> None:
        """Raise `SourceChangedError` if the source has been changed since the migration began."""
        self._source.refresh()
        if self._source.version != self._version:
            raise self._source_changed()

    def _source_changed(self) -> SourceChangedError:
        return SourceChangedError(
            f"{self._report.source} has been changed since the copy began, so the target is no copy of it: delete the "
            f"target and the journal {self._journal.path}, and start again while no process changes the source"
        )


def record_bytes(config: IndexConfig) -> int:
    """Return the number of bytes of the values of one record, without its texts: uri, key and categories."""
    numbers = [dtype_of(kind).itemsize for kind in config.attributes.values() if not has_vocabulary(kind)]
    return 8 + config.bits // 8 + 4 * (config.classes + config.dim) + sum(numbers)
