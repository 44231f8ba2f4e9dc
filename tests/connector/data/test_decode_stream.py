"""Photos of more pixels than are decoded: JPEG files are decoded at a smaller scale."""

from __future__ import annotations

import errno
import io
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcut.connector.data import decode_stream
from semcut.connector.data.decode_stream import MoreMemory, PassingReason, UnreadableImage
from semcut.connector.data.images import open_image, stated_size

SIDE = 512
RAMP = np.tile(np.linspace(0, 255, SIDE), (SIDE, 1))
PICTURE = Image.fromarray(np.stack([RAMP, RAMP.T, 255 - RAMP], -1).astype(np.uint8))


def jpeg(**settings: object) -> io.BytesIO:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "JPEG", quality=95, **settings)
    return buffer


def decoded(stream: io.BytesIO, memory: int = 1 << 30) -> Image.Image:
    """Decode an image in this process, whose limits a test can change."""
    return decode_stream.decode_stream(stream, memory)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_large_photo_is_decoded_at_the_largest_scale_that_fits(
    scale: int, progressive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_stream, "MAX_PIXELS", (SIDE // scale) ** 2)
    found = decoded(jpeg(progressive=progressive))
    assert found.size == (SIDE // scale, SIDE // scale)
    assert np.abs(np.asarray(found, int) - np.asarray(PICTURE.reduce(scale), int)).max() < 6
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.asarray(decoded(jpeg(exif=exif)), int)
    assert np.abs(turned - np.rot90(np.asarray(PICTURE.reduce(scale), int), -1)).max() < 6


def test_a_photo_of_too_many_pixels_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_stream, "MAX_PIXELS", SIDE**2 // 65)
    with pytest.raises(UnreadableImage, match="512 x 512 pixels, at most"):
        decoded(jpeg())
    monkeypatch.setattr(decode_stream, "SCALED_PIXELS", SIDE**2 - 1)
    with pytest.raises(UnreadableImage, match="262,144 pixels, at most 262,143 of a JPEG file"):
        decoded(jpeg())


def test_files_that_claim_more_pixels_than_pillow_warns_of_are_named_by_their_size(tmp_path: Path) -> None:
    """Of 108 and 200 megapixels: no word of bombs, and no warning of Pillow."""
    content = bytearray(jpeg().getvalue())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = (9000).to_bytes(2, "big") + (12000).to_bytes(2, "big")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stated_size(io.BytesIO(bytes(content))) == (12_000, 9_000)
        assert decoded(io.BytesIO(bytes(content))).size == (6000, 4500)
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


def test_more_memory_is_asked_for_where_it_may_help() -> None:
    cut = jpeg().getvalue()[:3000]
    with pytest.raises(UnreadableImage, match=r"^broken image: image file is truncated") as broken:
        decoded(io.BytesIO(cut))
    assert not isinstance(broken.value, MoreMemory)
    with pytest.raises(MoreMemory, match=r"^broken image, or one that takes more than 10,000,000 bytes"):
        decoded(io.BytesIO(cut), 10_000_000)
    with pytest.raises(MoreMemory, match=r"^takes more than 2,000,000 bytes of memory to decode$"):
        decoded(jpeg(), 2_000_000)


def test_a_failure_while_the_machine_has_no_memory_says_nothing_about_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_stream, "_is_there", lambda count: False)
    with pytest.raises(MoreMemory, match="broken image, or one that"):
        decoded(io.BytesIO(jpeg().getvalue()[:3000]))


@pytest.mark.parametrize("good", [0, 1, 2, 6])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF"])
def test_a_disk_that_fails_says_nothing_about_the_file(kind: str, good: int, tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        left = good

        def read(self, count: int | None = -1) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(count)

    PICTURE.save(tmp_path / "picture", kind)
    with pytest.raises(UnreadableImage, match="cannot be read: Input/output error") as error:
        decoded(Failing((tmp_path / "picture").read_bytes()))
    assert isinstance(error.value.reason, PassingReason)


def test_a_disk_whose_failure_a_decoder_passes_over_gives_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            if count == 77:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(count)

    def passed_over(image: Image.Image, *, own: bool) -> Image.Image:
        with suppress(OSError):
            image.fp.read(77)  # type: ignore[attr-defined]
        return PICTURE

    monkeypatch.setattr(decode_stream, "upright", passed_over)
    with pytest.raises(UnreadableImage, match="cannot be read"):
        decoded(Failing(jpeg().getvalue()))


@pytest.mark.parametrize("missing", ["plugin", "library", "decoder"])
def test_a_format_that_pillow_was_built_without_says_nothing_about_the_file(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"\0\0\0\x1cftypavif" + bytes(40)
    if missing == "plugin":
        monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    elif missing == "library":
        monkeypatch.setitem(Image.OPEN, "AVIF", (Image.Image, lambda start: "AVIF support not installed"))
    else:
        content = jpeg().getvalue()
        monkeypatch.delattr(Image.core, "jpeg_decoder")
    with pytest.raises(UnreadableImage, match=r"this Pillow cannot read it|needs Pillow") as error:
        decoded(io.BytesIO(content))
    assert isinstance(error.value.reason, PassingReason)


def test_memory_that_ends_while_exif_data_are_read_does_not_leave_the_picture_lying(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_memory(image: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "getexif", no_memory)
    with pytest.raises(MoreMemory):
        decoded(jpeg())
