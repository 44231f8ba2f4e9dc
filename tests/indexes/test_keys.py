"""Indexes whose ids are strings: every function takes and returns them, and stored ones are compared."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import (
    Among,
    BruteForceIndex,
    DamagedIndexError,
    DuplicateIdError,
    Encodings,
    FaissIndex,
    IndexConfig,
    InvalidEncodingsError,
    InvalidParameterError,
    SemcutError,
    UnknownIdError,
)
from semcut.indexes import keys as module
from semcut.indexes.keys import ids_of
from semcut.indexes.storage.verify import verify_path
from semcut.indexes.stored_values import stored_values
from tests.indexes.generate import PROPERTY, assert_same, assert_same_records, classified, filled

CONFIG = IndexConfig(classes=4, bits=32, dim=4, string_ids=True)
PLAIN = IndexConfig(classes=4, bits=32, dim=4)
KEYS = ["a", "\u00e9/\n.jpg", str(uuid.UUID(int=7)), "0", " ", "x" * 1000]


def records(keys: list[str], seed: int = 0) -> Encodings:
    return stored_values(CONFIG, replace(classified(np.random.default_rng(seed), CONFIG, len(keys)), ids=keys))


@pytest.fixture(params=["brute", "memory", "stored"])
def index(request, tmp_path):
    made = {
        "brute": lambda: BruteForceIndex(CONFIG),
        "memory": lambda: FaissIndex.create(None, CONFIG),
        "stored": lambda: FaissIndex.create(tmp_path / "index", CONFIG),
    }[request.param]()
    with made:
        made.add(records(KEYS))
        yield made


def test_every_function_takes_and_returns_keys(index):
    batch = records(KEYS)
    assert batch.ids.tolist() == ids_of(KEYS).tolist()
    assert list(index.get(KEYS[::-1]).keys) == KEYS[::-1]
    assert_same_records(index.get(KEYS[::-1]), batch[::-1])
    assert index.keys(index.ids()) == [KEYS[row] for row in np.argsort(batch.ids)]
    assert index.contains([*KEYS, "b"]).tolist() == [True] * 6 + [False]
    assert index.contains("a").tolist() == [True]
    assert index.uris(np.array(KEYS)) == [None] * 6
    assert [list(part.keys) for part in index.iterate(10)] == [index.keys(index.ids())]
    found = index.search(batch, k=1)
    assert found.keys[:, 0].tolist() == KEYS
    assert [hits[0].key for hits in found] == KEYS
    assert [row["key"] for row in found.to_dicts()] == KEYS
    few = index.search(batch, k=10, among=["a", "0", "unknown"])
    assert set(few.keys.ravel().tolist()) == {"a", "0", None}
    assert_same(few, index.search(batch, k=10, among=Among(["0", "a"])))
    assert set(index.keys(index.matching(among=KEYS[:2]))) == set(KEYS[:2])
    index.remove("a")
    index.upsert(records(["0", "new"], seed=1))
    assert set(index.keys(index.ids())) == {*KEYS[1:], "new"}
    assert_same_records(index.get(["new", "0"]), records(["0", "new"], seed=1)[[1, 0]])


def test_an_index_with_keys_answers_as_one_with_the_same_ids(index):
    other = filled(BruteForceIndex(PLAIN), [replace(records(KEYS), ids=ids_of(KEYS), keys=None)])
    assert_same(index.search(records(KEYS, 3), k=4), other.search(records(KEYS, 3), k=4))


def test_unknown_and_repeated_keys_are_named(index):
    with pytest.raises(UnknownIdError, match=r"2 ids \('b', 'c'\) are not in the index"):
        index.get(["a", "b", "c"])
    with pytest.raises(UnknownIdError, match=r"1 ids \('b'\)"):
        index.remove(["b"])
    with pytest.raises(DuplicateIdError, match=r"1 ids \('b'\) are more than once in the batch"):
        index.upsert(records(["b", "b", "c"]))
    with pytest.raises(DuplicateIdError, match=r"1 ids \('a'\) are in the index already"):
        index.add(records(["a", "b"]))
    assert len(index) == 6


@pytest.mark.parametrize("key", ["", "a\0b", "\ud800", "x" * 1001, 3, None, b"a"])
def test_what_is_no_key_is_refused(key):
    with pytest.raises(InvalidEncodingsError, match="is no key, expected text of 1 to 1000 characters"):
        records(["a", key])
    with pytest.raises(SemcutError):
        FaissIndex.create(None, CONFIG).get(["a", key])


def test_keys_and_integers_are_not_mixed():
    keyed, plain = FaissIndex.create(None, CONFIG), FaissIndex.create(None, PLAIN)
    batch = classified(np.random.default_rng(0), CONFIG, 3)
    with pytest.raises(InvalidEncodingsError, match="the index has keys: the ids of its records are strings"):
        keyed.add(batch)
    with pytest.raises(InvalidEncodingsError, match="ids are strings but those of the index are integers"):
        plain.add(replace(batch, ids=["a", "b", "c"]))
    with pytest.raises(InvalidParameterError, match="ids are strings, such as 'a', but the index has integer ids"):
        plain.get(["a"])
    with pytest.raises(InvalidParameterError, match="the index has no keys"):
        plain.keys([1])
    with pytest.raises(InvalidParameterError, match="the index has no keys"):
        _ = plain.search(batch).keys
    keyed.add(replace(batch, ids=["a", "b", "c"]))
    assert list(keyed.get(ids_of(["b"])).keys) == ["b"]


def test_two_keys_with_one_digest_are_not_mistaken_for_each_other(monkeypatch):
    real = module.hashlib.blake2b
    monkeypatch.setattr(module.hashlib, "blake2b", lambda text, digest_size: real(text[:1], digest_size=digest_size))
    index = FaissIndex.create(None, CONFIG)
    index.add(records(["ab"]))
    for change in (index.add, index.upsert):
        with pytest.raises(InvalidEncodingsError, match="'ac' and 'ab', which the index has, have the same digest"):
            change(records(["ac"]))
        with pytest.raises(SemcutError):
            change(records(["bc", "bd"]))
    assert index.contains(["ac", "ab"]).tolist() == [False, True]
    with pytest.raises(UnknownIdError):
        index.remove(["ac"])
    assert len(index) == 1


@PROPERTY
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "upsert", "remove", "compact", "reopen"]),
            st.lists(st.text(min_size=1, max_size=4).filter(module.is_key), max_size=5, unique=True),
        ),
        max_size=12,
    )
)
def test_an_index_with_keys_is_a_dictionary(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("keyed") / "index"
    index, held = FaissIndex.create(path, CONFIG, engine="faiss"), {}
    for number, (step, keys) in enumerate(steps):
        batch = records(keys, number)
        if step in ("add", "upsert"):
            if step == "add" and set(keys) & set(held):
                with pytest.raises(DuplicateIdError):
                    index.add(batch)
                continue
            getattr(index, step)(batch)
            held |= {key: batch[[row]] for row, key in enumerate(keys)}
        elif step == "remove":
            gone = [key for key in keys if key in held]
            index.remove(gone)
            held = {key: record for key, record in held.items() if key not in gone}
        elif step == "compact":
            index.compact()
        else:
            index.close()
            index = FaissIndex.open(path, engine="faiss")
    assert len(index) == len(held)
    if held:
        assert_same_records(index.get(list(held)), Encodings.concatenate(list(held.values())))
    assert index.verify() == []
    index.close()
    shutil.rmtree(path.parent)


@pytest.mark.parametrize("name", ["key_ends", "key_bytes", "ids"])
def test_a_damaged_key_is_never_a_wrong_one(tmp_path, name):
    keys = [f"image {number}" for number in range(300)]
    with FaissIndex.create(tmp_path / "sound", CONFIG) as index:
        index.add(records(keys))
        right = index.search(records(keys[:20]), k=3).keys.tolist()
    size = (tmp_path / "sound" / "generation-0" / name).stat().st_size
    for place in np.random.default_rng(0).integers(0, size, 12).tolist():
        path = Path(shutil.copytree(tmp_path / "sound", tmp_path / f"damaged {place}", dirs_exist_ok=True))
        data = bytearray((path / "generation-0" / name).read_bytes())
        data[place] ^= 4
        (path / "generation-0" / name).write_bytes(data)
        assert verify_path(path)
        with pytest.raises(DamagedIndexError):
            read_all(path, keys, right)


def read_all(path: Path, keys: list[str], right: list[list[str]]) -> None:
    with FaissIndex.open(path) as index:
        assert index.search(records(keys[:20]), k=3).keys.tolist() == right
        index.get(keys)


def test_hits_of_a_range_have_keys():
    index = FaissIndex.create(None, CONFIG)
    index.add(records(KEYS))
    found = index.search_range(index.get([KEYS[1]]), radius=0.0, cutoff=None)
    assert [hit.key for hit in found[0]] == [KEYS[1]]


@pytest.mark.parametrize(
    "given",
    [["a"], ("a",), np.array(["a"]), np.array(["a"], object), Among(["a"]), "a"],
    ids=["list", "tuple", "array", "objects", "prepared", "text"],
)
def test_strings_are_no_ids_of_an_index_with_integers(given):
    index = filled(FaissIndex.create(None, PLAIN), [classified(np.random.default_rng(0), PLAIN, 5)])
    for call in (lambda: index.search(index.get([0]), among=given), lambda: index.matching(among=given)):
        with pytest.raises(InvalidParameterError, match="strings"):
            call()


def test_empty_texts_are_no_ids():
    index = filled(FaissIndex.create(None, PLAIN), [classified(np.random.default_rng(0), PLAIN, 5)])
    assert len(index.get(np.array([], "U3"))) == 0
    assert index.matching(among=np.array([], "U3")).tolist() == []
    with pytest.raises(InvalidParameterError, match="ids are strings"):
        index.get(np.array("a"))


def test_ids_that_are_not_those_of_the_keys_are_refused():
    with pytest.raises(InvalidEncodingsError, match="ids are not those of the keys"):
        replace(records(["a", "b"]), ids=[5, 6])


@pytest.mark.parametrize("string_ids", [False, True])
def test_an_empty_array_of_texts_has_one_dimension(string_ids):
    with FaissIndex.create(None, IndexConfig(classes=3, bits=32, dim=4, string_ids=string_ids)) as index:
        for call in (index.get, index.contains, index.remove):
            call(np.empty(0, "U5"))
            with pytest.raises(InvalidParameterError, match=r"of shape \(0, 1\), expected \(n,\)"):
                call(np.empty((0, 1), "U5"))
