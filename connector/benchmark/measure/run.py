"""A run: every data set with every method, one data set after the other, raw results kept.

For one data set: read it, build all structures, find the truth, time all methods in turn, look at what each found, and
write it down. A data set that is complete is not run again; an interrupted one starts again from its beginning.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.datasets.dataset import Dataset
from semcut.connector.benchmark.measure import ground_truth, machine, raw_results, stage_times, timing
from semcut.connector.benchmark.measure.memory import Memory
from semcut.connector.benchmark.measure.raw_results import Plan
from semcut.connector.benchmark.methods import semcut_methods
from semcut.connector.benchmark.methods.grids import Grid, structures
from semcut.connector.benchmark.methods.methods import Data, Method, Structure
from semcut.connector.benchmark.methods.semcut_methods import Semcut
from semcut.connector.evaluation.metrics import average_precision
from semcut.indexes import Encodings, FaissIndex
from semcut.indexes.scoring.equations import distance, relevance

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how much of it, of how much, is done."""

_WHOLE_CHUNK = 1 << 20


@dataclass(frozen=True)
class DatasetTask:
    """A data set to run.

    Attributes:
        name: of its directory of results.
        grid: which methods, see `grids`.
        data: makes the data set if it must, and says where it is.
    """

    name: str
    grid: Grid
    data: Callable[[], Path]


def run(out: Path, tasks: Iterable[DatasetTask], plan: Plan, progress: Progress) -> None:
    """Run what is not complete yet.

    Args:
        out: a new directory, or that of the same run, interrupted.
        tasks: data sets; their names differ.
        plan: what to do with each.
        progress: see `Progress`.

    Raises:
        DataError: the directory holds something else; no method is left.
        WrongAnswerError: an exact answer of semcut is wrong.
    """
    raw_results.keep_plan(out, plan)
    machine.pin_threads(plan.threads)
    for task in tasks:
        directory = out / "raw" / task.name
        if raw_results.finished(directory) is None:
            shutil.rmtree(directory, ignore_errors=True)
            path = task.data()
            directory.mkdir(parents=True)
            _run(directory, task, path, plan, progress)
            gc.collect()


def _run(directory: Path, task: DatasetTask, path: Path, plan: Plan, progress: Progress) -> None:
    dataset = Dataset.open(path)
    built: list[Structure] = []
    try:
        started = time.time()
        chosen = np.sort(np.random.default_rng(plan.seed).permutation(dataset.about.queries)[: plan.queries])
        queries = replace(dataset.queries.get(chosen), ids=None, uris=None)
        progress(f"{task.name}: reading", 0, 1)
        data = Data.of(dataset.index, mapped=task.grid == "growth")
        facts: dict[str, dict[str, float]] = {}
        wanted = structures(task.grid, plan.methods)
        for done, structure in enumerate(wanted):
            progress(f"{task.name}: building {structure.name}", done, len(wanted))
            built.append(structure)
            facts[structure.name] = _build(structure, data, queries)
        methods = [method for structure in built for method in structure.methods()]
        exact = _truth(directory, path, dataset, data, queries, methods, plan, task.name, progress)
        raw_results.save(directory / "queries.npz", _facts_of_queries(dataset, queries, chosen, exact))
        semcuts = [structure for structure in built if isinstance(structure, Semcut)]
        times, probed = timing.measure(
            methods,
            queries,
            k=plan.k,
            batches=plan.batches,
            rounds=plan.rounds,
            seconds=plan.call_seconds,
            probes=stage_times.probes(semcuts, queries[: max(plan.batches)], plan.k),
            progress=lambda done, total: progress(f"{task.name}: timing", done, total),
        )
        for done, method in enumerate(methods):
            progress(f"{task.name}: looking at results", done, len(methods))
            columns = _columns(method, times[method.name].ids, queries, chosen, dataset, plan)
            raw_results.save_method(directory, method, times[method.name], columns)
        raw_results.save(directory / "probes.npz", probed)
        raw_results.write_json(
            directory / "dataset.json",
            {
                "about": dataset.about.model_dump(),
                "grid": task.grid,
                "plan": plan.model_dump(mode="json"),
                "machine": machine.describe(),
                "started": started,
                "finished": time.time(),
                "partitions": int(np.count_nonzero(dataset.index.stats().partitions)),
                "cells": dataset.index.stats().cells,
                "column_bytes": dataset.index.stats().column_bytes,
                "feature_bytes": int(data.features.nbytes),
                "exact_queries": {f"{t:g} {ranking}": len(e.ids) for (t, ranking), e in exact.exact.items()},
                "structures": facts,
                "methods": [
                    {
                        "name": method.name,
                        "family": method.family,
                        "parameters": method.parameters,
                        "structure": method.structure.name,
                        "reranks": method.reranks,
                        "file": raw_results.file_name(method.name),
                    }
                    for method in methods
                ],
            },
        )
    finally:
        for structure in built:
            structure.close()
        dataset.close()


def _build(structure: Structure, data: Data, queries: Encodings) -> dict[str, float]:
    with Memory() as memory:
        seconds = structure.build(data)
    facts: dict[str, float] = {"build_seconds": seconds, "memory_bytes": memory.grown, "memory_peak": memory.peak}
    if isinstance(structure, Semcut):
        with Memory() as memory:
            reader = FaissIndex.open(data.path, engine=structure.engine)
            reader.search(queries, k=1, cutoff=semcut_methods.CUTOFF, shortlist=semcut_methods.SHORTLIST)
        reader.close()
        facts |= {"reader_memory_bytes": memory.grown, "reader_mapped_bytes": memory.mapped}
    facts["disk_bytes"] = structure.bytes()
    return facts


def _truth(
    directory: Path,
    path: Path,
    dataset: Dataset,
    data: Data,
    queries: Encodings,
    methods: Sequence[Method],
    plan: Plan,
    name: str,
    progress: Progress,
) -> ground_truth.Truth:
    """The exact answers, kept beside the data set and with the results; and what pruning loses of them."""
    points: dict[ground_truth.Point, None] = {}
    for method in methods:
        if isinstance(method.structure, Semcut):
            points[0.0, method.parameters["ranking"]] = None  # where the best of all records get lost
            points[method.parameters["cutoff"], method.parameters["ranking"]] = None
    if len(data) > _LARGE:
        points = {point: None for point in points if point[0] > 0}
    cached = path / f"truth-{plan.k}-{len(queries)}-{plan.seed}.npz"
    found = ground_truth.find(
        dataset.index,
        data,
        queries,
        points,
        k=plan.k,
        seconds=plan.truth_seconds,
        path=cached,
        progress=lambda done, total: progress(f"{name}: exact answers", done, total),
    )
    found.save(directory / "truth.npz")
    return found


def _facts_of_queries(
    dataset: Dataset, queries: Encodings, chosen: NDArray[np.int64], exact: ground_truth.Truth
) -> dict[str, NDArray[Any]]:
    """Ids and labels of the queries, records of each label, and which of the best records lie in cells not scanned."""
    found: dict[str, NDArray[Any]] = {
        "ids": chosen,
        "labels": dataset.query_labels[chosen],
        "per_label": _per_label(dataset),
    }
    cells = dataset.index._state.columns.cells
    for cutoff, ranking in exact.exact:
        best = exact.exact.get((0.0, ranking))
        if best is not None:
            kept = semcut_methods.cells_kept(dataset.index, queries[: len(best.ids)], cutoff)
            scanned = (cells[best.ids][:, :, None] == kept[:, None, :]).any(axis=2)
            found[f"pruned {cutoff!r} {ranking}"] = ~scanned & (best.ids >= 0)
    return found


def _per_label(dataset: Dataset) -> NDArray[np.int64]:
    """(labels,) int64: records of each label that records or queries have."""
    most = int(max(dataset.record_labels.max(initial=0), dataset.query_labels.max(initial=0)))
    return np.bincount(dataset.record_labels, minlength=most + 1)


_LARGE = 3_000_000
"""Records above which the best answers without any cutoff would take minutes a query."""


def _columns(
    method: Method,
    ids: NDArray[np.int64],
    queries: Encodings,
    chosen: NDArray[np.int64],
    dataset: Dataset,
    plan: Plan,
) -> dict[str, NDArray[Any]]:
    """What is kept of a method's results, beside its times."""
    some = queries[: len(ids)]
    columns = dataset.index._state.columns
    matrix, at = columns.features(ids)
    present = ids >= 0
    distances = np.full(ids.shape, np.inf, np.float32)
    distances[present] = distance(some.features[:, None], matrix[at])[present]
    matrix, at = columns.probabilities(ids)
    weights = dataset.index._similarity.weights(some.probabilities)
    relevances = np.where(present, relevance(weights[:, None], matrix[at]), 0).astype(np.float32)
    columns.release_pages()
    kept: dict[str, NDArray[Any]] = {
        "ids": ids,
        "distances": distances,
        "relevance": relevances,
        "labels": np.where(present, dataset.record_labels[ids], -1).astype(np.int32),
    }
    if method.steps is not None:
        kept |= {f"steps_{name}": values for name, values in method.steps(some, plan.k).items()}
    if method.everything is not None and len(dataset.index) <= plan.whole:
        kept["average_precision"] = _whole(method, queries, dataset, chosen, plan)
    return kept


def _whole(
    method: Method, queries: Encodings, dataset: Dataset, chosen: NDArray[np.int64], plan: Plan
) -> NDArray[np.float64]:
    """(m,) average precision over the whole ranking, of as many queries as the time allows; NaN without a right record.

    The ranking itself would be n ids a query, so this is all that is kept of it.
    """
    assert method.everything is not None
    labels, total = dataset.query_labels[chosen], _per_label(dataset)[dataset.query_labels[chosen]]
    step, parts, start = max(1, _WHOLE_CHUNK // len(dataset.index)), [], time.perf_counter()
    for first in range(0, len(queries), step):
        here = slice(first, first + step)
        ids = method.everything(queries[here])
        right = (ids >= 0) & (dataset.record_labels[ids] == labels[here, None])
        precision = average_precision(right, np.maximum(1, total[here]))
        parts.append(np.where(total[here] > 0, precision, np.nan))
        if time.perf_counter() - start > plan.truth_seconds / 3:
            break
    return np.concatenate(parts)
