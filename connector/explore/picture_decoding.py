"""Decodes images in bounded memory: small ones beside each other, and one large one.

Images are decoded in other processes, see `decoding_pool`. Each takes at most 64 MiB for an image; one that needs more
waits for its turn to have 1,280 MiB. `http_api.WorkQueues` has three threads that decode images, so all that clients
ask for takes at most 1,280 + 2 x 64 MiB = 1.5 GB, besides 25 MB of each process, and returns to the system after the
image. This process gets no more than the pixels that it asked for.
"""

from __future__ import annotations

from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semcut.connector.data.decoding_pool import Limits
from semcut.connector.data.images import fitted_pixels, image_within

_LIMITS = Limits(first=1 << 26, most=5 << 28, seconds=10)


def fitted_picture(stream: IO[bytes], size: int) -> NDArray[np.uint8]:
    """Decode an image and fit it to (3, size, size) uint8.

    Args:
        stream: the content of an image file, which can be read more than once.
        size: pixels per side.

    Raises:
        UnreadableImage: the content is no image that can be decoded.
    """
    return fitted_pixels(stream, size, _LIMITS)


def small_picture(stream: IO[bytes], size: int) -> Image.Image:
    """Decode an image and make it smaller until no side has more than `size` pixels; otherwise as `fitted_picture`."""
    return image_within(stream, size, _LIMITS)
