"""Makes small pictures of records.

Only files that the index records as uris are opened, if they are regular files of reasonable size; a request never
names a file. What is sent is an image that was decoded and encoded here, never the content of a file. Where a file is
missing or is not an image, a grey picture says so.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from semcut.connector.data.images import UnreadableImage, open_image

MAX_FILE_BYTES = 64 << 20
_PICTURES_KEPT = 4096
_JPEG_QUALITY = 85
_LOSSLESS_SIDE = 64  # pixels; a picture of at most this size is sent as PNG, since every one of its few pixels counts
_decoding = threading.BoundedSemaphore(2)
"""Limits how many images are decoded at the same time: one image can take hundreds of megabytes."""


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
        status = os.stat(uri)
    except (OSError, ValueError):
        return _placeholder("no such file", size)
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
        return _placeholder("no image", size)
    try:
        return _shrink(uri, size, status.st_mtime_ns, status.st_size)
    except UnreadableImage:
        return _placeholder("no image", size)


@lru_cache(maxsize=_PICTURES_KEPT)
def _shrink(uri: str, size: int, modified: int, length: int) -> Thumbnail:
    """Read and shrink an image file; its time and length are part of the cache's key."""
    with _decoding:
        image = open_image(uri)
        image.thumbnail((size, size))
        return _encode(image, None)


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
