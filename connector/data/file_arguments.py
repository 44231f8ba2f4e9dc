"""Checks of arguments that name files and folders, as callers of the public functions give them.

Each returns its argument in the form that the caller uses, or raises an error with one sentence. Files are named by
strings or paths (`os.PathLike`), and are kept as strings, because they become the uris of records. None of
these functions needs Pillow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from semcut.indexes.argument_checks import possible_path_given
from semcut.indexes.errors import DataError, shown


def files_given(name: str, value: Any) -> list[str]:
    """Read the paths of files: any iterable, which is read once; whether there are such files is not checked.

    Raises:
        DataError: it is one file, is not iterable, or holds something else than paths.
    """
    items = items_given(name, value, "file", "files")
    files = [item if type(item) is str else path_text(item) for item in items]
    for place, file in enumerate(files):
        if file is None:
            raise DataError(
                f"{name}[{place}] = {shown(items[place])}, expected the path of a file: a string or a pathlib.Path"
            )
    return files  # type: ignore[return-value]


def items_given(name: str, value: Any, one: str, many: str) -> list[Any]:
    """Read any iterable but a text, a path or a dictionary.

    Args:
        name, value: the argument.
        one, many: what an item is called, and several.

    Raises:
        DataError: it is something else.
    """
    if isinstance(value, str | bytes | os.PathLike):
        raise DataError(f"{name} = {shown(value)}: got one {one}, expected a list of {many}: put it in brackets")
    if isinstance(value, Mapping):
        raise DataError(f"{name} = {shown(value)}, expected a list of {many}, not a {type(value).__name__}")
    try:
        iterator = iter(value)
    except Exception:  # what other libraries raise for what is no sequence
        raise DataError(f"{name} = {shown(value)}, expected a list of {many}") from None
    return list(iterator)


def path_text(item: Any) -> str | None:
    """Return a path as a string, None for something else."""
    try:
        path = os.fspath(item)
    except TypeError:
        return None
    return str(path) if isinstance(path, str) else None


def roots_given(name: str, value: Any) -> tuple[str, ...]:
    """Read the paths of folders.

    Raises:
        DataError: it is no list of paths.
        InvalidParameterError: no folder can have one of the paths.
    """
    return tuple(
        possible_path_given(f"{name}[{place}]", root)
        for place, root in enumerate(items_given(name, value, "folder", "folders"))
    )
