"""All figures of a run, from its raw results: one dictionary per data set, and one per method in it.

A method's figures: `batches` (see `measures.latencies`), `map`, `precision`, `map_all` and `recall` (Euclidean),
`recall_equations` with `lost` and `scanned` for semcut, `build_seconds`, `disk_bytes`, `memory_bytes`, `queries`, how
many its results are of, and `complete`, whether these are all: quality is compared between such methods only. What
cannot be had is None.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.measure import measures, raw_results
from semcut.connector.benchmark.measure.ground_truth import Exact, Truth
from semcut.connector.benchmark.report.targets import targets
from semcut.indexes.errors import DataError

_STEPS = ("partitions", "cells", "codes")


def of_run(out: Path) -> list[dict[str, Any]]:
    """Figures of every complete data set of a run, in order of their running."""
    found = [
        (facts["started"], directory, facts)
        for directory in sorted((out / "raw").glob("*"))
        if (facts := raw_results.finished(directory)) is not None
    ]
    return [of_dataset(directory, facts) for _, directory, facts in sorted(found, key=lambda one: one[0])]


def of_dataset(directory: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Figures of one data set.

    Args:
        directory: its raw results.
        facts: the content of its dataset.json.

    Raises:
        DataError: a file is missing or damaged.
    """
    truth = Truth.load(directory / "truth.npz")
    if truth is None:
        raise DataError(f"{directory / 'truth.npz'} cannot be read: delete its directory, and it is measured again")
    queries, probes = raw_results.load(directory / "queries.npz"), raw_results.load(directory / "probes.npz")
    methods = [_method(directory, facts, method, truth, queries) for method in facts["methods"]]
    most = max((method["queries"] for method in methods), default=0)
    for method in methods:
        method["complete"] = method["queries"] == most
    records = facts["about"]["records"]
    found = {
        "name": directory.name,
        **{
            name: facts[name] for name in ("about", "grid", "machine", "plan", "structures", "cells", "partitions",
                                           "column_bytes", "exact_queries", "started", "finished")
        },
        "relevant": {
            f"{cutoff:g}": float(exact.relevant.mean() / records) for (cutoff, _), exact in truth.exact.items()
        },
        "probes": {name: float(np.median(values)) for name, values in probes.items()},
        "methods": methods,
    }  # fmt: skip
    return {**found, "targets": targets(found)}


def _method(
    directory: Path, facts: dict[str, Any], method: dict[str, Any], truth: Truth, queries: dict[str, NDArray[Any]]
) -> dict[str, Any]:
    arrays = raw_results.load(directory / method["file"])
    ids, distances = arrays["ids"], arrays["distances"]
    seconds = {int(name[8:]): values for name, values in arrays.items() if name.startswith("seconds_")}
    sizes = {int(name[5:]): int(value) for name, value in arrays.items() if name.startswith("size_")}
    structure = facts["structures"][method["structure"]]
    whole = arrays.get("average_precision")
    semcut = "cutoff" in method["parameters"]
    return {
        **{name: method[name] for name in ("name", "family", "parameters", "structure")},
        "semcut": semcut,
        "queries": len(ids),
        "batches": measures.latencies(seconds, sizes),
        **measures.quality(arrays["labels"], queries["labels"][: len(ids)], queries["per_label"]),
        "map_all": None if whole is None or np.isnan(whole).all() else float(np.nanmean(whole)),
        "map_all_queries": None if whole is None else len(whole),
        "recall": _mean(measures.recall(ids, distances, truth.distances[: len(ids)])),
        **(_semcut(facts, method["parameters"], arrays, truth, queries) if semcut else {}),
        **{name: structure[name] for name in ("build_seconds", "memory_bytes", "memory_peak")},
        "disk_bytes": structure["disk_bytes"] + (facts["feature_bytes"] if method["reranks"] else 0),
    }


def _semcut(
    facts: dict[str, Any],
    parameters: dict[str, Any],
    arrays: dict[str, NDArray[Any]],
    truth: Truth,
    queries: dict[str, NDArray[Any]],
) -> dict[str, Any]:
    """What only semcut has: exact answers to be held to, and steps."""
    cutoff, ranking = parameters["cutoff"], parameters["ranking"]
    exact: Exact = truth.exact[cutoff, ranking]
    best = truth.exact.get((0.0, ranking))
    whole = {"partitions": facts["partitions"], "cells": facts["cells"], "codes": facts["about"]["records"]}
    ids = arrays["ids"]
    return {
        "recall_equations": _mean(
            measures.recall_of_equations(ids, arrays["distances"], arrays["relevance"], exact, cutoff, ranking)
        ),
        "recall_equations_queries": min(len(ids), len(exact.ids)),
        "scanned": {name: float(arrays[f"steps_{name}"].mean() / max(1, whole[name])) for name in _STEPS},
        "cut_off": float(arrays["steps_cut_off"].mean()),
        "lost": None
        if best is None
        else measures.losses(ids, best, exact, cutoff, queries[f"pruned {cutoff!r} {ranking}"]),
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    return None if not len(values) or np.isnan(values).all() else float(np.nanmean(values))
