"""The types of attributes, and for each type which values are accepted, how they are stored, and how they are returned.

    type          accepted                                          returned            stored
    "bool"        True, False                                       bool                int8; -1: missing
    "int"         integers of at most 63 bits and a sign            int                 int64; -2^63: missing
    "float"       finite numbers                                    float               float64; NaN: missing
    "datetime"    datetimes, dates, ISO 8601 text, datetime64       datetime, in UTC    int64, microseconds since 1970
    "category"    one text                                          str                 int32, its number; -1: missing
    "categories"  any number of different texts                     tuple of str        int32, the number of the tuple

None is a missing value of every type, and so is NaN, by which columns of other libraries mark one. A datetime without a
time zone counts as UTC; one with a part of a microsecond is refused, not rounded. The order of categories is not kept:
they are returned sorted. No categories (an empty list) is a value, and not a missing one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any, Literal, get_args

import numpy as np

from semcut.indexes.errors import InvalidEncodingsError, shown
from semcut.indexes.unicode_text import INVALID

AttributeType = Literal["bool", "int", "float", "datetime", "category", "categories"]

TYPES: tuple[AttributeType, ...] = get_args(AttributeType)

MAX_ATTRIBUTES = 64
"""The largest number of attributes of an index."""

MAX_TEXT = 1000
"""The largest number of characters of a category."""

MAX_CATEGORIES = 1000
"""The largest number of categories of a record in one attribute."""

RESERVED = (
    "and", "or", "not", "in", "is", "null", "true", "false", "like", "exists",
    "array_contains", "array_contains_any", "array_contains_all",
    "id", "uri", "code", "feature", "probabilities", "cell", "dominant", "query", "rank",
    "ids", "uris", "codes", "features", "classes",
)  # fmt: skip
"""Words that are no names of attributes: those of filters, and the columns of tables, files and servers."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")

LARGEST_INT = 2**63 - 1
MISSING_INT = -(2**63)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_A_DATETIME = "a datetime, a date, or ISO 8601 text such as 2024-05-01T18:30:00"
_FINER = re.compile(r"[.,][0-9]{6}0*[1-9]")
"""In text of ISO 8601, a part of a microsecond, which Python leaves out."""


def is_attribute_name(name: Any) -> bool:
    """Return whether an attribute can have this name: letters, digits and `_`, at most 63, not a reserved word."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and name.lower() not in RESERVED


def dtype_of(kind: AttributeType) -> np.dtype[Any]:
    """Return the type of a stored value, little-endian."""
    return np.dtype({"bool": "i1", "int": "<i8", "float": "<f8", "datetime": "<i8"}.get(kind, "<i4"))


def has_vocabulary(kind: AttributeType) -> bool:
    """Return whether the values of a type are stored as their numbers in a vocabulary."""
    return kind in ("category", "categories")


def value_of(kind: AttributeType, given: Any) -> Any:
    """Return a value as an index returns it; None if it is missing.

    Args:
        kind: the type of the attribute.
        given: the value, as a caller has it.

    Raises:
        ValueError: the attribute cannot have this value; the message says what was expected.
    """
    if given is None or type(given).__name__ in ("NaTType", "NAType"):  # those of pandas
        return None
    if isinstance(given, float | np.floating) and np.isnan(given):
        return None
    return _READERS[kind](given)


def _bool(given: Any) -> bool:
    if not isinstance(given, bool | np.bool_):
        raise ValueError("True or False")
    return bool(given)


def _int(given: Any) -> int:
    is_integer = isinstance(given, int | np.integer) and not isinstance(given, bool)
    if not is_integer or not -LARGEST_INT <= given <= LARGEST_INT:
        raise ValueError("an integer from -(2**63 - 1) to 2**63 - 1")
    return int(given)


def _float(given: Any) -> float:
    if isinstance(given, np.integer | np.floating):
        given = float(given) if isinstance(given, np.longdouble) else given.item()  # its `item` is itself
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or not abs(given) <= sys.float_info.max:
        raise ValueError("a finite number")
    return float(given) + 0.0  # -0.0 becomes 0.0, so that equal values are the same


def _datetime(given: Any) -> datetime | None:
    value: Any = given
    try:
        if isinstance(given, np.datetime64):
            value = datetime_of_numpy(given)
        elif isinstance(given, str):
            _require_microseconds(_FINER.search(given) is None)
            value = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", given))
        elif isinstance(given, date) and not isinstance(given, datetime):
            value = datetime(given.year, given.month, given.day)
        if value is None:
            return None
        if isinstance(value, datetime):
            _require_microseconds(not getattr(value, "nanosecond", 0))  # of pandas
            value = value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)
            return datetime.combine(value.date(), value.time(), timezone.utc)  # no class of pandas
    except _TooFineError:
        raise
    except (ValueError, OverflowError):
        pass
    raise ValueError(_A_DATETIME)


class _TooFineError(ValueError):
    """A datetime has a part of a microsecond."""


def _require_microseconds(whole: bool) -> None:
    if not whole:
        raise _TooFineError("a datetime in whole microseconds, which is the finest that is stored")


def datetime_of_numpy(value: np.datetime64) -> Any:
    """Return a datetime of numpy as one of Python, None for NaT, an integer for a year that Python does not have.

    Raises:
        ValueError: it has a part of a microsecond, or is far from any year; the message says what was expected.
    """
    if np.isnat(value):
        return None
    unit = np.datetime_data(value.dtype)[0]
    found = value.astype("datetime64[us]") if unit != "generic" else None
    if found is None or found.astype(value.dtype) != value:
        _require_microseconds(unit not in ("ns", "ps", "fs", "as"))
        raise ValueError(_A_DATETIME)  # it has no unit, or is beyond 64 bits of microseconds
    return found.item()


def _category(given: Any) -> str:
    text = str(given) if isinstance(given, np.str_) else given
    if not isinstance(text, str) or not is_category(text):
        raise ValueError(f"text of 1 to {MAX_TEXT} characters")
    return text


def _categories(given: Any) -> tuple[str, ...]:
    several = isinstance(given, Sequence | set | frozenset | np.ndarray) and not isinstance(given, str | bytes)
    if not several or len(given) > MAX_CATEGORIES:
        raise ValueError(f"a list of at most {MAX_CATEGORIES} texts")
    return tuple(sorted({_category(item) for item in given}))


def is_category(text: str) -> bool:
    """Return whether a text can be a category: not empty, not too long, no zero byte, and valid Unicode."""
    return 0 < len(text) <= MAX_TEXT and "\0" not in text and not INVALID.search(text)


_READERS: dict[AttributeType, Callable[[Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "datetime": _datetime,
    "category": _category,
    "categories": _categories,
}


def column_of(name: str, kind: AttributeType, given: Sequence[Any]) -> list[Any]:
    """Return the values of an attribute of n records as an index returns them.

    Raises:
        InvalidEncodingsError: the attribute cannot have one of them; the message names the row.
    """
    row = -1

    def read(value: Any) -> Any:
        nonlocal row
        row += 1
        return value_of(kind, value)

    try:
        return list(map(read, given))
    except ValueError as error:
        raise InvalidEncodingsError(
            f"the attribute {name} of row {row} is {shown(given[row])}, expected {error}, or None"
        ) from None


def columns_of(types: Mapping[str, AttributeType], given: Mapping[str, list[Any]] | None, rows: int) -> dict[str, Any]:
    """Return all attributes of n records as an index with attributes of these types returns them, in their order.

    Args:
        types: the attributes of the index.
        given: the attributes of the records; values of an attribute that is left out are missing.
        rows: n.

    Raises:
        InvalidEncodingsError: the index has no such attribute, or an attribute cannot have one of the values.
    """
    for name in given or ():
        if name not in types:
            known = ", ".join(types) if types else "no attributes"
            raise InvalidEncodingsError(f"the batch has the attribute {shown(name)} but the index has {known}")
    return {
        name: [None] * rows if given is None or name not in given else column_of(name, kind, given[name])
        for name, kind in types.items()
    }


def json_value(value: Any) -> Any:
    """Return a value, as an index returns it, as JSON has it: a datetime becomes text, categories become a list."""
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def microseconds_of(value: datetime) -> int:
    """Return a datetime in UTC as it is stored."""
    return (value - _EPOCH) // _MICROSECOND


def datetime_of(microseconds: int) -> datetime:
    """Return a stored datetime."""
    return _EPOCH + microseconds * _MICROSECOND


FIRST_DATETIME = microseconds_of(datetime(1, 1, 1, tzinfo=timezone.utc))
LAST_DATETIME = microseconds_of(datetime(9999, 12, 31, 23, 59, 59, 999999, timezone.utc))
"""The smallest and the largest stored datetime."""
