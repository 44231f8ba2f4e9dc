"""`FunctionNetwork`: a function of the user's own as a network, named as module:function.

The function takes pixels (n, 3, size, size) uint8, a tensor on the device of the network, and returns logits (n, C), or
None if it has no classes, and features (n, D): tensors or arrays of real numbers.

Importing a module runs its code, and a description of a network can come from anyone. So a function is only called if
the environment variable SEMCUT_FUNCTIONS names it (several are separated by commas), or if this process adopted it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from semcut.connector.models.source import Source
from semcut.indexes.errors import CheckpointError, InvalidParameterError, SemcutError, shown

ALLOWED = "SEMCUT_FUNCTIONS"
"""The environment variable that names the functions that may be called."""
_trusted: set[str] = set()
"""Names of the functions that this process adopted."""


class FunctionNetwork(Source):
    """A function as a network.

    Args:
        name: module:function; imported when it is first called.

    Raises:
        InvalidParameterError: the name is of another form.
    """

    takes_pixels = True

    def __init__(self, name: str) -> None:
        super().__init__()
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
            raise InvalidParameterError(f"function = {shown(name)}, expected module:function, such as my_net:encode")
        self.name = name
        self._function: Callable[[torch.Tensor], Any] | None = None

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Call the function.

        Raises:
            CheckpointError: it may not be called, cannot be imported, fails or returns something else.
        """
        if self._function is None:
            self._function = load_function(self.name)
        try:
            answer = self._function(images)
        except SemcutError:
            raise
        except Exception as error:
            raise CheckpointError(f"{self.name} failed: {type(error).__name__}: {shown(str(error))}") from error
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise CheckpointError(f"{self.name} returned {shown(answer)}, expected logits, or None, and features")
        logits, features = answer
        if logits is None:
            logits = images.new_empty((len(images), 0), dtype=torch.float32)
        try:
            found = tuple(torch.as_tensor(one, device=images.device).detach() for one in (logits, features))
        except (TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.name} returned something else than two arrays: {error}") from None
        for what, one in zip(("logits", "features"), found, strict=True):
            if one.ndim != 2 or len(one) != len(images) or one.is_complex() or one.dtype == torch.bool:
                raise CheckpointError(
                    f"{self.name} returned {what} of {one.dtype} and shape {tuple(one.shape)}, expected "
                    f"real numbers of shape ({len(images)}, n)"
                )
        return found[0].float(), found[1].float()


def load_function(name: str) -> Callable[[torch.Tensor], Any]:
    """Import a function by module:function, if the environment allows it.

    Raises:
        CheckpointError: the environment does not name it, or it cannot be imported.
    """
    if name not in _trusted and name not in os.environ.get(ALLOWED, "").split(","):
        raise CheckpointError(
            f"this network is the function {name}, whose code would run: if you trust it, set {ALLOWED}={name}"
        )
    return _imported(name)


def trust_function(function: str | Callable[[torch.Tensor], Any]) -> str:
    """Allow this process to call a function as a network, and return its name, module:function.

    Args:
        function: the function, or its name.

    Raises:
        InvalidParameterError: the name is of another form, or leads to another function.
        CheckpointError: it cannot be imported.
    """
    name = function if isinstance(function, str) else f"{function.__module__}:{getattr(function, '__qualname__', '')}"
    FunctionNetwork(name)
    if not isinstance(function, str) and _imported(name) is not function:
        raise InvalidParameterError(f"function = {shown(function)}, expected one that {name} leads to again")
    _trusted.add(name)
    return name


def _imported(name: str) -> Callable[[torch.Tensor], Any]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # importing a module can raise anything
        raise CheckpointError(f"cannot import {name}: {type(error).__name__}: {shown(str(error))}") from error
    if not callable(found):
        raise CheckpointError(f"{name} is {shown(found)}, expected a function")
    function: Callable[[torch.Tensor], Any] = found
    return function
