"""`semcut benchmark`: run a benchmark, print its best methods, write its report.

The command reads options and prints; `connector.benchmark` does the work. Needs matplotlib (extra `benchmark`), and
torch only to train a small network on digits when no --data is given.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semcut.connector.cli.options import PATH, json_option
from semcut.connector.cli.terminal import OUT, new_table, print_json, print_line, print_message, progress_bar
from semcut.indexes.errors import require

if TYPE_CHECKING:
    from semcut.connector.benchmark.datasets.dataset_tasks import FittedRequest
    from semcut.connector.benchmark.methods.grids import Grid
    from semcut.connector.benchmark.report.figures import DatasetFigures

require({"matplotlib": "matplotlib"}, "draw figures", "benchmark")


class FittedType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """The type of --fitted: RECORDSxCLASSES, or RECORDSxCLASSES:ZIPF."""

    name = "records x classes[:zipf]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> FittedRequest:
        """Convert the text to a request for a fitted data set."""
        from semcut.connector.benchmark.datasets.dataset_tasks import FittedRequest

        match = re.fullmatch(r"([0-9_.e+]+)x([0-9_]+)(?::([0-9.]+))?", str(value).lower())
        try:
            assert match is not None
            return FittedRequest(_positive_integer(match[1]), int(match[2]), float(match[3] or 0))
        except (ValueError, AssertionError):
            self.fail(f"{value!r} is not of the form 1e6x100 or 1e6x100:1 (records x classes:zipf)", param, ctx)


class RecordCountsType(click.ParamType):  # type: ignore[type-arg]  # generic in newer releases of click only
    """The type of --growth: numbers of records, separated by commas."""

    name = "n,n,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Convert the text to numbers."""
        try:
            return value if isinstance(value, tuple) else tuple(_positive_integer(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not of the form 1e5,1e6,1e7", param, ctx)


def _positive_integer(text: str) -> int:
    """Read a positive integer, which may be written as 1e6."""
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
    help="Two stored indexes of the same network: the records, and the queries. Their uris must end in "
    "CLASS-FOLDER/FILE. Can be given several times.",
)
@click.option(
    "--fitted",
    type=FittedType(),
    multiple=True,
    metavar="RECORDSxCLASSES[:ZIPF]",
    help="Also generate records that resemble the first --data (without --data: digits). 1e6x100 means a million "
    "records of 100 classes; with 1e6x100:1, class frequencies fall as 1/rank. Can be given several times.",
)
@click.option(
    "--growth",
    type=RecordCountsType(),
    default=(),
    metavar="N,N,...",
    help="Also measure how time and memory grow over these numbers of generated records of 200 classes, for example "
    "1e5,1e6,1e7.",
)
@click.option(
    "--bits",
    type=int,
    multiple=True,
    metavar="N",
    help="Use only the first N bits of the codes. Can be given several times.  [default: all]",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Measure few settings of every method, in less than two minutes. Without data, use scanned digits (the first "
    "time, a small network is trained) and 20,000 records generated to resemble them.",
)
@click.option(
    "--defaults",
    is_flag=True,
    help="Measure semcut with its default cutoff and shortlist only, by each ranking, and few settings of the other "
    "methods: much faster than all settings, with times that are as precise.",
)
@click.option(
    "--methods",
    metavar="NAME,...",
    help="Measure only methods whose names start with one of these, for example semcut,IndexBinaryFlat,IndexHNSWFlat.  "
    "[default: all]",
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Number of threads of every method.  [default: one per core]"
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    help="Number of measured rounds over all methods.  [default: 3; with --quick 2]",
)
@click.option(
    "--seed", default=0, show_default=True, help="Seed of the generated records and of the choice of queries."
)
@json_option
def benchmark(
    out: Path,
    data: tuple[tuple[Path, Path], ...],
    fitted: tuple[FittedRequest, ...],
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
    """Compare semcut with other indexes on the same encodings.

    The other indexes are those of FAISS, and of usearch and rabitqlib if they are installed. All methods are built and
    timed in one process, in turn. The command measures quality by label, recall of exact answers, queries per second,
    latencies and memory, and says where other indexes are better than semcut. The directory OUT gets the report
    (report.html), all figures (run.json), plots and raw results. Repeat the same command to continue an interrupted
    run.
    """
    if not data and not fitted and not growth and not quick:
        raise click.UsageError("nothing to run: give --data INDEX QUERIES, --fitted, --growth, or --quick")
    if quick and defaults:
        raise click.UsageError("--quick and --defaults both choose the settings to measure: give only one of them")
    from semcut.connector.benchmark.datasets.dataset_tasks import FittedRequest, IndexPair, dataset_tasks
    from semcut.connector.benchmark.measure.run import run
    from semcut.connector.benchmark.measure.run_plan import Plan, check_plan, keep_plan
    from semcut.connector.benchmark.methods.grids import left_out, structures
    from semcut.connector.benchmark.report.rivals import chosen, sentences
    from semcut.connector.benchmark.report.write_report import write_report

    if quick and not data and not fitted and not growth:
        fitted = (FittedRequest(20_000, 100),)
    quick_seconds: dict[str, Any] = {"call_seconds": 0.3, "truth_seconds": 0.5} if quick else {}
    plan = Plan(
        threads=threads or _cores(),
        seed=seed,
        methods=None if methods is None else tuple(name.strip() for name in methods.split(",") if name.strip()),
        rounds=rounds or (2 if quick else 3),
        **quick_seconds,
    )
    grid: Grid = "quick" if quick else "defaults" if defaults else "full"
    structures(grid, plan.methods)  # raises an error for a wrong name before data sets are made
    check_plan(out, plan)
    pairs = [IndexPair(_data_name(index), index, queries) for index, queries in data]
    with progress_bar("Benchmark") as progress:
        tasks = dataset_tasks(out, pairs, fitted, growth, bits, grid=grid, seed=seed, progress=progress)
        keep_plan(out, plan)
        for line in left_out(grid, plan.methods):
            print_message(line)
        try:
            run(out, tasks, plan, progress)
        except KeyboardInterrupt:
            print_message("interrupted: repeat the same command to measure the data sets that are missing")
            raise
        progress(0, 1, "writing the report")
        figures = write_report(out, shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    if as_json:
        print_json(figures.as_dict())
        return
    for dataset in figures.datasets:
        _print_best_methods(dataset)
        for semcut in chosen(dataset) if dataset.grid != "growth" else ():
            print_line("")
            print_line(f"{semcut.name}, and other indexes of at least its mAP:")
            for line in sentences(dataset, semcut, below=False):
                print_line(f"- {line}")
    print_line("")
    print_line(f"Report: {out / 'report.html'}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _data_name(index: Path) -> str:
    """Name a data set after the directory of its index, or after the parent directory if that is just named index."""
    place = Path(os.path.realpath(index))
    names = [part for part in (place.name, place.parent.name) if part not in ("index", "")]
    name = re.sub(r"[-_.]?index$", "", names[0]) if names else "data"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100] or "data"


def _print_best_methods(dataset: DatasetFigures) -> None:
    """Print the methods on the Pareto front: no other method is better in both quality and speed."""
    about, plan = dataset.about, dataset.plan
    title = f"{about.name}: {about.records:,} records, {about.classes} classes, {about.bits} bits"
    table = new_table(
        "on the Pareto front", f"mAP@{plan.k}", f"recall@{plan.k}", f"q/s, {plan.largest_batch}",
        f"p50 ms, {plan.smallest_batch}", "build s", title=title,
    )  # fmt: skip
    for method in dataset.best_methods():
        table.add_row(
            method.name,
            f"{method.map or 0:.3f}",
            f"{method.recall or 0:.3f}",
            f"{method.queries_per_second(plan.largest_batch):,.0f}",
            f"{method.batches[plan.smallest_batch].p50_ms:.3f}",
            f"{method.build_seconds:.1f}",
        )
    OUT.print(table)
