"""`IdMap` is a dictionary from ids to rows, for whole batches."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from indexes.ids import IdMap
from tests.indexes.generate import PROPERTY

numbers = st.one_of(st.integers(0, 40), st.integers(0, 2**63 - 1), st.integers(2**63 - 40, 2**63 - 1))


@PROPERTY
@given(batches=st.lists(st.lists(numbers, max_size=30, unique=True), max_size=12), asked=st.lists(numbers, max_size=30))
def test_an_id_map_is_a_dictionary(batches, asked):
    ids, model = IdMap(), {}
    for batch in batches:
        fresh = [number for number in batch if number not in model]
        ids.add(np.array(fresh, np.int64), len(model))
        model |= {number: row for row, number in enumerate(fresh, len(model))}
        for questions in (asked, list(model), [number + 1 for number in model if number < 2**63 - 1]):
            expected = [model.get(number, -1) for number in questions]
            assert ids.rows(np.array(questions, np.int64)).tolist() == expected


def test_many_small_batches_leave_few_runs_to_look_through():
    ids = IdMap()
    for row in range(1000):
        ids.add(np.array([(row * 7919) % 1000]), row)
    assert len(ids._runs) <= 11
    asked = np.arange(-1, 1001)
    found = ids.rows(asked)
    assert found[[0, -1]].tolist() == [-1, -1]
    np.testing.assert_array_equal((found[1:-1] * 7919) % 1000, asked[1:-1])


def test_an_empty_map_knows_no_id():
    assert IdMap().rows(np.array([0, 5])).tolist() == [-1, -1]
    assert IdMap().rows(np.array([], np.int64)).tolist() == []
