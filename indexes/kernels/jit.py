"""Compile functions with numba, cache the compiled code, and define processor instructions that numba does not have.

Numba takes its cached code of a function for valid as long as the source file of the function is unchanged. But
functions and constants from other files are compiled into the same code. So the kernels of this package are stored in a
directory whose name, given by `kernel_cache`, is a digest of everything that they depend on.

This is the only module of `indexes` that imports numba. It uses private parts of numba, listed in `PRIVATE_PARTS`,
which may change in any version. `NUMBA_TESTED` has the versions with which the kernels were tested. A test compares
both with the installed numba.

Source: numba/core/caching.py for the cache, numba/core/cgutils.py and the LLVM language reference for the instructions.
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

NUMBA_TESTED = ((0, 62), (0, 68))
"""The oldest and the newest version of numba with which the kernels were tested. The oldest is the minimum in
pyproject.toml; raise the newest after all tests have passed with a newer numba."""

PRIVATE_PARTS = {
    "numba.core.caching": (
        "CompileResultCacheImpl._locator_classes",
        "FunctionCache._impl_class",
        "FunctionCache.save_overload",
        "_CacheLocator.ensure_cache_path",
        "_CacheLocator.from_function",
        "_CacheLocator.get_cache_path",
        "_CacheLocator.get_disambiguator",
        "_CacheLocator.get_source_stamp",
        "IndexDataCacheFile._data_path",
        "IndexDataCacheFile._load_index",
    ),
    "numba.core.cgutils": ("get_or_insert_function", "true_bit", "unpack_tuple"),
}
"""The private names of numba that this module uses, by module. Three more exist on instances only: `_cache` of a
compiled function, `_cache_file` of this cache, and `_index_path` of this file."""

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T", bound=np.generic)

DIRECTORY = kernel_cache.ready_directory() or kernel_cache.writable_directory()
"""The directory of compiled kernels, None if no directory can be written to."""

KERNELS: list[Any] = []
"""All kernels that Python calls, of the modules that were imported so far."""


class _Locator(_CacheLocator):
    """Makes numba store its files in `DIRECTORY`.

    If the directory cannot be written to, a kernel that is missing there is compiled but not stored.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._line = function.__code__.co_firstlineno

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        return cls(py_func)

    def ensure_cache_path(self) -> None:
        pass

    def get_cache_path(self) -> str:
        return str(DIRECTORY)

    def get_source_stamp(self) -> str:
        return kernel_cache.digest()

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Implementation(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # type: ignore[list-item]  # noqa: RUF012


class _Cache(FunctionCache):
    _impl_class = _Implementation

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store a compiled kernel, unless another process has completed the directory while this one compiled.

        The directory would be incomplete again until all kernels are stored, and searches would be slower meanwhile.
        """
        if kernel_cache.is_complete(Path(self.cache_path)):
            return
        with suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def kept_files() -> list[Path]:
    """List the files in which numba has stored all kernels.

    Raises:
        StorageError: a kernel has no file, because it was never called or the disk refused to write it.
    """
    found = []
    for each in KERNELS:
        kept = each._cache._cache_file
        names = set(kept._load_index().values())
        if len(names) < max(1, len(each.signatures)):
            raise StorageError(
                f"{each.py_func.__qualname__} is not among the kernels in {DIRECTORY}: is the disk full?"
            )
        found += [Path(kept._index_path), *(Path(kept._data_path(name)) for name in names)]
    return found


def read_only(array: NDArray[_T]) -> NDArray[_T]:
    """Return a read-only view of an array.

    Numba compiles a kernel again for every combination of writable and read-only arguments. So every array that can be
    either is passed to kernels through this function.
    """
    view = array.view()
    view.flags.writeable = False
    return view


def kernel(function: _F) -> _F:
    """Compile a function that Python calls, and store the compiled code on the disk.

    A kernel runs without the interpreter's lock, so several threads can run kernels at the same time.
    """
    dispatcher = _compiled(function, no_cpython_wrapper=False)
    KERNELS.append(dispatcher)
    return dispatcher


def compiled(function: _F) -> _F:
    """Compile a function that only other compiled functions call. A call from Python would crash the process.

    The function cannot allocate arrays. It borrows those of its caller: numba would count a reference to every array
    of every named tuple in each call, by atomic operations that take longer than most of these functions.
    """
    return _compiled(function, _nrt=False)


def compiled_inline(function: _F) -> _F:
    """Compile a function as `compiled` does, but into its caller: for short functions that get many arrays.

    Every array of a named tuple is seven words that a call copies.
    """
    return _compiled(function, _nrt=False, inline="always")


def compiled_allocating(function: _F) -> _F:
    """Compile a function as `compiled` does, but one that allocates arrays."""
    return _compiled(function)


def compiled_sum(function: _F) -> _F:
    """Compile a function as `compiled` does, and let LLVM reorder its sums, to add several terms at the same time."""
    return _compiled(function, _nrt=False, fastmath={"reassoc", "contract", "nsz"})


def compiled_rounded_sum(function: _F) -> _F:
    """Compile a function as `compiled_sum` does, but round every product, also where a sum or difference uses it."""
    return _compiled(function, _nrt=False, fastmath={"reassoc", "nsz"})


def _compiled(function: _F, **options: Any) -> _F:
    options = {
        "nogil": True,
        "error_model": "numpy",
        "no_cpython_wrapper": True,  # each wrapper takes time to compile
        "no_cfunc_wrapper": True,
        **options,
    }
    dispatcher: Any = numba.njit(**options)(function)
    if DIRECTORY is not None:
        dispatcher._cache = _Cache(function)  # type: ignore[no-untyped-call]
    return cast(_F, dispatcher)


def _popcount(typing_context: Any, word: Any) -> Any:
    """Count the bits that are set in a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


def _trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Count the zeros below the lowest set bit of a uint64, which must not be 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], cgutils.true_bit)

    return types.uint64(types.uint64), generate


def _half_to_float(typing_context: Any, half: Any) -> Any:
    """Convert the bits of a float16, in a uint16, to a float32, exactly; infinity and NaN become large numbers.

    The exponent and the fraction keep their order of bits, and a factor corrects the exponent, whose bias is larger.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, single = ir.IntType(32), ir.FloatType()
        bits = builder.zext(arguments[0], word)
        size = builder.shl(builder.and_(bits, word(0x7FFF)), word(13))
        sign = builder.shl(builder.and_(bits, word(0x8000)), word(16))
        value = builder.bitcast(builder.or_(size, sign), single)
        return builder.fmul(value, single(2.0**112))

    return types.float32(types.uint16), generate


def _prefetch(typing_context: Any, array: Any, place: Any) -> Any:
    """Prefetch the cache line of an entry of a vector, or the first cache line of a row of a matrix."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, view.strides)[0]  # type: ignore[no-untyped-call]
        _emit_prefetch(builder, view.data, builder.mul(arguments[1], stride))
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def _prefetch_at(typing_context: Any, matrix: Any, row: Any, column: Any) -> Any:
    """Prefetch the cache line of an entry of a matrix."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        strides = cgutils.unpack_tuple(builder, view.strides)  # type: ignore[no-untyped-call]
        offset = builder.add(builder.mul(arguments[1], strides[0]), builder.mul(arguments[2], strides[1]))
        _emit_prefetch(builder, view.data, offset)
        return context.get_dummy_value()

    return types.void(matrix, types.int64, types.int64), generate


def _emit_prefetch(builder: Any, data: Any, offset: Any) -> None:
    """Emit LLVM's prefetch of the byte at an offset: for reading, with the highest locality, into the data cache."""
    address = builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [offset])
    integer = ir.IntType(32)
    function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module,
        ir.FunctionType(ir.VoidType(), [address.type, integer, integer, integer]),
        "llvm.prefetch.p0",
    )
    builder.call(function, [address, integer(0), integer(3), integer(1)])


popcount: Any = intrinsic(_popcount)
half_to_float: Any = intrinsic(_half_to_float)
trailing_zeros: Any = intrinsic(_trailing_zeros)
prefetch: Any = intrinsic(_prefetch)
prefetch_at: Any = intrinsic(_prefetch_at)
