"""Checks of arguments that are no arrays: paths, numbers, callbacks, and objects of semcut.

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
    if not isinstance(path, str):
        raise InvalidParameterError(f"{name} = {shown(value)}, expected a path")
    return Path(path)


def integer_given(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Read an integer of Python or numpy, which a bool is not."""
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidParameterError(f"{name} = {shown(value)}, expected an integer {span}")
    return int(value)


def instance_given(name: str, value: Any, kind: type[_T]) -> _T:
    """Check that an argument is of a class of semcut."""
    if not isinstance(value, kind):
        raise InvalidParameterError(f"{name} = {shown(value)}, expected an instance of {kind.__name__}")
    return value


def callback_given(name: str, value: Any) -> None:
    """Check that an argument is None or can be called."""
    if value is not None and not callable(value):
        raise InvalidParameterError(f"{name} = {shown(value)}, expected a function or None")
