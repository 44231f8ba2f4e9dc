"""Searches of `MilvusIndex` that are limited by `where` or `among` answer as brute force over the matching records."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcut.indexes import (
    Among,
    BruteForceIndex,
    Encodings,
    IndexConfig,
    InvalidEncodingsError,
    InvalidParameterError,
    attribute,
)
from semcut.indexes.attributes.expressions import Expression, Joined
from semcut.indexes.milvus import MilvusIndex, server_selection
from semcut.indexes.milvus.attribute_fields import MISSING_FLOAT
from semcut.indexes.stored_values import stored_values
from tests.indexes.attributes.filters import filters
from tests.indexes.attributes.test_filtered_search import limited, records_of
from tests.indexes.generate import assert_same, assert_same_range, assert_same_records, classified, encodings, filled
from tests.indexes.milvus.core_process import unless_core
from tests.indexes.milvus.pool import CONFIGS, FEW_EXAMPLES
from tests.thorough import examples

CONFIG = CONFIGS[2]


@unless_core("has filters without `not`")
@settings(FEW_EXAMPLES, max_examples=examples(20))
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 70), parts=st.sampled_from([1, 9, 1000]))
def test_a_filtered_search_is_that_of_an_index_of_the_matching_records(backend, data, seed, rows, parts):
    rng = np.random.default_rng(seed)
    batch, queries = encodings(rng, CONFIG, rows, normalised=True), encodings(rng, CONFIG, 3, normalised=True)
    name = backend.take(CONFIG)
    (index,) = backend.clients(name)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server_selection, "IDS_PER_REQUEST", parts)
            patch.setattr(server_selection, "_IDS_PER_LOOKUP", parts)
            brute = filled(BruteForceIndex(CONFIG), [batch])
            filled(index, [batch[: rows // 2], batch[rows // 2 :]])
            gone = batch.ids[rng.random(rows) < 0.2]
            for one in (brute, index):
                one.remove(gone)
            held = brute.get(brute.ids())
            assert_same_records(index.get(held.ids), held)
            for _ in range(4):
                _compare(data, rng, index, brute, held, queries)
    finally:
        index.close()
        backend.give_back(name)


def _compare(
    data: st.DataObject, rng: np.random.Generator, index: MilvusIndex, brute: BruteForceIndex, held: Encodings,
    queries: Encodings,
) -> None:  # fmt: skip
    """Compare one search, with a drawn filter and drawn ids, and the ids that match."""
    where, meaning = data.draw(filters())
    matching = np.array([meaning(record) for record in records_of(held)], bool)
    limits: dict = {"where": data.draw(st.sampled_from([where, str(where)]))}
    if data.draw(st.booleans()):
        chosen = rng.random(len(held)) < data.draw(st.sampled_from([0, 0.1, 0.6, 1]))
        other = np.concatenate([held.ids[chosen], [2**62 + 1, 77, 2**63 - 1]])
        among = data.draw(st.sampled_from(["ids", "prepared", "mask", "alone"]))
        limits["among"] = chosen if among == "mask" else Among(other) if among == "prepared" else other
        if among == "alone":
            del limits["where"]
            matching[:] = True
        matching &= chosen if among == "mask" else np.isin(held.ids, other)
    options = {
        "k": data.draw(st.sampled_from([1, 4, 100])), "cutoff": data.draw(st.sampled_from([0.0, 0.2, 0.7, None])),
        "ranking": data.draw(st.sampled_from(["distance", "relevance", "fused"])),
        "shortlist": data.draw(st.sampled_from([100, None])), "fill": data.draw(st.booleans()),
    }  # fmt: skip
    expected = limited(brute, held.ids[matching]).search(queries, **options)
    found = index.search(queries, **options, **limits)
    assert_same(found, expected)
    np.testing.assert_array_equal(found.filled, expected.filled)
    ranged = {"radius": data.draw(st.sampled_from([0.5, 0.9])), "cutoff": options["cutoff"]}
    nearby = limited(brute, held.ids[matching]).search_range(queries, **ranged)
    assert_same_range(index.search_range(queries, **ranged, **limits), nearby)
    assert index.matching(limits.get("where"), among=limits.get("among")).tolist() == held.ids[matching].tolist()


TEXTS = [
    'a"b', "a'b", "\\", "\\n", "\n", "\t", "\r", "\x01", "\x0b\x0c", "\x1f", "\x7f", "\x85", "\u2028", "\ufeff", " a ",
    "\N{GRINNING FACE}", "{x}", "{", "%", "_", "%s", "or 1 == 1", '" or id >= 0 or "', "$meta", "a" * 1000, "a" * 999,
    "\N{GRINNING FACE}" * 1000, "e\u0301", "\u00e9", "A", "a", "null", "true", "1",
]  # fmt: skip


def _with(batch: Encodings, attributes: dict[str, list], first: int = 0) -> Encodings:
    """Return as many records as there are values, with these attributes."""
    rows = np.arange(len(next(iter(attributes.values()))))
    of = rows % len(batch)
    return Encodings(
        probabilities=batch.probabilities[of], codes=batch.codes[of], features=batch.features[of], ids=first + rows,
        attributes=attributes,
    )  # fmt: skip


@unless_core("reads escapes in texts otherwise")
def test_categories_may_have_any_text(make):
    index = make(CONFIG)
    batch = classified(np.random.default_rng(0), CONFIG, 8)
    index.add(_with(batch, {"camera": TEXTS, "tags": [[text] for text in TEXTS]}))
    found = index.get(np.arange(len(TEXTS))).attributes
    assert found["camera"] == TEXTS
    assert found["tags"] == [(text,) for text in TEXTS]
    for number, text in enumerate(TEXTS):
        assert index.matching(attribute("camera") == text).tolist() == [number]
        assert index.matching(attribute("tags").contains(text)).tolist() == [number]
    others = [number for number in range(len(TEXTS)) if number not in (0, 3)]
    assert index.matching(~attribute("camera").isin([TEXTS[0], TEXTS[3]])).tolist() == others
    for impossible in ("", "\0", "\ud800", "a" * 1001):
        assert index.matching(attribute("tags").contains(impossible)).tolist() == []
        assert index.matching(attribute("tags").contains_any(["a", impossible])).tolist() == [TEXTS.index("a")]
        assert len(index.matching(~attribute("tags").contains_all(["a", impossible]))) == len(TEXTS)


@unless_core("has filters without `not`")
def test_numbers_at_their_limits(make):
    index = make(CONFIG)
    batch = classified(np.random.default_rng(0), CONFIG, 8)
    stars = [2**63 - 1, 2**63 - 2, -(2**63 - 1), 2**53 + 1, 2**53, None, 0, -1]
    largest = -MISSING_FLOAT
    price = [largest, float(np.nextafter(-largest, 0)), 5e-324, -5e-324, 0.1, None, 1e22, 0.1 + 2**-56]
    taken = [datetime.min, datetime.max, None, *[datetime(1970, 1, 1)] * 5]
    sold = [True, False, None, *[True] * 5]
    index.add(_with(batch, {"stars": stars, "price": price, "taken": taken, "sold": sold}))
    reference = filled(BruteForceIndex(CONFIG), [index.get(np.arange(8))])
    for name, values in (("stars", stars), ("price", price), ("taken", taken[:4]), ("sold", sold[:2])):
        for value in [value for value in values if value is not None]:
            wanted = [attribute(name) == value, attribute(name) != value, attribute(name).isin([value])]
            if name != "sold":
                wanted += [attribute(name) < value, attribute(name) <= value, ~(attribute(name) > value)]
            for where in wanted:
                assert index.matching(where).tolist() == reference.matching(where).tolist(), str(where)
    for where in (
        attribute("price") >= MISSING_FLOAT,
        attribute("price") == MISSING_FLOAT,
        attribute("stars") < -1e300,
    ):
        assert index.matching(where).tolist() == reference.matching(where).tolist(), str(where)


def test_the_float_that_marks_missing_values_is_refused(make):
    index = make(CONFIG)
    batch = classified(np.random.default_rng(0), CONFIG, 8)
    index.add(batch)
    with pytest.raises(
        InvalidEncodingsError, match=r"price of row 1 is -1.79.*on Milvus the smallest of all marks miss"
    ):
        index.upsert(_with(batch, {"price": [1, MISSING_FLOAT, 2]}))
    assert_same_records(index.get(batch.ids), stored_values(CONFIG, batch))


def test_an_upsert_replaces_attributes_and_the_next_search_sees_it(make):
    index, reference = make(CONFIG), BruteForceIndex(CONFIG)
    rng = np.random.default_rng(0)
    batch = classified(rng, CONFIG, 60)
    again = _with(batch, {"camera": ["a"] * 30, "tags": [["new", "sea"]] * 30}, first=10)
    for change in (lambda one: one.add(batch), lambda one: one.upsert(again), lambda one: one.remove([10, 11])):
        for one in (index, reference):
            change(one)
        assert_same_records(index.get(reference.ids()), reference.get(reference.ids()))
        for where in ('camera == "a"', 'array_contains(tags, "new")', "price is null"):
            assert_same(
                index.search(batch, where=where, shortlist=None), reference.search(batch, where=where, shortlist=None)
            )


def _nested(depth: int) -> Expression:
    """Return a filter that alternates between `and` and `or`, which cannot be joined flatly."""
    found = attribute("stars") > 1
    for level in range(depth):
        found = Joined("and" if level % 2 else "or", (found, attribute("price") < level))
    return found


@unless_core("has filters without `not`")
def test_filters_of_any_form_that_is_allowed(make):
    index = make(CONFIG)
    batch = classified(np.random.default_rng(0), CONFIG, 40)
    index.add(batch)
    reference = filled(BruteForceIndex(CONFIG), [batch])
    many = attribute("stars") == 0
    for number in range(1, 600):
        many = many | (attribute("stars") == number)
    turned = attribute("stars") > 1
    for _ in range(150):
        turned = ~turned
    for where in (many, ~many, turned, ~turned, _nested(20), attribute("stars").isin(range(10_000))):
        assert index.matching(where).tolist() == reference.matching(where).tolist()
        arguments = {"where": where, "shortlist": None, "k": 7}
        assert_same(index.search(batch[:3], **arguments), reference.search(batch[:3], **arguments))
    with pytest.raises(InvalidParameterError, match="where has filters nested 62 deep, expected at most 30 on Milvus"):
        index.search(batch, where=_nested(60))


def test_a_hundred_thousand_ids(make):
    index = make(CONFIG)
    batch = classified(np.random.default_rng(0), CONFIG, 300)
    index.add(batch)
    ids = np.concatenate([np.arange(0, 300, 2), np.random.default_rng(1).integers(1000, 2**62, 100_000)])
    expected = filled(BruteForceIndex(CONFIG), [batch[::2]])
    assert index.matching(among=ids).tolist() == list(range(0, 300, 2))
    found = index.search(batch[:9], among=Among(ids), shortlist=None)
    assert_same(found, expected.search(batch[:9], shortlist=None))


def test_more_attributes_than_fields_are_refused(backend):
    types = {f"a{number}": "int" for number in range(56)}
    config = IndexConfig(classes=3, bits=32, dim=2, attributes=types)
    with pytest.raises(InvalidParameterError, match="there are 56 attributes, but at most 55 fit on Milvus"):
        MilvusIndex.create(backend.uri, config, collection=backend.unused())
    del types["a0"]
    name = backend.unused()
    config = config.model_copy(update={"attributes": types})
    with MilvusIndex.create(backend.uri, config, collection=name) as index:
        batch = classified(np.random.default_rng(0), config, 5)
        index.add(batch)
        assert_same_records(index.get(batch.ids), stored_values(config, batch))
        assert index.matching("a55 >= -5 or a55 is null").tolist() == batch.ids.tolist()
    MilvusIndex.drop(backend.uri, collection=name)
