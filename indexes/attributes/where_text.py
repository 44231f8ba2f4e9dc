"""Filters as text, in the syntax of Milvus: `price < 20 and (camera in ["a", "b"] or not (stars >= 4))`.

    filter      comparison | filter and filter | filter or filter | not filter | ( filter )
    comparison  name == value        also != < <= > >=; the value may stand first, and a name between two values
                name in [value, ...]       also not in
                array_contains(name, value)
                array_contains_any(name, [value, ...])     also array_contains_all
                name is null         also is not null
    value       a number, "text" or 'text', true, false

`not` binds more tightly than `and`, and `and` more tightly than `or`. `&&`, `||` and `!` mean the same as the words. A
datetime is text: `taken >= "2024-05-01"`. The text is parsed, and never run as code.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, NoReturn, cast

from semcut.indexes.attributes.attribute_types import is_attribute_name
from semcut.indexes.attributes.expressions import (
    MAX_PARTS,
    Comparison,
    Condition,
    Expression,
    Joined,
    Negated,
    Operator,
)
from semcut.indexes.errors import InvalidParameterError, shown

MAX_CHARACTERS = 100_000
"""The longest text of a filter."""

_DEEPEST = 50
_MOST_DIGITS = 400  # of an integer
_TOKENS = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![A-Za-z0-9_.]))
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>==|!=|<=|>=|&&|\|\||[-<>!()\[\],=])
    |(?P<end>$)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
_WORDS = {"&&": "and", "||": "or", "!": "not"}
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


class _Token(NamedTuple):
    """A token: its kind ("number", "text", "word", "mark" or "end"), what it says, and where it begins."""

    kind: str
    value: Any
    place: int


def parsed(text: str) -> Expression:
    """Return the filter that a text describes.

    Raises:
        InvalidParameterError: the text is no filter; the message points at the place.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidParameterError(f"where has {len(text):,} characters, expected at most {MAX_CHARACTERS:,}")
    return _Parser(text).all()


def refuse_at(text: str, place: int, what: str) -> NoReturn:
    """Raise `InvalidParameterError` for a text; the message points at a place in it."""
    before, after = text[max(0, place - 40) : place], text[place : place + 40]
    context = f"{'...' if place > 40 else ''}{before}>>>{after}{'...' if place + 40 < len(text) else ''}"
    raise InvalidParameterError(f"where, at character {place + 1}: {what}: {' '.join(context.split())}")


class _Parser:
    """Reads a text from left to right; `_next` is the token that was not used yet."""

    def __init__(self, text: str) -> None:
        self._text, self._parts = text, 0
        self._tokens = self._read_tokens()
        self._at = 0

    def _read_tokens(self) -> list[_Token]:
        found, place = [], 0
        while True:
            match = _TOKENS.match(self._text, place)
            if match is None:
                left = self._text[place:].lstrip()
                start, quote = len(self._text) - len(left), left[0] in ("'", '"')
                self._refuse(
                    start, "a text without its closing quote" if quote else "no word, number or sign of filters"
                )
            kind = match.lastgroup or ""
            found.append(_Token(kind, _value_of(kind, match[kind]), match.start(kind)))
            if kind == "end":
                return found
            place = match.end()

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> _Token:
        token = self._next
        self._at += token.kind != "end"
        return token

    def _is(self, *values: str) -> bool:
        return self._next.kind in ("word", "mark") and _meaning(self._next) in values

    def _took(self, *values: str) -> bool:
        if self._is(*values):
            self._take()
            return True
        return False

    def _refuse(self, place: int, what: str) -> NoReturn:
        refuse_at(self._text, place, what)

    def _expect(self, mark: str) -> None:
        if not self._took(mark):
            self._unexpected(f"{mark!r}")

    def _unexpected(self, expected: str) -> NoReturn:
        token = self._next
        found = "the end" if token.kind == "end" else shown(token.value)
        self._refuse(token.place, f"expected {expected}, found {found}")

    def all(self) -> Expression:
        """Read the whole text."""
        expression = self._or(0)
        if self._next.kind != "end":
            self._unexpected("and, or, or the end")
        return expression

    def _or(self, depth: int) -> Expression:
        return self._joined("or", depth)

    def _joined(self, word: Any, depth: int) -> Expression:
        parts = [self._joined("and", depth) if word == "or" else self._not(depth)]
        while self._took(word):
            parts.append(self._joined("and", depth) if word == "or" else self._not(depth))
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _not(self, depth: int) -> Expression:
        if depth > _DEEPEST:
            self._refuse(self._next.place, f"brackets or not, more than {_DEEPEST} deep")
        if self._took("not"):
            return Negated(self._not(depth + 1))
        if self._took("("):
            inner = self._or(depth + 1)
            self._expect(")")
            return inner
        return self._condition()

    def _condition(self) -> Expression:
        self._parts += 1
        if self._parts > MAX_PARTS:
            self._refuse(self._next.place, f"more than {MAX_PARTS:,} comparisons")
        place = self._next.place
        if self._is("array_contains", "array_contains_any", "array_contains_all"):
            operator = cast(Operator, _meaning(self._take()).removeprefix("array_"))
            self._expect("(")
            name = self._name()
            self._expect(",")
            operand = self._constant() if operator == "contains" else self._list()
            self._expect(")")
            return Condition(name, operator, operand, place)
        if self._next.kind == "word" and not self._is("true", "false"):
            return self._named(place)
        return self._value_first(place)

    def _named(self, place: int) -> Expression:
        name = self._name()
        if self._took("is"):
            negated = self._took("not")
            self._expect("null")
            missing = Condition(name, "null", None, place)
            return Negated(missing) if negated else missing
        if self._took("not"):
            self._expect("in")
            return Joined("and", (Negated(Condition(name, "null", None, place)), Negated(self._in(name, place))))
        if self._took("in"):
            return self._in(name, place)
        return Condition(name, self._comparison(), self._constant(), place)

    def _in(self, name: str, place: int) -> Condition:
        return Condition(name, "in", self._list(), place)

    def _value_first(self, place: int) -> Expression:
        """Read `20 > price`, and `10 < price < 20`."""
        value, operator = self._constant(), self._comparison()
        name = self._name()
        first = Condition(name, cast(Operator, _TURNED.get(operator, operator)), value, place)
        if not self._is(*_COMPARISONS):
            return first
        return Joined("and", (first, Condition(name, self._comparison(), self._constant(), place)))

    def _comparison(self) -> Comparison:
        if not self._is(*_COMPARISONS):
            hint = " (== compares)" if self._text[self._next.place : self._next.place + 1] == "=" else ""
            self._unexpected(f"a comparison such as == or <{hint}")
        return cast(Comparison, self._take().value)

    def _name(self) -> str:
        if self._next.kind != "word" or not is_attribute_name(self._next.value):
            self._unexpected("the name of an attribute")
        return str(self._take().value)

    def _constant(self) -> Any:
        if self._next.kind in ("number", "text"):
            return self._take().value
        if self._is("true", "false"):
            return _meaning(self._take()) == "true"
        return self._unexpected("a number, text in quotes, true or false")

    def _list(self) -> tuple[Any, ...]:
        self._expect("[")
        values: list[Any] = []
        while not self._took("]"):
            if values:
                self._expect(",")
            values.append(self._constant())
            if len(values) > MAX_PARTS:
                self._refuse(self._next.place, f"more than {MAX_PARTS:,} values")
        return tuple(values)


def _meaning(token: _Token) -> str:
    """Return a word in lower case, and a mark that stands for a word as this word."""
    return str(_WORDS.get(token.value, token.value.lower()))


def _value_of(kind: str, text: str) -> Any:
    if kind == "number":
        if re.search(r"[.eE]", text):
            return float(text)
        digits = text.lstrip("+-").lstrip("0")
        if len(digits) > _MOST_DIGITS:  # larger than every value, as is 10 ** _MOST_DIGITS
            digits = "1" + "0" * _MOST_DIGITS
        return -int(digits or "0") if text.startswith("-") else int(digits or "0")
    if kind == "text":
        return re.sub(r"\\(.)", lambda match: _ESCAPED.get(match[1], match[1]), text[1:-1], flags=re.DOTALL)
    return text
