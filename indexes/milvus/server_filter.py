"""Filters on attributes as filters of Milvus, which match the same records.

    Within      attribute_price >= 1.5 and attribute_price <= 20.0
    OneOf       attribute_camera in ["a","b"]
    Containing  array_contains_all(attribute_tags, ["sea","sun"]), or array_contains_any
    Missing     attribute_price in [-1.7976931348623157e+308]

A missing value is stored as a value that no record has (see `attribute_fields`), so all filters are true or false, and
`not` is the complement. `not` is moved inwards to the conditions, so that parts joined by the same word become one
flat list, which is joined again as a balanced tree: servers refuse filters that are nested more than about 45 deep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from semcut.indexes.attributes.attribute_types import LARGEST_INT, AttributeType, is_category
from semcut.indexes.attributes.bound_filters import Containing, Filter, Missing, OneOf, Opposite, Several, Within
from semcut.indexes.errors import InvalidParameterError
from semcut.indexes.milvus.attribute_fields import MISSING_FLOAT, field_of

EVERY_RECORD, NO_RECORD = "id >= -1", "id < -1"
"""Conditions that every record meets, and that none meets: the smallest primary key is -1."""

_DEEPEST = 30  # leaves room for the conditions that are joined with a filter
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}

Word = Literal["and", "or"]


def joined(word: Word, parts: Sequence[str]) -> str:
    """Join conditions, at least one, as a balanced tree."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return f"({joined(word, parts[:middle])}) {word} ({joined(word, parts[middle:])})"


def server_filter(where: Filter, types: Mapping[str, AttributeType]) -> str:
    """Return a filter as the server reads it.

    Args:
        where: the filter.
        types: the attributes of the index.

    Raises:
        InvalidParameterError: the filter is nested too deep.
    """
    written, depth = _written(where, types, False)
    if depth > _DEEPEST:
        raise InvalidParameterError(
            f"where has filters nested {depth} deep, expected at most {_DEEPEST} on Milvus: join them flatly"
        )
    return written


def _written(where: Filter, types: Mapping[str, AttributeType], negated: bool) -> tuple[str, int]:
    """Return a filter, or its complement, as text, and how deep it is nested."""
    if isinstance(where, Opposite):
        return _written(where.part, types, not negated)
    if isinstance(where, Several):
        word = _word(where, negated)
        parts = [_written(part, types, turned) for part, turned in _flat(where, negated, word)]
        return joined(word, [text for text, _ in parts]), max(depth for _, depth in parts) + (
            len(parts) - 1
        ).bit_length()
    text = _condition(where, types[where.name])
    return (f"not ({text})", 3) if negated else (text, 2)


def _word(several: Several, negated: bool) -> Word:
    """Return the word by which the parts, or their complements, are joined."""
    return ("or" if several.word == "and" else "and") if negated else several.word


def _flat(where: Filter, negated: bool, word: Word) -> list[tuple[Filter, bool]]:
    """Return the parts that a word joins, through all levels with the same word, and whether each is negated."""
    if isinstance(where, Opposite):
        return _flat(where.part, not negated, word)
    if isinstance(where, Several) and _word(where, negated) == word:
        return [found for part in where.parts for found in _flat(part, negated, word)]
    return [(where, negated)]


def _condition(where: Within | OneOf | Containing | Missing, kind: AttributeType) -> str:
    field = field_of(where.name)
    if isinstance(where, Missing):
        return _missing(field, kind)
    if isinstance(where, Within):
        low, high = where.low, where.high
        if kind == "float":  # no literal is infinite, and the smallest float marks missing values
            low, high = max(float(low), MISSING_FLOAT), min(float(high), -MISSING_FLOAT)
            above = ">" if low == MISSING_FLOAT else ">="
            return f"{field} {above} {low!r} and {field} <= {high!r}" if low <= high else NO_RECORD
        return f"{field} >= {low} and {field} <= {high}" if low <= high else NO_RECORD
    values = sorted(where.values)
    if isinstance(where, OneOf):
        if kind == "float":  # a number too large for float64 is infinite, and no record has what marks missing values
            values = [value for value in values if MISSING_FLOAT < value <= -MISSING_FLOAT]
        return f"{field} in [{','.join(map(_literal, values))}]" if values else NO_RECORD
    values = [value for value in values if is_category(value)]  # no record has others; "" would match missing values
    if len(values) < len(where.values) and (where.every or not values):
        return NO_RECORD
    if not values:
        return f"not ({_missing(field, kind)})" if where.every else NO_RECORD
    return f"array_contains_{'all' if where.every else 'any'}({field}, [{','.join(map(_literal, values))}])"


def _missing(field: str, kind: AttributeType) -> str:
    if kind == "categories":
        return f'array_contains({field}, "")'
    if kind in ("int", "datetime"):  # servers cannot read the literal -2^63
        return f"{field} < {-LARGEST_INT}"
    return f"{field} in [{_literal({'bool': -1, 'category': ''}.get(kind, MISSING_FLOAT))}]"


def _literal(value: Any) -> str:
    """Return a value as the server reads it."""
    if isinstance(value, str):
        return '"' + "".join(_ESCAPES.get(letter, letter) for letter in value) + '"'
    return repr(int(value) if isinstance(value, bool) else value)
