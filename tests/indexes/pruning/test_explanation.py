"""The partitions of an index: valid bounds, the cells that a search scans, and some of their records."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcut.indexes import ClosedIndexError, FaissIndex, IndexConfig, InvalidEncodingsError, InvalidParameterError
from semcut.indexes.pruning import explanation
from semcut.indexes.scoring.equations import Similarity, relevance
from tests.indexes.generate import PROPERTY, classified, filled, worlds
from tests.thorough import examples

CONFIG = IndexConfig(classes=6, bits=64, dim=8)


@settings(PROPERTY, max_examples=examples(60))
@given(world=worlds(), removed_share=st.floats(0, 0.9), seed=st.integers(0, 2**32 - 1))
def test_bounds_hold_and_no_more_is_left_than_a_search_scans(world, removed_share, seed):
    rng = np.random.default_rng(seed)
    index = filled(FaissIndex.create(None, world.config), world.batches)
    index.remove(world.records.ids[rng.random(len(world.records)) < removed_share])
    records = index.get(index.ids())
    dominant = records.probabilities.argmax(axis=1)
    weights = Similarity(world.config).weights(world.queries.probabilities)
    for cutoff in world.cutoffs()[:5]:
        found = index.explain(world.queries, cutoff=cutoff)
        above = min(np.nextafter(1, 0), cutoff * (1 + 1e-4) + 1e-6)  # whatever is rounded
        surely = index.explain(world.queries, cutoff=above)
        result = index.search(world.queries, k=1, cutoff=cutoff)
        assert (surely.kept_codes.sum(axis=1) <= result.codes).all()
        assert (surely.kept_cells.sum(axis=1) <= result.cells).all()
        assert found.cells.sum() == index.stats().cells
        assert np.array_equal(index.cells_per_partition(), found.cells)
        assert (found.kept_cells <= found.cells).all()
        for query in range(len(world.queries)):
            for partition in range(world.config.classes):
                theirs = records[dominant == partition].probabilities
                bound = found.bounds[query, partition]
                if not len(theirs):
                    assert bound == 0
                    continue
                largest = relevance(np.tile(weights[query], (len(theirs), 1)), theirs).max()
                assert largest <= bound * (1 + 1e-6)
                if not found.kept_cells[query, partition]:
                    assert bound <= cutoff


def test_bounds_of_a_partition_of_one_record_are_tight():
    queries = classified(np.random.default_rng(0), CONFIG, 3)
    sure = classified(np.random.default_rng(1), CONFIG, 40)
    sure = sure[np.unique(sure.probabilities.argmax(axis=1), return_index=True)[1]]
    found = filled(FaissIndex.create(None, CONFIG), [sure]).explain(queries)
    exact = queries.probabilities.astype(float) @ sure.probabilities.T.astype(float)
    order = sure.probabilities.argmax(axis=1)
    assert (found.bounds[:, order] >= exact * (1 - 1e-6)).all()
    assert np.median(found.bounds[:, order] / exact) < 1.3


def test_members_are_of_the_partition_and_spread_over_it():
    records = classified(np.random.default_rng(2), CONFIG, 3000)
    index = filled(FaissIndex.create(None, CONFIG), [records])
    index.remove(records.ids[::3])
    dominant = {
        int(one): int(label) for one, label in zip(records.ids, records.probabilities.argmax(axis=1), strict=True)
    }
    sizes = index.stats().partitions
    for partition in range(CONFIG.classes):
        some = index.members(partition, 20)
        assert len(some) == len(set(some.tolist())) == min(20, sizes[partition])
        assert {dominant[one] for one in some.tolist()} <= {partition}
        assert len(index.members(partition, 10_000)) == sizes[partition]
    assert not set(records.ids[::3].tolist()) & set(index.members(0, 10_000).tolist())


def test_ambiguous_members_are_less_sure_than_others():
    records = classified(np.random.default_rng(3), CONFIG, 3000)
    index = filled(FaissIndex.create(None, CONFIG), [records])
    for partition in range(CONFIG.classes):
        confidence = [
            index.get(index.members(partition, 30, ambiguous=ambiguous)).probabilities.max(axis=1)
            for ambiguous in (True, False)
        ]
        assert confidence[0].mean() < confidence[1].mean()


def test_an_empty_index_and_an_empty_partition():
    index = FaissIndex.create(None, CONFIG)
    queries = classified(np.random.default_rng(4), CONFIG, 2)
    found = index.explain(queries)
    assert not found.bounds.any()
    assert not found.kept_codes.any()
    assert found.bounds.shape == (2, 6)
    assert index.members(3).tolist() == []
    assert index.explain(queries[:0]).bounds.shape == (0, 6)


def test_bad_arguments(monkeypatch):
    records = classified(np.random.default_rng(5), CONFIG, 20)
    index = filled(FaissIndex.create(None, CONFIG), [records])
    for partition in (-1, 6, 1.0, "1", None):
        with pytest.raises(InvalidParameterError, match=r"partition = .*, expected an integer from 0 to 5"):
            index.members(partition)
    for limit in (0, 10_001, 2.5):
        with pytest.raises(InvalidParameterError, match=r"limit = .*, expected an integer from 1 to 10000"):
            index.members(0, limit)
    with pytest.raises(InvalidParameterError, match=r"cutoff = 1\.5"):
        index.explain(records, cutoff=1.5)
    with pytest.raises(InvalidEncodingsError, match="has 7 classes but the index has 6"):
        index.explain(classified(np.random.default_rng(6), IndexConfig(classes=7, bits=64, dim=8), 2))
    monkeypatch.setattr(explanation, "_MAX_BOUNDS", 100)
    with pytest.raises(InvalidParameterError, match="20 queries are too many to explain at once"):
        index.explain(records)
    index.close()
    for call in (lambda: index.members(0), lambda: index.explain(records)):
        with pytest.raises(ClosedIndexError):
            call()
