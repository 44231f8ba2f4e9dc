"""Draw the plots of a run from its figures, as PNG files in a light and a dark theme.

Curves are labelled at their ends, not in a legend. Colours distinguish the kinds of methods and stay distinct for
colour-blind readers (Okabe and Ito); markers distinguish the families of a kind. A curve joins the points of a family
that no other point of the family beats; the dashed line does the same for all methods: the Pareto front.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from semcut.connector.benchmark.report.figures import DatasetFigures, MethodFigures, RunFigures, pareto_front
from semcut.connector.evaluation.charts import (
    INK,
    MARKERS,
    MOST_CURVES,
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
    "light": {
        "semcut": "#0072b2",
        "codes": "#8c8c8c",
        "codes + re-rank": "#d55e00",
        "features": "#00835f",
        "features + classes": "#b0568f",
    },
    "dark": {
        "semcut": "#56b4e9",
        "codes": "#9a9a9a",
        "codes + re-rank": "#e69f00",
        "features": "#2fc79a",
        "features + classes": "#e29bc8",
    },
}


def plots_of_run(run: RunFigures) -> dict[str, tuple[bytes, bytes]]:
    """Draw all plots of a run that have enough data, by name, for a light and for a dark page."""
    drawn: dict[str, Callable[[Theme], bytes | None]] = {
        f"{dataset.name}-{name}": partial(draw, dataset)
        for dataset in run.compared
        for name, draw in (("quality", quality), ("recall", recall), ("scanned", scanned))
    }
    drawn["growth"] = partial(growth, run.growth)
    pairs = {name: (draw("light"), draw("dark")) for name, draw in drawn.items()}
    return {name: (light, dark) for name, (light, dark) in pairs.items() if light is not None and dark is not None}


def quality(dataset: DatasetFigures, theme: Theme = "light") -> bytes:
    """Draw mAP@k against queries/s in the largest batch."""
    figure, (axes,) = new_figure(theme, (9.5, _height(dataset)), 1)
    _draw_families(axes, dataset, lambda method: method.map, theme)
    label_axes(axes, f"mAP@{dataset.plan.k}, by labels", f"queries/s, batch of {dataset.plan.largest_batch}")
    return _png(figure, dataset, "Quality and speed: right and up is better", theme)


def recall(dataset: DatasetFigures, theme: Theme = "light") -> bytes:
    """Draw recall@k against queries/s: recall of the nearest features, and of the answers by Eq. 2-4."""
    k, speed_label = dataset.plan.k, f"queries/s, batch of {dataset.plan.largest_batch}"
    curves = _recall_by_cutoff(dataset)
    figure, panels = new_figure(theme, (9.5, _height(dataset) * (1.8 if curves else 1)), 2 if curves else 1)
    _draw_families(panels[0], dataset, lambda method: method.recall, theme)
    label_axes(panels[0], f"recall@{k} of the nearest features, ties counted", speed_label)
    if curves:
        structure = next(method.structure for method in dataset.methods if method.semcut is not None)
        tones = shades(len(curves), theme)
        panels[1].set_yscale("log")
        drawn: Curves = {
            name: (sorted(points), tones[i], MARKERS[i % 10]) for i, (name, points) in enumerate(curves.items())
        }
        draw_curves(panels[1], drawn, theme)
        label_axes(
            panels[1], f"recall@{k} of Eq. 2-4 at the same cutoff, by size of shortlist ({structure})", speed_label
        )
    return _png(figure, dataset, "Exact answers found, and speed", theme)


def _height(dataset: DatasetFigures) -> float:
    """Return the height of a figure, in inches, that has room for the labels of all families."""
    families = {method.family for method in dataset.methods if method.complete}
    return max(5.4, 0.22 * min(len(families), MOST_CURVES))


def _recall_by_cutoff(dataset: DatasetFigures) -> dict[str, list[Point]]:
    """Collect recall of Eq. 2-4 and queries/s of semcut's first scanner with the ranking by distance, by cutoff."""
    searches = [
        (method, method.semcut)
        for method in dataset.methods
        if method.semcut is not None and method.semcut.recall_equations is not None
    ]
    curves: dict[str, list[Point]] = {}
    for method, figures in searches:
        if method.structure == searches[0][0].structure and figures.point.ranking == "distance":
            point = (figures.recall_equations or 0.0, method.queries_per_second(dataset.plan.largest_batch))
            curves.setdefault(f"t = {figures.point.cutoff:g}", []).append(point)
    return curves


def scanned(dataset: DatasetFigures, theme: Theme = "light") -> bytes | None:
    """Draw the shares of partitions, cells and codes scanned against the cutoff, with the share that is relevant."""
    of_semcut = [(method.structure, method.semcut) for method in dataset.methods if method.semcut is not None]
    searches = [
        figures
        for structure, figures in of_semcut
        if structure == of_semcut[0][0]
        and figures.point.shortlist == of_semcut[0][1].point.shortlist
        and figures.point.ranking == of_semcut[0][1].point.ranking
    ]
    if len(searches) < 2:
        return None
    figure, (axes,) = new_figure(theme, (9.5, 5.2), 1)
    colours, ink = _KINDS[theme], INK[theme][1]
    relevant = sorted((cutoff, 100 * share) for cutoff, share in dataset.relevant.items())
    curves: Curves = {"records relevant": (relevant, ink, "D")}
    for what, colour, marker in (
        ("partitions", colours["codes"], "^"),
        ("cells", colours["features"], "s"),
        ("codes", colours["semcut"], "o"),
    ):
        points = sorted((figures.point.cutoff, 100 * figures.scanned[what]) for figures in searches)
        curves[f"{what} scanned"] = (points, colour, marker)
    if any(share > 0 for points, _, _ in curves.values() for _, share in points):
        axes.set_yscale("log")
    draw_curves(axes, curves, theme)
    label_axes(axes, "cutoff t", "share of all, %")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return _png(figure, dataset, "What a query scans, and what is relevant to it", theme)


def growth(datasets: list[DatasetFigures], theme: Theme = "light") -> bytes | None:
    """Draw time per query, build time, memory and bytes on the disk against the number of records.

    Args:
        datasets: the growth curve, the smallest data set first.
        theme: theme of the page.
    """
    if len(datasets) < 2:
        return None
    figure, panels = new_figure(theme, (11, 7.6), 4, columns=2)
    batch, last = datasets[-1].plan.largest_batch, datasets[-1].about.records
    what: list[tuple[str, Callable[[MethodFigures], float]]] = [
        (f"µs per query, batch of {batch}", lambda method: 1e6 / method.queries_per_second(batch)),
        ("build, seconds", lambda method: method.build_seconds),
        ("private memory, MB", lambda method: method.memory_bytes / 1e6),
        ("on the disk, MB", lambda method: method.disk_bytes / 1e6),
    ]
    for axes, (name, value) in zip(panels, what, strict=True):
        curves = _growth_curves(datasets, value, theme)
        if not any(points for points, _, _ in curves.values()):
            continue
        first = [points[0] for points, _, _ in curves.values() if points]
        x, y = min(first)[0], max(point[1] for point in first)
        axes.plot([x, last], [y, y * last / x], ":", color=INK[theme][2], linewidth=1.5, zorder=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        draw_curves(axes, curves, theme, small=True)
        label_axes(axes, "records (dotted: proportional to them)", name)
    return _png(figure, datasets[-1], "Growth", theme, title=False)


def _growth_curves(datasets: list[DatasetFigures], value: Callable[[MethodFigures], float], theme: Theme) -> Curves:
    """Collect a figure of each method by number of records; figures that are not positive are left out."""
    curves: Curves = {}
    for dataset in datasets:
        for method in dataset.methods:
            label = method.name if method.semcut is None else method.structure
            shade = _KINDS[theme][method.kind]
            points = curves.setdefault(label, ([], shade, MARKERS[len(curves) % 10]))[0]
            if value(method) > 0:
                points.append((dataset.about.records, value(method)))
    return curves


def _draw_families(
    axes: Axes, dataset: DatasetFigures, value: Callable[[MethodFigures], float | None], theme: Theme
) -> None:
    """Draw a figure of each complete method against queries/s, and the Pareto fronts of each family and of all."""
    batch = dataset.plan.largest_batch
    families: dict[str, list[Point]] = {}
    kinds: dict[str, str] = {}
    for method in dataset.methods:
        x = value(method)
        if x is not None and method.complete:
            families.setdefault(method.family, []).append((x, method.queries_per_second(batch)))
            kinds[method.family] = method.kind
    curves: Curves = {}
    counts: dict[str, int] = {}
    for family, points in islice(families.items(), MOST_CURVES):
        kind = kinds[family]
        shade, marker = _KINDS[theme][kind], MARKERS[counts.get(kind, 0) % 10]
        counts[kind] = counts.get(kind, 0) + 1
        across, up = zip(*points, strict=True)
        axes.scatter(across, up, s=10, marker=marker, color=shade, alpha=0.3, linewidths=0, zorder=2)
        curves[family] = (pareto_front(points), shade, marker)
    curves |= {family: (points, "", "") for family, points in families.items() if family not in curves}  # are counted
    best = pareto_front(point for points in families.values() for point in points)
    if best:
        axes.plot(*zip(*best, strict=True), "--", color=INK[theme][1], linewidth=1, alpha=0.6, zorder=1)
    axes.set_yscale("log")
    draw_curves(axes, curves, theme)


def _png(figure: Figure, dataset: DatasetFigures, about: str, theme: Theme, *, title: bool = True) -> bytes:
    facts = dataset.about
    of = f" — {facts.name}: {facts.records:,} records, {facts.classes} classes, {facts.bits} bits"
    return png(figure, about + (of if title else ""), theme)
