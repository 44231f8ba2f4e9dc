"""Compare semcut's default searches with the best setting of every other index, and say where the other one is better.

A rival is a family of methods, such as one graph with all values of efSearch. Its best setting is the fastest of those
with at least semcut's mAP@k; if it has none, the one with the nearest mAP below, which is always named as such. The
best setting for batches and that for one query may differ. Only methods whose quality was measured on the same queries
are compared. Factors are above 1 where the rival is better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from semcut.connector.benchmark.methods.grids import LIBRARIES
from semcut.connector.benchmark.methods.semcut_methods import RANKINGS, SearchPoint
from semcut.connector.benchmark.report.figures import DatasetFigures, MethodFigures

_SLACK = 1e-9  # of a comparison of mAP


@dataclass(frozen=True)
class Rival:
    """A family of methods, compared with one search of semcut.

    Attributes:
        family: name of the family.
        as_good: whether a setting has at least semcut's mAP.
        batch: the best setting for the largest batch.
        single: the best setting for the smallest batch, one query.
        faster_in_batches, faster_alone, faster_built, smaller: how many times as fast as semcut the rival is in
            batches, with one query and to build, and how many times less memory it takes. The last two are None where
            a figure is too small to measure.
    """

    family: str
    as_good: bool
    batch: MethodFigures
    single: MethodFigures
    faster_in_batches: float
    faster_alone: float
    faster_built: float | None
    smaller: float | None


def chosen(dataset: DatasetFigures) -> list[MethodFigures]:
    """Return semcut's searches with the default cutoff and shortlist, by each ranking, of its default scanner."""
    points = [SearchPoint(ranking=ranking) for ranking in RANKINGS]
    found = [method for method in dataset.methods if method.semcut is not None and method.semcut.point in points]
    return [method for method in found if method.structure == found[0].structure and method.map is not None]


def rivals(dataset: DatasetFigures, semcut: MethodFigures) -> list[Rival]:
    """Compare a search of semcut with every other family: those of at least its mAP first, then the fastest first."""
    batch, one = dataset.plan.largest_batch, dataset.plan.smallest_batch
    families: dict[str, list[MethodFigures]] = {}
    for method in dataset.methods:
        if method.semcut is None and method.map is not None and method.queries == semcut.queries:
            families.setdefault(method.family, []).append(method)
    found = []
    for family, methods in families.items():
        fastest, as_good = best_setting(methods, semcut, lambda method: method.queries_per_second(batch))
        quickest, _ = best_setting(methods, semcut, lambda method: -method.batches[one].p50_ms)
        found.append(
            Rival(
                family=family,
                as_good=as_good,
                batch=fastest,
                single=quickest,
                faster_in_batches=fastest.queries_per_second(batch) / semcut.queries_per_second(batch),
                faster_alone=semcut.batches[one].p50_ms / quickest.batches[one].p50_ms,
                faster_built=_factor(semcut.build_seconds, fastest.build_seconds),
                smaller=_factor(memory(dataset, semcut), memory(dataset, fastest)),
            )
        )
    return sorted(found, key=lambda rival: (not rival.as_good, -rival.faster_in_batches))


def best_setting(
    methods: Iterable[MethodFigures], semcut: MethodFigures, speed: Callable[[MethodFigures], float]
) -> tuple[MethodFigures, bool]:
    """Return the fastest method of at least semcut's mAP, or else the one with the highest mAP; and which of the two.

    Args:
        methods: at least one method.
        semcut: a search of semcut.
        speed: larger for a faster method.
    """
    every = list(methods)
    as_good = [method for method in every if (method.map or 0.0) >= (semcut.map or 0.0) - _SLACK]
    if as_good:
        return max(as_good, key=speed), True
    return max(every, key=lambda method: (method.map or 0.0, speed(method))), False


def memory(dataset: DatasetFigures, method: MethodFigures) -> int:
    """Return the bytes of memory of a method: its index, and the features that a re-rank reads in addition."""
    features = 4 * dataset.about.records * dataset.about.dim
    return method.memory_bytes + (features if method.reranks else 0)


def sentences(dataset: DatasetFigures, semcut: MethodFigures, *, below: bool = True) -> list[str]:
    """Say in which respects each rival is better than a search of semcut, one sentence per rival, as plain text.

    Args:
        dataset: the data set.
        semcut: one of its methods.
        below: whether to say it also of rivals without a setting of at least semcut's mAP.
    """
    compared = rivals(dataset, semcut)
    lines = [_sentence(dataset, semcut, rival) for rival in compared if below or rival.as_good]
    if not any(rival.as_good and max(rival.faster_in_batches, rival.faster_alone) > 1 for rival in compared):
        lines.insert(0, f"No other index that was measured is faster than {semcut.name} with at least its mAP.")
    return [line for line in lines if line] + _not_compared(dataset, semcut)


def _sentence(dataset: DatasetFigures, semcut: MethodFigures, rival: Rival) -> str:
    """Say what is better about a rival; empty if nothing is."""
    batch, one = dataset.plan.largest_batch, dataset.plan.smallest_batch
    better = []
    if rival.faster_in_batches > 1:
        better.append(
            f"is faster than semcut by a factor of {rival.faster_in_batches:.2f} in batches of {batch} "
            f"({_prefix(rival.batch)}{rival.batch.queries_per_second(batch):,.0f} and "
            f"{semcut.queries_per_second(batch):,.0f} queries/s, {_maps(rival.batch, semcut)})"
        )
    if rival.faster_alone > 1:
        better.append(
            f"is faster than semcut by a factor of {rival.faster_alone:.2f} for {_queries(one)} "
            f"({_prefix(rival.single)}{rival.single.batches[one].p50_ms:.3f} and {semcut.batches[one].p50_ms:.3f} ms, "
            f"{_maps(rival.single, semcut)})"
        )
    if rival.faster_built is not None and rival.faster_built > 1:
        better.append(f"is built faster by a factor of {rival.faster_built:.2f}")
    if rival.smaller is not None and rival.smaller > 1:
        better.append(f"takes less memory by a factor of {rival.smaller:.2f}")
    if not better:
        return ""
    below = "" if rival.as_good else ", with a lower mAP than semcut's in all of its settings,"
    return f"{rival.family}{below} {_listed(better)}."


def _not_compared(dataset: DatasetFigures, semcut: MethodFigures) -> list[str]:
    """Name the families measured on other queries, and the optional libraries that the run has no method of."""
    others = {method.family: None for method in dataset.methods if method.semcut is None}
    slow = [family for family in others if family not in {rival.family for rival in rivals(dataset, semcut)}]
    lines = [f"{', '.join(slow)}: not compared, since all queries would have taken too long."] if slow else []
    for library in LIBRARIES:
        if not any(method.structure.startswith(library) for method in dataset.methods):
            reason = "" if library in dataset.machine.versions else ", since it was not installed"
            lines.append(f"{library} was not measured{reason}.")
    return lines


def setting(method: MethodFigures) -> str:
    """Return the search parameters of a method as text; empty if it has none."""
    return ", ".join(f"{name} {value}" for name, value in method.parameters.items())


def _prefix(method: MethodFigures) -> str:
    return f"{setting(method)}: " if method.parameters else ""


def _queries(batch: int) -> str:
    return "one query" if batch == 1 else f"{batch} queries"


def _maps(rival: MethodFigures, semcut: MethodFigures) -> str:
    return f"mAP {rival.map or 0:.4f} and {semcut.map or 0:.4f}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{'; '.join(parts[:-1])}; and {parts[-1]}"


def _factor(semcut: float, rival: float) -> float | None:
    return semcut / rival if semcut > 0 and rival > 0 else None
