"""Every mistake raises its own error with every index, and leaves the index unchanged."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

from semcut import indexes
from semcut.indexes import (
    ClosedIndexError,
    DuplicateIdError,
    Encodings,
    IndexConfig,
    InvalidEncodingsError,
    InvalidParameterError,
    SemcutError,
    UnknownIdError,
    errors,
)
from tests.indexes.generate import assert_same, assert_same_records

# the hierarchy of errors


def all_errors() -> list[type[SemcutError]]:
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    return [value for value in classes if not issubclass(value, Warning)]


def test_every_error_is_a_semcut_error_and_exported():
    for error in all_errors():
        assert issubclass(error, SemcutError)
        assert getattr(indexes, error.__name__) is error


def test_the_hierarchy_in_the_docstring_is_that_of_the_classes():
    drawn, parents = {}, []
    for line in errors.__doc__.splitlines():
        if found := re.match(r"( {4,})(\w+Error)\b *(?:\((\w+)\))?", line):
            depth = (len(found[1]) - 4) // 2
            parents = [*parents[:depth], found[2]]
            drawn[found[2]] = [parents[-2] if depth else "Exception", *([found[3]] if found[3] else [])]
    assert drawn == {error.__name__: [base.__name__ for base in error.__bases__] for error in all_errors()}


def test_an_error_can_be_caught_without_knowing_semcut():
    assert issubclass(InvalidEncodingsError, ValueError)
    assert issubclass(InvalidParameterError, ValueError)
    assert issubclass(DuplicateIdError, ValueError)
    assert issubclass(UnknownIdError, KeyError)


def test_an_unknown_id_is_reported_as_a_sentence():
    assert str(UnknownIdError("id 5 is not in the index")) == "id 5 is not in the index"


# tables of invalid arguments, each with a part of its message; all other arguments are valid, a batch has three records

ARRAYS = {
    "probabilities": np.array([[0.5, 0.25, 0.25], [0, 1, 0], [0.25, 0.25, 0.5]], np.float32),
    "codes": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "features": np.eye(4, dtype=np.float32)[:3],
}
IDS = np.array([1, 2, 3])


def with_value(name: str, place: tuple[int, int], value: float) -> dict:
    array = ARRAYS[name].astype(np.float64)
    array[place] = value
    return {name: array}


BAD_ARRAYS = [
    # shapes
    ({"probabilities": ARRAYS["probabilities"][0]}, "probabilities have shape (3,), expected 2"),
    ({"probabilities": ARRAYS["probabilities"][None]}, "probabilities have shape (1, 3, 3), expected 2"),
    ({"probabilities": np.empty((3, 0), np.float32)}, "probabilities have shape (3, 0), expected at least one"),
    ({"probabilities": [[1, 0, 0], [1.0], [0, 0, 1]]}, "probabilities cannot be read as an array"),
    ({"probabilities": None}, "probabilities have shape ()"),
    ({"codes": ARRAYS["codes"][0]}, "codes have shape (4,), expected 2"),
    ({"codes": np.uint8(3)}, "codes have shape (), expected 2"),
    ({"features": ARRAYS["features"][0]}, "features have shape (4,), expected 2"),
    ({"features": np.empty((3, 0), np.float32)}, "features have shape (3, 0), expected at least one"),
    # types
    ({"probabilities": np.eye(3, dtype=int)}, "probabilities have dtype int64, expected float32"),
    ({"probabilities": np.eye(3, dtype=bool)}, "probabilities have dtype bool, expected float32"),
    ({"probabilities": np.eye(3, dtype=complex)}, "probabilities have dtype complex128, expected float32"),
    ({"probabilities": np.eye(3).astype(object)}, "probabilities have dtype object, expected float32"),
    ({"probabilities": np.eye(3).astype(str)}, "probabilities have dtype <U32, expected float32"),
    ({"codes": ARRAYS["codes"].astype(np.float32)}, "codes have dtype float32, expected uint8"),
    ({"codes": ARRAYS["codes"].astype(np.int8)}, "codes have dtype int8, expected uint8"),
    ({"codes": ARRAYS["codes"].astype(np.int64)}, "codes have dtype int64, expected uint8"),
    ({"codes": ARRAYS["codes"] > 3}, "codes have dtype bool, expected uint8"),
    ({"codes": ARRAYS["codes"].astype(object)}, "codes have dtype object, expected uint8"),
    ({"features": np.eye(4, dtype=int)[:3]}, "features have dtype int64, expected float32"),
    ({"features": ARRAYS["features"].astype(complex)}, "features have dtype complex128, expected float32"),
    ({"features": ARRAYS["features"].astype(object)}, "features have dtype object, expected float32"),
    # values
    (with_value("probabilities", (1, 1), np.nan), "probabilities of row 1 hold NaN or infinity, expected finite"),
    (with_value("probabilities", (2, 0), np.inf), "probabilities of row 2 hold NaN or infinity, expected finite"),
    (with_value("probabilities", (1, 0), -0.0005), "probabilities of row 1 go down to -0.0005, expected values >= 0"),
    (with_value("probabilities", (0, 0), 0.52), "probabilities of row 0 sum to 1.02, expected 1 within 0.001"),
    (with_value("probabilities", (0, 0), 0.48), "probabilities of row 0 sum to 0.98, expected 1 within 0.001"),
    (with_value("features", (2, 2), np.nan), "features of row 2 hold NaN or infinity, expected finite"),
    (with_value("features", (0, 3), -np.inf), "features of row 0 hold NaN or infinity, expected finite"),
    (with_value("features", (1, 1), 1e20), "the feature of row 1 is longer than 3.2e+18"),
    (with_value("features", (1, 1), 1e39), "features of row 1 hold NaN or infinity"),
    # lengths
    ({"codes": ARRAYS["codes"][:2]}, "codes have 2 rows but probabilities have 3"),
    ({"features": ARRAYS["features"][:1]}, "features have 1 row"),
    ({"probabilities": ARRAYS["probabilities"][:2]}, "codes have 3 rows but probabilities have 2"),
]
BAD_IDS_AND_URIS = [
    ({"ids": IDS[:2]}, "ids have 2 rows but probabilities have 3"),
    ({"ids": IDS[None]}, "ids have shape (1, 3), expected 1"),
    ({"ids": 7}, "ids have shape (), expected 1"),
    ({"ids": np.array([1, -2, 3])}, "ids range from -2 to 3, expected 0 to 2**63 - 1"),
    ({"ids": np.array([1, 2, 2**63], np.uint64)}, "ids range from 1 to 9223372036854775808, expected 0 to 2**63 - 1"),
    ({"ids": [1, 2, 2**64]}, "ids have dtype object, expected int64"),
    ({"ids": np.array([1.0, 2.0, 3.0])}, "ids have dtype float64, expected int64"),
    ({"ids": np.array([True, False, True])}, "ids have dtype bool, expected int64"),
    ({"ids": ["a", "b", "c"]}, "ids are strings but those of the index are integers"),
    ({"uris": ["a", "b"]}, "uris have 2 rows but probabilities have 3"),
    ({"uris": []}, "uris have 0 rows but probabilities have 3"),
    ({"uris": "abc"}, "str, expected one string, path or None per image"),
    ({"uris": {"a": 1, "b": 2, "c": 3}}, "dict, expected one string, path or None per image"),
    ({"uris": 5}, "int, expected one string, path or None per image"),
    ({"uris": ["a", 5, None]}, "int, expected a string, path or None"),
    ({"uris": ["a", b"b", None]}, "bytes, expected a string, path or None"),
]
OTHER_WIDTHS = [
    ({"probabilities": np.eye(4, dtype=np.float32)[:3]}, "the batch has 4 classes but the index has 3"),
    ({"probabilities": np.ones((3, 1), np.float32)}, "the batch has 1 classes but the index has 3"),
    ({"codes": np.zeros((3, 8), np.uint8)}, "the batch has 64 bits but the index has 32"),
    ({"codes": np.zeros((3, 0), np.uint8)}, "the batch has 0 bits but the index has 32"),
    ({"features": np.ones((3, 5), np.float32)}, "the batch has 5 feature values but the index has 4"),
]
BAD_SEARCHES = [
    ({"k": 0}, "k = 0"),
    ({"k": -1}, "k = -1"),
    ({"k": 2.5}, "k = 2.5"),
    ({"k": "ten"}, "k = 'ten'"),
    ({"k": None}, "k = None"),
    ({"shortlist": 0}, "shortlist = 0"),
    ({"shortlist": -7}, "shortlist = -7"),
    ({"shortlist": 5, "k": 6}, "a shortlist of 5 cannot give k = 6 results"),
    ({"cutoff": -0.1}, "cutoff = -0.1"),
    ({"cutoff": 1.0}, "cutoff = 1.0"),
    ({"cutoff": float("nan")}, "cutoff = nan"),
    ({"cutoff": "x"}, "cutoff = 'x'"),
    ({"fill": "maybe"}, "fill = 'maybe'"),
    ({"ranking": "best"}, "ranking = 'best'"),
    ({"ranking": 1}, "ranking = 1"),
    (
        {"k": 10**8, "shortlist": None},
        "6 queries with k = 100000000 make a result of 600000000 slots, at most 100",
    ),
    ({"k": 10**9, "shortlist": None}, "k = 1000000000: expected less than or equal to 100000000"),
    ({"k": 10**5000, "shortlist": None}, "k = a very large int: "),
    ({"k": True}, "k = True: a bool, expected a number"),
    ({"cutoff": "0.2"}, "cutoff = '0.2': a str, expected a number"),
    ({"cutoff": np.complex128(0.2)}, "cutoff = np.complex128(0.2+0j): a complex128, expected a number"),
    ({"shortlist": np.array([[1], [2]])}, "shortlist = array([[1], [2]]): "),
]


def names(table: list[tuple]) -> list[str]:
    return [row[-1] for row in table]


@pytest.fixture
def index(make, config, batch):
    """Return an index with records, and check after the test that the index is unchanged."""
    index = make(config)
    index.add(batch)
    stats, result = index.stats(), index.search(batch, k=6, cutoff=0.0)
    yield index
    assert len(index) == len(batch)
    assert index.stats() == stats
    assert_same(index.search(batch, k=6, cutoff=0.0), result)
    assert_same_records(index.get(batch.ids), batch)


def add(index, **arrays) -> None:
    index.add(Encodings(**{**ARRAYS, "ids": IDS, **arrays}))


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS, ids=names(BAD_ARRAYS))
def test_arrays_that_are_not_encodings_are_neither_added_nor_searched(index, arrays, message):
    with pytest.raises(InvalidEncodingsError, match=re.escape(message)):
        add(index, **arrays)
    with pytest.raises(InvalidEncodingsError, match=re.escape(message)):
        index.search(Encodings(**{**ARRAYS, **arrays}))


@pytest.mark.parametrize(("arrays", "message"), BAD_IDS_AND_URIS, ids=names(BAD_IDS_AND_URIS))
def test_records_with_bad_ids_or_uris_are_not_added(index, arrays, message):
    with pytest.raises(InvalidEncodingsError, match=re.escape(message)):
        add(index, **arrays)


@pytest.mark.parametrize(("arrays", "message"), OTHER_WIDTHS, ids=names(OTHER_WIDTHS))
def test_encodings_of_another_width_are_neither_added_nor_searched(index, arrays, message):
    with pytest.raises(InvalidEncodingsError, match=re.escape(message)):
        add(index, **arrays)
    with pytest.raises(InvalidEncodingsError, match=re.escape(message)):
        index.search(Encodings(**{**ARRAYS, **arrays}))


def test_records_need_ids(index):
    with pytest.raises(InvalidEncodingsError, match="the batch has no ids"):
        add(index, ids=None)


def test_an_id_twice_in_a_batch_refuses_the_whole_batch(index):
    with pytest.raises(DuplicateIdError, match=r"id 7 is more than once in the batch"):
        add(index, ids=[7, 8, 7])


def test_an_id_that_is_in_the_index_refuses_the_whole_batch(index):
    with pytest.raises(DuplicateIdError, match=r"id 20 is in the index already"):
        add(index, ids=[1, 20, 3])
    with pytest.raises(DuplicateIdError, match=r"2 ids \(60, 10\) are in the index already"):
        add(index, ids=[60, 2, 10])


def test_a_message_shows_a_few_of_many_ids(index, batch):
    with pytest.raises(DuplicateIdError, match=r"6 ids \(10, 20, 30, 40, 50, \.\.\.\) are in the index already"):
        index.add(batch)


@pytest.mark.parametrize("given", [None, ARRAYS["probabilities"], "encodings", ARRAYS])
def test_anything_but_encodings_is_refused(index, given):
    for action in (index.add, index.search):
        with pytest.raises(InvalidEncodingsError, match=rf"{type(given).__name__}, expected Encodings"):
            action(given)


@pytest.mark.parametrize(("params", "message"), BAD_SEARCHES, ids=names(BAD_SEARCHES))
def test_parameters_out_of_range_are_refused(index, batch, params, message):
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        index.search(batch, **params)


@pytest.mark.parametrize(("params", "message"), BAD_SEARCHES[:-1], ids=names(BAD_SEARCHES[:-1]))
def test_an_empty_index_checks_its_parameters_too(make, config, batch, params, message):
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        make(config).search(batch, **params)


def test_the_fused_ranking_needs_queries_of_length_1(index):
    longer = Encodings(**{**ARRAYS, "features": 2 * ARRAYS["features"]})
    with pytest.raises(InvalidEncodingsError, match=r"features of the queries are not L2-normalised.*ranking"):
        index.search(longer, ranking="fused")
    assert np.isnan(index.search(longer, k=1, cutoff=0.0).scores).all()


def test_the_fused_ranking_needs_records_of_length_1(make, config, batch):
    index = make(config)
    add(index, features=2 * ARRAYS["features"])
    with pytest.raises(InvalidEncodingsError, match=r"features of the index are not L2-normalised.*ranking"):
        index.search(batch, ranking="fused")
    assert np.isnan(index.search(batch, k=1, cutoff=0.0).scores).all()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([11], "id 11 is not in the index"),
        ([10, 11, 12], "2 ids (11, 12) are not in the index"),
        ([-1], "id -1 is not in the index"),
        ([2**63 - 1], "id 9223372036854775807 is not in the index"),
        (np.array([2**63 + 5], np.uint64), "id 9223372036854775813 is not in the index"),
    ],
)
def test_ids_that_are_not_in_the_index_are_named(index, ids, message):
    with pytest.raises(UnknownIdError, match=re.escape(message)):
        index.get(ids)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.5], "float64"),
        (["10"], "the index has integer ids"),
        (None, "object"),
        ([[10, 20]], "(1, 2)"),
        ([True], "bool"),
        ([[10], [20, 30]], "ids"),
    ],
)
def test_ids_that_are_not_integers_are_refused(index, ids, message):
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        index.get(ids)


@pytest.mark.parametrize(
    "action",
    [
        lambda index, batch: index.add(batch),
        lambda index, batch: index.add(batch[:0]),
        lambda index, batch: index.search(batch),
        lambda index, batch: index.search(batch[:0]),
        lambda index, batch: index.get([10]),
        lambda index, batch: index.get([]),
        lambda index, batch: index.stats(),
    ],
    ids=["add", "add nothing", "search", "search nothing", "get", "get nothing", "stats"],
)
def test_a_closed_index_refuses_everything(make, config, batch, action):
    index = make(config)
    index.add(batch[:3])
    index.close()
    index.close()
    with pytest.raises(ClosedIndexError, match="the index was closed: open it again"):
        action(index, batch[3:])


def test_leaving_a_with_block_closes_the_index(make, config, batch):
    with make(config) as index:
        index.add(batch)
    with pytest.raises(ClosedIndexError):
        index.search(batch)


def test_no_error_shows_an_exception_of_a_dependency_as_its_cause(index, batch):
    with pytest.raises(InvalidParameterError) as error:
        index.search(batch, k=0)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    with pytest.raises(InvalidParameterError) as error:
        IndexConfig(classes=0, bits=32, dim=1)
    assert error.value.__suppress_context__
