"""Indexes on Milvus whose ids are strings: they answer as other indexes with the same keys, for every client."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcut.indexes import (
    BruteForceIndex,
    DamagedIndexError,
    DuplicateIdError,
    Encodings,
    IndexConfig,
    InvalidEncodingsError,
    InvalidParameterError,
    SemcutError,
    ServerError,
    UnknownIdError,
)
from semcut.indexes import keys as keys_module
from semcut.indexes.keys import ids_of, is_key
from semcut.indexes.milvus import MilvusIndex, reader, writer
from semcut.indexes.milvus.shared_state import SharedState
from semcut.indexes.stored_values import stored_values
from tests.indexes import test_keys
from tests.indexes.generate import ATTRIBUTES, assert_same, assert_same_records, classified, filled
from tests.indexes.milvus.pool import FEW_EXAMPLES
from tests.indexes.milvus.test_filtered_search_milvus import TEXTS
from tests.indexes.milvus.test_index_contract import shared
from tests.indexes.test_keys import CONFIG, KEYS, PLAIN, records
from tests.thorough import examples

WITH_ATTRIBUTES = IndexConfig(classes=4, bits=40, dim=2, attributes=ATTRIBUTES, string_ids=True)

globals().update(shared(test_keys))


@pytest.fixture
def index(make) -> MilvusIndex:
    """The index of the tests that every kind of index with keys has to pass."""
    index = make(CONFIG)
    index.add(records(KEYS))
    return index


def some(config: IndexConfig, keys: list[str], seed: int) -> Encodings:
    batch = classified(np.random.default_rng(seed), config, len(keys))
    uris = [None if number % 3 else f"{number}.jpg" for number in range(len(keys))]
    return stored_values(config, replace(batch, ids=keys, uris=uris))


ANY_KEY = st.one_of(st.sampled_from([*TEXTS, "0", "1", "a"]), st.text(min_size=1, max_size=5).filter(is_key))
STEPS = st.tuples(
    st.sampled_from(["add", "upsert", "load", "remove", "reopen"]), st.lists(ANY_KEY, max_size=6, unique=True)
)


@settings(FEW_EXAMPLES, max_examples=examples(12))
@given(steps=st.lists(STEPS, min_size=2, max_size=7), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_random_changes_of_random_keys(backend, steps, seed, data):
    """Every way of reading agrees with brute force after every change, with filters and sets of keys as well."""
    name = backend.take(WITH_ATTRIBUTES)
    (index,), brute = backend.clients(name), BruteForceIndex(WITH_ATTRIBUTES)
    for number, (step, keys) in enumerate(steps):
        if step == "reopen":
            index.close()
            (index,) = backend.clients(name)
            assert index.config == WITH_ATTRIBUTES
        elif step == "remove":
            gone = [key for key in keys if brute.contains(key)[0]]
            for one in (index, brute):
                one.remove(gone)
        elif step == "add" and brute.contains(keys).any():
            for one in (index, brute):
                with pytest.raises(DuplicateIdError, match="in the index already"):
                    one.add(some(WITH_ATTRIBUTES, keys, number))
        else:
            for one in (index, brute):
                getattr(one, step)(some(WITH_ATTRIBUTES, keys, number))
    held = brute.get(np.sort(brute.ids()))
    queries = classified(np.random.default_rng(seed), WITH_ATTRIBUTES, 3)
    assert_same_records(index.get(list(held.keys)[::-1]), held[::-1])
    assert index.keys(index.ids()) == list(held.keys)
    asked = [*held.keys, *TEXTS]
    assert index.contains(asked).tolist() == brute.contains(asked).tolist()
    assert [key for batch in index.iterate(3) for key in batch.keys] == list(held.keys)
    for where in (None, 'camera == "a" or stars > 1', "price is null"):
        among = data.draw(st.lists(ANY_KEY, max_size=9)) + list(held.keys)[::2]
        options = {"where": where, "among": data.draw(st.sampled_from([None, among or None])), "shortlist": None}
        found, expected = (one.search(queries, k=5, cutoff=0.1, **options) for one in (index, brute))
        assert_same(found, expected)
        np.testing.assert_array_equal(found.keys, expected.keys)
    index.close()
    backend.give_back(name)


@pytest.mark.parametrize("kind", ["odd", "long"])
def test_any_key_comes_back_as_it_was(backend, make, kind):
    """Texts that a filter could misread, and on a server more bytes of keys than one request takes."""
    count = 2500 if backend.is_server else 50
    keys = TEXTS if kind == "odd" else [f"{number:04}" + "\N{GRINNING FACE}" * 996 for number in range(count)]
    index, batch = make(CONFIG), records(keys)
    index.add(batch)
    assert_same_records(index.get(keys), batch)
    assert index.keys(batch.ids) == keys
    assert sorted(key for part in index.iterate() for key in part.keys) == sorted(keys)
    assert index.search(batch[:20], k=1).keys[:, 0].tolist() == keys[:20]
    index.remove(keys[1:])
    assert [list(part.keys) for part in index.iterate()] == [keys[:1]]


def test_an_index_of_keys_answers_as_one_of_integers(make):
    index, plain = make(WITH_ATTRIBUTES), BruteForceIndex(WITH_ATTRIBUTES.model_copy(update={"string_ids": False}))
    batch = some(WITH_ATTRIBUTES, [f"image {number}" for number in range(60)], 0)
    index.add(batch)
    filled(plain, [replace(batch, ids=ids_of(batch.keys), keys=None)])
    assert_same(index.search(batch[:9], k=7, where="stars > 1"), plain.search(batch[:9], k=7, where="stars > 1"))


def test_keys_and_integers_are_not_mixed(make):
    keyed, plain = make(CONFIG), make(PLAIN)
    batch = classified(np.random.default_rng(0), CONFIG, 3)
    for change in (keyed.add, keyed.upsert, keyed.load):
        with pytest.raises(InvalidEncodingsError, match="the index has keys: the ids of its records are strings"):
            change(batch)
    with pytest.raises(InvalidEncodingsError, match="ids are strings but those of the index are integers"):
        plain.add(replace(batch, ids=["a", "b", "c"]))
    with pytest.raises(InvalidParameterError, match="but the index has integer ids"):
        plain.get(["a"])
    with pytest.raises(InvalidParameterError, match="the index has no keys"):
        plain.keys([1])
    assert plain.get([]).keys is None
    assert keyed.get([]).keys == []


def test_two_keys_with_one_digest_are_not_mistaken_for_each_other(make, monkeypatch):
    """The first two characters make the digest here."""
    real = keys_module.hashlib.blake2b
    monkeypatch.setattr(
        keys_module.hashlib, "blake2b", lambda text, digest_size: real(text[:1], digest_size=digest_size)
    )
    index = make(CONFIG)
    index.add(records(["ab", "z"]))
    for change in (index.add, index.upsert, index.load):
        with pytest.raises(InvalidEncodingsError, match="'ac' and 'ab', which the index has, have the same digest"):
            change(records(["ac"]))
        with pytest.raises(SemcutError):
            change(records(["bc", "bd"]))
    assert index.contains(["ac", "ab"]).tolist() == [False, True]
    with pytest.raises(UnknownIdError, match="'ac'"):
        index.remove(["ac"])
    assert_same_records(index.get(["ab", "z"]), records(["ab", "z"]))


def test_another_client_finds_a_key_at_once(backend):
    """Changes of other clients may show late, but not as a key that is unknown."""
    name = backend.take(CONFIG)
    one, other = backend.clients(name, 2)
    for turn in range(3):
        batch = records([f"{turn} a", f"{turn} b"], turn)
        one.add(batch)
        assert_same_records(other.get(batch.keys), batch)
        assert other.keys(batch.ids) == list(batch.keys)
        with pytest.raises(DuplicateIdError, match=r"2 ids \('. a', '. b'\) are in the index already"):
            other.add(batch)
        other.remove(batch.keys)
        with pytest.raises(UnknownIdError, match="2 ids"):
            one.remove(batch.keys)
    for client in (one, other):
        client.close()
    backend.give_back(name)


def test_keys_of_a_batch_that_failed_are_unknown_until_it_is_added_again(backend, monkeypatch):
    name = backend.take(CONFIG)
    one, other = backend.clients(name, 2)
    one.add(records(["x"]))

    def fails(shared: SharedState) -> None:
        raise ServerError("the server has crashed")

    with monkeypatch.context() as patch:
        patch.setattr(SharedState, "finish_batch", fails)
        with pytest.raises(ServerError, match="has crashed"):
            one.add(records(KEYS))
    for client in (one, other):
        assert client.contains([*KEYS, "x"]).tolist() == [False] * 6 + [True]
        with pytest.raises(UnknownIdError, match="6 ids"):
            client.get(KEYS)
        assert set(client.search(records(KEYS), k=5).keys.ravel().tolist()) == {"x", None}
    other.add(records(KEYS))
    assert_same_records(one.get(KEYS), records(KEYS))
    for client in (one, other):
        client.close()
    backend.give_back(name)


def test_a_removal_of_keys_that_failed_can_be_repeated(make, monkeypatch):
    """The records that it has removed are accepted once more by their keys."""
    index = make(CONFIG)
    index.add(records(KEYS))
    for module in (reader, writer):
        monkeypatch.setattr(module, "IDS_PER_FILTER", 2)
    server, delete, deleted = index._server, index._server.delete, []

    def fails(*args, **options) -> None:
        deleted.append(args)
        if len(deleted) == 2:
            raise ServerError("the server has crashed")
        delete(*args, **options)

    monkeypatch.setattr(server, "delete", fails)
    with pytest.raises(ServerError, match="has crashed"):
        index.remove(KEYS[:5])
    assert sorted(index.contains(KEYS).tolist()) == [False] * 2 + [True] * 4
    with pytest.raises(UnknownIdError, match="'unknown'"):
        index.remove([*KEYS[:5], "unknown"])
    index.remove(KEYS[:5])
    assert index.keys(index.ids()) == KEYS[5:]
    with pytest.raises(UnknownIdError):
        index.remove(KEYS[:1])


@pytest.mark.parametrize("changed", ["name", "name_records"])
def test_a_key_that_another_program_has_written_is_an_error(make, changed):
    index = make(CONFIG)
    index.add(records(KEYS))
    schema = index._schema
    rows, whole = schema.rows(records(["a"]), 5)
    for row in rows if changed == "name" or not whole else whole:
        row["key"] = "b"
    if whole:
        index._server.call("insert", schema.record_collection, whole)
    index._server.call("upsert", schema.name, rows)
    found_by_key = [
        lambda: index.keys(ids_of(["a"])),
        lambda: index.contains("a"),
        lambda: index.search(records(["a"]), k=6).keys,
    ]
    for read in (
        lambda: index.get(["a"]),
        lambda: index.get(ids_of(["a"])),
        *(found_by_key if changed == "name" else [lambda: list(index.iterate())]),
    ):
        with pytest.raises(
            DamagedIndexError, match=r"is no record of this index: the record with id \d+ has the key 'b'"
        ):
            read()


def test_an_index_with_keys_has_one_field_less_for_attributes(backend):
    types = {f"a{number}": "int" for number in range(55)}
    config = IndexConfig(classes=3, bits=32, dim=2, attributes=types, string_ids=True)
    with pytest.raises(InvalidParameterError, match="there are 55 attributes, but at most 54 fit on Milvus"):
        MilvusIndex.create(backend.uri, config, collection=backend.unused())
