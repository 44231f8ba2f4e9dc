"""Group networks that were trained in the same way except for the seed: one method, with mean and spread of figures."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data import ProtocolName
from semcut.connector.data.protocols import PROTOCOLS
from semcut.connector.evaluation.rankings import RANKING_NAMES, RankingName
from semcut.connector.models.network import Architecture
from semcut.connector.reproduce.baselines import BaselineName
from semcut.connector.reproduce.network_measurements import KS, Measurement
from semcut.indexes.errors import DataError


class Stat(NamedTuple):
    """A mean over networks, and the sample standard deviation (spread), which is None for a single network."""

    mean: float
    spread: float | None

    @staticmethod
    def of(values: Sequence[float]) -> Stat:
        """Compute mean and spread from one value per network."""
        return Stat(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.spread is None else f"{self.mean:.3f} ± {self.spread:.3f}"


@dataclass(frozen=True)
class Metric:
    """A metric: mAP@all (k = None), or mAP@k with k in `network_measurements.KS`."""

    k: int | None

    def __str__(self) -> str:
        return f"mAP@{'all' if self.k is None else self.k}"

    def of(self, network: Measurement, ranking: RankingName, cutoff: float) -> NDArray[np.float64]:
        """Look up the (nq,) average precision of a ranking at a cutoff."""
        comparison = network.comparison
        at = RANKING_NAMES.index(ranking), comparison.cutoffs.index(cutoff)
        found: NDArray[np.float64] = (
            comparison.at_all[at] if self.k is None else comparison.at_k[at][:, KS.index(self.k)]
        )
        return found

    def of_baseline(self, network: Measurement, name: BaselineName) -> NDArray[np.float64] | None:
        """Look up the (nq,) average precision of a baseline; None if the network has no figures of it."""
        if name not in network.baselines:
            return None
        at_all, at_k = network.baselines[name]
        return at_all if self.k is None else at_k[:, KS.index(self.k)]


class Described(Protocol):
    """A measurement with a description of its network, see `Measurement.about`."""

    @property
    def about(self) -> dict[str, Any]:
        """At least `name`, `architecture`, `config`, `weights` and `start` of the network."""


_M = TypeVar("_M", bound=Described)


@dataclass(frozen=True, eq=False)
class Group(Generic[_M]):
    """A group of networks, measured in the same way, that differ only in their seed.

    Attributes:
        label: the head, and every other setting that differs between groups.
        members: the networks, in ascending order of seeds.
    """

    label: str
    members: tuple[_M, ...]

    @property
    def about(self) -> dict[str, Any]:
        """The description of the first network, see `Measurement.about`."""
        return self.members[0].about

    @property
    def head(self) -> str:
        """The name of the head of all networks."""
        return str(self.about["architecture"]["head"])

    @property
    def seeds(self) -> list[int]:
        """The seed of each network."""
        return [member.about["config"]["seed"] for member in self.members]

    def stat(self, value: Callable[[_M], float]) -> Stat:
        """Compute mean and spread of a figure over the networks; `value` returns the figure of one network."""
        return Stat.of([float(value(member)) for member in self.members])


def mean_ap(group: Group[Measurement], metric: Metric, ranking: RankingName, cutoff: float) -> Stat:
    """Compute mean and spread of the mAP of a ranking at a cutoff."""
    return group.stat(lambda member: float(metric.of(member, ranking, cutoff).mean()))


def headline_metric(protocol: ProtocolName) -> Metric:
    """Return the metric that published results of a protocol report."""
    return Metric(PROTOCOLS[protocol].published_k)


def group_networks(networks: Sequence[Measurement]) -> list[Group[Measurement]]:
    """Group the networks of one protocol, see `grouped_by_settings`.

    Raises:
        DataError: the networks were measured on different images, or two of them have the same settings and seed.
    """
    for network in networks:
        for fact in ("classes", "records", "queries"):
            if network.about[fact] != networks[0].about[fact]:
                raise DataError(
                    f"{networks[0].about['name']} and {network.about['name']} were measured on different images "
                    f"({fact} differ): give each data set a directory of its own"
                )
    return grouped_by_settings(networks, networks[0].about["protocol"])


def grouped_by_settings(networks: Sequence[_M], folder: str) -> list[Group[_M]]:
    """Group networks by their settings; sort the groups with the paper's head first, then by head and label.

    Args:
        networks: measurements of trained networks.
        folder: the name of their directory, for the message.

    Raises:
        DataError: two networks have the same settings and seed.
    """
    by_settings: dict[str, list[_M]] = {}
    for network in networks:
        by_settings.setdefault(json.dumps(_settings(network), sort_keys=True), []).append(network)
    settings = {key: json.loads(key) for key in by_settings}
    names = sorted({name for one in settings.values() for name in one} - {"head"})
    distinguishing = [name for name in names if len({json.dumps(one.get(name)) for one in settings.values()}) > 1]
    groups = []
    for key, members in by_settings.items():
        words = [settings[key]["head"], *(_in_words(name, settings[key].get(name)) for name in distinguishing)]
        members.sort(key=lambda member: int(member.about["config"]["seed"]))
        for before, after in itertools.pairwise(members):
            if before.about["config"]["seed"] == after.about["config"]["seed"]:
                raise DataError(
                    f"{before.about['name']} and {after.about['name']} were trained in the same way from the same "
                    f"seed: delete one of them in the directory of {folder}"
                )
        groups.append(Group(", ".join(words), tuple(members)))
    return sorted(groups, key=lambda group: (group.head != "paper", group.head, group.label))


def best_group(groups: Sequence[Group[Measurement]], metric: Metric) -> Group[Measurement]:
    """Find the group whose codes have the highest mAP, ranked by Hamming distance at t = 0."""
    return max(groups, key=lambda group: mean_ap(group, metric, "hamming", 0.0).mean)


def _settings(network: Described) -> dict[str, Any]:
    """Collect all settings of a network except its seed; for its warm start, only the settings that differ."""
    about = network.about
    later = {name: field.default for name, field in Architecture.model_fields.items() if not field.is_required()}
    own = {**later, **about["architecture"], **about["config"], "weights": about["weights"]}
    return {
        **{name: value for name, value in own.items() if name != "seed"},
        "start": _start_settings(about["start"], own),
    }


def _start_settings(start: dict[str, Any] | None, later: dict[str, Any]) -> dict[str, Any] | None:
    """Collect the settings of a warm start that differ from those of the network that started from it.

    Args:
        start: how the network of the warm start was trained, see `Measurement.about`; None if there was none.
        later: the settings of the network that started from it.
    """
    if start is None:
        return None
    own = {**start["architecture"], **start["config"], "weights": start["backbone_weights"]}
    names = [name for name in own if name in later and name not in ("classes", "seed")]
    different = {name: own[name] for name in names if own[name] != later[name]}
    earlier = _start_settings(start.get("start"), own)
    return different if earlier is None else {**different, "start": earlier}


def _in_words(name: str, value: Any) -> str:
    """Write a setting in words: "freeze", "no freeze", "epochs 3", "start (freeze, epochs 3)"."""
    words = name.replace("_", " ")
    if isinstance(value, dict):
        return f"{words} ({', '.join(_in_words(*item) for item in value.items())})"
    return words if value is True else f"no {words}" if value in (False, None) else f"{words} {value}"
