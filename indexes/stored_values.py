"""What an index keeps of encodings: only the largest probabilities, and features in fewer bits, if its config says so.

**What is stored is what counts.** `stored_values` replaces the values of a batch by those that the index keeps, before
anything else sees the batch. Cells, relevance, distances, brute force and copies all use these values, and `get`
returns them. Applied to its own result, `stored_values` changes nothing, so copies keep values bit for bit.

**Probabilities.** With `stored_probabilities` m below C, a record keeps its m largest probabilities, each rounded to a
multiple of 2^-16 and at most 1 - 2^-16. If probabilities are equal, those of lower classes are kept. The others become
0; nothing is scaled to sum to 1 again. On the disk and in memory, a row is m pairs of a class and a multiple, uint16
each, the largest probability first; unused places are class 0 and multiple 0.

**Features.** "float16" rounds each value to that type. "int8" rounds it to a multiple of `feature_step`, of at most 127
steps, and a row is the multiples. Values out of range are refused, as are features so small that float16 would lose
most of them.

**Attributes** become values of the types that the config names, see `attributes.attribute_types`.

docs/storage.md has the quality that other choices cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.attribute_types import columns_of
from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import MAX_SQUARED_NORM, NORM_TOLERANCE, Encodings
from semcut.indexes.errors import DamagedIndexError, InvalidEncodingsError
from semcut.indexes.scoring.packed_rows import PackedRows, packed

SMALLEST_LARGEST = 2.0**-8
"""A feature that is stored as float16 must have a value of at least this size, or be zero: float16 has a precision of
2^-11 down to 2^-14, and less below."""


def stored_values(config: IndexConfig, encodings: Encodings) -> Encodings:
    """Return a batch with the values that an index keeps of it; the same batch if the index keeps all.

    Args:
        config: the configuration of the index.
        encodings: the batch, with the widths of the index.

    Raises:
        InvalidEncodingsError: a feature is out of the range of the type in which the index stores it, or an attribute
            cannot have one of its values.
    """
    probabilities, features, rows, coded = encodings.probabilities, encodings.features, None, None
    attributes = None
    if config.attributes or encodings.attributes:
        attributes = columns_of(config.attributes, encodings.attributes, len(encodings))
    if config.stored_probabilities < config.classes:
        rows = packed(probabilities, config.stored_probabilities)
        probabilities = PackedRows(rows, config.classes).dense()
    if config.stored_features != "float32":
        coded = coded_features(config, features)
        features = decoded_features(coded, config.feature_step)
    if probabilities is encodings.probabilities and features is encodings.features and attributes is None:
        return encodings
    return encodings.with_values(probabilities, features, rows, coded, attributes)


def coded_features(config: IndexConfig, features: NDArray[np.float32]) -> NDArray[Any]:
    """Convert (n, D) float32 features to the type in which an index stores them.

    Raises:
        InvalidEncodingsError: a feature is out of the range of this type.
    """
    if config.stored_features == "float32" or not features.size:
        return features.astype(feature_dtype(config))
    storable = storable_features(config, features)
    if not storable.all():
        row = int(np.argmin(storable))
        what = f"float16: from {SMALLEST_LARGEST:.2g} to 65504, or zero"
        if config.stored_features == "int8":
            what = f"int8 with a feature_step of {config.feature_step:g}: at most {_largest(config):.3g}"
        raise InvalidEncodingsError(
            f"the largest value of the feature of row {row} is {np.abs(features[row]).max():.3g}, and the index stores "
            f'features as {what}; scale the features, or create the index with stored_features="float32"'
        )
    if config.stored_features == "int8":
        multiples: NDArray[np.int8] = np.rint(features / np.float32(config.feature_step)).astype(np.int8)
        longest = 127 * config.feature_step * config.dim**0.5
        if (
            longest**2 > MAX_SQUARED_NORM
            and not storable_features(config, decoded_features(multiples, config.feature_step)).all()
        ):
            raise InvalidEncodingsError(f"a feature is longer than {MAX_SQUARED_NORM**0.5:.1e} after rounding to int8")
        return multiples
    return features.astype(np.float16)


def storable_features(config: IndexConfig, features: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which of (n, D) features an index can store: those in the range of its type, not too long: (n,)."""
    sizes = np.abs(features).max(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        storable: NDArray[np.bool_] = np.vecdot(features, features) <= MAX_SQUARED_NORM  # false for NaN
    if config.stored_features == "int8":
        storable &= sizes <= _largest(config)
    if config.stored_features == "float16":
        storable &= (sizes <= np.finfo(np.float16).max) & ((sizes >= SMALLEST_LARGEST) | (sizes == 0))
    return storable


def _largest(config: IndexConfig) -> float:
    return 127.49 * config.feature_step


@contextmanager
def read_from_index() -> Iterator[None]:
    """Turn `InvalidEncodingsError` into `DamagedIndexError`, for records of an index, which was forged then."""
    try:
        yield
    except InvalidEncodingsError as error:
        raise DamagedIndexError(
            f"the index has records that it cannot have stored ({error}): restore it from a backup, or remove the "
            "records that `verify` reports"
        ) from None


def decoded_features(stored: NDArray[Any], step: float) -> NDArray[np.float32]:
    """Convert stored features to float32: (n, D) of any stored type to (n, D) float32."""
    values: NDArray[np.float32] = stored.astype(np.float32)
    if stored.dtype == np.int8:
        values *= np.float32(step)
    return values


def feature_dtype(config: IndexConfig) -> np.dtype[Any]:
    """Return the type in which an index stores features, little-endian."""
    return np.dtype({"float32": "<f4", "float16": "<f2", "int8": "i1"}[config.stored_features])


def norm_tolerance(config: IndexConfig) -> float:
    """Return how far the length of a stored feature may be from 1 if the feature that was given had length 1.

    Rounding moves each value of an int8 feature by half a step at most, and the length of a float16 feature by less
    than 2^-10 of it.
    """
    if config.stored_features == "int8":
        return float(NORM_TOLERANCE + config.feature_step / 2 * np.sqrt(config.dim))
    return NORM_TOLERANCE + (2.0**-10 if config.stored_features == "float16" else 0)
