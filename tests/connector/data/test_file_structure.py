"""Image files of very many parts are refused before Pillow sees them; those that programs write are read."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from semcut.connector.data import file_structure
from semcut.connector.data.images import UnreadableImage, fit, open_image
from semcut.connector.explore.picture_decoding import use_image


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


@pytest.mark.parametrize(
    ("content", "reason"),
    {
        "scans": (lambda: progressive(400_000), "more than 100 scans"),
        "scans of a small file": (lambda: progressive(101), "more than 100 scans"),
        "fill bytes": (lambda: progressive(200).replace(b"\xff\xda", b"\xff\xff\xff\xda"), "more than 100 scans"),
        "other markers": (lambda: progressive(200).replace(b"\xff\xda", b"ab\xff\xd0\xff\1\xff\xda"), "100 scans"),
        "segments": (lambda: progressive(2, between=segment(0xE1, b"") * 5000), "more than 4,096 segments or"),
        "later segments": (lambda: progressive(101, later=segment(0xE1, b"") * 70_000), "more than 65,536 segments"),
        "tables": (lambda: progressive(2, between=segment(0xDB, (b"\0" + b"\1" * 64) * 600) * 2), "bytes of tables"),
        "EXIF segments": (lambda: progressive(2, between=exif_segments(b"a" * 56) * 30_000), "64 segments or"),
        "EXIF behind an end": (lambda: progressive(2, between=b"\xff\xd9" + exif_segments() * 65), "64 segments or"),
        "EXIF behind a bare marker": (
            lambda: progressive(2, between=b"\xff\xf0\xff\xff" + exif_segments() * 65), "64 segments or"
        ),
        "fractions in EXIF": (lambda: progressive(2, between=exif_segments(fractions(30_000))), "30,000 values"),
        "tags of EXIF that overlap": (lambda: progressive(2, between=exif_segments(overlapping())), "more bytes than"),
        "beginnings of EXIF": (lambda: progressive(2, between=exif_segments(b"Exif\0\0" * 9000)), "more than twice"),
        "frames": (lambda: progressive(2, between=frame(1) * 2), "second frame header"),
        "a frame of many parts": (lambda: progressive(2, between=frame(1, 21_000)), "of a wrong size"),
        "hierarchies": (lambda: progressive(2, between=frame(1, kind=0xDE)), "second frame header"),
        "junk": (lambda: progressive(2, between=segment(0xE1, b"") + bytes(70_000)), "more than 65,536 bytes between"),
        "chunks": (lambda: png(16, 16, chunk(b"aaAa") * 600_000), "10,001 others"),
        "chunks of no pixels": (lambda: png(16, 16, chunk(b"IDAT") * 600_000), "chunks of pixels"),
        "texts": (lambda: png(16, 16, chunk(b"iTXt", b"a\0\1\0\xff\0\0") * 257), "more than 256 compressed"),
        "compressed texts": (lambda: png(16, 16, chunk(b"zTXt", b"\0\0") * 257), "more than 256 compressed"),
        "profiles": (lambda: png(16, 16, chunk(b"iCCP", b"a\0\0") * 17), "17 colour profiles"),
        "tiles": (lambda: raw_tiff(1024, 1 << 20, (1, 1)), "1,048,576 tiles"),
        "pixels over and over": (lambda: raw_tiff(64, 5000, (65, 64)), "states each of its pixels 5,000 times"),
        "tags that overlap": (
            lambda: raw_tiff(16, 1, (16, 16), tuple((40_000 + one, 1, 300, 0) for one in range(200))),
            "tags have more bytes than its file",
        ),
        "fractions": (
            lambda: raw_tiff(16, 1, (16, 16), ((282, 5, 5000, 8),)) + bytes(40_000),
            "whose tag 282 has 5,000 values",
        ),
        "numbers": (
            lambda: raw_tiff(16, 1, (16, 16), ((34_675, 3, 300_000, 8),)) + bytes(600_000),
            "whose tag 34675 has 300,000 values",
        ),
        "comments": (lambda: gif(b"!\xfe" + b"\1a" * 70_000 + b"\0"), "more than 65,536 blocks"),
        "extensions": (lambda: gif(b"!\xf9\4\0\0\0\0\0" * 70_000), "more than 65,536 blocks"),
        "a comment": (lambda: b"P5 #" + b"a" * 70_000 + b"\n1 1 255\n\0", "whose header has more than"),
        "a comment inside a number": (lambda: b"P6\n1#c\n1#c\n1#" + b"a" * 70_000, "whose header has more than"),
        "fill bytes between scans": (lambda: progressive(2, later=b"\xff" * 200_000), "very many bytes of 255"),
        "fill bytes in a photo": (lambda: photo().replace(b"\xff\xd9", b"\xff" * 200_000), "very many bytes of 255"),
        "fill bytes in many pieces": (
            lambda: photo().replace(b"\xff\xd9", (b"\xff" * 1000 + b"\0") * 200), "very many bytes of 255"
        ),
        "tags of an index that overlap": (
            lambda: progressive(2, between=segment(0xE2, b"MPF\0" + exif(((0xB000, 5, 5000),) * 900, bytes(40_000)))),
            "an index of pictures whose",
        ),
        "a side": (lambda: png(1 << 17, 1, bits=16), "at most 65,535 on each side"),
        "the other side": (lambda: png(1, 1 << 17, bits=16), "at most 65,535 on each side"),
    }.values(),
)  # fmt: skip
def test_files_of_very_many_parts_are_refused_at_once(content, reason):
    stream = io.BytesIO(content())
    start = time.process_time()
    for read in (open_image, lambda file: use_image(file, lambda image: image.size)):
        with pytest.raises(UnreadableImage, match=reason):
            read(stream)
    assert time.process_time() < start + 5


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
def test_files_of_some_parts_are_read(content, recwarn):  # Pillow warns of damaged EXIF data
    assert open_image(io.BytesIO(content())).width > 0


@pytest.mark.parametrize("options", [{"progressive": True}, {"quality": 95}, {"optimize": True, "progressive": True}])
def test_scans_are_found_wherever_blocks_end(options, monkeypatch: pytest.MonkeyPatch):
    content = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(content, "JPEG", **options)
    whole = content.getvalue()
    expected = 10 if "progressive" in options else 1
    for block in (2, 3, 7, 1000, 1 << 20):
        monkeypatch.setattr(file_structure, "_BLOCK", block)
        kinds = [kind for kind, *_ in file_structure._segments(io.BytesIO(whole))]
        assert kinds.count(0xDA) == expected
    monkeypatch.setattr(file_structure, "MOST_SCANS", expected - 1)
    with pytest.raises(UnreadableImage, match="scans"):
        open_image(io.BytesIO(whole))


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
    content = io.BytesIO(stored(fractions(1 << 17, 0x0112)))
    tracemalloc.start()
    try:
        assert open_image(content).size == (16, 8)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20  # the fractions would take 20 MB
    finally:
        tracemalloc.stop()


def test_directories_inside_a_tiff_are_not_read():
    count, start = 1 << 17, 14 + 12 * 10 + 4 + 16 * 16
    directory = struct.pack("<HHHII4x", 1, 0x9000, 5, count, start)
    content = raw_tiff(16, 1, (16, 16), ((34_665, 4, 1, start + 8 * count),))
    assert len(content) == start
    tracemalloc.start()
    try:
        read = open_image(io.BytesIO(content + struct.pack("<II", 1, 3) * count + directory))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20  # the fractions would take 20 MB
    finally:
        tracemalloc.stop()
    assert read.size == (16, 16)


def test_the_bytes_before_the_pixels_are_counted(monkeypatch: pytest.MonkeyPatch):
    content = progressive(2, between=segment(0xED, bytes(65_000)) * 3)
    assert open_image(io.BytesIO(content)).size == (64, 64)
    monkeypatch.setattr(file_structure, "HEADERS_BYTES", 190_000)
    with pytest.raises(UnreadableImage, match="or 190,000 bytes before its pixels"):
        open_image(io.BytesIO(content))
    with pytest.raises(UnreadableImage, match="190,000 bytes besides its pixels"):
        open_image(io.BytesIO(png(16, 16, chunk(b"aaAa", bytes(100_000)) * 2)))


def test_a_webp_file_that_is_far_larger_than_its_pixels_is_not_read(monkeypatch: pytest.MonkeyPatch):
    content = io.BytesIO()
    Image.new("RGB", (16, 16)).save(content, "WEBP")
    assert open_image(io.BytesIO(content.getvalue() + bytes(9000))).size == (16, 16)
    monkeypatch.setattr(file_structure, "WEBP_BYTES", 9000)
    with pytest.raises(UnreadableImage, match="at most 9,000 are read"):
        open_image(io.BytesIO(content.getvalue() + bytes(9000)))
