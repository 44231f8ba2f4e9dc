"""Images whose decoding would take time or memory out of proportion to their pixels are refused before it begins."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import zlib
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcut.connector.data import decoding_limits, images
from semcut.connector.data.images import UnreadableImage, open_image, read_batches
from semcut.connector.explore.picture_decoding import _is_large

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


def webp(side: int, **settings: object) -> io.BytesIO:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 4), np.uint8)
    noise[..., 3] |= 0 if settings.pop("alpha", False) else 255
    content = io.BytesIO()
    Image.fromarray(noise).convert("RGBA").save(content, "WEBP", method=0, **settings)
    return content


def jpeg_header(width: int, height: int) -> io.BytesIO:
    """A photo without pixels."""
    content = io.BytesIO()
    Image.new("RGB", (16, 16)).save(content, "JPEG")
    return io.BytesIO(content.getvalue().replace(struct.pack(">HH", 16, 16), struct.pack(">HH", height, width)))


def decoded_at_once(
    content: io.BytesIO, workers: int, expected: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Return how many of `workers` images, which wait for as many as expected, are decoded at the same time."""
    paths = [folder / str(number) for number in range(workers)]
    for path in paths:
        path.write_bytes(content.getvalue())
    enough, lock, inside, most = threading.Event(), threading.Lock(), 0, 0

    def decode(image: Image.Image, *, own: bool) -> Image.Image:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
            if inside == expected:
                enough.set()
        enough.wait(20)
        time.sleep(0.02)  # for those that should wait
        with lock:
            inside -= 1
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr(images, "_decode", decode)
    batches = list(read_batches(list(map(str, paths)), 4, workers, workers))
    assert [len(batch.positions) for batch in batches] == [workers]
    return most


@pytest.mark.parametrize("side", [(4000, 3000), (8000, 6000)])
def test_ordinary_photos_are_decoded_by_all_workers(side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert decoded_at_once(jpeg_header(*side), 4, 4, tmp_path, monkeypatch) == 4


def test_images_that_take_much_memory_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding_limits, "MEMORY_BYTES", 40 << 20)
    small = tiff(strips(16), bytes(256)).getvalue()
    for content, together in (
        (webp(128), 5),
        (webp(128, lossless=True), 2),
        (io.BytesIO(small), 5),
        (io.BytesIO(small + bytes(9 << 20)), 2),
        (io.BytesIO(small + bytes(30 << 20)), 1),
    ):
        assert decoded_at_once(content, 5, together, tmp_path, monkeypatch) == together


def test_a_compressed_tiff_whose_strips_share_their_bytes_is_refused():
    content = io.BytesIO()
    Image.new("L", (16, 512)).save(content, "TIFF", compression="tiff_deflate", strip_size=16)
    honest, counts = content.getvalue(), struct.pack("<H", 11) * 512
    assert honest.count(counts) == 1
    assert open_image(io.BytesIO(honest)).size == (16, 512)
    with pytest.raises(UnreadableImage, match="whose pieces have more bytes than its file"):
        open_image(io.BytesIO(honest.replace(counts, struct.pack("<H", 5000) * 512)))
    tag = struct.pack("<HHI", 279, 3, 512)
    assert honest.count(tag) == 1
    with pytest.raises(UnreadableImage, match="whose tag 279 is of a type that is not read"):  # libtiff reads it
        open_image(io.BytesIO(honest.replace(tag, struct.pack("<HHI", 279, 17, 512))))


def test_a_forked_child_has_all_of_the_memory():
    with decoding_limits._memory.share(decoding_limits.MEMORY_BYTES):
        child = os.fork()
        if not child:
            with decoding_limits._memory.share(decoding_limits.MEMORY_BYTES):
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_an_image_takes_its_memory_until_it_is_used(monkeypatch: pytest.MonkeyPatch):
    with images.decoded(tiff(strips(16), bytes(256))):
        assert decoding_limits._memory.taken > 4 * 16 * 16
    with pytest.raises(UnreadableImage), images.decoded(tiff(strips(16), b"")):
        pass
    for progressive, pixel in ((False, 8), (True, 16)):
        photo = io.BytesIO()
        Image.new("RGB", (20, 10)).save(photo, "JPEG", progressive=progressive)
        with images.decoded(photo):
            assert decoding_limits._memory.taken == 200 * pixel
    assert decoding_limits._memory.taken == 0


@pytest.mark.parametrize(
    ("settings", "tables"),
    [
        ({}, False),
        ({"exif": b"a"}, False),
        ({"lossless": True}, True),
        ({"alpha": True}, True),
        ({"animated": 1}, True),
    ],
)
def test_a_webp_file_that_may_have_many_tables_counts_as_large(settings, tables):
    if settings.pop("animated", False):
        settings = {"save_all": True, "append_images": [Image.new("RGB", (512, 512))], "lossless": True}
    content = webp(512, **settings)
    assert _is_large(content) == tables
    with Image.open(content) as image:
        expected = (14 << 10) * 128 * 128 if tables else 0
        assert decoding_limits.memory_besides_pixels(image, content, len(content.getvalue())) == expected


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

    monkeypatch.setattr(images, "decoded", lambda file: nullcontext(decode(file)))
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
