"""A `MilvusIndex` explains pruning, and lists members of partitions, as a `FaissIndex` does."""

from __future__ import annotations

import numpy as np

from semcut.indexes import FaissIndex, IndexConfig
from tests.indexes.generate import classified, filled


def test_bounds_and_members_are_those_of_a_faiss_index(make):
    config = IndexConfig(classes=6, bits=64, dim=8)
    rng = np.random.default_rng(0)
    records, queries = classified(rng, config, 300), classified(rng, config, 5)
    index, other = filled(make(config), [records]), filled(FaissIndex.create(None, config), [records])
    found, expected = index.explain(queries), other.explain(queries)
    assert np.array_equal(found.bounds, expected.bounds)
    assert np.array_equal(found.cells, expected.cells)
    assert np.array_equal(found.kept_cells, expected.kept_cells)
    assert (found.kept_codes == -1).all()
    for partition in range(config.classes):
        theirs = index.members(partition, 10_000)
        assert sorted(theirs.tolist()) == sorted(other.members(partition, 10_000).tolist())
        few = index.members(partition, 5, ambiguous=True)
        assert len(few) == len(set(few.tolist())) == 5
        confidence = records.probabilities.max(axis=1)
        place = dict(zip(records.ids.tolist(), confidence.tolist(), strict=True))
        assert np.mean([place[one] for one in few.tolist()]) < np.mean([place[one] for one in theirs.tolist()])
