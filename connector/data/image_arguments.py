"""Check arguments that are images, as callers of the public functions give them: files, and pictures of Pillow."""

from __future__ import annotations

from typing import Any

from semcut.connector.data.file_arguments import items_given, path_text
from semcut.connector.data.pillow import Image
from semcut.indexes.errors import DataError, shown


def images_given(name: str, value: Any) -> list[str | Image.Image]:
    """Read images in their order: paths as strings, and pictures of Pillow; whether they can be decoded is not checked.

    Raises:
        DataError: it is one image, has no order, or holds something else than images.
    """
    if isinstance(value, Image.Image):
        raise DataError(f"{name} = {shown(value)}: got one image, expected a list of images: put it in brackets")
    if isinstance(value, set | frozenset):
        raise DataError(f"{name} = {shown(value)}, expected a list of images, because a set has no order")
    found: list[str | Image.Image] = []
    for place, item in enumerate(items_given(name, value, "image", "images")):
        image = item if isinstance(item, Image.Image) else path_text(item)
        if image is None:
            advice = ", which PIL.Image.fromarray makes of pixels" if hasattr(item, "shape") else ""
            raise DataError(
                f"{name}[{place}] = {shown(item)}, expected the path of a file or a picture of Pillow{advice}"
            )
        found.append(image)
    return found
