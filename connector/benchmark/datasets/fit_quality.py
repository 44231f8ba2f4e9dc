"""How much generated records are like their source: the same figures of both, at equal size.

They are what a search depends on: how sure the network is and how often right, what share of records is relevant, how
far codes and features of the same and of different classes lie apart, and how good answers come out.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.datasets.fitted import Fit
from semcut.connector.benchmark.datasets.strata import Labels, Source
from semcut.connector.evaluation.metrics import average_precision
from semcut.indexes import Encodings

_QUERIES = 2000
_PAIRS = 100_000
_CHUNK = 100


@dataclass(frozen=True)
class Likeness:
    """One figure of the source and of what was generated from it."""

    figure: str
    source: float
    generated: float


def compare(
    fit: Fit,
    *,
    classes: int | None = None,
    records: int | None = None,
    seed: int = 0,
) -> list[Likeness]:
    """Figures of a source and of generated records: as many as the source has, searched by 2000 queries of either kind.

    Args:
        fit: the source.
        classes: generate so many. Default: as many as the source has, which is what can be compared.
        records: generate so many. Default: as many as the source has, since mAP and neighbours depend on it.
        seed: of the generator and of what is drawn here.
    """
    rng = np.random.default_rng(seed)
    sizes = (records or len(fit.records.logits), min(_QUERIES, len(fit.queries.logits)))
    made = [
        fit.generator(classes=classes, seed=seed, queries=queries).batch(size)
        for queries, size in zip((False, True), sizes, strict=True)
    ]
    real = [_shuffled(source, rng) for source in (fit.records, fit.queries)]
    real[1] = (real[1][0][:_QUERIES], real[1][1][:_QUERIES])
    before, after = (figures(*both[0], *both[1], seed=seed) for both in (real, made))
    return [Likeness(name, before[name], after[name]) for name in before]


def figures(
    records: Encodings, labels: Labels, queries: Encodings, query_labels: Labels, *, seed: int = 0
) -> dict[str, float]:
    """What a search in these records with these queries depends on.

    Args:
        records, labels: n and their (n,) labels.
        queries, query_labels: nq and their (nq,) labels, each of which occurs among the records.
        seed: of the pairs of records that are drawn.
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
    apart = {True: _pairs(labels, rng, same=True), False: _pairs(labels, rng, same=False)}
    for same, (a, b) in apart.items():
        name = "in a class" if same else "between classes"
        differing = np.bitwise_count(records.codes[a] ^ records.codes[b]).sum(axis=1)
        found[f"Hamming distance {name}"] = float(differing.mean())
        found[f"Hamming distance {name}, deviation"] = float(differing.std())
        distances = np.linalg.norm(records.features[a] - records.features[b], axis=1)
        found[f"distance {name}"] = float(distances.mean())
    return found | _answers(records, labels, queries, query_labels)


def _relevant(records: Encodings, queries: Encodings) -> dict[str, float]:
    """Share of pairs of a query and a record with R > t."""
    counts = np.zeros(2, np.int64)
    for start in range(0, len(queries), _CHUNK):
        relevance = queries.probabilities[start : start + _CHUNK] @ records.probabilities.T
        counts += [np.count_nonzero(relevance > t) for t in (0.2, 0.5)]
    shares = counts / (len(queries) * len(records))
    return {"relevant at t = 0.2": float(shares[0]), "relevant at t = 0.5": float(shares[1])}


def _pairs(labels: Labels, rng: np.random.Generator, *, same: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of pairs of different records with the same or with different labels."""
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
    """Quality of the 10 best of the 100 nearest by code, ranked by feature; and how near the nearest are."""
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
    """The encodings of a source and their labels, in random order: equal codes are found in no order of classes."""
    powers = np.exp(source.logits - source.logits.max(axis=1, keepdims=True))
    order = rng.permutation(len(powers))
    labels = np.repeat(np.arange(len(source.starts) - 1), np.diff(source.starts))
    encodings = Encodings(
        probabilities=powers / powers.sum(axis=1, keepdims=True), codes=source.codes, features=source.features
    )
    return encodings[order], labels[order]
