"""Image files of very many parts, and of parts far larger than the picture: each costs its limits, and nothing else.

Some of them are decoded within their limits, and then they are images like others.
"""

from __future__ import annotations

import io
import resource
import struct
import time
import zlib
from contextlib import suppress

import pytest
from PIL import Image

from semcut.connector.data.decode_stream import fit
from semcut.connector.data.decoding_pool import Limits
from semcut.connector.data.images import UnreadableImage, fitted_pixels, open_image

BOUNDS = Limits(first=1 << 26, most=1 << 28, seconds=0.5)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


Tags = list[tuple[int, int]]


def tiff(tags: Tags, pixels: bytes, big: bool = False) -> bytes:
    """Make a deflated TIFF of 16 x 16 pixels; -1 becomes the offset of the pixels, -2 their bytes."""
    packed = zlib.compress(pixels)
    head, entry, number = (16, 20, "Q") if big else (8, 12, "I")
    tags = sorted([(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), *tags], key=lambda tag: tag[0])
    start = head + (8 if big else 2) + entry * len(tags) + (8 if big else 4)
    content = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<I", 8)
    content += struct.pack("<Q" if big else "<H", len(tags))
    for tag, value in tags:
        content += struct.pack("<HH" + 2 * number, tag, 4, 1, {-1: start, -2: len(packed)}.get(value, value))
    return content + bytes(8 if big else 4) + packed


def tiles(width: int, height: int) -> Tags:
    return [(322, width), (323, height), (324, -1), (325, -2)]


def strips(height: int) -> Tags:
    return [(273, -1), (278, height), (279, -2)]


def shared_strips(kind: int) -> bytes:
    """A compressed TIFF each of whose strips is said to have most of the file; `kind` is the type of that tag."""
    content = io.BytesIO()
    Image.new("L", (16, 512)).save(content, "TIFF", compression="tiff_deflate", strip_size=16)
    shared = content.getvalue().replace(struct.pack("<H", 11) * 512, struct.pack("<H", 5000) * 512)
    return shared.replace(struct.pack("<HHI", 279, 3, 512), struct.pack("<HHI", 279, kind, 512))


def runs_over_one_line() -> bytes:
    header = struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 1078, 40, 9, 9, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + header + bytes(1024) + b"\1\1" * (1 << 22)


def webp_header(width: int, height: int) -> bytes:
    """A lossless WebP file that ends behind its header."""
    bits = (width - 1) | (height - 1) << 14 | 1 << 28
    body = b"VP8L" + struct.pack("<IBI", 5, 0x2F, bits) + b"\0"
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def segment(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(content) + 2) + content


def progressive(scans: int, side: int = 64, between: bytes = b"", later: bytes = b"") -> bytes:
    """A grey JPEG file whose scans, but the first, are empty: each goes over all pixels."""
    content = b"\xff\xd8" + between + segment(0xDB, b"\0" + b"\1" * 64)
    content += segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    content += segment(0xC4, b"\0\1" + bytes(16)) + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    content += segment(0xDA, b"\1\1" + bytes(4)) + later
    return content + segment(0xDA, b"\1\1\0\1\x3f\0") * (scans - 1) + b"\xff\xd9"


def frame(parts: int, stated: int | None = None, kind: int = 0xC0) -> bytes:
    """A frame header, of more parts than it states if that is asked for."""
    return segment(kind, struct.pack(">BHHB", 8, 64, 64, parts) + b"\1\x11\0" * (stated or parts))


def photo() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (64, 64)).save(content, "JPEG", restart_marker_blocks=4)
    return content.getvalue()


def exif_segments(content: bytes = b"") -> bytes:
    pieces = [content[start : start + 65_000] for start in range(0, len(content), 65_000)]
    return b"".join(segment(0xE1, b"Exif\0\0" + piece) for piece in pieces or [b""])


def exif(tags: tuple[tuple[int, int, int], ...], content: bytes) -> bytes:
    """EXIF data whose tags all begin where the content does."""
    start = 14 + 12 * len(tags)
    entries = b"".join(struct.pack("<HHII", *tag, start) for tag in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + content


def fractions(count: int, tag: int = 0x011A) -> bytes:
    return exif(((tag, 5, count),), struct.pack("<II", 1, 7) * count)


def overlapping() -> bytes:
    return exif(tuple((tag, 7, 60_000) for tag in range(40_000, 40_400)), bytes(60_000))


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, extra: bytes = b"", piece: int = 1 << 16, bits: int = 8) -> bytes:
    pixels = zlib.compress((bytes(1 + width * bits // 8)) * height)
    pieces = [pixels[start : start + piece] for start in range(0, len(pixels), piece)]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + b"".join(chunk(b"IDAT", one) for one in pieces) + chunk(b"IEND")


def raw_tiff(
    side: int, offsets: int, tile: tuple[int, int], extra: tuple[tuple[int, int, int, int], ...] = ()
) -> bytes:
    """An uncompressed grey TIFF in tiles that are all the same bytes."""
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    tags += [(322, 4, 1, tile[0]), (323, 4, 1, tile[1]), (324, 4, offsets, 14 + 12 * (9 + len(extra))), *extra]
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return content + bytes(4) + struct.pack("<I", 8) * offsets + bytes(side * side)


def gif(blocks: bytes) -> bytes:
    content = io.BytesIO()
    Image.new("P", (16, 16)).save(content, "GIF")
    plain = content.getvalue()
    start = 13 + (3 << (plain[10] & 7) + 1 if plain[10] & 0x80 else 0)
    return plain[:start] + blocks + plain[start:]


ATTACKS = {
    "scans": lambda: progressive(400_000),
    "scans of a small file": lambda: progressive(101),
    "fill bytes": lambda: progressive(200).replace(b"\xff\xda", b"\xff\xff\xff\xda"),
    "other markers": lambda: progressive(200).replace(b"\xff\xda", b"ab\xff\xd0\xff\1\xff\xda"),
    "segments": lambda: progressive(2, between=segment(0xE1, b"") * 5000),
    "later segments": lambda: progressive(101, later=segment(0xE1, b"") * 70_000),
    "tables": lambda: progressive(2, between=segment(0xDB, (b"\0" + b"\1" * 64) * 600) * 2),
    "EXIF segments": lambda: progressive(2, between=exif_segments(b"a" * 56) * 30_000),
    "EXIF behind an end": lambda: progressive(2, between=b"\xff\xd9" + exif_segments() * 65),
    "EXIF behind a bare marker": lambda: progressive(2, between=b"\xff\xf0\xff\xff" + exif_segments() * 65),
    "fractions in EXIF": lambda: progressive(2, between=exif_segments(fractions(30_000))),
    "tags of EXIF that overlap": lambda: progressive(2, between=exif_segments(overlapping())),
    "beginnings of EXIF": lambda: progressive(2, between=exif_segments(b"Exif\0\0" * 9000)),
    "frames": lambda: progressive(2, between=frame(1) * 2),
    "a frame of many parts": lambda: progressive(2, between=frame(1, 21_000)),
    "hierarchies": lambda: progressive(2, between=frame(1, kind=0xDE)),
    "junk": lambda: progressive(2, between=segment(0xE1, b"") + bytes(70_000)),
    "chunks": lambda: png(16, 16, chunk(b"aaAa") * 600_000),
    "chunks of no pixels": lambda: png(16, 16, chunk(b"IDAT") * 600_000),
    "texts": lambda: png(16, 16, chunk(b"iTXt", b"a\0\1\0\xff\0\0") * 257),
    "compressed texts": lambda: png(16, 16, chunk(b"zTXt", b"\0\0") * 257),
    "profiles": lambda: png(16, 16, chunk(b"iCCP", b"a\0\0") * 17),
    "tiles": lambda: raw_tiff(1024, 1 << 20, (1, 1)),
    "pixels over and over": lambda: raw_tiff(64, 5000, (65, 64)),
    "tags that overlap": lambda: raw_tiff(16, 1, (16, 16), tuple((40_000 + one, 1, 300, 0) for one in range(200))),
    "fractions": lambda: raw_tiff(16, 1, (16, 16), ((282, 5, 5000, 8),)) + bytes(40_000),
    "numbers": lambda: raw_tiff(16, 1, (16, 16), ((34_675, 3, 300_000, 8),)) + bytes(600_000),
    "comments": lambda: gif(b"!\xfe" + b"\1a" * 70_000 + b"\0"),
    "extensions": lambda: gif(b"!\xf9\4\0\0\0\0\0" * 70_000),
    "a comment": lambda: b"P5 #" + b"a" * 70_000 + b"\n1 1 255\n\0",
    "a comment inside a number": lambda: b"P6\n1#c\n1#c\n1#" + b"a" * 70_000,
    "fill bytes between scans": lambda: progressive(2, later=b"\xff" * 200_000),
    "fill bytes in a photo": lambda: photo().replace(b"\xff\xd9", b"\xff" * 200_000),
    "fill bytes in many pieces": lambda: photo().replace(b"\xff\xd9", (b"\xff" * 1000 + b"\0") * 200),
    "tags of an index that overlap": lambda: progressive(
        2, between=segment(0xE2, b"MPF\0" + exif(((0xB000, 5, 5000),) * 900, bytes(40_000)))
    ),
    "a side": lambda: png(1 << 17, 1, bits=16),
    "the other side": lambda: png(1, 1 << 17, bits=16),
    "a tile of a gigabyte": lambda: tiff(tiles(26_000, 26_000), b""),
    "a long tile": lambda: tiff(tiles(1 << 20, 16), b""),
    "a tile of two sizes": lambda: tiff([(322, 26_000), (323, 26_000), *tiles(16, 16)], b""),
    "a tile of a negative size": lambda: tiff(tiles((1 << 32) - 16, 16), b""),
    "a tile of a size": lambda: tiff([(322, 16), *strips(16)], b""),
    "very many tags": lambda: tiff([*strips(16), *((tag, 0) for tag in range(40_000, 65_000))], bytes(256)),
    "strips that share their bytes": lambda: shared_strips(3),
    "strips that share their bytes, as only libtiff sees": lambda: shared_strips(17),
    "pixels as text": lambda: b"P3 8000 8000 255\n" + b"1 " * 9_000_000,
    "PPM of an unusual depth": lambda: b"P6 3000 3000 15\n" + bytes(27_000_000),
    "a BMP file that runs over one line": lambda: runs_over_one_line(),
    "a WebP canvas": lambda: webp_header(16_383, 4096),
    "a picture of nothing": lambda: png(8192, 8192),
}  # fmt: skip


@pytest.mark.parametrize("content", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_costs_a_moment_and_the_next_image_is_read(content):
    stream, good = io.BytesIO(content()), io.BytesIO(png(16, 16))
    before, start = peak_bytes(), time.process_time()
    with suppress(UnreadableImage):
        assert fitted_pixels(stream, 32, BOUNDS).shape == (3, 32, 32)
    assert peak_bytes() < before + (16 << 20) + 2 * len(stream.getvalue())
    assert time.process_time() < start + 1
    assert fitted_pixels(good, 32, BOUNDS).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("EXIF segments", "takes more than 0.1 s of processor time to decode"),
        ("chunks", "takes more than 0.1 s of processor time to decode"),
        ("a BMP file that runs over one line", "takes more than 0.1 s of processor time to decode"),
        ("a tile of a gigabyte", r"takes more than 268,435,456 bytes|broken image"),
        ("a WebP canvas", r"takes more than 268,435,456 bytes|broken image"),
        ("a picture of nothing", "takes more than 268,435,456 bytes of memory to decode"),
        ("a side", "at most 65,535 on each side"),
        ("the other side", "at most 65,535 on each side"),
    ],
)
def test_an_attack_gets_a_reason(name, reason):
    with pytest.raises(UnreadableImage, match=reason):
        fitted_pixels(io.BytesIO(ATTACKS[name]()), 32, BOUNDS._replace(seconds=0.1))


@pytest.mark.parametrize(
    "content",
    {
        "scans": lambda: progressive(100),
        "a photo": lambda: progressive(2, between=b"".join(segment(kind, bytes(9)) for kind in range(0xE0, 0xF0)) * 50),
        "much EXIF": lambda: progressive(2, between=exif_segments(exif(((0x010E, 2, 9),), bytes(4_000_000)))),
        "damaged EXIF": lambda: progressive(2, between=exif_segments(exif(((0x0112, 5, 9000),) * 99, bytes(60_000)))),
        "a preview": lambda: progressive(2, between=segment(0xE2, progressive(9) * 9)),
        "EXIF behind segments": lambda: progressive(2, between=(segment(0xE1, b"") + b"Exif\0\0") * 65),
        "two photos": lambda: progressive(2) + progressive(2),
        "a long description": lambda: raw_tiff(16, 1, (16, 16), ((270, 2, 500_000, 8),)) + bytes(500_000),
        "scans in other data": lambda: progressive(2, between=segment(0xE2, b"\xff\xda" * 300)),
        "fill bytes in other data": lambda: progressive(2, between=segment(0xE2, b"\xff" * 65_000)),
        "fill bytes behind the end": lambda: photo() + b"\xff" * 200_000,
        "data behind the end": lambda: progressive(2) + b"\xff\xda\0\4" * 300,
        "chunks": lambda: png(16, 16, chunk(b"aaAa") * 9_000),
        "small chunks": lambda: png(64, 64, piece=1),
        "tiles": lambda: raw_tiff(128, 16_384, (1, 1)),
        "one tile": lambda: raw_tiff(16, 1, (32, 32)) + bytes(2000),
        "comments": lambda: gif((b"!\xfe" + b"\xff" + b"a" * 255 + b"\0") * 1000),
        "a comment": lambda: b"P5 #" + b"a" * 1000 + b"\n100 1000 255\n" + bytes(100_000),
        "bits": lambda: b"P4 1000 1000\n" + bytes(125_000),
    }.values(),
)  # fmt: skip
def test_files_of_some_parts_are_read(content):
    assert open_image(io.BytesIO(content())).width > 0


@pytest.mark.parametrize("size", [(65_535, 1), (1, 65_535)])
def test_pictures_that_are_very_long_become_small_ones(size):
    image = open_image(io.BytesIO(png(*size, bits=16)))
    assert image.size == size
    assert fit(image, 32).shape == (3, 32, 32)


@pytest.mark.parametrize("name", ["PNG", "PNG as text", "WEBP"])
def test_a_picture_whose_exif_data_have_very_many_values_is_shown_as_it_is_stored(name):
    def stored(data: bytes) -> bytes:
        text = b"Raw profile type exif\0\n\n\n" + data.hex().encode()
        if name != "WEBP":
            return png(16, 8, chunk(b"eXIf", data) if name == "PNG" else chunk(b"tEXt", text))
        content = io.BytesIO()
        Image.new("RGB", (16, 8)).save(content, "WEBP", exif=b"Exif\0\0" + data)
        return content.getvalue()

    turned = exif(((0x0112, 3, 1),), b"").replace(struct.pack("<II", 1, 26), struct.pack("<II", 1, 6))
    assert open_image(io.BytesIO(stored(turned))).size == (8, 16)
    assert open_image(io.BytesIO(stored(fractions(1 << 17, 0x0112)))).size == (16, 8)


def test_a_tiff_with_a_large_directory_inside_is_read():
    count, start = 1 << 17, 14 + 12 * 10 + 4 + 16 * 16
    directory = struct.pack("<HHHII4x", 1, 0x9000, 5, count, start)
    content = raw_tiff(16, 1, (16, 16), ((34_665, 4, 1, start + 8 * count),))
    assert len(content) == start
    assert open_image(io.BytesIO(content + struct.pack("<II", 1, 3) * count + directory)).size == (16, 16)
