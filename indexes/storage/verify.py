"""Verify a stored index: read and compare everything, and report what is damaged, with the ids of damaged records.

1. the catalogue, by SQLite's integrity check (its contents have checksums of their own, which are compared whenever it
   is opened);
2. every column file: its length, and every block against its checksum;
3. if all of these are sound, the columns against the catalogue and each other: ids are unique and not negative,
   every record has values that an index stores, is in the cell that its probabilities determine and within the cell's
   envelope and lower bound, and uris can be decoded.

Records whose ids are reported can be removed or replaced; after `compact` the index is sound again. Damage without ids
can only be repaired from a backup. The blocks of removed records are compared too, but not what they contain.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import count_unnormalised
from semcut.indexes.errors import ClosedIndexError, DamagedIndexError
from semcut.indexes.probability_rows import possible_rows
from semcut.indexes.progress import Progress
from semcut.indexes.pruning.outside_cells import outside_cells
from semcut.indexes.scoring.packed_rows import PackedRows
from semcut.indexes.storage.catalogue import Catalogue
from semcut.indexes.storage.column_files import Column, Extent
from semcut.indexes.storage.column_specs import PER_RECORD, specs
from semcut.indexes.storage.directory import CATALOGUE
from semcut.indexes.storage.generation_folders import GENERATION
from semcut.indexes.storage.snapshot import COPY_BYTES, Snapshot
from semcut.indexes.storage.sparse_files import require_stored
from semcut.indexes.storage.store import Store
from semcut.indexes.storage.stored_attributes import impossible_attributes
from semcut.indexes.storage.stored_texts import overlap, read_keys, read_texts, text_kinds, text_size
from semcut.indexes.stored_values import norm_tolerance, storable_features

_ROWS = 1 << 14  # records compared per step, fewer if their features and probabilities are large
_NO_IDS = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Damage:
    """One damaged part of an index.

    Attributes:
        where: the file or directory, "columns" for a contradiction between files, or "catalogue" for a wrong number.
        what: what is wrong, in a few words.
        ids: (n,) int64, ids of the records concerned; empty where they are unknown, or all of them were removed.
    """

    where: str
    what: str
    ids: NDArray[np.int64] = field(default_factory=lambda: _NO_IDS)


def verify(store: Store, snapshot: Snapshot, progress: Progress | None = None) -> list[Damage]:
    """Find all damage of a snapshot of an index; return an empty list if the index is sound.

    Args:
        store: the store.
        snapshot: a snapshot of this store, taken since the store was opened.
        progress: called with the number of bytes read so far, and the total number of bytes.

    Raises:
        ClosedIndexError: the store was closed in the meantime.
    """
    columns = snapshot.columns
    damage = [Damage(str(store.path), f"catalogue: {text}") for text in store.catalogue_errors()]
    files = columns.files()
    total = sum(columns.extents[name].rows * file.spec.row_bytes for name, file in files.items())
    done = 0
    alive = np.zeros(len(columns), bool)
    alive[snapshot.live] = True
    for name, file in files.items():
        extent = columns.extents[name]
        for first, stop, what in _bad_blocks(file, extent):
            rows = slice(first, stop + name.endswith("_ends"))  # a text begins where the one before ends
            ids = columns.ids[rows][alive[rows]] if name in PER_RECORD else _NO_IDS
            damage.append(Damage(str(file.path), f"rows {first} to {stop - 1} {what}", ids))
        done += extent.rows * file.spec.row_bytes
        if progress is not None:
            progress(done, total)
    try:
        return damage or columns.reading(lambda: _contradictions(snapshot))
    except DamagedIndexError as error:
        return [Damage(str(store.path), str(error))]


def verify_path(path: Path, progress: Progress | None = None) -> list[Damage]:
    """Find all damage of the index in a directory, even if the index is too damaged to be opened.

    Args:
        path: the directory.
        progress: called with the number of bytes read so far, and the total number of bytes; not called if the index
            cannot be opened.

    Raises:
        NotAnIndexError, FormatVersionError: the directory has no index that can be read.
    """
    try:
        store = Store.open(path)
    except DamagedIndexError as error:
        return [Damage(str(path), str(error)), *_damaged_files(path)]
    try:
        return verify(store, store.snapshot, progress)
    finally:
        store.close()


def _damaged_files(path: Path) -> list[Damage]:
    """Find damage in the column files of an index that cannot be opened; none is found if its catalogue is damaged."""
    try:
        catalogue = Catalogue(path / CATALOGUE)
        try:
            committed = catalogue.read()
        finally:
            catalogue.close()
    except DamagedIndexError:
        return []
    damage: list[Damage] = []
    files: dict[str, Column] = {}
    folder = path / f"{GENERATION}{committed.generation}"
    if folder.is_symlink():  # opening it has said so
        return []
    with ExitStack() as finally_close:
        for name, spec in specs(catalogue.config).items():
            try:
                files[name] = Column(folder / name, spec, writable=False)
            except DamagedIndexError as error:
                damage.append(Damage(str(path), str(error)))
                continue
            finally_close.callback(files[name].close)
        with suppress(DamagedIndexError):  # files that are holes could not be opened, and are not worth reading
            require_stored(files, committed.extents)
            for name, file in files.items():
                damage += [
                    Damage(str(file.path), f"rows {first} to {stop - 1} {what}")
                    for first, stop, what in _bad_blocks(file, committed.extents[name])
                ]
    return damage


def _bad_blocks(file: Column, extent: Extent) -> list[tuple[int, int, str]]:
    """Find runs of blocks that cannot be read or do not match: first row, row after the last, and what is wrong."""
    bad: list[tuple[int, int, str]] = []
    for block in range(len(extent.crcs)):
        try:
            what = file.fault(extent, block) or ""
        except ClosedIndexError:
            raise
        except DamagedIndexError:
            what = "cannot be read from the disk"
        first, stop = block * file.spec.block, min((block + 1) * file.spec.block, extent.rows)
        if what and bad and bad[-1][1] == first and bad[-1][2] == what:
            bad[-1] = (bad[-1][0], stop, what)
        elif what:
            bad.append((first, stop, what))
    return bad


def _contradictions(snapshot: Snapshot) -> list[Damage]:
    """Find records and numbers in the catalogue that contradict each other, though all checksums match."""
    columns, cells, live = snapshot.columns, snapshot.cells, snapshot.live
    damage: list[Damage] = []

    def report(what: str, rows: NDArray[np.int64]) -> None:
        if len(rows):
            damage.append(Damage("columns", what, columns.ids[rows]))

    unnormalised = 0
    ids, first = np.unique(columns.ids[live], return_index=True)
    report("ids that occur more than once", np.delete(live, first) if len(ids) < len(live) else live[:0])
    report("negative ids", live[columns.ids[live] < 0])
    bytes_left = {}
    for kind in text_kinds(columns):
        columns.require_whole(f"{kind}_ends")
        overlapping = np.flatnonzero(np.diff(columns.raw()[f"{kind}_ends"]) < 0) + 1
        report(f"{kind}s that overlap", np.intersect1d(overlapping, live))
        bytes_left[kind] = columns.extents[f"{kind}_bytes"].rows
    vocabulary = None
    try:
        vocabulary = columns.vocabulary
    except DamagedIndexError as error:  # of no record in particular
        damage.append(Damage("columns", str(error)))
    size = max(1, min(_ROWS, COPY_BYTES // sum(spec.row_bytes for spec in specs(cells.config).values())))
    for start in range(0, len(live), size):
        rows = live[start : start + size]
        features, feature_places = columns.features(rows)
        unnormalised += count_unnormalised(features[feature_places], norm_tolerance(cells.config))
        report("features that it cannot have stored", rows[~storable_features(cells.config, features[feature_places])])
        given, places = columns.stored_probabilities(rows)
        if isinstance(given, PackedRows):  # which have possible values, or are not as semcut writes them
            outside = outside_cells(cells, given.taken(places), columns.cells[rows])
        else:
            report("probabilities that it cannot have stored", rows[~possible_rows(given[places])])
            outside = outside_cells(cells, given[places], columns.cells[rows])
        report("records outside of their cell", rows[outside])
        columns.release_pages()
        for name, wrong in impossible_attributes(columns, rows, vocabulary).items():
            report(f"values of the attribute {name} that it cannot have stored", rows[wrong])
        for kind, left in bytes_left.items():
            if left < 0:  # texts that share bytes are not decoded again and again
                continue
            try:
                read_keys(columns, rows) if kind == "key" else read_texts(columns, kind, rows)
                bytes_left[kind] = left - text_size(columns, kind, rows)
                if bytes_left[kind] < 0:
                    raise overlap(kind)
            except DamagedIndexError as error:
                bytes_left[kind] = -1
                damage.append(Damage("columns", str(error)))
    stored = snapshot.committed.unnormalised
    if unnormalised != stored:
        what = f"counts {stored} features that are not of length 1, there are {unnormalised}: compact the index"
        damage.append(Damage("catalogue", what))
    return damage
