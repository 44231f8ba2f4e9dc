"""`refuse_costly`: refuses images whose decoding takes time or memory out of proportion to their pixels.

The number of pixels in the header bounds neither:

- A compressed TIFF is decoded in tiles, which may be far larger than the image: one of a gigabyte for 16 x 16 pixels.
- Its file is read as a whole, so it is bounded by the pixels too.
- A lossless WebP file, or its alpha, may come with a set of tables for every 4 x 4 pixels: 900 MB for 1024 x 1024.
- Pillow decodes some rare kinds of PPM and BMP in Python, a thousand times slower than other kinds.

Nor is a JPEG file that is decoded at a smaller scale bounded by the pixels of the result: if it comes in several scans,
as a progressive one does, libjpeg keeps all of its own pixels in memory.

Images that are decoded at the same time share `MEMORY_BYTES`: those that would take more wait for the others.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO
from weakref import WeakSet

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
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

MEMORY_BYTES = 1 << 31
"""The memory for all images that are decoded at the same time in the process; an image that takes more has it alone."""

_PIXEL_BYTES, _PHOTO_PIXEL_BYTES = 16, 8
"""The most memory for a pixel: decoded, converted, turned and with the decoder's own; JPEG in one scan is decoded line
by line."""

_CODES_BYTES, _CODES_BITS, _MOST_CODES, _CODES_SIDE = 14 << 10, 20, 1 << 16, 4
"""What libwebp makes of a group of prefix codes, its least bits, how many there may be, and the side of its block."""

_CHUNK_TIMES = 6
"""How often libwebp takes the bytes of a file that consists of empty chunks."""

_LOSSY_CHUNKS, _MOST_CHUNKS = {b"VP8X", b"VP8 ", b"ICCP", b"EXIF", b"XMP "}, 100
_JPEG_SEGMENTS = 65_536
_BYTE_COUNTS = (279, 325)
_DECODING = {*range(256, 260), 262, 266, 273, *range(277, 280), 284, 317, *range(322, 326), 338, 339, 530}
"""Tags of a TIFF that say how its pixels are decoded."""
_BITS, _SAMPLES, _STRIP_HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 258, 277, 278, 322, 323, 324


class _Share:
    """The memory of one image. It is not counted any more when it is deleted, wherever Ctrl-C has ended its block."""

    def __init__(self, amount: int) -> None:
        self.amount = amount


class _SharedMemory:
    """The memory that images take at the same time, by estimate."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all images, in a forked child, which has none of the threads that decode them."""
        self._shares: WeakSet[_Share] = WeakSet()
        self._changed = threading.Condition()

    @property
    def taken(self) -> int:
        """The sum of all amounts."""
        return sum(share.amount for share in self._shares)

    @contextmanager
    def share(self, amount: int) -> Iterator[None]:
        """Wait until the other images leave enough, or none is left."""
        share = _Share(amount)
        try:
            with self._changed:
                while not self._changed.wait_for(lambda: not self.taken or self.taken + amount <= MEMORY_BYTES, 0.5):
                    pass  # a share that Ctrl-C ended wakes nobody
                self._shares.add(share)
            yield
        finally:
            with self._changed:
                self._shares.discard(share)
                self._changed.notify_all()


_memory = _SharedMemory()
os.register_at_fork(after_in_child=_memory.reset)


def refuse_costly(image: Image.Image, stream: IO[bytes], size: int) -> AbstractContextManager[object]:
    """Check an image that was opened and has not been decoded.

    Args:
        image: the image.
        stream: its file; its position stays the same.
        size: bytes of its file.

    Returns:
        What to enter while the image is decoded and used; it waits until there is memory for the image.

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
    others = memory_besides_pixels(image, stream, size) + (_CHUNK_TIMES * size if image.format == "WEBP" else 0)
    if isinstance(image, TiffImageFile) and "libtiff" in decoders:
        position = stream.tell()
        tags = [tag.number for tag in tags_of(stream)]
        if len(set(tags)) < len(tags):  # libtiff takes the first, and Pillow may take the last
            raise ValueError("a TIFF that states the same tag twice")
        others += _check_pieces(image, set(tags), size)
        stream.seek(position)
    photo = isinstance(image, JpegImageFile) and _in_one_scan(stream)
    return _memory.share(image.width * image.height * (_PHOTO_PIXEL_BYTES if photo else _PIXEL_BYTES) + others)


def memory_besides_pixels(image: Image.Image, stream: IO[bytes], size: int) -> int:
    """Return the most bytes that libwebp takes for the tables of a lossless picture or alpha; 0 for other images.

    Args:
        image: an image that was opened.
        stream: its file; its position stays the same.
        size: bytes of its file.
    """
    if image.format != "WEBP" or _plainly_lossy(stream):
        return 0
    blocks = -(-image.width // _CODES_SIDE) * -(-image.height // _CODES_SIDE)
    return _CODES_BYTES * min(_MOST_CODES, blocks, size * 8 // _CODES_BITS)


def _plainly_lossy(stream: IO[bytes]) -> bool:
    """Return whether a WebP file has a lossy picture without alpha; False if it is not plainly so."""
    before = stream.tell()
    try:
        position = 12
        for _ in range(_MOST_CHUNKS):
            stream.seek(position)
            head = stream.read(8)
            if len(head) < 8 or (position == 12 and head[:4] == b"VP8 "):
                return True
            if head[:4] not in _LOSSY_CHUNKS:
                return False
            position += 8 + int.from_bytes(head[4:], "little") + (head[4] & 1)
        return False
    finally:
        stream.seek(before)


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
    if not _in_one_scan(stream):
        raise ValueError(f"a JPEG file of {pixels:,} pixels in several scans (progressive): save it as a baseline one")


def _in_one_scan(stream: IO[bytes]) -> bool:
    """Return whether the first scan of a JPEG file has all of its components; False if it is not plainly so.

    The position of the stream stays the same.
    """
    before = stream.tell()
    try:
        return _first_scan_has_all(stream)
    finally:
        stream.seek(before)


def _first_scan_has_all(stream: IO[bytes]) -> bool:
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


def _check_pieces(image: TiffImageFile, tags: set[int], size: int) -> int:
    """Check the size of the tiles or strips of a compressed TIFF, and that of its file; return the memory for both."""
    if tags & {_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS}:
        width, height = image.tag_v2.get(_TILE_WIDTH), image.tag_v2.get(_TILE_HEIGHT)
    else:
        width, height = image.width, image.tag_v2.get(_STRIP_HEIGHT, image.height)
        height = height if isinstance(height, int) and 0 < height < image.height else image.height
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise ValueError("a TIFF whose tiles have no size")
    bits, samples = image.tag_v2.get(_BITS, (1,)), image.tag_v2.get(_SAMPLES, 1)
    pixel: int = samples * -(-max(bits) // 8)
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
    if unseen := [tag for tag in sorted(tags & _DECODING) if tag not in image.tag_v2]:
        # of a type that Pillow does not know, and libtiff may
        raise ValueError(f"a TIFF whose tag {unseen[0]} is of a type that is not read: save it anew")
    counts = [count for tag in _BYTE_COUNTS for count in image.tag_v2.get(tag, ())]
    if sum(max(0, count) for count in counts) > 2 * size:  # each would be decompressed
        raise ValueError(f"a TIFF whose pieces have more bytes than its file ({size:,}): save it anew")
    most = 2 * image.width * image.height * pixel + SPARE_BYTES
    if size > most:
        raise ValueError(
            f"a compressed TIFF of {size:,} bytes, expected at most {most:,} for {image.width} x {image.height} "
            "pixels: save its first page alone"
        )
    return width * height * pixel + 2 * size
