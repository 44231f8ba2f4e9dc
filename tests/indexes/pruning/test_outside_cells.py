"""Records are outside of their cells exactly where their cell or one of its bounds was changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import IndexConfig
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.pruning.outside_cells import outside_cells
from tests.indexes.generate import PROPERTY, World, classified, worlds


@PROPERTY
@given(worlds(), st.integers(0, 2**32 - 1))
def test_records_are_in_the_cells_that_they_made_and_in_no_others(world: World, seed: int):
    cells, positions = Cells.empty(world.config), np.empty(0, np.int32)
    for batch in world.batches:
        cells, added = cells.extended(batch.probabilities)
        positions = np.concatenate([positions, added])
    rows = np.concatenate([np.empty((0, world.config.classes), np.float32), *(b.probabilities for b in world.batches)])
    assert not outside_cells(cells, rows).any()
    assert not outside_cells(cells, rows, positions).any()
    moved = np.random.default_rng(seed).integers(0, max(1, len(cells)), len(rows)).astype(np.int32)
    assert (outside_cells(cells, rows, moved) == (moved != positions)).all()


def test_a_record_beyond_any_bound_of_its_cell_is_outside():
    config = IndexConfig(classes=5, bits=32, dim=2)
    rows = classified(np.random.default_rng(0), config, 50).probabilities
    cells, positions = Cells.empty(config).extended(rows)
    lower = np.nextafter(cells.envelopes, np.float32(-1))
    largest = (rows == cells.envelopes[positions]).any(axis=1)
    assert 0 < largest.sum() < 50
    for changed, expected in (
        (replace(cells, envelopes=lower), largest),
        (replace(cells, masses=np.zeros_like(cells.masses)), np.ones(50, bool)),
        (replace(cells, lows=np.full_like(cells.lows, 2)), np.ones(50, bool)),
        (replace(cells, numbers=cells.numbers + cells.numbers.max() + 1), np.ones(50, bool)),
        (Cells.empty(config), np.ones(50, bool)),
    ):
        assert (outside_cells(changed, rows) == expected).all()
