"""Encode parts of images as queries: a box around the thing to find, as data sets of landmarks give it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image

from semcut.connector.data.decode_stream import UnreadableImage
from semcut.connector.data.images import open_image
from semcut.connector.ground_truth.judged_queries import Box
from semcut.connector.retrieval.encoder import Encoder
from semcut.indexes import Encodings
from semcut.indexes.errors import DataError
from semcut.indexes.progress import Progress

_AT_ONCE = 8
"""Images that are in memory: whole photos, before the network makes them small."""


def encode_cropped(
    encoder: Encoder,
    files: Sequence[str],
    boxes: Sequence[Box | None],
    skipped: list[tuple[str, str]],
    progress: Progress,
) -> tuple[Encodings, list[int]]:
    """Encode images, each cropped to its box.

    Args:
        encoder: the network.
        files: n paths.
        boxes: n boxes in pixels of the upright images, None for whole images; what is outside an image is left out.
        skipped: gets a pair (file, reason) for each image that cannot be read, or has nothing in its box.
        progress: called with the number of images that were done.

    Returns:
        The encodings of the other images, and their positions.

    Raises:
        DataError: none of the images can be read.
    """
    parts: list[Encodings] = []
    positions: list[int] = []
    for start in range(0, len(files), _AT_ONCE):
        block = slice(start, start + _AT_ONCE)
        found = list(_cropped(files[block], boxes[block], skipped))
        if found:
            parts.append(encoder.encode([image for _, image in found]))
            positions += [start + place for place, _ in found]
        progress(min(start + _AT_ONCE, len(files)), len(files))
    if not parts:
        raise DataError(f"none of the {len(files):,} queries can be read, the first is {': '.join(skipped[0])}")
    return Encodings.concatenate(parts), positions


def _cropped(
    files: Sequence[str], boxes: Sequence[Box | None], skipped: list[tuple[str, str]]
) -> Iterator[tuple[int, Image.Image]]:
    for place, (file, box) in enumerate(zip(files, boxes, strict=True)):
        try:
            image = open_image(file)
        except UnreadableImage as reason:
            skipped.append((file, str(reason)))
            continue
        if box is not None:
            left, top = (max(0, round(side)) for side in box[:2])
            right, bottom = (min(most, round(side)) for most, side in zip(image.size, box[2:], strict=True))
            if left >= right or top >= bottom:
                skipped.append((file, f"the box of the query has no pixel of its {image.width} x {image.height}"))
                continue
            image = image.crop((left, top, right, bottom))
        yield place, image
