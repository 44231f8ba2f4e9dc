"""Limits for building an outline of a network from a description that comes from outside.

A setting can count layers under any name, and layers of layers, so what is built is counted: the layers and their
tensors. Between two of them, the processor time is looked at; `CallLimits` ends a loop that builds nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.nn.modules import module
from torch.utils.hooks import RemovableHandle

from semcut.connector.models.call_limits import CallLimits
from semcut.indexes.errors import CheckpointError

_T = TypeVar("_T")
_PARTS, _SECONDS = 20_000, 60
"""Layers and tensors of a network, where the largest of timm have about 5,000; and processor time to build it."""


class OutlineLimits:
    """Counts what is built during a block by the thread that entered it, if that builds an outline.

    Raises:
        CheckpointError: a network has more parts than any needs, or takes too long to build.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._parts, self._thread = 0, 0
        self._limits: CallLimits | None = None

    def __enter__(self) -> OutlineLimits:
        if torch.get_default_device().type == "meta":
            self._thread = threading.get_ident()
            self._limits = CallLimits(_SECONDS, "the network takes more than {} to build: it is described wrongly")
            self._handles = [
                module.register_module_module_registration_hook(self._count),
                module.register_module_parameter_registration_hook(self._count),
                module.register_module_buffer_registration_hook(self._count),
            ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def run(self, call: Callable[[], _T]) -> _T:
        """Return what a call of this thread returns, which may loop for ever.

        Raises:
            CheckpointError: as above.
        """
        return call() if self._limits is None else self._limits.run(call)

    def _count(self, parent: Any, name: str, part: Any) -> None:
        if threading.get_ident() != self._thread:  # the hooks are those of all threads
            return
        self._parts += 1
        if self._parts > _PARTS:
            raise CheckpointError(f"it has more than {_PARTS:,} layers and tensors: it is described wrongly")
        if self._limits is not None:
            self._limits.check()
