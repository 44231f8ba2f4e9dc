"""What a convolution takes on a CPU beside its tensors: some ways of torch write out the inputs of every output first.

oneDNN computes most convolutions in place. Those of one small image, and of other types of numbers, are computed by
torch itself, which makes one matrix of all inputs of all outputs. Padding makes that as large as one likes.
"""

from __future__ import annotations

import math
from typing import Any

import torch


def convolution_workspace(
    found: torch.Tensor,
    images: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    *_: Any,
) -> int:
    """Return the bytes that `torch.convolution` with these arguments takes beside them and its result.

    Args:
        found: its result; no tensor needs content.
    """
    backend = _backend(images, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
    side = math.prod(weight.shape[2:])
    points = side == 1 and set(stride) == {1} and not transposed  # with one thread, torch itself computes these
    if backend is not None and not backend.startswith("Slow") and not points:
        return 0
    if transposed:
        numbers = images.shape[0] * weight.shape[1] * side * math.prod(images.shape[2:])
    elif points and set(padding) == {0}:
        numbers = 0  # the input is the matrix
    else:
        count = 1 if backend is not None and "Dilated" in backend else images.shape[0]
        numbers = count * weight.shape[1] * side * math.prod(found.shape[2:])
    return int(numbers * images.itemsize)


_select_conv_backend: Any = getattr(torch._C, "_select_conv_backend", None)


def _backend(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *how: Any) -> str | None:
    """Return which way torch chooses; None if it does not say, in another version of torch."""
    try:
        return str(_select_conv_backend(images, weight, bias, *how).name)
    except TypeError:
        return None
