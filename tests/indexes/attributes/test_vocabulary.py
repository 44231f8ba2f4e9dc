"""The column of categories: read as it was written, and refused as damaged otherwise."""

from __future__ import annotations

import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from semcut.indexes import DamagedIndexError, InvalidEncodingsError
from semcut.indexes.attributes import vocabulary as module
from semcut.indexes.attributes.vocabulary import Vocabulary

TYPES = {"price": "float", "camera": "category", "tags": "categories"}


def listed(vocabulary: Vocabulary) -> dict[str, list]:
    return {name: list(values) for name, values in vocabulary.values.items()}


def column(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


def test_values_get_numbers_in_the_order_in_which_they_come():
    first, lines = Vocabulary.empty(TYPES).extended({"camera": ["b", None, "a", "b"], "tags": [(), ("x", "y"), None]})
    assert listed(first) == {"camera": ["b", "a"], "tags": [(), ("x", "y")]}
    second, more = first.extended({"camera": ["a", "\n\u00e9"], "tags": [("x",)]})
    assert listed(first)["camera"] == ["b", "a"]
    assert listed(second)["camera"] == ["b", "a", "\n\u00e9"]
    written = np.concatenate([lines, more])
    assert written.tobytes().decode().splitlines()[:3] == ['[1,"b"]', '[1,"a"]', "[2,[]]"]
    found = Vocabulary.read(TYPES, written)
    assert (listed(found), found.size) == (listed(second), len(written))
    kept, lines = found.kept({"camera": np.array([2]), "tags": np.array([1])})
    assert listed(kept) == {"camera": ["\n\u00e9"], "tags": [("x", "y")]}
    assert listed(Vocabulary.read(TYPES, lines)) == listed(kept)


@pytest.mark.parametrize(
    "text",
    [
        b'[1,"a"]', b'[0,"a"]\n', b'[3,"a"]\n', b'[-1,"a"]\n', b'[true,"a"]\n', b'[1,""]\n', b'[1,3]\n', b'[1,["a"]]\n',
        b'[2,"a"]\n', b'[2,["b","a"]]\n', b'[2,["a","a"]]\n', b'[2,[""]]\n', b'[2,[["a"]]]\n', b'[1, "a"]\n',
        b'[1,"a"]\n[1,"a"]\n', b"\n", b"[1]\n", b"{}\n", b"\xff\n", b'[1,"\\ud800"]\n', b"[" * 100_000 + b"\n",
        b"[1," + b"9" * 5000 + b"]\n", b'[1,"a"]\n\n', b'[1,"\xc3\xa9"]\n',
    ],
)  # fmt: skip
def test_what_semcut_does_not_write_is_damage(text):
    with pytest.raises(DamagedIndexError, match="vocabulary of the index is damaged"):
        Vocabulary.read(TYPES, column(text))


@pytest.mark.parametrize(
    "inner",
    [
        pytest.param(b"[],", id="lists"),
        pytest.param(b"{},", id="objects"),
        pytest.param(b'"",', id="texts"),
        pytest.param(b"1.5,", id="numbers"),
        pytest.param(b"[" * 100 + b"]" * 100 + b",", id="nested"),
    ],
)
@pytest.mark.parametrize("length", [1 << 20, 1 << 24], ids=str)
def test_a_line_that_semcut_does_not_write_takes_little_memory(inner, length):
    text = b"[2,[" + inner * (length // len(inner)) + b'"a"]]\n'
    data = column(text)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedIndexError, match="vocabulary of the index is damaged"):
            Vocabulary.read(TYPES, data)
        assert tracemalloc.get_traced_memory()[1] < 6 * len(text)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("length", "times"), [(2, 25), (24, 6)])
def test_values_take_the_memory_that_is_stated(length, times):
    """The limits of `docs/guarantees.md`, for two short texts and for one of 24 characters."""
    texts = sorted(f"{i:0{length}x}" for i in range(256 if length == 2 else 30_000))
    values = list(combinations(texts, 2)) if length == 2 else texts
    types = {"tags": "categories" if length == 2 else "category"}
    _, lines = Vocabulary.empty(types).extended({"tags": values})
    tracemalloc.start()
    try:
        found = Vocabulary.read(types, lines)
        assert tracemalloc.get_traced_memory()[1] < times * len(lines)
    finally:
        tracemalloc.stop()
    assert listed(found) == {"tags": values}


def test_the_longest_values_are_read():
    """A character beyond the first 65,536 takes two escapes."""
    longest = tuple(sorted(chr(0x1F600 + i) * 1000 for i in range(1000)))
    for types, value in (({"x": "int", "tags": "categories"}, longest), ({"tags": "category"}, longest[0])):
        for text in (value, ('"\\' * 500,) if value is longest else '"\\' * 500):
            written, lines = Vocabulary.empty(types).extended({"x": [], "tags": [text, text]})
            assert listed(Vocabulary.read(types, lines)) == listed(written) == {"tags": [text]}


def test_too_many_values_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_VOCABULARY_BYTES", 30)
    few, _ = Vocabulary.empty(TYPES).extended({"camera": ["a", "b"], "tags": []})
    with pytest.raises(InvalidEncodingsError, match="different categories of the index take more than"):
        few.extended({"camera": ["another one"], "tags": []})
    with pytest.raises(DamagedIndexError):
        Vocabulary.read(TYPES, column(b'[1,"a"]\n' * 5))
