"""`ImageEncoder`: turns an image file that was sent as a query into encodings.

The page sends the same image again after every change of a setting, so `ImageEncoder` keeps the encodings of
the last few images.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.images import FORMATS, UnreadableImage
from semcut.connector.explore.picture_decoding import fitted_picture
from semcut.indexes import Encodings
from semcut.indexes.errors import DataError

Encode = Callable[[Callable[[int], NDArray[np.uint8]]], Encodings]
"""Encodes an image with the network that made the index, see `Encoder.encode_read`."""

_IMAGES_KEPT = 16


class ImageEncoder:
    """Decodes and encodes one image after the other, each on all cores. Several threads may use an encoder at once.

    Args:
        encode: function that encodes an image; None if the network is not there.
    """

    def __init__(self, encode: Encode | None) -> None:
        self._encode = encode
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Encodings] = OrderedDict()  # by digest of the file, least recently used first

    @property
    def available(self) -> bool:
        """Whether images can be encoded."""
        return self._encode is not None

    def encode(self, content: bytes) -> Encodings:
        """Encode the content of an image file: one query.

        Raises:
            DataError: the network is not there, or the file cannot be read as an image.
        """
        if self._encode is None:
            raise DataError("the network of this index is not here, so it cannot be searched with images: give an id")
        digest = hashlib.sha256(content).digest()
        with self._lock:
            if digest not in self._kept:
                self._kept[digest] = _encoded(content, self._encode)
            self._kept.move_to_end(digest)
            while len(self._kept) > _IMAGES_KEPT:
                self._kept.popitem(last=False)
            return self._kept[digest]


def _encoded(content: bytes, encode: Encode) -> Encodings:
    try:
        return encode(partial(fitted_picture, io.BytesIO(content)))
    except UnreadableImage as error:
        formats = ", ".join(FORMATS)
        raise DataError(
            f"the file that was sent cannot be searched with: {error} (expected one of {formats})"
        ) from None
