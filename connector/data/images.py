"""From image files to arrays: safe to point at a folder of anything.

A file that is no image, is broken, or is an image bomb is reported with its reason, never fatal. Sizes are checked
from the header, before pixels are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401

from semcut.indexes.errors import DataError

MAX_PIXELS = 1 << 26
"""Images of more pixels than this (67 million) are refused."""


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What is read: Pillow decodes these itself. For others it runs programs of the system (EPS)."""

Image.preinit()  # this and the two plugins imported above make FORMATS; to find another Pillow would load all it has


class UnreadableImage(Exception):
    """Why an image cannot be used; for the caller to report."""


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Images read from files.

    Attributes:
        positions: (n,) int64; which of the files they are.
        pixels: (n, 3, size, size) uint8, RGB.
        skipped: files that could not be read, with the reason.
    """

    positions: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    skipped: list[tuple[str, str]]


def open_image(source: str | Path | IO[bytes] | Image.Image) -> Image.Image:
    """An image in RGB, upright and decoded.

    Raises:
        UnreadableImage: it is missing, no image, broken, or has more than `MAX_PIXELS` pixels.
    """
    if isinstance(source, Image.Image):
        return _decoded(source)
    try:
        with Image.open(source, formats=FORMATS) as image:
            return _decoded(image)
    except UnreadableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage(f"an image bomb: at most {MAX_PIXELS} pixels are decoded") from None
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except (UnidentifiedImageError, IsADirectoryError):
        raise UnreadableImage("not an image") from None
    except Exception as error:  # Pillow's decoders raise all sorts of errors on broken files
        raise UnreadableImage(f"broken image: {error}") from None


def _decoded(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(f"{image.width} x {image.height} pixels, at most {MAX_PIXELS} are decoded")
    return ImageOps.exif_transpose(image).convert("RGB")


def fit(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The middle square of an RGB image, scaled: (3, size, size) uint8."""
    square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def load(source: str | Path | Image.Image, size: int) -> NDArray[np.uint8]:
    """`open_image`, then `fit`.

    Raises:
        DataError: naming the image and what is wrong with it.
    """
    try:
        return fit(open_image(source), size)
    except UnreadableImage as reason:
        name = "the image" if isinstance(source, Image.Image) else str(source)
        raise DataError(f"cannot read {name}: {reason}") from None


def read_batches(files: Sequence[str], size: int, batch_size: int, workers: int = 2) -> Iterator[ImageBatch]:
    """All files in order, in batches, decoded by threads one batch ahead of the consumer."""

    def read(file: str) -> NDArray[np.uint8] | str:
        try:
            file.encode()
            return fit(open_image(file), size)
        except UnicodeEncodeError:
            return "its name is not valid text"
        except UnreadableImage as reason:
            return str(reason)

    starts = range(0, len(files), batch_size)
    with ThreadPoolExecutor(workers) as pool:
        ahead: list[list[Future[NDArray[np.uint8] | str]]] = []
        for place, start in enumerate(starts):
            while len(ahead) < 2 and place + len(ahead) < len(starts):
                following = starts[place + len(ahead)]
                ahead.append([pool.submit(read, file) for file in files[following : following + batch_size]])
            results = [future.result() for future in ahead.pop(0)]
            good = [i for i, result in enumerate(results) if not isinstance(result, str)]
            pixels = np.empty((len(good), 3, size, size), np.uint8)
            for row, i in enumerate(good):
                pixels[row] = results[i]
            yield ImageBatch(
                positions=np.array(good, np.int64) + start,
                pixels=pixels,
                skipped=[(files[start + i], r) for i, r in enumerate(results) if isinstance(r, str)],
            )
