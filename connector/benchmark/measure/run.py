"""Run a benchmark: measure every data set with every method, one data set after the other, and store the raw results.

For one data set: read it, build all structures, find the exact answers, time all methods in turn, and collect
and write the results of each method. A data set whose results are complete is not measured again; a data set whose run
was interrupted is measured again from the start.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from semcut.connector.benchmark.datasets.dataset import Dataset
from semcut.connector.benchmark.datasets.dataset_tasks import DatasetTask
from semcut.connector.benchmark.datasets.run_folders import delete_results
from semcut.connector.benchmark.measure import ground_truth, raw_results, stage_times, timing
from semcut.connector.benchmark.measure.dataset_facts import DatasetFacts, MethodFacts, StructureFacts
from semcut.connector.benchmark.measure.machine import Machine, set_threads
from semcut.connector.benchmark.measure.process_memory import MemoryGrowth
from semcut.connector.benchmark.measure.result_columns import method_columns, query_columns
from semcut.connector.benchmark.measure.run_limits import missing_tasks
from semcut.connector.benchmark.measure.run_plan import Plan, keep_plan
from semcut.connector.benchmark.methods.grids import structures
from semcut.connector.benchmark.methods.semcut_methods import SearchPoint, Semcut
from semcut.connector.benchmark.methods.structures import Data, Method, Structure
from semcut.indexes import Encodings, FaissIndex
from semcut.indexes.progress import Progress
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_SHORTLIST

_MOST_WITHOUT_CUTOFF = 3_000_000
"""Number of records above which the best answers without any cutoff would take minutes per query."""


def run(out: Path, tasks: Iterable[DatasetTask], plan: Plan, progress: Progress) -> None:
    """Measure all data sets whose results are not complete.

    Args:
        out: a new directory, or that of the same run after an interruption.
        tasks: the data sets; their names differ.
        plan: what to do with each data set.
        progress: callback that gets the progress and the name of each part of the work.

    Raises:
        DataError: the directory holds a run with another plan, something else, or links; the plan chooses no method; or
            the results would be more than a report reads.
        WrongAnswerError: an exact answer of semcut is wrong.
    """
    keep_plan(out, plan)
    set_threads(plan.threads)
    for task in missing_tasks(out, list(tasks), plan):
        directory = out / "raw" / task.name
        methods = (one for each in structures(task.grid, plan.methods) for one in each.methods())
        delete_results(directory, (raw_results.file_name(method.name) for method in methods))
        path = task.make()
        directory.mkdir(parents=True)
        _measure(directory, task, path, plan, progress)
        gc.collect()


def _measure(directory: Path, request: DatasetTask, path: Path, plan: Plan, progress: Progress) -> None:
    """Measure one data set and write its raw results to a directory."""

    def report(done: int, total: int, task: str = "") -> None:
        progress(done, total, f"{request.name}: {task}")

    built: list[Structure] = []
    with Dataset.open(path) as dataset:
        try:
            started = time.time()
            chosen = np.sort(np.random.default_rng(plan.seed).permutation(dataset.about.queries)[: plan.queries])
            stored = dataset.queries.get(chosen)
            queries = Encodings(
                probabilities=stored.probabilities, codes=stored.codes, features=stored.features, any_mass=True
            )
            report(0, 1, "reading")
            data = Data.of(dataset.index, dataset.index_path, mapped=request.grid == "growth")
            costs: dict[str, StructureFacts] = {}
            wanted = structures(request.grid, plan.methods, classes=dataset.about.classes)
            for done, structure in enumerate(wanted):
                report(done, len(wanted), f"building {structure.name}")
                built.append(structure)
                costs[structure.name] = _build(structure, data, queries)
            methods = [method for structure in built for method in structure.methods()]
            truth = ground_truth.find_truth(
                dataset.index,
                data,
                queries,
                _points(methods, len(data)),
                k=plan.k,
                seconds=plan.truth_seconds,
                progress=report,
            )
            truth.save(directory / "truth.npz")
            raw_results.save_arrays(directory / "queries.npz", query_columns(dataset, queries, chosen, truth))
            of_semcut = [structure for structure in built if isinstance(structure, Semcut)]
            times, probed = timing.measure(
                methods,
                queries,
                k=plan.k,
                batches=plan.batches,
                rounds=plan.rounds,
                seconds=plan.call_seconds,
                probes=stage_times.probes(of_semcut, queries[: plan.largest_batch], plan.k),
                progress=report,
            )
            for done, method in enumerate(methods):
                report(done, len(methods), "collecting results")
                columns = method_columns(method, times[method.name].ids, queries, chosen, dataset, plan)
                raw_results.save_method(directory, method, times[method.name], columns)
            raw_results.save_arrays(directory / "probes.npz", probed)
            stats = dataset.index.stats()
            DatasetFacts(
                about=dataset.about,
                grid=request.grid,
                plan=plan,
                machine=Machine.current(),
                started=started,
                finished=time.time(),
                partitions=int(np.count_nonzero(stats.partitions)),
                cells=stats.cells,
                column_bytes=stats.column_bytes,
                feature_bytes=int(data.features.nbytes),
                exact_queries={f"{t:g} {ranking}": len(e.ids) for (t, ranking), e in truth.exact.items()},
                structures=costs,
                methods=tuple(_method_facts(method) for method in methods),
            ).write(directory)
        finally:
            for structure in built:
                structure.close()


def _build(structure: Structure, data: Data, queries: Encodings) -> StructureFacts:
    """Build a structure and measure its cost; for semcut, also the cost of an index that is opened from the disk."""
    with MemoryGrowth() as building:
        seconds = structure.build(data)
    facts = StructureFacts(
        build_seconds=seconds,
        memory_bytes=building.grown,
        memory_peak=building.peak,
        disk_bytes=structure.bytes(),
    )
    if not isinstance(structure, Semcut):
        return facts
    with MemoryGrowth() as reading:
        reader = FaissIndex.open(data.path, engine=structure.engine)
        reader.search(queries, k=1, cutoff=DEFAULT_CUTOFF, shortlist=DEFAULT_SHORTLIST, fill=False)
    reader.close()
    return replace(facts, reader_memory_bytes=reading.grown, reader_mapped_bytes=reading.mapped)


def _points(methods: Sequence[Method], records: int) -> list[ground_truth.Point]:
    """List the cutoffs and rankings that need exact answers.

    Cutoff 0 is among them, since a search with a cutoff is also compared with the best of all records.
    """
    points: dict[ground_truth.Point, None] = {}
    for method in methods:
        if isinstance(method.structure, Semcut):
            point = SearchPoint.of(method.parameters)
            points[0.0, point.ranking] = None
            points[point.cutoff, point.ranking] = None
    return [point for point in points if point[0] > 0 or records <= _MOST_WITHOUT_CUTOFF]


def _method_facts(method: Method) -> MethodFacts:
    return MethodFacts(
        name=method.name,
        family=method.family,
        parameters=method.parameters,
        structure=method.structure.name,
        reranks=method.reranks,
        file=raw_results.file_name(method.name),
    )
