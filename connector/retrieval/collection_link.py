"""Read and write the link of a collection: which network made its records, as `connector.json` says it of a directory.

The link is JSON in the note of the index (`semcut.indexes.milvus.index_note`), with the values that `model_link`
explains, but for `beside`. Anyone who can write to the server may have written it, so all of it is checked, and one
value that is not as semcut writes it refuses the whole link. It decides what network is accepted, never what is
executed: the network is read from this machine, and has to have the digest.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semcut.connector.data.image_folders import is_text
from semcut.connector.retrieval.model_link import ModelLink, link_content, link_in
from semcut.indexes.errors import DamagedIndexError, DataError, InvalidParameterError, NotAnIndexError, SemcutWarning

if TYPE_CHECKING:
    from semcut.connector.retrieval.image_index import Connector
    from semcut.indexes.milvus import MilvusIndex

_OPTIONAL = {"root", "exclude_training", "cutoff", "ranking", "shortlist"}
_DIGEST = re.compile("[0-9a-f]{64}")


def write_collection_link(index: MilvusIndex, content: Mapping[str, Any]) -> None:
    """Record which network makes the records of a collection.

    Args:
        index: the collection.
        content: the arguments of `model_link.write_link`.

    Raises:
        DataError: the roots are too many for a link.
        ServerError: the server does not answer, or refuses.
    """
    from semcut.indexes.milvus.index_note import write_note

    try:
        write_note(index, json.dumps(link_content(content)))
    except InvalidParameterError as error:
        raise DataError(f"the link of the collection is too large: {error}; give fewer roots") from None


def read_collection_link(index: MilvusIndex, collection: str) -> ModelLink | None:
    """Read which network made the records of a collection; None if it does not record that.

    Raises:
        DamagedIndexError: the link is not one that semcut has written.
    """
    from semcut.indexes.milvus.index_note import read_note

    text = read_note(index)
    return None if text is None else link_from_text(text, collection)


def link_from_text(text: str, collection: str) -> ModelLink:
    """Return the link in a text from a server.

    Raises:
        DamagedIndexError: it is not one that semcut has written.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    link = link_in(content) if isinstance(content, dict) and _is_whole(content) else None
    if link is None:
        raise DamagedIndexError(
            f"what the collection {collection} records of its network cannot be read: it was damaged, or not written "
            "by semcut; fill the collection again"
        )
    return link


def required_collection_link(index: MilvusIndex, collection: str) -> ModelLink:
    """Read which network made the records of a collection.

    Raises:
        NotAnIndexError: the collection does not record it.
        DamagedIndexError: as for `read_collection_link`.
    """
    link = read_collection_link(index, collection)
    if link is None:
        raise NotAnIndexError(
            f"the collection {collection} does not record which network made it: it was not made by `semcut index --to`"
        )
    return link


def open_collection(
    uri: str,
    collection: str,
    model: str | os.PathLike[str] | None = None,
    *,
    token: str | None = None,
    device: str = "cpu",
    images: str | os.PathLike[str] | None = None,
) -> Connector:
    """Open a collection with the network that made its records.

    Args:
        uri, collection, token: as for `MilvusIndex.open`.
        model: run directory of the network on this machine; None for the one that the collection records.
        device: device that the network encodes on.
        images: the folder of the images on this machine; None for the one that the collection records.

    Raises:
        NotAnIndexError, DamagedIndexError: there is no such collection, or as for `required_collection_link`.
        CheckpointError: the network is missing, or is not the one that made the records.
        ServerError: the server does not answer, or refuses.

    Warns:
        SemcutWarning: the collection has no records.
    """
    from semcut.connector.retrieval.image_index import Connector
    from semcut.connector.retrieval.linked_network import linked_encoder
    from semcut.indexes.milvus import MilvusIndex

    index = MilvusIndex.open(uri, collection=collection, token=token)
    try:
        link = required_collection_link(index, collection)
        root = link.root if images is None else os.path.abspath(images)
        roots = link.roots if images is None else (str(root),)
        connector = Connector(linked_encoder(collection, link, model, device), index, roots, root=root)
        connector.defaults = link.defaults
        if not len(index):
            warnings.warn(f"collection {collection} has no records", SemcutWarning, stacklevel=2)
        return connector
    except BaseException:
        index.close()
        raise


def _is_whole(content: dict[str, Any]) -> bool:
    """Return whether an object has all values of a link, each as semcut writes it; it may have others, too."""
    valid = link_content(content)
    if valid is None or {name: content[name] for name in content if name in valid.keys() | _OPTIONAL} != valid:
        return False
    model = content["model"]
    return (
        _DIGEST.fullmatch(content["sha256"]) is not None
        and Path(model).is_absolute()
        and "\0" not in model
        and is_text(model)
        and all(map(_is_folder_name, valid["roots"]))
    )


def _is_folder_name(root: str) -> bool:
    return os.path.isabs(root) and "\0" not in root and is_text(root)
