"""Write the page about a run: what was compared, the figures, and how to read them.

The page is one HTML file that loads no other file: pictures are part of it, in a light and a dark version, and it has
neither scripts nor fonts.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from semcut.connector.benchmark.measure.machine import Machine
from semcut.connector.benchmark.report.figures import KINDS, DatasetFigures, MethodFigures, RunFigures, SemcutFigures
from semcut.connector.benchmark.report.html_parts import (
    Row,
    bold,
    bytes_text,
    folded,
    number_text,
    percent_text,
    picture,
    table,
)
from semcut.connector.benchmark.report.page_text import ABOUT, CONVENTIONS, STYLE
from semcut.connector.benchmark.report.rivals import Rival, chosen, memory, rivals, sentences, setting

Plots = Mapping[str, tuple[bytes, bytes]]
"""For the name of each plot, its PNG file for a light page and for a dark page."""


def page(run: RunFigures, plots: Plots) -> str:
    """Write the page of a run.

    Args:
        run: its figures.
        plots: its plots (see `benchmark_plots.plots_of_run`).
    """
    growing = run.growth
    parts = [
        _head(run),
        *(_dataset(one, plots) for one in run.compared),
        _growth(growing, plots) if growing else "",
        f"<section><h2>How to read this</h2>{CONVENTIONS}</section>",
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>semcut and other indexes compared</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _head(run: RunFigures) -> str:
    links = ", ".join(f'<a href="#{escape(one.name)}">{escape(one.name)}</a>' for one in run.compared)
    if run.growth:
        links += ', <a href="#growth">growth</a>'
    machines = {_machine(one.machine, one.plan.threads) for one in run.datasets}
    return (
        f"<header><h1>semcut and other indexes compared</h1>{ABOUT}"
        f"<p>Data: {links}.</p>"
        + "".join(f'<p class="quiet">{line}</p>' for line in sorted(machines))
        + (f'<p class="quiet">Made by <code>{escape(run.command)}</code>.</p>' if run.command else "")
        + "</header>"
    )


def _machine(machine: Machine, threads: int) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    gpus = f", {machine.gpus} GPUs" if machine.gpus else ""
    return escape(
        f"{machine.processor}, {machine.cores} cores{gpus}, {bytes_text(machine.memory_bytes)} of memory; "
        f"{threads} threads for every method; {versions}; load at the end of a data set: {machine.load_average[0]:.1f}"
    )


def _dataset(dataset: DatasetFigures, plots: Plots) -> str:
    about, plan = dataset.about, dataset.plan
    zipf = f", class frequencies 1/rank^{about.zipf:g}" if about.zipf else ""
    queries = max((method.queries for method in dataset.methods), default=0)
    facts = (
        f"{about.source}: {about.records:,} records of {about.classes} classes{zipf}, codes of "
        f"{about.bits} bits, features of length {about.dim}; {queries:,} queries, k = {plan.k}, "
        f"{plan.rounds} measured rounds, seed {plan.seed}; "
        f"{(dataset.finished - dataset.started) / 60:.0f} minutes in all"
    )
    parts = [
        f'<section id="{escape(dataset.name)}"><h2>{escape(about.name)}</h2><p>{escape(facts)}.</p>',
        picture(
            plots.get(f"{dataset.name}-quality"),
            "Each point is a method; a curve joins the best points of a family. Further right: better answers by "
            "label; further up: more queries per second. The dashed line is the Pareto front of all methods.",
        ),
        picture(
            plots.get(f"{dataset.name}-recall"),
            "Above: the share of the truly nearest features that a method finds, which is what FAISS's indexes "
            "approximate; a search that disregards records of other classes leaves some of them out on purpose. "
            "Below: the share of the answers that semcut promises (Eq. 2-4 with the same cutoff) that is still found "
            "with a shortlist.",
        ),
        picture(
            plots.get(f"{dataset.name}-scanned"),
            "What is scanned after pruning. Pruning is exact, so the codes scanned are never fewer than the relevant "
            "records.",
        ),
        _rivals(dataset),
        _methods(dataset),
        _steps(dataset),
        _structures(dataset),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _rivals(dataset: DatasetFigures) -> str:
    """Write where other indexes are better than semcut's default searches, and by how much."""
    batch, one = dataset.plan.largest_batch, dataset.plan.smallest_batch
    head = (
        "Index", "best setting in batches", "mAP", f"q/s, {batch}", "speed, semcut = 1", "best setting alone", "mAP",
        f"p50 ms, {one}", "speed, semcut = 1", "build, s", "memory",
    )  # fmt: skip
    parts = []
    for semcut in chosen(dataset):
        own = (
            bold(semcut.name), "", number_text(semcut.map, 4), f"{semcut.queries_per_second(batch):,.0f}",
            "1", "", number_text(semcut.map, 4), f"{semcut.batches[one].p50_ms:.3f}", "1",
            f"{semcut.build_seconds:.2f}", bytes_text(memory(dataset, semcut)),
        )  # fmt: skip
        rows = [own, *(_rival_row(dataset, rival) for rival in rivals(dataset, semcut))]
        items = "".join(f"<li>{escape(line)}</li>" for line in sentences(dataset, semcut))
        parts.append(f"<h4>{escape(semcut.name)}</h4><ul>{items}</ul>{table(head, rows, left=(0, 1, 5))}")
    if not parts:
        return ""
    return (
        "<h3>Where other indexes are better</h3><p>Each search of semcut is compared with the fastest setting of each "
        "other index that has at least its mAP. If no setting has, the one with the nearest mAP is shown, and marked "
        "<i>below</i>. A speed above 1, in bold, means that the other index is faster. Memory includes the features "
        "that a re-rank reads.</p>" + "".join(parts)
    )


def _rival_row(dataset: DatasetFigures, rival: Rival) -> Row:
    batch, one = dataset.plan.largest_batch, dataset.plan.smallest_batch
    below = "" if rival.as_good else " (below)"

    def factor(value: float) -> str:
        return bold(f"{value:.2f}") if value > 1 else f"{value:.2f}"

    return (
        rival.family,
        setting(rival.batch),
        number_text(rival.batch.map, 4) + below,
        f"{rival.batch.queries_per_second(batch):,.0f}",
        factor(rival.faster_in_batches),
        setting(rival.single),
        number_text(rival.single.map, 4) + below,
        f"{rival.single.batches[one].p50_ms:.3f}",
        factor(rival.faster_alone),
        f"{rival.batch.build_seconds:.2f}",
        bytes_text(memory(dataset, rival.batch)),
    )


def _methods(dataset: DatasetFigures) -> str:
    k, batches = dataset.plan.k, sorted(dataset.plan.batches)
    with_map_all = any(method.map_all is not None for method in dataset.methods)
    best = {method.name for method in dataset.best_methods()}
    head = (
        "Method", f"mAP@{k}", f"P@{k}", *(["mAP@all"] if with_map_all else []), f"recall@{k} L2",
        f"recall@{k} Eq. 2-4", *(f"q/s, {batch}" for batch in reversed(batches)), f"ms, {batches[0]}: p50", "p95",
        "p99", "queries",
    )  # fmt: skip
    rows: dict[str, list[Row]] = {}
    for method in sorted(dataset.methods, key=_order):
        latency = method.batches[batches[0]]
        row = (
            bold(method.name) if method.name in best else method.name,
            number_text(method.map, 3),
            number_text(method.precision, 3),
            *([number_text(method.map_all, 3)] if with_map_all else []),
            number_text(method.recall, 3),
            number_text(None if method.semcut is None else method.semcut.recall_equations, 3),
            *(f"{method.queries_per_second(batch):,.0f}" for batch in reversed(batches)),
            *(f"{milliseconds:.3f}" for milliseconds in (latency.p50_ms, latency.p95_ms, latency.p99_ms)),
            f"{method.queries:,}",
        )
        rows.setdefault(method.kind, []).append(row)
    return (
        "<h3>Every method</h3><p>Within each kind, the best answers come first. The methods on the Pareto front of mAP "
        "and queries/s are in bold; only methods that answered all queries are compared. <i>q/s, n</i>: queries per "
        "second in batches of n.</p>"
        + "".join(
            folded(f"{kind}: {len(found)} methods", len(found), table(head, found)) for kind, found in rows.items()
        )
    )


def _order(method: MethodFigures) -> tuple[int, float, str]:
    return KINDS.index(method.kind), -(method.map or 0), method.name


def _steps(dataset: DatasetFigures) -> str:
    searches = [(method.structure, method.semcut) for method in dataset.methods if method.semcut is not None]
    if not searches:
        return ""
    rows = [_step_row(dataset, figures) for structure, figures in searches if structure == searches[0][0]]
    head = (
        "Ranking", "Cutoff", "Shortlist", "relevant", "codes scanned", "cells", "partitions", "cut off, records",
        "lost: pruning", "cutoff", "shortlist", "found",
    )  # fmt: skip
    return (
        "<h3>What semcut's steps scan and lose</h3>"
        "<p>Shares of all records (or cells, partitions), mean over queries. <i>Cut off</i>: records that were scanned "
        f"and dropped. The last four columns follow the {dataset.plan.k} best records of the whole index, found "
        "without any cutoff: relevant ones that pruning loses, which are none because pruning is exact; those that the "
        "cutoff drops, as it must; those that the shortlist misses; and those that are found.</p>"
        + folded(f"{len(rows)} searches", len(rows), table(head, rows))
    )


def _step_row(dataset: DatasetFigures, figures: SemcutFigures) -> Row:
    point, scanned, lost = figures.point, figures.scanned, figures.lost
    shares = (None,) * 4 if lost is None else (lost.pruning, lost.cutoff, lost.shortlist, lost.found)
    return (
        point.ranking,
        f"{point.cutoff:g}",
        str(point.shortlist or "all"),
        percent_text(dataset.relevant.get(point.cutoff)),
        *(percent_text(scanned[name]) for name in ("codes", "cells", "partitions")),
        f"{figures.cut_off:,.1f}",
        *(percent_text(share) for share in shares),
    )


def _structures(dataset: DatasetFigures) -> str:
    columns = sum(dataset.column_bytes.values())
    rows = [
        (
            name,
            f"{facts.build_seconds:.2f}",
            bytes_text(facts.disk_bytes),
            bytes_text(facts.memory_bytes),
            bytes_text(facts.memory_peak),
            f"{facts.memory_bytes / dataset.about.records:,.0f}",
            bytes_text(facts.reader_memory_bytes),
            bytes_text(facts.reader_mapped_bytes),
        )
        for name, facts in sorted(dataset.structures.items(), key=lambda item: item[1].build_seconds)
    ]
    head = (
        "Built", "seconds", "on the disk", "memory", "peak", "bytes a record", "opened from disk: private", "mapped",
    )  # fmt: skip
    return (
        "<h3>What is built</h3><p>Memory is the private memory of the process after building, minus that before "
        "building. semcut stores every column, with features and probabilities "
        f"({bytes_text(columns)} here); FAISS's indexes of codes store only codes, and need the features separately "
        "for a re-rank. The last two columns are those of an index that is opened from the disk instead, after a batch "
        "of searches; the operating system can take mapped pages back.</p>" + table(head, rows)
    )


def _growth(datasets: list[DatasetFigures], plots: Plots) -> str:
    rows = sorted(
        (_growth_row(dataset, method) for dataset in datasets for method in dataset.methods), key=lambda row: row[0]
    )
    about = datasets[0].about
    head = (
        "Method", "records", f"µs a query, {datasets[0].plan.largest_batch}", "ms, one query", "build, s",
        "µs a record", "on the disk", "private memory", "bytes a record", "mAP",
    )  # fmt: skip
    return (
        f'<section id="growth"><h2>Growth</h2><p>{escape(about.source)}: {about.classes} classes, '
        f"{about.bits} bits. Here semcut's index is built on the disk and searched through its memory mapping, and the "
        "re-rank of IndexBinaryFlat reads the same mapped features, since memory cannot hold either of them twice at "
        "the largest size.</p>"
        + picture(
            plots.get("growth"),
            "Both axes are logarithmic; the dotted line is proportional to the number of records.",
        )
        + table(head, rows)
        + "</section>"
    )


def _growth_row(dataset: DatasetFigures, method: MethodFigures) -> Row:
    records, plan = dataset.about.records, dataset.plan
    return (
        method.name,
        f"{records:,}",
        f"{1e6 / method.queries_per_second(plan.largest_batch):,.1f}",
        f"{method.batches[plan.smallest_batch].p50_ms:.3f}",
        f"{method.build_seconds:.1f}",
        f"{1e6 * method.build_seconds / records:.2f}",
        bytes_text(method.disk_bytes),
        bytes_text(method.memory_bytes),
        f"{method.memory_bytes / records:,.1f}",
        number_text(method.map, 3),
    )
