"""Attributes with values that semcut does not store: `verify` names their records, and only those of records matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import BruteForceIndex, DamagedIndexError, FaissIndex, IndexConfig
from semcut.indexes.attributes.attribute_rows import row_dtype
from semcut.indexes.storage.verify import verify_path
from tests.indexes.generate import ATTRIBUTES, assert_same, classified
from tests.indexes.storage.stored_index import column, forge_column

CONFIG = IndexConfig(classes=5, bits=64, dim=4, attributes=ATTRIBUTES)
RECORDS = classified(np.random.default_rng(0), CONFIG, 120)
FILTERS = {
    "price": "price < 20", "camera": 'camera == "a"', "tags": 'array_contains(tags, "sea")',
    "taken": "taken is null", "sold": "sold == true",
}  # fmt: skip
IMPOSSIBLE = {"price": np.inf, "camera": 2**31 - 1, "tags": -2, "taken": 2**62, "sold": 5}


@pytest.fixture
def path(tmp_path) -> Path:
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(RECORDS)
    return tmp_path / "index"


def forge_value(path: Path, name: str, row: int) -> int:
    """Give an attribute of a row a value that semcut does not store, and return the id of its record."""
    rows = np.fromfile(column(path, "attributes"), row_dtype(ATTRIBUTES))
    rows[name][row] = IMPOSSIBLE[name]
    forge_column(path, "attributes", rows)
    return int(np.fromfile(column(path, "ids"), "<i8")[row])


def assert_answers(index: FaissIndex, without: int) -> None:
    """Assert that filters on every attribute are answered as without a record."""
    brute = BruteForceIndex(CONFIG)
    brute.add(RECORDS[RECORDS.ids != without])
    for where in FILTERS.values():
        assert index.matching(where).tolist() == brute.matching(where).tolist()
        assert_same(index.search(RECORDS[:9], where=where), brute.search(RECORDS[:9], where=where))


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_only_the_record_with_a_wrong_value_is_named_and_it_can_be_removed(path, name):
    wrong = forge_value(path, name, 7)
    (damage,) = verify_path(path)
    assert damage.what == f"values of the attribute {name} that it cannot have stored"
    assert damage.ids.tolist() == [wrong]
    with FaissIndex.open(path) as index:
        with pytest.raises(DamagedIndexError, match=f"the attribute {name} has values .* or remove the records"):
            index.matching(FILTERS[name])
        index.remove(damage.ids)
        assert_answers(index, wrong)
        assert index.verify() == []
        index.compact()
        assert index.verify() == []
        assert_answers(index, wrong)


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_wrong_value_of_a_removed_record_hinders_no_filter(path, name):
    removed = int(np.fromfile(column(path, "ids"), "<i8")[7])
    with FaissIndex.open(path) as index:
        index.remove([removed])
    forge_value(path, name, 7)
    assert verify_path(path) == []
    with FaissIndex.open(path) as index:
        assert_answers(index, removed)


def test_a_damaged_vocabulary_is_named_without_records(path):
    wrong = forge_value(path, "price", 7)
    text = np.fromfile(column(path, "vocabulary"), np.uint8)
    text[1] ^= 64
    forge_column(path, "vocabulary", text)
    found = {damage.what: damage.ids.tolist() for damage in verify_path(path)}
    assert found == {
        "the vocabulary of the index is damaged: restore the index from a backup": [],
        "values of the attribute price that it cannot have stored": [wrong],
    }
