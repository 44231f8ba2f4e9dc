"""What a process that decodes images and its parent say to each other, over a pair of stream sockets.

    worker    HELLO, as soon as it can decode
    parent    REQUEST: what is wanted (`Wanted`), pixels per side, bytes of memory, milliseconds of processor time; the
              descriptor of the file comes with its first byte, see `socket.send_fds`
    worker    ANSWER: `Outcome`, width, height, and the number of bytes that follow: pixels, or a reason in UTF-8

Everything has a fixed size or is preceded by its size, nothing is unpickled, and the parent checks each number of an
answer before it takes memory for what follows. So a worker that an image has taken over can give wrong pixels, and no
more. Between a request and its answer the parent sends nothing: see `decoding_worker`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

HELLO = b"semcut decodes 1"
REQUEST = struct.Struct("<BIQI")
ANSWER = struct.Struct("<BIIQ")
REASON_BYTES = 4096
"""The longest reason."""

MAX_BYTES = 1 << 30
"""Files with more bytes than this are not decoded; 67 million pixels of four 16-bit channels have half as many."""

MAX_PIXELS = 1 << 26
"""Images with more pixels than this (67 million) are not decoded."""

MAX_SIDE = 65_535
"""Images that are wider or higher are not decoded; a JPEG file cannot be. Resizing takes memory for whole lines."""


class Wanted(IntEnum):
    """What is done with a file, and which pixels come back."""

    HEADER = 1
    """Only its header is read; no pixels, but the width and height that it states."""
    CHECK = 2
    """It is decoded; no pixels, but width and height."""
    FIT = 3
    """Its middle square, scaled to the size that is asked for: 3 planes of size x size bytes."""
    WITHIN = 4
    """The whole picture, made smaller until no side is longer than the size: rows of pixels of 3 bytes."""
    WHOLE = 5
    """The whole picture: rows of pixels of 3 bytes."""


class Outcome(IntEnum):
    """How it went."""

    DECODED = 1
    REFUSED = 2
    """The decoder has judged the bytes of the file: it cannot be decoded, for the reason that follows."""
    MORE_MEMORY = 3
    """The file could not be decoded in the memory, for the reason that follows; it may be in more."""
    PASSING = 4
    """The file was not decoded, for the reason that follows, which is not in the file and may be gone the next time."""


class Answer(NamedTuple):
    """An answer: the pixels are a `bytearray`, the reason is a text that came from outside."""

    outcome: Outcome
    width: int
    height: int
    pixels: bytearray
    reason: str = ""

    @property
    def passing(self) -> bool:
        """Whether the reason may be gone the next time: always, unless a decoder has judged the bytes of the file."""
        return self.outcome != Outcome.REFUSED


def not_decoded(reason: str) -> Answer:
    """Make the answer of a worker that could not give one."""
    return Answer(Outcome.PASSING, 0, 0, bytearray(), reason)


def is_possible(answer: tuple[int, int, int, int], wanted: Wanted, size: int) -> bool:
    """Return whether the numbers of an answer are what was asked for.

    Args:
        answer: outcome, width, height, and bytes that follow.
        wanted: what was asked for.
        size: pixels per side that were asked for.
    """
    outcome, width, height, count = answer
    if outcome in (Outcome.REFUSED, Outcome.MORE_MEMORY, Outcome.PASSING):
        return count <= REASON_BYTES
    if outcome != Outcome.DECODED or not (width > 0 and height > 0):
        return False
    if wanted in (Wanted.HEADER, Wanted.CHECK):
        return count == 0
    if wanted == Wanted.FIT:
        fits = width == height == size
    elif wanted == Wanted.WITHIN:
        fits = max(width, height) <= size
    else:
        fits = max(width, height) <= MAX_SIDE and width * height <= MAX_PIXELS
    return fits and count == 3 * width * height
