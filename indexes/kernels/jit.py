"""How functions are compiled and where they are kept, and the processor instructions that numba has no name for.

numba looks only at the file of a function to see whether what it has kept is still good, but other functions and
constants are compiled into it. So all kernels of this package are kept in a directory that `kernel_cache` names after
all that they depend on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator
from numba.extending import intrinsic
from numpy.typing import NDArray

from semcut.indexes.errors import StorageError
from semcut.indexes.kernels import kernel_cache

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T", bound=np.generic)

FOLDER = kernel_cache.found() or kernel_cache.target()
"""Where kernels are kept, None if nowhere."""

KERNELS: list[Any] = []
"""All functions that Python calls, of the modules of this package that were imported."""


class _Locator(_CacheLocator):
    """Tells numba the directory; what is not ready in one that cannot be written to is compiled and not kept."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func)

    def ensure_cache_path(self) -> None:
        pass

    def get_cache_path(self) -> str:
        return str(FOLDER)

    def get_source_stamp(self) -> str:
        return kernel_cache.digest()

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Implementation(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # type: ignore[list-item]  # noqa: RUF012


class _Cache(FunctionCache):
    _impl_class = _Implementation

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def files() -> list[Path]:
    """The files in which numba has kept all kernels.

    Raises:
        StorageError: a kernel is not kept there, since it was never called, or the disk refused.
    """
    found = []
    for each in KERNELS:
        kept = each._cache._cache_file
        names = set(kept._load_index().values())
        if len(names) < max(1, len(each.signatures)):
            raise StorageError(f"{each.py_func.__qualname__} is not among the kernels in {FOLDER}: is the disk full?")
        found += [Path(kept._index_path), *(Path(kept._data_path(name)) for name in names)]
    return found


def frozen(array: NDArray[_T]) -> NDArray[_T]:
    """A view that cannot be written to. Kernels are compiled anew for every combination of arrays that can and that
    cannot; so whatever comes from outside is passed like this."""
    view = array.view()
    view.flags.writeable = False
    return view


def kernel(function: _F) -> _F:
    """Compile what Python calls, without the interpreter's lock, so that threads run side by side; and keep the result
    on the disk."""
    made = _compiled(function, no_cpython_wrapper=False)
    KERNELS.append(made)
    return made


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
    made: Any = numba.njit(**options)(function)
    if FOLDER is not None:
        made._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return cast(_F, made)


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
