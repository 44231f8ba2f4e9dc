"""Write the figures of networks as CSV, for analysis with other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from semcut.connector.evaluation.rankings import CUTOFFS, RANKING_NAMES
from semcut.connector.reproduce.network_measurements import KS, Measurement
from semcut.connector.reproduce.truth_measurement import TruthMeasurement

_NETWORK = ("network", "head", "bits", "seed")


def figures_csv(networks: Iterable[Measurement]) -> str:
    """Write a row for each network, ranking and cutoff, and a row for each network and baseline (without a cutoff)."""
    head = (*_NETWORK, "ranking", "t", "mAP@all", *(f"mAP@{k}" for k in KS), *(f"precision@{k}" for k in KS),
            "relevant", "scanned")  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for network in networks:
        comparison = network.comparison
        for i, name in enumerate(RANKING_NAMES):
            for j, t in enumerate(comparison.cutoffs):
                figures = (comparison.at_all[i, j].mean(), *comparison.at_k[i, j].mean(axis=0),
                           *comparison.precision[i, j].mean(axis=0), comparison.relevant[j].mean(),
                           comparison.scanned[j].mean())  # fmt: skip
                rows.append((*_identity(network), name, t, *_numbers(figures)))
        for baseline, (at_all, at_k) in network.baselines.items():
            figures = (at_all.mean(), *at_k.mean(axis=0))
            rows.append((*_identity(network), baseline, "", *_numbers(figures), *[""] * (len(KS) + 2)))
    return _csv(head, rows)


def categories_csv(networks: Iterable[Measurement]) -> str:
    """Write a row for each network, category with queries, and ranking, at the smallest cutoff, t = 0."""
    head = (*_NETWORK, "category", "queries", "ranking", "mAP@all", *(f"mAP@{k}" for k in KS))
    return _csv(head, _category_rows(networks))


def truth_csv(networks: Iterable[TruthMeasurement]) -> str:
    """Write a row for each network, level, ranking, cutoff and query of a set with ground truth: AP@all."""
    head = ("network", "level", "ranking", "t", "query", "landmark", "AP@all")
    return _csv(head, _truth_rows(networks))


def _truth_rows(networks: Iterable[TruthMeasurement]) -> Iterator[tuple[Any, ...]]:
    for network in networks:
        for level, rankings in network.curves.items():
            for ranking, curves in rankings.items():
                for t, values in zip(CUTOFFS, curves, strict=True):
                    for query, landmark, value in zip(network.queries, network.landmarks, values, strict=True):
                        if value is not None:
                            yield (network.name, level, ranking, t, query, landmark, f"{value:.6f}")


def _category_rows(networks: Iterable[Measurement]) -> Iterator[tuple[Any, ...]]:
    for network in networks:
        comparison, classes = network.comparison, network.about["classes"]
        queries = np.bincount(network.labels, minlength=len(classes))
        columns = [
            [network.means_by_class(values) for values in (comparison.at_all[i, 0], *comparison.at_k[i, 0].T)]
            for i in range(len(RANKING_NAMES))
        ]
        for label in np.flatnonzero(queries):
            for name, means in zip(RANKING_NAMES, columns, strict=True):
                figures = _numbers(float(mean[label]) for mean in means)
                yield (*_identity(network), classes[label], int(queries[label]), name, *figures)


def _identity(network: Measurement) -> tuple[Any, ...]:
    """Return the first columns of a row: name, head, bits and seed of the network."""
    about = network.about
    return (about["name"], about["architecture"]["head"], about["architecture"]["bits"], about["config"]["seed"])


def _numbers(values: Iterable[float]) -> list[str]:
    return [f"{value:.6f}" for value in values]


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return target.getvalue()
