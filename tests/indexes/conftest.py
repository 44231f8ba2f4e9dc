"""Fixtures for the tests of the indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from semcut.indexes import BruteForceIndex, Encodings, FaissIndex, IndexConfig, SemanticIndex
from tests.engines import engine_of_the_module, pytest_generate_tests

__all__ = ["engine_of_the_module", "pytest_generate_tests"]

Make = Callable[[IndexConfig], SemanticIndex]

CONFIG = IndexConfig(classes=3, bits=32, dim=4, stored_features="float32")


@pytest.fixture(params=["brute force", "faiss in memory", "faiss in a directory"])
def make(request, tmp_path) -> Iterator[Make]:
    """Return a function that creates empty indexes of one kind; all are closed at the end of the test."""
    made: list[SemanticIndex] = []

    def create(config: IndexConfig) -> SemanticIndex:
        kind, path = request.param, tmp_path / f"index {len(made)}"
        if kind == "brute force":
            made.append(BruteForceIndex(config))
        else:
            made.append(FaissIndex.create(None if kind == "faiss in memory" else path, config))
        return made[-1]

    yield create
    for index in made:
        index.close()


@pytest.fixture
def config() -> IndexConfig:
    """A configuration with 3 classes, 32 bits and features of 4 values."""
    return CONFIG


@pytest.fixture
def batch() -> Encodings:
    """Six records for `config`, ids 10 to 60: a sure and a torn record per class, with features of length 1."""
    return Encodings(
        probabilities=np.array(
            [[1, 0, 0], [0.5, 0.25, 0.25], [0, 1, 0], [0.25, 0.5, 0.25], [0, 0, 1], [0.25, 0.25, 0.5]], np.float32
        ),
        codes=np.arange(24, dtype=np.uint8).reshape(6, 4),
        features=np.vstack([np.eye(4), -np.eye(4)[:2]]).astype(np.float32),
        ids=np.arange(10, 70, 10),
        uris=["a.jpg", None, "c.jpg", "d.jpg", None, "f.jpg"],
    )
