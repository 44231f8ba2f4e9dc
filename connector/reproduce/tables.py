"""Tables of results: for reading, as Markdown, and for going on with, as CSV with a row per network and figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table as RichTable

from semcut.connector.evaluation.rankings import NAMES, RankingName
from semcut.connector.reproduce.groups import Group, Metric, Stat, best, headline
from semcut.connector.reproduce.measured import KS, SHORTLIST, Measured

CUTOFF = 0.2
_MANY = 20
_DEFAULT = {"cutoff": CUTOFF, "shortlist": SHORTLIST, "ranking": "distance"}


@dataclass(frozen=True)
class Table:
    """A table for reading: its title, the heads of its columns, and its rows; all but the first column are figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As Markdown."""
        rule = "|---" + "|---:" * (len(self.columns) - 1) + "|"
        head, *rows = (
            "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (self.columns, *self.rows)
        )
        return "\n".join([f"**{self.title}**", "", head, rule, *rows])

    def rich(self, title: str) -> RichTable:
        """For a terminal."""
        table = RichTable(*map(escape, self.columns), title=title)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table


def methods(groups: Sequence[Group], metric: Metric) -> Table:
    """Table I: mAP of every method, a column for each group."""
    rows: list[tuple[str, ...]] = []
    for name in ("LSH", "ITQ"):
        cells = []
        for group in groups:
            values = [metric.of_baseline(member, name) for member in group.members]
            known = [float(value.mean()) for value in values if value is not None]
            cells.append(str(Stat.of(known)) if known else "")
        if any(cells):
            rows.append((f"{name} codes of the features", *cells))
    listed: tuple[tuple[str, RankingName, float], ...] = (
        ("features, Euclidean, exhaustive", "euclidean", 0.0),
        ("codes, Hamming, exhaustive", "hamming", 0.0),
        (f"the {SHORTLIST} nearest codes re-ranked", "shortlist", 0.0),
        (f"the same, t = {CUTOFF:g}", "shortlist", CUTOFF),
        ("relevance R alone", "relevance", 0.0),
        ("fused, R (1 - d)", "fused", 0.0),
        (f"the same, t = {CUTOFF:g}", "fused", CUTOFF),
    )
    rows += [(name, *(str(group.map(metric, ranking, cutoff)) for group in groups)) for name, ranking, cutoff in listed]
    rows.append(("class of the query named", *(str(group.stat(lambda one: one.right.mean())) for group in groups)))
    return Table(f"{metric} by method and head", ("", *(group.label for group in groups)), tuple(rows))


def categories(groups: Sequence[Group]) -> Table:
    """Table II: mAP per category, by codes for each group and fused for the best; of many, the best and the worst."""
    names = groups[0].about["names"]
    metric = headline(groups[0].about["protocol"])
    first = best(groups, metric)
    columns: list[tuple[str, Group, RankingName]] = [(group.label, group, "hamming") for group in groups]
    columns.append((f"{first.label}, fused", first, "fused"))
    rows = []
    for label, folder in enumerate(groups[0].about["classes"]):
        stats = [group.stat(_of_class(metric, ranking, label)) for _, group, ranking in columns]
        rows.append((stats[-1].mean, (names.get(folder, folder), *(str(stat) for stat in stats))))
    title = f"{metric} by category: codes by Hamming distance, and the fused ranking of {first.label}"
    if len(rows) > _MANY:
        rows.sort(key=lambda row: -row[0])
        rows = rows[: _MANY // 2] + rows[-_MANY // 2 :]
        title += f" (the best and the worst {_MANY // 2} of {len(groups[0].about['classes'])})"
    return Table(title, ("category", *(name for name, _, _ in columns)), tuple(row for _, row in rows))


def _of_class(metric: Metric, ranking: RankingName, label: int) -> Any:
    return lambda member: metric.of(member, ranking, 0.0)[member.labels == label].mean()


def cutoffs(group: Group) -> Table:
    """Fig. 4 in figures: every ranking at every cutoff, and what it leaves to scan."""
    metric, near = headline(group.about["protocol"]), Metric(KS[0])
    rows = []
    for place, t in enumerate(group.members[0].comparison.cutoffs):
        maps = [group.map(metric, name, t) for name in NAMES]
        shares = [group.stat(share_of(name, place)) for name in ("relevant", "scanned")]
        rows.append(
            (
                f"{t:g}",
                *(f"{stat.mean:.3f}" for stat in maps),
                f"{group.map(near, 'fused', t).mean:.3f}",
                *(_share(stat.mean) for stat in shares),
            )
        )
    columns = ("t", *NAMES, f"fused, {near}", "records relevant", "records scanned")
    return Table(f"{metric} of {group.label} by ranking and cutoff", columns, tuple(rows))


def share_of(name: str, place: int) -> Any:
    """A network's mean share of records, `relevant` or `scanned`, at the cutoff in that place."""
    return lambda member: getattr(member.comparison, name)[place].mean()


def ratios(groups: Sequence[Group]) -> Table:
    """What the better head and the fused ranking gain, and what the cutoff costs."""
    protocol = groups[0].about["protocol"]
    metric, near = headline(protocol), Metric(KS[0])
    first = best(groups, metric)
    paper = [group for group in groups if group.head == "paper"]
    codes = first.map(metric, "hamming", 0.0).mean
    cutoffs = first.members[0].comparison.cutoffs
    fused = {t: first.map(metric, "fused", t).mean for t in cutoffs}
    top = max(fused, key=lambda t: fused[t])
    loss = first.map(near, "fused", CUTOFF).mean - first.map(near, "fused", 0.0).mean
    relevant, scanned = (first.stat(share_of(name, cutoffs.index(CUTOFF))).mean for name in ("relevant", "scanned"))
    rows = [
        (f"{metric} of the codes of {first.label} over those of {group.label}",
         f"{codes / group.map(metric, 'hamming', 0.0).mean:.2f}")
        for group in paper if group is not first
    ]  # fmt: skip
    rows += [
        (f"{metric} of {first.label}: fused ranking (t = {top:g}) over Hamming ranking", f"{fused[top] / codes:.2f}"),
        (f"{near} of the fused ranking at t = {CUTOFF:g}, less that at t = 0", f"{loss:+.3f}"),
        (
            f"records scanned over records relevant at t = {CUTOFF:g}",
            f"{scanned / relevant:.2f}" if relevant else "none is relevant",
        ),
    ]
    return Table("In short", ("", "figure"), tuple(rows))


def trainings(groups: Sequence[Group]) -> Table:
    """How each network was trained, and what it says of the queries."""
    rows = [
        (
            member.about["name"],
            group.label,
            str(member.about["config"]["seed"]),
            f"{kept['epoch']} of {member.about['config']['epochs']}",
            _minutes(sum(line["seconds"] for line in member.curve)),
            f"{kept['validation_accuracy']:.3f}",
            f"{kept['validation_hamming_map']:.3f}" if "validation_hamming_map" in kept else "",
            f"{member.right.mean():.3f}",
        )
        for group in groups
        for member in group.members
        for kept in (member.about["kept"],)
    ]
    columns = (
        "network", "head", "seed", "epoch kept", "minutes", "class named, validation", "mAP of codes, validation",
        "class named, queries",
    )  # fmt: skip
    return Table("The networks", columns, tuple(rows))


def _share(value: float) -> str:
    return f"{value:.1%}" if value >= 0.01 else f"{value:.2%}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{seconds / 60:.1f}"


def speed(run: dict[str, Any]) -> Table | None:
    """Table III: time per query against the number of categories, from the figures of a benchmark.

    Args:
        run: the content of its run.json.

    Returns:
        None if no records of several numbers of categories were searched.
    """
    fitted = [one for one in run["datasets"] if one["about"]["source"].startswith("fitted") and one["grid"] != "growth"]
    if len({one["about"]["classes"] for one in fitted}) < 2:
        return None
    rows = []
    for dataset in sorted(fitted, key=lambda one: one["about"]["classes"]):
        by_name = {method["name"]: method for method in dataset["methods"]}
        ours = next((method for method in dataset["methods"] if method["parameters"] == _DEFAULT), None)
        listed = (ours, by_name.get(f"IndexBinaryFlat + re-rank of {SHORTLIST}"), by_name.get("IndexFlatL2"))
        about = dataset["about"]
        rows.append((f"{about['classes']:,}", f"{about['records']:,}", *(_times(method) for method in listed)))
    columns = (
        "categories",
        "records",
        f"semcut, t = {CUTOFF:g}, {SHORTLIST} re-ranked",
        f"codes, Hamming, exhaustive, {SHORTLIST} re-ranked",
        "features, Euclidean, exhaustive",
    )
    return Table("Time per query, in a batch and alone, by number of categories", columns, tuple(rows))


def _times(method: dict[str, Any] | None) -> str:
    if method is None:
        return ""
    batches = sorted(method["batches"].items(), key=lambda item: int(item[0]))
    return f"{1e6 / batches[-1][1]['queries_per_second']:,.0f} µs; {batches[0][1]['p50_ms']:.2f} ms"


def figures_csv(networks: Iterable[Measured]) -> str:
    """A row for each network, ranking and cutoff; baselines have no cutoff."""
    head = ("network", "head", "bits", "seed", "ranking", "t", "mAP@all", *(f"mAP@{k}" for k in KS),
            *(f"precision@{k}" for k in KS), "relevant", "scanned")  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for one in networks:
        first = _identity(one)
        for i, name in enumerate(NAMES):
            for j, t in enumerate(one.comparison.cutoffs):
                figures = (one.comparison.at_all[i, j].mean(), *one.comparison.at_k[i, j].mean(axis=0),
                           *one.comparison.precision[i, j].mean(axis=0), one.comparison.relevant[j].mean(),
                           one.comparison.scanned[j].mean())  # fmt: skip
                rows.append((*first, name, t, *(f"{value:.6f}" for value in figures)))
        for baseline, (at_all, at_k) in one.baselines.items():
            figures = (at_all.mean(), *at_k.mean(axis=0))
            rows.append((*first, baseline, "", *(f"{value:.6f}" for value in figures), *[""] * (len(KS) + 2)))
    return _csv(head, rows)


def categories_csv(networks: Iterable[Measured]) -> str:
    """A row for each network, category and ranking, without a cutoff."""
    head = ("network", "head", "bits", "seed", "category", "queries", "ranking", "mAP@all", *(f"mAP@{k}" for k in KS))
    rows: list[tuple[Any, ...]] = []
    for one in networks:
        for label, folder in enumerate(one.about["classes"]):
            chosen = one.labels == label
            for i, name in enumerate(NAMES):
                figures = (one.comparison.at_all[i, 0, chosen].mean(), *one.comparison.at_k[i, 0, chosen].mean(axis=0))
                rows.append((*_identity(one), folder, int(np.count_nonzero(chosen)), name,
                             *(f"{value:.6f}" for value in figures)))  # fmt: skip
    return _csv(head, rows)


def _identity(network: Measured) -> tuple[Any, ...]:
    about = network.about
    return (about["name"], about["architecture"]["head"], about["architecture"]["bits"], about["config"]["seed"])


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return target.getvalue()
