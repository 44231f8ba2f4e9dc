"""Make tables of results, as Markdown and for a terminal.

Tables I to III correspond to those of the paper; `csv_files` writes the figures of each network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from semcut.connector.evaluation.rankings import RANKING_NAMES, RankingName
from semcut.connector.reproduce.baselines import BaselineName
from semcut.connector.reproduce.markdown_text import plain
from semcut.connector.reproduce.method_groups import Group, Metric, Stat, best_group, headline_metric, mean_ap
from semcut.connector.reproduce.network_measurements import KS, SHORTLIST, Measurement
from semcut.indexes.search_defaults import DEFAULT_CUTOFF

CUTOFF = DEFAULT_CUTOFF
"""The cutoff that tables show in addition to t = 0; one of `rankings.CUTOFFS`."""

_MOST_CATEGORIES = 20
_DEFAULT_SEARCH = {"cutoff": CUTOFF, "shortlist": SHORTLIST, "ranking": "distance"}


@dataclass(frozen=True)
class Table:
    """A table: title, headings of the columns, and rows. All columns but the first are aligned right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Convert to Markdown, in which title and cells are texts, whatever they have."""
        rule = "|---" + "|---:" * (len(self.columns) - 1) + "|"
        head, *rows = ("| " + " | ".join(map(plain, row)) + " |" for row in (self.columns, *self.rows))
        return "\n".join([f"**{plain(self.title)}**", "", head, rule, *rows])


def methods(groups: Sequence[Group[Measurement]], metric: Metric) -> Table:
    """Make Table I: mAP of every method, with a column for each group."""
    rows: list[tuple[str, ...]] = []
    baselines: tuple[BaselineName, ...] = get_args(BaselineName)
    for baseline in baselines:
        cells = []
        for group in groups:
            values = [metric.of_baseline(member, baseline) for member in group.members]
            known = [float(value.mean()) for value in values if value is not None]
            cells.append(str(Stat.of(known)) if known else "")
        if any(cells):
            rows.append((f"{baseline} codes of the features", *cells))
    rankings: tuple[tuple[str, RankingName, float], ...] = (
        ("features, Euclidean, exhaustive", "euclidean", 0.0),
        ("codes, Hamming, exhaustive", "hamming", 0.0),
        (f"the {SHORTLIST} nearest codes re-ranked", "shortlist", 0.0),
        (f"the same, t = {CUTOFF:g}", "shortlist", CUTOFF),
        ("relevance R alone", "relevance", 0.0),
        ("fused, R (1 - d)", "fused", 0.0),
        (f"the same, t = {CUTOFF:g}", "fused", CUTOFF),
    )
    for name, ranking, cutoff in rankings:
        rows.append((name, *(str(mean_ap(group, metric, ranking, cutoff)) for group in groups)))
    accuracy = (group.stat(lambda member: float(member.right.mean())) for group in groups)
    rows.append(("accuracy of the class", *map(str, accuracy)))
    return Table(f"{metric} by method and head", ("", *(group.label for group in groups)), tuple(rows))


def categories(groups: Sequence[Group[Measurement]]) -> Table:
    """Make Table II: mAP by category, of the codes of each group, and of the fused ranking of the best group.

    If there are more than 20 categories, the table has the ten best and the ten worst. Categories of which a network
    has no queries are left out.
    """
    names, classes = groups[0].about["names"], groups[0].about["classes"]
    metric = headline_metric(groups[0].about["protocol"])
    best = best_group(groups, metric)
    columns: list[tuple[str, Group[Measurement], RankingName]] = [(group.label, group, "hamming") for group in groups]
    columns.append((f"{best.label}, fused", best, "fused"))
    means = [
        np.array([member.means_by_class(metric.of(member, ranking, 0.0)) for member in group.members])
        for _, group, ranking in columns
    ]  # of each column: (members, C)
    shown = np.flatnonzero(~np.isnan([mean.sum(axis=0) for mean in means]).any(axis=0))
    title = f"{metric} by category: codes by Hamming distance, and the fused ranking of {best.label}"
    if len(shown) > _MOST_CATEGORIES:
        half = _MOST_CATEGORIES // 2
        title += f" (the best and the worst {half} of {len(shown)})"
        ranked = shown[np.argsort(-means[-1][:, shown].mean(axis=0), kind="stable")]
        shown = np.concatenate([ranked[:half], ranked[-half:]])
    rows = [
        (names.get(classes[label], classes[label]), *(str(Stat.of(mean[:, label].tolist())) for mean in means))
        for label in shown
    ]
    return Table(title, ("category", *(name for name, _, _ in columns)), tuple(rows))


def cutoffs(group: Group[Measurement]) -> Table:
    """Make Fig. 4 as a table: mAP of every ranking at every cutoff, and the shares relevant and scanned."""
    metric, at_100 = headline_metric(group.about["protocol"]), Metric(KS[0])
    rows = []
    for place, t in enumerate(group.members[0].comparison.cutoffs):
        maps = [mean_ap(group, metric, name, t) for name in RANKING_NAMES]
        shares = [group.stat(share_of(name, place)) for name in ("relevant", "scanned")]
        rows.append(
            (
                f"{t:g}",
                *(f"{stat.mean:.3f}" for stat in maps),
                f"{mean_ap(group, at_100, 'fused', t).mean:.3f}",
                *(share(stat.mean) for stat in shares),
            )
        )
    columns = ("t", *RANKING_NAMES, f"fused, {at_100}", "records relevant", "records scanned")
    return Table(f"{metric} of {group.label} by ranking and cutoff", columns, tuple(rows))


def share_of(name: str, place: int) -> Callable[[Measurement], float]:
    """Create a function that computes the mean share of records of one network at one cutoff.

    Args:
        name: "relevant" or "scanned".
        place: position of the cutoff in `Comparison.cutoffs`.
    """
    return lambda member: float(getattr(member.comparison, name)[place].mean())


def ratios(groups: Sequence[Group[Measurement]]) -> Table:
    """Make the summary: how much the best group and the fused ranking gain, and what the cutoff costs."""
    protocol = groups[0].about["protocol"]
    metric, at_100 = headline_metric(protocol), Metric(KS[0])
    best = best_group(groups, metric)
    paper = [group for group in groups if group.head == "paper"]
    codes = mean_ap(best, metric, "hamming", 0.0).mean
    cutoffs = best.members[0].comparison.cutoffs
    fused = {t: mean_ap(best, metric, "fused", t).mean for t in cutoffs}
    best_t = max(fused, key=lambda t: fused[t])
    change = mean_ap(best, at_100, "fused", CUTOFF).mean - mean_ap(best, at_100, "fused", 0.0).mean
    relevant, scanned = (best.stat(share_of(name, cutoffs.index(CUTOFF))).mean for name in ("relevant", "scanned"))
    rows = [
        (f"{metric} of the codes of {best.label} over those of {group.label}",
         _ratio(codes, mean_ap(group, metric, "hamming", 0.0).mean))
        for group in paper if group is not best
    ]  # fmt: skip
    rows += [
        (
            f"{metric} of {best.label}: fused ranking (t = {best_t:g}) over Hamming ranking",
            _ratio(fused[best_t], codes),
        ),
        (f"{at_100} of the fused ranking at t = {CUTOFF:g}, minus its value at t = 0", f"{change:+.3f}"),
        (
            f"records scanned over records relevant at t = {CUTOFF:g}",
            _ratio(scanned, relevant) if relevant else "none is relevant",
        ),
    ]
    return Table("In short", ("", "figure"), tuple(rows))


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}" if base else "not defined"


def trainings(groups: Sequence[Group[Measurement]]) -> Table:
    """Make the table of networks: how each was trained, and its accuracy."""
    rows = [
        (
            member.about["name"],
            group.label,
            str(member.about["config"]["seed"]),
            f"{kept['epoch']} of {member.about['config']['epochs']}",
            _minutes(sum(epoch["seconds"] for epoch in member.curve)),
            f"{kept['validation_accuracy']:.3f}",
            f"{kept['validation_hamming_map']:.3f}" if "validation_hamming_map" in kept else "",
            f"{member.right.mean():.3f}",
        )
        for group in groups
        for member in group.members
        for kept in (member.about["kept"],)
    ]
    columns = (
        "network", "head", "seed", "epoch kept", "minutes", "accuracy, validation", "mAP of codes, validation",
        "accuracy, queries",
    )  # fmt: skip
    return Table("The networks", columns, tuple(rows))


def share(value: float) -> str:
    """Write a share as a percentage, with two decimals if it is small."""
    return f"{value:.1%}" if value >= 0.01 else f"{value:.2%}"


def _minutes(seconds: float) -> str:
    """Write a duration in minutes, with a decimal if it is short."""
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{seconds / 60:.1f}"


def speed(run: dict[str, Any]) -> Table | None:
    """Make Table III: time per query against the number of categories, from the figures of a benchmark.

    Args:
        run: the content of the benchmark's run.json.

    Returns:
        The table; None if the benchmark has no fitted records of at least two numbers of categories.
    """
    fitted = [
        dataset
        for dataset in run["datasets"]
        if dataset["about"]["source"].startswith("fitted") and dataset["grid"] != "growth"
    ]
    if len({dataset["about"]["classes"] for dataset in fitted}) < 2:
        return None
    rows = []
    for dataset in sorted(fitted, key=lambda dataset: dataset["about"]["classes"]):
        by_name = {method["name"]: method for method in dataset["methods"]}
        semcut = next((method for method in dataset["methods"] if method["parameters"] == _DEFAULT_SEARCH), None)
        shown = (semcut, by_name.get(f"IndexBinaryFlat + re-rank of {SHORTLIST}"), by_name.get("IndexFlatL2"))
        about = dataset["about"]
        rows.append((f"{about['classes']:,}", f"{about['records']:,}", *(_times(method) for method in shown)))
    columns = (
        "categories",
        "records",
        f"semcut, t = {CUTOFF:g}, {SHORTLIST} re-ranked",
        f"codes, Hamming, exhaustive, {SHORTLIST} re-ranked",
        "features, Euclidean, exhaustive",
    )
    return Table("Time per query, in a batch and alone, by number of categories", columns, tuple(rows))


def _times(method: dict[str, Any] | None) -> str:
    """Write the times per query of a method: the mean in its largest batch, and the median in its smallest."""
    if method is None:
        return ""
    batches = sorted(method["batches"].items(), key=lambda item: int(item[0]))
    return f"{1e6 / batches[-1][1]['queries_per_second']:,.0f} µs; {batches[0][1]['p50_ms']:.2f} ms"
