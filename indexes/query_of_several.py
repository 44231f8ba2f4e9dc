"""`joined_query`: one query made of several images, "more like these, less like those".

With the images of the query numbered i = 1..n, the others j = 1..m, and w the weight of the others,

    feature        mean g_i - w mean g_j; divided by its length if the features of all images have length 1
    probabilities  mean p_i - w mean p_j; values below 0 become 0, and the row is scaled to the sum of mean p_i
    code           bit by bit the sign of mean b_i - w mean b_j, with b = 1 for a bit that is set and -1 for others;
                   where that is 0, the bit of the first image

Without others, the probabilities are those of an image drawn at random from the query's, the feature is nearest to
theirs, and the code, their majority, is the one with the smallest sum of Hamming distances to theirs. A code from the
mean output of a hash layer would need the network, which records of an index do not have.

Source: "less like" is Rocchio's rule, "Relevance feedback in information retrieval", in Salton (ed.), The SMART
Retrieval System, 1971.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.argument_checks import instance_given, number_given
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import InvalidEncodingsError, InvalidParameterError

LESS_WEIGHT = 0.5
"""w, the default weight of the images that results shall be less like."""

_ROUNDED = 0.05
"""Largest difference of the length of a feature from 1, which an index may have stored as bytes."""


def joined_query(queries: Encodings, less_like: Encodings | None = None, *, weight: float = LESS_WEIGHT) -> Encodings:
    """Make one query of several images. Its order matters only where codes are tied.

    Args:
        queries: n images that results shall be like, at least 1.
        less_like: images that results shall be less like; None, or no images, for no such images.
        weight: their weight, from 0 to 1.

    Returns:
        One query, without an id.

    Raises:
        InvalidParameterError: an argument is out of range, or nothing is left of the feature or the probabilities.
        InvalidEncodingsError: the two batches have different widths.
    """
    instance_given("queries", queries, Encodings)
    weight = number_given("weight", weight, 0, 1)
    if not len(queries):
        raise InvalidParameterError("queries = no images, expected at least one")
    others = queries[:0] if less_like is None else instance_given("less_like", less_like, Encodings)
    for name in ("probabilities", "codes", "features"):
        wide, other = getattr(queries, name).shape[1], getattr(others, name).shape[1]
        if wide != other:
            raise InvalidEncodingsError(
                f"{name} of less_like have {other} columns, expected {wide}, as the queries have"
            )
    feature = _difference(queries.features, others.features, weight)
    if queries.normalised(_ROUNDED) and others.normalised(_ROUNDED):
        length = float(np.linalg.norm(feature))
        if length < 1e-6:
            raise InvalidParameterError("the features of these images cancel each other out: choose other images")
        feature /= length
    mean = queries.probabilities.mean(axis=0, dtype=np.float64)
    probabilities = np.maximum(0, _difference(queries.probabilities, others.probabilities, weight))
    if not probabilities.sum() and mean.sum():
        raise InvalidParameterError("no class is left of these images: choose other images, or a smaller weight")
    if len(others) and weight:
        probabilities *= mean.sum() / max(probabilities.sum(), np.finfo(np.float64).tiny)
    votes = _difference(_signs(queries.codes), _signs(others.codes), weight)
    first = np.unpackbits(queries.codes[:1], axis=1)[0]
    bits = np.where(np.abs(votes) < 1e-9, first, votes > 0).astype(np.uint8)
    return Encodings(
        probabilities=np.minimum(probabilities, 1)[None].astype(np.float32),
        codes=np.packbits(bits)[None],
        features=feature[None].astype(np.float32),
        any_mass=True,
    )


def _difference(queries: NDArray[np.float32], others: NDArray[np.float32], weight: float) -> NDArray[np.float64]:
    """Return the mean of (n, w) rows minus the weighted mean of (m, w) others, if there are any: (w,) float64."""
    mean: NDArray[np.float64] = queries.mean(axis=0, dtype=np.float64)
    if len(others):
        mean = mean - weight * others.mean(axis=0, dtype=np.float64)
    return mean


def _signs(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return 1 for a bit that is set, -1 for others: (n, bits / 8) uint8 to (n, bits) float32."""
    return 2 * np.unpackbits(codes, axis=1).astype(np.float32) - 1
