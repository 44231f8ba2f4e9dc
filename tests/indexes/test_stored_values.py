"""What is stored is what counts: an index answers, returns and copies the values that its configuration keeps."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import (
    BruteForceIndex,
    DamagedIndexError,
    Encodings,
    FaissIndex,
    IndexConfig,
    InvalidEncodingsError,
    StorageError,
)
from semcut.indexes.scoring.packed_rows import PackedRows, packed
from semcut.indexes.stored_values import coded_features, stored_values
from tests.indexes.generate import PROPERTY, assert_same, assert_same_records, classified, encodings, filled, worlds
from tests.indexes.storage.stored_index import catalogue

CONFIG = IndexConfig(classes=300, bits=64, dim=8, stored_probabilities=16, stored_features="float16")


@PROPERTY
@given(world=worlds(rows=(0, 60)))
def test_stored_values_stay_as_they_are(world):
    for batch in world.batches:
        assert_same_records(stored_values(world.config, batch), batch)


@PROPERTY
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 40),
    m=st.integers(1, 40),
    any_mass=st.booleans(),
)
def test_the_largest_probabilities_are_kept_rounded_to_the_step(seed, classes, m, any_mass):
    m = min(m, classes - 1)
    config = IndexConfig(classes=classes, bits=32, dim=2, stored_probabilities=m)
    given_ = encodings(np.random.default_rng(seed), config, 30, normalised=True, any_mass=any_mass)
    kept = stored_values(config, given_).probabilities
    for row, values in zip(kept, given_.probabilities, strict=True):
        largest = sorted(range(classes), key=lambda c: (-values[c], c))[:m]
        expected = np.zeros(classes, np.float32)
        for c in largest:
            expected[c] = min(np.rint(np.float64(values[c]) * 65536), 65535) / 65536
        np.testing.assert_array_equal(row, expected)
    np.testing.assert_array_equal(PackedRows(packed(kept, m), classes).dense(), kept)


def test_a_record_of_1000_classes_takes_a_tenth(tmp_path):
    rng = np.random.default_rng(0)
    dense = IndexConfig(classes=1000, bits=64, dim=128, stored_probabilities=1000, stored_features="float32")
    small = IndexConfig(classes=1000, bits=64, dim=128)
    batch = classified(rng, dense, 300)
    taken = []
    for name, config in (("dense", dense), ("small", small)):
        with FaissIndex.create(tmp_path / name, config, engine="faiss") as index:
            index.add(batch)
            taken.append(sum(index.stats().column_bytes.values()) / 300)
    assert taken[1] <= 450 < 4500 < taken[0]


@pytest.mark.parametrize("features", ["float32", "float16", "int8"])
def test_a_stored_index_keeps_the_values_through_everything(tmp_path, features):
    config = CONFIG.model_copy(update={"stored_features": features})
    rng = np.random.default_rng(1)
    batches = [classified(rng, config, 400), classified(rng, config, 200, first_id=1000)]
    queries = classified(rng, config, 30)
    brute = filled(BruteForceIndex(config), batches)
    expected = {ranking: brute.search(queries, shortlist=50, ranking=ranking) for ranking in ("distance", "fused")}
    ids = np.concatenate([batch.ids for batch in batches])

    def check(path: Path) -> None:
        with FaissIndex.open(path) as index:
            assert index.config == config
            assert_same_records(index.get(ids), brute.get(ids))
            for ranking, result in expected.items():
                assert_same(index.search(queries, shortlist=50, ranking=ranking), result)
            assert_same(index.search(index.get(ids[:5]), k=3), brute.search(brute.get(ids[:5]), k=3))
            assert index.verify() == []

    with FaissIndex.create(tmp_path / "index", config) as index:
        for batch in batches:
            index.add(batch)
        index.add(classified(rng, config, 50, first_id=5000))
        index.remove(np.arange(5000, 5050))
        index.backup(tmp_path / "backup")
    check(tmp_path / "index")
    check(tmp_path / "backup")
    with FaissIndex.open(tmp_path / "index") as index:
        index.compact()
    check(tmp_path / "index")
    with FaissIndex.create(tmp_path / "copy", config) as copy:
        for part in brute.iterate(100):
            copy.add(part)
    check(tmp_path / "copy")


@pytest.mark.parametrize("engine", ["compiled", "faiss"])
@pytest.mark.parametrize("ranking", ["distance", "fused"])
def test_classes_that_do_not_exist_are_no_positions(tmp_path, engine, ranking):
    """Another program can write any classes to a file that is open: they are never used to read from memory."""
    rng = np.random.default_rng(2)
    path = tmp_path / "index"
    with FaissIndex.create(path, CONFIG, engine="faiss") as index:
        index.add(classified(rng, CONFIG, 500))
    file = path / "generation-0" / "probabilities"
    rows = np.fromfile(file, "<u2").reshape(500, 32)
    rows[:, 2::2] = rng.integers(0, 65_536, (500, 15))
    rows[::3, 0] = 65_535
    with FaissIndex.open(path, engine=engine) as index:
        queries = classified(rng, CONFIG, 50)
        index.search(queries, k=5, cutoff=0, shortlist=None)  # all rows are compared with their checksums
        file.write_bytes(rows.tobytes())  # the same file, which is mapped
        result = index.search(queries, k=5, cutoff=0.01, shortlist=None, ranking=ranking)
        assert (result.ids < 500).all()
        assert index.get(result.ids[result.ids >= 0][:5]).probabilities.max() <= 1
    with catalogue(path) as db:
        data = rows.tobytes()
        crcs = [zlib.crc32(data[start : start + 128 * 64]) for start in range(0, len(data), 128 * 64)]
        db.execute("UPDATE checksums SET crcs = ? WHERE name = 'probabilities'", (np.array(crcs, "<u4").tobytes(),))
    with FaissIndex.open(path, engine=engine) as index:
        with pytest.raises(DamagedIndexError, match="are not as semcut writes them"):
            index.search(queries, k=5, cutoff=0.01, shortlist=None, ranking=ranking)
        assert "are not as semcut writes them" in str(index.verify())


@pytest.mark.parametrize(
    ("config", "value", "what"),
    [
        ({"stored_features": "float16"}, 70_000, "7e\\+04, .* float16: from 0.0039 to 65504"),
        ({"stored_features": "float16"}, 1e-3, "0.001, .* float16"),
        ({"stored_features": "int8"}, 1.1, "1.1, .* int8 with a feature_step of 0.00787402: at most 1"),
        ({"stored_features": "int8", "feature_step": 1e-3}, 0.2, "0.2, .* at most 0.127"),
    ],
)
def test_a_feature_out_of_range_is_refused(config, value, what):
    for index in (FaissIndex.create(None, c := IndexConfig(classes=2, bits=32, dim=2, **config)), BruteForceIndex(c)):
        batch = Encodings(
            ids=np.arange(2), probabilities=np.eye(2, dtype=np.float32), codes=np.zeros((2, 4), np.uint8),
            features=np.array([[0, 0], [0, value]], np.float32),
        )  # fmt: skip
        with pytest.raises(InvalidEncodingsError, match=f"feature of row 1 is {what}.* scale the features, or"):
            index.add(batch)
        assert len(index) == 0


@pytest.mark.parametrize("classes", [2, 3, 10, 24, 100])
@pytest.mark.parametrize("value", [-0.0, 1.001, 1e-45])
@pytest.mark.parametrize("stored", ["all", "some"])
def test_what_is_accepted_is_opened_again(classes, value, stored, tmp_path):
    """Zeros with a sign, and values just above 1, are what rounding makes of probabilities."""
    config = IndexConfig(classes=classes, bits=32, dim=2, stored_probabilities=classes if stored == "all" else 1)
    batch = Encodings(
        probabilities=np.full((3, classes), value, np.float32),
        codes=np.zeros((3, 4), np.uint8),
        features=np.eye(3, 2, dtype=np.float32),
        ids=np.arange(3),
        any_mass=True,
    )
    with FaissIndex.create(tmp_path / "index", config, engine="faiss") as index:
        index.add(batch)
        index.backup(tmp_path / "copy")
        held = index.get(batch.ids)
    for path in (tmp_path / "index", tmp_path / "copy"):
        with FaissIndex.open(path, engine="faiss") as index:
            assert_same_records(index.get(batch.ids), held)
            assert not index.verify()
            index.compact()
        FaissIndex.open(path, engine="faiss").close()


def test_bounds_that_could_not_be_read_again_are_not_written(tmp_path):
    config = IndexConfig(classes=3, bits=32, dim=2)
    with FaissIndex.create(tmp_path / "index", config, engine="faiss") as index:
        index.add(classified(np.random.default_rng(0), config, 5))
        wrong = classified(np.random.default_rng(1), config, 5, first_id=10)
        wrong.probabilities[0] = 1.5  # as no caller can
        with pytest.raises(StorageError, match="the bounds of the new records cannot be stored"):
            index.add(wrong)
        assert len(index) == 5
    with FaissIndex.open(tmp_path / "index", engine="faiss") as index:
        assert len(index) == 5


def test_a_feature_that_rounding_makes_too_long_is_refused():
    config = IndexConfig(classes=2, bits=32, dim=16, stored_features="int8", feature_step=1e18)
    features = np.full((1, 16), 0.79e18, np.float32)
    with pytest.raises(InvalidEncodingsError, match=r"longer than 3.2e\+18 after rounding to int8"):
        coded_features(config, features)
    assert coded_features(config, features / 2).max() == 0
