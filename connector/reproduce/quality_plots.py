"""Draw results: the paper's Fig. 4, with the share of records that is scanned; and the training of networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from semcut.connector.evaluation.charts import INK, MARKERS, Curves, draw_curves, label_axes, new_figure, png
from semcut.connector.evaluation.judged_rankings import JUDGED_RANKINGS
from semcut.connector.evaluation.rankings import CUTOFFS, RANKING_NAMES
from semcut.connector.reproduce.judged_tables import map_of
from semcut.connector.reproduce.method_groups import Group, headline_metric, mean_ap
from semcut.connector.reproduce.network_measurements import Measurement
from semcut.connector.reproduce.tables import share_of
from semcut.connector.reproduce.truth_measurement import TruthMeasurement

_COLOURS = ("#0072b2", "#d55e00", "#00835f", "#cc79a7", "#b8860b", "#56b4e9", "#8c8c8c")


def fig4(group: Group[Measurement]) -> bytes:
    """Draw mAP of every ranking, and the shares of records that are relevant and scanned, against the cutoff.

    Returns:
        The content of a PNG file.
    """
    figure, (axes,) = new_figure("light", (8.5, 5), 1)
    cutoffs = group.members[0].comparison.cutoffs
    metric, curves = headline_metric(group.about["protocol"]), Curves()
    for name, colour, marker in zip(RANKING_NAMES, _COLOURS, MARKERS, strict=False):
        curves[name] = ([(t, mean_ap(group, metric, name, t).mean) for t in cutoffs], colour, marker)
    for share, colour in (("relevant", "#8c8c8c"), ("scanned", INK["light"][1])):
        points = [(t, group.stat(share_of(share, place)).mean) for place, t in enumerate(cutoffs)]
        curves[f"share {share}"] = (points, colour, ".")
    axes.set_ylim(0, 1)
    draw_curves(axes, curves, "light")
    label_axes(axes, "cutoff t", f"{metric}; share of the records")
    return png(figure, f"Rankings and cutoffs, {group.about['protocol']}, {group.label}", "light")


def truth_fig4(group: Group[TruthMeasurement], level: str) -> bytes:
    """Draw Fig. 4 for a set with ground truth, at one level.

    Returns:
        The content of a PNG file.
    """
    figure, (axes,) = new_figure("light", (8.5, 5), 1)
    curves = Curves()
    for name, colour, marker in zip(JUDGED_RANKINGS, _COLOURS, MARKERS, strict=False):
        points = [(t, found.mean) for place, t in enumerate(CUTOFFS) if (found := map_of(group, level, name, place))]
        if points:
            curves[name] = (points, colour, marker)
    for share, colour in (("relevant", "#8c8c8c"), ("scanned", INK["light"][1])):
        means = np.mean([getattr(member, share) for member in group.members], axis=0).tolist()
        curves[f"share {share}"] = (list(zip(CUTOFFS, means, strict=True)), colour, ".")
    axes.set_ylim(0, 1)
    draw_curves(axes, curves, "light")
    label_axes(axes, "cutoff t", "mAP; share of the records")
    return png(figure, f"Rankings and cutoffs, {group.members[0].form}, {level}, {group.label}", "light")


def training(groups: Sequence[Group[Measurement]]) -> bytes:
    """Draw mAP of the codes of validation images against minutes of training, for the first network of each group.

    If none of these networks has that figure, as with networks of earlier versions of semcut, the accuracy on
    validation images is drawn instead.

    Returns:
        The content of a PNG file.
    """
    figure, (axes,) = new_figure("light", (8.5, 4.5), 1)
    curves = Curves()
    key, label = "validation_hamming_map", "mAP of codes, validation images"
    if not any(key in epoch for group in groups for epoch in group.members[0].curve):
        key, label = "validation_accuracy", "accuracy, validation images"
    for group, colour, marker in zip(groups, itertools.cycle(_COLOURS), itertools.cycle(MARKERS), strict=False):
        epochs = group.members[0].curve
        minutes = itertools.accumulate(epoch["seconds"] / 60 for epoch in epochs)
        points = [(at, epoch.get(key)) for at, epoch in zip(minutes, epochs, strict=True)]
        curves[group.label] = ([(at, value) for at, value in points if value is not None], colour, marker)
    draw_curves(axes, curves, "light")
    label_axes(axes, "minutes of training", label)
    return png(figure, f"Training, {groups[0].about['protocol']}", "light")
