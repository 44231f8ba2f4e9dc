"""Change where the images and the network of an index are, after they were moved: `semcut relocate`.

The records keep their uris, which are relative to the root of the index; only `connector.json` is replaced, in one
step. Nothing here needs torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from semcut.connector.data.image_uris import path_of
from semcut.connector.retrieval.file_changes import THERE, why_missing
from semcut.connector.retrieval.model_link import (
    change_link,
    relative_place,
    require_network,
    required_link,
)
from semcut.indexes import FaissIndex
from semcut.indexes.argument_checks import path_given, possible_path_given
from semcut.indexes.errors import DataError, InvalidParameterError
from semcut.indexes.open_with import open_with

_SAMPLE = 1_000


@dataclass(frozen=True)
class Relocated:
    """The result of `relocate`.

    Attributes:
        looked_for: number of records whose image was looked for in the new folder, at most 1,000.
        missing: how many of these images are not there.
        example: the path of one of them; None if there is none.
    """

    looked_for: int = 0
    missing: int = 0
    example: str | None = None


def relocate(
    index: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
) -> Relocated:
    """Record where the images of a stored index, and the network that made it, are now.

    Args:
        index: directory of the index.
        images: the folder that was the root of the index, at its new place; None if it was not moved.
        model: run directory of the network; None if it was not moved.

    Raises:
        DataError: the folder is not there, or has none of the images; the index has no root; the link grows too large.
        CheckpointError: the network is not the one that made the index.
        NotAnIndexError: there is no index of images.
        LockedError, StorageError: the index is being changed, or cannot be.
        InvalidParameterError: nothing is given, or an argument is no path.
    """
    place = path_given("index", index)
    if images is None and model is None:
        raise InvalidParameterError("nothing to relocate: give the new folder of the images, or of the network")
    opened, link = open_with(lambda: FaissIndex.open(place, engine="faiss"), lambda _: required_link(place))
    with opened:
        values: dict[str, Any] = {}
        found = Relocated()
        if model is not None:
            network = possible_path_given("model", model)
            require_network(network, link.sha256)
            values |= {"model": os.path.abspath(network), "beside": relative_place(network, place)}
        if images is not None:
            folder = os.path.realpath(possible_path_given("images", images))
            if not os.path.isdir(folder):
                raise DataError(f"{images} is no folder: give the new place of the folder that has the images")
            if link.root is None:
                raise DataError(
                    f"{place} keeps the absolute paths of its images, which cannot be changed: index them again"
                )
            found = _looked_for(opened, folder)
            if found.looked_for and found.missing == found.looked_for:
                raise DataError(
                    f"none of {found.looked_for:,} images of {place} is in {folder}, such as {found.example}: give the "
                    f"new place of the folder that was {link.root}"
                )
            opened.begin()  # another command may have added a root until now, and none can change the link from here on
            roots = required_link(place).roots
            values |= {"root": folder, "roots": [_moved(root, link.root, folder) for root in roots]}
        opened.begin()
        change_link(place, **values)
        return found


def _moved(root: str, before: str, after: str) -> str:
    """Return the new place of a root, if it was moved with the folder that is or has it."""
    if root.rstrip("/") == before:
        return after
    return after + root[len(before) :] if root.startswith(f"{before}/") else root


def _looked_for(index: FaissIndex, folder: str) -> Relocated:
    """Look for the images of some records in a folder."""
    ids = index.ids()
    chosen = ids[np.unique(np.linspace(0, max(0, len(ids) - 1), min(len(ids), _SAMPLE)).astype(np.int64))]
    uris = [uri for uri in index.uris(chosen) if uri is not None]
    paths = [str(path) for uri in uris if (path := path_of(uri, folder)) != uri]
    missing = [path for path in paths if why_missing(path) != THERE]
    return Relocated(len(paths), len(missing), missing[0] if missing else None)
