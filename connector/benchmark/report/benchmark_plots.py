"""Pictures of a run: figures in, PNG files out, each in a light and a dark theme.

Curves are labelled where they end, not in a legend; colours tell four kinds of methods apart and stay apart for
colour-blind readers (Okabe and Ito), markers tell the families of a kind apart. A curve joins the points of a family
that no other of the same family beats; the dashed line does so for all methods together: the Pareto front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from semcut.connector.evaluation.charts import (
    INK,
    MARKERS,
    Curves,
    Point,
    Theme,
    draw_curves,
    label_axes,
    new_figure,
    png,
    shades,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = {
    "light": {"semcut": "#0072b2", "codes": "#8c8c8c", "codes + re-rank": "#d55e00", "features": "#00835f"},
    "dark": {"semcut": "#56b4e9", "codes": "#9a9a9a", "codes + re-rank": "#e69f00", "features": "#2fc79a"},
}


def of_run(datasets: list[dict[str, Any]]) -> dict[str, tuple[bytes, bytes]]:
    """All pictures of a run that there is something to show in, by name, light and dark.

    Args:
        datasets: figures of each (see `figures`).
    """
    drawn: dict[str, Callable[[Theme], bytes | None]] = {
        f"{dataset['name']}-{name}": partial(draw, dataset)
        for dataset in datasets
        if dataset["grid"] != "growth"
        for name, draw in (("quality", quality), ("recall", recall), ("scanned", scanned))
    }
    drawn["growth"] = partial(growth, [dataset for dataset in datasets if dataset["grid"] == "growth"])
    pairs = {name: (draw("light"), draw("dark")) for name, draw in drawn.items()}
    return {name: (light, dark) for name, (light, dark) in pairs.items() if light is not None and dark is not None}


def kind(family: str) -> str:
    """Which of the four kinds of methods a family is."""
    if family.startswith("semcut"):
        return "semcut"
    if "Binary" not in family:
        return "features"
    return "codes + re-rank" if "re-rank" in family else "codes"


def front(points: Iterable[Point]) -> list[Point]:
    """The points that no other has more of both than, from left to right."""
    kept: list[Point] = []
    for point in sorted(set(points), reverse=True):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept[::-1]


def quality(dataset: dict[str, Any], theme: Theme = "light") -> bytes:
    """mAP@k against queries/s in the largest batch."""
    figure, (axes,) = new_figure(theme, (9.5, 5.6), 1)
    k, batch = dataset["plan"]["k"], _batch(dataset)
    _families(axes, dataset, lambda method: method["map"], theme)
    label_axes(axes, f"mAP@{k}, by labels", f"queries/s, batch of {batch}")
    return _png(figure, dataset, "Quality and speed: right and up is better", theme)


def recall(dataset: dict[str, Any], theme: Theme = "light") -> bytes:
    """recall@k against queries/s: of Euclidean neighbours, and of Eq. 2-4."""
    ours = [method for method in dataset["methods"] if method.get("recall_equations") is not None]
    figure, panels = new_figure(theme, (9.5, 9.6 if ours else 5.4), 2 if ours else 1)
    k, batch = dataset["plan"]["k"], _batch(dataset)
    _families(panels[0], dataset, lambda method: method["recall"], theme)
    label_axes(panels[0], f"recall@{k} of the nearest features, ties counted", f"queries/s, batch of {batch}")
    if ours:
        curves: dict[str, list[Point]] = {}
        for method in ours:
            if method["structure"] == ours[0]["structure"] and method["parameters"]["ranking"] == "distance":
                name = f"t = {method['parameters']['cutoff']:g}"
                curves.setdefault(name, []).append((method["recall_equations"], _speed(method, batch)))
        tones = shades(len(curves), theme)
        panels[1].set_yscale("log")
        draw_curves(panels[1], {name: (sorted(points), tones[i], MARKERS[i % 10])
                            for i, (name, points) in enumerate(curves.items())}, theme)  # fmt: skip
        label_axes(
            panels[1], f"recall@{k} of Eq. 2-4 at the same cutoff, by size of shortlist ({ours[0]['structure']})",
            f"queries/s, batch of {batch}",
        )  # fmt: skip
    return _png(figure, dataset, "Exact answers found, and speed", theme)


def scanned(dataset: dict[str, Any], theme: Theme = "light") -> bytes | None:
    """Share of partitions, cells and codes scanned against the cutoff, beside the share that is relevant."""
    ours = [method for method in dataset["methods"] if method.get("scanned")]
    ours = [
        method for method in ours if all(
            method["parameters"][name] == ours[0]["parameters"][name] for name in ("shortlist", "ranking")
        ) and method["structure"] == ours[0]["structure"]
    ]  # fmt: skip
    if len(ours) < 2:
        return None
    figure, (axes,) = new_figure(theme, (9.5, 5.2), 1)
    colours, ink = _KINDS[theme], INK[theme][1]
    relevant = sorted((float(cutoff), 100 * share) for cutoff, share in dataset["relevant"].items())
    curves = {"records relevant": (relevant, ink, "D")}
    for what, colour, marker in (
        ("partitions", colours["codes"], "^"),
        ("cells", colours["features"], "s"),
        ("codes", colours["semcut"], "o"),
    ):
        points = sorted((method["parameters"]["cutoff"], 100 * method["scanned"][what]) for method in ours)
        curves[f"{what} scanned"] = (points, colour, marker)
    axes.set_yscale("log")
    draw_curves(axes, curves, theme)
    label_axes(axes, "cutoff t", "share of all, %")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return _png(figure, dataset, "What a query scans, and what is relevant to it", theme)


def growth(datasets: list[dict[str, Any]], theme: Theme = "light") -> bytes | None:
    """Time per query, build time, memory and bytes on the disk against the number of records."""
    if len(datasets) < 2:
        return None
    datasets = sorted(datasets, key=lambda one: one["about"]["records"])
    figure, panels = new_figure(theme, (11, 7.6), 4, columns=2)
    batch = _batch(datasets[-1])
    what: list[tuple[str, Callable[[dict[str, Any]], float]]] = [
        (f"µs per query, batch of {batch}", lambda method: 1e6 / _speed(method, batch)),
        ("build, seconds", lambda method: method["build_seconds"]),
        ("private memory, MB", lambda method: method["memory_bytes"] / 1e6),
        ("on the disk, MB", lambda method: method["disk_bytes"] / 1e6),
    ]
    for axes, (name, value) in zip(panels, what, strict=True):
        curves: Curves = {}
        for dataset in datasets:
            for method in dataset["methods"]:
                label = method["structure"] if method["semcut"] else method["name"]
                shade = _KINDS[theme][kind(method["family"])]
                points = curves.setdefault(label, ([], shade, MARKERS[len(curves) % 10]))[0]
                if value(method) > 0:
                    points.append((dataset["about"]["records"], value(method)))
        if not any(points for points, _, _ in curves.values()):
            continue
        first = [points[0] for points, _, _ in curves.values() if points]
        x, y = min(first)[0], max(point[1] for point in first)
        last = datasets[-1]["about"]["records"]
        axes.plot([x, last], [y, y * last / x], ":", color=INK[theme][2], linewidth=1.5, zorder=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        draw_curves(axes, curves, theme, small=True)
        label_axes(axes, "records (dotted: in proportion to them)", name)
    return _png(figure, datasets[-1], "Growth", theme, title=False)


def _families(
    axes: Axes, dataset: dict[str, Any], value: Callable[[dict[str, Any]], float | None], theme: Theme
) -> None:
    batch = _batch(dataset)
    families: dict[str, list[Point]] = {}
    for method in dataset["methods"]:
        x = value(method)
        if x is not None and method["complete"]:  # quality of a few queries is no match for that of all
            families.setdefault(method["family"], []).append((x, _speed(method, batch)))
    curves: Curves = {}
    counts: dict[str, int] = {}
    for family, points in families.items():
        group = kind(family)
        shade, marker = _KINDS[theme][group], MARKERS[counts.get(group, 0) % 10]
        counts[group] = counts.get(group, 0) + 1
        across, up = zip(*points, strict=True)
        axes.scatter(across, up, s=10, marker=marker, color=shade, alpha=0.3, linewidths=0, zorder=2)
        curves[family] = (front(points), shade, marker)
    best = front(point for points in families.values() for point in points)
    axes.plot(*zip(*best, strict=True), "--", color=INK[theme][1], linewidth=1, alpha=0.6, zorder=1)
    axes.set_yscale("log")
    draw_curves(axes, curves, theme)


def _png(figure: Figure, dataset: dict[str, Any], about: str, theme: Theme, *, title: bool = True) -> bytes:
    facts = dataset["about"]
    of = f" — {facts['name']}: {facts['records']:,} records, {facts['classes']} classes, {facts['bits']} bits"
    return png(figure, about + (of if title else ""), theme)


def _batch(dataset: dict[str, Any]) -> int:
    largest: int = max(dataset["plan"]["batches"])
    return largest


def _speed(method: dict[str, Any], batch: int) -> float:
    value: float = method["batches"][str(batch)]["queries_per_second"]
    return value
