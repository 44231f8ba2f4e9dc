"""How functions are compiled, and the processor instructions that numba has no name for.

numba looks only at the file of a function to see whether what it has kept is still good, but other functions and
constants are compiled into it. So all kernels of this package count as changed when any of its files is, or one of
those that it takes constants from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T", bound=np.generic)

_HERE = Path(__file__).parent
_CONSTANTS = ("compare.py", "encodings.py", "partitions.py", "reach.py", "ties.py")
_FILES = (*sorted(_HERE.glob("*.py")), *(_HERE.parent / name for name in _CONSTANTS))
_SOURCES = hashlib.sha256(b"".join(file.read_bytes() for file in _FILES)).hexdigest()


def frozen(array: NDArray[_T]) -> NDArray[_T]:
    """A view that cannot be written to. Kernels are compiled anew for every combination of arrays that can and that
    cannot; so whatever comes from outside is passed like this."""
    view = array.view()
    view.flags.writeable = False
    return view


def kernel(function: _F) -> _F:
    """Compile what Python calls, without the interpreter's lock, so that threads run side by side; and keep the result
    on the disk."""
    return _compiled(function, no_cpython_wrapper=False)


def compiled(function: _F) -> _F:
    """Compile what only other compiled functions call: to call it from Python would end the process."""
    return _compiled(function)


def compiled_sum(function: _F) -> _F:
    """As `compiled`, for sums whose terms may be added in any order, several at a time."""
    return _compiled(function, fastmath={"reassoc", "contract", "nsz"})


def _compiled(function: _F, **options: Any) -> _F:
    options = {
        "nogil": True,
        "error_model": "numpy",
        "no_cpython_wrapper": True,  # each takes time to compile
        "no_cfunc_wrapper": True,
        **options,
    }
    try:
        kept = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no directory where it could be kept
        made: _F = numba.njit(**options)(function)
        return made
    kept._cache._cache_file._source_stamp = _SOURCES
    return cast(_F, kept)


def _popcount(typing_context: Any, word: Any) -> Any:
    """Bits that are set in a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


def _trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Zeros below the lowest bit that is set in a uint64, which is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], cgutils.true_bit)

    return types.uint64(types.uint64), generate


def _prefetch(typing_context: Any, array: Any, place: Any) -> Any:
    """Ask for the cache line of an entry of a vector, or of the first one of a row of a matrix, before it is needed."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, made.strides)[0]  # type: ignore[no-untyped-call]
        _ask(builder, made.data, builder.mul(arguments[1], stride))
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def _prefetch_at(typing_context: Any, matrix: Any, row: Any, column: Any) -> Any:
    """Ask for the cache line of an entry of a matrix before it is needed."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        strides = cgutils.unpack_tuple(builder, made.strides)  # type: ignore[no-untyped-call]
        offset = builder.add(builder.mul(arguments[1], strides[0]), builder.mul(arguments[2], strides[1]))
        _ask(builder, made.data, offset)
        return context.get_dummy_value()

    return types.void(matrix, types.int64, types.int64), generate


def _ask(builder: Any, data: Any, offset: Any) -> None:
    address = builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [offset])
    integer = ir.IntType(32)
    function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module,
        ir.FunctionType(ir.VoidType(), [address.type, integer, integer, integer]),
        "llvm.prefetch.p0",
    )
    builder.call(function, [address, integer(0), integer(3), integer(1)])  # to read, often, data


popcount: Any = intrinsic(_popcount)
trailing_zeros: Any = intrinsic(_trailing_zeros)
prefetch: Any = intrinsic(_prefetch)
prefetch_at: Any = intrinsic(_prefetch_at)
