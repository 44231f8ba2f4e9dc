"""`refuse_endless`: refuses image files of very many parts, before Pillow or a decoder sees any of them.

A few bytes of a file can cost a pass over the whole image, or a slow step in Python, whatever its number of pixels:

- A JPEG file may have any number of scans, each of which goes over all pixels: 400,000 in 4 MB take hours.
- Pillow joins the EXIF segments of a JPEG file one by one, so that twice as many take four times as long. It makes an
  object for every three bytes of a frame header, and a list for every quantization table.
- Pillow makes objects for each tile or strip of an uncompressed TIFF, keeps the content of each of its tags, and makes
  an object for each value of those that it looks at; so it does with EXIF, whose tags are those of a TIFF.
- Pillow reads each chunk of a PNG file in Python, and decompresses each colour profile and each text; so it does with
  the segments of a JPEG file, the blocks of a GIF file, and each byte between them or of a comment in a PPM file.

The parts are counted here by their headers. Whatever is damaged is left to Pillow, which stops there as well.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

MOST_SCANS = 100
"""The most scans of a JPEG file; progressive ones have 6 to 20."""

MOST_HEADERS, HEADERS_BYTES = 4096, 1 << 26
"""The most segments of a JPEG file before its first scan, and the most bytes of these, or of the chunks of a PNG file
besides those of its pixels: Pillow keeps them in memory."""

WEBP_BYTES = 1 << 29
"""The largest WebP file, which Pillow reads as a whole; 67 million pixels of four bytes are half as many."""

MOST_EXIF, EXIF_BYTES = 64, 1 << 22
"""The most segments of EXIF data in a JPEG file, and the most bytes of EXIF data."""

TABLES_BYTES = 1 << 16
"""The most bytes of quantization tables before the first scan of a JPEG file; four tables take 520."""

MOST_CHUNKS, MOST_PROFILES, MOST_TEXTS = 10_000, 16, 256
"""The most chunks of a PNG file besides those of its pixels, the most colour profiles (one is allowed), and the most
texts that may be compressed, each to a thousandth of its size."""

MOST_OFFSETS = 65_536
"""The most tiles or strips of a TIFF."""

MOST_VALUES, MOST_FRACTIONS = 1 << 18, 4096
"""The most values of any other tag of a TIFF, or of EXIF data, and the most if they are fractions."""

_MOST_TAGS = 4096
_MOST_SEGMENTS = _MOST_BLOCKS = _HEADER_BYTES = 65_536
_BLOCK = 1 << 20
_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
"""A marker, with or without a segment, other than those inside the pixels of a scan (0xD0 to 0xD7)."""
_BARE_MARKERS = {0xC8, 0xD8, 0xD9, *range(0xF0, 0xFE)}
"""Markers after which Pillow expects no segment; libjpeg reads no file that has them before its first scan."""
_FRAMES = {*range(0xC0, 0xD0), 0xDE} - {0xC4, 0xC8, 0xCC}
_END = 0xD9
_FILL, _MOST_FILL = b"\xff\xff", 16_384
_INDEX_SEGMENT, _INDEX = 0xE2, b"MPF\0"
_TABLES, _EXIF_SEGMENT, _EXIF = 0xDB, 0xE1, b"Exif\0\0"
_EXIF_TEXT = "Raw profile type exif"
_PIXEL_CHUNKS, _TEXT_CHUNKS = (b"IDAT", b"fdAT"), (b"zTXt", b"iTXt")
_OFFSETS = (273, 324)
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 11: 4, 13: 4}
_BYTES, _FRACTIONS = (1, 2, 7), (5, 10)
_PRIVATE, _PROFILE, _MOST_EXIF_TAGS, _OVERLAP = 32_768, 34_675, 65_535, 1 << 24


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
        _check_segments(stream)
    elif name == "PNG":
        _check_chunks(stream, size)
    elif name == "TIFF":
        _check_tags(tags_of(stream), size)
    elif name == "GIF":
        _check_blocks(stream)
    elif name == "WEBP" and size > WEBP_BYTES:
        raise ValueError(
            f"a WebP file of {size:,} bytes, at most {WEBP_BYTES:,} are read: save its first picture alone"
        )
    elif name == "PPM":
        _check_numbers(stream)


def _check_segments(stream: IO[bytes]) -> None:
    count = fill = 0
    for block in _overlapping(stream):
        count, fill = count + block.count(_SCAN), fill + block.count(_FILL)
    few = count <= MOST_SCANS and fill <= _MOST_FILL  # more may be chance in other data
    first = end = 0
    scans = frames = headers = content = tables = exif_bytes = 0
    exif: list[bytes] = []
    for kind, start, length in _segments(stream):
        end = start + length
        if kind == _SCAN[1]:
            scans, first = scans + 1, first or start
            if few:
                break
            if scans > MOST_SCANS:
                raise ValueError(f"a JPEG file of more than {MOST_SCANS} scans: save it anew")
        if scans:
            continue
        headers, content = headers + 1, content + length
        if headers > MOST_HEADERS or content > HEADERS_BYTES:
            raise ValueError(
                f"a JPEG file of more than {MOST_HEADERS:,} segments or {HEADERS_BYTES:,} bytes before its pixels: "
                "save it anew"
            )
        if kind in _FRAMES:
            frames += 1
            stream.seek(start)
            parts = stream.read(6)[5:]
            if frames > 1 or (parts and length != 6 + 3 * parts[0]):
                raise ValueError("a JPEG file with a second frame header, or one of a wrong size: save it anew")
        elif kind == _TABLES:
            tables += length
            if tables > TABLES_BYTES:
                raise ValueError(f"a JPEG file of more than {TABLES_BYTES:,} bytes of tables: save it anew")
        elif kind == _EXIF_SEGMENT:
            stream.seek(start)
            if stream.read(min(length, len(_EXIF))) == _EXIF:
                exif_bytes += length - len(_EXIF)
                if len(exif) == MOST_EXIF or exif_bytes > EXIF_BYTES:
                    raise ValueError(
                        f"a JPEG file of more than {MOST_EXIF} segments or {EXIF_BYTES:,} bytes of EXIF data: "
                        "save it anew"
                    )
                exif.append(stream.read(length - len(_EXIF)))
        elif kind == _INDEX_SEGMENT:
            stream.seek(start)
            index = stream.read(length)
            if index.startswith(_INDEX):  # Pillow before 13 keeps tags that overlap
                index = index.removeprefix(_INDEX)
                _check_values("an index of pictures", tags_of(io.BytesIO(index)), len(index), len(index))
    if fill > _MOST_FILL and first:
        last = end if kind == _END else None
        # libjpeg reads bytes of 255 again and again until something else comes
        if sum(block.count(_FILL) for block in _overlapping(stream, first, last)) > _MOST_FILL:
            raise ValueError("a JPEG file with very many bytes of 255 one after the other: save it anew")
    _check_exif(b"".join(exif))


def _overlapping(stream: IO[bytes], position: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yield the blocks of a part of a file, each with the last byte before it; the file may be read meanwhile."""
    last = b""
    while end is None or position < end:
        stream.seek(position)
        block = stream.read(_BLOCK if end is None else min(_BLOCK, end - position))
        if not block:
            return
        yield last + block
        position, last = position + len(block), block[-1:]


def _segments(stream: IO[bytes]) -> Iterator[tuple[int, int, int]]:
    """Yield kind, start and length of the content of each segment: before the first scan as Pillow finds them, then as
    libjpeg does, up to the end of the image.
    """
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
        if kind == _END and scans:
            yield kind, position, 0
            return
        if kind == 0xD8 or (kind in _BARE_MARKERS and not scans):
            continue
        scans += kind == _SCAN[1]
        stream.seek(position)
        length = max(2, int.from_bytes(stream.read(2), "big"))
        yield kind, position + 2, length - 2
        position += length
    raise ValueError(f"a JPEG file of more than {_MOST_SEGMENTS:,} segments: save it anew")


def _check_chunks(stream: IO[bytes], size: int) -> None:
    """Count the chunks; programs write pixels in chunks of at least a few kilobytes."""
    pixels = others = profiles = texts = content = 0
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
            content += min(int.from_bytes(head[:4], "big"), max(0, size - position))
            profiles += head[4:] == b"iCCP"
            texts += head[4:] in _TEXT_CHUNKS
        if pixels > most[0] or others > most[1] or profiles > most[2]:
            raise ValueError(
                f"a PNG file of {pixels:,} chunks of pixels, {others:,} others and {profiles} colour profiles, "
                f"expected at most {most[0]:,}, {most[1]:,} and {most[2]}: save it anew"
            )
        if content > HEADERS_BYTES:
            raise ValueError(f"a PNG file of more than {HEADERS_BYTES:,} bytes besides its pixels: save it anew")
        if texts > MOST_TEXTS:
            raise ValueError(f"a PNG file of more than {MOST_TEXTS} compressed or international texts: save it anew")
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
    words = re.sub(rb"#[^\r\n]*[\r\n]?", b"", head).split(maxsplit=4)
    if len(head) == _HEADER_BYTES and len(words) < (3 if head[1:2] in b"14" else 4):
        raise ValueError(f"a PPM file whose header has more than {_HEADER_BYTES:,} bytes: save it anew")


def tags_of(stream: IO[bytes], most: int = _MOST_TAGS) -> list[Tag]:
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
    if count > most:
        raise ValueError(f"a TIFF with {count:,} tags, at most {most:,} are read")
    entry, form = (20, "HHQ") if big else (12, "HHI")
    table = stream.read(count * entry)
    return [Tag(*struct.unpack_from(order + form, table, at)) for at in range(0, len(table) - entry + 1, entry)]


def _check_tags(tags: list[Tag], size: int) -> None:
    for tag in tags:
        if tag.number in _OFFSETS and tag.values > MOST_OFFSETS:
            raise ValueError(f"a TIFF of {tag.values:,} tiles or strips, at most {MOST_OFFSETS:,} are read")
    _check_values("a TIFF", tags, size, 2 * size)


def refuse_endless_exif(facts: Mapping[Any, Any]) -> None:
    """Check the EXIF data of a picture that is open, before Pillow looks at them.

    Args:
        facts: `info` of the picture.

    Raises:
        ValueError: they are not to be read; the message is the reason.
    """
    content, text = facts.get("exif"), facts.get(_EXIF_TEXT)
    if content is None and text is not None:  # as some programs write it to PNG files
        if len(text) > 2 * EXIF_BYTES:
            raise ValueError(f"{len(text):,} bytes of EXIF data as text, at most {2 * EXIF_BYTES:,} are read")
        content = bytes.fromhex("".join(text.split("\n")[3:]))
    _check_exif(content or b"")


def _check_exif(content: bytes) -> None:
    if len(content) > EXIF_BYTES:
        raise ValueError(f"{len(content):,} bytes of EXIF data, at most {EXIF_BYTES:,} are read")
    if content.startswith(_EXIF * 3):  # Pillow before 13 cuts them off one by one
        raise ValueError("EXIF data that begin more than twice: save the image without them")
    content = content.removeprefix(_EXIF).removeprefix(_EXIF)
    # tags of damaged data may overlap by chance, which costs little; Pillow before 13 keeps all of them
    _check_values("EXIF data", tags_of(io.BytesIO(content), _MOST_EXIF_TAGS), len(content), len(content) + _OVERLAP)


def _check_values(what: str, tags: list[Tag], size: int, most_bytes: int) -> None:
    """Check what Pillow would keep of tags; it leaves out each that is larger than the file."""
    sizes = [tag.values * _TYPE_BYTES.get(tag.kind, 8) for tag in tags]
    kept = [(tag, one) for tag, one in zip(tags, sizes, strict=True) if one <= size]
    for tag, _ in kept:
        most = MOST_FRACTIONS if tag.kind in _FRACTIONS else MOST_VALUES
        looked_at = tag.number < _PRIVATE or tag.number == _PROFILE
        if looked_at and tag.kind not in _BYTES and tag.values > most:
            raise ValueError(f"{what} whose tag {tag.number} has {tag.values:,} values, at most {most:,} are read")
    if sum(one for _, one in kept) > most_bytes:
        raise ValueError(f"{what} whose tags have more bytes than its file ({size:,})")
