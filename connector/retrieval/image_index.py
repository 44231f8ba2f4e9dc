"""`Connector`: a trained network and an index of its encodings, used as one.

A stored index that was made by a connector has a `connector.json` beside its columns: where the network is, and the
digest of its weights. Codes and features mean something to the network that made them only, so an index is never
opened with another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import Self

from semcut.connector.data.labels import LINK, labels_by_id
from semcut.connector.models.checkpoint import Checkpoint, write_json
from semcut.connector.retrieval.encoder import Encoder
from semcut.indexes import Encodings, FaissIndex, NotAnIndexError, SearchResult
from semcut.indexes.config import Ranking, SearchParams
from semcut.indexes.errors import CheckpointError, DataError
from semcut.indexes.scanners.protocol import EngineName

_ADD = 10_000  # records per commit


@dataclass(frozen=True)
class Hit:
    """One record of an answer: its id and uri, and how it compares with the query."""

    id: int
    uri: str | None
    distance: float
    relevance: float
    score: float
    hamming: int


@dataclass(frozen=True)
class Indexed:
    """How many images were added, and which files were skipped, with reasons."""

    added: int
    skipped: list[tuple[str, str]]


class Connector:
    """A network and an index of its encodings; `create` or `open` one. A context manager that closes the index."""

    def __init__(self, encoder: Encoder, index: FaissIndex) -> None:
        self.encoder = encoder
        self.index = index

    @classmethod
    def create(cls, path: str | os.PathLike[str] | None, model: str | os.PathLike[str], *, device: str = "cpu") -> Self:
        """An empty index for a network's encodings, in a new directory or (None) in memory.

        Raises:
            CheckpointError: there is no usable model in the directory `model`.
            IndexExistsError: there is something at `path`.
        """
        checkpoint = Checkpoint.load(model)
        encoder = Encoder(checkpoint, device)
        index = FaissIndex.create(path, encoder.index_config())
        if path is not None:
            content = {
                "model": str(checkpoint.path.absolute()),
                "sha256": checkpoint.digest,
                "head": checkpoint.net.architecture.head,
                "binarisation": checkpoint.net.head.binarisation,
            }
            write_json(Path(path) / LINK, content)
        return cls(encoder, index)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        model: str | os.PathLike[str] | None = None,
        *,
        device: str = "cpu",
        engine: EngineName = "auto",
    ) -> Self:
        """A stored index with the network that made it.

        Args:
            path: directory of the index.
            model: where the network is now, if it was moved.
            device: to encode on.
            engine: what scans the index, see `FaissIndex.create`.

        Raises:
            NotAnIndexError: there is no index, or it was not made by a connector.
            CheckpointError: the network is not there, or is another one.
        """
        index = FaissIndex.open(path, engine=engine)
        try:
            link = json.loads((Path(path) / LINK).read_text())
            recorded, digest = link["model"], link["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            index.close()
            raise NotAnIndexError(
                f"{path} does not say which network made it (no {LINK}): it was not made by `semcut index`"
            ) from None
        try:
            checkpoint = Checkpoint.load(model or recorded)
            if checkpoint.digest != digest:
                raise CheckpointError(
                    f"the index {path} was made by another network than the one in {model or recorded}: codes of "
                    "different networks cannot be compared; give the right model, or index the images again"
                )
            return cls(Encoder(checkpoint, device), index)
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

    def add_files(self, files: Sequence[str], *, progress: Callable[[int], None] | None = None) -> Indexed:
        """Encode image files and add them, batch by batch; ids go on from the largest in the index.

        Args:
            files: paths; they become the records' uris.
            progress: told how many files have been dealt with.
        """
        added, done, skipped = 0, 0, []
        pending: list[Encodings] = []
        for batch in self.encoder.encode_files(files, first_id=self.index.next_id()):
            pending.append(batch.encodings)
            skipped += batch.skipped
            added += len(batch.encodings)
            done += len(batch.encodings) + len(batch.skipped)
            if sum(map(len, pending)) >= _ADD or done == len(files):
                self.index.add(Encodings.concatenate(pending))
                pending = []
            if progress is not None:
                progress(done)
        return Indexed(added, skipped)

    def search(
        self,
        images: Sequence[str | Path | Image.Image],
        *,
        k: int = 10,
        cutoff: float = 0.2,
        shortlist: int | None = 100,
        ranking: Ranking = "distance",
    ) -> list[list[Hit]]:
        """The k best records for each image, best first; fewer where fewer are relevant. See `SemanticIndex.search`.

        Raises:
            DataError: an image cannot be read.
            InvalidParameterError: an argument is out of range.
        """
        if isinstance(images, str | Path | Image.Image):
            raise DataError("got one image, expected a list of images: put it in brackets")
        SearchParams(k=k, cutoff=cutoff, shortlist=shortlist, ranking=ranking)  # before the slow part
        queries = self.encoder.encode(images)
        return self.hits(self.index.search(queries, k=k, cutoff=cutoff, shortlist=shortlist, ranking=ranking))

    def labels(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """Label of the record with each id, -1 where it is none of `classes`: see `labels_by_id`."""
        return labels_by_id(self.index, classes)

    def hits(self, result: SearchResult) -> list[list[Hit]]:
        """A search's result with the uris of its records."""
        found = np.unique(result.ids[result.ids >= 0])
        names = dict(zip(found.tolist(), self.index.uris(found), strict=True))
        columns = (result.ids, result.distances, result.relevance, result.scores, result.hamming)
        return [
            [
                Hit(one, names[one], distance, relevance, score, hamming)
                for one, distance, relevance, score, hamming in zip(*(c[row].tolist() for c in columns), strict=True)
                if one >= 0
            ]
            for row in range(len(result))
        ]
