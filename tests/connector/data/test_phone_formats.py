"""HEIC, as phones write it, and AVIF: decoded as other formats are, or named with the reason."""

from __future__ import annotations

import io
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from semcut.connector.data import decode_stream
from semcut.connector.data.images import UnreadableImage, open_image, stated_size


def encoded(name: str, **settings: object) -> bytes:
    """Encode a picture of two colours above a third."""
    if name == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    pixels = np.zeros((120, 200, 3), np.uint8)
    pixels[:, :100], pixels[60:] = (200, 30, 30), (20, 180, 40)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, name, quality=90, **settings)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["HEIF", "AVIF"])
def test_a_picture_is_decoded_and_turned_upright(name: str, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(encoded(name))
    picture = np.asarray(open_image(tmp_path / "picture"), int)
    assert picture.shape == (120, 200, 3)
    for place, colour in (((20, 20), (200, 30, 30)), ((20, 180), (0, 0, 0)), ((100, 100), (20, 180, 40))):
        assert np.abs(picture[place] - colour).max() < 12
    assert stated_size(tmp_path / "picture") == (200, 120)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = open_image(io.BytesIO(encoded(name, exif=exif.tobytes())))
    assert turned.size == (120, 200)
    assert np.abs(np.asarray(turned, int)[20, 100] - (200, 30, 30)).max() < 12


@pytest.mark.parametrize("name", ["HEIF", "AVIF"])
def test_a_broken_picture_is_an_error_with_a_reason(name: str) -> None:
    content, draw = encoded(name), random.Random(0)
    read = 0
    for _ in range(60):
        broken = bytearray(content)
        for _ in range(draw.choice((1, 2, 8))):
            broken[draw.randrange(min(len(broken), 400))] = draw.randrange(256)
        try:
            open_image(io.BytesIO(bytes(broken[: draw.randrange(20, len(broken) + 60)])))
            read += 1
        except UnreadableImage:  # and no other error
            continue
    assert read < 60


def test_a_heic_picture_without_pillow_heif_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded("HEIF")
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(decode_stream, "find_spec", lambda name: None)
    with pytest.raises(UnreadableImage, match="a HEIC picture, which needs pillow-heif: ") as error:
        decode_stream.read_header(io.BytesIO(content))
    assert error.value.passing
    monkeypatch.setattr(decode_stream, "find_spec", lambda name: "found")
    with pytest.raises(decode_stream.MoreMemory, match="pillow-heif cannot be loaded"):
        decode_stream.read_header(io.BytesIO(content))
