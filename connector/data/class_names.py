"""Check the names of classes: what a network can have, a file of a model can store, and a page can show.

Works without Pillow and torch, because descriptions of networks are read without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from semcut.indexes.errors import InvalidParameterError, shown

MAX_CLASSES, MAX_NAME = 10_000, 1_000
"""The largest number of classes of a network, and the largest number of characters of the name of one."""


def classes_given(name: str, value: Any, *, least: int = 1) -> tuple[str, ...]:
    """Read the names of classes, in order of their labels.

    Raises:
        InvalidParameterError: it is no list of different names, or has too few or too many of them.
    """
    ordered = isinstance(value, Iterable) and not isinstance(value, str | bytes | set | frozenset | Mapping)
    try:
        names = tuple(value) if ordered else None
    except Exception:  # as in `_items`
        names = None
    if names is None:
        raise InvalidParameterError(f"{name} = {shown(value)}, expected a list of names")
    if wrong := [place for place, one in enumerate(names) if not is_class_name(one)]:
        raise InvalidParameterError(
            f"{name}[{wrong[0]}] = {shown(names[wrong[0]])}, expected a name of 1 to {MAX_NAME:,} characters that is "
            "valid text"
        )
    if not least <= len(names) <= MAX_CLASSES:
        raise InvalidParameterError(
            f"{name} = {shown(value)}: {len(names):,} names, expected {least:,} to {MAX_CLASSES:,}"
        )
    if len(set(names)) < len(names):
        twice = next(one for place, one in enumerate(names) if one in names[:place])
        raise InvalidParameterError(f"{name} = {shown(value)}: {shown(twice)} stands twice, expected different names")
    return tuple(map(str, names))


def is_class_name(name: Any) -> bool:
    """Check the name of a class; one with half of a surrogate pair could be neither printed nor sent."""
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME and not any("\ud800" <= one <= "\udfff" for one in name)


def label_names(label: Any, several: Any) -> tuple[tuple[str, ...], str | None]:
    """Read the labels that a data set gives an image in its columns `label` and `labels`.

    Args:
        label: a text or an integer; None and "" are no label.
        several: a list of texts and integers, or a text in which `;` separates them; None for no labels.

    Returns:
        The different labels, that of `label` first, and what is wrong with them; None if nothing is.
    """
    if isinstance(several, str):
        several = [part.strip() for part in several.split(";") if part.strip()]
    single = () if label is None or label == "" else (("label", label),)
    texts: dict[str, None] = {}
    for column, value in (*single, *(("labels", one) for one in several or ())):
        text = str(value) if type(value) is int and abs(value) < 2**64 else value
        if not is_class_name(text):
            expected = f"text of 1 to {MAX_NAME:,} characters or an integer"
            return (), f"column {column} has {shown(value)}, expected {expected}"
        texts[text] = None
    if len(texts) > MAX_CLASSES:
        return (), f"column labels has {len(texts):,} labels, expected at most {MAX_CLASSES:,}"
    return tuple(texts), None
