"""Check whether semcut reaches its targets, relative to FAISS, in a run of `semcut benchmark`. A tool for developers.

    python scripts/check_targets.py RUN_DIRECTORY

The targets are ratios within one run. They are stated for a million fitted records, 64 bits, 128-d features, k = 10,
shortlist 100, cutoff 0.2 and two cores, at 100 and at 1000 classes. Other data sets of at least a million records are
compared with the targets of the nearer number of classes. For smaller data sets only the ratios are printed. The
figures are computed from the raw results of the run.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from semcut.connector.benchmark.methods.semcut_methods import SearchPoint
from semcut.connector.benchmark.report.figures import DatasetFigures, MethodFigures
from semcut.connector.benchmark.report.rivals import best_setting
from semcut.connector.benchmark.report.summarise import run_figures
from semcut.indexes.errors import SemcutError
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_SHORTLIST

_TARGETS = {
    100: {"scan": 2.0, "flat": 25.0, "hnsw": 2.0, "single": 8.0, "outside": 0.4, "scanned": 2.0, "map": 0.0},
    1000: {"scan": 3.0, "flat": 60.0, "hnsw": 3.0, "single": 15.0, "outside": 0.4, "scanned": 2.0, "map": 0.0},
}
_RECORDS = 1_000_000
_FLAT, _FLAT_RERANK = "IndexBinaryFlat", f"IndexBinaryFlat + re-rank of {DEFAULT_SHORTLIST}"
_SLACK = 1e-9


@dataclass(frozen=True)
class Check:
    """One comparison of two figures, a line of the table.

    Attributes:
        compared: a description of the two figures.
        value: the ratio, share or difference.
        target: the bound for the value; None if the data set has no targets.
        at_most: whether the target is an upper bound, not a lower bound.
        note: figures that the value is computed from.
    """

    compared: str
    value: float
    target: float | None
    at_most: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        if self.target is None:
            return None
        return self.value <= self.target + _SLACK if self.at_most else self.value >= self.target - _SLACK

    @property
    def fulfilment(self) -> float | None:
        """The value divided by the target, or the inverse for an upper bound, so that at least 1 means met."""
        if not self.target or not self.value:
            return None
        return self.target / self.value if self.at_most else self.value / self.target


def checks(dataset: DatasetFigures) -> list[Check]:
    """Compare the figures of a data set with its targets; leave out comparisons with methods that were not measured."""
    about, methods = dataset.about, {method.name: method for method in dataset.methods}
    targets = _TARGETS[100 if about.classes < 316 else 1000] if about.records >= _RECORDS else {}
    defaults = [
        method for method in dataset.methods if method.semcut is not None and method.semcut.point == SearchPoint()
    ]
    if not defaults:
        return []
    best = defaults[0]  # the method with the default scanner
    found = [_scan(dataset, targets)]
    flat, batch = methods.get(_FLAT_RERANK), max(best.batches)
    if flat is not None:
        found += [
            Check(
                f"batch of {batch}: queries/s of {best.structure} against IndexBinaryFlat + the same re-rank",
                best.queries_per_second(batch) / flat.queries_per_second(batch),
                targets.get("flat"),
            ),
            _hnsw(dataset, best, batch, targets),
            Check(
                f"one query: p50 of IndexBinaryFlat + the same re-rank against {best.structure}",
                _p50(flat) / _p50(best),
                targets.get("single"),
            ),
        ]
    if _FLAT in methods:
        found.append(
            Check(
                f"one query: p50 of IndexBinaryFlat alone against {best.structure}",
                _p50(methods[_FLAT]) / _p50(best),
                targets.get("single"),
            )
        )
    found += [_outside(dataset, defaults, targets), _scanned(dataset, best, targets)]
    if flat is not None and flat.queries == best.queries:  # the quality of other queries cannot be compared
        found.append(
            Check(
                "mAP@k of semcut less that of IndexBinaryFlat + the same re-rank",
                _map(best) - _map(flat),
                targets.get("map"),
                note=f"{_map(best):.4f} and {_map(flat):.4f}",
            )
        )
    return [check for check in found if check is not None]


def _scan(dataset: DatasetFigures, targets: Mapping[str, float]) -> Check | None:
    """Compare the time of the compiled scanner with that of FAISS's lists."""
    scans = {name: seconds for name, seconds in dataset.probes.items() if name.startswith("scan ")}
    lists = next((seconds for name, seconds in scans.items() if "faiss" in name), None)
    compiled = next((seconds for name, seconds in scans.items() if "compiled" in name), None)
    if lists is None or compiled is None:
        return None
    return Check(
        "scan of the same lists: the compiled engine against FAISS's list scanner",
        lists / compiled,
        targets.get("scan"),
    )


def _hnsw(dataset: DatasetFigures, best: MethodFigures, batch: int, targets: Mapping[str, float]) -> Check | None:
    """Compare speed with the fastest graph with at least semcut's mAP; if there is none, with that of the best mAP."""
    graphs = [one for one in dataset.methods if one.family == "IndexHNSWFlat" and one.queries == best.queries]
    if not graphs:
        return None
    rival, as_good = best_setting(graphs, best, lambda method: method.queries_per_second(batch))
    if as_good:
        note = f"efSearch {rival.parameters['efSearch']}, mAP {_map(rival):.4f} and semcut's {_map(best):.4f}"
    else:
        note = (
            f"no efSearch has semcut's mAP of {_map(best):.4f}; "
            f"the best is {_map(rival):.4f} at efSearch {rival.parameters['efSearch']}"
        )
    ratio = best.queries_per_second(batch) / rival.queries_per_second(batch)
    what = f"batch of {batch}: queries/s against IndexHNSWFlat of at least the same mAP"
    return Check(what, ratio, targets.get("hnsw"), note=note)


def _outside(dataset: DatasetFigures, defaults: list[MethodFigures], targets: Mapping[str, float]) -> Check | None:
    """Compute the share of the time of a search that is spent outside the shortlist (scans, cutoff) and re-rank."""
    names = [method.structure for method in defaults]
    name = next((name for name in names if "faiss" in name), names[0])
    if f"total {name}" not in dataset.probes:
        return None
    total, shortlist, rank = (dataset.probes[f"{part} {name}"] for part in ("total", "in scan", "in re-rank"))
    return Check(
        f"share of the time outside shortlist and re-rank, {name}",
        max(0.0, 1 - (shortlist + rank) / total),
        targets.get("outside"),
        at_most=True,
        note=f"shortlist {shortlist / total:.0%}, re-rank {rank / total:.0%}",
    )


def _scanned(dataset: DatasetFigures, best: MethodFigures, targets: Mapping[str, float]) -> Check | None:
    """Compare the number of scanned codes with the number of relevant records."""
    relevant = dataset.relevant.get(DEFAULT_CUTOFF)
    if not relevant or best.semcut is None:
        return None
    codes = best.semcut.scanned["codes"]
    return Check(
        "codes scanned over relevant records",
        codes / relevant,
        targets.get("scanned"),
        at_most=True,
        note=f"{codes:.3%} and {relevant:.3%} of all",
    )


def _map(method: MethodFigures) -> float:
    return method.map or 0.0


def _p50(method: MethodFigures) -> float:
    return method.batches[min(method.batches)].p50_ms


def show(dataset: DatasetFigures, console: Console) -> None:
    """Print the table of a data set, or nothing if the run has no comparison for it."""
    found = checks(dataset)
    if not found:
        return
    title = f"{dataset.name}: at cutoff {DEFAULT_CUTOFF:g} and a shortlist of {DEFAULT_SHORTLIST}"
    table = Table("", "ratio", "target", "", "", title=escape(title))
    for column in (1, 2):
        table.columns[column].justify = "right"
    for check in found:
        bound = "" if check.target is None else f"{'<=' if check.at_most else '>='} {check.target:g}"
        verdict = "" if check.met is None else "met" if check.met else "[red]missed[/]"
        if check.met is False and check.fulfilment is not None:
            verdict += f" ({check.fulfilment:.2f} of the target)"
        table.add_row(escape(check.compared), f"{check.value:.4g}", bound, verdict, escape(check.note))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_DIRECTORY", help="the directory that `semcut benchmark` wrote")
    run: Path = parser.parse_args().run
    try:
        datasets = run_figures(run).datasets
    except SemcutError as error:
        raise SystemExit(str(error)) from None
    if not datasets:
        raise SystemExit(f"{run} has no finished data set of a benchmark: give a directory that semcut benchmark wrote")
    for dataset in datasets:
        show(dataset, Console())


if __name__ == "__main__":
    main()
