"""Encode images into a collection on a Milvus server, from one machine or from several, each its part of the images.

The id of a record is the digest of its uri, `semcut.indexes.keys.ids_of`, and the uri is the path of the image below
the folder that was given. So every machine gives an image the same id, wherever the folder lies there, and whatever
other images it sees. A repeated run asks the server which ids are there, and encodes the others.

Part i of n has the images whose id, divided by n, leaves i - 1. The id alone decides, not the place in a list: parts
have no image in common and leave none out, even if a machine lists the folder while images are still being copied
there. They are also about equal, whereas the folders at the beginning of a list may have small images, and those at
its end large ones.

Two machines that create a collection at the same time would each drop the half of the other. So part 1 creates it, and
the others wait.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from semcut.connector.data.image_uris import common_root, uri_of
from semcut.connector.retrieval.adding_files import Indexed
from semcut.connector.retrieval.collection_link import read_collection_link, write_collection_link
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.retrieval.search_defaults_of import SearchDefaults
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import CheckpointError, DataError, DuplicateIdError, NotAnIndexError
from semcut.indexes.keys import ids_of
from semcut.indexes.progress import Progress

if TYPE_CHECKING:
    from semcut.indexes.milvus import MilvusIndex

RECORDS_PER_ADD = 2_000
"""Records that are written at once; a process that is killed loses as many at most."""
WAIT = 600.0
"""Seconds that another part waits for the first one to create the collection."""
_IDS_PER_REQUEST = 10_000


class Part(NamedTuple):
    """Part `number`, from 1, of `parts`."""

    number: int
    parts: int


WHOLE = Part(1, 1)


def open_to_fill(
    uri: str | None,
    collection: str,
    encoder: Encoder,
    roots: Sequence[str],
    defaults: SearchDefaults,
    *,
    token: str | None = None,
    part: Part = WHOLE,
    wait: float = WAIT,
) -> MilvusIndex:
    """Open a collection for the records of a network; the first part creates it if it is missing.

    Args:
        uri, collection, token: as for `MilvusIndex.create`.
        encoder: the network.
        roots: folders whose folders are the classes of the images.
        defaults: defaults of searches, which a new collection records.
        part: the part that is to be encoded.
        wait: seconds that another part than the first waits for the collection.

    Raises:
        NotAnIndexError: the collection has records that `semcut index --to` has not made, or another part has waited.
        CheckpointError: another network made its records.
        ServerError: the server does not answer, or refuses.
    """
    from semcut.indexes.milvus import MilvusIndex

    end = time.monotonic() + wait
    while True:
        try:
            index = MilvusIndex.open(uri, collection=collection, token=token, strong=True)
        except NotAnIndexError:
            if part.number == 1:
                index = MilvusIndex.create(uri, encoder.index_config(), collection=collection, token=token, strong=True)
        else:
            if part.number == 1 or read_collection_link(index, collection) is not None:
                break
            index.close()
        if part.number == 1:
            break
        if time.monotonic() > end:
            raise NotAnIndexError(
                f"there is no collection {collection} after {wait:g} seconds: part 1 of {part.parts} creates it, start "
                "that first"
            )
        time.sleep(0.5)
    try:
        _link(index, collection, encoder, roots, defaults)
    except BaseException:
        index.close()
        raise
    return index


def _link(
    index: MilvusIndex, collection: str, encoder: Encoder, roots: Sequence[str], defaults: SearchDefaults
) -> None:
    """Record the network in a collection without records, or check that it is the one that is recorded."""
    checkpoint = encoder.checkpoint
    link = read_collection_link(index, collection)
    if link is None:
        if len(index):
            raise NotAnIndexError(
                f"the collection {collection} has records that `semcut index --to` has not made: choose another name"
            )
        root = common_root(roots)
        content = {
            "model": str(checkpoint.path.absolute()),
            "sha256": checkpoint.digest,
            "head": checkpoint.net.architecture.head,
            "binarisation": checkpoint.net.binarisation,
            "roots": list(dict.fromkeys(roots)),
            **defaults.content(),
            **({} if root is None else {"root": root}),
        }
        write_collection_link(index, content)
    elif link.sha256 != checkpoint.digest:
        raise CheckpointError(
            f"the collection {collection} was made by another network than that in {checkpoint.path}: give the right "
            "model, or choose another collection"
        )
    if index.config != encoder.index_config():
        raise CheckpointError(f"the collection {collection} has {index.config}, expected {encoder.index_config()}")


def fill_collection(
    index: MilvusIndex,
    encoder: Encoder,
    files: Sequence[str],
    roots: Sequence[str],
    report: Progress,
    part: Part = WHOLE,
) -> Indexed:
    """Encode the images of a part that have no record yet, and add them.

    Args:
        index: the collection, from `open_to_fill`.
        encoder: the network that made it.
        files: the images of all parts.
        roots: folders that have them.
        report: called with the number of files that were encoded or cannot be read.
        part: the part.

    Raises:
        DataError: an image has no folder in common with the others, so that other machines know it by another name.
        DuplicateIdError: two images have the same id.
        ServerError: the server does not answer, or refuses; the same call goes on.
    """
    root = common_root(roots)
    paths = {uri_of(file, root): file for file in files}
    outside = [uri for uri in paths if uri.startswith("/")]
    if part.parts > 1 and (root is None or outside):
        raise DataError(
            f"{(outside or list(paths))[0]} is in no folder that all images have in common, so its name differs from "
            "machine to machine: leave --part out, or give one folder"
        )
    uris = list(paths)
    ids = ids_of(uris)
    if len(np.unique(ids)) < len(ids):
        raise DuplicateIdError("two images have the same id, which follows from their paths: rename one of them")
    mine = np.flatnonzero(ids % part.parts == part.number - 1)
    known = np.zeros(len(mine), bool)
    for start in range(0, len(mine), _IDS_PER_REQUEST):
        here = slice(start, start + _IDS_PER_REQUEST)
        known[here] = index.contains(ids[mine[here]])
    wanted = mine[~known]
    skipped: list[tuple[str, str]] = []
    pending: list[Encodings] = []
    done = 0
    for batch in encoder.encode_files([paths[uris[place]] for place in wanted]):
        assert batch.encodings.ids is not None  # their positions
        places = wanted[batch.encodings.ids]
        named = [uris[place] for place in places.tolist()]
        encoded = batch.encodings
        pending.append(
            Encodings(
                probabilities=encoded.probabilities, codes=encoded.codes, features=encoded.features, ids=ids[places],
                uris=named,
            )
        )  # fmt: skip
        skipped += batch.skipped
        done += len(encoded) + len(batch.skipped)
        if pending and (sum(map(len, pending)) >= RECORDS_PER_ADD or done == len(wanted)):
            index.add(Encodings.concatenate(pending))
            pending = []
        report(done, len(wanted))
    if len(wanted):
        index.flush()
    return Indexed(len(wanted) - len(skipped), skipped, known=int(known.sum()))
