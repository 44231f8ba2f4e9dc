"""Everything that a stored index holds, read and compared: what is damaged, and which records it concerns.

1. the catalogue, by SQLite's own check (its contents have checksums of their own, compared whenever it is opened);
2. every column file: its length, and every block against its checksum;
3. where these are sound, columns against catalogue and each other: ids are unique and not negative, every record is
   in the cell that its probabilities give, within the cell's envelope and lower bound, and uris can be read.

Records that are named can be removed or replaced; after `compact` the index is then sound. Damage without records is
mended by a backup only. Removed records are checked as bytes, not as records.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.encodings import count_unnormalised
from semcut.indexes.errors import ClosedIndexError, DamagedIndexError
from semcut.indexes.pruning.cells import Cells, cell_numbers
from semcut.indexes.storage.column_files import PER_RECORD, Column, Extent
from semcut.indexes.storage.snapshot import Progress, Snapshot
from semcut.indexes.storage.store import Store

_ROWS = 1 << 14
_NO_IDS = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Damage:
    """One thing that is wrong.

    Attributes:
        where: the file.
        what: a sentence.
        ids: (n,) int64: the records concerned; empty where it is not known, or concerns none that is not removed.
    """

    where: str
    what: str
    ids: NDArray[np.int64] = field(default_factory=lambda: _NO_IDS)


def verify(store: Store, state: Snapshot, progress: Progress | None = None) -> list[Damage]:
    """All damage of a state of an index; see above.

    Args:
        store: where it is.
        state: one that the store has had since it was opened.
        progress: told how many bytes, of how many, have been read.
    """
    found = [Damage(str(store.path), f"catalogue: {text}") for text in store.complaints()]
    files = state.columns.files()
    total = sum(extent.rows * files[name].spec.row_bytes for name, extent in state.columns.extents.items() if files)
    done = 0
    alive = np.zeros(len(state.columns), bool)
    alive[state.live] = True
    for name, file in files.items():
        extent = state.columns.extents[name]
        for first, last, what in _bad_blocks(file, extent):
            ids = state.columns.ids[first:last][alive[first:last]] if name in PER_RECORD else _NO_IDS
            found.append(Damage(str(file.path), f"rows {first} to {last - 1} {what}", ids))
        done += extent.rows * file.spec.row_bytes
        if progress is not None:
            progress(done, total)
    return found or _contradictions(state)


def verify_path(path: Path, progress: Progress | None = None) -> list[Damage]:
    """All damage of the index in a directory, which need not be sound enough to be opened.

    Raises:
        NotAnIndexError, FormatVersionError: it is no index that can be read here.
    """
    try:
        store = Store.open(path)
    except DamagedIndexError as error:
        return [Damage(str(path), str(error)), *_damaged_files(path)]
    try:
        return verify(store, store.state, progress)
    finally:
        store.close()


def _damaged_files(path: Path) -> list[Damage]:
    """What is wrong with the column files of an index that cannot be opened, as far as the catalogue can be read."""
    try:
        files, extents = Store.files_of(path)
    except DamagedIndexError:
        return []
    found = []
    for name, file in files.items():
        if isinstance(file, DamagedIndexError):
            found.append(Damage(str(path), str(file)))
            continue
        found += [
            Damage(str(file.path), f"rows {first} to {last - 1} {what}")
            for first, last, what in _bad_blocks(file, extents[name])
        ]
        file.close()
    return found


def _bad_blocks(file: Column, extent: Extent) -> list[tuple[int, int, str]]:
    """First row, row behind the last, and what is wrong with them, one entry for a run of bad blocks."""
    bad: list[tuple[int, int, str]] = []
    for block in range(len(extent.crcs)):
        try:
            what = "" if file.matches(extent, block) else "do not match their checksum"
        except ClosedIndexError:
            raise
        except DamagedIndexError:
            what = "cannot be read from the disk"
        first, last = block * file.spec.block, min((block + 1) * file.spec.block, extent.rows)
        if what and bad and bad[-1][1] == first and bad[-1][2] == what:
            bad[-1] = (bad[-1][0], last, what)
        elif what:
            bad.append((first, last, what))
    return bad


def _contradictions(state: Snapshot) -> list[Damage]:
    columns, cells, live = state.columns, state.cells, state.live
    found: list[Damage] = []

    def say(what: str, rows: NDArray[np.int64]) -> None:
        if len(rows):
            found.append(Damage("columns", what, columns.ids[rows]))

    long = 0
    ids, first = np.unique(columns.ids[live], return_index=True)
    say("ids that occur more than once", np.delete(live, first) if len(ids) < len(live) else live[:0])
    say("negative ids", live[columns.ids[live] < 0])
    for start in range(0, len(live), _ROWS):
        rows = live[start : start + _ROWS]
        features, place = columns.features(rows)
        long += count_unnormalised(features[place])
        probabilities, at = columns.probabilities(rows)
        say("records outside of their cell", rows[_outside(cells, probabilities[at], columns.cells[rows])])
        columns.release_pages()
        try:
            columns.uris(rows)
        except DamagedIndexError as error:
            found.append(Damage("columns", str(error)))
    if long != state.committed.loose:
        what = f"counts {state.committed.loose} features that are not of length 1, there are {long}: compact the index"
        found.append(Damage("catalogue", what))
    return found


def _outside(cells: Cells, probabilities: NDArray[np.float32], own: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(n,) bool: which records are not where their probabilities belong, or beyond the bounds of their cell."""
    numbers, confidence = cell_numbers(cells.config, probabilities)
    beyond: NDArray[np.bool_] = (probabilities > cells.envelopes[own]).any(axis=1) | (confidence < cells.lows[own])
    moved: NDArray[np.bool_] = numbers != cells.numbers[own]
    return moved | beyond
