"""Run an outline of a network, to find the shapes of its layers' outputs.

The tensors of an outline are on the device "meta": they have shapes and no content. The first computation there makes
torch import sympy and its compiler, which takes more than a second, for every command that opens a network. So the
network is run on no image at all, with weights that are one zero each, repeated without memory; only convolutions would
copy them, so their shapes are computed here. A layer that cannot take no image gets one of zeros, and where a layer
does not take that either, the outline is run on "meta".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call


def outputs_of(net: nn.Module, shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> Any:
    """Return the outputs of an outline, whose first length is 0 or 1; hooks of its layers see the same.

    Args:
        net: the outline, in evaluation mode.
        shape: channels, height and width of an image.
        dtype: of an image.

    Raises:
        RuntimeError, AssertionError, ValueError: the network cannot take images of this shape.
    """
    tensors = dict(net.named_parameters()) | dict(net.named_buffers())
    zeros = {name: torch.zeros((), dtype=one.dtype, device="cpu").expand(one.shape) for name, one in tensors.items()}
    for images in (0, 1):
        with suppress(RuntimeError, AssertionError, ValueError), torch.device("cpu"), _light_convolutions(net):
            return functional_call(net, zeros, (torch.zeros((images, *shape), dtype=dtype),))
    with torch.device("meta"):
        return net(torch.empty((1, *shape), dtype=dtype))


@contextmanager
def _light_convolutions(net: nn.Module) -> Iterator[None]:
    """During the block, the plain convolutions of a network return tensors of the right shape, without content."""
    layers = [
        layer for layer in net.modules() if isinstance(layer, nn.Conv2d) and type(layer).forward is nn.Conv2d.forward
    ]
    try:
        for layer in layers:
            layer.__dict__["forward"] = partial(_convolved, layer)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _convolved(layer: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    size = [*images.shape[2:]]
    if layer.padding != "same":
        padding = (0, 0) if isinstance(layer.padding, str) else layer.padding
        shape = zip(size, padding, layer.dilation, layer.kernel_size, layer.stride, strict=True)
        size = [(side + 2 * pad - gap * (kernel - 1) - 1) // stride + 1 for side, pad, gap, kernel, stride in shape]
    if min(size) < 1 or images.shape[1] != layer.in_channels:
        raise ValueError(f"a convolution of {layer.kernel_size} cannot take {tuple(images.shape[1:])}")
    return images.new_empty((len(images), layer.out_channels, *size))
