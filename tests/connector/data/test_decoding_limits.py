"""Images whose decoding would take time or memory out of proportion to their pixels are refused before it begins."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcut.connector.data import decoding_limits, images
from semcut.connector.data.images import UnreadableImage, open_image, read_batches

Tags = list[tuple[int, int]]


def tiff(tags: Tags, pixels: bytes, big: bool = False) -> io.BytesIO:
    """Make a deflated TIFF of 16 x 16 pixels; -1 becomes the offset of the pixels, -2 their bytes."""
    packed = zlib.compress(pixels)
    head, entry, number = (16, 20, "Q") if big else (8, 12, "I")
    tags = sorted([(256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1), *tags], key=lambda tag: tag[0])
    start = head + (8 if big else 2) + entry * len(tags) + (8 if big else 4)
    content = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) if big else b"II*\0" + struct.pack("<I", 8)
    content += struct.pack("<Q" if big else "<H", len(tags))
    for tag, value in tags:
        content += struct.pack("<HH" + 2 * number, tag, 4, 1, {-1: start, -2: len(packed)}.get(value, value))
    return io.BytesIO(content + bytes(8 if big else 4) + packed)


def tiles(width: int, height: int) -> Tags:
    return [(322, width), (323, height), (324, -1), (325, -2)]


def strips(height: int) -> Tags:
    return [(273, -1), (278, height), (279, -2)]


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_in_pieces_of_about_its_size_is_read(big):
    assert open_image(tiff(tiles(256, 256), bytes(1 << 16), big)).size == (16, 16)
    for height in (16, 8192, (1 << 32) - 1):
        assert open_image(tiff(strips(height), bytes(256), big)).size == (16, 16)


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_in_pieces_far_larger_than_itself_is_refused(big):
    for tags in (tiles(26_000, 26_000), tiles(1 << 20, 16)):
        with pytest.raises(UnreadableImage, match="16 x 16 pixels in pieces of"):
            open_image(tiff(tags, b"", big))
    with pytest.raises(UnreadableImage, match="states the same tag twice"):
        open_image(tiff([(322, 26_000), (323, 26_000), *tiles(16, 16)], b"", big))
    with pytest.raises(UnreadableImage, match="tiles have no size"):
        open_image(tiff([(322, 16), *strips(16)], b"", big))


def test_a_tiff_with_more_tags_than_are_read_is_refused():
    with pytest.raises(UnreadableImage, match="5,010 tags"):
        open_image(tiff([*strips(16), *((tag, 0) for tag in range(40_000, 45_001))], bytes(256)))


def test_the_file_of_a_compressed_tiff_is_bounded_by_its_pixels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding_limits, "SPARE_BYTES", 1 << 12)
    whole = tiff(strips(16), bytes(256)).getvalue()
    assert open_image(io.BytesIO(whole + bytes(4096))).size == (16, 16)
    with pytest.raises(UnreadableImage, match=r"a compressed TIFF of .* save its first page alone"):
        open_image(io.BytesIO(whole + bytes(5000)))


def test_large_compressed_tiffs_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding_limits, "LARGE_BYTES", 1000)
    content, decode, free = tiff(strips(16), bytes(256)).getvalue(), images._decode, []

    def decoded(image: Image.Image, *, own: bool) -> Image.Image:
        free.append(decoding_limits._large_file.acquire(blocking=False))
        if free[-1]:
            decoding_limits._large_file.release()
        return decode(image, own=own)

    monkeypatch.setattr(images, "_decode", decoded)
    for spare in (0, 2000):
        open_image(io.BytesIO(content + bytes(spare)))
    assert free == [True, False]


def test_a_negative_size_of_pieces_is_not_believed():
    content = tiff(tiles((1 << 32) - 16, 16), b"").getvalue()
    signed = content.replace(struct.pack("<HH", 322, 4), struct.pack("<HH", 322, 9))
    assert signed != content
    with pytest.raises(UnreadableImage, match="tiles have no size"):
        open_image(io.BytesIO(signed))


@pytest.mark.parametrize("kind", ["P1", "P2", "P3"])
def test_pixels_as_text_are_refused(kind, tmp_path: Path):
    (tmp_path / "a.ppm").write_text(f"{kind} 1 1 {'' if kind == 'P1' else 255}\n1 1 1\n")
    with pytest.raises(UnreadableImage, match="pixels as text"):
        open_image(tmp_path / "a.ppm")


def test_what_is_decoded_slowly_is_small():
    assert open_image(io.BytesIO(b"P6 10 10 15\n" + bytes(300))).size == (10, 10)
    with pytest.raises(UnreadableImage, match="decoded slowly"):
        open_image(io.BytesIO(b"P6 2000 2000 15\n"))
    header = struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 1078, 40, 9, 9, 1, 8, 1, 0, 0, 0, 256, 0)
    with pytest.raises(UnreadableImage, match="decoded slowly"):  # it runs over the end of one line again and again
        open_image(io.BytesIO(b"BM" + header + bytes(1024) + b"\1\1" * (1 << 21)))


def test_a_tiff_that_becomes_shorter_while_it_is_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file that libtiff has mapped would end the process."""
    path = tmp_path / "a.tif"
    noise = np.random.default_rng(0).integers(0, 255, (500, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, compression="tiff_adobe_deflate")
    decode = images._decode

    def cut(image: Image.Image, *, own: bool) -> Image.Image:
        assert not hasattr(image.fp, "fileno")
        os.truncate(path, 4096)
        return decode(image, own=own)

    monkeypatch.setattr(images, "_decode", cut)
    with pytest.raises(UnreadableImage, match="broken image"):
        open_image(path)


def test_a_reader_that_is_interrupted_waits_for_no_image(monkeypatch: pytest.MonkeyPatch):
    begun, end, decoded = threading.Semaphore(0), threading.Event(), []

    def decode(file: str) -> Image.Image:
        decoded.append(file)
        begun.release()
        if int(file) >= 4:
            end.wait(30)
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr(images, "open_image", decode)
    batches = read_batches([str(number) for number in range(100)], 4, 4)
    try:
        next(batches)
        for _ in range(6):  # those of the first batch, and two that do not end
            assert begun.acquire(timeout=30)
        start = time.monotonic()
        batches.close()
        assert time.monotonic() < start + 10
    finally:
        end.set()
    assert len(decoded) == 6
