"""Photos of more pixels than are decoded: JPEG files are decoded at a smaller scale, if that takes little memory."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcut.connector.data import decoding_limits, images
from semcut.connector.data.images import UnreadableImage, open_image
from semcut.connector.explore.picture_decoding import _is_large

SIDE = 512
RAMP = np.tile(np.linspace(0, 255, SIDE), (SIDE, 1))
PICTURE = Image.fromarray(np.stack([RAMP, RAMP.T, 255 - RAMP], -1).astype(np.uint8))


def jpeg(**settings: object) -> io.BytesIO:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "JPEG", quality=95, **settings)
    return buffer


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_large_photo_is_decoded_at_the_largest_scale_that_fits(scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", (SIDE // scale) ** 2)
    found = open_image(jpeg())
    assert found.size == (SIDE // scale, SIDE // scale)
    assert np.abs(np.asarray(found, int) - np.asarray(PICTURE.reduce(scale), int)).max() < 6
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.asarray(open_image(jpeg(exif=exif)), int)
    assert np.abs(turned - np.rot90(np.asarray(PICTURE.reduce(scale), int), -1)).max() < 6


def test_a_large_photo_that_would_take_too_much_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", SIDE**2 // 4)
    with pytest.raises(UnreadableImage, match=r"several scans \(progressive\): save it as a baseline one"):
        open_image(jpeg(progressive=True))
    monkeypatch.setattr(images, "MAX_PIXELS", SIDE**2 // 65)
    with pytest.raises(UnreadableImage, match="512 x 512 pixels, at most"):
        open_image(jpeg())
    monkeypatch.setattr(decoding_limits, "SCALED_PIXELS", SIDE**2 - 1)
    with pytest.raises(UnreadableImage, match="262,144 pixels, at most 262,143 of a JPEG file"):
        open_image(jpeg())


def test_scans_with_some_of_the_components_are_refused_also_if_the_file_calls_itself_baseline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", SIDE**2 // 4)
    content = bytearray(jpeg().getvalue())
    scan = content.index(b"\xff\xda")
    assert content[scan + 4] == 3
    content[scan + 4] = 1
    with pytest.raises(UnreadableImage, match="several scans"):
        open_image(io.BytesIO(bytes(content)))


def test_files_that_claim_more_pixels_than_pillow_warns_of_are_named_by_their_size(tmp_path: Path) -> None:
    """Of 108 and 200 megapixels: no word of bombs, and no warning of Pillow."""
    content = bytearray(jpeg().getvalue())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = (9000).to_bytes(2, "big") + (12000).to_bytes(2, "big")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _is_large(io.BytesIO(bytes(content)))
        assert open_image(io.BytesIO(bytes(content))).size == (6000, 4500)
        for width, height in ((12_000, 9_000), (16_320, 12_240)):
            name = tmp_path / "a.ppm"
            name.write_bytes(b"P6 %d %d 255\n" % (width, height))
            with pytest.raises(
                UnreadableImage, match=f"^{width} x {height} pixels, at most 67108864 are decoded: save it"
            ):
                open_image(name)


def test_a_picture_that_pillow_opened_but_cannot_decode_is_refused_with_a_reason() -> None:
    cut = io.BytesIO(jpeg().getvalue()[:3000])
    with pytest.raises(UnreadableImage, match="broken image: image file is truncated"):
        open_image(Image.open(cut))
