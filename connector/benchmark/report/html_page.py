"""One page about a run, for people: what was compared, what came out, how to read it. HTML with everything inside.

The page asks no other host for anything: pictures are a part of it, in a light and a dark version, and there is neither
script nor font to fetch.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from semcut.connector.benchmark.report import benchmark_plots
from semcut.connector.benchmark.report.wording import ABOUT, CONVENTIONS, STYLE, bytes_of, number, percent

Row = Sequence[str]
Pictures = Mapping[str, tuple[bytes, bytes]]


def page(content: dict[str, Any], pictures: Pictures) -> str:
    """The page.

    Args:
        content: of run.json (see `results`).
        pictures: of the run (see `plots.of_run`).
    """
    datasets = content["datasets"]
    single = [one for one in datasets if one["grid"] != "growth"]
    growing = [one for one in datasets if one["grid"] == "growth"]
    parts = [
        _head(content),
        *(_dataset(one, pictures) for one in single),
        _growth(growing, pictures) if growing else "",
        f"<section><h2>How to read this</h2>{CONVENTIONS}</section>",
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>semcut beside FAISS</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _head(content: dict[str, Any]) -> str:
    datasets = content["datasets"]
    links = ", ".join(
        f'<a href="#{escape(one["name"])}">{escape(one["name"])}</a>' for one in datasets if one["grid"] != "growth"
    )
    if any(one["grid"] == "growth" for one in datasets):
        links += ', <a href="#growth">growth</a>'
    machines = {_machine(one["machine"], one["plan"]["threads"]) for one in datasets}
    return (
        f"<header><h1>semcut beside FAISS</h1>{ABOUT}"
        f"<p>Data: {links}.</p>"
        + "".join(f'<p class="quiet">{line}</p>' for line in sorted(machines))
        + (f'<p class="quiet">Made by <code>{escape(content["command"])}</code>.</p>' if content.get("command") else "")
        + "</header>"
    )


def _machine(machine: dict[str, Any], threads: int) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpus = f", {machine['gpus']} GPUs" if machine["gpus"] else ""
    return escape(
        f"{machine['processor']}, {machine['cores']} cores{gpus}, {bytes_of(machine['memory_bytes'])} of memory; "
        f"{threads} threads for every method; {versions}; load before: {machine['load_average'][0]:.1f}"
    )


def _dataset(dataset: dict[str, Any], pictures: Pictures) -> str:
    about, plan = dataset["about"], dataset["plan"]
    zipf = f", frequencies of classes 1/rank^{about['zipf']:g}" if about["zipf"] else ""
    queries = max((method["queries"] for method in dataset["methods"]), default=0)
    facts = (
        f"{about['source']}: {about['records']:,} records of {about['classes']} classes{zipf}, codes of "
        f"{about['bits']} bits, features of {about['dim']}; {queries:,} queries, k = {plan['k']}, "
        f"{plan['rounds']} measured rounds, seed {plan['seed']}; "
        f"{(dataset['finished'] - dataset['started']) / 60:.0f} minutes in all"
    )
    parts = [
        f'<section id="{escape(dataset["name"])}"><h2>{escape(about["name"])}</h2><p>{escape(facts)}.</p>',
        _targets(dataset["targets"]),
        _picture(
            pictures.get(f"{dataset['name']}-quality"),
            "Each point is a method; a curve goes through the best points of a family. Right is better answers by "
            "label, up is more queries a second. The dashed line is the Pareto front of all methods.",
        ),
        _picture(
            pictures.get(f"{dataset['name']}-recall"),
            "Above: how many of the truly nearest features are found, which is what FAISS's indexes approximate; "
            "a search that disregards records of other classes gives some of them up on purpose. Below: how many of "
            "the answers that semcut promises (Eq. 2-4 with the same cutoff) a shortlist still finds.",
        ),
        _picture(
            pictures.get(f"{dataset['name']}-scanned"),
            "What pruning leaves to be scanned. It is exact, so it can never be less than what is relevant.",
        ),
        _methods(dataset),
        _steps(dataset),
        _structures(dataset),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _targets(lines: list[dict[str, Any]]) -> str:
    if not lines:
        return ""
    rows = []
    for line in lines:
        bound = "" if line["target"] is None else f"{'≤' if line['at_most'] else '≥'} {line['target']:g}"
        verdict = "" if line["met"] is None else ("met" if line["met"] else "missed")
        by = "" if line["by"] is None else f" ({line['by']:.2f} of it)" if not line["met"] else ""
        mark = f'<span class="{verdict}">{verdict}{by}</span>'
        rows.append((escape(line["what"]), f"{line['value']:.4g}", bound, mark, escape(line["note"])))
    head = ("Compared, at cutoff 0.2 and a shortlist of 100", "Ratio", "Wanted", "", "")
    return "<h3>What it must reach</h3>" + _table(head, rows, left=(0, 4))


def _methods(dataset: dict[str, Any]) -> str:
    k, batches = dataset["plan"]["k"], sorted(dataset["plan"]["batches"])
    whole = any(method["map_all"] is not None for method in dataset["methods"])
    ordered = sorted(dataset["methods"], key=_order)
    speeds = {batch: [method["batches"][str(batch)]["queries_per_second"] for method in ordered] for batch in batches}
    pairs = zip(ordered, speeds[batches[-1]], strict=True)
    best = set(benchmark_plots.front((method["map"], speed) for method, speed in pairs if method["complete"]))
    head = (
        "Method", f"mAP@{k}", f"P@{k}", *(["mAP@all"] if whole else []), f"recall@{k} L2", f"recall@{k} Eq. 2-4",
        *(f"q/s, {batch}" for batch in reversed(batches)), f"ms, {batches[0]}: p50", "p95", "p99", "queries",
    )  # fmt: skip
    rows: dict[str, list[Row]] = {}
    for i, method in enumerate(ordered):
        latency = method["batches"][str(batches[0])]
        name = escape(method["name"])
        if method["complete"] and (method["map"], speeds[batches[-1]][i]) in best:
            name = f"<b>{name}</b>"
        row = (
            name,
            number(method["map"], 3),
            number(method["precision"], 3),
            *([number(method["map_all"], 3)] if whole else []),
            number(method["recall"], 3),
            number(method.get("recall_equations"), 3),
            *(f"{speeds[batch][i]:,.0f}" for batch in reversed(batches)),
            *(f"{latency[f'p{share}_ms']:.3f}" for share in (50, 95, 99)),
            f"{method['queries']:,}",
        )
        rows.setdefault(benchmark_plots.kind(method["family"]), []).append(row)
    return (
        "<h3>Every method</h3><p>Best answers first within each kind; in bold what is on the Pareto front of mAP and "
        "queries/s, of those that were given all queries. <i>q/s, n</i>: queries a second in batches of n.</p>"
        + "".join(
            f"<details{' open' if len(found) < 25 else ''}><summary>{escape(name)}: {len(found)} methods</summary>"
            f"{_table(head, found)}</details>"
            for name, found in rows.items()
        )
    )  # fmt: skip


def _order(method: dict[str, Any]) -> tuple[int, float, str]:
    kinds = ("semcut", "codes + re-rank", "codes", "features")
    return kinds.index(benchmark_plots.kind(method["family"])), -(method["map"] or 0), method["name"]


def _steps(dataset: dict[str, Any]) -> str:
    ours = [method for method in dataset["methods"] if method.get("scanned")]
    if not ours:
        return ""
    ours = [method for method in ours if method["structure"] == ours[0]["structure"]]
    rows = []
    for method in ours:
        given, lost = method["parameters"], method["lost"] or {}
        rows.append(
            (
                given["ranking"], f"{given['cutoff']:g}", str(given["shortlist"] or "all"),
                percent(dataset["relevant"].get(f"{given['cutoff']:g}")),
                *(percent(method["scanned"][name]) for name in ("codes", "cells", "partitions")),
                f"{method['cut_off']:,.1f}",
                *(percent(lost.get(name)) for name in ("pruning", "cutoff", "shortlist", "found")),
            )
        )  # fmt: skip
    head = (
        "Ranking", "Cutoff", "Shortlist", "relevant", "codes scanned", "cells", "partitions", "cut off, records",
        "lost: pruning", "cutoff", "shortlist", "found",
    )  # fmt: skip
    k = dataset["plan"]["k"]
    return (
        "<h3>What semcut's steps scan and lose</h3>"
        "<p>Shares of all records (or cells, partitions), mean over queries. <i>Cut off</i>: records that were looked "
        f"at and dropped. The last four columns follow the {k} best records of the whole index, found without any "
        "cutoff: what pruning loses of the relevant ones, which is nothing because it is exact; what the cutoff "
        "disregards, as it was told to; what the shortlist misses; and what is found in the end.</p>"
        f"<details{' open' if len(rows) < 25 else ''}><summary>{len(rows)} searches</summary>{_table(head, rows)}"
        "</details>"
    )


def _structures(dataset: dict[str, Any]) -> str:
    records = dataset["about"]["records"]
    columns = sum(dataset["column_bytes"].values())
    rows = []
    for name, facts in sorted(dataset["structures"].items(), key=lambda item: item[1]["build_seconds"]):
        rows.append(
            (
                escape(name), f"{facts['build_seconds']:.2f}", bytes_of(facts["disk_bytes"]),
                bytes_of(facts["memory_bytes"]), bytes_of(facts["memory_peak"]),
                f"{facts['memory_bytes'] / records:,.0f}",
                bytes_of(facts.get("reader_memory_bytes")), bytes_of(facts.get("reader_mapped_bytes")),
            )
        )  # fmt: skip
    head = (
        "Built", "seconds", "on the disk", "memory", "peak", "bytes a record", "opened from disk: private", "mapped",
    )  # fmt: skip
    return (
        "<h3>What is built</h3><p>Memory is what the process holds privately after building, above what it held "
        f"before. semcut keeps every column, probabilities and features too ({bytes_of(columns)} here); FAISS's "
        "indexes of codes keep codes alone and need the features beside them for a re-rank. The last two columns are "
        "an index that is opened from the disk instead, after a batch of searches: mapped pages are the system's to "
        "take back.</p>" + _table(head, rows)
    )


def _growth(datasets: list[dict[str, Any]], pictures: Pictures) -> str:
    datasets = sorted(datasets, key=lambda one: one["about"]["records"])
    rows = []
    for dataset in datasets:
        records, batches = dataset["about"]["records"], sorted(dataset["plan"]["batches"])
        for method in dataset["methods"]:
            seconds, memory = method["build_seconds"], method["memory_bytes"]
            row = (
                escape(method["name"]), f"{records:,}", f"{1e6 / _qps(method, batches[-1]):,.1f}",
                f"{method['batches'][str(batches[0])]['p50_ms']:.3f}", f"{seconds:.1f}",
                f"{1e6 * seconds / records:.2f}",
                bytes_of(method["disk_bytes"]), bytes_of(memory), f"{memory / records:,.1f}", number(method["map"], 3),
            )  # fmt: skip
            rows.append(row)
    rows.sort(key=lambda row: row[0])
    about = datasets[0]["about"]
    batch = max(datasets[0]["plan"]["batches"])
    head = (
        "Method", "records", f"µs a query, {batch}", "ms, one query", "build, s", "µs a record", "on the disk",
        "private memory", "bytes a record", "mAP",
    )  # fmt: skip
    return (
        f'<section id="growth"><h2>Growth</h2><p>{escape(about["source"])}: {about["classes"]} classes, '
        f"{about['bits']} bits. semcut's index is built on the disk and searched through its mapping here, and the "
        "re-rank of IndexBinaryFlat reads the same mapped features, since at the largest size memory holds neither "
        "twice.</p>"
        + _picture(pictures.get("growth"), "Both axes are logarithmic; the dotted line is in "
                   "proportion to the number of records.")
        + _table(head, rows)
        + "</section>"
    )  # fmt: skip


def _qps(method: dict[str, Any], batch: int) -> float:
    value: float = method["batches"][str(batch)]["queries_per_second"]
    return value


def _picture(themes: tuple[bytes, bytes] | None, caption: str) -> str:
    if themes is None:
        return ""
    light, dark = themes
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{_inline(dark)}">'
        f'<img src="{_inline(light)}" alt="{escape(caption)}"></picture>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _table(head: Row, rows: Iterable[Row], left: Sequence[int] = (0,)) -> str:
    """A table of cells that are HTML already."""
    sides = ["l" if i in left else "" for i in range(len(head))]

    def line(cells: Row, tag: str) -> str:
        return (
            "<tr>" + "".join(
                f'<{tag} class="{side}">{cell}</{tag}>' if side else f"<{tag}>{cell}</{tag}>"
                for side, cell in zip(sides, cells, strict=True)
            ) + "</tr>"
        )  # fmt: skip

    body = "\n".join(line(row, "td") for row in rows)
    return (
        f'<div class="wide"><table><thead>{line([escape(cell) for cell in head], "th")}</thead>'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )
