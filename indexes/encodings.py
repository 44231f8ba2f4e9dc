"""`Encodings`: a validated batch of encoded images, the only form in which records and queries enter an index.

Invariants of every `Encodings`: each array is C-contiguous, aligned, in native byte order and of its stated dtype; all
arrays have the same number of rows; probabilities are between 0 and 1, and sum to 1 in each row unless any mass was
allowed; features are finite. Code that receives an `Encodings` does not check them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, fields
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self

from semcut.indexes.array_reading import array_given
from semcut.indexes.attributes.attribute_columns import attributes_given, joined_attributes
from semcut.indexes.errors import InvalidEncodingsError, InvalidParameterError, shown
from semcut.indexes.keys import are_keys, ids_of, keys_of
from semcut.indexes.probability_rows import SUM_TOLERANCE as SUM_TOLERANCE
from semcut.indexes.probability_rows import checked_probabilities
from semcut.indexes.unicode_text import INVALID, values_of

NORM_TOLERANCE = 1e-3
"""Largest difference between the length of an L2-normalised feature and 1."""

MAX_SQUARED_NORM = 1e37
"""Largest squared length of a feature. Squared distances between longer features could overflow float32."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Encodings:
    """Probabilities, codes and features of n images. With ids they are n records for an index, without ids n queries.

    Arrays that have the right dtype and layout are not copied; do not change them afterwards. Tensors of torch are
    taken as arrays, whatever their device and float type, also with gradients. Sparse matrices of scipy and torch are
    taken too, and become dense.

    Attributes:
        probabilities: (n, C) float32; rows sum to 1 within `SUM_TOLERANCE`. Other float types are converted. Rows that
            are further from 1 because they were rounded are divided by their sum, and only the result is used: rows
            within 1e-2, and rows that rounding to 2, 3 or 4 decimals or to bytes explains, with a sum of at least 1/2.
            Values below zero by at most 1e-6 become 0. See `probability_rows`.
        any_mass: an argument only. True allows rows with any sum, of values between 0 and 1: the largest probabilities
            of each image, images that may show none of the classes, or several labels for an image.
        codes: (n, bits / 8) uint8, packed hash codes (`numpy.packbits`).
        features: (n, D) float32. Other float types are converted.
        ids: (n,) int64, not negative, or None for queries. Other integer types are converted. Strings become `keys`,
            and ids that follow from them.
        uris: the address of each image: n values, each a string, a path or None; or None for all images.
        attributes: of each attribute, by its name, n values; None for no attributes. An index checks them when they are
            added, see `attributes.attribute_types`.
        keys: n different strings, for an index with keys (see `keys`), None otherwise. To be given as `ids`.

    Raises:
        InvalidEncodingsError: an array is invalid; the message names the array, what is wrong, and what was expected.
    """

    probabilities: NDArray[np.float32]
    codes: NDArray[np.uint8]
    features: NDArray[np.float32]
    ids: NDArray[np.int64] | None = None
    uris: Sequence[str | None] | None = None
    attributes: Mapping[str, list[Any]] | None = None
    keys: Sequence[str] | None = None
    any_mass: InitVar[bool] = False
    packed: ClassVar[NDArray[np.uint16] | None] = None  # of an instance: its probabilities as an index stores them
    coded: ClassVar[NDArray[Any] | None] = None  # of an instance: its features as an index stores them

    if TYPE_CHECKING:  # what may be given is more than what the attributes are then

        def __init__(
            self,
            *,
            probabilities: Any,
            codes: Any,
            features: Any,
            ids: ArrayLike | None = None,
            uris: Sequence[str | PathLike[str] | None] | None = None,
            attributes: Mapping[str, Any] | None = None,
            keys: Sequence[str] | None = None,
            any_mass: bool = False,
        ) -> None: ...

    def __post_init__(self, any_mass: bool) -> None:
        if not isinstance(any_mass, bool | np.bool_):
            raise InvalidEncodingsError(f"any_mass = {shown(any_mass)}, expected True or False")
        probabilities = _floats("probabilities", self.probabilities)
        codes = array_given("codes", self.codes, 2)
        if codes.dtype != np.uint8:
            raise InvalidEncodingsError(
                f"codes have dtype {codes.dtype}, expected uint8: pack bits with numpy.packbits(bits, axis=1)"
            )
        features = _floats("features", self.features)
        rows = len(probabilities)
        keys = keys_of(self.ids, self.keys)
        ids = None if self.ids is None or (keys is not None and are_keys(self.ids)) else _ids(self.ids)
        if keys is not None:
            own = ids_of(keys)
            if ids is not None and not np.array_equal(ids, own):
                raise InvalidEncodingsError("ids are not those of the keys: give the keys as ids, without other ids")
            ids = own
        uris = None if self.uris is None else _uris(self.uris)
        attributes = None if self.attributes is None else attributes_given(self.attributes, rows)
        for name, column in (("codes", codes), ("features", features), ("ids", ids), ("uris", uris)):
            if column is not None and len(column) != rows:
                raise InvalidEncodingsError(
                    f"{name} have {len(column)} rows but probabilities have {rows}: every array needs one row per image"
                )
        probabilities = checked_probabilities(probabilities, bool(any_mass))
        _check_features(features)
        for name, value in (
            ("probabilities", probabilities),
            ("codes", np.require(codes, requirements=["C", "A"])),
            ("features", features),
            ("ids", ids),
            ("uris", uris),
            ("attributes", attributes),
            ("keys", keys),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.probabilities)

    def __getitem__(self, rows: slice | ArrayLike) -> Self:
        """Return the rows that a slice, a boolean mask or an integer array selects, as a new batch.

        Raises:
            IndexError: there is no such row.
            InvalidParameterError: `rows` is something else.
        """
        picked: slice | NDArray[Any]
        if isinstance(rows, slice) or (type(rows) is np.ndarray and rows.dtype.kind == "i" and rows.ndim == 1):
            picked = rows  # as a search selects them
        else:
            picked = np.atleast_1d(array_given("rows", rows, None))
        if isinstance(picked, np.ndarray) and not picked.size:
            picked = picked.astype(np.int64)
        try:
            if isinstance(picked, np.ndarray) and picked.ndim != 1:
                raise ValueError("rows of rows")
            probabilities = self.probabilities[picked]
        except (IndexError, TypeError, ValueError):
            if isinstance(picked, np.ndarray) and picked.ndim == 1 and picked.dtype.kind in "iu":
                raise IndexError(f"there is no row {shown(rows)} in a batch of {len(self)}") from None
            raise InvalidParameterError(
                f"rows = {shown(rows)}, expected a slice, integers, or one boolean for each of the {len(self)} rows"
            ) from None
        uris, attributes, keys = self.uris, self.attributes, self.keys
        if uris is not None or attributes is not None or keys is not None:
            places = range(len(self))[picked] if isinstance(picked, slice) else np.arange(len(self))[picked].tolist()
            uris = None if uris is None else [uris[place] for place in places]
            keys = None if keys is None else [keys[place] for place in places]
            if attributes is not None:
                attributes = {name: [values[place] for place in places] for name, values in attributes.items()}
        return _trusted(
            type(self),
            probabilities=probabilities,
            codes=self.codes[picked],
            features=self.features[picked],
            ids=None if self.ids is None else self.ids[picked],
            uris=uris,
            attributes=attributes,
            keys=keys,
        )

    @staticmethod
    def concatenate(batches: Sequence[Encodings]) -> Encodings:
        """Join batches into one, rows in order. Ids, keys and uris are kept if every batch has them.

        Attributes that a batch does not have are missing in its rows.

        Raises:
            InvalidEncodingsError: there are no batches, something else is among them, or their widths differ.
        """
        if not isinstance(batches, Sequence) or not all(isinstance(batch, Encodings) for batch in batches):
            raise InvalidEncodingsError(f"batches = {shown(batches)}, expected a list of Encodings")
        if not batches:
            raise InvalidEncodingsError("no batches to concatenate, expected at least one")
        for name in ("probabilities", "codes", "features"):
            widths = {getattr(batch, name).shape[1] for batch in batches}
            if len(widths) > 1:
                raise InvalidEncodingsError(f"{name} of the batches have different widths: {sorted(widths)}")
        all_ids = [batch.ids for batch in batches if batch.ids is not None]
        all_uris = [batch.uris for batch in batches if batch.uris is not None]
        all_keys = [batch.keys for batch in batches if batch.keys is not None]
        return _trusted(
            Encodings,
            probabilities=np.concatenate([batch.probabilities for batch in batches]),
            codes=np.concatenate([batch.codes for batch in batches]),
            features=np.concatenate([batch.features for batch in batches]),
            ids=np.concatenate(all_ids) if len(all_ids) == len(batches) else None,
            uris=[uri for uris in all_uris for uri in uris] if len(all_uris) == len(batches) else None,
            attributes=joined_attributes([(batch.attributes, len(batch)) for batch in batches]),
            keys=[key for keys in all_keys for key in keys] if len(all_keys) == len(batches) else None,
        )

    def with_values(
        self,
        probabilities: NDArray[np.float32],
        features: NDArray[np.float32],
        packed: NDArray[np.uint16] | None,
        coded: NDArray[Any] | None,
        attributes: Mapping[str, list[Any]] | None,
    ) -> Encodings:
        """Return the same ids, codes and uris with other values, which are valid for `any_mass`."""
        columns = {name: getattr(self, name) for name in _NAMES}
        columns |= {"probabilities": probabilities, "features": features, "packed": packed, "coded": coded}
        columns["attributes"] = attributes
        return _trusted(Encodings, **columns)

    def normalised(self, tolerance: float = NORM_TOLERANCE) -> bool:
        """Return whether every feature has length 1 within a tolerance (true for an empty batch)."""
        return not np.count_nonzero(is_unnormalised(self.features, tolerance))  # faster than any(), in every search


@dataclass(frozen=True, eq=False, kw_only=True)
class Records(Encodings):
    """Encodings that an index returns: `ids` is never None.

    Attributes:
        ids: (n,) int64.
    """

    ids: NDArray[np.int64]

    @staticmethod
    def of(encodings: Encodings) -> Records:
        """Return the same arrays as `Records`.

        Raises:
            InvalidEncodingsError: the encodings have no ids, or are no `Encodings`.
        """
        if not isinstance(encodings, Encodings) or encodings.ids is None:
            raise InvalidEncodingsError(f"got {shown(encodings)}, expected Encodings with ids")
        return _trusted(Records, **{name: getattr(encodings, name) for name in _NAMES})


_NAMES = tuple(item.name for item in fields(Encodings))


_Batch = TypeVar("_Batch", bound=Encodings)


def is_unnormalised(features: NDArray[np.float32], tolerance: float) -> NDArray[np.bool_]:
    """Return which of (n, D) features do not have length 1 within a tolerance: (n,) bool."""
    squared = np.vecdot(features, features)
    near: NDArray[np.bool_] = (squared >= (1 - tolerance) ** 2) & (squared <= (1 + tolerance) ** 2)  # false for NaN
    return ~near


def count_unnormalised(features: NDArray[np.float32], tolerance: float) -> int:
    """Count (n, D) features that do not have length 1 within a tolerance."""
    with np.errstate(over="ignore", invalid="ignore"):  # a damaged or forged file can hold any value
        return int(np.count_nonzero(is_unnormalised(features, tolerance)))


def _trusted(kind: type[_Batch], **columns: Any) -> _Batch:
    """Build a batch from columns that were validated before, without validating them again."""
    batch = object.__new__(kind)
    for name, column in columns.items():
        contiguous = np.ascontiguousarray(column) if isinstance(column, np.ndarray) else column
        object.__setattr__(batch, name, contiguous)
    return batch


def _floats(name: str, value: Any) -> NDArray[np.float32]:
    array = array_given(name, value, 2)
    if array.dtype.kind != "f":
        raise InvalidEncodingsError(f"{name} have dtype {array.dtype}, expected float32")
    if array.shape[1] == 0:
        raise InvalidEncodingsError(f"{name} have shape {array.shape}, expected at least one column")
    with np.errstate(over="ignore", invalid="ignore"):  # a float64 beyond float32 becomes infinite and is refused later
        return np.require(array, np.float32, ["C", "A"])


def _ids(value: Any) -> NDArray[np.int64]:
    array = array_given("ids", value, 1)
    if array.dtype.kind not in "iu" and array.size:
        raise InvalidEncodingsError(f"ids have dtype {array.dtype}, expected int64")
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int64).max):
        raise InvalidEncodingsError(
            f"ids range from {array.min()} to {array.max()}, expected 0 to 2**63 - 1 (-1 marks an empty result)"
        )
    return np.require(array, np.int64, ["C", "A"]) if array.size else np.empty(0, np.int64)


def _uris(value: Any) -> Sequence[str | None]:
    strings = isinstance(value, Sequence) and not isinstance(value, str | bytes | memoryview)
    if not strings and not (isinstance(value, np.ndarray) and value.ndim == 1):
        raise InvalidEncodingsError(f"uris are a {type(value).__name__}, expected one string, path or None per image")
    try:
        given = values_of(value) if isinstance(value, np.ndarray) else value
    except ValueError as error:
        raise InvalidEncodingsError(f"uris are an array of text, and {error}") from None
    uris = [
        fspath(uri) if isinstance(uri, PathLike) else str(uri) if isinstance(uri, np.str_) else uri for uri in given
    ]
    for uri in uris:
        if uri is not None and not isinstance(uri, str):
            raise InvalidEncodingsError(f"uri {shown(uri)} is a {type(uri).__name__}, expected a string, path or None")
    joined = "".join(uri for uri in uris if uri)
    if not joined.isascii() and INVALID.search(joined):
        wrong = next(uri for uri in uris if uri and INVALID.search(uri))
        raise InvalidEncodingsError(f"uri {shown(wrong)} is not valid text")
    return uris


def _check_features(features: NDArray[np.float32]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        squared = np.vecdot(features, features)
    wrong = ~(squared <= MAX_SQUARED_NORM)
    if not wrong.any():
        return
    row = int(np.argmax(wrong))
    if not np.isfinite(features[row]).all():
        raise InvalidEncodingsError(f"features of row {row} hold NaN or infinity, expected finite values")
    raise InvalidEncodingsError(
        f"the feature of row {row} is longer than {MAX_SQUARED_NORM**0.5:.1e}, too long for float32 distances: "
        "scale or normalise the features"
    )
