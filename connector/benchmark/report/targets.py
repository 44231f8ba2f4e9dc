"""What semcut must reach beside FAISS, as ratios inside one run, and whether it does.

Stated for a million fitted records, 64 bits, features of 128, k = 10, shortlist 100, cutoff 0.2 and two cores, at 100
and at 1000 classes; other data sets of at least a million records and as many classes are held to the nearer column,
and smaller ones get the ratios alone.
"""

from __future__ import annotations

from typing import Any

from semcut.connector.benchmark.methods.semcut_methods import CUTOFF, SHORTLIST

_AT = {100: {"scan": 2.0, "flat": 25.0, "hnsw": 2.0, "single": 8.0}, 1000: {"scan": 3.0, "flat": 60.0, "hnsw": 3.0,
                                                                             "single": 15.0}}  # fmt: skip
_OUTSIDE, _SCANNED = 0.4, 2.0
_RECORDS = 1_000_000
_RERANK = f" + re-rank of {SHORTLIST}"
_SLACK = 1e-9


def targets(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of the table, as far as the methods that they need were run.

    Args:
        dataset: its figures (see `figures`), all but this.

    Returns:
        For each line: `what` is compared; `value`; `target` or None; `at_most` or at least; `met`, None without a
        target; `by`, value over target (or target over value), above 1 where met; `note`.
    """
    about, methods = dataset["about"], {method["name"]: method for method in dataset["methods"]}
    at = _AT[100 if about["classes"] < 316 else 1000] if about["records"] >= _RECORDS else {}
    ours = _ours(dataset)
    if not ours:
        return []
    best = ours[0]  # the engine that is used by default
    lines = [_scan(dataset, at.get("scan"))]
    flat = methods.get("IndexBinaryFlat" + _RERANK)
    big, name = _largest(best), best["structure"]
    if flat is not None:
        lines += [
            _line(
                f"batch of {big}: queries/s of {name} against IndexBinaryFlat + the same re-rank",
                _per_second(best, big) / _per_second(flat, big),
                at.get("flat"),
            ),
            _against_hnsw(dataset, best, big, at.get("hnsw")),
            _line(
                f"one query: p50 of IndexBinaryFlat + the same re-rank against {name}",
                _p50(flat) / _p50(best),
                at.get("single"),
            ),
        ]
    if "IndexBinaryFlat" in methods:
        lines.append(
            _line(
                f"one query: p50 of IndexBinaryFlat alone against {name}",
                _p50(methods["IndexBinaryFlat"]) / _p50(best),
                at.get("single"),
            )
        )
    lines += [_outside(dataset, ours, at), _codes(dataset, best, at)]
    if flat is not None and flat["queries"] == best["queries"]:  # of others the mAP says nothing beside it
        lines.append(
            _line(
                "mAP@k, semcut less IndexBinaryFlat + the same re-rank",
                best["map"] - flat["map"],
                0.0 if at else None,
                note=f"{best['map']:.4f} and {flat['map']:.4f}",
            )
        )
    return [line for line in lines if line is not None]


def _ours(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """semcut with the defaults, one per engine, its default engine first."""
    wanted = {"cutoff": CUTOFF, "shortlist": SHORTLIST, "ranking": "distance"}
    return [method for method in dataset["methods"] if method["parameters"] == wanted]


def _line(what: str, value: float, target: float | None, *, at_most: bool = False, note: str = "") -> dict[str, Any]:
    met = by = None
    if target is not None:
        met = value <= target + _SLACK if at_most else value >= target - _SLACK
        if target and value:
            by = target / value if at_most else value / target
    return {
        "what": what, "value": value, "target": target, "at_most": at_most, "met": met, "by": by, "note": note,
    }  # fmt: skip


def _scan(dataset: dict[str, Any], target: float | None) -> dict[str, Any] | None:
    scans = {name: seconds for name, seconds in dataset["probes"].items() if name.startswith("scan ")}
    listed = next((seconds for name, seconds in scans.items() if "faiss" in name), None)
    compiled = next((seconds for name, seconds in scans.items() if "compiled" in name), None)
    if listed is None or compiled is None:
        return None
    return _line("scan of the same lists: the compiled engine against FAISS's list scanner", listed / compiled, target)


def _against_hnsw(
    dataset: dict[str, Any], best: dict[str, Any], batch: int, target: float | None
) -> dict[str, Any] | None:
    tuned = [
        method
        for method in dataset["methods"]
        if method["family"] == "IndexHNSWFlat" and method["queries"] == best["queries"]
    ]
    if not tuned:
        return None
    as_good = [method for method in tuned if method["map"] >= best["map"] - _SLACK]
    if as_good:
        rival = max(as_good, key=lambda method: _per_second(method, batch))
        note = f"efSearch {rival['parameters']['efSearch']}, mAP {rival['map']:.4f} and semcut's {best['map']:.4f}"
    else:
        rival = max(tuned, key=lambda method: (method["map"], _per_second(method, batch)))
        note = (
            f"no efSearch has semcut's mAP of {best['map']:.4f}; "
            f"the best is {rival['map']:.4f} at efSearch {rival['parameters']['efSearch']}"
        )
    ratio = _per_second(best, batch) / _per_second(rival, batch)
    return _line(
        f"batch of {batch}: queries/s against IndexHNSWFlat of at least the same mAP", ratio, target, note=note
    )


def _outside(dataset: dict[str, Any], ours: list[dict[str, Any]], at: dict[str, float]) -> dict[str, Any] | None:
    names = [method["structure"] for method in ours]
    name = next((name for name in names if "faiss" in name), names[0])
    probes = dataset["probes"]
    if f"total {name}" not in probes:
        return None
    total, scan, rank = (probes[f"{part} {name}"] for part in ("total", "in scan", "in re-rank"))
    return _line(
        f"share of the time outside scan and re-rank, {name}",
        max(0.0, 1 - (scan + rank) / total),
        _OUTSIDE if at else None,
        at_most=True,
        note=f"scan {scan / total:.0%}, re-rank {rank / total:.0%}",
    )


def _codes(dataset: dict[str, Any], best: dict[str, Any], at: dict[str, float]) -> dict[str, Any] | None:
    relevant = dataset["relevant"].get(f"{CUTOFF:g}")
    if not relevant:
        return None
    scanned = best["scanned"]["codes"]
    return _line(
        "codes scanned over relevant records",
        scanned / relevant,
        _SCANNED if at else None,
        at_most=True,
        note=f"{scanned:.3%} and {relevant:.3%} of all",
    )


def _largest(method: dict[str, Any]) -> int:
    return max(map(int, method["batches"]))


def _per_second(method: dict[str, Any], batch: int) -> float:
    value: float = method["batches"][str(batch)]["queries_per_second"]
    return value


def _p50(method: dict[str, Any]) -> float:
    smallest = min(method["batches"], key=int)
    value: float = method["batches"][smallest]["p50_ms"]
    return value
