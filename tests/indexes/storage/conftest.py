"""Fixtures of the tests of storage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from semcut.indexes import Encodings, FaissIndex, IndexConfig
from tests.indexes.storage.stored_index import CONFIG


@pytest.fixture
def config() -> IndexConfig:
    """A configuration with attributes, so that the index has more columns."""
    return CONFIG


@pytest.fixture
def batch(batch) -> Encodings:
    """The six records of other tests, with attributes."""
    tags = [["sea"], ["sea", "sun"], None, [], ["sun"], ["sea"]]
    return replace(batch, attributes={"price": [1.0, 2.5, None, 0.0, 1e9, -1.0], "tags": tags})


@pytest.fixture
def path(tmp_path, config, batch) -> Path:
    """A stored index, closed, with the first four records of the batch."""
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(batch[:2])
        index.add(batch[2:4])
    return tmp_path / "index"
