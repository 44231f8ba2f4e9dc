"""`to_rgb`: convert a decoded picture of any mode and depth to the 8-bit RGB picture that a viewer shows.

Pillow's own `convert` cuts 16-bit and 32-bit grey off at 255, which leaves black and white, and shows whatever colour
is stored under transparent pixels. The rules here:

    16 bits (I;16 and its byte orders)  divided by 257, so that 65535 is white; a TIFF of 12 bits by 4095 / 255, and one
                                        that states its largest value by that / 255
    I of a PGM file                     divided by 257: Pillow has scaled the file's own white to 65535
    I and F otherwise                   neither mode says what is white: it is 1 for values from 0 to 1, and 255 for
                                        whole numbers from 0 to 255 and for a picture of one value; others are scaled
                                        from lowest to highest. NaN is black, and an infinite value is black or white;
                                        neither counts for the range, nor do a few values far away from all others
    8 bits, signed (TIFF)               as I
    white is 0 (TIFF)                   these grey values are inverted, which Pillow does for up to 8 bits only
    transparency                        composited on white: alpha, premultiplied alpha, a palette's, a colour's
    all others                          as Pillow converts them: 1, L, P, RGB, RGBX, CMYK, YCbCr, HSV, LAB

Colour profiles are not applied. Pictures are converted in strips, so that besides the picture and its result only a few
megabytes are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.pillow import Image

STRIP_PIXELS = 1 << 18
"""Pixels that are converted at a time; the arrays of a strip take a few megabytes."""

_FAR, _FEW = 20, 1000
"""Up to one value of `_FEW` on each side, and at least one, is far away if the others take up less than 1 / `_FAR` of
the range: marks of missing values such as -9999 or 1e30, not the picture."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_VALUE, _SAMPLE_FORMAT = 258, 262, 281, 339  # tags of TIFF
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_WITH_KEY = ("1", "L", "P", "RGB")
"""Modes of which one colour, or entries of the palette, can be declared transparent."""

_Strip = tuple[int, Image.Image]
_Tags = Mapping[int, object]
_Key = int | tuple[int, ...]


def transparent_key(image: Image.Image) -> _Key | None:
    """Return the transparent colour of a PNG file in the depth to which Pillow decodes it; None if that is its own.

    The file states it in its own depth, which is known only before the picture is decoded.
    """
    key = image.info.get("transparency")
    tile = getattr(image, "tile", None)
    depth = tile[0][3] if image.format == "PNG" and tile else None
    if depth in ("L;2", "L;4") and isinstance(key, int):
        most = 3 if depth == "L;2" else 15
        return (key & most) * (255 // most)
    if depth == "RGB;16B" and isinstance(key, tuple):
        return tuple(part >> 8 for part in key)
    return None


def to_rgb(image: Image.Image, key: _Key | None = None) -> Image.Image:
    """Convert a decoded picture; one that is RGB and has no transparency is returned itself.

    Args:
        image: the picture.
        key: its transparent colour if that is not the one in its `info`, see `transparent_key`.

    Raises:
        ValueError: the picture cannot be shown; the message is the reason.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    convert = _conversion(image)
    result = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        if key is not None:
            strip.info["transparency"] = key
        result.paste(convert(strip), (0, top))
    return result


def _strips(image: Image.Image) -> Iterator[_Strip]:
    """Yield horizontal strips of a picture, each with the row at which it begins."""
    rows = max(1, STRIP_PIXELS // max(1, image.width))
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _conversion(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Choose the function that converts the strips of a picture."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F") or _signed_bytes(image.mode, _tags(image)):
        return _grey_conversion(image)
    if image.mode in _WITH_ALPHA or (image.mode in _WITH_KEY and "transparency" in image.info):
        if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
            return lambda strip: strip.convert("RGB")  # many programs leave the alpha of a BMP file empty
        return _on_white
    if image.mode == "P" and image.palette is not None and image.palette.mode != "RGB":
        return _on_white
    return lambda strip: strip.convert("RGB")


def _on_white(strip: Image.Image) -> Image.Image:
    """Composite a strip on white."""
    if strip.mode == "La":  # Pillow converts it to nothing but LA
        strip = strip.convert("LA")
    colours = strip.convert("RGBA")
    result = Image.new("RGB", strip.size, "white")
    result.paste(colours, mask=colours.getchannel("A"))
    return result


def _grey_conversion(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Choose how grey values of more than 8 bits are scaled, with the whole picture in view."""
    tags = _tags(image)
    low, high = _limits(image, tags)
    if tags.get(_PHOTOMETRIC) == 0:
        low, high = high, low
    key = image.info.get("transparency") if image.mode.startswith("I;16") else None

    def convert(strip: Image.Image) -> Image.Image:
        values = _values(strip, tags)
        scaled = np.zeros(values.shape)
        if high != low:
            with np.errstate(invalid="ignore"):
                scaled = (values.astype(np.float64) - low) * (255 / (high - low))
        shown = np.rint(np.nan_to_num(scaled, nan=0, posinf=255, neginf=0).clip(0, 255)).astype(np.uint8)
        if isinstance(key, int):
            shown[values == key] = 255
        return Image.fromarray(shown).convert("RGB")

    return convert


def _tags(image: Image.Image) -> _Tags:
    """Return the tags of a TIFF file, nothing for other pictures."""
    found: _Tags = getattr(image, "tag_v2", {})
    return found


def _signed_bytes(mode: str, tags: _Tags) -> bool:
    """Return whether Pillow has stored signed bytes as unsigned ones."""
    return mode == "L" and tags.get(_SAMPLE_FORMAT) == (2,) and tags.get(_BITS_PER_SAMPLE) == (8,)


def _values(strip: Image.Image, tags: _Tags) -> NDArray[np.generic]:
    """Return the grey values of a strip; Pillow stores also those of a TIFF of unsigned 32 bits as signed."""
    values = np.asarray(strip)
    if _signed_bytes(strip.mode, tags):
        return values.view(np.int8)
    unsigned = tags.get(_BITS_PER_SAMPLE) == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,)
    return values.view(np.uint32) if unsigned and strip.mode == "I" else values


def _limits(image: Image.Image, tags: _Tags) -> tuple[float, float]:
    """Return the grey values that are shown black and white."""
    if image.mode.startswith("I;16"):
        white = tags.get(_MAX_VALUE)
        white = white[0] if isinstance(white, tuple) and white else white
        if isinstance(white, int) and 0 < white < 65535:
            return 0, white
        return 0, 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535
    if image.mode == "I" and image.format == "PPM":
        return 0, 65535
    low, high, whole = np.inf, -np.inf, True
    samples = []
    every = -(-image.width * image.height // STRIP_PIXELS)
    for _, strip in _strips(image):
        values = _values(strip, tags)
        finite: NDArray[np.float64] = values[np.isfinite(values)].astype(np.float64)
        if len(finite):
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            whole = whole and bool((finite == np.rint(finite)).all())
            samples.append(finite[::every])
    if low > high:
        raise ValueError("none of its grey values is a finite number")
    low, high = _without_far_values(np.sort(np.concatenate(samples)), low, high)
    if low >= 0 and high <= 1:
        return 0, 1
    return (0, 255) if low == high or (whole and low >= 0 and high <= 255) else (low, high)


def _without_far_values(sample: NDArray[np.float64], low: float, high: float) -> tuple[float, float]:
    """Return the range without a few values that are far away from all others, of a sorted sample of the values."""
    few = max(1, len(sample) // _FEW)
    if len(sample) <= 2 * few:
        return low, high
    inner_low, inner_high = float(sample[few]), float(sample[-1 - few])
    if high - low <= _FAR * (inner_high - inner_low) or inner_low == inner_high:
        return low, high
    return inner_low, inner_high
