"""A snapshot uses the counts of an earlier one only if all rows and cells that were counted there still exist."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from semcut.indexes import DamagedIndexError
from semcut.indexes.storage.column_files import Extent
from semcut.indexes.storage.mapped_columns import Columns
from semcut.indexes.storage.snapshot import Snapshot, load_snapshot
from semcut.indexes.storage.store import Store
from tests.indexes.story import CONFIG, records


@pytest.fixture
def store() -> Iterator[Store]:
    """A store in memory: 300 rows, 3 of them removed."""
    store = Store.create(None, CONFIG)
    store.write(records(np.arange(300), np.zeros(300)))
    store.write(None, np.array([5, 2, 7]))
    yield store
    store.close()


def unsized(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without sizes of cells, as it is read from the catalogue."""
    cells = replace(snapshot.cells, sizes=np.zeros_like(snapshot.cells.sizes))
    return replace(snapshot, committed=snapshot.committed._replace(cells=cells))


def test_sizes_are_the_same_counted_from_the_start_or_from_an_earlier_snapshot(store):
    before = store.snapshot
    after = store.write(records(np.arange(400, 600), np.ones(200)), np.array([10, 20]))
    stored = unsized(after)
    for earlier in (None, before):
        loaded = load_snapshot(stored.committed, stored.columns, earlier)
        np.testing.assert_array_equal(loaded.cells.sizes, after.cells.sizes)
        assert loaded.cells.sizes.sum() == len(loaded) == 495


@pytest.mark.parametrize("name", ["ids", "removed"])
def test_a_catalogue_with_fewer_rows_than_before_is_damage(store, name):
    before = store.snapshot
    committed = unsized(before).committed
    fewer = {**committed.extents, name: Extent(committed.extents[name].rows - 1)}
    with pytest.raises(DamagedIndexError, match="has lost records or cells"):
        load_snapshot(committed._replace(extents=fewer), before.columns, before)


def test_a_catalogue_with_other_cells_than_before_is_damage(store):
    """Every column is as long as before, and every cell exists, but the cells have changed places."""
    before = store.snapshot
    committed = unsized(before).committed
    cells = replace(committed.cells, numbers=committed.cells.numbers[::-1])
    with pytest.raises(DamagedIndexError, match="has lost records or cells"):
        load_snapshot(committed._replace(cells=cells), before.columns, before)


def test_a_catalogue_with_fewer_cells_than_before_is_damage(store):
    before = store.snapshot
    committed = unsized(before).committed
    cells = replace(
        committed.cells,
        numbers=committed.cells.numbers[:-1],
        sizes=committed.cells.sizes[:-1],
        lows=committed.cells.lows[:-1],
        envelopes=committed.cells.envelopes[:-1],
        masses=committed.cells.masses[:-1],
    )
    with pytest.raises(DamagedIndexError, match="has lost records or cells"):
        load_snapshot(committed._replace(cells=cells), before.columns, before)


def test_rows_come_in_order_of_arrival_and_progress_reaches_the_total(store, monkeypatch):
    monkeypatch.setattr("semcut.indexes.storage.snapshot.COPY_BYTES", 10_000)
    reported = []
    rows = list(store.snapshot.row_batches(lambda done, total, task="": reported.append((done, total))))
    assert len(rows) > 1
    np.testing.assert_array_equal(np.concatenate(rows), np.delete(np.arange(300), [5, 2, 7]))
    assert reported == [(int(count), 297) for count in np.cumsum([len(batch) for batch in rows])]


def test_a_snapshot_does_not_show_later_changes(store):
    before = store.snapshot
    store.write(records(np.arange(400, 600), np.ones(200)), np.array([10]))
    assert len(before) == 297
    assert isinstance(before.columns, Columns)
    assert before.stats().records == 297
    assert len(store.snapshot) == 496
