"""Values by number: what is added to them is in the extended values alone, though they share their memory."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from semcut.indexes import Encodings, FaissIndex, IndexConfig, StorageError
from semcut.indexes.attributes.numbered_values import NumberedValues
from semcut.indexes.storage import column_files


def test_extended_values_do_not_change_the_former_ones():
    first = NumberedValues.of(["a", "b"])
    second = first.extended(["c"])
    third = second.extended(["d", ("e",)])
    assert [list(some) for some in (first, second, third)] == [
        ["a", "b"],
        ["a", "b", "c"],
        ["a", "b", "c", "d", ("e",)],
    ]
    assert [len(some) for some in (first, second, third)] == [2, 3, 5]
    assert [some.number_of("c") for some in (first, second, third)] == [None, 2, 2]
    assert third.numbers_of([("e",), None, "a"]) == [4, -1, 0]
    assert third.values_of([4, -1, 0]) == [("e",), None, "a"]
    assert first.extended([]) is first


def test_values_that_are_extended_twice_differ():
    first = NumberedValues.of(["a"])
    left = first.extended(["b", "c"])
    right = first.extended(["c", "d"])
    assert [left.number_of(value) for value in "abcd"] == [0, 1, 2, None]
    assert [right.number_of(value) for value in "abcd"] == [0, None, 1, 2]
    assert [list(some) for some in (first, left, right.extended(["e"]))] == [["a"], [*"abc"], [*"acde"]]


def test_a_value_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        NumberedValues.of(["a", "b", "a"])


def test_values_are_read_while_others_are_added():
    first, wrong, ended = NumberedValues.of([]), [], threading.Event()
    newest = [first]

    def read() -> None:
        while not ended.is_set():
            some = newest[0]
            if list(some) != list(range(len(some))) or some.number_of(len(some)) is not None:
                wrong.append(some)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for value in range(3000):
            newest[0] = newest[0].extended([value])
    finally:
        ended.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert not wrong
    assert list(newest[0]) == list(range(3000))


CONFIG = IndexConfig(classes=2, bits=32, dim=2, attributes={"camera": "category"})


def records(ids: range, cameras: list[str]) -> Encodings:
    return Encodings(
        probabilities=np.tile(np.array([[1, 0]], np.float32), (len(ids), 1)),
        codes=np.zeros((len(ids), 4), np.uint8),
        features=np.tile(np.array([[1, 0]], np.float32), (len(ids), 1)),
        ids=np.arange(ids.start, ids.stop),
        attributes={"camera": cameras},
    )


def test_a_new_category_is_added_without_a_copy_of_those_that_exist():
    with FaissIndex.create(None, CONFIG) as index:
        index.add(records(range(1000), [f"c{i}" for i in range(1000)]))
        shared = index.snapshot.columns.vocabulary.values["camera"]._values
        for new in range(1000, 1010):
            before = index.snapshot
            index.add(records(range(new, new + 1), [f"c{new}"]))
            assert index.snapshot.columns.vocabulary.values["camera"]._values is shared
            assert len(before.columns.vocabulary.values["camera"]) == new
        assert index.matching("camera == 'c1009'").tolist() == [1009]


def test_categories_of_a_change_that_failed_are_not_those_of_the_next(tmp_path, monkeypatch):
    append = column_files.Column.append

    def full(column, extent, values):
        if column.path.name == "vocabulary":
            raise StorageError("the disk is full")
        return append(column, extent, values)

    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(records(range(2), ["a", "b"]))
        with monkeypatch.context() as failing:
            failing.setattr(column_files.Column, "append", full)
            with pytest.raises(StorageError, match="the disk is full"):
                index.add(records(range(2, 4), ["wrong", "c"]))
        assert index.matching("camera in ['wrong', 'c']").tolist() == []
        index.add(records(range(2, 4), ["c", "d"]))
        assert index.get([3, 2, 0]).attributes == {"camera": ["d", "c", "a"]}
        assert index.matching("camera in ['wrong', 'c']").tolist() == [2]
    with FaissIndex.open(tmp_path / "index") as index:
        assert index.get([3, 2, 0]).attributes == {"camera": ["d", "c", "a"]}
        assert index.verify() == []
