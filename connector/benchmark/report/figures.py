"""Define the figures of a run: of each data set, of each method on a data set, and of each size of batch.

All classes are frozen; `as_dict` gives the content of run.json. A figure that is not known is None.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from semcut.connector.benchmark.datasets.dataset import About
from semcut.connector.benchmark.measure.dataset_facts import StructureFacts
from semcut.connector.benchmark.measure.machine import Machine
from semcut.connector.benchmark.measure.run_plan import Plan
from semcut.connector.benchmark.methods.grids import Grid
from semcut.connector.benchmark.methods.semcut_methods import SearchPoint
from semcut.connector.benchmark.methods.structures import Parameters

KINDS = ("semcut", "features + classes", "codes + re-rank", "codes", "features")
"""The kinds of methods, by what they search."""


@dataclass(frozen=True)
class BatchFigures:
    """The speed of a method in batches of one size.

    Attributes:
        queries: queries of a call.
        calls: timed calls.
        queries_per_second: queries of a call over the median time of a call.
        p50_ms, p95_ms, p99_ms: percentiles of the time of a call, in milliseconds.
    """

    queries: int
    calls: int
    queries_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Losses:
    """Shares of the k best of all records (best without a cutoff) that are lost at each step, or found; they sum to 1.

    Attributes:
        cutoff: records whose relevance is not above the cutoff.
        pruning: relevant records in cells that were skipped; 0, since pruning is exact.
        shortlist: relevant records in cells that were scanned, but not near enough by code.
        found: all other records.
    """

    cutoff: float
    pruning: float
    shortlist: float
    found: float


@dataclass(frozen=True)
class SemcutFigures:
    """Figures that only semcut's methods have.

    Attributes:
        point: the search parameters.
        recall_equations: recall@k of the exact answers by Eq. 2-4 at the same cutoff.
        recall_equations_queries: number of queries with such answers.
        scanned: shares of all "partitions", "cells" and "codes" that a query scans, on average.
        cut_off: records that a query scans and the cutoff drops, on average.
        lost: steps at which the best records are lost; None if the best of all records are not known.
    """

    point: SearchPoint
    recall_equations: float | None
    recall_equations_queries: int
    scanned: dict[str, float]
    cut_off: float
    lost: Losses | None

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON; the point is already among the parameters of the method."""
        return {name: value for name, value in asdict(self).items() if name != "point"}


@dataclass(frozen=True)
class MethodFigures:
    """Figures of a method on a data set.

    Attributes:
        name, family, parameters, structure: see `Method`.
        queries: number of queries that the quality is measured on.
        batches: speed by nominal size of batch.
        map: mAP@k by labels.
        precision: precision@k by labels.
        map_all: mAP of the ranking of all records.
        map_all_queries: number of queries with such a ranking.
        recall: recall@k of the nearest features.
        semcut: figures that only semcut's methods have; None for other methods.
        build_seconds, memory_bytes, memory_peak, disk_bytes: see `StructureFacts`; the features that a re-rank reads
            are added to the bytes on the disk.
        complete: whether the quality is measured on the largest number of queries that any method has answered. Only
            complete methods are compared by quality.
    """

    name: str
    family: str
    parameters: Parameters
    structure: str
    queries: int
    batches: dict[int, BatchFigures]
    map: float | None
    precision: float | None
    map_all: float | None
    map_all_queries: int | None
    recall: float | None
    semcut: SemcutFigures | None
    build_seconds: float
    memory_bytes: int
    memory_peak: int
    disk_bytes: int
    complete: bool

    @property
    def kind(self) -> str:
        """The kind of the method, one of `KINDS`."""
        if self.semcut is not None:
            return "semcut"
        if "joined" in self.family or "argmax class" in self.family:
            return "features + classes"
        if "Binary" not in self.family and "hamming" not in self.family:
            return "features"
        return "codes + re-rank" if self.reranks else "codes"

    @property
    def reranks(self) -> bool:
        """Whether a re-rank reads features that are not part of the index."""
        return "re-rank" in self.family

    def queries_per_second(self, batch: int) -> float:
        """Return the speed in batches of a nominal size."""
        return self.batches[batch].queries_per_second

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        content = asdict(self)
        return {
            **{name: content[name] for name in ("name", "family", "parameters", "structure")},
            "semcut": self.semcut is not None,
            "queries": self.queries,
            "batches": {str(size): figures for size, figures in content["batches"].items()},
            **{name: content[name] for name in ("map", "precision", "map_all", "map_all_queries", "recall")},
            **({} if self.semcut is None else self.semcut.as_dict()),
            **{
                name: content[name]
                for name in ("build_seconds", "memory_bytes", "memory_peak", "disk_bytes", "complete")
            },
        }


@dataclass(frozen=True)
class DatasetFigures:
    """Figures of a data set.

    Attributes:
        name: name of its directory of raw results.
        about, grid, machine, plan, structures, cells, partitions, column_bytes, exact_queries, started, finished: see
            `DatasetFacts`.
        relevant: share of records that are relevant to a query, on average, by cutoff.
        probes: median seconds of each probe, see `stage_times`.
        methods: the methods.
    """

    name: str
    about: About
    grid: Grid
    machine: Machine
    plan: Plan
    structures: dict[str, StructureFacts]
    cells: int
    partitions: int
    column_bytes: dict[str, int]
    exact_queries: dict[str, int]
    started: float
    finished: float
    relevant: dict[float, float]
    probes: dict[str, float]
    methods: tuple[MethodFigures, ...]

    def best_methods(self) -> list[MethodFigures]:
        """Return the methods that no other beats in both mAP@k and queries/s of the largest batch, best mAP first.

        Only complete methods are compared.
        """
        batch = self.plan.largest_batch
        points = [
            ((method.map, method.queries_per_second(batch)), method)
            for method in self.methods
            if method.complete and method.map is not None
        ]
        best = set(pareto_front(point for point, _ in points))
        return [method for point, method in sorted(points, key=lambda one: -one[0][0]) if point in best]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {
            "name": self.name,
            "about": self.about.model_dump(),
            "grid": self.grid,
            "machine": asdict(self.machine),
            "plan": self.plan.model_dump(mode="json"),
            "structures": {name: facts.as_dict() for name, facts in self.structures.items()},
            "cells": self.cells,
            "partitions": self.partitions,
            "column_bytes": self.column_bytes,
            "exact_queries": self.exact_queries,
            "started": self.started,
            "finished": self.finished,
            "relevant": {f"{cutoff:g}": share for cutoff, share in self.relevant.items()},
            "probes": self.probes,
            "methods": [method.as_dict() for method in self.methods],
        }


@dataclass(frozen=True)
class RunFigures:
    """Figures of a run.

    Attributes:
        command: the command that made the run; None if it is not known.
        datasets: the data sets, in the order in which they were measured.
    """

    command: str | None
    datasets: tuple[DatasetFigures, ...]

    @property
    def growth(self) -> list[DatasetFigures]:
        """The data sets of the growth curve, the smallest first."""
        return sorted((one for one in self.datasets if one.grid == "growth"), key=lambda one: one.about.records)

    @property
    def compared(self) -> list[DatasetFigures]:
        """All other data sets."""
        return [one for one in self.datasets if one.grid != "growth"]

    def as_dict(self) -> dict[str, Any]:
        """Return the content of run.json."""
        return {"command": self.command, "datasets": [one.as_dict() for one in self.datasets]}


def pareto_front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other point exceeds in both coordinates, from left to right."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points), reverse=True):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front[::-1]
