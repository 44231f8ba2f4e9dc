"""`FunctionNetwork`: a function of the user's own as a network, named as module:function.

The function takes pixels (n, 3, size, size) uint8, a tensor on the device of the network, and returns logits (n, C), or
None if it has no classes, and features (n, D): tensors or arrays of real numbers.

Importing a module runs its code, so only networks that this account adopted are loaded, see `trusted_networks`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from semcut.connector.models.source import Source
from semcut.indexes.errors import CheckpointError, InvalidParameterError, SemcutError, shown


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
            CheckpointError: it cannot be imported, fails or returns something else.
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


def name_of(function: str | Callable[[torch.Tensor], Any]) -> str:
    """Return the name of a function, module:function.

    Args:
        function: the function, or its name.

    Raises:
        InvalidParameterError: the name is of another form, or leads to another function.
        CheckpointError: it cannot be imported.
    """
    name = function if isinstance(function, str) else f"{function.__module__}:{getattr(function, '__qualname__', '')}"
    FunctionNetwork(name)
    if not isinstance(function, str) and load_function(name) is not function:
        raise InvalidParameterError(f"function = {shown(function)}, expected one that {name} leads to again")
    return name


def load_function(name: str) -> Callable[[torch.Tensor], Any]:
    """Import a function by module:function.

    Raises:
        CheckpointError: it cannot be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # importing a module can raise anything
        raise CheckpointError(f"cannot import {name}: {type(error).__name__}: {shown(str(error))}") from error
    if not callable(found):
        raise CheckpointError(f"{name} is {shown(found)}, expected a function")
    function: Callable[[torch.Tensor], Any] = found
    return function
