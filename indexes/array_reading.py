"""Read arrays as callers have them: of numpy, tensors of torch, sparse matrices of scipy, lists of numbers or tensors.

Neither torch nor scipy is imported for that.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import InvalidEncodingsError


def array_given(name: str, value: Any, ndim: int | None) -> NDArray[Any]:
    """Read an array, or a tensor, of this number of dimensions; None for any.

    Raises:
        InvalidEncodingsError: it cannot be read, has masked values, or has other dimensions.
    """
    is_masked = _loaded("numpy.ma", "is_masked")
    if is_masked is not None and is_masked(value):
        raise InvalidEncodingsError(f"{name} have masked values, which no index can hold: fill or drop them")
    try:
        array = np.asarray(_readable(value))
        added = array.dtype.isbuiltin != 1  # a type that a package adds to numpy
        if added and array.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
            array = array.astype(np.float32)
    except Exception as error:  # what other libraries raise in `__array__`
        reason = str(error).partition("\n")[0]
        raise InvalidEncodingsError(f"{name} cannot be read as an array: {reason or type(error).__name__}") from None
    if ndim is not None and array.ndim != ndim:
        raise InvalidEncodingsError(f"{name} have shape {array.shape}, expected {ndim} dimension(s)")
    return array


def _loaded(module: str, name: str) -> Any:
    """Return an object of a module; None if the module was not imported, or another thread is importing it."""
    return getattr(sys.modules.get(module), name, None)


def _readable(value: Any) -> Any:
    """Return a tensor of torch, lists of them, or a sparse matrix of scipy as what numpy can read."""
    issparse, tensor = _loaded("scipy.sparse", "issparse"), _loaded("torch", "Tensor")
    if issparse is not None and issparse(value):
        return value.toarray()
    if tensor is None:
        return value
    torch = sys.modules["torch"]
    if isinstance(value, list | tuple) and _holds_tensors(value, tensor):
        parts = [np.asarray(_readable(part)) for part in value]
        if shapes := sorted({part.shape for part in parts[1:]} - {parts[0].shape}):
            raise ValueError(f"it is a list of tensors of shapes {parts[0].shape} and {shapes[0]}, expected one shape")
        return parts
    if not isinstance(value, tensor):
        return value
    value = value.detach()
    if value.layout != torch.strided:
        value = value.to_dense()
    if value.is_quantized:
        value = value.dequantize()
    value = value.cpu().resolve_conj().resolve_neg()
    if value.is_floating_point() and value.dtype not in (torch.float16, torch.float32, torch.float64):
        value = value.float()
    return value


def _holds_tensors(value: Any, kind: type) -> bool:
    """Return whether the first item of nested lists is a tensor."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, kind)
