"""Read images: from files, streams and pictures of Pillow to RGB pixels. Safe for folders that hold files of any kind.

Files and streams come from outside, so they are decoded in other processes, see `decoding_pool`: a file that is not an
image, is broken, or takes more memory or time than its limits never stops a run. It is skipped and reported with the
reason. `decode_stream` says what is read. A picture of Pillow that the caller has is decoded in this process.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from semcut.connector.daemon_threads import DaemonThreads, result_of
from semcut.connector.data.decode_stream import FORMATS as FORMATS
from semcut.connector.data.decode_stream import PassingReason as PassingReason
from semcut.connector.data.decode_stream import UnreadableImage as UnreadableImage
from semcut.connector.data.decode_stream import check_pixels, fit, upright
from semcut.connector.data.decoding_messages import MAX_BYTES as MAX_BYTES
from semcut.connector.data.decoding_messages import MAX_PIXELS as MAX_PIXELS
from semcut.connector.data.decoding_messages import Answer, Outcome, Wanted
from semcut.connector.data.decoding_pool import POOL, Limits
from semcut.connector.data.pillow import Image
from semcut.indexes.errors import DataError
from semcut.indexes.regular_files import open_binary

_BLOCK = 1 << 20
_LASTING = (errno.EFBIG, errno.EINVAL)
"""Errors of `open_binary` that are about the file itself: it is too large, or no regular file."""

Source = str | Path | IO[bytes]
"""A file, or the stream of one, which is read from its beginning; its position changes."""


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


def open_image(source: Source | Image.Image) -> Image.Image:
    """Decode an image to RGB and rotate it upright according to its EXIF orientation.

    Args:
        source: a file, its stream, or a picture of Pillow, which stays as it is. Of an animation, the first frame of
            the file, or the current one of the picture.

    Returns:
        A new RGB image, see `pixel_modes`. A JPEG file of more than `MAX_PIXELS` pixels is scaled down.

    Raises:
        UnreadableImage: the file is missing, is not an image, is broken, has more pixels than are decoded, or takes
            more memory or time than `Limits`.
        DataError: no process can be started to decode it.
    """
    if not isinstance(source, Image.Image):
        return _image(_ask(source, Wanted.WHOLE))
    check_pixels(source)
    try:
        found = upright(source, own=False)
        return found.copy() if found is source else found
    except Exception as error:  # on broken files, Pillow's decoders raise errors of many types
        raise UnreadableImage(f"broken image: {error or type(error).__name__}") from None


def image_within(source: Source, size: int, limits: Limits | None = None) -> Image.Image:
    """Decode an image as `open_image` does, and make it smaller until no side has more than `size` pixels."""
    return _image(_ask(source, Wanted.WITHIN, size, limits))


def fitted_pixels(source: Source | Image.Image, size: int, limits: Limits | None = None) -> NDArray[np.uint8]:
    """Decode an image as `open_image` does; crop its middle square and scale it to (3, size, size) uint8."""
    if isinstance(source, Image.Image):
        return fit(open_image(source), size)
    return np.frombuffer(_ask(source, Wanted.FIT, size, limits).pixels, np.uint8).reshape(3, size, size)


def check_image(source: Source, limits: Limits | None = None) -> None:
    """Decode an image as `open_image` does, only to see whether that is possible; the errors are the same."""
    _ask(source, Wanted.CHECK, limits=limits)


def stated_size(source: Source) -> tuple[int, int]:
    """Return width and height that the header of an image states, as it is stored; the errors are the same."""
    answer = _ask(source, Wanted.HEADER)
    return answer.width, answer.height


def _ask(source: Source, wanted: Wanted, size: int = 0, limits: Limits | None = None) -> Answer:
    with _descriptor_of(source) as descriptor:
        answer = POOL.ask(descriptor, wanted, size, limits)
    if answer.outcome != Outcome.DECODED:
        raise UnreadableImage(answer.reason, answer.passing)
    return answer


def _image(answer: Answer) -> Image.Image:
    return Image.frombytes("RGB", (answer.width, answer.height), answer.pixels)


@contextmanager
def _descriptor_of(source: Source) -> Iterator[int]:
    """Open a file, or put what a stream holds in one."""
    try:
        if isinstance(source, str | Path):
            opened = open_binary(source, max_bytes=MAX_BYTES, follow=True)
        else:
            opened = source if _is_regular(source) else _copied(source)
    except FileNotFoundError:
        raise UnreadableImage("no such file", passing=True) from None
    except (OSError, ValueError) as error:  # ValueError: a name with a byte of zero
        passing = getattr(error, "errno", None) not in _LASTING
        raise UnreadableImage(getattr(error, "strerror", None) or str(error), passing) from None
    try:
        yield opened.fileno()
    finally:
        if opened is not source:
            opened.close()


def _is_regular(stream: IO[bytes]) -> bool:
    """Return whether a stream reads a regular file as it is, and cannot write to it."""
    if type(stream) is not io.BufferedReader or not isinstance(stream.raw, io.FileIO):
        return False
    writable = fcntl.fcntl(stream, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    return stat.S_ISREG(os.fstat(stream.fileno()).st_mode) and not writable


def _copied(stream: IO[bytes]) -> IO[bytes]:
    """Copy a stream to a file without a name; the caller closes it."""
    copy = _nameless_file()
    try:
        stream.seek(0)
        while block := stream.read(_BLOCK):
            copy.write(block)
            if copy.tell() > MAX_BYTES:
                raise UnreadableImage(f"it has more than {MAX_BYTES:,} bytes")
        copy.flush()
    except BaseException:
        copy.close()
        raise
    return copy


def _nameless_file() -> IO[bytes]:
    """Make a file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("image"), "w+b")
    return tempfile.TemporaryFile()


def load_pixels(source: str | Path | Image.Image, size: int) -> NDArray[np.uint8]:
    """Decode one image and fit it to (3, size, size) uint8: `fitted_pixels`.

    Raises:
        DataError: the image cannot be read; the message names the image and the reason.
    """
    try:
        return fitted_pixels(source, size)
    except UnreadableImage as reason:
        name = "the image" if isinstance(source, Image.Image) else str(source)
        raise DataError(f"cannot read {name}: {reason}") from None


def read_batches(
    files: Sequence[str], size: int, batch_size: int, workers: int = 2, *, any_name: bool = False
) -> Iterator[ImageBatch]:
    """Read image files in order, in batches; the next batch is decoded while the caller uses the current batch.

    Args:
        files: paths.
        size: pixels per side.
        batch_size: files per batch.
        workers: images that are decoded at the same time, see `Limits.for_callers`.
        any_name: whether to read files whose names are not valid text, too, which no index can hold.
    """

    def read(file: str) -> NDArray[np.uint8] | str:
        """Return the pixels of a file, or the reason why it cannot be read."""
        try:
            if not any_name:
                file.encode()
            return fitted_pixels(file, size, limits)
        except UnicodeEncodeError:
            return "its name is not valid text"
        except UnreadableImage as error:
            return error.reason

    limits = Limits.for_callers(workers)
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
        POOL.end_idle(os.cpu_count() or 1)
