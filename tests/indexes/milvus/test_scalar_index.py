"""Servers index the cells of records, and conditions on cells are ranges where these are faster than lists."""

from __future__ import annotations

import re

import numpy as np
import pytest

from semcut.indexes.milvus.connection import is_in
from semcut.indexes.milvus.scalar_index import cells_condition
from tests.indexes.milvus.clients import assert_same_as, reference_of, written


def test_few_cells_are_a_list():
    known = np.arange(0, 3000, 3)
    kept = known[[0, 1, 2, 7, 900]]
    assert cells_condition(kept, known) == is_in("cell", kept)


def test_long_runs_are_ranges_and_the_rest_is_a_list():
    known = np.arange(0, 3000, 3)
    kept = known[np.r_[2, 10:400, 500:502, 600:990]]
    condition = cells_condition(kept, known)
    ranges = re.findall(r"cell >= (\d+) and cell <= (\d+)", condition)
    assert sorted((int(low), int(high)) for low, high in ranges) == [(30, 1197), (1800, 2967)]
    assert is_in("cell", known[[2, 500, 501]]) in condition
    found = np.zeros(3000, bool)
    for low, high in ranges:
        found[int(low) : int(high) + 1] = True
    found[known[[2, 500, 501]]] = True
    assert np.array_equal(known[found[known]], kept)


def test_a_single_range_needs_no_list():
    assert cells_condition(np.arange(5, 300), np.arange(1000)) == "cell >= 5 and cell <= 299"


@pytest.mark.milvus
def test_cells_are_indexed_and_an_index_that_is_missing_is_made_by_flush(backend, story):
    """Collections of earlier versions have none."""
    if backend.kind == "floats":
        pytest.skip("milvus-lite reads all rows, indexed or not")
    (index,) = backend.clients(story)
    index.add(written(0, 30))
    assert "cell" in backend.server.call("list_indexes", story)
    backend.server.call("release_collection", story)
    backend.server.call("drop_index", story, "cell")
    assert "cell" not in backend.server.call("list_indexes", story)
    backend.server.call("load_collection", story)
    assert_same_as(index, reference_of(written(0, 30)))
    index.flush()
    assert "cell" in backend.server.call("list_indexes", story)
    backend.wait_until_visible(story)
    assert_same_as(index, reference_of(written(0, 30)))
    index.close()


@pytest.mark.milvus
def test_ranges_give_the_same_answers(backend, story, monkeypatch):
    monkeypatch.setattr("semcut.indexes.milvus.scalar_index._LONG_RUN", 2)
    (index,) = backend.clients(story)
    index.add(written(0, 60))
    assert_same_as(index, reference_of(written(0, 60)))
    index.close()
