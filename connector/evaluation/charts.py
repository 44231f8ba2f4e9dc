"""Draw charts in one style: each curve is labelled at its end, in a light or a dark theme.

Colours distinguish kinds of curves, for colour-blind readers too (the palette of Okabe and Ito); markers distinguish
curves of one kind. The caller chooses both. Texts are never formulas, whatever "$" they have. Needs matplotlib (extra
`benchmark`).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

from semcut.indexes.errors import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

require({"matplotlib": "matplotlib"}, "draw figures", "benchmark")

Theme = Literal["light", "dark"]
Point = tuple[float, float]
Curves = dict[str, tuple[list[Point], str, str]]
"""Points from left to right, colour and marker of each curve, by name of the curve."""

INK = {"light": ("#ffffff", "#222222", "#d9d9d9"), "dark": ("#17191c", "#e6e6e6", "#3a3d42")}
"""Colours of background, text and grid lines, by theme."""

MARKERS = "osD^vPX<>*"

MOST_CURVES = 50
"""The most curves of a panel: more have no room for their names, and take minutes to draw."""


def new_figure(theme: Theme, size: tuple[float, float], panels: int, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Create an empty figure of a size in inches, and its panels, row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    paper, ink, line = INK[theme]
    figure = Figure(figsize=size, dpi=110, facecolor=paper)
    FigureCanvasAgg(figure)
    all_axes = []
    for place in range(panels):
        axes = figure.add_subplot(-(-panels // columns), columns, place + 1, facecolor=paper)
        axes.grid(True, which="major", color=line, linewidth=0.6)
        axes.tick_params(colors=ink, labelsize=8, which="both")
        axes.yaxis.set_minor_formatter(NullFormatter())
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(line)
        axes.set_axisbelow(True)
        all_axes.append(axes)
    right, between = (0.69, 0.0) if columns == 1 else (0.82, 0.95)
    figure.subplots_adjust(left=0.085, right=right, top=0.9, bottom=0.1, hspace=0.32, wspace=between)
    return figure, all_axes


def label_axes(axes: Axes, x: str, y: str) -> None:
    """Label both axes of a panel, in the colour of its theme."""
    ink = axes.xaxis.get_ticklabels()[0].get_color() if axes.xaxis.get_ticklabels() else "black"
    axes.set_xlabel(x, fontsize=9, color=ink, parse_math=False)
    axes.set_ylabel(y, fontsize=9, color=ink, parse_math=False)


def draw_curves(axes: Axes, curves: Curves, theme: Theme, *, small: bool = False) -> None:
    """Draw curves, and write each name to the right of the panel, near the height of the last point of its curve.

    The caller sets the scales of the axes before, because the heights of the names depend on the scales. Only the first
    `MOST_CURVES` curves that have points are drawn; a line below the panel says how many are left out.
    """
    full = [name for name, (points, _, _) in curves.items() if points]
    left_out = len(full) - MOST_CURVES
    curves = {name: curves[name] for name in full[:MOST_CURVES]}
    if left_out > 0:
        axes.annotate(
            f"{left_out} more not drawn", xy=(1.03, -0.07), xycoords="axes fraction", va="center", fontsize=8,
            color=INK[theme][1], annotation_clip=False,
        )  # fmt: skip
    for name, (points, shade, marker) in curves.items():
        wide = 2.2 if name.startswith("semcut") else 1.2
        axes.plot(
            *zip(*points, strict=True), marker=marker, markersize=4.5, color=shade, linewidth=wide,
            zorder=4 if wide > 2 else 3,
        )  # fmt: skip
    axes.margins(0.06)
    (
        axes.get_xlim(),
        axes.get_ylim(),
    )  # reading the limits makes matplotlib compute limits and transData
    names = [*curves]
    ends = {
        name: axes.transAxes.inverted().transform(axes.transData.transform(curves[name][0][-1])).tolist()
        for name in names
    }
    step = min(0.085 if small else 0.052, 1 / max(1, len(names) - 1))
    names.sort(key=lambda name: ends[name][1])
    heights = spread([ends[name][1] for name in names], step)
    for name, height in zip(names, heights, strict=True):
        axes.annotate(
            name, xy=(ends[name][0], ends[name][1]), xytext=(1.03, height), xycoords="axes fraction",
            textcoords="axes fraction", va="center", fontsize=7 if small else 8, color=curves[name][1],
            arrowprops={"arrowstyle": "-", "color": curves[name][1], "linewidth": 0.5, "alpha": 0.5},
            annotation_clip=False, parse_math=False,
        )  # fmt: skip


def spread(wanted: list[float], step: float) -> list[float]:
    """Move heights apart so that neighbours differ by at least `step`; the sum of squared moves is the least possible.

    After i * step is subtracted from the i-th height, the heights only need to be ascending. Isotonic regression finds
    the nearest ascending values: it replaces neighbours that descend by their mean.

    Args:
        wanted: ascending heights.
        step: least distance of neighbours.

    Returns:
        The same number of heights, ascending; between 0 and 1 if they fit there.
    """
    blocks: list[tuple[float, int]] = []  # mean, and number of pooled heights
    for place, height in enumerate(wanted):
        mean, count = height - place * step, 1
        while blocks and blocks[-1][0] > mean:
            other_mean, other_count = blocks.pop()
            mean = (other_mean * other_count + mean * count) / (other_count + count)
            count += other_count
        blocks.append((mean, count))
    flat = [mean for mean, count in blocks for _ in range(count)]
    highest = 1 - (len(wanted) - 1) * step
    return [min(max(mean, 0), highest) + place * step for place, mean in enumerate(flat)]


def shades(count: int, theme: Theme) -> list[str]:
    """Return colours for `count` ordered values, from faint to strong in the theme."""
    ends = ("#9ccbe6", "#003f66") if theme == "light" else ("#24577a", "#bfe3f7")
    low, high = ([int(end[i : i + 2], 16) for i in (1, 3, 5)] for end in ends)
    steps = [i / max(1, count - 1) for i in range(count)]
    return ["#" + "".join(f"{round(a + s * (b - a)):02x}" for a, b in zip(low, high, strict=True)) for s in steps]


def png(figure: Figure, title: str, theme: Theme) -> bytes:
    """Render a figure with a title, and return the content of a PNG file."""
    figure.suptitle(title, fontsize=10.5, x=0.085, ha="left", color=INK[theme][1], parse_math=False)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()
