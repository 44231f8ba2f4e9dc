"""A search that is limited by `where` or `among` answers as if the index had only the records that match."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import Among, BruteForceIndex, Encodings, FaissIndex, IndexConfig, attribute
from tests.indexes.attributes.filters import filters
from tests.indexes.generate import ATTRIBUTES, PROPERTY, assert_same, assert_same_range, classified, encodings, filled

CONFIG = IndexConfig(classes=6, bits=40, dim=5, attributes=ATTRIBUTES)


def records_of(batch: Encodings) -> list[dict]:
    """Return the attributes of each record."""
    names = list(batch.attributes)
    return [dict(zip(names, values, strict=True)) for values in zip(*batch.attributes.values(), strict=True)]


def limited(index: BruteForceIndex, wanted: np.ndarray) -> BruteForceIndex:
    """Return an index that has only these records of another."""
    return filled(BruteForceIndex(index.config), [index.get(wanted)])


@PROPERTY
@given(
    data=st.data(), seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 90), k=st.sampled_from([1, 4, 100]),
    cutoff=st.sampled_from([0.0, 0.2, 0.7, None]), ranking=st.sampled_from(["distance", "relevance", "fused"]),
    shortlist=st.sampled_from([100, None]), fill=st.booleans(), others=st.booleans(),
    diversity=st.sampled_from([0, 0, 0.5]),
)  # fmt: skip
def test_a_filtered_search_is_that_of_an_index_of_the_matching_records(
    data, seed, rows, k, cutoff, ranking, shortlist, fill, others, diversity
):
    rng = np.random.default_rng(seed)
    batch, queries = encodings(rng, CONFIG, rows, normalised=True), encodings(rng, CONFIG, 3, normalised=True)
    own = np.concatenate([batch.ids, queries.ids])[rng.permutation(rows + 3)[:3]]  # some are those of records
    queries = Encodings(
        probabilities=queries.probabilities, codes=queries.codes, features=queries.features, ids=own, any_mass=True
    )
    brute = filled(BruteForceIndex(CONFIG), [batch])
    indexes = [filled(FaissIndex.create(None, CONFIG, engine=engine), [batch[: rows // 2], batch[rows // 2 :]])
               for engine in ("faiss", "compiled")]  # fmt: skip
    gone = batch.ids[rng.random(rows) < 0.2]
    for index in (brute, *indexes):
        index.remove(gone)
    held = brute.get(brute.ids())
    where, meaning = data.draw(filters())
    among = data.draw(st.sampled_from(["none", "ids", "prepared", "mask", "other ids"]))
    wanted = np.array([meaning(record) for record in records_of(held)], bool)
    limits: dict = {"where": data.draw(st.sampled_from([where, str(where)]))}
    if among != "none":
        chosen = rng.random(len(held)) < 0.5
        ids = rng.permutation(held.ids[chosen])
        wanted &= chosen
        other = [*ids, 2**62 + 1, 77]
        limits["among"] = {"ids": ids, "prepared": Among(ids), "mask": chosen, "other ids": other}[among]
        if among == "other ids":
            wanted |= np.isin(held.ids, other) & np.array([meaning(record) for record in records_of(held)], bool)
    options = {"k": k, "cutoff": cutoff, "ranking": ranking, "shortlist": shortlist, "fill": fill}
    options |= {"exclude_self": others, "diversity": diversity}
    expected = limited(brute, held.ids[wanted]).search(queries, **options)
    for index in (brute, *indexes):
        for _ in range(2):  # the second search finds the filter prepared
            found = index.search(queries, **options, **limits)
            assert_same(found, expected)
            np.testing.assert_array_equal(found.filled, expected.filled)
        for by, radius in (("distance", 0.8), ("hamming", 12)):
            ranged = {"radius": radius, "by": by, "cutoff": cutoff}
            assert_same_range(
                index.search_range(queries, **ranged, **limits),
                limited(brute, held.ids[wanted]).search_range(queries, **ranged),
            )
        assert index.matching(limits["where"], among=limits.get("among")).tolist() == held.ids[wanted].tolist()


def test_a_change_is_seen_by_the_next_search_with_the_same_filter():
    rng = np.random.default_rng(0)
    index = FaissIndex.create(None, CONFIG)
    first, more = classified(rng, CONFIG, 200), classified(rng, CONFIG, 200, first_id=200)
    index.add(first)
    for change in (lambda: None, lambda: index.add(more), lambda: index.remove(np.arange(0, 400, 3)), index.compact):
        change()
        brute = filled(BruteForceIndex(CONFIG), [index.get(index.ids())])
        for where in ("stars >= 2", 'camera == "a"'):
            assert_same(index.search(first, where=where), brute.search(first, where=where))


def test_attributes_are_stored_and_given_back(tmp_path):
    rng = np.random.default_rng(0)
    batch = classified(rng, CONFIG, 300)
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(batch)
        index.remove(np.arange(0, 300, 2))
        before = index.get(index.ids()).attributes
        size = index.snapshot.columns.extents["vocabulary"].rows
        index.upsert(Encodings(
            probabilities=batch.probabilities[:1], codes=batch.codes[:1], features=batch.features[:1], ids=[500],
            attributes={"camera": ["only here"], "tags": [{"only", "here"}], "price": np.array([3], np.int64)},
        ))  # fmt: skip
        index.remove([500])
        assert index.snapshot.columns.extents["vocabulary"].rows > size
        index.compact()
        assert index.snapshot.columns.extents["vocabulary"].rows <= size
    with FaissIndex.open(tmp_path / "index") as index:
        assert index.get(index.ids()).attributes == before
        assert index.verify() == []
        assert set(index.get(index.ids()).attributes) == set(ATTRIBUTES)


@pytest.mark.parametrize("where", ["price < {}", "price != {}", "price in [1.5, {}]", "stars <= {}", "stars > -{}"])
@pytest.mark.parametrize("zeros", [300, 400, 5000], ids=str)
def test_a_number_may_be_larger_than_every_value(where, zeros):
    chosen = where.format("0001" + "0" * zeros)
    index = FaissIndex.create(None, CONFIG)
    index.add(batch := classified(np.random.default_rng(0), CONFIG, 60))
    known = index.get(batch.ids).attributes
    if "in" in where:
        expected = [value == 1.5 for value in known["price"]]
    else:
        expected = [value is not None for value in known[where.split()[0]]]
    assert index.matching(chosen).tolist() == batch.ids[expected].tolist()


def test_a_filter_compares_with_an_integer_larger_than_every_float():
    index = FaissIndex.create(None, CONFIG)
    index.add(batch := classified(np.random.default_rng(0), CONFIG, 60))
    price = index.get(batch.ids).attributes["price"]
    known = batch.ids[[value is not None for value in price]].tolist()
    for number in (10**400, -(10**400)):
        assert index.matching(attribute("price") == number).tolist() == []
        assert index.matching(attribute("price") != number).tolist() == known
        assert index.matching(attribute("price") < number).tolist() == (known if number > 0 else [])
