"""Find the device for a network and the size of its batches, and keep freed memory so that networks run faster.

Importing this module does not load torch, because commands import it before they know whether they need a network.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from semcut.indexes.errors import DataError, shown

if TYPE_CHECKING:
    import torch

_BYTES_ON_CPU, _BYTES_ON_GPU = 1 << 27, 1 << 32
"""Memory that the network may take for a batch. On a CPU larger batches are not faster."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def device_named(name: str) -> torch.device:
    """Find a device by its name, and check that a tensor can be created on it.

    Args:
        name: the device as torch names it: "cpu", "cuda", "cuda:0"; or a device of torch.

    Raises:
        DataError: the device cannot be used.
        InvalidParameterError: it is no name of a device.
    """
    import torch

    from semcut.indexes.argument_checks import text_given  # loads numpy

    name = text_given("device", str(name) if isinstance(name, torch.device) else name)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # which a device without memory ("meta") refuses
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"device = {shown(name)} cannot be used here ({reason[:200]}): use cpu") from None
    return device


def images_at_once(device: torch.device, image_bytes: int, most: int) -> int:
    """Return how many images are run at once: at least 1, since an image cannot be divided.

    Args:
        device: where the network runs.
        image_bytes: memory that an image takes; 0 if that is not known.
        most: the largest number.
    """
    memory = _BYTES_ON_CPU if device.type == "cpu" else _BYTES_ON_GPU
    return max(1, min(most, memory // max(1, image_bytes)))


def keep_freed_memory() -> None:
    """Make the C library keep freed memory in this process; has no effect with a C library other than glibc.

    By default glibc returns every freed block over 32 MB to the system at once. A network requests such a block again
    one layer later, and the system then clears it page by page. On 2 cores of an AMD EPYC this takes 40 % of the time
    of a training step of EfficientNet-Lite0 (40 images of 128 x 128 pixels per second instead of 66) and 40 % of the
    time of encoding. Threads also share one arena, since each of several would keep the largest blocks that it has
    freed: 110 MB more for `semcut index`. The setting is for the whole process, so only commands that run a network
    (and the explore server) call this function: a program that uses the library decides for its own process.

    Source: mallopt(3), M_MMAP_MAX, M_TRIM_THRESHOLD and M_ARENA_MAX.
    """
    mallopt = _c_function("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory() -> None:
    """Return the freed memory that the C library keeps to the system, even after `keep_freed_memory`.

    For use after work that took far more memory than the work that follows. It takes milliseconds; the system then
    clears the next blocks page by page again. It has no effect with a C library other than glibc.

    Source: malloc_trim(3).
    """
    malloc_trim = _c_function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _c_function(name: str) -> Any:
    """Return a function of the C library, None if there is none of this name, as in a library other than glibc."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, TypeError, AttributeError):
        return None
