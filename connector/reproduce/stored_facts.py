"""Check the facts and the arrays in a file of figures, which may come from someone else, before anything uses them.

Facts are finite numbers and texts of their types, settings that a network and a training can have, and arrays of the
shapes that the numbers of queries, rankings and cutoffs give. All figures are 0 to 1. Whether they are true cannot be
checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from semcut.connector.evaluation.rankings import CUTOFFS, RANKING_NAMES
from semcut.connector.models.network import Architecture
from semcut.connector.reproduce.baselines import BaselineName
from semcut.connector.training.train_config import TrainConfig

_LARGEST, _MOST_CHARACTERS, _MOST_STARTS, _MOST_EPOCHS = 1 << 48, 4096, 10, 100_000
_ROUNDING = 1e-9
_COUNTS = ("training", "records", "queries")
_SIZES = ("head", "backbone", "image_size", "bits", "dim")
_SETTINGS = ("seed", "epochs", "learning_rate", "backbone_rate")


def require_facts(about: Mapping[str, Any], curve: Any) -> None:
    """Raise an error, often `ValueError`, unless these can be `Measurement.about` and `Measurement.curve`."""
    texts = [about["name"], about["protocol"], about["sha256"], *about["classes"]]
    for folder, name in about["names"].items():
        texts += [folder, name]
    if not all(map(_is_text, texts)):
        raise ValueError("a name is no text")
    if not all(type(about[name]) is int and 1 <= about[name] <= _LARGEST for name in _COUNTS):
        raise ValueError("it has no numbers of images")
    require_settings(about, about["classes"])
    if not isinstance(curve, list) or len(curve) > _MOST_EPOCHS:
        raise ValueError(f"it has no list of up to {_MOST_EPOCHS:,} epochs")
    for epoch, needed in ((about["kept"], ("epoch", "validation_accuracy")), *((one, ("seconds",)) for one in curve)):
        if not all(map(_is_number, epoch.values())) or not all(name in epoch for name in needed):
            raise ValueError("the metrics of an epoch are not numbers, or are missing")


def require_settings(about: Mapping[str, Any], classes: Any = ("one", "other")) -> None:
    """Raise an error, often `ValueError`, unless these can be the settings of a network in `Measurement.about`.

    Args:
        about: `architecture`, `config`, `weights` and `start`.
        classes: the names of its classes; any two if they are not known.
    """
    _require_settings(about["architecture"], about["config"], about["weights"], classes)
    start, depth = about["start"], 0
    while start is not None:
        depth += 1
        if depth > _MOST_STARTS:
            raise ValueError(f"it has more than {_MOST_STARTS} warm starts")
        _require_settings(start["architecture"], start["config"], start["backbone_weights"], classes)
        start = start.get("start")


def require_arrays(
    about: Mapping[str, Any], ks: tuple[int, ...], cutoffs: tuple[float, ...], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Raise `ValueError` unless these can be the arrays of a measurement.

    Args:
        about: facts that `require_facts` has checked.
        ks, cutoffs: the values of k, and of the cutoff.
        arrays: by their names in the file.
    """
    if cutoffs != CUTOFFS:
        raise ValueError("it has other cutoffs")
    queries = about["queries"]
    at = (len(RANKING_NAMES), len(cutoffs), queries)
    shapes: dict[str, tuple[int, ...]] = {
        "labels": (queries,), "right": (queries,), "relevant": at[1:], "scanned": at[1:],
        "at_all": at, "at_k": (*at, len(ks)), "precision": (*at, len(ks)),
    }  # fmt: skip
    for name in get_args(BaselineName):
        shapes |= {f"at_all {name}": (queries,), f"at_k {name}": (queries, len(ks))}
    for name, array in arrays.items():
        kind = {"labels": np.dtype(np.int64), "right": np.dtype(bool)}.get(name, np.dtype(np.float64))
        if name not in shapes or array.shape != shapes[name] or array.dtype != kind:
            raise ValueError(f"{name[:60]!r} is no array of figures, or has another shape or type")
        if kind == np.float64 and not ((array >= -_ROUNDING) & (array <= 1 + _ROUNDING)).all():
            raise ValueError(f"{name[:60]!r} has figures outside of 0 to 1")
    if not ((arrays["labels"] >= 0) & (arrays["labels"] < len(about["classes"]))).all():
        raise ValueError("a label is no class")


def _require_settings(architecture: Any, config: Any, weights: Any, classes: Any) -> None:
    Architecture(**{**architecture, "classes": classes})
    TrainConfig(**config)
    if not all(name in architecture for name in _SIZES) or not all(name in config for name in _SETTINGS):
        raise ValueError("a setting is missing")
    if weights is not None and not _is_text(weights):
        raise ValueError("the weights are no text")
    if not all(_is_text(value) for value in (*architecture.values(), *config.values()) if isinstance(value, str)):
        raise ValueError("a setting is too long")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MOST_CHARACTERS


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and type(value) is not bool and abs(value) <= _LARGEST  # NaN is not
