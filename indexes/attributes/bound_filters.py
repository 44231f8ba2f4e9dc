"""Filters for the attributes of one index: names and types are known, and every value has the form that is stored.

Four conditions are left. Comparisons of numbers and datetimes become ranges: `price < 20` holds from minus infinity to
the largest float64 below 20, and `stars > 2.5` from 3 on, for integers.

    Within      the value is in a closed range
    OneOf       the value is one of several
    Containing  the categories have all, or at least one, of several
    Missing     there is no value

`matches` says whether one record matches, and is what filters mean; `attribute_table` does the same for all records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

from semcut.indexes.attributes.attribute_types import (
    FIRST_DATETIME,
    LARGEST_INT,
    LAST_DATETIME,
    AttributeType,
    microseconds_of,
    value_of,
)
from semcut.indexes.attributes.expressions import (
    MAX_PARTS,
    Condition,
    Expression,
    Joined,
    Negated,
    comparisons_in,
    depth_of,
)
from semcut.indexes.attributes.where_text import parsed, refuse_at
from semcut.indexes.errors import InvalidParameterError, shown

_DEEPEST = 200
_NUMBERS = ("int", "float", "datetime")
_RANGES = {
    "int": (-LARGEST_INT, LARGEST_INT),
    "datetime": (FIRST_DATETIME, LAST_DATETIME),
    "float": (-math.inf, math.inf),
}
_OPERATORS = {
    "bool": ("==", "!=", "in", "null"),
    "int": ("==", "!=", "<", "<=", ">", ">=", "in", "null"),
    "float": ("==", "!=", "<", "<=", ">", ">=", "in", "null"),
    "datetime": ("==", "!=", "<", "<=", ">", ">=", "in", "null"),
    "category": ("==", "!=", "in", "null"),
    "categories": ("contains", "contains_any", "contains_all", "null"),
}
_ADVICE = {
    "bool": "compare it with == or !=, or test `is null`",
    "category": "compare it with ==, != or in, or test `is null`",
    "categories": 'use array_contains(name, "value"), array_contains_any or array_contains_all, or test `is null`',
}


@dataclass(frozen=True)
class Within:
    """The value is from `low` to `high`: float, or int; of a datetime, microseconds since 1970."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class OneOf:
    """The value is one of `values`, which have the form of `Within`, or are bools, or texts."""

    name: str
    values: frozenset[Any]


@dataclass(frozen=True)
class Containing:
    """The categories have all of `values`, or at least one of them if not `every`."""

    name: str
    values: frozenset[str]
    every: bool


@dataclass(frozen=True)
class Missing:
    """There is no value."""

    name: str


@dataclass(frozen=True)
class Several:
    """All ("and") or at least one ("or") of the parts hold."""

    word: Literal["and", "or"]
    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Opposite:
    """The part does not hold."""

    part: Filter


Filter: TypeAlias = "Within | OneOf | Containing | Missing | Several | Opposite"


def bound_filter(where: Any, types: Mapping[str, AttributeType]) -> Filter:
    """Return a filter for an index with attributes of these types.

    Args:
        where: an expression, or text in the syntax of `where_text`.
        types: the attributes.

    Raises:
        InvalidParameterError: the text is no filter, there is no such attribute, or it cannot be compared this way; of
            a text, the message points at the place.
    """
    if not isinstance(where, str | Expression):
        raise InvalidParameterError(
            f"where = {shown(where)}, expected text such as 'price < 20', or attribute(\"price\") < 20"
        )
    expression = parsed(where) if isinstance(where, str) else where
    if comparisons_in(expression) > MAX_PARTS:
        raise InvalidParameterError(f"where has more than {MAX_PARTS:,} comparisons, expected fewer")
    if depth_of(expression) > _DEEPEST:
        raise InvalidParameterError(f"where has filters nested more than {_DEEPEST} deep: join them flatly")
    return _Binding(types, where if isinstance(where, str) else None).bound(expression)


class _Binding:
    """Binds the parts of one expression; `text` is what it was read from."""

    def __init__(self, types: Mapping[str, AttributeType], text: str | None) -> None:
        self._types, self._text = types, text

    def bound(self, expression: Expression) -> Filter:
        if isinstance(expression, Joined):
            return Several(expression.word, tuple(map(self.bound, expression.parts)))
        if isinstance(expression, Negated):
            return Opposite(self.bound(expression.part))
        assert isinstance(expression, Condition)
        return self._condition(expression)

    def _refuse(self, condition: Condition, what: str) -> NoReturn:
        if self._text is not None:
            refuse_at(self._text, condition.place, what)
        raise InvalidParameterError(f"where {shown(str(condition))}: {what}")

    def _condition(self, condition: Condition) -> Filter:
        name, operator = condition.name, condition.operator
        kind = self._types.get(name)
        if kind is None:
            known = ", ".join(self._types) or "none"
            self._refuse(condition, f"the index has no attribute {name}, its attributes are: {known}")
        if operator == "null":
            return Missing(name)
        if operator not in _OPERATORS[kind]:
            advice = _ADVICE.get(kind, "compare it with ==, !=, <, <=, >, >= or in, or test `is null`")
            self._refuse(condition, f"{name} is of type {kind}: {advice}")
        if operator.startswith("contains"):
            values = condition.operand if isinstance(condition.operand, tuple) else (condition.operand,)
            if not all(isinstance(value, str) for value in values):
                self._refuse(condition, f"{name} is of type categories: its values are text")
            return Containing(name, frozenset(values), operator != "contains_any")
        if operator == "in":
            return self._any_of(condition, kind)
        if operator == "!=":
            return Several("and", (Opposite(Missing(name)), Opposite(self._equal(condition, kind, condition.operand))))
        if operator == "==":
            return self._equal(condition, kind, condition.operand)
        return self._ordered(condition, kind)

    def _equal(self, condition: Condition, kind: AttributeType, operand: Any) -> Filter:
        value = self._operand(condition, kind, operand)
        low, high = _RANGES.get(kind, (0, 0))
        possible = kind not in _NUMBERS or ((value == value // 1 if kind == "int" else True) and low <= value <= high)
        if not possible:
            return OneOf(condition.name, frozenset())
        return OneOf(condition.name, frozenset([int(value) if kind == "int" else value]))

    def _any_of(self, condition: Condition, kind: AttributeType) -> Filter:
        found: set[Any] = set()
        for operand in condition.operand:
            equal = self._equal(condition, kind, operand)
            assert isinstance(equal, OneOf)
            found |= equal.values
        return OneOf(condition.name, frozenset(found))

    def _ordered(self, condition: Condition, kind: AttributeType) -> Filter:
        value, operator = self._operand(condition, kind, condition.operand), condition.operator
        low, high = _RANGES[kind]
        if kind == "float":
            bound: Any = (
                value if operator in ("<=", ">=") else math.nextafter(value, -math.inf if operator == "<" else math.inf)
            )
        elif operator in ("<", ">="):
            bound = math.ceil(value) - (operator == "<")
        else:
            bound = math.floor(value) + (operator == ">")
        if operator in ("<", "<="):
            return Within(condition.name, low, min(bound, high))
        return Within(condition.name, max(bound, low), high)

    def _operand(self, condition: Condition, kind: AttributeType, operand: Any) -> Any:
        """Return what a condition compares with, in the form that is stored."""
        number = isinstance(operand, int | float) and not isinstance(operand, bool)
        if kind in ("int", "float"):
            if not number or (isinstance(operand, float) and not math.isfinite(operand)):
                self._refuse(
                    condition, f"{condition.name} is of type {kind}: expected a finite number, got {shown(operand)}"
                )
            try:
                return float(operand) if kind == "float" else operand
            except OverflowError:
                return math.inf if operand > 0 else -math.inf
        try:
            value = value_of(kind, operand)
        except ValueError as error:
            self._refuse(condition, f"{condition.name} is of type {kind}: expected {error}, got {shown(operand)}")
        if value is None:  # such as NaT of pandas
            self._refuse(condition, f"{condition.name} is compared with {shown(operand)}, expected a value, or is null")
        return microseconds_of(value) if kind == "datetime" else value


def matches(chosen: Filter, record: Mapping[str, Any]) -> bool:
    """Return whether a record matches.

    Args:
        chosen: the filter.
        record: the attributes of the record as an index returns them.
    """
    if isinstance(chosen, Several):
        return (all if chosen.word == "and" else any)(matches(part, record) for part in chosen.parts)
    if isinstance(chosen, Opposite):
        return not matches(chosen.part, record)
    value = record[chosen.name]
    if isinstance(chosen, Missing):
        return value is None
    if value is None:
        return False
    if isinstance(chosen, Containing):
        return (chosen.values <= set(value)) if chosen.every else bool(chosen.values & set(value))
    stored = microseconds_of(value) if hasattr(value, "year") else value
    return chosen.low <= stored <= chosen.high if isinstance(chosen, Within) else stored in chosen.values
