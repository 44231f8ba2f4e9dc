"""Pictures of a run: figures in, PNG files out, each in a light and a dark theme.

Curves are labelled where they end, not in a legend; colours tell four kinds of methods apart and stay apart for
colour-blind readers (Okabe and Ito), markers tell the families of a kind apart. A curve joins the points of a family
that no other of the same family beats; the dashed line does so for all methods together: the Pareto front.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

from connector.benchmark import require_matplotlib

require_matplotlib()

from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: E402

Theme = Literal["light", "dark"]
Point = tuple[float, float]

_INK = {"light": ("#ffffff", "#222222", "#d9d9d9"), "dark": ("#17191c", "#e6e6e6", "#3a3d42")}
_KINDS = {
    "light": {"semcut": "#0072b2", "codes": "#8c8c8c", "codes + re-rank": "#d55e00", "features": "#00835f"},
    "dark": {"semcut": "#56b4e9", "codes": "#9a9a9a", "codes + re-rank": "#e69f00", "features": "#2fc79a"},
}
_MARKERS = "osD^vPX<>*"


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
    figure, (axes,) = _figure(theme, (9.5, 5.6), 1)
    k, batch = dataset["plan"]["k"], _batch(dataset)
    _families(axes, dataset, lambda method: method["map"], theme)
    _labelled(axes, f"mAP@{k}, by labels", f"queries/s, batch of {batch}")
    return _png(figure, dataset, "Quality and speed: right and up is better", theme)


def recall(dataset: dict[str, Any], theme: Theme = "light") -> bytes:
    """recall@k against queries/s: of Euclidean neighbours, and of Eq. 2-4."""
    ours = [method for method in dataset["methods"] if method.get("recall_equations") is not None]
    figure, panels = _figure(theme, (9.5, 9.6 if ours else 5.4), 2 if ours else 1)
    k, batch = dataset["plan"]["k"], _batch(dataset)
    _families(panels[0], dataset, lambda method: method["recall"], theme)
    _labelled(panels[0], f"recall@{k} of the nearest features, ties counted", f"queries/s, batch of {batch}")
    if ours:
        curves: dict[str, list[Point]] = {}
        for method in ours:
            if method["structure"] == ours[0]["structure"] and method["parameters"]["ranking"] == "distance":
                name = f"t = {method['parameters']['cutoff']:g}"
                curves.setdefault(name, []).append((method["recall_equations"], _speed(method, batch)))
        shades = _shades(len(curves), theme)
        panels[1].set_yscale("log")
        _curves(panels[1], {name: (sorted(points), shades[i], _MARKERS[i % 10])
                            for i, (name, points) in enumerate(curves.items())}, theme)  # fmt: skip
        _labelled(
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
    figure, (axes,) = _figure(theme, (9.5, 5.2), 1)
    shades, ink = _KINDS[theme], _INK[theme][1]
    relevant = sorted((float(cutoff), 100 * share) for cutoff, share in dataset["relevant"].items())
    curves = {"records relevant": (relevant, ink, "D")}
    for what, colour, marker in (
        ("partitions", shades["codes"], "^"),
        ("cells", shades["features"], "s"),
        ("codes", shades["semcut"], "o"),
    ):
        points = sorted((method["parameters"]["cutoff"], 100 * method["scanned"][what]) for method in ours)
        curves[f"{what} scanned"] = (points, colour, marker)
    axes.set_yscale("log")
    _curves(axes, curves, theme)
    _labelled(axes, "cutoff t", "share of all, %")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return _png(figure, dataset, "What a query scans, and what is relevant to it", theme)


def growth(datasets: list[dict[str, Any]], theme: Theme = "light") -> bytes | None:
    """Time per query, build time, memory and bytes on the disk against the number of records."""
    if len(datasets) < 2:
        return None
    datasets = sorted(datasets, key=lambda one: one["about"]["records"])
    figure, panels = _figure(theme, (11, 7.6), 4, columns=2)
    batch = _batch(datasets[-1])
    what: list[tuple[str, Callable[[dict[str, Any]], float]]] = [
        (f"µs per query, batch of {batch}", lambda method: 1e6 / _speed(method, batch)),
        ("build, seconds", lambda method: method["build_seconds"]),
        ("private memory, MB", lambda method: method["memory_bytes"] / 1e6),
        ("on the disk, MB", lambda method: method["disk_bytes"] / 1e6),
    ]
    for axes, (name, value) in zip(panels, what, strict=True):
        curves: dict[str, tuple[list[Point], str, str]] = {}
        for dataset in datasets:
            for method in dataset["methods"]:
                label = method["structure"] if method["semcut"] else method["name"]
                shade = _KINDS[theme][kind(method["family"])]
                points = curves.setdefault(label, ([], shade, _MARKERS[len(curves) % 10]))[0]
                if value(method) > 0:
                    points.append((dataset["about"]["records"], value(method)))
        if not any(points for points, _, _ in curves.values()):
            continue
        first = [points[0] for points, _, _ in curves.values() if points]
        x, y = min(first)[0], max(point[1] for point in first)
        last = datasets[-1]["about"]["records"]
        axes.plot([x, last], [y, y * last / x], ":", color=_INK[theme][2], linewidth=1.5, zorder=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _curves(axes, curves, theme, small=True)
        _labelled(axes, "records (dotted: in proportion to them)", name)
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
    curves: dict[str, tuple[list[Point], str, str]] = {}
    counts: dict[str, int] = {}
    for family, points in families.items():
        group = kind(family)
        shade, marker = _KINDS[theme][group], _MARKERS[counts.get(group, 0) % 10]
        counts[group] = counts.get(group, 0) + 1
        across, up = zip(*points, strict=True)
        axes.scatter(across, up, s=10, marker=marker, color=shade, alpha=0.3, linewidths=0, zorder=2)
        curves[family] = (front(points), shade, marker)
    best = front(point for points in families.values() for point in points)
    axes.plot(*zip(*best, strict=True), "--", color=_INK[theme][1], linewidth=1, alpha=0.6, zorder=1)
    axes.set_yscale("log")
    _curves(axes, curves, theme)


def _curves(axes: Axes, curves: dict[str, tuple[list[Point], str, str]], theme: Theme, *, small: bool = False) -> None:
    """Curves with their names to the right, each at the height of its last point or as near as there is room."""
    for name, (points, shade, marker) in curves.items():
        if points:
            wide = 2.2 if name.startswith("semcut") else 1.2
            axes.plot(
                *zip(*points, strict=True), marker=marker, markersize=4.5, color=shade, linewidth=wide,
                zorder=4 if wide > 2 else 3,
            )  # fmt: skip
    axes.margins(0.06)
    axes.get_xlim(), axes.get_ylim()  # transforms are known from now on: scales must be set before
    names = [name for name, (points, _, _) in curves.items() if points]
    ends = {
        name: axes.transAxes.inverted().transform(axes.transData.transform(curves[name][0][-1])).tolist()
        for name in names
    }
    step = 0.085 if small else 0.052
    names.sort(key=lambda name: ends[name][1])
    heights = spread([ends[name][1] for name in names], step)
    for name, height in zip(names, heights, strict=True):
        axes.annotate(
            name, xy=(ends[name][0], ends[name][1]), xytext=(1.03, height), xycoords="axes fraction",
            textcoords="axes fraction", va="center", fontsize=7 if small else 8, color=curves[name][1],
            arrowprops={"arrowstyle": "-", "color": curves[name][1], "linewidth": 0.5, "alpha": 0.5},
            annotation_clip=False,
        )  # fmt: skip


def spread(wanted: list[float], step: float) -> list[float]:
    """Heights as near as can be to those wanted, which ascend, but at least a step apart and not above 1.

    Without the steps between them they must ascend: isotonic regression, by pooling neighbours that do not.
    """
    blocks: list[tuple[float, int]] = []  # mean and count
    for place, height in enumerate(wanted):
        mean, count = height - place * step, 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        blocks.append((mean, count))
    flat = [mean for mean, count in blocks for _ in range(count)]
    highest = 1 - (len(wanted) - 1) * step
    return [min(mean, highest) + place * step for place, mean in enumerate(flat)]


def _figure(theme: Theme, size: tuple[float, float], panels: int, columns: int = 1) -> tuple[Figure, list[Axes]]:
    paper, ink, line = _INK[theme]
    figure = Figure(figsize=size, dpi=110, facecolor=paper)
    FigureCanvasAgg(figure)
    found = []
    for place in range(panels):
        axes = figure.add_subplot(-(-panels // columns), columns, place + 1, facecolor=paper)
        axes.grid(True, which="major", color=line, linewidth=0.6)
        axes.tick_params(colors=ink, labelsize=8, which="both")
        axes.yaxis.set_minor_formatter(NullFormatter())
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(line)
        axes.set_axisbelow(True)
        found.append(axes)
    right, between = (0.69, 0.0) if columns == 1 else (0.82, 0.95)
    figure.subplots_adjust(left=0.085, right=right, top=0.9, bottom=0.1, hspace=0.32, wspace=between)
    return figure, found


def _labelled(axes: Axes, x: str, y: str) -> None:
    ink = axes.xaxis.get_ticklabels()[0].get_color() if axes.xaxis.get_ticklabels() else "black"
    axes.set_xlabel(x, fontsize=9, color=ink)
    axes.set_ylabel(y, fontsize=9, color=ink)


def _png(figure: Figure, dataset: dict[str, Any], about: str, theme: Theme, *, title: bool = True) -> bytes:
    facts = dataset["about"]
    of = f" — {facts['name']}: {facts['records']:,} records, {facts['classes']} classes, {facts['bits']} bits"
    figure.suptitle(about + (of if title else ""), fontsize=10.5, x=0.085, ha="left", color=_INK[theme][1])
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def _shades(count: int, theme: Theme) -> list[str]:
    """Colours from light to dark for something that is ordered."""
    ends = ("#9ccbe6", "#003f66") if theme == "light" else ("#24577a", "#bfe3f7")
    low, high = ([int(end[i : i + 2], 16) for i in (1, 3, 5)] for end in ends)
    steps = [i / max(1, count - 1) for i in range(count)]
    return ["#" + "".join(f"{round(a + s * (b - a)):02x}" for a, b in zip(low, high, strict=True)) for s in steps]


def _batch(dataset: dict[str, Any]) -> int:
    largest: int = max(dataset["plan"]["batches"])
    return largest


def _speed(method: dict[str, Any], batch: int) -> float:
    value: float = method["batches"][str(batch)]["queries_per_second"]
    return value
