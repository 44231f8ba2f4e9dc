"""Small pictures of records: whatever a file holds, what is sent was decoded here and encoded anew.

Only files that the index records as uris are opened, if they are regular files of reasonable size; no name comes from
a request. Where a file is missing or is no image, its place shows that.
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

MAX_BYTES = 64 << 20
_KEPT = 4096
_QUALITY = 85
_AT_ONCE = threading.BoundedSemaphore(2)
"""Images are decoded at a time: one can take hundreds of megabytes."""


class Thumbnail(NamedTuple):
    """An encoded picture, its type, and what is wrong with the image that it stands for, if anything."""

    content: bytes
    media_type: str
    missing: str | None = None


def thumbnail(uri: str | None, size: int) -> Thumbnail:
    """The picture of a record.

    Args:
        uri: what the index records, a path; None if it records nothing.
        size: pixels of the longer side at most. Smaller images stay as they are.
    """
    if uri is None:
        return _placeholder("no file", size)
    try:
        facts = os.stat(uri)
    except (OSError, ValueError):
        return _placeholder("no such file", size)
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BYTES:
        return _placeholder("no image", size)
    try:
        return _of_file(uri, size, facts.st_mtime_ns, facts.st_size)
    except UnreadableImage:
        return _placeholder("no image", size)


@lru_cache(maxsize=_KEPT)
def _of_file(uri: str, size: int, changed: int, length: int) -> Thumbnail:
    with _AT_ONCE:
        image = open_image(uri)
        image.thumbnail((size, size))
        return _encoded(image, None)


@lru_cache(maxsize=16)
def _placeholder(reason: str, size: int) -> Thumbnail:
    image = Image.new("RGB", (size, size), (128, 128, 128))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(max(8, size // 9))
    draw.text((size / 2, size / 2), reason, fill=(255, 255, 255), font=font, anchor="mm")
    return _encoded(image, reason)


def _encoded(image: Image.Image, missing: str | None) -> Thumbnail:
    small = max(image.size) <= 64  # every pixel counts, and there are few
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if small else "JPEG", **({} if small else {"quality": _QUALITY}))
    return Thumbnail(buffer.getvalue(), "image/png" if small else "image/jpeg", missing)
