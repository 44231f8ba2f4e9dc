"""`decode_stream`: decodes the stream of an image file to RGB, upright. Only `decoding_worker` calls it.

It is called in a process whose memory and time are limited, so nothing here keeps a file from taking more than its
pixels are worth: tiles far larger than the image, tables for every few pixels, hundreds of thousands of scans, chunks
or tags. What is checked here are the limits that users are promised: they are checked by the header, before any pixel
is decoded, and give a better reason than the end of the process. `pixel_modes` says how modes other than RGB are shown.

A JPEG file with more pixels than are decoded, as phones write, is decoded at a half, a quarter or an eighth of its
width and height.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from contextlib import suppress
from importlib.util import find_spec
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.decoding_messages import MAX_PIXELS, MAX_SIDE
from semcut.connector.data.pillow import FORMATS as FORMATS
from semcut.connector.data.pillow import Image, ImageOps, JpegImageFile, TiffImagePlugin, WebPImagePlugin  # noqa: F401
from semcut.connector.data.pixel_modes import to_rgb, transparent_key
from semcut.indexes.errors import install_hint

SCALED_PIXELS = 1 << 28
"""The most pixels of a JPEG file that is decoded at a smaller scale (268 million); phones write 200 million."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""What stands behind `ftyp` at the beginning of a HEIF file, or of a general one that AVIF files are, too."""

_TURNED_BYTES = 8
"""Bytes for each pixel of a picture that is turned upright: it is there twice."""

_SMALL_PART = 64
"""A file that fails to be decoded is broken if this many bytes for each pixel, and for its bytes, were there."""

_NO_DECODER = re.compile(r"decoder \S+ not available")
"""What Pillow says of a format that it was built without."""

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
with suppress(ImportError):  # releases of Pillow before 11.3
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1


class PassingReason(str):
    """A reason why an image was not decoded that may be gone the next time, and says little about the image.

    Every reason is one, unless a decoder has judged the bytes of the file.
    """

    __slots__ = ()


class UnreadableImage(Exception):
    """The error for an image that cannot be decoded; the message is the reason, for the caller to report.

    Args:
        reason: the reason.
        passing: whether it is a `PassingReason`.
    """

    def __init__(self, reason: object = "", passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing

    @property
    def reason(self) -> str:
        """The reason."""
        return PassingReason(self) if self.passing else str(self)


class MoreMemory(UnreadableImage):
    """The error for an image that could not be decoded in the memory that was there, and may be in more."""


def decode_stream(stream: IO[bytes], memory: int) -> Image.Image:
    """Decode an image to RGB and rotate it upright according to its EXIF orientation; of an animation, the first frame.

    Args:
        stream: its file.
        memory: bytes that the process may take for it.

    Raises:
        MoreMemory: decoding has failed, and more memory may help.
        UnreadableImage: it has none of the `FORMATS`, is broken, or has more pixels than are decoded; or, as a passing
            reason, the disk fails, or what is installed cannot read its format.
    """
    watched = _Unmapped(stream)
    try:
        result = _decoded(cast("IO[bytes]", watched), memory)
    except Exception:
        watched.check()
        raise
    watched.check()  # a decoder may make a picture of what it could read
    return result


def _decoded(stream: IO[bytes], memory: int) -> Image.Image:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    # libwebp takes memory for pixels when a file is opened, other decoders when the pixels are loaded
    enough = stream.read(12)[8:] != b"WEBP" and size * _SMALL_PART <= memory
    pixels = 0
    try:
        with read_header(stream) as image:
            _limit_pixels(image)
            pixels = image.width * image.height
            if pixels * _TURNED_BYTES > memory:  # do not begin what would end half-way
                raise MoreMemory(_too_large(memory))
            enough = (pixels + size) * _SMALL_PART <= memory
            return upright(image, own=True)
    except UnreadableImage:
        raise
    except MemoryError:
        raise MoreMemory(_too_large(memory)) from None
    except Exception as error:  # on broken files, Pillow's decoders raise errors of many types
        reason = str(error) or type(error).__name__
        if isinstance(error, OSError) and _NO_DECODER.fullmatch(reason):
            raise UnreadableImage(f"this Pillow cannot read it: {reason}", passing=True) from None
        if enough and _is_there((pixels + size) * _SMALL_PART // 2):
            raise UnreadableImage(f"broken image: {reason}") from None
        # decoders written in C report that there was no memory like any other failure
        raise MoreMemory(f"broken image, or one that {_too_large(memory)}: {reason}") from None


def _is_there(count: int) -> bool:
    """Return whether the system gives this process this number of bytes now."""
    try:
        mmap.mmap(-1, max(1, count), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, ValueError, MemoryError):
        return False
    return True


def _too_large(memory: int) -> str:
    return f"takes more than {memory:,} bytes of memory to decode"


def read_header(stream: IO[bytes]) -> Image.Image:
    """Open an image without decoding it, whatever its size; the caller closes it.

    `Image.open` warns of large images, or refuses them, before a smaller version of a JPEG file can be asked for.

    Raises:
        UnreadableImage: it has none of the `FORMATS`; as a passing reason, what is installed cannot read its format.
    """
    stream.seek(0)
    start = stream.read(16)
    reason = "not an image"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        _register_heif()
    for name in FORMATS:
        if name not in Image.OPEN:
            if name == "AVIF" and start[4:12] in (b"ftypavif", b"ftypavis"):
                raise UnreadableImage("an AVIF picture, which needs Pillow 11.3 or later", passing=True)
            continue
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(start)
        if isinstance(accepted, str):  # Pillow was built without the format
            raise UnreadableImage(f"this Pillow cannot read it: {accepted}", passing=True)
        if accepted:
            stream.seek(0)
            try:
                return factory(cast("IO[bytes]", _Unmapped(stream)), "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # as `Image.open` does
                reason = f"broken image: a {name} file whose header is damaged, or of a kind that is not read"
    raise UnreadableImage(reason)


def _register_heif() -> None:
    """Register the format HEIF, which takes 20 ms, with Pillow.

    Raises:
        UnreadableImage: pillow-heif is not installed.
        MoreMemory: it cannot be loaded.
    """
    if "HEIF" in Image.OPEN:
        return
    if find_spec("pillow_heif") is None:
        raise UnreadableImage(f"a HEIC picture, which needs pillow-heif: {install_hint('heif')}", passing=True)
    try:
        from pillow_heif import options, register_heif_opener
    except ImportError as error:
        raise MoreMemory(f"a HEIC picture, and pillow-heif cannot be loaded: {error}") from None

    options.DECODE_THREADS = 1
    register_heif_opener(thumbnails=False)


class _Unmapped:
    """A file without its descriptor: libtiff would map the file, and the process would end if it became shorter.

    It remembers whether the system has failed to read the file: decoders report that as a damage, or not at all.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close
        self._read, self._failed = stream.read, ""

    def read(self, count: int = -1) -> bytes:
        """Read up to `count` bytes, or to the end."""
        try:
            return self._read(count)
        except OSError as error:
            self._failed = error.strerror or str(error)
            raise

    def check(self) -> None:
        """Raise `UnreadableImage`, with a passing reason, if the file could not be read."""
        if self._failed:
            raise UnreadableImage(f"cannot be read: {self._failed}", passing=True)


def _limit_pixels(image: Image.Image) -> None:
    """Check the pixels of a file, and choose the scale of a large JPEG file."""
    pixels = image.width * image.height
    if isinstance(image, JpegImageFile) and pixels > MAX_PIXELS:
        if pixels > SCALED_PIXELS:
            raise UnreadableImage(
                f"{pixels:,} pixels, at most {SCALED_PIXELS:,} of a JPEG file are decoded: save it smaller"
            )
        for scale in (2, 4, 8):
            if -(-image.width // scale) * -(-image.height // scale) <= MAX_PIXELS:
                image.draft(None, (image.width // scale, image.height // scale))
                break
    check_pixels(image)


def check_pixels(image: Image.Image) -> None:
    """Check that a picture has at most as many pixels as are decoded.

    Raises:
        UnreadableImage: it has more, or a longer side.
    """
    if max(image.size) > MAX_SIDE:
        raise UnreadableImage(f"{image.width} x {image.height} pixels, at most {MAX_SIDE:,} on each side are decoded")
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(
            f"{image.width} x {image.height} pixels, at most {MAX_PIXELS} are decoded: save it smaller, or as a "
            "baseline JPEG file, which is read at a smaller scale"
        )


def upright(image: Image.Image, *, own: bool) -> Image.Image:
    """Decode a picture to RGB and turn it upright.

    Args:
        image: the picture, which may be the result.
        own: whether nothing else uses the picture, so that it may be closed.
    """
    key = transparent_key(image)
    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # damaged facts about a picture do not keep it from being shown
        orientation = None
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    result = to_rgb(image, key)
    if own and result is not image:
        image.close()  # its memory is needed to turn the result
    return result if turn is None else result.transpose(turn)


def fit(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Crop the middle square of an RGB image and scale it to (3, size, size) uint8."""
    square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))
