"""`refuse_costly`: refuses images whose decoding takes time or memory out of proportion to their pixels.

The number of pixels in the header bounds neither:

- A compressed TIFF is decoded in tiles, which may be far larger than the image: one of a gigabyte for 16 x 16 pixels.
- Its file is read as a whole, so it is bounded by the pixels too, and large ones are read one after the other.
- Pillow decodes some rare kinds of PPM and BMP in Python, a thousand times slower than other kinds.

Nor is a JPEG file that is decoded at a smaller scale bounded by the pixels of the result: if it comes in several scans,
as a progressive one does, libjpeg keeps all of its own pixels in memory.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import IO

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from semcut.connector.data.file_structure import MOST_OFFSETS, tags_of

SLOW_PIXELS = 1 << 20
"""The most pixels of an image that Pillow decodes in Python; they take about a second."""

SLOW_BYTES = 1 << 22
"""The largest file of an image that Pillow decodes in Python."""

PIECE_BYTES = 1 << 28
"""The largest tile or strip of a compressed TIFF, decoded; 67 million pixels of four bytes."""

PIECES_PIXELS = 1 << 26
"""The most pixels of all tiles or strips of a compressed TIFF, if they are more than four times its own."""

SCALED_PIXELS = 1 << 28
"""The most pixels of a JPEG file that is decoded at a smaller scale (268 million); phones write 200 million."""

SPARE_BYTES = 1 << 26
"""The bytes that a compressed TIFF may have besides twice those of its decoded pixels: for other pages, for example."""

MOST_TIMES = 8
"""How often a file may state each pixel; once for each colour if these lie apart."""

LARGE_BYTES = 1 << 25
"""Compressed TIFFs of more bytes are decoded one at a time in the whole process."""

_large_file = threading.Lock()
_JPEG_SEGMENTS = 65_536
_BITS, _SAMPLES, _STRIP_HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 258, 277, 278, 322, 323, 324


def refuse_costly(image: Image.Image, stream: IO[bytes], size: int) -> AbstractContextManager[object]:
    """Check an image that was opened and has not been decoded.

    Args:
        image: the image.
        stream: its file; its position stays the same.
        size: bytes of its file.

    Returns:
        What to enter while the image is decoded.

    Raises:
        ValueError: the image is not decoded; the message is the reason.
    """
    area = sum(
        max(0, min(right, image.width) - left) * max(0, min(bottom, image.height) - top)
        for _, (left, top, right, bottom), *_ in getattr(image, "tile", ())
    )
    if area > MOST_TIMES * image.width * image.height:
        raise ValueError(f"a file that states each of its pixels {area // (image.width * image.height):,} times")
    decoders = {str(tile[0]) for tile in getattr(image, "tile", ())}
    if "ppm_plain" in decoders:
        raise ValueError("pixels as text (PPM of the kinds P1 to P3) take too long: convert it, to PNG for example")
    if decoders & Image.DECODERS.keys() and (image.width * image.height > SLOW_PIXELS or size > SLOW_BYTES):
        raise ValueError(
            f"pixels stored like these are decoded slowly: at most {SLOW_PIXELS:,} in {SLOW_BYTES:,} bytes are read, "
            "convert it, to PNG for example"
        )
    if isinstance(image, TiffImageFile) and "libtiff" in decoders:
        position = stream.tell()
        tags = [tag.number for tag in tags_of(stream)]
        if len(set(tags)) < len(tags):  # libtiff takes the first, and Pillow may take the last
            raise ValueError("a TIFF that states the same tag twice")
        _check_pieces(image, set(tags), size)
        stream.seek(position)
        if size > LARGE_BYTES:
            return _large_file
    return nullcontext()


def refuse_costly_jpeg(stream: IO[bytes], pixels: int) -> None:
    """Check a JPEG file that is to be decoded at a smaller scale.

    Args:
        stream: the file; its position stays the same.
        pixels: width times height by its header.

    Raises:
        ValueError: it is not decoded; the message is the reason.
    """
    if pixels > SCALED_PIXELS:
        raise ValueError(f"{pixels:,} pixels, at most {SCALED_PIXELS:,} of a JPEG file are decoded: save it smaller")
    position = stream.tell()
    try:
        if not _in_one_scan(stream):
            raise ValueError(
                f"a JPEG file of {pixels:,} pixels in several scans (progressive): save it as a baseline one"
            )
    finally:
        stream.seek(position)


def _in_one_scan(stream: IO[bytes]) -> bool:
    """Return whether the first scan of a JPEG file has all of its components; False if it is not plainly so."""
    stream.seek(2)
    components = 0
    for _ in range(_JPEG_SEGMENTS):
        head = stream.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return False
        kind, length = head[1], int.from_bytes(head[2:], "big") - 2
        if length < 1 or not 0xC0 <= kind <= 0xFE or 0xD0 <= kind <= 0xD9:
            return False
        start = stream.tell()
        content = stream.read(min(length, 6))
        if kind in (0xC0, 0xC1):  # baseline or extended sequential
            components = content[5] if len(content) == 6 else 0
        elif 0xC0 <= kind <= 0xCF and kind != 0xC4:
            return False
        elif kind == 0xDA:
            return components > 0 and content[0] == components
        stream.seek(start + length)
    return False


def _check_pieces(image: TiffImageFile, tags: set[int], size: int) -> None:
    """Check the size of the tiles or strips of a compressed TIFF, and that of its file."""
    if tags & {_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS}:
        width, height = image.tag_v2.get(_TILE_WIDTH), image.tag_v2.get(_TILE_HEIGHT)
    else:
        width, height = image.width, image.tag_v2.get(_STRIP_HEIGHT, image.height)
        height = height if isinstance(height, int) and 0 < height < image.height else image.height
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise ValueError("a TIFF whose tiles have no size")
    bits, samples = image.tag_v2.get(_BITS, (1,)), image.tag_v2.get(_SAMPLES, 1)
    pixel = samples * -(-max(bits) // 8)
    if width * height > 4 * image.width * image.height + SLOW_PIXELS or not 0 < width * height * pixel <= PIECE_BYTES:
        raise ValueError(
            f"a TIFF of {image.width} x {image.height} pixels in pieces of {width} x {height}, expected pieces of its "
            f"own size at most, and of {PIECE_BYTES:,} bytes"
        )
    pieces = -(-image.width // width) * -(-image.height // height)
    if pieces > MOST_OFFSETS or pieces * width * height > max(4 * image.width * image.height, PIECES_PIXELS):
        raise ValueError(
            f"a TIFF of {image.width} x {image.height} pixels in {pieces:,} pieces of {width} x {height}, expected at "
            f"most {MOST_OFFSETS:,} pieces that fit its size"
        )
    most = 2 * image.width * image.height * pixel + SPARE_BYTES
    if size > most:
        raise ValueError(
            f"a compressed TIFF of {size:,} bytes, expected at most {most:,} for {image.width} x {image.height} "
            "pixels: save its first page alone"
        )
