"""Tables of networks measured on sets with ground truth: the paper's Tables II and III, and Fig. 4 as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from semcut.connector.evaluation.judged_rankings import JUDGED_RANKINGS, JudgedRanking
from semcut.connector.evaluation.rankings import CUTOFFS
from semcut.connector.reproduce.method_groups import Group, Stat, grouped_by_settings
from semcut.connector.reproduce.query_times import WAYS
from semcut.connector.reproduce.tables import Table, share
from semcut.connector.reproduce.truth_measurement import TruthMeasurement
from semcut.indexes.search_defaults import DEFAULT_SHORTLIST

Groups = Sequence[Group[TruthMeasurement]]

_MOST_LANDMARKS = 20
_SEARCHES = ("index", "every record by distance")
_ROWS: dict[JudgedRanking, str] = {
    "hamming": "codes, Hamming",
    "distance": "features, Euclidean",
    "relevance": "relevance R alone",
    "fused": "fused, R (1 - d)",
}


def truth_groups(networks: Sequence[TruthMeasurement]) -> list[Group[TruthMeasurement]]:
    """Group the networks of one set that differ only in their seed; a network that was adopted has its own group.

    Raises:
        DataError: two networks have the same settings and seed.
    """
    trained = [network for network in networks if "config" in network.about]
    adopted = [Group(network.name, (network,)) for network in networks if "config" not in network.about]
    return [*(grouped_by_settings(trained, networks[0].form) if trained else []), *adopted]


def map_of(group: Group[TruthMeasurement], level: str, ranking: JudgedRanking, place: int) -> Stat | None:
    """Compute the mAP@all of a ranking at the cutoff with this position; None if no network has this ranking."""
    return _stat(
        float(np.nanmean(member.figures(level, ranking)[place]))
        for member in group.members
        if ranking in member.curves.get(level, {})
    )


def landmarks(groups: Groups, level: str) -> Table:
    """Make Table II: mAP of every ranking of all records, with a column for each landmark if there are at most 20."""
    names = sorted({name for group in groups for member in group.members for name in member.landmarks})
    shown = names if len(names) <= _MOST_LANDMARKS else []
    rows = []
    for group in groups:
        for ranking, title in _ROWS.items():
            mean = map_of(group, level, ranking, 0)
            if mean is not None:
                cells = (_of_landmark(group, level, ranking, name) for name in shown)
                rows.append((f"{group.label}: {title}", *cells, str(mean)))
    title = f"mAP by landmark{_at(groups, level)}, t = 0" if shown else f"mAP{_at(groups, level)}, t = 0"
    return Table(title, ("", *shown, "all"), tuple(rows))


def cutoffs(group: Group[TruthMeasurement], level: str) -> Table:
    """Make Fig. 4 as a table: mAP of every ranking at every cutoff, and the shares relevant and scanned."""
    rows = []
    for place, t in enumerate(CUTOFFS):
        maps = (map_of(group, level, ranking, place) for ranking in JUDGED_RANKINGS)
        shares = (
            group.stat(lambda member, name=name, place=place: getattr(member, name)[place]).mean  # type: ignore[misc]
            for name in ("relevant", "scanned")
        )
        rows.append((f"{t:g}", *("" if one is None else f"{one.mean:.3f}" for one in maps), *map(share, shares)))
    columns = ("t", *JUDGED_RANKINGS, "records relevant", "records scanned")
    return Table(f"mAP of {group.label}{_at([group], level)}, by ranking and cutoff", columns, tuple(rows))


def calibrated(groups: Groups, level: str) -> Table:
    """Make the table of what calibration chose for each network, and what searches with it find."""
    first_four = groups[0].members[0].first_four
    measures = ("mAP@all", "mAP@10", *(["N-S"] if first_four else []))
    rows = []
    for group in groups:
        for member in group.members:
            chosen, searches = member.chosen, member.searches[level]
            facts = (
                ("not calibrated", "distance", "100", "", "")
                if isinstance(chosen, str)
                else (
                    "none" if chosen.cutoff is None else f"{chosen.cutoff:g}", chosen.ranking,
                    str(chosen.shortlist or "all"), share(chosen.lost), share(chosen.scanned),
                )
            )  # fmt: skip
            figures = (
                "" if value is None else f"{value:.3f}"
                for search in _SEARCHES
                for value in searches[search][: len(measures)]
            )
            rows.append((member.name, *facts, *figures))
    columns = ("network", "cutoff", "ranking", "shortlist", "copies lost", "records scanned",
               *(f"{one}, {search}" for search in _SEARCHES for one in measures))  # fmt: skip
    return Table(f"What calibration by copies chose{_at(groups, level)}", columns, tuple(rows))


def times(sets: Mapping[str, Groups]) -> Table:
    """Make Table III: time per query by set and number of categories."""
    rows = [
        (
            form,
            group.label,
            f"{group.about['classes']:,}",
            f"{member.records:,}",
            *(f"{1000 * member.times[way][0]:,.0f} µs; {member.times[way][1]:.2f} ms" for way in WAYS),
        )
        for form, groups in sets.items()
        for group in groups
        for member in group.members[:1]
    ]
    columns = ("set", "network", "categories", "records", "index, as calibrated",
               f"codes, Hamming, {DEFAULT_SHORTLIST} re-ranked", "features, Euclidean")  # fmt: skip
    return Table("Time per query, in a batch and alone, by set and number of categories", columns, tuple(rows))


def best_group(groups: Groups) -> Group[TruthMeasurement]:
    """Find the group with the highest mAP by distance of features, at the first level."""

    def quality(group: Group[TruthMeasurement]) -> float:
        found = map_of(group, levels(groups)[0], "distance", 0)
        return -1.0 if found is None else found.mean

    return max(groups, key=quality)


def levels(groups: Groups) -> list[str]:
    """Return the names of the levels of a set."""
    return list(groups[0].members[0].curves)


def _of_landmark(group: Group[TruthMeasurement], level: str, ranking: JudgedRanking, name: str) -> str:
    """Write the mAP of the queries of one landmark; empty if no network has such a query."""
    values = []
    for member in group.members:
        mine = member.figures(level, ranking)[0][np.array(member.landmarks) == name]
        if not np.isnan(mine).all():
            values.append(float(np.nanmean(mine)))
    return str(_stat(values) or "")


def _stat(values: Iterable[float]) -> Stat | None:
    found = [value for value in values if not np.isnan(value)]
    return Stat.of(found) if found else None


def _at(groups: Groups, level: str) -> str:
    """Return what a title says of the level, if there are several."""
    return f", {level}" if len(levels(groups)) > 1 else ""
