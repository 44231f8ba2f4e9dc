"""Identify images by their content, and check which images of a set can be read, before a training relies on them.

An image is identified by a digest of the bytes of its file, so neither its name, nor its folder, an archive, a link or
the time of its modification matter. A copy under another name is the same image; one that was saved anew is not.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from semcut.connector.daemon_threads import DaemonThreads, result_of
from semcut.connector.data.decoding_pool import Limits
from semcut.connector.data.images import MAX_BYTES, UnreadableImage, check_image
from semcut.connector.data.label_sets import require_one_label
from semcut.connector.data.sources import DIGEST_BYTES as DIGEST_BYTES
from semcut.connector.data.sources import ImageSet
from semcut.indexes.errors import DataError
from semcut.indexes.progress import Progress, silent
from semcut.indexes.regular_files import open_binary

_BLOCK = 1 << 20
_AT_ONCE = 1024
"""Files that are handed to the threads at a time, so that little is left to do after Ctrl-C."""

_NOT_DRAWN = "a class of which no image was drawn, so it is no class: choose more images"

_S = TypeVar("_S")
_T = TypeVar("_T")


def digest_of(file: str) -> bytes | None:
    """Compute the digest of a file, 16 bytes of BLAKE2b; None if it cannot be read, or is too large for an image."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    try:
        with open_binary(file, max_bytes=MAX_BYTES, follow=True) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except (OSError, ValueError):
        return None
    return digest.digest()


def digests_of(files: Sequence[str], workers: int = 2) -> list[bytes | None]:
    """Compute the digest of each file, see `digest_of`."""
    return list(in_threads(digest_of, files, workers))


def readable_images(images: ImageSet, workers: int = 2, progress: Progress | None = None) -> ImageSet:
    """Decode every image once, and select those that can be read; a class of which none can be read is no class.

    Args:
        images: the images.
        workers: threads that decode.
        progress: called with the number of images that were checked.

    Returns:
        The images that can be read, with digests; what cannot be read is in `skipped` with the reason.

    Raises:
        DataError: fewer than two classes are left, or an image has several labels.
    """
    require_one_label(images.files, images.label_sets, "training")
    report = progress or silent
    reasons: list[str] = []
    digests: list[bytes] = []
    check = partial(_checked, limits=Limits.for_callers(min(workers, os.cpu_count() or 1)))
    for done, (digest, reason) in enumerate(in_threads(check, images.files, workers), 1):
        digests.append(digest)
        reasons.append(reason)
        report(done, len(images))
    kept = [position for position, reason in enumerate(reasons) if not reason]
    skipped = [(file, reason) for file, reason in zip(images.files, reasons, strict=True) if reason]
    counts = np.bincount(images.labels[kept], minlength=len(images.classes))
    drawn = np.bincount(images.labels, minlength=len(images.classes))
    skipped += [
        (name, "a class of which no image can be read, so it is no class" if of_it else _NOT_DRAWN)
        for name, count, of_it in zip(images.classes, counts.tolist(), drawn.tolist(), strict=True)
        if not count
    ]
    left = tuple(name for name, count in zip(images.classes, counts.tolist(), strict=True) if count)
    if len(left) < 2 and not any(reasons):
        raise DataError(
            f"the images that were drawn ({len(images)}) are of {len(left)} class, expected at least 2: choose more "
            "images"
        )
    if len(left) < 2:
        first = f": {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(
            f"images of {len(left)} class can be read, expected at least 2 classes; {len(images) - len(kept)} of "
            f"{len(images)} images cannot be read{first}"
        )
    found = replace(images.subset(kept), digests=tuple(digests[position] for position in kept))
    new_label = np.cumsum(counts > 0) - 1
    return replace(
        found, labels=new_label[found.labels], classes=left, skipped=(*images.skipped, *skipped), label_sets=None
    )


def _checked(file: str, limits: Limits) -> tuple[bytes, str]:
    """Return the digest of an image, and the reason why it cannot be read or nothing."""
    try:
        check_image(file, limits)
    except UnreadableImage as reason:
        return b"", str(reason)
    digest = digest_of(file)
    return (b"", "it was changed meanwhile") if digest is None else (digest, "")


def in_threads(work: Callable[[_S], _T], items: Sequence[_S], workers: int = 2) -> Iterator[_T]:
    """Yield the results for all items, such as files, in order; Ctrl-C waits for none of them."""
    threads = DaemonThreads(min(workers, os.cpu_count() or 1), "contents")
    try:
        for start in range(0, len(items), _AT_ONCE):
            futures = [threads.submit(partial(work, item)) for item in items[start : start + _AT_ONCE]]
            yield from map(result_of, futures)
    finally:
        threads.stop()
