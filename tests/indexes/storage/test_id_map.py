"""`IdMap` is a dictionary from ids to rows, for whole batches."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes.storage.id_map import IdMap
from tests.indexes.generate import PROPERTY

numbers = st.one_of(st.integers(0, 40), st.integers(0, 2**63 - 1), st.integers(2**63 - 40, 2**63 - 1))


@PROPERTY
@given(
    batches=st.lists(st.lists(numbers, max_size=30, unique=True), max_size=12),
    queried=st.lists(numbers, max_size=30),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_id_map_is_a_dictionary(batches, queried, seed):
    ids, model, rng, row = IdMap(), {}, np.random.default_rng(seed), 0
    for batch in batches:
        removed = [number for number in model if rng.random() < rng.choice([0, 0.3, 1])]
        ids.remove(np.array(removed, np.int64))
        model = {number: place for number, place in model.items() if number not in removed}
        added = [number for number in batch if number not in model]
        rows = rng.permutation(np.arange(row, row + len(added)))
        ids.add(np.array(added, np.int64), rows)
        model |= dict(zip(added, rows.tolist(), strict=True))
        row += len(added)
        assert ids.largest() == max(model, default=-1)
        for queries in (queried, list(model), [number + 1 for number in model if number < 2**63 - 1]):
            expected = [model.get(number, -1) for number in queries]
            assert ids.rows(np.array(queries, np.int64)).tolist() == expected


def test_many_small_batches_leave_few_runs():
    ids = IdMap()
    for row in range(1000):
        ids.add(np.array([(row * 7919) % 1000]), np.array([row]))
    assert len(ids._runs) <= 11
    queried = np.arange(-1, 1001)
    found = ids.rows(queried)
    assert found[[0, -1]].tolist() == [-1, -1]
    np.testing.assert_array_equal((found[1:-1] * 7919) % 1000, queried[1:-1])


def test_an_empty_map_knows_no_id():
    assert IdMap().rows(np.array([0, 5])).tolist() == [-1, -1]
    assert IdMap().rows(np.array([], np.int64)).tolist() == []
