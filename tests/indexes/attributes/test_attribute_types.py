"""The values of attributes: what is accepted, and how it is returned."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import numpy as np
import pytest

from semcut.indexes import (
    BruteForceIndex,
    Encodings,
    FaissIndex,
    IndexConfig,
    InvalidEncodingsError,
    InvalidParameterError,
    attribute,
)
from tests.indexes.generate import ATTRIBUTES, classified

CONFIG = IndexConfig(classes=3, bits=32, dim=4, attributes=ATTRIBUTES)
UTC = timezone.utc
GIVEN = {
    "price": [
        (1, 1.0),
        (np.float32(0.5), 0.5),
        (np.int8(3), 3.0),
        (np.longdouble(0.5), 0.5),
        (float("nan"), None),
        (-0.0, 0.0),
        (None, None),
    ],
    "stars": [(1, 1), (np.uint64(2**63 - 1), 2**63 - 1), (-(2**63) + 1, -(2**63) + 1), (None, None)],
    "sold": [(True, True), (np.False_, False), (None, None)],
    "camera": [("a", "a"), (np.str_("b"), "b"), ("x" * 1000, "x" * 1000), ("a\nb", "a\nb"), (None, None)],
    "tags": [(["b", "a", "b"], ("a", "b")), ({"x"}, ("x",)), ((), ()), (np.array(["q"]), ("q",)), (None, None)],
    "taken": [
        (datetime(2024, 5, 1, 12), datetime(2024, 5, 1, 12, tzinfo=UTC)),
        (datetime(2024, 5, 1, 1, tzinfo=timezone(timedelta(hours=2))), datetime(2024, 4, 30, 23, tzinfo=UTC)),
        (date(2024, 5, 1), datetime(2024, 5, 1, tzinfo=UTC)),
        ("2024-05-01T01:02:03.000004Z", datetime(2024, 5, 1, 1, 2, 3, 4, UTC)),
        (np.datetime64("2024-05-01T01:02:03.123456000"), datetime(2024, 5, 1, 1, 2, 3, 123456, UTC)),
        (np.datetime64("2024", "Y"), datetime(2024, 1, 1, tzinfo=UTC)),
        (np.datetime64("NaT"), None),
        (datetime.max, datetime.max.replace(tzinfo=UTC)),
        (datetime.min, datetime.min.replace(tzinfo=UTC)),
        (None, None),
    ],
}
FINER = [
    np.datetime64("2024-05-01T01:02:03.123456789"),
    np.datetime64(-1, "as"),
    "2024-05-01T01:02:03.1234560070",
    "2024-05-01T01:02:03,123456789+02:00",
]
WRONG = {
    "price": ["3", True, float("inf"), 10**400, np.longdouble("1e4000"), [1.0]],
    "stars": [1.0, "1", True, 2**63, -(2**63)],
    "sold": [1, 0.0, "true"],
    "camera": ["", 3, "a\0b", "\ud800", "x" * 1001, ["a"]],
    "tags": ["a", [""], [3], ["a", None], [["a"]], [str(number) for number in range(1001)]],
    "taken": [
        "yesterday",
        3,
        True,
        "",
        "10000-01-01",
        *FINER,
        *np.array([300_000, 10**7], "datetime64[Y]"),
    ],
}


def batch(attributes: dict, rows: int = 1) -> Encodings:
    drawn = classified(np.random.default_rng(0), CONFIG, rows)
    return Encodings(
        probabilities=drawn.probabilities, codes=drawn.codes, features=drawn.features, ids=drawn.ids,
        attributes=attributes,
    )  # fmt: skip


@pytest.mark.parametrize(
    "make", [BruteForceIndex, lambda config: FaissIndex.create(None, config)], ids=["brute", "faiss"]
)
@pytest.mark.parametrize("name", GIVEN)
def test_a_value_is_returned_as_its_type_says(make, name):
    index = make(CONFIG)
    given, expected = zip(*GIVEN[name], strict=True)
    index.add(batch({name: list(given)}, len(given)))
    found = index.get(index.ids()).attributes
    assert found[name] == list(expected)
    assert [type(value) for value in found[name]] == [type(value) for value in expected]
    assert all(found[other] == [None] * len(given) for other in ATTRIBUTES if other != name)
    index.upsert(index.get(index.ids()))
    assert index.get(index.ids()).attributes == found


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in WRONG.items() for value in values],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_value_is_refused_and_nothing_is_added(name, value):
    index = FaissIndex.create(None, CONFIG)
    with pytest.raises(InvalidEncodingsError, match=rf"^the attribute {name} of row 1 is .*, expected .*, or None$"):
        index.add(batch({name: [None, value]}, 2))
    assert len(index) == 0


@pytest.mark.parametrize("value", FINER, ids=str)
def test_a_part_of_a_microsecond_is_refused_and_not_cut_off(value):
    index = FaissIndex.create(None, CONFIG)
    with pytest.raises(InvalidEncodingsError, match="expected a datetime in whole microseconds"):
        index.add(batch({"taken": [value]}))
    index.add(batch({"taken": ["2024-05-01"]}))
    with pytest.raises(InvalidParameterError, match="expected a datetime in whole microseconds"):
        index.search(batch({}), where=attribute("taken") == value)
    if isinstance(value, np.datetime64):
        with pytest.raises(InvalidParameterError, match="expected a datetime in whole microseconds"):
            attribute("taken").isin(np.array([value]))


def test_a_number_without_a_unit_is_no_datetime():
    with pytest.raises(InvalidEncodingsError, match="expected a datetime, a date, or"):
        FaissIndex.create(None, CONFIG).add(batch({"taken": np.array([5]).view("datetime64")}))


def test_values_of_numpy_are_compared_as_what_they_are():
    index = FaissIndex.create(None, CONFIG)
    index.add(batch({"taken": ["2024-05-01"], "price": [0.5]}))
    days = np.array(["2024-05-01", "2024-05-02"], "datetime64[ns]")
    for matches in (attribute("taken").isin(days), attribute("price") == np.longdouble(0.5)):
        assert index.search(batch({}), where=matches).ids[0, 0] == 0


def test_columns_of_other_libraries_are_read():
    pandas = pytest.importorskip("pandas")
    index = FaissIndex.create(None, CONFIG)
    frame = pandas.DataFrame(
        {"price": [1.5, None], "camera": ["a", None], "taken": pandas.to_datetime(["2024-05-01", None])}
    )
    frame["stars"] = pandas.array([3, None], dtype="Int64")
    index.add(batch({name: frame[name] for name in frame}, 2))
    assert index.get([0, 1]).attributes == {
        "price": [1.5, None], "stars": [3, None], "camera": ["a", None], "tags": [None, None],
        "taken": [datetime(2024, 5, 1, tzinfo=UTC), None], "sold": [None, None],
    }  # fmt: skip
    with pytest.raises(InvalidEncodingsError, match="expected a datetime in whole microseconds"):
        index.add(batch({"taken": frame["taken"] + pandas.Timedelta(1, "ns")}, 2))


@pytest.mark.parametrize(
    ("attributes", "what"),
    [
        ({"prise": [1.0]}, "has the attribute 'prise' but the index has price, stars"),
        ({"price": [1.0, 2.0]}, "the attribute price has 2 values, expected one for each of the 1 images"),
        ({"price": 1.0}, "the attribute price is 1.0, expected a list"),
        ({"a b": [1.0]}, "attributes have 'a b', which is no name"),
        ([1.0], "attributes are a list, expected values by name"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(attributes, what):
    with pytest.raises(InvalidEncodingsError, match=what):
        FaissIndex.create(None, CONFIG).add(batch(attributes))


@pytest.mark.parametrize(
    ("types", "what"),
    [
        ({"in": "float"}, "'in' is no name of an attribute"),
        ({"ID": "int"}, "'ID' is no name of an attribute"),
        ({"a-b": "int"}, "'a-b' is no name"),
        ({"a": "text"}, "the attribute a is of type 'text', expected one of bool, int"),
        ({"a": "int", "A": "int"}, "the same name but for capital letters"),
        (["a"], "expected the types of attributes by name"),
        ({f"a{number}": "int" for number in range(65)}, "at most 64"),
    ],
)
def test_wrong_types_are_refused(types, what):
    with pytest.raises(InvalidParameterError, match=what):
        IndexConfig(classes=3, bits=32, dim=4, attributes=types)


def test_batches_with_and_without_attributes_are_joined():
    one, other = batch({"price": [1.0]}), batch({"stars": [2]})
    joined = Encodings.concatenate([one, other, batch(None)])
    assert joined.attributes == {"price": [1.0, None, None], "stars": [None, 2, None]}
    assert joined[1:].attributes == {"price": [None, None], "stars": [2, None]}
    assert joined[[True, False, False]].attributes == {"price": [1.0], "stars": [None]}
