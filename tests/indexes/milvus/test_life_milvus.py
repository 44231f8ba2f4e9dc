"""After changes by any client of an index, the index contains and finds the same records as brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcut.indexes import BruteForceIndex, Encodings
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.stored_values import stored_values
from tests.indexes.generate import World, assert_same, assert_same_records, encodings
from tests.indexes.milvus.pool import CONFIGS, FEW_EXAMPLES, assert_holds
from tests.indexes.test_life import filled, renamed
from tests.thorough import examples

# any sequence of changes


@st.composite
def stories(draw: st.DrawFn) -> tuple[World, list[tuple[str, int]]]:
    """Draw a world, whose records the changes use, and changes, each with a seed of its own."""
    config, seed = draw(st.sampled_from(CONFIGS)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    normalised = config.stored_features != "float32" or draw(st.booleans())
    any_mass = draw(st.booleans())
    records = encodings(rng, config, draw(st.integers(1, 40)), normalised=normalised, any_mass=any_mass)
    world = World(
        config=config,
        batches=[stored_values(config, records)],
        queries=encodings(rng, config, 3, normalised=normalised, records=False),
        normalised=normalised,
        seed=seed,
    )
    steps = st.sampled_from(["add", "add", "upsert", "upsert", "remove", "remove", "reopen", "flush", "crash"])
    return world, draw(st.lists(st.tuples(steps, st.integers(0, 2**32 - 1)), min_size=2, max_size=6))


@settings(FEW_EXAMPLES, max_examples=examples(8))
@given(story=stories())
def test_after_any_changes_by_two_clients_both_read_and_find_what_brute_force_does(backend, story):
    world, steps = story
    material, reference = world.records, BruteForceIndex(world.config)
    name = backend.take(world.config)
    clients = backend.clients(name, 2)
    for step, seed in [("add", 0), *steps[: 3 if backend.is_server else 6]]:  # each takes a second on a server
        rng = np.random.default_rng(seed)
        writer = int(rng.integers(2))
        known = reference.contains(material.ids)
        some = rng.random(len(material)) < rng.choice([0.1, 0.5, 1])
        index = clients[writer]
        for one in (index, reference):
            if step == "add":
                one.add(material[np.flatnonzero(~known & some)])
            elif step == "upsert":
                chosen = np.random.default_rng(seed).permutation(np.flatnonzero(some))
                one.upsert(renamed(material[chosen], material.ids[some]))
            elif step == "remove":
                one.remove(material.ids[known & some])
        if step == "flush" and not backend.is_server:  # it takes seconds on a server
            index.flush()
        elif step == "reopen":
            index.close()
            (clients[writer],) = backend.clients(name)
        elif step == "crash":  # the client does not leave
            (clients[writer],) = backend.clients(name)
            index._server.close()
            index._pool.shutdown()
        backend.wait_until_visible(name)
        arguments = {"k": 10, "cutoff": world.cutoffs()[seed % 5], "shortlist": None}
        expected = reference.search(world.queries, **arguments)
        for client in clients:
            assert_same(client.search(world.queries, **arguments), expected)
            assert_same(client.search(world.queries, **{**arguments, "shortlist": 50}), expected)
        assert_holds(clients[seed % 2], reference, next_id=False)
    assert_holds(clients[0], reference)
    for client in clients:
        client.close()
    backend.give_back(name)


# differences from other indexes


def test_ids_come_in_ascending_order(make, config, batch):
    index = filled(make(config), batch[[5, 0, 3]])
    index.add(batch[[4, 1, 2]])
    index.remove([10])
    index.add(renamed(batch[5:], [10]))
    assert index.ids().tolist() == [10, 20, 30, 40, 50, 60]
    assert_same_records(index.get([10]), renamed(batch[5:], [10]))


def test_an_upsert_replaces_what_is_there_and_adds_the_rest(make, config, batch):
    index, reference = filled(make(config), batch[:3]), filled(BruteForceIndex(config), batch[:3])
    fresh = renamed(batch[3:], [20, 70, 10])
    for one in (index, reference):
        one.upsert(fresh)
    assert len(index) == 4
    assert_same_records(index.get([20, 70, 10]), fresh)
    arguments = {"k": 6, "cutoff": 0.0, "shortlist": None}
    assert_same(index.search(batch, **arguments), reference.search(batch, **arguments))
    assert_holds(index, reference)


def test_changes_while_iterating_may_be_seen_and_no_record_comes_twice(make, config, batch):
    index = filled(make(config), batch)
    parts = index.iterate(2)
    first = next(parts)
    index.remove([40])
    index.upsert(renamed(batch[:1], [60]))
    index.add(renamed(batch[:1], [45]))
    rest = list(parts)
    ids = [number for part in [first, *rest] for number in part.ids.tolist()]
    assert ids == sorted(set(ids))
    assert {10, 20, 30, 50, 60} <= set(ids) <= {10, 20, 30, 40, 45, 50, 60}
    for part in rest:
        for at, number in enumerate(part.ids.tolist()):
            previous = batch[batch.ids == number]
            new = renamed(batch[:1], [number])
            found = part[[at]]
            assert any(len(one) and _same(found, one) for one in (previous, new))


def _same(found: Encodings, expected: Encodings) -> bool:
    try:
        assert_same_records(found, expected)
    except AssertionError:
        return False
    return True


# connections


def test_a_reopened_index_is_unchanged(backend, name, config, batch):
    (index,) = backend.clients(name)
    index.add(batch[:4])
    index.close()
    index.close()
    with MilvusIndex.open(backend.uri, collection=name) as index:
        assert index.config == config
        assert_same_records(index.get(batch.ids[:4]), batch[:4])
        index.add(batch[4:])
        assert_same_records(index.get(batch.ids), batch)
        with pytest.raises(ValueError, match="30"):
            index.add(batch[[2]])


def test_several_indexes_on_one_server_are_independent(make, config, batch):
    first, second = make(config), make(config)
    first.add(batch[:3])
    second.add(batch[2:])
    first.remove([30])
    second.upsert(renamed(batch[:1], [40]))
    assert first.ids().tolist() == [10, 20]
    assert second.ids().tolist() == [30, 40, 50, 60]
    arguments = {"k": 6, "cutoff": 0.0, "shortlist": None}
    assert set(first.search(batch, **arguments).ids.ravel().tolist()) == {-1, 10, 20}
