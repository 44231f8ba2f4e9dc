"""`Measurement`: the figures of one network by a protocol, query by query, and the file that stores them.

    OUT/PROTOCOL/NETWORK/figures.safetensors    the figures as arrays; the metadata describe the network and the arrays

NETWORK is the name of the run directory, followed by the first 8 digits of the SHA-256 of the weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from semcut.connector.data.tensor_files import read_metadata, read_tensor_file
from semcut.connector.evaluation.rankings import Comparison
from semcut.connector.reproduce.stored_facts import require_arrays, require_facts
from semcut.indexes.errors import DataError, shown
from semcut.indexes.search_defaults import DEFAULT_SHORTLIST
from semcut.indexes.storage.atomic_write import replacing

FIGURES_FILE = "figures.safetensors"

KS = (100, 1000)
"""The values of k for AP@k and precision@k."""

SHORTLIST = DEFAULT_SHORTLIST
"""Number of records that the ranking "shortlist" orders by distance of features."""

_VERSION = 1
_METADATA = "semcut_figures"
_MAX_BYTES = 1 << 30
_COMPARISON_ARRAYS = ("at_all", "at_k", "precision", "relevant", "scanned")

Baselines = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""AP@all (nq,) and AP@k (nq, ks) of codes that need no training, by name of the method, see `baselines`."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """The figures of one network by one protocol.

    Attributes:
        about: `name`, `protocol`, `sha256`, `architecture` and `config` of the network; `weights`, from which its
            backbone started; `start`, how the network of its warm start was trained, or None; `temperature`; `kept`,
            the metrics of the epoch that was kept; `classes`, their folder names; `names`, their readable names by
            folder name; and the numbers of `training` images, `records` and `queries`.
        curve: metrics of each epoch of training; with a warm start, the epochs of the network before come first.
        labels: (nq,) int64 labels of the queries.
        right: (nq,) bool; whether the class with the largest probability is the class of the query.
        comparison: figures of rankings at cutoffs, see `rankings`.
        baselines: average precision of codes that need no training.
    """

    about: dict[str, Any]
    curve: list[dict[str, Any]]
    labels: NDArray[np.int64]
    right: NDArray[np.bool_]
    comparison: Comparison
    baselines: Baselines

    def save(self, file: Path) -> None:
        """Write the measurement to a file, in one step."""
        tensors: dict[str, NDArray[Any]] = {name: getattr(self.comparison, name) for name in _COMPARISON_ARRAYS}
        tensors |= {"labels": self.labels, "right": self.right}
        for name, (at_all, at_k) in self.baselines.items():
            tensors |= {f"at_all {name}": at_all, f"at_k {name}": at_k}
        content = {
            "version": _VERSION,
            "about": self.about,
            "curve": self.curve,
            "cutoffs": self.comparison.cutoffs,
            "ks": self.comparison.ks,
            "baselines": list(self.baselines),
        }
        with replacing(file) as scratch:
            safetensors.numpy.save_file(
                {name: np.ascontiguousarray(array) for name, array in tensors.items()},
                scratch,
                {_METADATA: json.dumps(content)},
            )

    @staticmethod
    def load(file: Path) -> Measurement:
        """Read a measurement that `save` wrote.

        Raises:
            DataError: the file is damaged, has another version, or has figures of another network or protocol than its
                path says.
        """
        try:
            stored = read_tensor_file(file, _MAX_BYTES)
            content = json.loads(stored.metadata[_METADATA])
            arrays = safetensors.numpy.load(stored.content)
            if content["version"] != _VERSION:
                raise DataError(f"{file} has version {shown(content['version'])}, expected {_VERSION}: delete it")
            about = content["about"]
            require_facts(about, content["curve"])
            for what, path in (("name", file.parent), ("protocol", file.parent.parent)):
                if about[what] != path.name:
                    raise DataError(
                        f"{file} has the figures of the {what} {shown(about[what])}, expected {path.name}: delete it"
                    )
            if tuple(content["ks"]) != KS:
                raise ValueError("it has other values of k")
            require_arrays(about, KS, tuple(content["cutoffs"]), arrays)
            return Measurement(
                content["about"],
                content["curve"],
                arrays["labels"],
                arrays["right"],
                Comparison(
                    tuple(content["cutoffs"]),
                    tuple(content["ks"]),
                    **{name: arrays[name] for name in _COMPARISON_ARRAYS},
                ),
                {name: (arrays[f"at_all {name}"], arrays[f"at_k {name}"]) for name in content["baselines"]},
            )
        except DataError:
            raise
        except Exception as error:  # safetensors raises errors of its own type and of others
            raise _damaged(file, error) from None

    def means_by_class(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the means of (nq,) figures over the queries of each class: (C,), NaN for a class without queries."""
        classes = len(self.about["classes"])
        counts = np.bincount(self.labels, minlength=classes)
        sums = np.bincount(self.labels, weights=values, minlength=classes)
        means = np.full(classes, np.nan)
        np.divide(sums, counts, out=means, where=counts > 0)
        return means

    @staticmethod
    def count_classes(file: Path) -> int:
        """Return the number of classes of a measurement; no array is read.

        Raises:
            DataError: the file is damaged.
        """
        try:
            classes = json.loads(read_metadata(file, _MAX_BYTES)[_METADATA])["about"]["classes"]
            if not isinstance(classes, list):
                raise ValueError("it has no list of classes")
            return len(classes)
        except Exception as error:
            raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(f"{file} cannot be read ({reason}): delete it, and the network is measured again")
