"""Decode image files to arrays of pixels. Safe for folders that hold files of any kind.

A file that is not an image, is broken, or is a small file with a huge number of pixels never stops a run: the file is
skipped and reported with the reason. The size of an image is read from the file's header and checked before any pixel
is decoded. A JPEG file with more pixels than are decoded, as phones write, is decoded at a half, a quarter or an eighth
of its width and height, which takes no more memory. `pixel_modes` says how other modes than RGB are shown.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin, WebPImagePlugin  # noqa: F401
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.TiffTags import TAGS_V2_GROUPS

from semcut.connector.daemon_threads import DaemonThreads, result_of
from semcut.connector.data.decoding_limits import refuse_costly, refuse_costly_jpeg
from semcut.connector.data.file_structure import refuse_endless, refuse_endless_exif
from semcut.connector.data.pixel_modes import to_rgb, transparent_key
from semcut.indexes.errors import DataError
from semcut.indexes.regular_files import open_binary

MAX_PIXELS = 1 << 26
"""Images with more pixels than this (67 million) are not decoded."""

MAX_SIDE = 65_535
"""Images that are wider or higher are not decoded; a JPEG file cannot be. Resizing takes memory for whole lines."""

MAX_BYTES = 1 << 30
"""Files with more bytes than this are not decoded; 67 million pixels of four 16-bit channels have half as many."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats that are read: those that Pillow decodes itself. For some others (EPS), Pillow starts external programs."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How a picture is turned upright, by its EXIF orientation; Pillow turns those of TIFF files itself."""

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

    Args:
        source: a file, its stream, or a picture of Pillow, which stays as it is. Of an animation, the first frame of
            the file, or the current one of the picture.

    Returns:
        A new RGB image, see `pixel_modes`. A JPEG file of more than `MAX_PIXELS` pixels is scaled down.

    Raises:
        UnreadableImage: the file is missing, is not an image, is broken, or has more pixels than are decoded.
    """
    with decoded(source) as image:
        return image


@contextmanager
def decoded(source: str | Path | IO[bytes] | Image.Image) -> Iterator[Image.Image]:
    """Decode an image as `open_image` does, and count its memory until the end of the block, see `decoding_limits`."""
    if isinstance(source, Image.Image):
        _check_pixels(source)
        with _reasons():
            found = _decode(source, own=False)
        yield found
        return
    with ExitStack() as memory:
        yield _decode_file(source, memory)


def _decode_file(source: str | Path | IO[bytes], memory: ExitStack) -> Image.Image:
    """Decode a file; on the stack, its memory is given back."""
    try:
        # not by its name: Pillow would wait at a FIFO, and map a file of raw pixels, which may become shorter meanwhile
        opened = open_binary(source, max_bytes=MAX_BYTES, follow=True) if isinstance(source, str | Path) else source
    except FileNotFoundError:
        raise UnreadableImage("no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a byte of zero
        raise UnreadableImage(getattr(error, "strerror", None) or str(error)) from None
    try:
        with _reasons(), read_header(opened) as image:
            try:
                if isinstance(image, JpegImageFile) and image.width * image.height > MAX_PIXELS:
                    refuse_costly_jpeg(opened, image.width * image.height)
                    _scale_down(image)
                _check_pixels(image)
                sharing = refuse_costly(image, opened, opened.seek(0, os.SEEK_END))
            except ValueError as reason:
                raise UnreadableImage(str(reason)) from None
            memory.enter_context(sharing)
            return _decode(image, own=True)
    finally:
        if opened is not source:
            opened.close()


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn every error while an image is decoded into `UnreadableImage`."""
    try:
        yield
    except UnreadableImage:
        raise
    except Exception as error:  # on broken files, Pillow's decoders raise errors of many types
        raise UnreadableImage(f"broken image: {error or type(error).__name__}") from None


def read_header(stream: IO[bytes]) -> Image.Image:
    """Open an image without decoding it, whatever its size; the caller closes it.

    `Image.open` warns of large images, or refuses them, before a smaller version of a JPEG file can be asked for.

    Raises:
        UnreadableImage: it has none of the `FORMATS`, or too many parts, see `file_structure`.
    """
    stream.seek(0)
    start = stream.read(16)
    reason = "not an image"
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(start)
        if accepted and not isinstance(accepted, str):  # a text says that Pillow was built without the format
            try:
                refuse_endless(stream, name)
            except ValueError as refused:
                raise UnreadableImage(str(refused)) from None
            stream.seek(0)
            try:
                return factory(cast("IO[bytes]", Unmapped(stream)), "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # as `Image.open` does
                reason = f"broken image: a {name} file whose header is damaged, or of a kind that is not read"
    raise UnreadableImage(reason)


def _scale_down(image: JpegImageFile) -> None:
    """Have a JPEG file decoded at the largest scale at which it has at most `MAX_PIXELS` pixels."""
    for scale in (2, 4, 8):
        size = -(-image.width // scale), -(-image.height // scale)
        if size[0] * size[1] <= MAX_PIXELS:
            image.draft(None, (image.width // scale, image.height // scale))
            return


class Unmapped:
    """A file without its descriptor: libtiff would map the file, and the process would end if it became shorter."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.read, self.seek, self.tell, self.close = stream.read, stream.seek, stream.tell, stream.close


def _check_pixels(image: Image.Image) -> None:
    if max(image.size) > MAX_SIDE:
        raise UnreadableImage(f"{image.width} x {image.height} pixels, at most {MAX_SIDE:,} on each side are decoded")
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(
            f"{image.width} x {image.height} pixels, at most {MAX_PIXELS} are decoded: save it smaller, or as a "
            "baseline JPEG file, which is read at a smaller scale"
        )


def _decode(image: Image.Image, *, own: bool) -> Image.Image:
    """Decode an image to RGB, upright; a new one unless the image is the caller's own."""
    key = transparent_key(image)
    if own and isinstance(image, TiffImageFile):
        _forget_directories(image)
    image.load()
    try:
        refuse_endless_exif(image.info)
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged facts about a picture do not keep it from being shown
        orientation = None
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    result = to_rgb(image, key)
    if turn is not None:
        return result.transpose(turn)
    return result.copy() if result is image and not own else result


def _forget_directories(image: TiffImageFile) -> None:
    """Keep Pillow from reading the directories inside a TIFF, of EXIF data for example: nothing bounds their values."""
    facts = image.getexif()
    for tag in TAGS_V2_GROUPS:
        if tag in facts:
            del facts[tag]


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


def read_batches(
    files: Sequence[str], size: int, batch_size: int, workers: int = 2, *, any_name: bool = False
) -> Iterator[ImageBatch]:
    """Read image files in order, in batches; threads decode the next batch while the caller uses the current batch.

    Args:
        files: paths.
        size: pixels per side.
        batch_size: files per batch.
        workers: threads that decode.
        any_name: whether to read files whose names are not valid text, too, which no index can hold.
    """

    def read(file: str) -> NDArray[np.uint8] | str:
        """Return the pixels of a file, or the reason why it cannot be read."""
        try:
            if not any_name:
                file.encode()
            with decoded(file) as image:
                return fit(image, size)
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
