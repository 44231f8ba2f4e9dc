"""Random encodings with labels, and all rankings of them compared once."""

from __future__ import annotations

import numpy as np
import pytest

from semcut.connector.evaluation.rankings import Comparison, compare
from semcut.indexes import Encodings, IndexConfig

CONFIG = IndexConfig(classes=4, bits=32, dim=8, stored_features="float32")
KS = (1, 15, 120, 400)  # few; more than there are right records; more than there are records
SHORTLIST, CUTOFFS = 40, (0.0, 0.2, 0.6)

Data = tuple[Encodings, np.ndarray, Encodings, np.ndarray]
"""Records, their labels, queries, their labels."""


def encodings(rng: np.random.Generator, labels: np.ndarray, *, ids: bool) -> Encodings:
    """Make encodings whose probabilities and features depend on labels from 0 to 3."""
    logits = rng.normal(size=(len(labels), 4))
    logits[np.arange(len(labels)), labels] += 3
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    features = rng.normal(size=(len(labels), 8)) + np.eye(4, 8)[labels]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return Encodings(
        probabilities=probabilities,
        codes=rng.integers(0, 256, (len(labels), 4), dtype=np.uint8),
        features=features,
        ids=np.arange(len(labels)) if ids else None,
    )


@pytest.fixture(scope="session")
def data() -> Data:
    rng = np.random.default_rng(0)
    labels, query_labels = rng.integers(0, 4, 300), rng.integers(0, 4, 20)
    return encodings(rng, labels, ids=True), labels, encodings(rng, query_labels, ids=False), query_labels


@pytest.fixture(scope="session")
def comparison(data: Data) -> Comparison:
    return compare(*data, CONFIG, ks=KS, shortlist=SHORTLIST, cutoffs=CUTOFFS)
