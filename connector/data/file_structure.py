"""`refuse_endless`: refuses image files of very many parts, before Pillow or a decoder sees any of them.

A few bytes of a file can cost a pass over the whole image, or a slow step in Python, whatever its number of pixels:

- A JPEG file may have any number of scans, each of which goes over all pixels: 400,000 in 4 MB take hours.
- Pillow makes objects for each tile or strip of an uncompressed TIFF, and keeps the content of each of its tags.
- Pillow reads each chunk of a PNG file in Python, and decompresses each colour profile; so it does with the segments
  of a JPEG file, the blocks of a GIF file, and each byte between them or of a comment in a PPM file.

The parts are counted here by their headers. Whatever is damaged is left to Pillow, which stops there as well.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

MOST_SCANS = 100
"""The most scans of a JPEG file; progressive ones have 6 to 20."""

MOST_CHUNKS, MOST_PROFILES = 10_000, 16
"""The most chunks of a PNG file besides those of its pixels, and the most colour profiles; one is allowed."""

MOST_OFFSETS = 65_536
"""The most tiles or strips of a TIFF."""

_MOST_TAGS = 4096
_MOST_SEGMENTS = _MOST_BLOCKS = _HEADER_BYTES = 65_536
_BLOCK = 1 << 20
_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""A marker, with or without a segment, other than those inside the pixels of a scan (0xD0 to 0xD7)."""
_PIXEL_CHUNKS = (b"IDAT", b"fdAT")
_OFFSETS = (273, 324)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 11: 4, 13: 4}


class Tag(NamedTuple):
    """A tag of a TIFF, of which type it is, and how many values it has."""

    number: int
    kind: int
    values: int


def refuse_endless(stream: IO[bytes], name: str) -> None:
    """Check a file whose first bytes are those of a format.

    Args:
        stream: the file; its position changes.
        name: the format, as Pillow calls it.

    Raises:
        ValueError: it is not to be opened; the message is the reason.
    """
    size = stream.seek(0, os.SEEK_END)
    if name == "JPEG":
        _check_scans(stream)
    elif name == "PNG":
        _check_chunks(stream, size)
    elif name == "TIFF":
        _check_tags(tags_of(stream), size)
    elif name == "GIF":
        _check_blocks(stream)
    elif name == "PPM":
        _check_numbers(stream)


def _check_scans(stream: IO[bytes]) -> None:
    few = sum(block.count(_SCAN) for block in _overlapping(stream)) <= MOST_SCANS  # more may be chance in other data
    for number, _ in enumerate(_scans(stream)):
        if few:
            return
        if number >= MOST_SCANS:
            raise ValueError(f"a JPEG file of more than {MOST_SCANS} scans: save it anew")


def _overlapping(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the blocks of a file, each with the last byte before it."""
    stream.seek(0)
    last = b""
    while block := stream.read(_BLOCK):
        yield last + block
        last = block[-1:]


def _scans(stream: IO[bytes]) -> Iterator[int]:
    """Yield the position behind the start of each scan up to the end of the image, as libjpeg finds them."""
    position, start, block = 2, 0, b""
    scans = between = 0
    for _ in range(_MOST_SEGMENTS):
        found, before = None, position
        while found is None:
            if not 0 <= position - start < len(block) - 1:
                stream.seek(position)
                start, block = position, stream.read(_BLOCK)
                if len(block) < 2:
                    return
            found = _MARKER.search(block, position - start)
            position = start + (found.end() if found else len(block) - 1)
        kind = block[position - start - 1]
        between += 0 if scans else position - 2 - before
        if between > _HEADER_BYTES:
            raise ValueError(f"a JPEG file of more than {_HEADER_BYTES:,} bytes between its segments: save it anew")
        if kind == 0xD9:
            return
        if kind == 0xD8:
            continue
        if kind == _SCAN[1]:
            scans += 1
            yield position
        stream.seek(position)
        position += max(2, int.from_bytes(stream.read(2), "big"))
    raise ValueError(f"a JPEG file of more than {_MOST_SEGMENTS:,} segments: save it anew")


def _check_chunks(stream: IO[bytes], size: int) -> None:
    """Count the chunks; programs write pixels in chunks of at least a few kilobytes."""
    pixels = others = profiles = 0
    position = 8
    most = MOST_CHUNKS + size // 512, MOST_CHUNKS, MOST_PROFILES
    while True:
        stream.seek(position)
        head = stream.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        if head[4:] in _PIXEL_CHUNKS:
            pixels += 1
        else:
            others += 1
            profiles += head[4:] == b"iCCP"
        if pixels > most[0] or others > most[1] or profiles > most[2]:
            raise ValueError(
                f"a PNG file of {pixels:,} chunks of pixels, {others:,} others and {profiles} colour profiles, "
                f"expected at most {most[0]:,}, {most[1]:,} and {most[2]}: save it anew"
            )
        position += 12 + int.from_bytes(head[:4], "big")


def _check_blocks(stream: IO[bytes]) -> None:
    """Count the blocks before the pixels of a GIF file."""
    stream.seek(6)
    screen = stream.read(7)
    if len(screen) == 7 and screen[4] & 0x80:
        stream.seek(3 << (screen[4] & 7) + 1, os.SEEK_CUR)
    inside = False  # an extension, of blocks that each begin with their length
    for _ in range(_MOST_BLOCKS):
        head = stream.read(1)
        if not head or (not inside and head in b",;"):
            return
        if inside:
            stream.seek(head[0], os.SEEK_CUR)
            inside = head != b"\0"
        elif head == b"!":
            stream.seek(1, os.SEEK_CUR)
            inside = True
    raise ValueError(f"a GIF file of more than {_MOST_BLOCKS:,} blocks before its pixels: save it anew")


def _check_numbers(stream: IO[bytes]) -> None:
    """Look for the numbers of the header of a PPM file."""
    stream.seek(0)
    head = stream.read(_HEADER_BYTES)
    words = re.sub(rb"#[^\r\n]*", b"", head).split(maxsplit=4)
    if len(head) == _HEADER_BYTES and len(words) < (3 if head[1:2] in b"14" else 4):
        raise ValueError(f"a PPM file whose header has more than {_HEADER_BYTES:,} bytes: save it anew")


def tags_of(stream: IO[bytes]) -> list[Tag]:
    """Read the tags of the first image of a TIFF, as Pillow finds them; none if the file ends before.

    Raises:
        ValueError: there are too many.
    """
    stream.seek(0)
    head = stream.read(16)
    order, big = "<" if head.startswith(b"II") else ">", head[2:3] == b"+"
    try:
        stream.seek(struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)[0])
        (count,) = struct.unpack(order + ("Q" if big else "H"), stream.read(8 if big else 2))
    except (struct.error, OSError, OverflowError, ValueError):  # an offset that no file has
        return []
    if count > _MOST_TAGS:
        raise ValueError(f"a TIFF with {count:,} tags, at most {_MOST_TAGS:,} are read")
    entry, form = (20, "HHQ") if big else (12, "HHI")
    table = stream.read(count * entry)
    return [Tag(*struct.unpack_from(order + form, table, at)) for at in range(0, len(table) - entry + 1, entry)]


def _check_tags(tags: list[Tag], size: int) -> None:
    for tag in tags:
        if tag.number in _OFFSETS and tag.values > MOST_OFFSETS:
            raise ValueError(f"a TIFF of {tag.values:,} tiles or strips, at most {MOST_OFFSETS:,} are read")
    sizes = [tag.values * _TYPE_BYTES.get(tag.kind, 8) for tag in tags]
    if sum(one for one in sizes if one <= size) > 2 * size:  # Pillow leaves out each that is larger than the file
        raise ValueError(f"a TIFF whose tags have more bytes than its file ({size:,})")
