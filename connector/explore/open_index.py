"""Opens an index for `semcut explore`, with the names of its classes and, if it is there, the network that made it.

Without the network, images cannot be queries, but everything else works. The network is loaded, and torch imported,
when the first image is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.connector.explore.image_queries import Encode
from semcut.connector.retrieval.collection_link import read_collection_link
from semcut.connector.retrieval.model_link import (
    network_classes,
    network_of,
    read_description,
    read_link,
    require_network,
)
from semcut.connector.retrieval.search_defaults_of import STANDARD, SearchDefaults
from semcut.indexes import Encodings, FaissIndex, StorageError
from semcut.indexes.errors import CheckpointError
from semcut.indexes.index import SemanticIndex
from semcut.indexes.open_with import open_with

Warn = Callable[[str], None]


@dataclass(frozen=True)
class OpenedIndex:
    """An open index, which the caller closes, and the network that made it, if that is known.

    Attributes:
        index: the index.
        class_names: names of its C classes; None if they are not known.
        encode: encodes images with the network; None if the network is not there.
        digest: SHA-256 of the weights of the network that made the index; None if that is not known.
        defaults: cutoff, ranking and shortlist of searches that name none.
        root: folder to which the uris of the index are relative; None if they are paths.
    """

    index: SemanticIndex
    class_names: Sequence[str] | None
    encode: Encode | None
    digest: str | None = None
    defaults: SearchDefaults = STANDARD
    root: str | None = None


class _Network(NamedTuple):
    """Names of the classes of a network, and the function that encodes images with it; None without a network."""

    class_names: Sequence[str] | None
    encode: Encode | None


def open_collection(
    uri: str, collection: str, milvus_token: str | None, model: Path | None, device: str, warn: Warn
) -> OpenedIndex:
    """Open a Milvus collection.

    Args:
        uri: the server, or the file of an embedded one.
        collection: name of the collection.
        milvus_token: token for the server; None if the server needs none.
        model: run directory of the network; None for the one that the collection records, if it records one.
        device: where the network runs.
        warn: callback that gets a sentence if the network cannot be used, or cannot be checked.

    Raises:
        StorageError: the collection cannot be used, or what it records of its network cannot be read.
        CheckpointError: `model` is given, and holds no network, or not the one that made the collection.
    """
    from semcut.indexes.milvus import MilvusIndex

    if model is not None:
        require_network(model, None)
    index = MilvusIndex.open(uri, collection=collection, token=milvus_token)
    try:
        link = read_collection_link(index, collection)
        if link is None:
            return OpenedIndex(index, *_find_network(model, None, device, warn))
        if model is not None:
            require_network(model, link.sha256)
        network = _find_network(model or link.model, link.sha256, device, warn)
        # Not the root of the link: a server does not choose which files of this machine are shown to other people.
        return OpenedIndex(index, *network, link.sha256, link.defaults)
    except BaseException:
        index.close()
        raise


def open_stored(path: Path, model: Path | None, device: str, warn: Warn) -> OpenedIndex:
    """Open an index in a directory.

    Args:
        path: the directory.
        model: run directory of the network; None if it is where it was when the index was made.
        device: as for `open_collection`.
        warn: as for `open_collection`.

    Raises:
        StorageError: the index cannot be used.
        CheckpointError: `model` is given, and does not hold the network that made the index.
    """
    index, (link, names) = open_with(lambda: FaissIndex.open(path), lambda _: (read_link(path), network_classes(path)))
    try:
        if model is not None:
            require_network(model, None if link is None else link.sha256)
        if link is None or link.sha256 is None:
            root = None if link is None else link.root
            return OpenedIndex(index, *_find_network(model, None, device, warn), root=root)
        network = _find_network(model or network_of(path, link), link.sha256, device, warn)
        return OpenedIndex(index, network.class_names or names, network.encode, link.sha256, link.defaults, link.root)
    except BaseException:
        index.close()
        raise


def reopen_stored(path: Path, before: OpenedIndex) -> OpenedIndex:
    """Open the index that is in a directory now, to be served instead of another that was there before.

    Args:
        path: the directory.
        before: the other index, and its network, which is used for the new index, too.

    Raises:
        StorageError: there is no index that can be used, it has another shape, or another network made it.
    """
    index = FaissIndex.open(path)
    try:
        link = read_link(path)
        if index.config != before.index.config:
            raise StorageError(f"it has {index.config}, expected {before.index.config}")
        if before.digest != (None if link is None else link.sha256):
            raise StorageError("another network made it")
        if not index.in_place:
            raise StorageError("it is being replaced")
        defaults, root = (STANDARD, None) if link is None else (link.defaults, link.root)
        return replace(before, index=index, defaults=defaults, root=root)
    except BaseException:
        index.close()
        raise


def _find_network(model: Path | None, digest: str | None, device: str, warn: Warn) -> _Network:
    """Read the names of a network's classes, and return them with a function that loads the network when it is called.

    Args:
        model: run directory of the network; None if it is not known.
        digest: SHA-256 of the weights that made the index; None if it is not known.
        device, warn: as for `open_collection`.
    """
    if model is None:
        return _Network(None, None)
    found = read_description(model)
    if found is None or found.sha256 is None:
        warn(f"no network in {model}: only records of the index can be queries")
        return _Network(None, None)
    if digest not in (None, found.sha256):
        warn(f"the network in {model} did not make this index: only records of the index can be queries")
        return _Network(None, None)
    if digest is None:
        warn(f"the index does not record which network made it: the network in {model} is used unchecked")
    return _Network(found.classes, _LazyEncoder(model, found.sha256, device))


class _LazyEncoder:
    """Encodes images with a network that it loads for the first image, if it is still the one that was found."""

    def __init__(self, model: Path, digest: str, device: str) -> None:
        self._model, self._digest, self._device = model, digest, device
        self._encoder: Any = None

    def __call__(self, read: Callable[[int], NDArray[np.uint8]]) -> Encodings:
        """Encode an image."""
        if self._encoder is None:
            self._encoder = _load_encoder(self._model, self._digest, self._device)
        encodings: Encodings = self._encoder.encode_read(read)
        return encodings


def _load_encoder(model: Path, digest: str, device: str) -> Any:
    from semcut.connector.models.checkpoint import Checkpoint
    from semcut.connector.models.device import keep_freed_memory
    from semcut.connector.retrieval.encoder import Encoder

    keep_freed_memory()
    checkpoint = Checkpoint.load(model)
    if checkpoint.digest != digest:
        raise CheckpointError(f"the network in {model} was replaced by another: start again with the one of this index")
    return Encoder(checkpoint, device)
