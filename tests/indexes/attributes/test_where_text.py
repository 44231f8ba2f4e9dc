"""Filters as text: what is read, what is refused, and where the message points."""

from __future__ import annotations

import time

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import InvalidParameterError, attribute
from semcut.indexes.attributes.bound_filters import bound_filter
from semcut.indexes.attributes.expressions import MAX_PARTS
from semcut.indexes.attributes.where_text import MAX_CHARACTERS, parsed
from tests.indexes.attributes.filters import filters
from tests.indexes.generate import ATTRIBUTES, PROPERTY

price, stars, camera, tags = map(attribute, ("price", "stars", "camera", "tags"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price < 20", price < 20),
        ("20 > price", price < 20),
        ("price<-.5e1", price < -5.0),
        ('camera == "a"', camera == "a"),
        ("camera != 'it\\'s'", camera != "it's"),
        ('camera in ["a", "b"]', camera.isin(["a", "b"])),
        ('camera not in ["a"]', ~camera.is_missing() & ~camera.isin(["a"])),
        ("10 < price <= 20", (price > 10) & (price <= 20)),
        ("price < 1 or price > 2 and stars == 3", (price < 1) | ((price > 2) & (stars == 3))),
        ("(price < 1 || price > 2) && stars == 3", ((price < 1) | (price > 2)) & (stars == 3)),
        ("NOT price < 1 AND stars is NOT null", ~(price < 1) & ~stars.is_missing()),
        ("!(sold == true)", ~(attribute("sold") == True)),  # noqa: E712
        ('array_contains(tags, "sea")', tags.contains("sea")),
        ('array_contains_any(tags, ["sea", "sun"])', tags.contains_any(["sea", "sun"])),
        ("array_contains_all(tags, [])", tags.contains_all([])),
        ('taken >= "2024-05-01"', attribute("taken") >= "2024-05-01"),
        ('camera == "\\u"', camera == "u"),
    ],
)
def test_a_text_is_the_filter_that_it_describes(text, expected):
    assert bound_filter(text, ATTRIBUTES) == bound_filter(expected, ATTRIBUTES)


@PROPERTY
@given(filters())
def test_the_text_of_a_filter_is_that_filter(drawn):
    where, _ = drawn
    assert bound_filter(str(where), ATTRIBUTES) == bound_filter(where, ATTRIBUTES)


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("", 1, "expected a number"),
        ("price <", 8, "found the end"),
        ("price << 20", 8, "expected a number"),
        ("price = 20", 7, "== compares"),
        ("price < 20 prise > 3", 12, "expected and, or, or the end, found 'prise'"),
        ("price < 3 and prise > 2", 15, "no attribute prise, its attributes are: price, stars"),
        ("(price < 3", 11, r"expected '\)', found the end"),
        ('camera == "a', 11, "without its closing quote"),
        ("price < 3 ; drop", 11, "no word, number or sign"),
        ("price < 'x'", 1, "price is of type float: expected a finite number, got 'x'"),
        ("price < 1e999", 1, "expected a finite number, got inf"),
        ("price < true", 1, "expected a finite number, got True"),
        ("stars == 'x'", 1, "stars is of type int"),
        ("camera < 'a'", 1, "camera is of type category: compare it with =="),
        ("camera == 3", 1, "expected text of 1 to 1000 characters, got 3"),
        ("tags == 'x'", 1, "use array_contains"),
        ("array_contains(camera, 'x')", 1, "camera is of type category"),
        ("array_contains(tags, 3)", 1, "its values are text"),
        ("sold == 1", 1, "expected True or False, got 1"),
        ("taken > 'yesterday'", 1, "ISO 8601 text"),
        ("price in 3", 10, r"expected '\[', found 3"),
        ("id == 3", 1, "expected the name of an attribute"),
        ("price.x < 3", 6, "no word, number or sign"),
        ("__import__('os')", 11, "expected a comparison"),
        ("(" * 100 + "price < 3" + ")" * 100, 52, "more than 50 deep"),
        ("!" * 100 + "price < 3", 52, "more than 50 deep"),
    ],
)
def test_a_wrong_text_is_refused_at_the_place(text, place, what):
    with pytest.raises(InvalidParameterError, match=rf"^where, at character {place}: .*{what}") as error:
        bound_filter(text, ATTRIBUTES)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_long_texts_and_long_lists_are_refused():
    with pytest.raises(InvalidParameterError, match=r"where has 100,001 characters, expected at most 100,000"):
        parsed("p" * (MAX_CHARACTERS + 1))
    with pytest.raises(InvalidParameterError, match=r"more than 10,000 values"):
        parsed(f"price in [{','.join('1' * 10_001)}]")
    with pytest.raises(InvalidParameterError, match=r"more than 10,000 comparisons"):
        parsed("a<1||" * 10_001 + "a<1")
    parsed(f"price in [{','.join('1' * 10_000)}]")


@given(st.text(max_size=60) | st.text("pricestars<>=!&|()[]'\" 01.,-andornotin", max_size=60))
def test_any_text_is_read_or_refused_with_one_sentence(text):
    message = ""
    try:
        bound_filter(text, ATTRIBUTES)
    except InvalidParameterError as error:
        message = str(error)
    assert "\n" not in message


def test_filters_are_joined_by_signs_alone():
    with pytest.raises(InvalidParameterError, match="join filters with &"):
        bool(price < 3)
    with pytest.raises(InvalidParameterError, match="join filters with &"):
        1 < price < 3  # noqa: B015
    with pytest.raises(InvalidParameterError, match="expected another filter"):
        (price < 3) & True
    many = price < 0
    for number in range(3000):
        many = many | (price == number)
    bound_filter(many, ATTRIBUTES)
    deep = price < 0
    for _ in range(300):
        deep = ~(deep & (price < 1))
    with pytest.raises(InvalidParameterError, match="more than 200 deep"):
        bound_filter(deep, ATTRIBUTES)


def test_a_long_number_takes_no_quadratic_time():
    start = time.process_time()
    with pytest.raises(InvalidParameterError):
        parsed(f"price < {'1' * 20_000}x")
    assert time.process_time() - start < 3  # a hundredth of a second, or half a minute


def test_filters_that_no_text_describes_are_refused():
    price = attribute("price")
    every = price < 0
    for number in range(MAX_PARTS):
        every = every | (price == number)
    with pytest.raises(InvalidParameterError, match="more than 10,000 comparisons"):
        bound_filter(every, ATTRIBUTES)
    nested = price < 1
    for _ in range(5000):
        nested = ~nested
    assert str(nested) == "price < 1"
    with pytest.raises(InvalidParameterError, match="expected a value, or is null"):
        bound_filter(attribute("taken") == pd.NaT, ATTRIBUTES)
