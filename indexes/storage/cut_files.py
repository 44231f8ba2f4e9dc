"""Map files into memory so that the process survives if another program cuts one of them.

`cp -r backup/. index/` empties each file before it writes it. The system sends SIGBUS to a process that reads a mapping
beyond the end of its file, or where the disk cannot read it, and the default for SIGBUS is to end the process. Sizes
are compared before files are read, but a search that is running reads on.

So a handler for SIGBUS is installed with the first mapping. It looks for the mapping with the address that was read,
marks it as `cut`, and maps pages of zeros over all of it. The read continues with zeros. Every reader of a mapping asks
`cut` afterwards, and raises an error instead of using what was read. A mapping that was cut stays so.

The handler is Python code, which `ctypes` calls. That is safe because SIGBUS for an address of ours comes from nothing
but a load from a mapping, never from within the allocator or the interpreter: such a load is like a call from C to
Python. If the loading thread does not hold the interpreter's lock, the handler waits for it. So a thread must not hold
this lock while it waits for other threads that read a mapping: numba's kernels and FAISS run without it.

SIGBUS for any other address, or sent by a process, goes to the handler that was there before: this handler is taken
away, and the load is repeated. The next mapping installs it again.

Only Linux on x86-64 and aarch64 has the handler; elsewhere files are mapped without it.

Source: sigaction(2), mmap(2); <bits/sigaction.h> and <bits/types/siginfo_t.h> of glibc for the structures.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

GUARDED = sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64")
"""Whether a process survives here if a mapped file is cut."""

_SIGINFO, _NODEFER = 0x4, 0x40000000
_CODE, _ADDRESS = 8, 16  # offsets of si_code and si_addr in siginfo_t
_ZEROS = 0x10 | 0x20 | 0x4000 | 0x2  # MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE


_mappings: dict[int, weakref.ref[Mapping]] = {}


class Mapping(mmap.mmap):
    """The first bytes of a file, mapped read-only by `map_file`.

    Attributes:
        start: the address.
        cut: whether the file could not be read while it was mapped; all bytes are zeros then.
    """

    start = 0
    cut = False

    def __del__(self, mappings: dict[int, weakref.ref[Mapping]] = _mappings) -> None:
        mappings.pop(self.start, None)  # before the memory is unmapped, so that no other mapping has the address yet


cuts: list[int] = []
"""The start of every mapping of this process that was cut: almost always empty, so that it is quick to ask."""
_interrupts: list[BaseException] = []  # raised in the handler by Ctrl-C


def map_file(descriptor: int, size: int) -> NDArray[np.uint8]:
    """Map the first bytes of a file read-only, and return them: (size,) uint8, see `mapping_of`.

    Args:
        descriptor: the file, which may be closed afterwards.
        size: the number of bytes, at least 1 and at most the size of the file.

    Raises:
        OSError, ValueError, OverflowError: the system refuses the mapping.
    """
    if GUARDED:
        _install()
    mapping = Mapping(descriptor, size, access=mmap.ACCESS_READ)
    values: NDArray[np.uint8] = np.frombuffer(mapping, np.uint8)
    mapping.start = values.ctypes.data
    _mappings[mapping.start] = weakref.ref(mapping)
    return values


def mapping_of(array: NDArray[Any]) -> Mapping | None:
    """Return the mapping of a file that an array reads from, None for other arrays."""
    base: object = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base if isinstance(base, Mapping) else None


def require_frames(depth: int = 10) -> None:
    """Raise RecursionError unless the handler could be called from what the caller calls.

    Where the interpreter's limit lets no function be called, the handler could not run: the load would be repeated for
    ever.
    """
    if depth:
        require_frames(depth - 1)


def raise_interrupt() -> None:
    """Raise what Ctrl-C has raised in the handler, which could not pass it on; for a reader that has found a cut."""
    if _interrupts and threading.current_thread() is threading.main_thread():
        raise _interrupts.pop()


class _Action(ctypes.Structure):
    """Struct sigaction of glibc and musl."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def _on_bus_error(number: int, information: int, context: int) -> None:
    """Handle SIGBUS, in one frame, because few may be left. No exception leaves this function.

    Whatever another signal's handler raises meanwhile is kept for the reader; the load is repeated, and SIGBUS comes
    again. The garbage collector may run at any allocation, so mappings can disappear from the dictionary.
    """
    try:
        sent = ctypes.c_int.from_address(information + _CODE).value <= 0  # by a process
        if not sent:
            address = ctypes.c_void_p.from_address(information + _ADDRESS).value or 0
            for start in list(_mappings):
                reference = _mappings.get(start)
                mapping = None if reference is None else reference()
                if mapping is not None and start <= address < start + len(mapping):
                    mapping.cut = True  # first, so that no thread reads zeros without a mark
                    cuts.append(start)
                    if _libc.mmap(start, len(mapping), mmap.PROT_READ, _ZEROS, -1, 0) == start:
                        return
                    break
        _give_back()
        if sent:
            signal.raise_signal(signal.SIGBUS)
    except (RecursionError, MemoryError):
        _give_back()
    except BaseException as interrupt:
        _interrupts.append(interrupt)


def _keep_interrupt(before: Callable[[Any], object], unraisable: Any) -> None:
    """Keep what Ctrl-C raises before the first statement of the handler, which ctypes would only print."""
    try:
        trace, value = unraisable.exc_traceback, unraisable.exc_value
        if trace is None or trace.tb_frame.f_code is not _on_bus_error.__code__:
            before(unraisable)
        elif isinstance(value, RecursionError | MemoryError):
            _give_back()  # the handler would not be entered the next time either
        else:
            _interrupts.append(value)
    except KeyboardInterrupt as interrupt:
        _interrupts.append(interrupt)


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(_on_bus_error)
_ADDRESS_OF_HANDLER = ctypes.cast(_HANDLER, ctypes.c_void_p).value
_before = _Action()  # the action that the handler replaced
_hook: Any = None  # the hook that calls `_keep_interrupt`
_libc: Any = None
if GUARDED:
    _libc = ctypes.PyDLL(None)  # keeps the interpreter's lock, so that no other thread runs between two steps
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    _libc.sigaction.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


def _install() -> None:
    """Install the handler, unless it is installed."""
    global _before, _hook
    present = _Action()
    _libc.sigaction(signal.SIGBUS, None, ctypes.byref(present))
    if present.handler == _ADDRESS_OF_HANDLER:
        return
    if _hook is None:
        _hook = sys.unraisablehook = partial(_keep_interrupt, sys.unraisablehook)
    _before = present
    action = _Action(handler=_ADDRESS_OF_HANDLER, flags=_SIGINFO | _NODEFER)
    _libc.sigaction(signal.SIGBUS, ctypes.byref(action), None)


def _give_back() -> None:
    """Make the system call the handler that was there before, when the load is repeated or the signal is sent again.

    A handler that sends the signal again after it has restored this one would do so for ever: the second time, the
    default ends the process.
    """
    global _before
    _libc.sigaction(signal.SIGBUS, ctypes.byref(_before), None)
    _before = _Action()
