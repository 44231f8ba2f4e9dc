"""Text of numpy whose numbers are no characters is refused wherever a caller can pass an array of text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from semcut import Encodings, FaissIndex, IndexConfig, InvalidEncodingsError, InvalidParameterError, attribute
from semcut.indexes.keys import is_key
from semcut.indexes.unicode_text import INVALID, values_of

CONFIG = IndexConfig(
    classes=2, bits=32, dim=2, string_ids=True, attributes={"camera": "category", "tags": "categories"}
)
BEYOND = (0x110000, 0x200000, 0x7FFFFFFF, 0xFFFFFFFF)


def beyond(number: int, width: int = 2) -> np.ndarray:
    """Return 2 texts of a number that is no character; Python makes strings of those that have several."""
    return np.full(2 * width, number, np.uint32).view(f"U{width}")


def batch(**columns: Any) -> Encodings:
    given = {"ids": ["a", "b"], **columns}
    return Encodings(
        probabilities=np.full((2, 2), 0.5, np.float32), codes=np.zeros((2, 4), np.uint8),
        features=np.eye(2, dtype=np.float32), **given,
    )  # fmt: skip


@pytest.mark.parametrize(
    "array",
    [
        np.array(["", "a", "é写\U0010ffff"]),
        np.array(["a", "\U0010ffff"], ">U3"),
        np.array([["a", "b"], ["c", ""]]).T,
        np.array(["a", "b", "c"])[::2],
        np.array([], "U5"),
        np.array("a"),
        np.array([b"\xff", b""]),
        np.arange(3),
        np.array([None, "a"], object),
    ],
    ids=repr,
)
def test_values_are_those_of_numpy(array):
    assert values_of(array) == array.tolist()


def test_datetimes_stay_what_they_are():
    assert values_of(np.array([1500], "M8[ns]")) == [np.datetime64(1500, "ns")]


@pytest.mark.parametrize("number", BEYOND)
@pytest.mark.parametrize("width", [1, 2])
def test_numbers_that_are_no_characters_are_refused(number, width):
    texts = beyond(number, width)
    for array in (texts, texts[::-1], texts.reshape(1, 2), texts.byteswap().view(texts.dtype.newbyteorder())):
        with pytest.raises(ValueError, match="no characters of Unicode"):
            values_of(array)


@pytest.mark.parametrize("number", BEYOND)
def test_strings_of_such_numbers_are_no_text(number):
    text = beyond(number).tolist()[0]
    assert INVALID.search(text)
    assert not is_key(text)
    with pytest.raises(InvalidEncodingsError, match="is not valid text"):
        batch(uris=[text, None])
    index = FaissIndex.create(None, CONFIG)
    for values in ({"camera": [text, None]}, {"tags": [[text], []]}):
        with pytest.raises(InvalidEncodingsError, match=r"of row 0 is .*, expected text of 1 to 1000 characters"):
            index.add(batch(attributes=values))


@pytest.mark.parametrize("width", [1, 2])
def test_arrays_of_such_numbers_are_one_error(width):
    texts = beyond(0x110000, width)
    index = FaissIndex.create(None, CONFIG)
    index.add(batch())
    for wrong in ({"uris": texts}, {"ids": texts}, {"attributes": {"camera": texts}}):
        with pytest.raises(InvalidEncodingsError, match="array of text, and it holds numbers that are no characters"):
            batch(**wrong)
    for call in (lambda: index.get(texts), lambda: attribute("camera").isin(texts)):
        with pytest.raises(InvalidParameterError, match="array of text, and it holds numbers that are no characters"):
            call()


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_half_a_pair_is_no_text(text):
    assert INVALID.search(text)
    with pytest.raises(InvalidEncodingsError, match=r"uri '.*' is not valid text"):
        batch(uris=[None, text])


def test_text_is_found_valid():
    assert not INVALID.search("\0a\x7fé\ud7ff\ue000\uffff\U00010000\U0010ffff\n")
