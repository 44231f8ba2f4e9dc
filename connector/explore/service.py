"""An index that is looked at, its network if there is one, and everything that is asked of them.

Calls may come from several threads at once. Each sees the index as of its last change, and one state of it: a call
during which the index has changed is made again.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semcut.connector.data.images import FORMATS, UnreadableImage, open_image
from semcut.connector.explore.exhaustive import best_of_all, comparable
from semcut.connector.explore.schemas import (
    Answer,
    Asked,
    Compared,
    Done,
    FoundRecord,
    Likely,
    Members,
    Partition,
    Partitions,
    Pruned,
    Query,
    Record,
    Sample,
    Stats,
)
from semcut.connector.explore.thumbnails import Thumbnail, thumbnail
from semcut.indexes import (
    Encodings,
    FaissIndex,
    IndexStats,
    InvalidParameterError,
    SearchResult,
    ServerError,
    UnknownIdError,
)
from semcut.indexes.errors import DataError
from semcut.indexes.index import SemanticIndex

Encode = Callable[[Sequence[Image.Image]], Encodings]

_TOP = 3  # classes that are named of each record
_CONFIDENCE = 64  # records that the mean confidence of a partition is of
_ATTEMPTS = 5  # at an answer of one state of the index
_REMEMBERED = 16  # encodings of images that were sent: of one that stands as the query every setting asks again
_FRESH = 60.0  # seconds for which the sizes of an index on a server are taken for the same

_T = TypeVar("_T")


class ExploreService:
    """What can be asked of an index.

    Args:
        index: open; not closed here.
        names: of its classes; None if they have none.
        encode: makes encodings of images, if the network is there.
    """

    def __init__(self, index: SemanticIndex, names: Sequence[str] | None, encode: Encode | None) -> None:
        classes = index.config.classes
        if names is not None and len(names) != classes:
            names = None
        self._index, self._encode = index, encode
        self._names = [f"class {number}" for number in range(classes)] if names is None else list(names)
        self._encoding, self._sizing = threading.Lock(), threading.Lock()
        self._encoded: OrderedDict[bytes, Encodings] = OrderedDict()
        self._sizes: tuple[str, float, IndexStats] | None = None

    @property
    def classes(self) -> int:
        """C."""
        return self._index.config.classes

    def version(self) -> str:
        """Of the index, as of its last change."""
        if isinstance(self._index, FaissIndex):
            self._index.refresh()
        return self._version()

    def _version(self) -> str:
        return str(self._index.version)  # type: ignore[attr-defined]

    def _of_one_state(self, call: Callable[[str], _T]) -> _T:
        """What a call gives that is told the version, when the index has not changed meanwhile."""
        for _ in range(_ATTEMPTS):
            version = self.version()
            try:
                found = call(version)
            except UnknownIdError:
                if self._version() == version:
                    raise
                continue
            if self._version() == version:
                return found
        raise ServerError("the index changes faster than it can be read: try again")

    def _sized(self, version: str) -> IndexStats:
        """The size of the index; on a server, where each record has to be read for it, as of the last minute."""
        with self._sizing:
            if self._sizes is not None:
                known, when, stats = self._sizes
                young = not isinstance(self._index, FaissIndex) and time.monotonic() < when + _FRESH
                if known == version or young:
                    return stats
            stats = self._index.stats()
            self._sizes = version, time.monotonic(), stats
            return stats

    def warm(self) -> None:
        """Search once, so that the first who asks does not wait for what is loaded then."""
        some = self.sample(1, 0).records
        if some:
            self.search(Asked(id=int(some[0].id), explain=True))

    def stats(self) -> Stats:
        """The size of the index."""
        return self._of_one_state(self._stats)

    def _stats(self, version: str) -> Stats:
        stats, config = self._sized(version), self._index.config
        return Stats(
            records=stats.records,
            removed=stats.removed,
            partitions=sum(1 for size in stats.partitions if size),
            cells=stats.cells,
            classes=self._names,
            bits=config.bits,
            dim=config.dim,
            normalised=stats.normalised,
            images=self._encode is not None,
            comparable=comparable(self._index, stats.records),
            version=version,
        )

    def record(self, record: int) -> Record:
        """A record.

        Raises:
            UnknownIdError: there is none of that id.
        """
        return self._of_one_state(lambda version: self._records([record])[0])

    def _records(self, ids: Any) -> list[Record]:
        found = self._index.get(ids)
        assert found.ids is not None
        uris = found.uris if found.uris is not None else [None] * len(found)
        return [
            Record(id=str(one), uri=uri, classes=classes)
            for one, uri, classes in zip(found.ids.tolist(), uris, self._likely(found.probabilities), strict=True)
        ]

    def thumbnail(self, record: int, size: int) -> Thumbnail:
        """A picture of a record."""
        return thumbnail(self._of_one_state(lambda version: self._index.uris([record])[0]), size)

    def sample(self, count: int, seed: int) -> Sample:
        """Records drawn at random: of a random partition each, so that small ones are seen, too."""
        return self._of_one_state(lambda version: self._sample(count, seed, version))

    def _sample(self, count: int, seed: int, version: str) -> Sample:
        rng, sizes = np.random.default_rng(seed), np.array(self._sized(version).partitions)
        chosen = rng.choice(np.flatnonzero(sizes), count) if sizes.any() else np.empty(0, np.int64)
        ids = []
        for partition, wanted in zip(*np.unique(chosen, return_counts=True), strict=True):
            some = self._index.members(int(partition), min(1000, int(sizes[partition])))
            ids.append(rng.choice(some, min(int(wanted), len(some)), replace=False))
        drawn = np.concatenate([np.empty(0, np.int64), *ids])
        return Sample(records=self._records(rng.permutation(drawn)))

    def partitions(self, offset: int, limit: int, samples: int) -> Partitions:
        """Partitions with records, the largest first, and some records of each."""
        return self._of_one_state(lambda version: self._partitions(offset, limit, samples, version))

    def _partitions(self, offset: int, limit: int, samples: int, version: str) -> Partitions:
        sizes = np.array(self._sized(version).partitions)
        order = np.argsort(-sizes, kind="stable")
        order = order[sizes[order] > 0]
        cells = self._index.cells_per_partition()
        found = []
        for partition in order[offset : offset + limit].tolist():
            some = self._index.members(partition, max(samples, _CONFIDENCE))
            spread = np.linspace(0, max(0, len(some) - 1), min(samples, len(some))).astype(int)
            confidence = self._index.get(some[:_CONFIDENCE]).probabilities.max(axis=1) if len(some) else None
            found.append(
                Partition(
                    partition=partition,
                    name=self._names[partition],
                    records=int(sizes[partition]),
                    cells=int(cells[partition]),
                    confidence=None if confidence is None else float(confidence.mean()),
                    sample=[str(one) for one in some[spread].tolist()],
                )
            )
        return Partitions(total=len(order), partitions=found)

    def members(self, partition: int, limit: int, ambiguous: bool) -> Members:
        """Records of a partition; the least sure first, if these are asked for.

        Raises:
            InvalidParameterError: there is no such partition.
        """
        return self._of_one_state(lambda version: self._members(partition, limit, ambiguous, version))

    def _members(self, partition: int, limit: int, ambiguous: bool, version: str) -> Members:
        sizes = self._sized(version).partitions
        records = self._records(self._index.members(partition, limit, ambiguous=ambiguous))
        if ambiguous:
            records.sort(key=lambda record: record.classes[0].probability)
        return Members(partition=partition, name=self._names[partition], total=sizes[partition], records=records)

    def search(self, asked: Asked, stop: Callable[[], bool] = lambda: False) -> Answer:
        """Search.

        Args:
            asked: for what.
            stop: asked now and then, while every record is compared, whether nobody waits any more.

        Raises:
            UnknownIdError: there is no record of that id.
            DataError: the image cannot be read, there is no network, or nobody waits.
            InvalidEncodingsError: fused ranking of features that are not of length 1.
            InvalidParameterError: comparing with every record would take too long.
            ServerError: the index changes all the time.
        """
        return self._of_one_state(lambda version: self._search(asked, version, stop))

    def _search(self, asked: Asked, version: str, stop: Callable[[], bool]) -> Answer:
        stats = self._sized(version)
        if asked.compare and not comparable(self._index, stats.records):
            raise InvalidParameterError(
                f"comparing with every one of {stats.records:,} records would take too long: search without compare"
            )
        query, uri = self._query(asked)
        settings = {"k": asked.k, "cutoff": asked.cutoff, "ranking": asked.ranking}
        start = time.perf_counter()
        result = self._index.search(query, shortlist=asked.shortlist, **settings)  # type: ignore[arg-type]
        spent = time.perf_counter() - start
        return Answer(
            query=Query(
                id=None if asked.id is None else str(asked.id), uri=uri, classes=self._likely(query.probabilities)[0]
            ),
            hits=self._hits(result),
            done=Done(
                records=stats.records,
                partitions=int(result.partitions[0]),
                cells=int(result.cells[0]),
                codes=None if result.codes[0] < 0 else int(result.codes[0]),
                cut_off=int(result.cut_off[0]),
                milliseconds=1000 * spent,
            ),
            version=version,
            partitions=self._pruned(query, asked.cutoff, stats) if asked.explain else None,
            compared=self._compared(query, result, asked, stop) if asked.compare else None,
        )

    def _query(self, asked: Asked) -> tuple[Encodings, str | None]:
        if asked.id is not None:
            found = self._index.get([asked.id])
            return found, None if found.uris is None else found.uris[0]
        assert asked.image is not None
        if self._encode is None:
            raise DataError("the network of this index is not here, so it cannot be searched with images: give an id")
        return self._encoding_of(asked.image), None

    def _encoding_of(self, content: bytes) -> Encodings:
        """The encoding of an image file: images are decoded and encoded one after the other, on all cores."""
        assert self._encode is not None
        digest = hashlib.sha256(content).digest()
        with self._encoding:
            if digest not in self._encoded:
                try:
                    image = open_image(io.BytesIO(content))
                except UnreadableImage as error:
                    formats = ", ".join(FORMATS)
                    raise DataError(
                        f"the file that was sent cannot be searched with: {error} (expected one of {formats})"
                    ) from None
                self._encoded[digest] = self._encode([image])
            self._encoded.move_to_end(digest)
            while len(self._encoded) > _REMEMBERED:
                self._encoded.popitem(last=False)
            return self._encoded[digest]

    def _hits(self, result: SearchResult) -> list[FoundRecord]:
        filled = np.flatnonzero(result.ids[0] >= 0)
        records = self._records(result.ids[0][filled])
        return [
            FoundRecord(
                record=record,
                distance=float(result.distances[0, place]),
                relevance=float(result.relevance[0, place]),
                score=None if np.isnan(result.scores[0, place]) else float(result.scores[0, place]),
                hamming=int(result.hamming[0, place]),
            )
            for record, place in zip(records, filled.tolist(), strict=True)
        ]

    def _pruned(self, query: Encodings, cutoff: float, stats: IndexStats) -> list[Pruned]:
        found = self._index.explain(query, cutoff=cutoff)
        order = np.argsort(-found.bounds[0], kind="stable")
        return [
            Pruned(
                partition=partition,
                name=self._names[partition],
                records=stats.partitions[partition],
                cells=int(found.cells[partition]),
                bound=float(found.bounds[0, partition]),
                kept_cells=int(found.kept_cells[0, partition]),
                kept_records=None if found.kept_codes[0, partition] < 0 else int(found.kept_codes[0, partition]),
            )
            for partition in order.tolist()
            if found.cells[partition]
        ]

    def _compared(self, query: Encodings, result: SearchResult, asked: Asked, stop: Callable[[], bool]) -> Compared:
        scored = not np.isnan(result.scores).any()
        start = time.perf_counter()
        best = best_of_all(
            self._index, query, k=asked.k, cutoff=asked.cutoff, ranking=asked.ranking, scored=scored, stop=stop
        )
        spent = time.perf_counter() - start
        hits = self._hits(best)
        known = set(result.ids[0].tolist())
        return Compared(
            hits=hits,
            same=bool(np.array_equal(best.ids, result.ids)),
            missing=[hit.record.id for hit in hits if int(hit.record.id) not in known],
            milliseconds=1000 * spent,
        )

    def _likely(self, probabilities: NDArray[np.float32]) -> list[list[Likely]]:
        """The likeliest classes of each of n records, from (n, C) probabilities."""
        top = np.argsort(-probabilities, axis=1, kind="stable")[:, :_TOP]
        values = np.take_along_axis(probabilities, top, axis=1)
        return [
            [Likely(partition=one, name=self._names[one], probability=value) for one, value in zip(*row, strict=True)]
            for row in zip(top.tolist(), values.tolist(), strict=True)
        ]
