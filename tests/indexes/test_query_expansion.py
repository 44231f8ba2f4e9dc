"""Queries that are averaged with their first results, against a loop over all values."""

from __future__ import annotations

import numpy as np
import pytest

from semcut.indexes import (
    BruteForceIndex,
    Encodings,
    FaissIndex,
    IndexConfig,
    InvalidEncodingsError,
    InvalidParameterError,
    averaged_records,
    database_averages,
    expanded_queries,
    query_expansion,
)
from tests.indexes.generate import ATTRIBUTES, classified

CONFIG = IndexConfig(classes=5, bits=32, dim=8, stored_features="float32", stored_probabilities=0)


def slow(queries: Encodings, records: Encodings, rows: list[list[int]], power: float) -> list[list[np.ndarray]]:
    """Return feature, probabilities and bits of each query, value by value."""
    expanded = []
    for query, near in enumerate(rows):
        parts = [(queries.features[query], queries.probabilities[query], np.unpackbits(queries.codes[query]), 1.0)]
        for row in near:
            cosine = sum(float(a) * float(b) for a, b in zip(records.features[row], parts[0][0], strict=True))
            weight = cosine**power if cosine > 0 else 0.0
            parts.append((records.features[row], records.probabilities[row], np.unpackbits(records.codes[row]), weight))
        feature = sum(weight * one.astype(float) for one, _, _, weight in parts)
        shares = sum(weight * one.astype(float) for _, one, _, weight in parts) / sum(part[3] for part in parts)
        votes = sum(weight * (2.0 * one - 1) for _, _, one, weight in parts)
        bits = np.where(np.abs(votes) < 1e-9, parts[0][2], votes > 0)
        expanded.append([feature / np.linalg.norm(feature), shares, bits])
    return expanded


@pytest.mark.parametrize("power", [0, 1, 3.0, 10])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_the_values_are_weighted_means(power: float, k: int) -> None:
    rng = np.random.default_rng(k)
    records, queries = classified(rng, CONFIG, 60), classified(rng, CONFIG, 9)
    with FaissIndex.create(None, CONFIG) as index, BruteForceIndex(CONFIG) as reference:
        index.add(records)
        reference.add(records)
        found = reference.search(queries, k=k, cutoff=None, shortlist=None)
        stored = index.get(index.ids())
        rows = [np.searchsorted(index.ids(), ids).tolist() for ids in found.ids]
        for one in (index, reference):
            got = expanded_queries(one, queries, found, power=power)
            for query, (feature, shares, bits) in enumerate(slow(queries, stored, rows, power)):
                np.testing.assert_allclose(got.features[query], feature, rtol=1e-4, atol=1e-6)
                np.testing.assert_allclose(got.probabilities[query], shares, rtol=1e-4, atol=1e-6)
                np.testing.assert_array_equal(np.unpackbits(got.codes[query]), bits)
            assert got.normalised()
            np.testing.assert_array_equal(got.ids, queries.ids)
            assert len(index.search(got, k=3, ranking="fused")) == 9


def test_a_query_without_results_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    records, queries = classified(rng, CONFIG, 20), classified(rng, CONFIG, 4)
    with FaissIndex.create(None, CONFIG) as index:
        index.add(records)
        none = index.search(queries, k=3, cutoff=0.999, fill=False)
        assert (none.ids < 0).all()
        got = expanded_queries(index, queries, none)
        for name in ("features", "probabilities", "codes"):
            np.testing.assert_array_equal(getattr(got, name), getattr(queries, name))


def test_results_that_point_away_do_not_count() -> None:
    config = IndexConfig(classes=2, bits=32, dim=2, stored_features="float32")
    one = Encodings(probabilities=[[1.0, 0.0]], codes=np.zeros((1, 4), np.uint8), features=[[1.0, 0.0]], ids=[0])
    away = Encodings(probabilities=[[1.0, 0.0]], codes=np.full((1, 4), 255, np.uint8), features=[[-1.0, 0.0]], ids=[1])
    with FaissIndex.create(None, config) as index:
        index.add(away)
        got = expanded_queries(index, one, index.search(one, k=1), power=0)
        np.testing.assert_array_equal(got.features, one.features)
        np.testing.assert_array_equal(got.codes, one.codes)


def test_wrong_arguments_are_one_sentence() -> None:
    rng = np.random.default_rng(0)
    records = classified(rng, CONFIG, 20)
    with FaissIndex.create(None, CONFIG) as index:
        index.add(records)
        found = index.search(records, k=2)
        with pytest.raises(InvalidParameterError, match="found has 20 queries, expected 3"):
            expanded_queries(index, records[:3], found)
        with pytest.raises(InvalidParameterError, match="power = -1, expected a number from 0 to 100"):
            expanded_queries(index, records, found, power=-1)
        long = Encodings(probabilities=records.probabilities, codes=records.codes, features=2 * records.features)
        with pytest.raises(InvalidParameterError, match="expected features of length 1"):
            expanded_queries(index, long, found)
        other = IndexConfig(classes=5, bits=32, dim=4)
        with pytest.raises(InvalidEncodingsError, match="4 feature values but the index has 8"):
            expanded_queries(index, classified(rng, other, 20), found)


@pytest.mark.parametrize("part", [1, 7, 1000])
@pytest.mark.parametrize(("neighbours", "power"), [(1, 3.0), (3, 0.0), (500, 1.0)])
def test_records_are_averaged_with_the_nearest_others(
    part: int, neighbours: int, power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_averages, "_PART", part)
    monkeypatch.setattr(query_expansion, "_VALUES", 100)
    rng = np.random.default_rng(neighbours)
    config = IndexConfig(**{**CONFIG.model_dump(), "attributes": ATTRIBUTES})
    with FaissIndex.create(None, config) as index, FaissIndex.create(None, config) as copy:
        index.add(classified(rng, config, 40))
        index.remove(index.ids()[::9])
        stored = index.get(index.ids())
        apart = np.linalg.norm(stored.features[:, None].astype(float) - stored.features[None], axis=2)
        np.fill_diagonal(apart, np.inf)
        rows = [np.argsort(row, kind="stable")[: min(neighbours, len(stored) - 1)].tolist() for row in apart]
        calls: list[tuple[int, int]] = []
        for one in averaged_records(
            index, neighbours, power=power, shortlist=None, progress=lambda *call: calls.append(call[:2])
        ):
            copy.add(one)
        assert calls[-1] == (len(stored), len(stored))
        found = copy.get(index.ids())
        for place, (feature, shares, bits) in enumerate(slow(stored, stored, rows, power)):
            np.testing.assert_allclose(found.features[place], feature, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(found.probabilities[place], shares, rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(np.unpackbits(found.codes[place]), bits)
        assert found.attributes == stored.attributes
        assert found.uris == stored.uris


def test_a_record_alone_stays_as_it_is() -> None:
    with FaissIndex.create(None, CONFIG) as index:
        assert list(averaged_records(index)) == []
        index.add(classified(np.random.default_rng(0), CONFIG, 1))
        (only,) = averaged_records(index, 3)
        np.testing.assert_allclose(only.features, index.get(index.ids()).features, rtol=1e-6)
