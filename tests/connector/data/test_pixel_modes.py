"""Pictures of every mode and depth become what a viewer shows; each expectation is computed here, without Pillow."""

from __future__ import annotations

import colorsys
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from semcut.connector.data import pixel_modes
from semcut.connector.data.decode_stream import decode_stream
from semcut.connector.data.images import UnreadableImage, open_image

Pixels = NDArray[np.generic]
SIDE = 48
RAMP = np.linspace(0, 1, SIDE)
ACROSS = np.tile(RAMP, (SIDE, 1))
DOWN = ACROSS.T
COLOURS = np.rint(255 * np.stack([ACROSS, DOWN, (ACROSS + 1 - DOWN) / 2], axis=-1)).astype(np.uint8)
GREY = COLOURS[..., 0]
ALPHA = np.rint(255 * DOWN).astype(np.uint8)


@pytest.fixture(autouse=True, params=["in one strip", "in many strips"])
def strips(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in many strips":
        monkeypatch.setattr(pixel_modes, "STRIP_PIXELS", 5 * SIDE)


def shown(source: Image.Image | bytes) -> Pixels:
    """Decode in this process, of which a test can change the size of strips."""
    image = decode_stream(io.BytesIO(source), 1 << 30) if isinstance(source, bytes) else open_image(source)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def grey(values: Pixels) -> Pixels:
    """Expected pixels of grey values from 0 to 255."""
    return np.repeat(np.asarray(values, float)[..., None], 3, axis=2)


def on_white(colours: Pixels, alpha: Pixels) -> Pixels:
    share = np.asarray(alpha, float)[..., None] / 255
    return np.asarray(colours, float) * share + 255 * (1 - share)


def encoded(image: Image.Image, kind: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def png(depth: int, colour: int, rows: Pixels, transparent: bytes = b"") -> bytes:
    """Write a PNG file by the standard, of rows of whole bytes in the order of the file."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = [
        chunk(b"IHDR", header),
        chunk(b"tRNS", transparent) if transparent else b"",
        chunk(b"IDAT", zlib.compress(body)),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def tiff(bits: int, kind: int, white_is_zero: bool, rows: bytes, most: int = 0) -> bytes:
    """Write an uncompressed grey TIFF file; kind: 1 unsigned, 2 signed, 3 float; most: the stated largest value."""
    facts = [(256, 4, SIDE), (257, 4, SIDE), (258, 3, bits), (259, 3, 1), (262, 3, 0 if white_is_zero else 1),
             (273, 4, 8), (277, 3, 1), (278, 4, SIDE), (279, 4, len(rows)), (339, 3, kind)]  # fmt: skip
    if most:
        facts.insert(-1, (281, 3, most))
    rows += b"\0" * (len(rows) % 2)
    entries = b"".join(struct.pack("<HHII", tag, size, 1, value) for tag, size, value in facts)
    return struct.pack("<2sHI", b"II", 42, 8 + len(rows)) + rows + struct.pack("<H", len(facts)) + entries + bytes(4)


DEEP = np.rint(ACROSS * 65535).astype(np.uint16)
DARK = np.rint(ACROSS * 5000 + 700).astype(np.uint16)
TWELVE = np.rint(ACROSS * 4095).astype(np.uint16)
NUMBERS = ACROSS * 3e9 - 1e9
WITHOUT = DEEP[0, 9] != DEEP
PACKED12 = np.stack([TWELVE[:, ::2] >> 4, (TWELVE[:, ::2] & 15) << 4 | TWELVE[:, 1::2] >> 8, TWELVE[:, 1::2] & 255], -1)


def palette_picture(transparency: object) -> Image.Image:
    image = Image.fromarray(GREY).copy()
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(bytes(v for i in range(256) for v in (i, 255 - i, i // 2)))
    image.info["transparency"] = transparency
    return image


PALETTE = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
KEY = int(GREY[0, 20])

OBJECTS: dict[str, tuple[Callable[[], Image.Image], Pixels, int]] = {
    "1": (lambda: Image.fromarray(ACROSS > 0.5), grey(255 * (ACROSS > 0.5)), 0),
    "L": (lambda: Image.fromarray(GREY), grey(GREY), 0),
    "I;16": (lambda: Image.fromarray(DEEP), grey(DEEP / 257), 1),
    "I;16, dark": (lambda: Image.fromarray(DARK), grey(DARK / 257), 1),
    "I;16L": (lambda: Image.frombytes("I;16L", (SIDE, SIDE), DEEP.astype("<u2").tobytes()), grey(DEEP / 257), 1),
    "I;16B": (lambda: Image.frombytes("I;16B", (SIDE, SIDE), DEEP.astype(">u2").tobytes()), grey(DEEP / 257), 1),
    "I": (lambda: Image.fromarray(NUMBERS.astype(np.int32) // 2), grey(255 * ACROSS), 1),
    "I of 16 bits": (lambda: Image.fromarray(DEEP.astype(np.int32)), grey(DEEP / 257), 1),
    "I of 8 bits": (lambda: Image.fromarray((GREY // 4).astype(np.int32)), grey(GREY // 4), 0),
    "F": (lambda: Image.fromarray(NUMBERS.astype(np.float32)), grey(255 * ACROSS), 1),
    "F from 0 to 1": (lambda: Image.fromarray(ACROSS.astype(np.float32)), grey(255 * ACROSS), 1),
    "F of 8 bits": (lambda: Image.fromarray((GREY // 4).astype(np.float32)), grey(GREY // 4), 0),
    "F, a mask": (lambda: Image.fromarray((ACROSS > 0.5).astype(np.float32)), grey(255 * (ACROSS > 0.5)), 0),
    "I, a mask": (lambda: Image.fromarray((ACROSS > 0.5).astype(np.int32)), grey(255 * (ACROSS > 0.5)), 0),
    "F, dark": (lambda: Image.fromarray((ACROSS / 4).astype(np.float32)), grey(255 * ACROSS / 4), 1),
    "F up to 2": (lambda: Image.fromarray((2 * ACROSS).astype(np.float32)), grey(255 * ACROSS), 1),
    "LA": (lambda: Image.fromarray(np.stack([GREY, ALPHA], -1), "LA"), on_white(grey(GREY), ALPHA), 1),
    "La": (lambda: Image.fromarray(np.stack([GREY, ALPHA], -1), "LA").convert("La"), on_white(grey(GREY), ALPHA), 3),
    "P": (lambda: Image.fromarray(COLOURS).quantize(256), COLOURS, 40),
    "P, alpha of each colour": (lambda: palette_picture(bytes(range(256))), on_white(PALETTE, GREY), 1),
    "P, a transparent colour": (lambda: palette_picture(KEY), on_white(PALETTE, 255 * (GREY != KEY)), 0),
    "PA": (lambda: Image.fromarray(COLOURS).convert("PA"), COLOURS, 60),
    "RGB": (lambda: Image.fromarray(COLOURS), COLOURS, 0),
    "RGBX": (lambda: Image.fromarray(COLOURS).convert("RGBX"), COLOURS, 0),
    "RGBA": (lambda: Image.fromarray(np.dstack([COLOURS, ALPHA])), on_white(COLOURS, ALPHA), 1),
    "RGBa": (lambda: Image.fromarray(np.dstack([COLOURS, ALPHA])).convert("RGBa"), on_white(COLOURS, ALPHA), 2),
    "CMYK": (
        lambda: Image.fromarray(np.dstack([255 - COLOURS, ALPHA // 2]), "CMYK"),
        COLOURS * (1 - (ALPHA // 2)[..., None] / 255), 1,
    ),
    "HSV": (
        lambda: Image.fromarray(COLOURS, "HSV"),
        np.array([[[255 * c for c in colorsys.hsv_to_rgb(*(p / 255))] for p in row] for row in COLOURS]), 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_a_picture_of_any_mode_is_shown_as_it_is(name: str) -> None:
    make, expected, tolerance = OBJECTS[name]
    image = make()
    before = image.tobytes()
    assert np.abs(shown(image) - expected).max() <= tolerance
    assert image.tobytes() == before
    assert open_image(image) is not image


def test_ycbcr_and_lab_are_converted_by_their_formulas() -> None:
    y, cb, cr = 128 + (GREY.astype(float) - 128) / 2, 128 + (ALPHA.astype(float) - 128) / 4, np.full(GREY.shape, 140.0)
    expected = np.stack(
        [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)], -1
    )
    image = Image.fromarray(np.rint(np.stack([y, cb, cr], -1)).astype(np.uint8), "YCbCr")
    assert np.abs(shown(image) - expected).max() <= 3

    def linear(t: Pixels) -> Pixels:
        return np.where(t > 6 / 29, t**3, 3 * (6 / 29) ** 2 * (t - 4 / 29))

    lightness, a, b = 30 + 40 * ACROSS, 10 * DOWN, -10 * ACROSS
    f = (lightness + 16) / 116
    xyz = np.stack([0.9642 * linear(f + a / 500), linear(f), 0.8249 * linear(f - b / 200)], -1)  # white is D50
    to_srgb = np.array(
        [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    )
    light = (xyz @ to_srgb.T).clip(0, 1)
    expected = 255 * np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    stored = np.rint(np.stack([lightness * 2.55, a, b], -1)).astype(int).astype(np.uint8)  # a and b are signed bytes
    assert np.abs(shown(Image.fromarray(stored, "LAB")) - expected).max() <= 4


FILES: dict[str, tuple[Callable[[], bytes], Pixels, int]] = {
    "PNG, 16-bit grey": (lambda: png(16, 0, DEEP.astype(">u2")), grey(DEEP / 257), 1),
    "PNG, 16-bit grey, a transparent value": (
        lambda: png(16, 0, DEEP.astype(">u2"), struct.pack(">H", DEEP[0, 9])),
        grey(DEEP / 257 * WITHOUT + 255 * ~WITHOUT), 1),
    "PNG, 16-bit colours": (lambda: png(16, 2, (COLOURS.astype(">u2") * 257).reshape(SIDE, -1)), COLOURS, 1),
    "PNG, 16-bit grey and alpha": (
        lambda: png(16, 4, (np.dstack([GREY, ALPHA]).astype(">u2") * 257).reshape(SIDE, -1)),
        on_white(grey(GREY), ALPHA), 1),
    "PNG, 16-bit colours and alpha": (
        lambda: png(16, 6, (np.dstack([COLOURS, ALPHA]).astype(">u2") * 257).reshape(SIDE, -1)),
        on_white(COLOURS, ALPHA), 1),
    "PNG, a transparent grey": (
        lambda: png(8, 0, GREY, struct.pack(">H", KEY)), grey(np.where(GREY == KEY, 255, GREY)), 0),
    "PNG, a transparent colour": (
        lambda: png(8, 2, COLOURS.reshape(SIDE, -1), struct.pack(">HHH", *COLOURS[7, 9])),
        np.where((COLOURS - COLOURS[7, 9]).any(-1, keepdims=True), COLOURS, 255), 0),
    "PNG, 4-bit grey": (lambda: png(4, 0, (GREY[:, ::2] >> 4) << 4 | GREY[:, 1::2] >> 4), grey((GREY >> 4) * 17), 0),
    "PNG, 2-bit grey": (
        lambda: png(2, 0, sum(GREY[:, i::4] >> 6 << (6 - 2 * i) for i in range(4))), grey((GREY >> 6) * 85), 0),
    "PNG, 4-bit grey, a transparent value": (
        lambda: png(4, 0, (GREY[:, ::2] >> 4) << 4 | GREY[:, 1::2] >> 4, struct.pack(">H", 5)),
        grey(np.where(GREY >> 4 == 5, 255, (GREY >> 4) * 17)), 0),
    "PNG, 2-bit grey, a transparent value": (
        lambda: png(2, 0, sum(GREY[:, i::4] >> 6 << (6 - 2 * i) for i in range(4)), struct.pack(">H", 1)),
        grey(np.where(GREY >> 6 == 1, 255, (GREY >> 6) * 85)), 0),
    "PNG, 1-bit grey, a transparent value": (
        lambda: png(1, 0, np.packbits(GREY > 99, axis=1), struct.pack(">H", 0)), grey(np.full(GREY.shape, 255)), 0),
    "PNG, 16-bit colours, a transparent one": (
        lambda: png(16, 2, (COLOURS.astype(">u2") * 257).reshape(SIDE, -1),
                    struct.pack(">HHH", *(COLOURS[7, 9].astype(int) * 257))),
        np.where((COLOURS - COLOURS[7, 9]).any(-1, keepdims=True), COLOURS, 255), 1),
    "PNG, 1-bit grey": (lambda: png(1, 0, np.packbits(GREY > 99, axis=1)), grey(255 * (GREY > 99)), 0),
    "PNG, palette with alpha": (
        lambda: encoded(palette_picture(bytes(range(256))), "PNG"), on_white(PALETTE, GREY), 1),
    "GIF, a transparent colour, animated": (
        lambda: encoded(palette_picture(KEY), "GIF", save_all=True, append_images=[Image.new("L", (SIDE, SIDE), 7)]),
        on_white(PALETTE, 255 * (GREY != KEY)), 0),
    "WebP with alpha, animated": (
        lambda: encoded(Image.fromarray(np.dstack([COLOURS, ALPHA])), "WEBP", lossless=True, exact=True, save_all=True,
                        append_images=[Image.new("RGBA", (SIDE, SIDE))]), on_white(COLOURS, ALPHA), 1),
    "PGM, 16 bits": (lambda: b"P5 48 48 65535\n" + DARK.astype(">u2").tobytes(), grey(DARK / 257), 1),
    "PGM, 10 bits": (
        lambda: b"P5 48 48 1023\n" + (DARK // 64).astype(">u2").tobytes(), grey(DARK // 64 * 255 / 1023), 1),
    "PPM, 16 bits": (lambda: b"P6 48 48 65535\n" + (COLOURS.astype(">u2") * 257).tobytes(), COLOURS, 1),
    "PFM": (
        lambda: b"Pf 48 48 -1\n" + np.flipud(ACROSS * DOWN * 9).astype("<f4").tobytes(), grey(255 * ACROSS * DOWN), 1),
    "TIFF, 16 bits": (lambda: tiff(16, 1, False, DEEP.tobytes()), grey(DEEP / 257), 1),
    "TIFF, 16 bits, white is 0": (lambda: tiff(16, 1, True, DEEP.tobytes()), grey(255 - DEEP / 257), 1),
    "TIFF, 12 bits": (lambda: tiff(12, 1, False, PACKED12.astype(np.uint8).tobytes()), grey(TWELVE / 4095 * 255), 1),
    "TIFF, 16 bits signed": (
        lambda: tiff(16, 2, False, (DEEP.astype(int) - 32768).astype("<i2").tobytes()), grey(DEEP / 257), 1),
    "TIFF, 8 bits signed": (
        lambda: tiff(8, 2, False, (GREY.astype(int) - 128).astype(np.int8).tobytes()), grey(GREY), 1),
    "TIFF, 16 bits of which 10 are used": (
        lambda: tiff(16, 1, False, (DEEP >> 6).tobytes(), 1023), grey((DEEP >> 6) / 1023 * 255), 1),
    "TIFF, 32 bits": (lambda: tiff(32, 1, False, (NUMBERS + 1e9).astype("<u4").tobytes()), grey(255 * ACROSS), 1),
    "TIFF, float": (lambda: tiff(32, 3, False, NUMBERS.astype("<f4").tobytes()), grey(255 * ACROSS), 1),
    "TIFF, float, white is 0": (
        lambda: tiff(32, 3, True, NUMBERS.astype("<f4").tobytes()), grey(255 - 255 * ACROSS), 1),
    "TIFF, 8 bits, white is 0": (lambda: tiff(8, 1, True, GREY.tobytes()), grey(255 - GREY), 0),
    "JPEG, CMYK as Adobe stores it": (
        lambda: encoded(
            Image.fromarray(np.dstack([255 - COLOURS, 0 * GREY]), "CMYK"), "JPEG", quality=98, subsampling=0),
        COLOURS, 12),
    "JPEG, grey": (lambda: encoded(Image.fromarray(GREY), "JPEG", quality=98), grey(GREY), 6),
    "BMP with an alpha that is 0 everywhere": (
        lambda: encoded(Image.fromarray(np.dstack([COLOURS, 0 * GREY])), "BMP"), COLOURS, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_a_file_of_any_depth_is_shown_as_it_is(name: str) -> None:
    make, expected, tolerance = FILES[name]
    assert np.abs(shown(make()) - expected).max() <= tolerance


def test_values_that_are_no_numbers_do_not_count_for_the_range() -> None:
    values = (ACROSS * 100 - 7.5).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    expected = grey(255 * ACROSS)
    expected[0, :3] = [[0] * 3, [255] * 3, [0] * 3]
    assert np.abs(shown(Image.fromarray(values)) - expected).max() <= 1
    with pytest.raises(UnreadableImage, match="none of its grey values is a finite number"):
        open_image(Image.fromarray(np.full((4, 4), np.nan, np.float32)))


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (0.5, 128), (1, 255), (1e30, 255), (256, 255), (-3, 0), (77, 77), (2.5, 2)]
)
def test_a_picture_of_one_value_is_as_bright_as_the_value_says(value: float, expected: int) -> None:
    assert (shown(Image.fromarray(np.full((4, 4), value, np.float32))) == expected).all()
    if value == int(value) and value < 2**31:
        assert (shown(Image.fromarray(np.full((4, 4), int(value), np.int32))) == expected).all()


@pytest.mark.parametrize(("mark", "there"), [(1e30, 255), (-9999.0, 0), (-3.4e38, 0)])
def test_a_mark_of_a_missing_value_does_not_darken_the_picture(mark: float, there: int) -> None:
    for values in (ACROSS, np.rint(ACROSS * 255), ACROSS * 300 + 7):
        marked = values.astype(np.float32)
        marked[20, 20] = mark
        expected = grey(255 * ACROSS)
        expected[20, 20] = there
        assert np.abs(shown(Image.fromarray(marked)) - expected).max() <= (7 if values.max() > 255 else 1)


TURNED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p, -1), 7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p), 9: lambda p: p,
}  # fmt: skip
"""The upright picture, by the orientation that EXIF states; 9 means nothing."""


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG", "PNG of 16 bits"])
def test_a_picture_of_any_format_is_turned_upright(kind: str) -> None:
    pixels: Pixels = DEEP[:30] if "16" in kind else COLOURS[:30]
    image = Image.fromarray(pixels)
    expected: Pixels = grey(pixels / 257) if "16" in kind else pixels
    settings = {"lossless": True} if kind == "WEBP" else {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    for orientation, turn in TURNED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        found = shown(encoded(image, kind.split()[0], exif=exif, **settings))
        assert found.shape == turn(expected).shape, orientation
        assert np.abs(found - turn(expected)).max() <= (8 if kind == "JPEG" else 1), orientation


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_damaged_exif_does_not_hide_a_picture() -> None:
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        assert np.abs(shown(encoded(Image.fromarray(COLOURS), "JPEG", exif=exif)) - COLOURS).max() < 20
        assert (shown(encoded(Image.fromarray(COLOURS), "PNG", exif=exif)) == COLOURS).all()
