"""`IndexConfig`, the shape of an index: frozen, validated once, fixed when an index is created, and stored with it.

Code that receives an `IndexConfig` does not check its values again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from semcut.indexes.attributes.attribute_types import MAX_ATTRIBUTES, TYPES, AttributeType, is_attribute_name
from semcut.indexes.attributes.fixed_types import FixedTypes
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import InvalidEncodingsError, InvalidParameterError, shown

FeatureType = Literal["float32", "float16", "int8"]


DEFAULT_STORED = 24
"""The number of probabilities of a record that are stored by default."""

_MOST_ERRORS, _MOST_QUOTES, _BATCH_VALUES = 1000, 100, 1 << 25

MAX_CLASSES = 10_000
"""Largest C."""

MAX_SIMILARITY_CLASSES = 4096
"""Largest C of an index with a similarity matrix, which takes 60 bytes for each of its entries, a gigabyte in all."""

MAX_SIMILARITY = 1e12
"""Largest entry of S, so that relevances stay far below the largest float32 value."""


class Settings(BaseModel):
    """A frozen pydantic model. Invalid values raise a single `InvalidParameterError`, with up to three complaints."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_type(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would read as a number, or as True or False: "3", True for 1, "no"."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = get_args(annotation) or (annotation,)
        if (int in kinds or float in kinds) and isinstance(value, np.integer):
            return int(value)  # pydantic would read a numpy integer as a float
        not_a_number = bool | np.bool_ | complex | np.complexfloating | str | bytes
        if (int in kinds or float in kinds) and isinstance(value, not_a_number):
            integer = "" if float in kinds else " (an integer)"
            raise ValueError(f"a {type(value).__name__}, expected a number{integer}")
        if bool in kinds and not isinstance(value, bool | np.bool_):
            raise ValueError("expected True or False")
        return value

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            complaints = []
            for item in error.errors()[:3]:
                reason, name = plain_reason(item["msg"]), ".".join(map(str, item["loc"]))
                if item["type"] == "missing":
                    complaints.append(f"{name} is required")
                elif reason.startswith((f"{name} = ", f"{name}[", f"the {name} ")):  # a whole sentence
                    complaints.append(reason)
                else:  # a reason without a field is a whole sentence
                    complaints.append(f"{name} = {shown(item['input'])}: {reason}" if name else reason)
            raise InvalidParameterError("; ".join(complaints)) from None


def plain_reason(message: str) -> str:
    """Return a message of pydantic in the words of other errors: "expected less than 1"."""
    if message.startswith("Extra inputs"):
        return "there is no such setting"
    message = message.removeprefix("Value error, ").removesuffix(", unable to interpret input")
    message = message.replace(" after validation", "")
    message = re.sub(r"^\w+ should (be|have) ", "expected ", message)
    return re.sub(r"^\w+ should ", "expected to ", message)


class IndexConfig(Settings):
    """The shape of an index, what relevance means in it, and how its partitions are cut into cells.

    Attributes:
        classes: C, the number of semantic classes.
        bits: length of a hash code, a multiple of 8 from 32 to 1024.
        dim: D, the length of a feature.
        prior: (C,) positive weights of the classes, scaled to sum to 1; gives S = diag(1 / (C prior)). Default None.
        similarity: (C, C) symmetric, not negative: S itself, for overlapping classes, at most 4096. Default None: the
            identity.
        groups: G; cells distinguish runner-up classes modulo 2 G, and a partition has at most 5 + 6 G cells (see
            `pruning.cell_table`). The default, 0, limits the number of cells: G is C for up to 16 classes, 16 for up
            to 256, and 4096 // C (at least 1) for more.
        stored_probabilities: how many probabilities of each record are stored, the largest ones, see `stored_values`;
            C stores all of them as float32. The default, 0, is the smaller of 24 and C.
        stored_features: the type in which features are stored: "float16" (the default), "float32" or "int8".
        feature_step: the step between the values of int8 features; values go up to 127 steps. Features of length 1 fit
            with the default, 1 / 127; a smaller step is more precise if all values are smaller.
        attributes: the type of each attribute that records have, by its name: "bool", "int", "float", "datetime",
            "category" or "categories", see `attributes.attribute_types`; it cannot be changed. Default: none.
        string_ids: whether records have strings as ids, see `keys`. Default False.

    Raises:
        InvalidParameterError: a value is out of range; the message names the field, the value and the range.
    """

    classes: int = Field(ge=2, le=MAX_CLASSES)
    bits: int = Field(ge=32, le=1024, multiple_of=8)
    dim: int = Field(ge=1, le=65_536)
    prior: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    similarity: tuple[tuple[Annotated[float, Field(ge=0)], ...], ...] | None = None
    groups: int = Field(default=0, ge=0, le=64)
    stored_probabilities: int = Field(default=0, ge=0)
    stored_features: FeatureType = "float16"
    feature_step: float = Field(default=1 / 127, gt=1e-30, lt=1e30)
    attributes: Mapping[str, AttributeType] = Field(default={}, max_length=MAX_ATTRIBUTES)
    string_ids: bool = False

    def __hash__(self) -> int:
        return hash(self.written())

    def written(self) -> str:
        """Return the configuration as JSON, as an index stores it.

        Attributes and keys are left out where there are none, since earlier versions of semcut do not know them.
        """
        return self.model_dump_json(exclude={name for name in ("attributes", "string_ids") if not getattr(self, name)})

    @field_validator("attributes", mode="before")
    @classmethod
    def _attribute_names(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError('expected the types of attributes by name, such as {"price": "float"}')
        for name in value:
            if not is_attribute_name(name):
                raise ValueError(
                    f"{shown(name)} is no name of an attribute: a name has letters, digits and _, at most 63, and is "
                    "no word of filters or columns, such as in or id"
                )
        if len({name.lower() for name in value}) < len(value):
            raise ValueError("two attributes have the same name but for capital letters")
        for name, kind in value.items():
            if not isinstance(kind, str) or kind not in TYPES:
                raise ValueError(f"the attribute {name} is of type {shown(kind)}, expected one of {', '.join(TYPES)}")
        return dict(value)

    @field_validator("attributes")
    @classmethod
    def _fixed(cls, value: Mapping[str, AttributeType]) -> FixedTypes:
        return FixedTypes(value)

    @field_validator("prior", "similarity", mode="before")
    @classmethod
    def _from_array(cls, value: Any, info: ValidationInfo) -> Any:
        value = value.tolist() if isinstance(value, np.ndarray) else value
        if isinstance(value, list | tuple):
            if "classes" in info.data:
                _check_lengths(info.field_name, value, info.data["classes"])
            _refuse_many_wrong(value if info.field_name == "similarity" else [value])
        return value

    @model_validator(mode="after")
    def _consistent(self) -> IndexConfig:
        if self.prior is not None and self.similarity is not None:
            raise ValueError("give a prior or a similarity, not both: both define the same matrix S")
        if self.prior is not None:
            _check_lengths("prior", self.prior, self.classes)
        if self.similarity is not None:
            _check_lengths("similarity", self.similarity, self.classes)
            matrix = np.asarray(self.similarity)
            if not np.array_equal(matrix, matrix.T):
                raise ValueError("the similarity is not symmetric: S[i][j] must equal S[j][i]")
            if matrix.max() > MAX_SIMILARITY:
                raise ValueError(f"the largest similarity is {matrix.max():g}, at most {MAX_SIMILARITY:g}: scale S")
        if self.prior is not None and sum(self.prior) / min(self.prior) > MAX_SIMILARITY * self.classes:
            raise ValueError(
                f"the smallest entry of the prior, {min(self.prior):g}, is too small compared with the others"
            )
        return self

    @field_validator("groups")
    @classmethod
    def _default_groups(cls, groups: int, info: ValidationInfo) -> int:
        classes = info.data.get("classes", 1)
        return groups or max(1, min(16, classes, 4096 // classes))

    @field_validator("stored_probabilities")
    @classmethod
    def _default_stored(cls, stored: int, info: ValidationInfo) -> int:
        classes = info.data.get("classes", 1)
        if stored > classes:
            raise ValueError(f"there are {classes} classes: expected 1 to {classes}, or 0 for all")
        return stored or min(classes, DEFAULT_STORED)

    def batch_records(self, most: int = 10_000) -> int:
        """Return how many records are read at a time: at most this number, and at most 128 MiB."""
        return min(most, _BATCH_VALUES // (self.classes + self.dim))

    def check(self, encodings: Encodings) -> None:
        """Raise `InvalidEncodingsError` unless the batch has the classes, bits and feature length of this index."""
        if not isinstance(encodings, Encodings):
            raise InvalidEncodingsError(f"got a {type(encodings).__name__}, expected Encodings")
        for what, given, expected in (
            ("classes", encodings.probabilities.shape[1], self.classes),
            ("bits", encodings.codes.shape[1] * 8, self.bits),
            ("feature values", encodings.features.shape[1], self.dim),
        ):
            if given != expected:
                raise InvalidEncodingsError(f"the batch has {given} {what} but the index has {expected}")

    def check_keys(self, encodings: Encodings) -> None:
        """Raise `InvalidEncodingsError` unless records have keys where the index has, and only there."""
        if self.string_ids and encodings.keys is None and len(encodings):
            raise InvalidEncodingsError("the index has keys: the ids of its records are strings, one for each image")
        if encodings.keys is not None and not self.string_ids:
            raise InvalidEncodingsError(
                "ids are strings but those of the index are integers: create it with IndexConfig(string_ids=True)"
            )


def _check_lengths(name: str | None, value: Sequence[Any], classes: int) -> None:
    """Raise a `ValueError` unless a prior or a similarity has one entry, or row and column, per class.

    Of a similarity, only the lists and tuples are measured: pydantic complains of a row that is neither.
    """
    if name == "prior" and len(value) != classes:
        raise ValueError(f"the prior has {len(value)} entries, expected one per class ({classes})")
    if name == "similarity" and classes > MAX_SIMILARITY_CLASSES:
        raise ValueError(f"there are {classes} classes: a similarity is for at most {MAX_SIMILARITY_CLASSES}")
    widths = (len(row) for row in value if isinstance(row, list | tuple))
    if name == "similarity" and (len(value) != classes or any(width != classes for width in widths)):
        raise ValueError(f"the similarity is not {classes} x {classes}, one row and column per class")


def _refuse_many_wrong(rows: list[Any] | tuple[Any, ...]) -> None:
    """Refuse the first wrong row or number of many; pydantic would make an error of each, of a kilobyte."""
    if len(rows) + sum(len(row) for row in rows if isinstance(row, list | tuple)) <= _MOST_ERRORS:
        return
    for row in rows:
        if not isinstance(row, list | tuple):
            raise ValueError(f"one row is {shown(row)}, expected a list of numbers")
        for number in row:
            if not isinstance(number, int | float | np.number) or isinstance(number, bool) or not number >= 0:
                raise ValueError(f"one entry is {shown(number)}, expected numbers that are not negative")


def refuse_many_values(text: str) -> None:
    """Raise a `ValueError` if a written configuration has more lists, texts or values than its classes need.

    JSON of many small lists takes 50 times as much memory as its text, before one value of it is checked.

    Args:
        text: JSON, which may come from a forged file.
    """
    stated = re.search(r'"classes"\s*:\s*([0-9]{1,5})', text)
    classes = min(int(stated[1]), MAX_CLASSES) if stated else 0
    rows = classes if classes <= MAX_SIMILARITY_CLASSES else 1
    numbers = rows * (classes + 1) + _MOST_QUOTES + MAX_ATTRIBUTES
    for mark, most in (("[", classes + 2), ("{", 2), ('"', _MOST_QUOTES + 4 * MAX_ATTRIBUTES), (",", numbers)):
        if (count := text.count(mark)) > most:
            raise ValueError(f"it has {mark!r} {count:,} times, expected at most {most:,} for {classes:,} classes")


def written_config(values: dict[str, Any]) -> IndexConfig:
    """Return the configuration of a stored index from its values; one that does not say what it stores stores all.

    The values may come from a forged file: not one of many wrong ones costs more than another.

    Raises:
        InvalidParameterError: the values are not valid.
    """
    for name in values:
        if name not in IndexConfig.model_fields:
            raise InvalidParameterError(f"{shown(name)}: there is no such setting")
    return IndexConfig(**{"stored_probabilities": values.get("classes", 0), "stored_features": "float32", **values})
