"""Compute all figures of a run from its raw results, without searching or timing anything.

The results of one method are read at a time, so memory does not grow with the number of methods.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.measure.dataset_facts import DatasetFacts, MethodFacts
from semcut.connector.benchmark.measure.ground_truth import Truth
from semcut.connector.benchmark.measure.raw_results import REPEAT
from semcut.connector.benchmark.measure.run_limits import complete_results
from semcut.connector.benchmark.measure.run_plan import stored_plan
from semcut.connector.benchmark.measure.stored_results import (
    Arrays,
    load_method,
    load_probes,
    load_queries,
    load_truth,
)
from semcut.connector.benchmark.methods.semcut_methods import SearchPoint
from semcut.connector.benchmark.report import result_metrics
from semcut.connector.benchmark.report.figures import DatasetFigures, MethodFigures, RunFigures, SemcutFigures
from semcut.indexes.errors import DataError


def run_figures(out: Path, command: str | None = None) -> RunFigures:
    """Compute the figures of all complete data sets of a run.

    Args:
        out: the directory of the run.
        command: the command that made the run.

    Raises:
        DataError: the directory has no plan; a file of raw results is missing, damaged or of another plan; a folder of
            the run is a link; or there are more results than a run may have.
    """
    found = sorted(complete_results(out, stored_plan(out)).items(), key=lambda one: one[1].started)
    return RunFigures(command, tuple(dataset_figures(directory, facts) for directory, facts in found))


def dataset_figures(directory: Path, facts: DatasetFacts) -> DatasetFigures:
    """Compute the figures of one data set.

    Args:
        directory: its raw results.
        facts: the content of its dataset.json.

    Raises:
        DataError: a file is missing or damaged.
    """
    try:
        directory.name.encode()
    except UnicodeEncodeError:
        raise DataError(f"the name of {directory} is not valid text: rename it") from None
    queries, probes = load_queries(directory, facts), load_probes(directory, facts)
    truth = load_truth(directory, facts, len(queries["ids"]))
    methods = [_method_figures(directory, facts, method, truth, queries) for method in facts.methods]
    most = max(method.queries for method in methods)
    return DatasetFigures(
        name=directory.name,
        about=facts.about,
        grid=facts.grid,
        machine=facts.machine,
        plan=facts.plan,
        structures=facts.structures,
        cells=facts.cells,
        partitions=facts.partitions,
        column_bytes=facts.column_bytes,
        exact_queries=facts.exact_queries,
        started=facts.started,
        finished=facts.finished,
        relevant={
            cutoff: float(exact.relevant.mean() / facts.about.records) for (cutoff, _), exact in truth.exact.items()
        },
        probes={name: float(np.median(values)) for name, values in probes.items()},
        methods=tuple(replace(method, complete=method.queries == most) for method in methods),
    )


def _method_figures(
    directory: Path, facts: DatasetFacts, method: MethodFacts, truth: Truth, queries: Arrays
) -> MethodFigures:
    """Compute the figures of one method; whether it is complete depends on the others."""
    arrays = load_method(directory, facts, method, len(queries["ids"]))
    ids, distances = arrays["ids"], arrays["distances"]
    seconds = {int(name[8:]): values for name, values in arrays.items() if name.startswith("seconds_")}
    sizes = {int(name[5:]): int(value) for name, value in arrays.items() if name.startswith("size_")}
    structure = facts.structures[method.structure]
    quality = result_metrics.quality(arrays["labels"], queries["labels"][: len(ids)], queries["per_label"])
    precision_of_all = arrays.get("average_precision")
    return MethodFigures(
        name=method.name,
        family=method.family,
        parameters=method.parameters,
        structure=method.structure,
        queries=len(ids),
        batches=result_metrics.batch_figures(seconds, sizes),
        map=quality.map,
        precision=quality.precision,
        map_all=None if precision_of_all is None else _mean(precision_of_all),
        map_all_queries=None if precision_of_all is None else len(precision_of_all),
        recall=_mean(result_metrics.recall(ids, distances, truth.distances[: len(ids)])),
        semcut=_semcut_figures(directory, facts, method, arrays, truth, queries) if method.of_semcut else None,
        build_seconds=structure.build_seconds,
        memory_bytes=structure.memory_bytes,
        memory_peak=structure.memory_peak,
        disk_bytes=structure.disk_bytes + (facts.feature_bytes if method.reranks else 0),
        complete=False,
    )


def _semcut_figures(
    directory: Path, facts: DatasetFacts, method: MethodFacts, arrays: Arrays, truth: Truth, queries: Arrays
) -> SemcutFigures:
    point = SearchPoint.of(method.parameters)
    exact = truth.exact[point.cutoff, point.ranking]
    best = truth.exact.get((0.0, point.ranking))
    total = {"partitions": facts.partitions, "cells": facts.cells, "codes": facts.about.records}
    lost = None
    if best is not None:
        pruned = queries.get(f"pruned {point.cutoff!r} {point.ranking}")
        if pruned is None:
            raise DataError(
                f"{directory / 'queries.npz'} does not say what pruning skips at cutoff {point.cutoff} by "
                f"{point.ranking}: {REPEAT}"
            )
        lost = result_metrics.losses(arrays["ids"], best, exact, point.cutoff, pruned)
    return SemcutFigures(
        point=point,
        recall_equations=_mean(
            result_metrics.recall_of_equations(
                arrays["ids"], arrays["distances"], arrays["relevance"], exact, point.cutoff, point.ranking
            )
        ),
        recall_equations_queries=min(len(arrays["ids"]), len(exact.ids)),
        scanned={name: float(arrays[f"steps_{name}"].mean() / max(1, count)) for name, count in total.items()},
        cut_off=float(arrays["steps_cut_off"].mean()),
        lost=lost,
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    """Return the mean of the values that are numbers; None if there are none."""
    return None if not len(values) or np.isnan(values).all() else float(np.nanmean(values))
