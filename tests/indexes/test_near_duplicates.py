"""Near-duplicates are what brute force finds among neighbours, by the kernel and by numpy, for every kind of index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import (
    BruteForceIndex,
    ClosedIndexError,
    Encodings,
    FaissIndex,
    IndexConfig,
    InvalidParameterError,
    NearDuplicates,
    near_duplicates,
)
from semcut.indexes.duplicate_groups import join
from semcut.indexes.scanners.engine_names import ENGINE_VARIABLE, available_engines
from semcut.indexes.scoring.equations import distance, hamming
from semcut.indexes.search import record_pairs
from tests.indexes.generate import PROPERTY, World, classified, encodings, filled, threads, worlds

CONFIG = IndexConfig(classes=6, bits=64, dim=16)


def are_neighbours(p: np.ndarray, q: np.ndarray) -> bool:
    """Apply the definition to the probabilities of two records."""
    one, other = (sorted(range(len(row)), key=lambda c: (-row[c], c))[:2] for row in (p, q))
    unsure = p[one[0]] < np.float32(0.8) and q[other[0]] < np.float32(0.8)
    shared = {c for c in one if p[c] > 0 or c == one[0]} & {c for c in other if q[c] > 0 or c == other[0]}
    return one[0] == other[0] or (unsure and bool(shared))


def expected_groups(records: Encodings, bits: int, reach: float, everywhere: bool) -> list[list[int]]:
    """Connect pairs of records one after the other."""
    group = {number: {number} for number in records.ids.tolist()}
    apart = distance(records.features[:, None], records.features[None]) <= np.float32(reach)
    apart &= hamming(records.codes[:, None], records.codes[None]) <= bits
    for a, b in np.argwhere(np.triu(apart, 1)).tolist():
        if everywhere or are_neighbours(records.probabilities[a], records.probabilities[b]):
            one, other = group[int(records.ids[a])], group[int(records.ids[b])]
            if one is not other:
                one |= other
                for number in other:
                    group[number] = one
    found = {min(members): sorted(members) for members in group.values() if len(members) > 1}
    return sorted(found.values(), key=lambda members: (-len(members), members[0]))


def lists(groups: NearDuplicates) -> list[list[int]]:
    return [ids.tolist() for ids in groups]


def with_near_copies(world: World) -> World:
    """Add records that are nearly those of the world: classes, codes and features hardly differ."""
    rng = np.random.default_rng(world.seed)
    records = world.records
    copied = records[rng.integers(0, len(records), 1 + len(records) // 2)]
    noise = rng.standard_normal(copied.features.shape) * np.abs(copied.features).max() * rng.choice([0, 1e-3, 0.1])
    features = (copied.features + noise).astype(np.float32)
    if world.normalised:
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-3)
    mixed = copied.probabilities * 0.95 + np.roll(copied.probabilities, 1, axis=0) * 0.05
    fresh = np.setdiff1d(np.arange(3 * len(records) + 9), records.ids)[: len(copied)]
    flipped = np.packbits(rng.random((len(copied), world.config.bits)) < 0.02, axis=1)
    more = Encodings(
        probabilities=np.minimum(mixed, 1), codes=copied.codes ^ flipped, features=features, ids=fresh, any_mass=True
    )
    return World(world.config, [*world.batches, more], world.queries, world.normalised, world.seed)


@pytest.mark.parametrize("engine", available_engines())
@PROPERTY
@given(world=worlds(rows=(1, 70)), part=st.sampled_from([1, 7, 1000]), everywhere=st.booleans())
def test_groups_are_those_of_brute_force(engine, world, part, everywhere):
    rng = np.random.default_rng(world.seed)
    world = with_near_copies(world)
    with pytest.MonkeyPatch.context() as patch, threads(1), FaissIndex.create(None, world.config) as index:
        patch.setenv(ENGINE_VARIABLE, engine)
        for name in ("_PART", "_SMALL_PART", "_CANDIDATES", "_CHUNK"):
            patch.setattr(record_pairs, name, part)
        filled(index, world.batches)
        removed = world.records.ids[:: int(rng.integers(3, 9))]
        index.remove(removed)
        records = index.get(index.ids())
        apart = distance(records.features[:, None], records.features[None])
        for reach in (0.0, float(rng.choice(apart.ravel())), float(np.median(apart) / 3)):
            bits = int(rng.choice([0, 4, world.config.bits // 3, world.config.bits]))
            found = near_duplicates(index, max_hamming=bits, max_distance=reach, everywhere=everywhere)
            assert lists(found) == expected_groups(records, bits, reach, everywhere)
            assert (found.records, found.max_hamming, found.everywhere) == (len(records), bits, everywhere)
            assert found.removable().tolist() == sorted(number for ids in lists(found) for number in ids[1:])


def planted(rows: int = 300, copies: int = 40) -> Encodings:
    """Draw records of which the last are near copies of the first."""
    rng = np.random.default_rng(3)
    records = classified(rng, CONFIG, rows)
    features = records.features[:copies] + 0.01 * rng.standard_normal((copies, CONFIG.dim))
    return Encodings.concatenate([
        records,
        Encodings(
            probabilities=records.probabilities[:copies], codes=records.codes[:copies],
            features=(features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32),
            ids=np.arange(rows, rows + copies),
        ),
    ])  # fmt: skip


def test_every_kind_of_index_gives_the_same_groups():
    expected = [[number, 300 + number] for number in range(40)]
    for index in (BruteForceIndex(CONFIG), FaissIndex.create(None, CONFIG)):
        with index:
            index.add(planted())
            assert lists(near_duplicates(index)) == expected
            assert near_duplicates(index)[-1].tolist() == [39, 339]


def test_many_copies_of_one_record_are_one_group():
    """Their pairs are more than fit in memory at once, and are not all compared."""
    records = planted(2000, 0)
    same = np.zeros(2000, np.int64)
    same[1500:] = np.arange(1500, 2000)
    copies = Encodings(
        probabilities=records.probabilities[same], codes=records.codes[same], features=records.features[same],
        ids=records.ids,
    )  # fmt: skip
    for engine in available_engines():
        with pytest.MonkeyPatch.context() as patch, FaissIndex.create(None, CONFIG, engine="faiss") as index:
            patch.setenv(ENGINE_VARIABLE, engine)
            patch.setattr(record_pairs, "_CANDIDATES", 2000)
            index.add(copies)
            calls: list[tuple[int, int]] = []
            found = near_duplicates(index, progress=lambda *call, calls=calls: calls.append(call))
            assert [len(ids) for ids in found] == [1500]
            assert calls[-1][0] == calls[-1][1]
            assert calls == sorted(calls)


def test_an_index_without_pairs_has_no_groups():
    with FaissIndex.create(None, CONFIG) as index:
        for count in (0, 1, 30):
            if count:
                index.upsert(classified(np.random.default_rng(0), CONFIG, count))
            found = near_duplicates(index, max_hamming=0)
            assert (len(found), found.records, found.removable().tolist()) == (0, count, [])
            with pytest.raises(InvalidParameterError, match="group = 0"):
                found[0]
    with pytest.raises(ClosedIndexError):
        near_duplicates(index)


def test_chains_are_joined():
    rng = np.random.default_rng(0)
    order = rng.permutation(500)
    labels = np.arange(500, dtype=np.int32)
    join(labels, order[:-1], order[1:])
    assert (labels == 0).all()
    labels = np.arange(500, dtype=np.int32)
    join(labels, order[:200], order[1:201])
    assert len(np.unique(labels)) == 300
    assert (labels[order[:201]] == order[:201].min()).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_hamming": 65}, "max_hamming = 65, expected an integer from 0 to 64"),
        ({"max_hamming": -1}, "max_hamming = -1"),
        ({"max_distance": float("nan")}, "max_distance = nan"),
        ({"max_distance": "near"}, "max_distance = 'near'"),
        ({"everywhere": 1}, "everywhere = 1, expected True or False"),
        ({"progress": 3}, "progress = 3, expected a function or None"),
    ],
)
def test_a_wrong_argument_is_one_error(options, message):
    with FaissIndex.create(None, CONFIG) as index, pytest.raises(InvalidParameterError, match=message):
        near_duplicates(index, **options)


def test_only_an_index_has_near_duplicates():
    with pytest.raises(InvalidParameterError, match="expected an instance of SemanticIndex"):
        near_duplicates(encodings(np.random.default_rng(0), CONFIG, 3, normalised=True))
