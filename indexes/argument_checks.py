"""Checks of arguments that are no arrays: paths, text, numbers, callbacks, and objects of semcut.

Each returns its argument in the form that the caller uses, or raises `InvalidParameterError` with one sentence. The
modules that have the public functions call them first, before anything was changed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from semcut.indexes.errors import InvalidParameterError, shown

_T = TypeVar("_T")


def path_given(name: str, value: Any) -> Path:
    """Read a path: a string or an `os.PathLike` of one."""
    try:
        path = os.fspath(value)
    except TypeError:
        path = None
    if not isinstance(path, str) or not path:  # an empty one must not mean the current directory
        raise InvalidParameterError(f"{name} = {shown(value)}, expected a path: a string or a pathlib.Path")
    return Path(path)


def possible_path_given(name: str, value: Any) -> str:
    """Read a path as `path_given` does, and return it as it is written; refuse one that no file can have."""
    path_given(name, value)
    path = os.fspath(value)
    try:
        possible = path and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise InvalidParameterError(f"{name} = {shown(path)}, expected a path that a file can have")
    return str(path)


def text_given(name: str, value: Any) -> str:
    """Read a string that can be printed and stored: without half of a surrogate pair."""
    if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InvalidParameterError(f"{name} = {shown(value)}, expected a string that is valid text")
    return str(value)


def flag_given(name: str, value: Any) -> bool:
    """Read True or False, of Python or numpy."""
    if not isinstance(value, bool | np.bool_):
        raise InvalidParameterError(f"{name} = {shown(value)}, expected True or False")
    return bool(value)


def number_given(name: str, value: Any, least: float, most: float) -> float:
    """Read a number of Python or numpy from `least` to `most`, which a bool is not."""
    is_number = isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        raise InvalidParameterError(f"{name} = {shown(value)}, expected a number from {least} to {most}")
    return float(value)


def integer_given(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Read an integer of Python or numpy, which a bool is not."""
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidParameterError(f"{name} = {shown(value)}, expected an integer {span}")
    return int(value)


def instance_given(name: str, value: Any, kind: type[_T], advice: str = "") -> _T:
    """Check that an argument is of a class; the advice says how to make an instance."""
    if not isinstance(value, kind):
        end = f": {advice}" if advice else ""
        raise InvalidParameterError(f"{name} = {shown(value)}, expected an instance of {kind.__name__}{end}")
    return value


def callback_given(name: str, value: Any) -> None:
    """Check that an argument is None or can be called."""
    if value is not None and not callable(value):
        raise InvalidParameterError(f"{name} = {shown(value)}, expected a function or None")
