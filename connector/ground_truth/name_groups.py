"""Read ground truth from the names of images: groups by number, as in Holidays and UKBench.

    holidays   100000.jpg is the query of group 1000, 100001.jpg to 100099.jpg are its relevant images; the query is
               left out of its own answer. Source: Jegou, Douze and Schmid, "Hamming embedding and weak geometric
               consistency for large scale image search" (ECCV 2008).
    ukbench    ukbench00000.jpg to ukbench00003.jpg show one object, and so on. Each image is a query, and one of the
               four to find; the N-S score is the number of them among the first four. Source: Nister and Stewenius,
               "Scalable recognition with a vocabulary tree" (CVPR 2006).

Images with other names are no part of the set; if they are in the index, they are wrong answers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from semcut.connector.data.image_folders import Skipped
from semcut.connector.ground_truth.judged_queries import ALL, GroundTruth, Judgement, Query
from semcut.indexes.errors import DataError

_HOLIDAYS = re.compile(r"[0-9]{6}")
_UKBENCH = re.compile(r"ukbench[0-9]{5}")
_FOUR = 4


def holidays_groups(stems: Iterable[str]) -> GroundTruth:
    """Group images of Holidays by their names without endings.

    Raises:
        DataError: no group has a query and a relevant image.
    """
    names = frozenset(stem for stem in stems if _HOLIDAYS.fullmatch(stem))
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[name[:4]].add(name)
    queries: list[Query] = []
    judgements: list[Judgement] = []
    left_out: list[Skipped] = []
    for group, members in sorted(groups.items()):
        query = f"{group}00"
        if query not in members or len(members) < 2:
            missing = f"its query {query}" if query not in members else "an image beside its query"
            left_out.append((f"group {group}", f"it has not {missing}"))
            continue
        queries.append(Query(query, query))
        judgements.append(Judgement(frozenset(members - {query}), frozenset({query})))
    if not queries:
        raise DataError(
            "no images are named as those of holidays: expected 100000.jpg as the query of group 1000, and 100001.jpg "
            "and so on beside it"
        )
    return GroundTruth(
        "holidays", tuple(queries), {ALL: tuple(judgements)}, names=names, published=(500, 1491),
        left_out=tuple(left_out),
    )  # fmt: skip


def ukbench_groups(stems: Iterable[str]) -> GroundTruth:
    """Group images of UKBench by their names without endings.

    Raises:
        DataError: no group is complete.
    """
    names = frozenset(stem for stem in stems if _UKBENCH.fullmatch(stem))
    groups: dict[int, set[str]] = defaultdict(set)
    for name in names:
        groups[int(name[-5:]) // _FOUR].add(name)
    whole = {group: frozenset(members) for group, members in sorted(groups.items()) if len(members) == _FOUR}
    left_out = [
        (f"group {group}", f"it has {len(members)} of its {_FOUR} images")
        for group, members in sorted(groups.items())
        if group not in whole
    ]
    if not whole:
        raise DataError(
            "no images are named as those of ukbench: expected ukbench00000.jpg to ukbench00003.jpg for the first "
            "object, and so on"
        )
    pairs = [(name, members) for members in whole.values() for name in sorted(members)]
    return GroundTruth(
        "ukbench",
        tuple(Query(name, name) for name, _ in pairs),
        {ALL: tuple(Judgement(members, frozenset()) for _, members in pairs)},
        trapezoid=False,
        first_four=True,
        names=names,
        published=(10200, 10200),
        left_out=tuple(left_out),
    )
