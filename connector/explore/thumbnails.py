"""Makes small pictures of records.

Only files that the index records as uris are opened, if they are regular files of reasonable size; a request never
names a file. A file is opened, without waiting, before anything is asked about it, so it cannot be exchanged for a FIFO
or a device meanwhile. What is sent is an image that was decoded and encoded here, never the content of a file. Where a
file is missing or is not an image, a grey picture says so.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections import OrderedDict
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from semcut.connector.data.images import UnreadableImage
from semcut.connector.explore.picture_decoding import small_picture
from semcut.indexes.regular_files import open_binary

MAX_FILE_BYTES = 64 << 20
KEPT_BYTES = 64 << 20
"""Bytes of the pictures that are kept to be sent again, with the names under which they are kept."""

_ENTRY_BYTES = 1024  # of objects around a picture, and of its place in a dictionary; a picture can have 70 bytes

_JPEG_QUALITY = 85
_LOSSLESS_SIDE = 64  # pixels; a picture of at most this size is sent as PNG, since every one of its few pixels counts


class Thumbnail(NamedTuple):
    """An encoded picture, its media type, and, if the picture is a placeholder, the reason for that; else None."""

    content: bytes
    media_type: str
    missing: str | None = None


def thumbnail(uri: str | None, size: int) -> Thumbnail:
    """Make the picture of a record.

    Args:
        uri: the path that the index records; None if it records none.
        size: maximum length of the longer side, in pixels. Smaller images are not enlarged.
    """
    if uri is None:
        return _placeholder("no file", size)
    try:
        with open_binary(uri, max_bytes=MAX_FILE_BYTES, follow=True) as stream:
            status = os.fstat(stream.fileno())
            key = (uri, size, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            found = _kept.get(key)
            if found is None:
                found = _encode(small_picture(stream, size), None)
                _kept.put(key, found)
            return found
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return _placeholder("no such file", size)
    except (OSError, UnreadableImage):
        return _placeholder("no image", size)


class _Pictures:
    """The pictures that were made last, of bounded size in all. Several threads may use an object at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pictures: OrderedDict[tuple[str | int, ...], Thumbnail] = OrderedDict()  # least recently used first
        self._bytes = 0

    def get(self, key: tuple[str | int, ...]) -> Thumbnail | None:
        """Return a picture, None if it is not kept."""
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def put(self, key: tuple[str | int, ...], picture: Thumbnail) -> None:
        """Keep a picture, and drop others until all fit."""
        with self._lock:
            replaced = self._pictures.pop(key, None)
            self._pictures[key] = picture
            self._bytes += _bytes_of(key, picture) - (0 if replaced is None else _bytes_of(key, replaced))
            while self._bytes > KEPT_BYTES:
                self._bytes -= _bytes_of(*self._pictures.popitem(last=False))


def _bytes_of(key: tuple[str | int, ...], picture: Thumbnail) -> int:
    return len(picture.content) + sum(map(sys.getsizeof, key)) + _ENTRY_BYTES


_kept = _Pictures()


@lru_cache(maxsize=16)
def _placeholder(reason: str, size: int) -> Thumbnail:
    image = Image.new("RGB", (size, size), (128, 128, 128))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(8, size // 9))
    draw.text((size / 2, size / 2), reason, fill=(255, 255, 255), font=font, anchor="mm")
    return _encode(image, reason)


def _encode(image: Image.Image, missing: str | None) -> Thumbnail:
    lossless = max(image.size) <= _LOSSLESS_SIDE
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if lossless else "JPEG", **({} if lossless else {"quality": _JPEG_QUALITY}))
    return Thumbnail(buffer.getvalue(), "image/png" if lossless else "image/jpeg", missing)
