"""`semcut average`: a copy with averaged records is searched like the index, and an error leaves nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from semcut.connector import Connector
from semcut.connector.data.sources import ImageSet
from semcut.connector.retrieval.averaged_index import average_index
from semcut.indexes import Encodings, FaissIndex, InvalidParameterError, StorageError, averaged_records
from tests.command import semcut
from tests.indexes.generate import assert_same_records
from tests.indexes.test_query_expansion import CONFIG, classified


def test_the_copy_is_searched_like_the_index(stored: Path, digits_test: ImageSet, tmp_path: Path) -> None:
    done = semcut("average", stored, "averaged", "-n", "3", cwd=tmp_path)
    assert "each averaged with the 3 nearest" in done.stdout
    with Connector.open(stored) as before, Connector.open(tmp_path / "averaged") as after:
        expected = list(averaged_records(before.index, 3))
        assert sum(map(len, expected)) == len(after.index) == len(before.index)
        first = expected[0].ids
        assert first is not None
        np.testing.assert_allclose(after.index.get(first[:50]).features, expected[0].features[:50], atol=0.02)
        assert after.paths(first[:5]) == before.paths(first[:5])
        assert after.defaults == before.defaults
        hits = after.search(digits_test.files[:20], k=5)
        assert sum(len(one) for one in hits) == 100
        assert after.index.verify() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["averaged"]
    done = semcut("average", stored, "averaged", cwd=tmp_path, status=1)
    assert "averaged exists already and is not an empty directory" in done.stderr


def test_the_network_of_an_index_goes_with_the_copy(tmp_path: Path, digits: ImageSet) -> None:
    place = tmp_path / "digits"
    for number, file in enumerate(digits.files[:40]):
        (place / str(number % 2)).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place / str(number % 2) / Path(file).name)
    semcut("index", "digits", "--out", "index", cwd=tmp_path)
    semcut("average", "index", "copies/averaged", cwd=tmp_path)
    shutil.rmtree(tmp_path / "index")
    done = semcut("search", "copies/averaged", digits.files[0], "--model", "copies/averaged", cwd=tmp_path)
    assert done.stdout


def test_an_error_leaves_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = classified(np.random.default_rng(0), CONFIG, 50)
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(records)
    before = sorted(tmp_path.rglob("*"))

    def interrupted(done: int, total: int, task: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        average_index(tmp_path / "index", tmp_path / "new", progress=interrupted)
    for wrong in ({"neighbours": 0}, {"power": -1}):
        with pytest.raises(InvalidParameterError):
            average_index(tmp_path / "index", tmp_path / "new", **wrong)  # type: ignore[arg-type]
    with pytest.raises(StorageError):
        average_index(tmp_path / "index", tmp_path / "index" / "catalogue.sqlite" / "new")
    assert sorted(tmp_path.rglob("*")) == before
    with FaissIndex.open(tmp_path / "index") as index:
        assert_same_records(index.get(index.ids()), records)
    longer = Encodings(probabilities=records.probabilities, codes=records.codes, features=3 * records.features,
                       ids=records.ids)  # fmt: skip
    with FaissIndex.create(tmp_path / "long", CONFIG) as index:
        index.add(longer)
    with pytest.raises(InvalidParameterError, match="needs features of length 1"):
        average_index(tmp_path / "long", tmp_path / "new")
    assert not (tmp_path / "new").exists()
