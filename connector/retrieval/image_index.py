"""`Connector`: a trained network together with an index of its encodings.

Codes and features of different networks cannot be compared, so a stored index is opened only with the network that made
it. `model_link` records which network that is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import Self

from semcut.connector.data.labels import labels_by_id
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.retrieval.model_link import LINK, read_link, write_link
from semcut.indexes import Encodings, FaissIndex, NotAnIndexError, SearchResult, SemanticIndex
from semcut.indexes.config import Ranking, SearchParams
from semcut.indexes.errors import CheckpointError, DataError
from semcut.indexes.progress import Progress, silent
from semcut.indexes.scanners.engine_names import EngineName
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_K, DEFAULT_SHORTLIST

_RECORDS_PER_COMMIT = 10_000


@dataclass(frozen=True)
class Hit:
    """A record that a search found: its id and uri, and its distance, relevance and score for the query."""

    id: int
    uri: str | None
    distance: float
    relevance: float
    score: float
    hamming: int


@dataclass(frozen=True)
class Indexed:
    """The result of `Connector.add_files`: number of images added, and a pair (file, reason) for each skipped file."""

    added: int
    skipped: list[tuple[str, str]]


class Connector:
    """A trained network and an index of its encodings; a context manager that closes the index at the end.

    `create` and `open` use a `FaissIndex`. The constructor takes any other `SemanticIndex` of encodings of the same
    network.
    """

    def __init__(self, encoder: Encoder, index: SemanticIndex, roots: Sequence[str] = ()) -> None:
        self.encoder = encoder
        self.index = index
        self.roots = tuple(roots)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        model: str | os.PathLike[str],
        *,
        device: str = "cpu",
        roots: Sequence[str] = (),
    ) -> Self:
        """Create an empty index for the encodings of a network.

        Args:
            path: a new or empty directory for the index; None keeps the index in memory.
            model: run directory of the network.
            device: device that the network encodes on.
            roots: absolute paths of folders whose folders are the classes of the images that will be added. The class
                of other files is the name of their own folder.

        Raises:
            CheckpointError: the directory `model` holds no usable network.
            IndexExistsError: `path` exists and is not an empty directory.
        """
        checkpoint = Checkpoint.load(model)
        encoder = Encoder(checkpoint, device)
        index = FaissIndex.create(path, encoder.index_config())
        if path is not None:
            write_link(
                path,
                model=checkpoint.path,
                sha256=checkpoint.digest,
                head=checkpoint.net.architecture.head,
                binarisation=checkpoint.net.head.binarisation,
                roots=roots,
            )
        return cls(encoder, index, roots)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "cpu",
        engine: EngineName = "auto",
    ) -> Self:
        """Open a stored index with the network that made it.

        Args:
            path: directory of the index.
            model: run directory of the network, if the network was moved after the index was made.
            device: device that the network encodes on.
            engine: engine that scans the index, see `FaissIndex.create`.

        Raises:
            NotAnIndexError: the directory holds no index, or the index was not made by a connector.
            CheckpointError: the network is missing, or is not the one that made the index.
        """
        index = FaissIndex.open(path, engine=engine)
        try:
            link = read_link(path)
            if link is None or link.sha256 is None:
                raise NotAnIndexError(
                    f"{path} does not record which network made it (no {LINK}): it was not made by `semcut index`"
                )
            checkpoint = Checkpoint.load(model or link.model)
            if checkpoint.digest != link.sha256:
                raise CheckpointError(
                    f"the index {path} was made by another network than that in {model or link.model}: give the right "
                    "model, or index the images again, because codes of different networks cannot be compared"
                )
            return cls(Encoder(checkpoint, device), index, link.roots)
        except BaseException:
            index.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the index."""
        self.index.close()

    def add_files(self, files: Sequence[str], *, progress: Progress | None = None) -> Indexed:
        """Encode image files and add them to the index, batch by batch; new ids follow the largest id in the index.

        Args:
            files: paths of the files, which become the uris of the records.
            progress: called with the number of files that were encoded or skipped.
        """
        report = progress or silent
        added, done, skipped = 0, 0, []
        pending: list[Encodings] = []
        for batch in self.encoder.encode_files(files, first_id=self.index.next_id()):
            pending.append(batch.encodings)
            skipped += batch.skipped
            added += len(batch.encodings)
            done += len(batch.encodings) + len(batch.skipped)
            if sum(map(len, pending)) >= _RECORDS_PER_COMMIT or done == len(files):
                self.index.add(Encodings.concatenate(pending))
                pending = []
            report(done, len(files))
        return Indexed(added, skipped)

    def search(
        self,
        images: Sequence[str | Path | Image.Image],
        *,
        k: int = DEFAULT_K,
        cutoff: float = DEFAULT_CUTOFF,
        shortlist: int | None = DEFAULT_SHORTLIST,
        ranking: Ranking = "distance",
    ) -> list[list[Hit]]:
        """Find the k best records for each image, best first; fewer than k if fewer records are relevant.

        See `SemanticIndex.search` for the meaning of each argument.

        Raises:
            DataError: an image cannot be read.
            InvalidParameterError: an argument is out of range.
        """
        if isinstance(images, str | Path | Image.Image):
            raise DataError("got one image, expected a list of images: put the image in brackets")
        SearchParams(k=k, cutoff=cutoff, shortlist=shortlist, ranking=ranking)  # raises errors before the slow encoding
        queries = self.encoder.encode(images)
        return self.hits(self.index.search(queries, k=k, cutoff=cutoff, shortlist=shortlist, ranking=ranking))

    def labels(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Look up the label of every record by its id; -1 if its class is not in `classes`: see `labels_by_id`."""
        return labels_by_id(self.index, classes, self.roots)

    def hits(self, result: SearchResult) -> list[list[Hit]]:
        """Convert the result of a search to a list of hits for each query, with the uris of the records."""
        found = np.unique(result.ids[result.ids >= 0])
        uris = dict(zip(found.tolist(), self.index.uris(found), strict=True))
        columns = (result.ids, result.distances, result.relevance, result.scores, result.hamming)
        return [
            [
                Hit(record, uris[record], distance, relevance, score, hamming)
                for record, distance, relevance, score, hamming in zip(*(c[row].tolist() for c in columns), strict=True)
                if record >= 0
            ]
            for row in range(len(result))
        ]
