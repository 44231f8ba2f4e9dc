"""Random filters, as expressions and as functions that say what they mean, record by record."""

from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from semcut.indexes import Expression, attribute

Meaning = Callable[[dict[str, Any]], bool]
"""Whether a record, given as its attributes, matches."""

COMPARISONS = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
FIRST = datetime(2020, 2, 28, 23, tzinfo=timezone.utc)
NUMBERS = {
    "price": [0.0, 1.5, 20, 21.5, -1e300, 5e-324, 10**400, -3],
    "stars": [0, 1, 2.5, 3, -5, 2**63 - 1, 2**63, -(2**70), 1e300],
    "taken": [FIRST, FIRST + timedelta(hours=5), datetime(1, 1, 1), datetime(2020, 2, 29, 23)],
}
TEXTS = {"camera": ["a", "b", '\u00e9 "x"\n', "c"], "tags": ["sea", "sun", "a\\b", "sand"]}


def _utc(value: Any) -> Any:
    return value.replace(tzinfo=timezone.utc) if isinstance(value, datetime) and value.tzinfo is None else value


def _unless_missing(name: str, holds: Callable[[Any], bool]) -> Meaning:
    return lambda record: record[name] is not None and holds(record[name])


@st.composite
def conditions(draw: st.DrawFn) -> tuple[Expression, Meaning]:
    """Draw one comparison of an attribute of `generate.ATTRIBUTES`."""
    name = draw(st.sampled_from(["price", "stars", "taken", "camera", "tags", "sold", "missing"]))
    if name == "missing":
        name = draw(st.sampled_from(["price", "stars", "taken", "camera", "tags", "sold"]))
        return attribute(name).is_missing(), lambda record: record[name] is None
    if name == "tags":
        values = draw(st.lists(st.sampled_from(TEXTS["tags"]), max_size=3))
        kind = draw(st.sampled_from(["contains", "any", "all"]))
        if kind == "contains":
            value = draw(st.sampled_from(TEXTS["tags"]))
            return attribute(name).contains(value), _unless_missing(name, lambda found: value in found)
        if kind == "any":
            any_of = attribute(name).contains_any(values)
            return any_of, _unless_missing(name, lambda found: any(each in found for each in values))
        all_of = attribute(name).contains_all(values)
        return all_of, _unless_missing(name, lambda found: all(each in found for each in values))
    values = {**NUMBERS, **TEXTS, "sold": [True, False]}[name]
    if draw(st.booleans()):
        some = draw(st.lists(st.sampled_from(values), max_size=3))
        wanted = [_utc(value) for value in some]
        return attribute(name).isin(some), _unless_missing(name, lambda found: found in wanted)
    ordered = name in NUMBERS
    sign = draw(st.sampled_from([*COMPARISONS] if ordered else ["==", "!="]))
    value = draw(st.sampled_from(values))
    compare = COMPARISONS[sign]
    return compare(attribute(name), value), _unless_missing(name, lambda found: compare(found, _utc(value)))


def filters() -> st.SearchStrategy[tuple[Expression, Meaning]]:
    """Draw filters of any form."""

    def joined(inner: st.SearchStrategy[tuple[Expression, Meaning]]) -> st.SearchStrategy[tuple[Expression, Meaning]]:
        pairs = st.tuples(inner, inner)
        return st.one_of(
            pairs.map(lambda two: (two[0][0] & two[1][0], lambda record: two[0][1](record) and two[1][1](record))),
            pairs.map(lambda two: (two[0][0] | two[1][0], lambda record: two[0][1](record) or two[1][1](record))),
            inner.map(lambda one: (~one[0], lambda record: not one[1](record))),
        )

    return st.recursive(conditions(), joined, max_leaves=6)
