"""A comparison with every record takes memory for one batch, however many there are, and knows what takes too long."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from semcut.connector.explore import exhaustive
from semcut.connector.explore.exhaustive import is_feasible, search_exhaustively
from semcut.indexes import BruteForceIndex, Encodings, FaissIndex, IndexConfig


def test_a_comparison_takes_memory_for_one_batch(monkeypatch):
    """Records of 2 probabilities out of 5,000 each: all classes of all of them take 20 MB."""
    config = IndexConfig(classes=5000, bits=32, dim=2, stored_probabilities=2, stored_features="int8")
    rng = np.random.default_rng(0)
    probabilities = np.zeros((1000, 5000), np.float32)
    probabilities[np.arange(1000), rng.integers(1, 5000, 1000)] = 0.25
    probabilities[:, 0] = 0.5
    records = Encodings(
        probabilities=probabilities, codes=np.zeros((1000, 4), np.uint8),
        features=np.full((1000, 2), np.sqrt(0.5), np.float32), ids=np.arange(1000), any_mass=True,
    )  # fmt: skip
    monkeypatch.setattr(exhaustive, "BATCH_VALUES", 1 << 17)
    with FaissIndex.create(None, config, engine="faiss") as index:
        index.add(records)
        query = index.get([7])
        tracemalloc.start()
        best = search_exhaustively(index, query, k=5, cutoff=0.0, ranking="distance", fill=True, scored=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert best.ids[0].tolist() == [0, 1, 2, 3, 4]
    assert peak < 8 << 20


@pytest.mark.parametrize(("classes", "dim", "most"), [(10_000, 1, 53_003), (1000, 128, 427_444), (2, 1, 4_098_251)])
def test_small_records_take_time_too(classes, dim, most):
    """A comparison takes at least a microsecond for a record, whatever its size."""
    index = BruteForceIndex(IndexConfig(classes=classes, bits=32, dim=dim))
    assert is_feasible(index, most)
    assert not is_feasible(index, most + 1)
