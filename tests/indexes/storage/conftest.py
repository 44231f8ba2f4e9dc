"""Fixtures of the tests of storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from semcut.indexes import (
    FaissIndex,
)


@pytest.fixture
def path(tmp_path, config, batch) -> Path:
    """A stored index, closed, with the first four records of the batch."""
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(batch[:2])
        index.add(batch[2:4])
    return tmp_path / "index"
