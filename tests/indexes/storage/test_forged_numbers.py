"""Stored numbers that are none, with right checksums: the calls that meet them say that the index is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import DamagedIndexError, FaissIndex, IndexConfig, near_duplicates
from semcut.indexes.scanners.engine_names import available_engines
from semcut.indexes.search import near_pairs
from tests.indexes.generate import classified
from tests.indexes.storage.stored_index import column, forge_column

CONFIG = IndexConfig(classes=5, bits=64, dim=4, stored_probabilities=5, stored_features="float32")
ROWS = 120


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with FaissIndex.create(tmp_path / "index", CONFIG, engine="faiss") as index:
        index.add(classified(np.random.default_rng(0), CONFIG, ROWS))
    return tmp_path / "index"


def forge(path: Path, name: str, width: int, value: float) -> None:
    """Give the last record a value that semcut does not store."""
    rows = np.fromfile(column(path, name), np.float32).reshape(ROWS, width)
    rows[-1] = value
    forge_column(path, name, rows)


@pytest.mark.parametrize("sample", [ROWS, 20], ids=["all", "some"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_near_duplicates_of_features_that_are_no_numbers(path, value, sample, monkeypatch):
    """Also where the feature is not in the sample that directions are found from."""
    monkeypatch.setattr(near_pairs, "_SAMPLE", sample)
    forge(path, "features", CONFIG.dim, value)
    with FaissIndex.open(path, engine="faiss") as index, pytest.raises(DamagedIndexError, match="no finite numbers"):
        near_duplicates(index)


@pytest.mark.parametrize("engine", available_engines())
@pytest.mark.parametrize("ranking", ["relevance", "fused"])
def test_searches_without_a_cutoff_of_probabilities_that_are_no_numbers(path, engine, ranking):
    query = classified(np.random.default_rng(1), CONFIG, 6)
    forge(path, "probabilities", CONFIG.classes, np.nan)
    with FaissIndex.open(path, engine=engine) as index:
        for cutoff in (None, 0.2):
            with pytest.raises(DamagedIndexError):
                index.search(query, k=ROWS, cutoff=cutoff, shortlist=None, ranking=ranking)
