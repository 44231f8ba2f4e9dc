"""A column in memory reserves addresses by the amount of its rows, and its views stay valid while it grows."""

from __future__ import annotations

import numpy as np

from semcut.indexes import FaissIndex, IndexConfig
from semcut.indexes.storage.column_files import Extent
from semcut.indexes.storage.column_specs import specs
from semcut.indexes.storage.memory_column import MemoryColumn

CONFIG = IndexConfig(classes=4, bits=32, dim=4, stored_features="float32")


def test_a_process_can_have_many_indexes_in_memory():
    indexes = [FaissIndex.create(None, CONFIG, engine="faiss") for _ in range(800)]
    assert sum(map(len, indexes)) == 0


def test_views_stay_valid_where_a_column_moves_to_a_larger_range():
    rows = np.random.default_rng(0).normal(size=(1_200_000, 4)).astype(np.float32)
    column, extent, views, capacities = MemoryColumn(specs(CONFIG)["features"]), Extent(), [], set()
    for start in range(0, len(rows), 300_000):
        extent = column.append(extent, rows[start : start + 300_000])
        views.append(column.view(extent.rows))
        capacities.add(column._capacity)
    assert len(capacities) == 2
    for view in views:
        np.testing.assert_array_equal(view, rows[: len(view)])
