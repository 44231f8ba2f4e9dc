"""Copies of an image that show the same thing: crops, mirrored and recoloured ones.

A search with such a copy must find the image itself. So they stand for pairs of images of the same thing where there
are no labels.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance

COPIES = 3
"""The number of copies of an image."""

_KEPT = (0.6, 0.9)
"""The smallest and the largest share of width and of height that a crop keeps."""
_STRENGTH = (0.7, 1.3)
"""The range of the factors on brightness, contrast and saturation."""


def copies_of(image: Image.Image, rng: np.random.Generator) -> list[Image.Image]:
    """Return a crop, a mirrored crop, and a recoloured crop of an RGB image."""
    crops = [_cropped(image, rng) for _ in range(COPIES)]
    return [
        crops[0],
        crops[1].transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        _recoloured(crops[2], rng),
    ]


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = (max(1, round(size * rng.uniform(*_KEPT))) for size in image.size)
    left, top = (
        int(rng.integers(0, whole - part + 1)) for whole, part in zip(image.size, (width, height), strict=True)
    )
    return image.crop((left, top, left + width, top + height))


def _recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = change(image).enhance(float(rng.uniform(*_STRENGTH)))
    return image
