"""Decode image files to arrays of pixels. Safe for folders that hold files of any kind.

A file that is not an image, is broken, or is an image bomb (a small file with a huge number of pixels) never stops a
run: the file is skipped and reported with the reason. The size of an image is read from the file's header and checked
before any pixel is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin  # noqa: F401

from semcut.connector.daemon_threads import DaemonThreads, result_of
from semcut.connector.data.decoding_limits import refuse_costly
from semcut.indexes.errors import DataError
from semcut.indexes.regular_files import open_binary

MAX_PIXELS = 1 << 26
"""Images with more pixels than this (67 million) are not decoded."""

MAX_BYTES = 1 << 30
"""Files with more bytes than this are not decoded; 67 million pixels of four 16-bit channels have half as many."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats that are read: those that Pillow decodes itself. For some others (EPS), Pillow starts external programs."""

# `preinit` and the two plugins imported above register all FORMATS. If a format were not registered, the first
# `Image.open` would import every plugin of Pillow, which is slow.
Image.preinit()


class UnreadableImage(Exception):
    """The error for an image that cannot be decoded; the message is the reason, for the caller to report."""


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """A batch of images read from files.

    Attributes:
        positions: (n,) int64; position of each image's file in the list of files.
        pixels: (n, 3, size, size) uint8, RGB.
        skipped: pairs (file, reason), one for each file of the batch that cannot be read.
    """

    positions: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    skipped: list[tuple[str, str]]


def open_image(source: str | Path | IO[bytes] | Image.Image) -> Image.Image:
    """Decode an image to RGB and rotate it upright according to its EXIF orientation.

    Raises:
        UnreadableImage: the file is missing, is not an image, is broken, or has more than `MAX_PIXELS` pixels.
    """
    if isinstance(source, Image.Image):
        return _decode(source, in_place=False)
    try:
        # not by its name: Pillow would wait at a FIFO, and map a file of raw pixels, which may become shorter meanwhile
        opened = open_binary(source, max_bytes=MAX_BYTES, follow=True) if isinstance(source, str | Path) else source
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a byte of zero
        raise UnreadableImage(getattr(error, "strerror", None) or str(error)) from None
    try:
        with Image.open(cast("IO[bytes]", Unmapped(opened)), formats=FORMATS) as image:
            _check_pixels(image)
            try:
                turn = refuse_costly(image, opened, opened.seek(0, os.SEEK_END))
            except ValueError as reason:
                raise UnreadableImage(str(reason)) from None
            with turn:
                return _decode(image, in_place=True)
    except UnreadableImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage(f"an image bomb: at most {MAX_PIXELS} pixels are decoded") from None
    except UnidentifiedImageError:
        raise UnreadableImage("not an image") from None
    except Exception as error:  # on broken files, Pillow's decoders raise errors of many types
        raise UnreadableImage(f"broken image: {error}") from None
    finally:
        if opened is not source:
            opened.close()


class Unmapped:
    """A file without its descriptor: libtiff would map the file, and the process would end if it became shorter."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.read, self.seek, self.tell, self.close = stream.read, stream.seek, stream.tell, stream.close


def _check_pixels(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(f"{image.width} x {image.height} pixels, at most {MAX_PIXELS} are decoded")


def _decode(image: Image.Image, *, in_place: bool) -> Image.Image:
    _check_pixels(image)
    if in_place:  # without a second copy of a large image
        ImageOps.exif_transpose(image, in_place=True)
        image.load()
    else:
        image = ImageOps.exif_transpose(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def fit(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Crop the middle square of an RGB image and scale it to (3, size, size) uint8."""
    square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def load_pixels(source: str | Path | Image.Image, size: int) -> NDArray[np.uint8]:
    """Decode one image and fit it to (3, size, size) uint8: `open_image`, then `fit`.

    Raises:
        DataError: the image cannot be read; the message names the image and the reason.
    """
    try:
        return fit(open_image(source), size)
    except UnreadableImage as reason:
        name = "the image" if isinstance(source, Image.Image) else str(source)
        raise DataError(f"cannot read {name}: {reason}") from None


def read_batches(files: Sequence[str], size: int, batch_size: int, workers: int = 2) -> Iterator[ImageBatch]:
    """Read image files in order, in batches; threads decode the next batch while the caller uses the current batch."""

    def read(file: str) -> NDArray[np.uint8] | str:
        """Return the pixels of a file, or the reason why it cannot be read."""
        try:
            file.encode()
            return fit(open_image(file), size)
        except UnicodeEncodeError:
            return "its name is not valid text"
        except UnreadableImage as reason:
            return str(reason)

    starts = range(0, len(files), batch_size)
    threads = DaemonThreads(workers, "decoding")
    try:
        pending: list[list[Future[NDArray[np.uint8] | str]]] = []
        for number, start in enumerate(starts):
            while len(pending) < 2 and number + len(pending) < len(starts):
                following = starts[number + len(pending)]
                pending.append(
                    [threads.submit(partial(read, file)) for file in files[following : following + batch_size]]
                )
            results = [result_of(future) for future in pending.pop(0)]
            readable = [i for i, result in enumerate(results) if not isinstance(result, str)]
            pixels = np.empty((len(readable), 3, size, size), np.uint8)
            for row, i in enumerate(readable):
                pixels[row] = results[i]
            yield ImageBatch(
                positions=np.array(readable, np.int64) + start,
                pixels=pixels,
                skipped=[(files[start + i], r) for i, r in enumerate(results) if isinstance(r, str)],
            )
    finally:  # also if the caller is interrupted: what was begun ends by itself, and what waits is dropped
        threads.stop()
