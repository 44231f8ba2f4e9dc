"""Compare generated records with their source: compute the same statistics of both, at equal size.

The statistics are those that a search depends on: how certain the network is and how often it is right, what share of
records is relevant, how far apart codes and features of the same and of different classes are, and how good the answers
are.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.datasets.fitted_records import Fit
from semcut.connector.benchmark.datasets.strata import Labels, Source
from semcut.connector.evaluation.metrics import average_precision
from semcut.indexes import Encodings

_QUERIES = 2000
_PAIRS = 100_000
_CHUNK = 100  # queries whose relevance to all records is computed in one product


@dataclass(frozen=True)
class Comparison:
    """One statistic of the source and of the generated records."""

    statistic: str
    source: float
    generated: float


def compare(
    fit: Fit,
    *,
    classes: int | None = None,
    records: int | None = None,
    seed: int = 0,
) -> list[Comparison]:
    """Compute the statistics of a source and of records generated from it, each with at most 2000 queries of its own.

    Args:
        fit: the source.
        classes: number of generated classes. Default: that of the source; only then are the statistics comparable.
        records: number of generated records. Default: that of the source, since mAP and neighbours depend on it.
        seed: seed of the generator and of the random choices here.
    """
    rng = np.random.default_rng(seed)
    sizes = (records or len(fit.records.logits), min(_QUERIES, len(fit.queries.logits)))
    generated = [
        fit.generator(classes=classes, seed=seed, queries=queries).batch(size)
        for queries, size in zip((False, True), sizes, strict=True)
    ]
    source = [_shuffled(part, rng) for part in (fit.records, fit.queries)]
    source[1] = (source[1][0][:_QUERIES], source[1][1][:_QUERIES])
    before, after = (statistics(*both[0], *both[1], seed=seed) for both in (source, generated))
    return [Comparison(name, before[name], after[name]) for name in before]


def statistics(
    records: Encodings, labels: Labels, queries: Encodings, query_labels: Labels, *, seed: int = 0
) -> dict[str, float]:
    """Compute the statistics that a search of these records with these queries depends on.

    Args:
        records, labels: n records and their (n,) labels.
        queries, query_labels: nq queries and their (nq,) labels; each label occurs among the records.
        seed: seed of the choice of pairs of records.
    """
    certainty = records.probabilities.max(axis=1)
    right = records.probabilities.argmax(axis=1) == labels
    found = {
        "top-1 accuracy": float(right.mean()),
        "top-1 accuracy of queries": float((queries.probabilities.argmax(axis=1) == query_labels).mean()),
        "mean of max p": float(certainty.mean()),
    }
    for part in (0.1, 0.25, 0.5, 0.75):
        found[f"max p, {part:.0%} quantile"] = float(np.quantile(certainty, part))
    found |= _relevant(records, queries)
    rng = np.random.default_rng(seed)
    pairs = {True: _pairs(labels, rng, same=True), False: _pairs(labels, rng, same=False)}
    for same, (a, b) in pairs.items():
        name = "in a class" if same else "between classes"
        differing = np.bitwise_count(records.codes[a] ^ records.codes[b]).sum(axis=1)
        found[f"Hamming distance {name}"] = float(differing.mean())
        found[f"Hamming distance {name}, deviation"] = float(differing.std())
        distances = np.linalg.norm(records.features[a] - records.features[b], axis=1)
        found[f"distance {name}"] = float(distances.mean())
    return found | _answers(records, labels, queries, query_labels)


def _relevant(records: Encodings, queries: Encodings) -> dict[str, float]:
    """Compute the share of pairs of a query and a record with R > t."""
    counts = np.zeros(2, np.int64)
    for start in range(0, len(queries), _CHUNK):
        relevance = queries.probabilities[start : start + _CHUNK] @ records.probabilities.T
        counts += [np.count_nonzero(relevance > t) for t in (0.2, 0.5)]
    shares = counts / (len(queries) * len(records))
    return {"relevant at t = 0.2": float(shares[0]), "relevant at t = 0.5": float(shares[1])}


def _pairs(labels: Labels, rng: np.random.Generator, *, same: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw positions of pairs of different records with the same label or with different labels."""
    a = rng.integers(0, len(labels), _PAIRS)
    if same:
        order = np.argsort(labels, kind="stable")
        bounds = np.searchsorted(labels[order], np.arange(labels.max() + 2))
        sizes = np.diff(bounds)[labels[a]]
        b = order[bounds[labels[a]] + (rng.random(_PAIRS) * sizes).astype(np.int64)]
    else:
        b = rng.integers(0, len(labels), _PAIRS)
    keep = (a != b) & ((labels[a] == labels[b]) == same)
    return a[keep], b[keep]


def _answers(records: Encodings, labels: Labels, queries: Encodings, query_labels: Labels) -> dict[str, float]:
    """Re-rank the 100 nearest records by code, and measure the 10 best by label and the distances of the nearest."""
    index = faiss.IndexBinaryFlat(8 * records.codes.shape[1])
    index.add(records.codes)
    hamming, rows = index.search(queries.codes, min(100, len(records)))
    distances = np.linalg.norm(records.features[rows] - queries.features[:, None], axis=2)
    best = np.argsort(distances, axis=1)[:, :10]
    right = labels[np.take_along_axis(rows, best, axis=1)] == query_labels[:, None]
    possible = np.minimum(10, np.bincount(labels, minlength=int(query_labels.max()) + 1)[query_labels])
    return {
        "mAP@10, Hamming and re-rank": float(average_precision(right, possible).mean()),
        "Hamming distance of the nearest": float(hamming[:, 0].mean()),
        "Hamming distance of the 100th": float(hamming[:, -1].mean()),
        "distance of the best in the shortlist": float(distances.min(axis=1).mean()),
    }


def _shuffled(source: Source, rng: np.random.Generator) -> tuple[Encodings, NDArray[np.int64]]:
    """Return the encodings of a source and their labels in random order, so that ties of codes favour no class."""
    powers = np.exp(source.logits - source.logits.max(axis=1, keepdims=True))
    order = rng.permutation(len(powers))
    labels = np.repeat(np.arange(len(source.starts) - 1), np.diff(source.starts))
    encodings = Encodings(
        probabilities=powers / powers.sum(axis=1, keepdims=True), codes=source.codes, features=source.features
    )
    return encodings[order], labels[order]
