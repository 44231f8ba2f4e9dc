"""What one image costs in a network that comes from outside: found without memory, and refused beyond a limit.

A few bytes of settings can describe a network of few weights that compares a million pixels with each other. So its
operations are followed with tensors that have shapes and no content, before it is run. Networks of torchvision and
EfficientNet-Lite are of known sizes, and are not followed: the first tensor without content takes torch a second.
"""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from semcut.connector.models.call_limits import CallLimits
from semcut.connector.models.convolution_workspace import convolution_workspace
from semcut.indexes.errors import CheckpointError, SemcutError

_BYTES, _MULTIPLICATIONS, _AT_ONCE, _OPERATIONS = 3 << 30, 4 * 10**12, 2 * 10**11, 200_000
"""Limits for one image: memory, all multiplications, those of an operation, and operations.

The largest of timm, for images of 1,024 pixels, takes 2.2 GB and 1.3e12. Ctrl-C waits for the end of an operation.
"""
_SECONDS = 60
"""Processor time to follow the operations."""
_CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten._convolution)


def image_bytes(network: nn.Module, size: int) -> int:
    """Return the memory that one image takes while a network runs, without the weights.

    Args:
        network: the network, or its outline, in evaluation mode.
        size: pixels per side of the image.

    Raises:
        CheckpointError: an image takes more memory or time than any network needs; the network cannot take images of
            this size; or what it computes cannot be known before it runs.
    """
    tensors = dict(network.named_parameters()) | dict(network.named_buffers())
    limits = CallLimits(
        _SECONDS,
        "to follow an image through the network takes more than {}: its settings or its image size are too large",
    )
    meter = _Meter(limits)
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            image = torch.empty((1, 3, size, size), device="cpu")
            known = {name: torch.empty(one.shape, dtype=one.dtype, device="cpu") for name, one in tensors.items()}
            kept = {
                name: known[name] if one.is_meta or one.is_floating_point() else one for name, one in tensors.items()
            }
            meter.leave_out([image, *kept.values()])
            with meter:
                limits.run(lambda: functional_call(network, kept, (image,)))
    except SemcutError:
        raise
    except Exception as error:  # networks and torch raise errors of many types
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the network cannot take images of {size} pixels: give its image size ({reason})"
        ) from None
    return meter.most


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # in torch itself
    """Follows the operations of a block; the tensors have no content.

    Attributes:
        most: bytes of all tensors that existed at once, and of what an operation takes beside them.
    """

    def __init__(self, limits: CallLimits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._limits = limits
        self.most = self._bytes = self._multiplications = self._operations = 0
        self._storages: dict[int, Any] = {}

    def leave_out(self, tensors: list[torch.Tensor]) -> None:
        """Count no bytes of these tensors."""
        for one in tensors:
            storage = one.untyped_storage()
            self._storages[storage._cdata] = storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._limits.check()
        kwargs = kwargs or {}
        if func._overloadpacket not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        found = func(*args, **kwargs)
        several = found if isinstance(found, tuple | list) else (found,)
        tensors = [one for one in several if isinstance(one, torch.Tensor)]
        for one in tensors:
            self._add(one.untyped_storage())
        if func._overloadpacket in _CONVOLUTIONS:
            self._look(convolution_workspace(found, *args, **kwargs))
        self._count(_multiplications(func, args, kwargs, found, tensors))
        return found

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def gone(_: Any) -> None:
            del self._storages[key]
            self._bytes -= size

        self._storages[key] = weakref.ref(storage, gone)
        self._bytes += size
        self._look()

    def _look(self, workspace: int = 0) -> None:
        self.most = max(self.most, self._bytes + workspace)
        if self.most > _BYTES:
            raise CheckpointError(
                f"an image takes more than {_BYTES >> 20:,} MiB of memory in the network: its settings or its image "
                "size are too large"
            )

    def _count(self, multiplications: int) -> None:
        self._operations += 1
        self._multiplications += multiplications
        if self._operations > _OPERATIONS or self._multiplications > _MULTIPLICATIONS or multiplications > _AT_ONCE:
            raise CheckpointError(
                f"an image takes more than {_MULTIPLICATIONS:.0e} multiplications in the network, {_AT_ONCE:.0e} in "
                f"one operation, or {_OPERATIONS:,} operations: its settings or its image size are too large"
            )


def _multiplications(func: Any, args: Any, kwargs: Any, found: Any, tensors: list[torch.Tensor]) -> int:
    """Return about how many multiplications an operation takes; one for each number where that is not known."""
    packet = func._overloadpacket
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=found)) // 2
    numbers = max((one.numel() for one in tensors), default=0)
    name = packet.__name__
    if "scaled_dot_product" in name:
        queries, keys, values = args[:3]
        return int(math.prod(queries.shape[:-1]) * keys.shape[-2] * (queries.shape[-1] + values.shape[-1]))
    if "cdist" in name:
        return numbers * int(args[0].shape[-1])
    if "pool" in name and "adaptive" not in name and len(args) > 1:
        window = args[1] if isinstance(args[1], tuple | list) else (args[1],) * 2
        return numbers * int(math.prod(window))
    return max([numbers, *(one.numel() for one in args if isinstance(one, torch.Tensor))])
