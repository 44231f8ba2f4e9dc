"""Filters: `attribute("price") < 20`, joined by `&`, `|` and `~`.

An expression does not know which index it is for: `bound_filters` compares it with the attributes of one. Its text
(`str`) has the syntax of `where_text`, and equal texts are equal filters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from math import isfinite
from typing import Any, Literal, TypeAlias

import numpy as np

from semcut.indexes.attributes.attribute_types import datetime_of_numpy, is_attribute_name
from semcut.indexes.errors import InvalidParameterError, shown
from semcut.indexes.unicode_text import values_of

Comparison = Literal["==", "!=", "<", "<=", ">", ">="]

Operator: TypeAlias = Literal[
    "==", "!=", "<", "<=", ">", ">=", "in", "contains", "contains_any", "contains_all", "null"
]

MAX_PARTS = 10_000
"""The largest number of comparisons, and of values that a comparison names."""


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


class Expression:
    """A filter. `a & b`, `a | b` and `~a` join filters; `and`, `or` and `not` of Python cannot."""

    def __and__(self, other: Expression) -> Expression:
        return _joined("and", self, _expression(other, "&"))

    def __or__(self, other: Expression) -> Expression:
        return _joined("or", self, _expression(other, "|"))

    def __invert__(self) -> Expression:
        return self.part if isinstance(self, Negated) else Negated(self)

    def __bool__(self) -> bool:
        raise InvalidParameterError(
            "a filter is neither true nor false: join filters with &, | and ~, and put each comparison in brackets"
        )


@dataclass(frozen=True)
class Condition(Expression):
    """One comparison.

    Attributes:
        name: the attribute.
        operator: how it is compared. "null": whether its value is missing.
        operand: a number, text, bool or datetime; a tuple of them for "in", "contains_any" and "contains_all"; None for
            "null".
        place: where the comparison begins in the text that it was read from, -1 if there is none.
    """

    name: str
    operator: Operator
    operand: Any
    place: int = -1

    def __str__(self) -> str:
        value = _text(self.operand)
        if self.operator == "null":
            return f"{self.name} is null"
        if self.operator.startswith("contains"):
            return f"array_{self.operator}({self.name}, {value})"
        return f"{self.name} {self.operator} {value}"


@dataclass(frozen=True)
class Joined(Expression):
    """Several filters of which all ("and") or at least one ("or") must match."""

    word: Literal["and", "or"]
    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        return f" {self.word} ".join(f"({part})" if isinstance(part, Joined) else str(part) for part in self.parts)


@dataclass(frozen=True)
class Negated(Expression):
    """A filter that matches what another one does not."""

    part: Expression

    def __str__(self) -> str:
        return f"not ({self.part})"


class Attribute:
    """An attribute by its name; comparing it makes a filter. Use `attribute`."""

    __hash__ = None  # type: ignore[assignment]  # == makes a filter

    def __init__(self, name: str) -> None:
        self._name = name

    def __eq__(self, value: Any) -> Expression:  # type: ignore[override]
        return self._compared("==", value)

    def __ne__(self, value: Any) -> Expression:  # type: ignore[override]
        return self._compared("!=", value)

    def __lt__(self, value: Any) -> Expression:
        return self._compared("<", value)

    def __le__(self, value: Any) -> Expression:
        return self._compared("<=", value)

    def __gt__(self, value: Any) -> Expression:
        return self._compared(">", value)

    def __ge__(self, value: Any) -> Expression:
        return self._compared(">=", value)

    def isin(self, values: Iterable[Any]) -> Expression:
        """Match records whose value is one of these."""
        return Condition(self._name, "in", _values("isin", values))

    def contains(self, category: str) -> Expression:
        """Match records that have this category among their categories."""
        return Condition(self._name, "contains", _value(category))

    def contains_any(self, categories: Iterable[str]) -> Expression:
        """Match records that have at least one of these categories."""
        return Condition(self._name, "contains_any", _values("contains_any", categories))

    def contains_all(self, categories: Iterable[str]) -> Expression:
        """Match records that have all of these categories."""
        return Condition(self._name, "contains_all", _values("contains_all", categories))

    def is_missing(self) -> Expression:
        """Match records without a value."""
        return Condition(self._name, "null", None)

    def _compared(self, operator: Operator, value: Any) -> Expression:
        return Condition(self._name, operator, _value(value))


def attribute(name: str) -> Attribute:
    """Return an attribute, to be compared: `attribute("price") < 20`, `attribute("camera").isin(["a", "b"])`.

    Raises:
        InvalidParameterError: no attribute can have this name.
    """
    if not is_attribute_name(name):
        raise InvalidParameterError(f"name = {shown(name)}, expected the name of an attribute")
    return Attribute(name)


def depth_of(expression: Expression) -> int:
    """Return how deep filters are nested in a filter, counted without recursion."""
    return max(depth for _, depth in _parts_of(expression))


def comparisons_in(expression: Expression) -> int:
    """Return the number of comparisons of a filter, counted without recursion."""
    return sum(isinstance(part, Condition) for part, _ in _parts_of(expression))


def _parts_of(expression: Expression) -> Iterator[tuple[Expression, int]]:
    """Yield a filter and all filters in it, each with how deep it is."""
    left = [(expression, 1)]
    while left:
        part, depth = left.pop()
        yield part, depth
        inner = part.parts if isinstance(part, Joined) else (part.part,) if isinstance(part, Negated) else ()
        left += [(child, depth + 1) for child in inner]


def _joined(word: Literal["and", "or"], first: Expression, second: Expression) -> Expression:
    """Join two filters; the first may be several that are joined already, which are not nested deeper then."""
    joined = first.parts if isinstance(first, Joined) and first.word == word else (first,)
    return Joined(word, (*joined, second))


def _expression(value: Any, operator: str) -> Expression:
    if not isinstance(value, Expression):
        raise InvalidParameterError(
            f"a filter {operator} {shown(value)}, expected another filter: put each comparison in brackets"
        )
    return value


def _value(value: Any) -> Any:
    if isinstance(value, np.datetime64):
        try:
            value = datetime_of_numpy(value)
        except ValueError as error:
            raise InvalidParameterError(f"a filter compares with {shown(value)}, expected {error}") from None
    elif isinstance(value, np.generic):
        value = float(value) if isinstance(value, np.longdouble) else value.item()  # its `item` is itself
    if not isinstance(value, bool | int | float | str | date) or (isinstance(value, float) and not isfinite(value)):
        raise InvalidParameterError(
            f"a filter compares with {shown(value)}, expected a finite number, text, True, False or a datetime"
        )
    return value


def _values(method: str, values: Any) -> tuple[Any, ...]:
    try:
        given = values_of(values) if isinstance(values, np.ndarray) else values
    except ValueError as error:
        raise InvalidParameterError(f"{method} is given an array of text, and {error}") from None
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidParameterError(f"{method}({shown(values)}), expected a list of values")
    try:
        found = tuple(map(_value, given))
    except TypeError:  # a tensor without dimensions says that it can be iterated
        raise InvalidParameterError(f"{method}({shown(values)}), expected a list of values") from None
    if len(found) > MAX_PARTS:
        raise InvalidParameterError(f"{method} has {len(found):,} values, expected at most {MAX_PARTS:,}")
    return found


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, datetime | date):
        return f'"{value.isoformat()}"'
    if isinstance(value, str):
        return '"' + "".join(_ESCAPES.get(letter, letter) for letter in value) + '"'
    return str(value).lower() if isinstance(value, bool) else repr(value)
