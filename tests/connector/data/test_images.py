"""Reading a folder with files of any kind: images are read, every other file is skipped with a reason."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from semcut.connector.data import images
from semcut.connector.data.images import (
    MAX_PIXELS,
    ImageBatch,
    UnreadableImage,
    fit,
    load_pixels,
    open_image,
    read_batches,
)
from semcut.indexes.errors import DataError


def bomb(path: Path, side: int) -> Path:
    """Write a PNG file without pixels whose valid header claims side x side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    return path


def test_files_that_are_not_images_are_skipped_and_reported(tmp_path: Path) -> None:
    good = tmp_path / "a.png"
    Image.new("RGB", (9, 7), (1, 2, 3)).save(good)
    text = tmp_path / "b.txt"
    text.write_text("not an image")
    cut = tmp_path / "c.jpg"
    Image.effect_noise((64, 64), 50).save(cut, quality=95)
    cut.write_bytes(cut.read_bytes()[:600])
    empty = tmp_path / "d.png"
    empty.write_bytes(b"")
    huge = bomb(tmp_path / "e.png", 60_000)
    files = [str(path) for path in (good, text, cut, empty, huge, tmp_path / "missing.png", tmp_path)]
    (batch,) = read_batches(files, 8, 16)
    assert batch.positions.tolist() == [0]
    assert batch.pixels.shape == (1, 3, 8, 8)
    reasons = dict(batch.skipped)
    assert set(reasons) == set(files[1:])
    assert "not an image" in reasons[str(text)]
    assert "broken" in reasons[str(cut)]
    assert f"at most {MAX_PIXELS}" in reasons[str(huge)]
    assert "no such file" in reasons[str(tmp_path / "missing.png")]


def test_batches_keep_the_order_of_files(tmp_path: Path) -> None:
    files = []
    for number in range(23):
        path = tmp_path / f"{number:02d}.png"
        Image.new("RGB", (5, 5), (number, 0, 0)).save(path)
        files.append(str(path))
    batches = list(read_batches(files, 5, 4, workers=3))
    assert [len(batch.positions) for batch in batches] == [4, 4, 4, 4, 4, 3]
    assert np.concatenate([batch.positions for batch in batches]).tolist() == list(range(23))
    assert np.concatenate([batch.pixels[:, 0, 0, 0] for batch in batches]).tolist() == list(range(23))


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), "black")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (4, 8)


def test_fit_takes_the_middle_square() -> None:
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, 4:8, 1] = 255
    square = fit(Image.fromarray(pixels), 4)
    assert square.shape == (3, 4, 4)
    assert (square[1] == 255).all()
    assert (square[0] == 0).all()


def test_an_image_that_cannot_be_read_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.png: no such file"):
        load_pixels(tmp_path / "missing.png", 8)


def test_formats_for_which_pillow_starts_other_programs_are_not_images(tmp_path: Path) -> None:
    Image.new("RGB", (9, 7)).save(tmp_path / "a.eps", "EPS")
    with pytest.raises(DataError, match="not an image"):
        load_pixels(tmp_path / "a.eps", 8)


def test_a_reader_that_is_stopped_decodes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl-C: it does not wait either."""
    started: list[str] = []
    go_on = threading.Event()

    def decode(file: str, *rest: object) -> Image.Image:
        started.append(file)
        if int(file) >= 50:
            go_on.wait(10)
        raise UnreadableImage("none")

    monkeypatch.setattr(images, "fitted_pixels", decode)
    before = set(threading.enumerate())
    batches = cast("Generator[ImageBatch, None, None]", read_batches([str(i) for i in range(1000)], 8, 50))
    assert len(next(batches).skipped) == 50
    batches.close()
    waiting = set(threading.enumerate()) - before
    assert waiting
    go_on.set()
    for thread in waiting:
        thread.join()
    assert len(started) <= 52
