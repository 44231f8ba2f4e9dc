"""`semcut benchmark`: runs a benchmark, prints its figures, writes its report. Thin: the work is in the library."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from semcut.connector.cli.options import PATH
from semcut.connector.cli.terminal import ERR, OUT, print_json
from semcut.indexes.errors import require

if TYPE_CHECKING:
    from semcut.connector.benchmark.datasets.dataset_sources import Wanted
    from semcut.connector.benchmark.measure import run
    from semcut.connector.benchmark.methods.grids import Grid

require({"matplotlib": "matplotlib"}, "draw figures", "benchmark")


class RecordCounts(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """RECORDSxCLASSES, or RECORDSxCLASSES:ZIPF."""

    name = "records x classes[:zipf]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Wanted:
        """What is asked for."""
        from semcut.connector.benchmark.datasets.dataset_sources import Wanted

        match = re.fullmatch(r"([0-9_.e+]+)x([0-9_]+)(?::([0-9.]+))?", str(value).lower())
        try:
            assert match is not None
            return Wanted(_whole(match[1]), int(match[2]), float(match[3] or 0))
        except (ValueError, AssertionError):
            self.fail(f"{value!r} is not like 1e6x100, or 1e6x100:1 for frequencies that fall as 1/rank", param, ctx)


class Sizes(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """Numbers of records with commas between."""

    name = "n,n,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers."""
        try:
            return value if isinstance(value, tuple) else tuple(_whole(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not like 1e5,1e6,1e7", param, ctx)


def _whole(text: str) -> int:
    """A positive whole number, which may be written 1e6."""
    value = float(text)
    if value != int(value) or value < 1:
        raise ValueError(text)
    return int(value)


@click.command()
@click.argument("out", type=PATH)
@click.option(
    "--data",
    nargs=2,
    type=PATH,
    multiple=True,
    metavar="INDEX QUERIES",
    help="Two stored indexes whose uris end in class-folder/file: the records, and queries of the same network. "
    "May be given several times.",
)
@click.option(
    "--fitted",
    type=RecordCounts(),
    multiple=True,
    help="Also records made to resemble the first --data (without one, digits): so many, of so many classes, like "
    "1e6x100; 1e6x100:1 makes the classes' frequencies fall as 1/rank. May be given several times.",
)
@click.option(
    "--growth",
    type=Sizes(),
    default=(),
    metavar="N,N,...",
    help="Also a curve of time and memory over so many fitted records of 200 classes, like 1e5,1e6,1e7.",
)
@click.option(
    "--bits",
    type=int,
    multiple=True,
    help="Use the first so many bits of the codes. May be given several times.  [default: all]",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Under two minutes, with nothing to prepare: few points of every method, and where no data is given scanned "
    "digits (the first time a small network is trained) and 20,000 records fitted to them.",
)
@click.option(
    "--defaults",
    is_flag=True,
    help="semcut at its default cutoff and shortlist alone, and few points of the others: much faster than everything, "
    "and timed as well.",
)
@click.option(
    "--methods",
    metavar="NAME,...",
    help="Only what begins so, like semcut,IndexBinaryFlat,IndexHNSWFlat.  [default: everything]",
)
@click.option("--threads", type=click.IntRange(min=1), help="For every method.  [default: one per core]")
@click.option("--rounds", type=click.IntRange(min=1), help="Measured rounds over all methods.  [default: 3, quick: 2]")
@click.option("--seed", default=0, show_default=True, help="For fitted records and the choice of queries.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON instead of tables.")
def benchmark(
    out: Path,
    data: tuple[tuple[Path, Path], ...],
    fitted: tuple[Wanted, ...],
    growth: tuple[int, ...],
    bits: tuple[int, ...],
    quick: bool,
    defaults: bool,
    methods: str | None,
    threads: int | None,
    rounds: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Compare semcut with FAISS's own indexes on the same encodings.

    Every method is built and timed in one process, in turn: quality by label, recall of exact answers, queries a
    second, latencies, memory. The directory OUT gets a report to read, report.html, run.json with all figures, plots/
    and raw results. A run that was interrupted goes on when the same command is given again.
    """
    if not data and not fitted and not growth and not quick:
        raise click.UsageError("nothing to run: give --data INDEX QUERIES, --fitted, --growth, or --quick")
    if quick and defaults:
        raise click.UsageError("--quick and --defaults both say which points to measure: leave out one")
    from semcut.connector.benchmark.datasets.dataset_sources import Pair, Wanted, tasks
    from semcut.connector.benchmark.measure import run
    from semcut.connector.benchmark.measure.raw_results import Plan
    from semcut.connector.benchmark.methods.grids import structures
    from semcut.connector.benchmark.report import results

    if quick and not data and not fitted and not growth:
        fitted = (Wanted(20_000, 100),)
    hurry: dict[str, Any] = {"call_seconds": 0.3, "truth_seconds": 0.5} if quick else {}
    plan = Plan(
        threads=threads or _cores(),
        seed=seed,
        methods=None if methods is None else tuple(name.strip() for name in methods.split(",") if name.strip()),
        rounds=rounds or (2 if quick else 3),
        **hurry,
    )
    grid: Grid = "quick" if quick else "defaults" if defaults else "full"
    structures(grid, plan.methods)  # a wrong name is an error before anything is made
    pairs = [Pair(_name(index), index, queries) for index, queries in data]
    with _progress() as progress:
        wanted = tasks(out, pairs, fitted, growth, bits, grid=grid, seed=seed, progress=progress)
        try:
            run.run(out, wanted, plan, progress)
        except KeyboardInterrupt:
            ERR.print("interrupted: the same command goes on with the data sets that are missing")
            raise
        progress("writing the report", 0, 1)
        content = results.write(out, shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    if as_json:
        print_json(content)
        return
    for dataset in content["datasets"]:
        _show(dataset)
    OUT.print(f"\nReport: {escape(str(out / 'report.html'))}", highlight=False, soft_wrap=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _name(index: Path) -> str:
    """What to call the data of an index: the name of its directory, or of the one above where that says nothing."""
    names = [part for part in (index.resolve().name, index.resolve().parent.name) if part not in ("index", "")]
    name = re.sub(r"[-_.]?index$", "", names[0]) if names else "data"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name) or "data"


@contextmanager
def _progress() -> Iterator[run.Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda what, done, total: progress.update(task, description=escape(what), completed=done, total=total)


def _show(dataset: dict[str, Any]) -> None:
    from semcut.connector.benchmark.report import benchmark_plots

    about, k = dataset["about"], dataset["plan"]["k"]
    batches = sorted(dataset["plan"]["batches"])
    title = f"{about['name']}: {about['records']:,} records, {about['classes']} classes, {about['bits']} bits"
    if dataset["targets"]:
        table = Table("", "ratio", "wanted", "", title=title)
        table.columns[1].justify = table.columns[2].justify = "right"
        for line in dataset["targets"]:
            bound = "" if line["target"] is None else f"{'<=' if line['at_most'] else '>='} {line['target']:g}"
            verdict = "" if line["met"] is None else "met" if line["met"] else "[red]missed[/]"
            table.add_row(escape(line["what"]), f"{line['value']:.3g}", bound, verdict)
        OUT.print(table)
    table = Table(
        "on the Pareto front", f"mAP@{k}", f"recall@{k}", f"q/s, {batches[-1]}", "p50 ms, 1", "build s", title=title
    )
    for column in table.columns[1:]:
        column.justify = "right"
    speed = {method["name"]: method["batches"][str(batches[-1])]["queries_per_second"] for method in dataset["methods"]}
    known = [method for method in dataset["methods"] if method["map"] is not None and method["complete"]]
    best = set(benchmark_plots.front((method["map"], speed[method["name"]]) for method in known))
    for method in sorted(known, key=lambda method: -method["map"]):
        if (method["map"], speed[method["name"]]) in best:
            table.add_row(
                escape(method["name"]), f"{method['map']:.3f}", f"{method['recall'] or 0:.3f}",
                f"{speed[method['name']]:,.0f}", f"{method['batches'][str(batches[0])]['p50_ms']:.3f}",
                f"{method['build_seconds']:.1f}",
            )  # fmt: skip
    OUT.print(table)
