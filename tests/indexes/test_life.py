"""The life of a record: added, replaced, removed, compacted away. Every index behaves like a dictionary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcut.indexes import (
    BruteForceIndex,
    ClosedIndexError,
    DuplicateIdError,
    Encodings,
    FaissIndex,
    InvalidParameterError,
    SemanticIndex,
    UnknownIdError,
)
from semcut.indexes.stored_values import stored_values
from tests.indexes.generate import PROPERTY, World, assert_same, assert_same_records, configs, encodings
from tests.thorough import examples


def rows_of(batch: Encodings, ids: list[int]) -> Encodings:
    """Return the records of a batch with these ids."""
    return batch[[batch.ids.tolist().index(number) for number in ids]]


def renamed(batch: Encodings, ids: list[int]) -> Encodings:
    """Return the same records with other ids."""
    return Encodings(
        probabilities=batch.probabilities,
        codes=batch.codes,
        features=batch.features,
        ids=ids,
        uris=batch.uris,
        any_mass=True,
    )


# one step at a time, on every kind of index


def test_a_removed_record_is_gone(make, config, batch):
    index = make(config)
    index.add(batch)
    index.remove([20, 60])
    left = batch[[0, 2, 3, 4]]
    assert len(index) == 4
    assert index.ids().tolist() == [10, 30, 40, 50]
    assert index.contains([10, 20, 60, 7, -1]).tolist() == [True, False, False, False, False]
    assert_same_records(index.get([50, 10, 30, 40]), left[[3, 0, 1, 2]])
    with pytest.raises(UnknownIdError, match="id 20 is not in the index"):
        index.get([10, 20])
    found = index.search(batch, k=6, cutoff=0.0)
    assert set(found.ids.ravel().tolist()) == {-1, 10, 30, 40, 50}
    assert_same(found, filled(make(config), left).search(batch, k=6, cutoff=0.0))


def filled(index: SemanticIndex, batch: Encodings) -> SemanticIndex:
    index.add(batch)
    return index


def test_an_id_that_was_removed_can_be_added_again(make, config, batch):
    index = filled(make(config), batch)
    index.remove([10])
    index.add(renamed(batch[5:], [10]))
    assert_same_records(index.get([10]), renamed(batch[5:], [10]))
    assert index.ids().tolist() == [10, 20, 30, 40, 50, 60]


def test_an_upsert_replaces_what_is_there_and_adds_the_rest(make, config, batch):
    index = filled(make(config), batch[:3])
    fresh = renamed(batch[3:], [20, 70, 10])
    index.upsert(fresh)
    assert len(index) == 4
    assert index.ids().tolist() == [10, 20, 30, 70]
    assert_same_records(index.get([20, 70, 10]), fresh)
    expected = filled(make(config), Encodings.concatenate([batch[2:3], fresh]))
    assert_same(index.search(batch, k=6, cutoff=0.0), expected.search(batch, k=6, cutoff=0.0))


def test_everything_can_be_removed(make, config, batch):
    index = filled(make(config), batch)
    index.remove(batch.ids)
    assert len(index) == 0
    assert index.next_id() == 0
    assert (index.search(batch, k=2, cutoff=0.0).ids == -1).all()
    assert list(index.iterate()) == []
    index.add(batch)
    assert_same_records(index.get(batch.ids), batch)


def test_removing_nothing_and_upserting_nothing_changes_nothing(make, config, batch):
    index = filled(make(config), batch)
    index.remove([])
    index.remove(np.empty(0))
    index.upsert(batch[:0])
    assert len(index) == 6


def test_an_id_given_twice_is_removed_once(make, config, batch):
    index = filled(make(config), batch)
    index.remove([10, 20, 10])
    assert len(index) == 4


def test_a_removal_or_upsert_that_is_refused_changes_nothing(make, config, batch):
    index = filled(make(config), batch[:4])
    with pytest.raises(UnknownIdError, match="id 5 is not in the index"):
        index.remove([10, 5])
    with pytest.raises(UnknownIdError, match="id -1 is"):
        index.remove([-1])
    with pytest.raises(InvalidParameterError, match="float64"):
        index.remove([10.5])
    with pytest.raises(DuplicateIdError, match="id 10 is more than once in the batch"):
        index.upsert(renamed(batch[4:], [10, 10]))
    assert_same_records(index.get(batch.ids[:4]), batch[:4])
    assert len(index) == 4


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6, 7, 10_000])
def test_iterating_gives_every_record_once_in_order_of_ids(make, config, batch, size):
    index = make(config)
    index.add(batch[[5, 3, 1]])
    index.add(batch[[0, 4, 2]])
    parts = list(index.iterate(size))
    assert [len(part) for part in parts[:-1]] == [size] * (len(parts) - 1)
    for part in parts:
        assert_same_records(part, rows_of(batch, part.ids.tolist()))
    assert [number for part in parts for number in part.ids.tolist()] == batch.ids.tolist()


def test_iterating_goes_on_over_the_records_as_they_were(make, config, batch):
    index = filled(make(config), batch)
    parts = index.iterate(2)
    first = next(parts)
    index.remove([10, 60])
    index.upsert(renamed(batch[:1], [30]))
    if isinstance(index, FaissIndex):
        index.compact()
    assert_same_records(Encodings.concatenate([first, *parts]), batch)


@pytest.mark.parametrize("size", [0, -1, 1.5, "10", True])
def test_a_batch_size_that_is_none_is_refused_at_once(make, config, size):
    with pytest.raises(InvalidParameterError, match="batch_size"):
        make(config).iterate(size)


@pytest.mark.parametrize(
    "action",
    [
        lambda index, batch: index.upsert(batch),
        lambda index, batch: index.remove([10]),
        lambda index, batch: index.remove([]),
        lambda index, batch: index.contains([10]),
        lambda index, batch: index.iterate(),
        lambda index, batch: index.ids(),
        lambda index, batch: index.next_id(),
    ],
)
def test_a_closed_index_refuses_all_of_this(make, config, batch, action):
    index = filled(make(config), batch)
    index.close()
    with pytest.raises(ClosedIndexError):
        action(index, batch)


@pytest.mark.parametrize(
    "action",
    [
        lambda index, path: index.compact(),
        lambda index, path: index.verify(),
        lambda index, path: index.backup(path / "copy"),
        lambda index, path: index.refresh(),
        lambda index, path: index.flush(),
    ],
)
def test_a_closed_faiss_index_refuses_the_rest(tmp_path, config, action):
    index = FaissIndex.create(tmp_path / "index", config)
    index.close()
    with pytest.raises(ClosedIndexError):
        action(index, tmp_path)


def test_fused_ranking_depends_on_the_records_that_are_there(make, config, batch):
    long = Encodings(
        probabilities=batch.probabilities[:2], codes=batch.codes[:2], features=3 * batch.features[:2], ids=[1, 2]
    )
    index = filled(make(config), batch)
    index.add(long)
    assert not index.stats().normalised
    index.remove([1, 10])
    assert not index.stats().normalised
    index.upsert(renamed(batch[1:2], [2]))
    assert index.stats().normalised
    index.search(batch, k=1, ranking="fused")
    index.upsert(long)
    index.remove(batch.ids[1:])
    assert not index.stats().normalised
    index.remove([2, 1])
    assert index.stats().normalised


# compaction


@pytest.mark.parametrize("stored", [True, False])
def test_compaction_gives_back_space_and_changes_no_answer(tmp_path, config, batch, stored):
    with FaissIndex.create(tmp_path / "index" if stored else None, config) as index:
        index.add(batch)
        index.remove([20, 40])
        index.upsert(batch[4:5])
        before = index.search(batch, k=6, cutoff=0.1)
        reports = []
        index.compact(lambda done, total: reports.append((done, total)))
        assert reports[-1] == (4, 4)
        assert_same(index.search(batch, k=6, cutoff=0.1), before)
        assert index.ids().tolist() == [10, 30, 50, 60]
        assert_same_records(index.get([10, 30, 50, 60]), batch[[0, 2, 4, 5]])
        with FaissIndex.create(None, config) as fresh:
            fresh.add(batch[[0, 2, 5, 4]])
            assert index.stats() == fresh.stats()
        index.add(batch[[1, 3]])
        assert_same_records(index.get(batch.ids), batch)
        assert index.verify() == []
    if stored:
        assert sorted(file.name for file in (tmp_path / "index").iterdir()) == [
            "catalogue.sqlite", "generation-1", "lock",
        ]  # fmt: skip
        with FaissIndex.open(tmp_path / "index") as index:
            assert_same_records(index.get(batch.ids), batch)


def test_compaction_tightens_the_cells(config):
    rng = np.random.default_rng(0)
    p = np.array([[0.7, 0.16, 0.14], [0.6, 0.3, 0.1]], np.float32)
    made = Encodings(
        probabilities=p, codes=rng.integers(0, 256, (2, 4), np.uint8), features=np.eye(4)[:2], ids=np.arange(2)
    )
    query = Encodings(probabilities=[[0, 0, 1.0]], codes=made.codes[:1], features=made.features[:1])
    with FaissIndex.create(None, config) as index:
        index.add(made)
        index.remove([0])
        loose = index.search(query, k=1, cutoff=0.12)
        index.compact()
        tight = index.search(query, k=1, cutoff=0.12)
    assert (loose.codes[0], tight.codes[0]) == (1, 0)
    assert_same(loose, tight)


def test_an_empty_index_can_be_compacted_and_backed_up(tmp_path, config, batch):
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.compact()
        index.add(batch)
        index.remove(batch.ids)
        index.compact()
        assert len(index) == 0
        index.backup(tmp_path / "copy")
    with FaissIndex.open(tmp_path / "copy") as copy:
        assert len(copy) == 0
        copy.add(batch)


# any sequence of changes


@st.composite
def stories(draw: st.DrawFn) -> tuple[World, list[tuple[str, int]]]:
    """Draw a world, whose batches supply the records, and a list of changes, each with a seed of its own."""
    config, seed = draw(configs()), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    normalised = config.stored_features != "float32" or draw(st.booleans())
    any_mass = draw(st.booleans())
    records = encodings(rng, config, draw(st.integers(1, 60)), normalised=normalised, any_mass=any_mass)
    world = World(
        config=config,
        batches=[stored_values(config, records)],
        queries=encodings(rng, config, 5, normalised=normalised, records=False),
        normalised=normalised,
        seed=seed,
    )
    steps = st.sampled_from(["add", "add", "upsert", "remove", "remove", "compact", "reopen", "backup", "refresh"])
    return world, draw(st.lists(st.tuples(steps, st.integers(0, 2**32 - 1)), min_size=2, max_size=12))


@settings(PROPERTY, max_examples=examples(80))
@given(story=stories(), durability=st.sampled_from(["batch", "close"]))
def test_after_any_changes_an_index_holds_and_finds_what_brute_force_does(tmp_path_factory, story, durability):
    world, steps = story
    path, material = tmp_path_factory.mktemp("life"), world.records
    reference = BruteForceIndex(world.config)
    memory = FaissIndex.create(None, world.config)
    stored = FaissIndex.create(path / "index", world.config, durability=durability)
    reader = FaissIndex.open(path / "index")
    for number, (step, seed) in enumerate(steps):
        rng = np.random.default_rng(seed)
        known = reference.contains(material.ids)
        some = rng.random(len(material)) < rng.choice([0.1, 0.5, 1])
        added = material[np.flatnonzero(~known & some)]
        replacing = renamed(material[rng.permutation(np.flatnonzero(some))], material.ids[some])
        removed = material.ids[known & some]
        for index in (reference, memory, stored):
            if step == "add":
                index.add(added)
            elif step == "upsert":
                index.upsert(replacing)
            elif step == "remove":
                index.remove(removed)
            elif step == "compact" and isinstance(index, FaissIndex):
                index.compact()
        if step == "reopen":
            stored.close()
            stored = FaissIndex.open(path / "index", durability=durability)
        elif step == "backup":
            memory.backup(path / f"copy {number}")
            memory.close()
            memory = FaissIndex.open(path / f"copy {number}")
        elif step == "refresh":
            stored.flush()
            reader.refresh()
            compare(reader, reference, world, seed)
        compare(memory, reference, world, seed)
        compare(stored, reference, world, seed)
    stored.flush()
    reader.refresh()
    compare(reader, reference, world, 0)
    assert stored.verify() == reader.verify() == []
    stored.close()
    with FaissIndex.open(path / "index") as again:
        compare(again, reference, world, 1)
    memory.close()
    reader.close()


def compare(index: FaissIndex, reference: BruteForceIndex, world: World, seed: int) -> None:
    """Assert that an index has the records of the reference, and gives the same answers."""
    ids = reference.ids()
    assert index.ids().tolist() == ids.tolist()
    assert len(index) == len(ids) == index.stats().records
    assert index.stats().partitions == reference.stats().partitions
    assert index.stats().normalised == reference.stats().normalised
    assert index.next_id() == reference.next_id()
    assert index.contains(world.records.ids).tolist() == reference.contains(world.records.ids).tolist()
    assert_same_records(index.get(ids), reference.get(ids))
    assert index.uris(ids) == reference.uris(ids)
    both = zip(index.iterate(7), reference.iterate(7), strict=True)
    for found, expected in both:
        assert_same_records(found, expected)
    options = {"k": 10, "cutoff": world.cutoffs()[seed % 5], "shortlist": None}
    assert_same(index.search(world.queries, **options), reference.search(world.queries, **options))
    if len(ids) <= 30:
        options["shortlist"] = 30
        assert_same(index.search(world.queries, **options), reference.search(world.queries, **options))
