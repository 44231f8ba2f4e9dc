"""Generate small encodings of known structure: each class is similar to two other classes in codes and features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semcut.indexes import Encodings, FaissIndex, IndexConfig

CLASSES, BITS, DIM = 12, 64, 24


def encodings(rows: int, *, seed: int = 0, classes: int = CLASSES) -> tuple[Encodings, np.ndarray]:
    """Generate encodings and their labels, balanced over the classes, in random order."""
    world, rng = np.random.default_rng(99), np.random.default_rng(seed)
    centres = world.standard_normal((classes, DIM)) + 0.7
    codes = world.random((classes, BITS)) < np.linspace(0.25, 0.75, BITS)
    labels = rng.permutation(np.arange(rows) % classes)
    logits = rng.standard_normal((rows, classes)) * 1.3
    logits[np.arange(rows), labels] += rng.normal(8, 2.5, rows)
    for step, height in ((1, 5), (-1, 4)):
        logits[np.arange(rows), (labels + step) % classes] += rng.normal(height, 2, rows)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = powers / powers.sum(axis=1, keepdims=True)
    bits = rng.random((rows, BITS)) < 0.1 + 0.8 * (p @ codes)
    features = p @ centres + 0.6 * rng.standard_normal((rows, DIM))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    batch = Encodings(
        probabilities=p.astype(np.float32), codes=np.packbits(bits, axis=1), features=features.astype(np.float32)
    )
    return batch, labels


def stored(path: Path, batch: Encodings, labels: np.ndarray, *, names: str = "class", uris: bool = True) -> Path:
    """Store an index of encodings, as `semcut index` does: ids have gaps, and uris name the labels."""
    rows = len(batch)
    record = Encodings(
        probabilities=batch.probabilities,
        codes=batch.codes,
        features=batch.features,
        ids=np.arange(rows)[::-1] * 3 + 5,
        uris=[f"/images/{names}-{label:02d}/{row}.jpg" for row, label in enumerate(labels)] if uris else None,
    )
    classes, bits, dim = batch.probabilities.shape[1], 8 * batch.codes.shape[1], batch.features.shape[1]
    with FaissIndex.create(path, IndexConfig(classes=classes, bits=bits, dim=dim)) as index:
        index.add(record)
    return path
