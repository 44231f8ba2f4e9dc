"""Networks that were trained alike but for their seed, as one method: figures with mean and spread."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.protocols import PROTOCOLS
from semcut.connector.evaluation.rankings import NAMES, RankingName
from semcut.connector.reproduce.measured import KS, Measured
from semcut.indexes.errors import DataError


class Stat(NamedTuple):
    """Mean over networks, and sample standard deviation; None where there is one network."""

    mean: float
    spread: float | None

    @staticmethod
    def of(values: Sequence[float]) -> Stat:
        """Of one value per network."""
        return Stat(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.spread is None else f"{self.mean:.3f} ± {self.spread:.3f}"


@dataclass(frozen=True)
class Metric:
    """mAP@all, or mAP@k with k of `measured.KS`."""

    k: int | None

    def __str__(self) -> str:
        return f"mAP@{'all' if self.k is None else self.k}"

    def of(self, network: Measured, ranking: RankingName, cutoff: float) -> NDArray[np.float64]:
        """(nq,) AP of a ranking at a cutoff."""
        at = NAMES.index(ranking), network.comparison.cutoffs.index(cutoff)
        comparison = network.comparison
        found: NDArray[np.float64] = (
            comparison.at_all[at] if self.k is None else comparison.at_k[at][:, KS.index(self.k)]
        )
        return found

    def of_baseline(self, network: Measured, name: str) -> NDArray[np.float64] | None:
        """(nq,) AP of codes that need no training, None where there are none."""
        if name not in network.baselines:
            return None
        at_all, at_k = network.baselines[name]
        return at_all if self.k is None else at_k[:, KS.index(self.k)]


@dataclass(frozen=True, eq=False)
class Group:
    """Networks of one protocol that differ in their seed alone.

    Attributes:
        label: their head, and whatever else tells them from other groups.
        members: ascending by seed.
    """

    label: str
    members: tuple[Measured, ...]

    @property
    def about(self) -> dict[str, Any]:
        """Of the first."""
        return self.members[0].about

    @property
    def head(self) -> str:
        """Of all of them."""
        return str(self.about["architecture"]["head"])

    @property
    def seeds(self) -> list[int]:
        """Of each."""
        return [member.about["config"]["seed"] for member in self.members]

    def stat(self, value: Callable[[Measured], float]) -> Stat:
        """Mean and spread of a figure of each."""
        return Stat.of([float(value(member)) for member in self.members])

    def map(self, metric: Metric, ranking: RankingName, cutoff: float) -> Stat:
        """mAP of a ranking at a cutoff."""
        return self.stat(lambda member: float(metric.of(member, ranking, cutoff).mean()))


def headline(protocol: str) -> Metric:
    """What published results of a protocol state."""
    return Metric(PROTOCOLS[protocol].published_k)  # type: ignore[index]


def groups_of(networks: Sequence[Measured]) -> list[Group]:
    """Groups of the networks of one protocol, the paper's head first, in the order of heads and labels.

    Raises:
        DataError: they are of different images, or two of them differ in nothing.
    """
    for one, fact in itertools.product(networks, ("classes", "records", "queries")):
        if one.about[fact] != networks[0].about[fact]:
            raise DataError(
                f"{networks[0].about['name']} and {one.about['name']} were measured on different images ({fact} "
                "differ): give each data set a directory of its own"
            )
    found: dict[str, list[Measured]] = {}
    for network in networks:
        found.setdefault(json.dumps(_settings(network), sort_keys=True), []).append(network)
    kinds = {key: json.loads(key) for key in found}
    names = sorted({name for kind in kinds.values() for name in kind} - {"head"})
    different = [name for name in names if len({json.dumps(kind.get(name)) for kind in kinds.values()}) > 1]
    groups = []
    for key, members in found.items():
        label = ", ".join([kinds[key]["head"], *(_worded(name, kinds[key].get(name)) for name in different)])
        members.sort(key=lambda one: int(one.about["config"]["seed"]))
        for before, after in itertools.pairwise(members):
            if before.about["config"]["seed"] == after.about["config"]["seed"]:
                raise DataError(
                    f"{before.about['name']} and {after.about['name']} were trained in the same way from the same "
                    f"seed: delete one of them in the directory of {before.about['protocol']}"
                )
        groups.append(Group(label, tuple(members)))
    return sorted(groups, key=lambda group: (group.head != "paper", group.head, group.label))


def best(groups: Sequence[Group], metric: Metric) -> Group:
    """The group with the best codes, ranked by Hamming distance."""
    return max(groups, key=lambda group: group.map(metric, "hamming", 0.0).mean)


def _settings(network: Measured) -> dict[str, Any]:
    """All that a network depends on but its seed; of a network that it started from, what was otherwise."""
    about = network.about
    own = {**about["architecture"], **about["config"], "weights": about["weights"]}
    return {**{name: value for name, value in own.items() if name != "seed"}, "start": _began(about["start"], own)}


def _began(start: dict[str, Any] | None, then: dict[str, Any]) -> dict[str, Any] | None:
    """What was otherwise when the network was trained that another one, trained as `then` says, started from."""
    if start is None:
        return None
    own = {**start["architecture"], **start["config"], "weights": start["backbone_weights"]}
    names = [name for name in own if name in then and name not in ("classes", "seed")]
    other = {name: own[name] for name in names if own[name] != then[name]}
    before = _began(start.get("start"), own)
    return other if before is None else {**other, "start": before}


def _worded(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if isinstance(value, dict):
        return f"{words} ({', '.join(_worded(*item) for item in value.items())})"
    return words if value is True else f"no {words}" if value in (False, None) else f"{words} {value}"
