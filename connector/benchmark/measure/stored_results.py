"""Read the raw results of one data set, and compare them with what `dataset.json` says of them.

The directory of a run may come from someone else. So no array is read that `raw_results` would not have written for
this plan, these methods and this number of queries, and every number that a figure divides by, or looks up, is checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.datasets.array_files import Array
from semcut.connector.benchmark.measure import raw_results
from semcut.connector.benchmark.measure.dataset_facts import DatasetFacts, MethodFacts
from semcut.connector.benchmark.measure.ground_truth import Truth, answer_bytes
from semcut.connector.benchmark.methods.semcut_methods import SearchPoint
from semcut.indexes.errors import DataError

Arrays = dict[str, NDArray[Any]]

_STEPS = ("partitions", "cells", "codes", "cut_off")


def load_queries(directory: Path, facts: DatasetFacts) -> Arrays:
    """Read queries.npz; its arrays have nq rows, the number of queries of the run.

    Raises:
        DataError: the file is missing or damaged, or has other arrays.
    """
    path, most = directory / "queries.npz", min(facts.plan.queries, facts.about.queries)
    columns = {
        "ids": Array("i8", (most,)),
        "labels": Array("i4", (most,)),
        "per_label": Array("i8", ((1, facts.about.classes),)),
    }
    pruned = Array("?", ((1, most), facts.plan.k))
    arrays = raw_results.load_arrays(
        path, lambda name: pruned if name.startswith("pruned ") else columns.get(name), columns,
        answer_bytes(most, facts.plan.k),
    )  # fmt: skip
    labels, per_label = arrays["labels"], arrays["per_label"]
    _require(path, "labels", labels.min() >= 0 and labels.max() < len(per_label))
    _require(path, "per_label", per_label.min() >= 0 and per_label.max() <= facts.about.records)
    return arrays


def load_truth(directory: Path, facts: DatasetFacts, queries: int) -> Truth:
    """Read the exact answers to nq queries, for every point of semcut's methods.

    Raises:
        DataError: the file is missing or damaged, or lacks answers.
    """
    truth = Truth.load(directory / "truth.npz", queries, facts.plan.k)
    points = [SearchPoint.of(method.parameters) for method in facts.methods if method.of_semcut]
    for point in points:
        if (point.cutoff, point.ranking) not in truth.exact:
            raise DataError(
                f"{directory / 'truth.npz'} has no exact answers at cutoff {point.cutoff} by {point.ranking}: "
                f"{raw_results.REPEAT}"
            )
    return truth


def load_probes(directory: Path, facts: DatasetFacts) -> Arrays:
    """Read probes.npz: (rounds,) seconds by name.

    Raises:
        DataError: the file is missing or damaged, or has other arrays.
    """
    seconds, path = Array("f8", (facts.plan.rounds,)), directory / "probes.npz"
    arrays = raw_results.load_arrays(path, lambda name: seconds if len(name) <= 200 else None)
    for name, values in arrays.items():
        _require(path, name, ((values >= 0) & (values <= raw_results.LONGEST)).all())
    return arrays


def load_method(directory: Path, facts: DatasetFacts, method: MethodFacts, queries: int) -> Arrays:
    """Read the results of a method for the first m of nq queries, and the seconds of its calls.

    Raises:
        DataError: the file is missing or damaged, or has other arrays.
    """
    path, rows, k = directory / method.file, (1, queries), facts.plan.k
    columns = {
        "ids": Array("i8", (rows, k)),
        "distances": Array("f4", (rows, k)),
        "relevance": Array("f4", (rows, k)),
        "labels": Array("i4", (rows, k)),
    }
    if method.of_semcut:
        columns |= {f"steps_{name}": Array("i8", (rows,)) for name in _STEPS}
    for batch, calls in facts.plan.most_calls.items():
        columns |= {f"seconds_{batch}": Array("f8", ((1, calls),)), f"size_{batch}": Array("i8", ())}
    optional = {"average_precision": Array("f8", (rows,))}
    arrays = raw_results.load_arrays(path, (columns | optional).get, columns)
    raw_results.require_same_length(
        path, {name: array for name, array in arrays.items() if name in columns and columns[name].shape[:1] == (rows,)}
    )
    for name, values in arrays.items():
        if name.startswith("seconds_"):
            _require(path, name, _are_seconds(values))
        elif name.startswith("size_"):
            _require(path, name, 1 <= int(values) <= queries)
        elif name.startswith("steps_"):
            _require(path, name, values.min() >= 0)
        elif name == "average_precision":
            _require(path, name, bool((np.isnan(values) | ((values >= 0) & (values <= 1))).all()))
    return arrays


def _are_seconds(values: NDArray[np.float64]) -> np.bool_:
    """Return whether all values are seconds that a call can take; NaN is none."""
    return ((values >= raw_results.SHORTEST) & (values <= raw_results.LONGEST)).all()


def _require(path: Path, name: str, right: bool | np.bool_) -> None:
    if not right:
        raise DataError(f"{path} has numbers in {name!r} that cannot be right: {raw_results.REPEAT}")
