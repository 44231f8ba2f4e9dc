"""`use_image`: decodes images in bounded memory, and gives the memory back to the system.

The largest image that is decoded, of 67 million pixels, takes up to 850 MB for a second, and a lossless WebP file up to
1,500 MB; one of 1 million pixels with a set of tables for every few pixels takes 900 MB. So one large image is decoded
at a time in the whole process, and at most `_AT_ONCE` images in all. After a large image its memory returns to the
system, although the server otherwise keeps freed memory, because the network needs the same blocks again and again: see
`keep_freed_memory`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import IO, TypeVar

from PIL import Image

from semcut.connector.data.decoding_limits import memory_besides_pixels
from semcut.connector.data.images import open_image, read_header
from semcut.connector.models.device import release_freed_memory

LARGE_PIXELS = 1 << 22
"""Images with more pixels than this (4 million, 16 MB) are large."""

_LARGE_BYTES = 1 << 26

_AT_ONCE = 3
_any_image = threading.BoundedSemaphore(_AT_ONCE)
_large_image = threading.Lock()
_T = TypeVar("_T")


def use_image(stream: IO[bytes], use: Callable[[Image.Image], _T]) -> _T:
    """Decode an image, call a function with it, and return the result, which must not refer to the image.

    Args:
        stream: the content of an image file, which can be read more than once.
        use: gets the image, RGB and upright.

    Raises:
        UnreadableImage: the content is no image that can be decoded.
    """
    with _any_image:  # even a header may take a moment
        large = _is_large(stream)
    with _large_image if large else nullcontext(), _any_image:
        try:
            return use(open_image(stream))
        finally:
            if large:
                release_freed_memory()


def _is_large(stream: IO[bytes]) -> bool:
    """Return whether decoding may take much memory, by the header; without one it is not, as `open_image` will report.

    A TIFF is large in any case: how much it takes depends on its tiles. So is a WebP file of many tables.
    """
    try:
        with read_header(stream) as image:
            others = memory_besides_pixels(image, stream, stream.seek(0, os.SEEK_END))
            large = image.format == "TIFF" or image.width * image.height > LARGE_PIXELS or others > _LARGE_BYTES
    except Exception:  # on broken files, Pillow raises errors of many types
        large = False
    stream.seek(0)
    return large
