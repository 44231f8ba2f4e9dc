"""Pictures of results: the paper's Fig. 4 with what a cutoff leaves to scan, and how networks were trained."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from semcut.connector.evaluation.drawing import INK, MARKERS, Curves, draw_curves, label_axes, new_figure, png
from semcut.connector.evaluation.rankings import NAMES
from semcut.connector.reproduce.groups import Group, headline
from semcut.connector.reproduce.tables import share_of

_COLOURS = ("#0072b2", "#d55e00", "#00835f", "#cc79a7", "#b8860b", "#56b4e9", "#8c8c8c")


def fig4(group: Group) -> bytes:
    """mAP of every ranking, and the shares of records that are relevant and that are scanned, against the cutoff."""
    figure, (axes,) = new_figure("light", (8.5, 5), 1)
    cutoffs = group.members[0].comparison.cutoffs
    metric, curves = headline(group.about["protocol"]), Curves()
    for name, colour, marker in zip(NAMES, _COLOURS, MARKERS, strict=False):
        curves[name] = ([(t, group.map(metric, name, t).mean) for t in cutoffs], colour, marker)
    for share, colour in (("relevant", "#8c8c8c"), ("scanned", INK["light"][1])):
        points = [(t, group.stat(share_of(share, place)).mean) for place, t in enumerate(cutoffs)]
        curves[f"share {share}"] = (points, colour, ".")
    axes.set_ylim(0, 1)
    draw_curves(axes, curves, "light")
    label_axes(axes, "cutoff t", f"{metric}; share of the records")
    return png(figure, f"Rankings and cutoffs, {group.about['protocol']}, {group.label}", "light")


def training(groups: Sequence[Group]) -> bytes:
    """mAP of the codes of validation images against minutes of training, of the first network of each group.

    Where no network was measured so, the share of them whose class is named.
    """
    figure, (axes,) = new_figure("light", (8.5, 4.5), 1)
    curves = Curves()
    key, said = "validation_hamming_map", "mAP of codes, validation images"
    if not any(key in line for group in groups for line in group.members[0].curve):
        key, said = "validation_accuracy", "class named, validation images"
    for group, colour, marker in zip(groups, itertools.cycle(_COLOURS), itertools.cycle(MARKERS), strict=False):
        lines = group.members[0].curve
        minutes = itertools.accumulate(line["seconds"] / 60 for line in lines)
        points = [(at, line.get(key)) for at, line in zip(minutes, lines, strict=True)]
        curves[group.label] = ([(at, found) for at, found in points if found is not None], colour, marker)
    draw_curves(axes, curves, "light")
    label_axes(axes, "minutes of training", said)
    return png(figure, f"Training, {groups[0].about['protocol']}", "light")
