"""`ExploreService`: answers each kind of request to the HTTP API.

Several threads may call a service at once. Every response describes one version of the index, the latest: see
`IndexState`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from semcut.connector.data.image_uris import path_of
from semcut.connector.explore.descriptions import Descriptions, attributes_of
from semcut.connector.explore.exhaustive import is_feasible, search_exhaustively
from semcut.connector.explore.image_queries import Encode, ImageEncoder
from semcut.connector.explore.index_state import IndexState
from semcut.connector.explore.schemas import (
    MAX_COMPARISONS,
    ExhaustiveResults,
    IndexSummary,
    PartitionList,
    PartitionMembers,
    QueryRecord,
    RandomRecords,
    Record,
    SearchRequest,
    SearchResponse,
)
from semcut.connector.explore.thumbnails import Thumbnail, thumbnail
from semcut.connector.retrieval.search_defaults_of import STANDARD, Own, SearchDefaults
from semcut.indexes import Encodings, InvalidParameterError, SearchResult, UnknownIdError
from semcut.indexes.attributes.expressions import Expression, comparisons_in
from semcut.indexes.attributes.where_text import parsed
from semcut.indexes.errors import shown
from semcut.indexes.index import SemanticIndex
from semcut.indexes.search_params import SearchParams

_T = TypeVar("_T")
_MEMBERS_DRAWN_FROM = 1000  # records of a partition from which a random sample is drawn, at most


class ServiceSource(Protocol):
    """Gives the service that a request is answered with: an `ExploreService`, or a `FollowedIndex`."""

    def use(self, call: Callable[[ExploreService], _T]) -> _T:
        """Call a function with the service, and return the result."""


class ExploreService:
    """Answers requests about an index.

    Args:
        index: open index; it is not closed here.
        class_names: names of its classes; None if the classes are to be numbered.
        encode: encodes images with the network that made the index; None if the network is not there.
        replaced: as for `IndexState`.
        defaults: cutoff, ranking and shortlist of searches that name none.
        root: folder to which uris are relative, see `data.image_uris`.
    """

    def __init__(
        self,
        index: SemanticIndex,
        class_names: Sequence[str] | None,
        encode: Encode | None,
        *,
        replaced: int = 0,
        defaults: SearchDefaults = STANDARD,
        root: str | None = None,
    ) -> None:
        self._index, self._defaults, self._root = index, defaults, root
        self._state = IndexState(index, replaced)
        self._describe = Descriptions(index, class_names, root)
        self._images = ImageEncoder(encode)

    @property
    def classes(self) -> int:
        """The number of classes, C."""
        return self._index.config.classes

    def use(self, call: Callable[[ExploreService], _T]) -> _T:
        """Call a function with this service, and return the result."""
        return call(self)

    def version(self) -> str:
        """Read the latest version of the index and return its name."""
        return self._state.version()

    def warm_up(self) -> None:
        """Search once, so that the first request does not wait for kernels and libraries to be loaded."""
        some = self.sample(1, 0).records
        if some:
            self.search(SearchRequest(id=int(some[0].id), explain=True))

    def stats(self) -> IndexSummary:
        """Return the size of the index, and which requests it can answer."""
        return self._state.read(self._stats)

    def _stats(self, version: str) -> IndexSummary:
        stats, config = self._state.stats(version), self._index.config
        return IndexSummary(
            records=stats.records,
            removed=stats.removed,
            partitions=sum(1 for size in stats.partitions if size),
            cells=stats.cells,
            classes=self._describe.class_names,
            bits=config.bits,
            dim=config.dim,
            normalised=stats.normalised,
            images=self._images.available,
            cutoff=self._defaults.cutoff,
            ranking=self._defaults.ranking,
            shortlist=self._defaults.shortlist,
            keys=config.string_ids,
            attributes={name: str(kind) for name, kind in config.attributes.items()},
            comparable=is_feasible(self._index, stats.records),
            version=version,
        )

    def record(self, record: int | str) -> Record:
        """Return the record with an id or a key.

        Raises:
            UnknownIdError: there is no such record.
        """
        return self._state.read(lambda version: self._describe.records(self._named(record))[0])

    def thumbnail(self, record: int | str, size: int) -> Thumbnail:
        """Return a picture of the record with an id or a key, of at most `size` pixels per side.

        Raises:
            UnknownIdError: there is no such record.
        """
        uri = self._state.read(lambda version: self._index.uris(self._named(record))[0])
        return thumbnail(path_of(uri, self._root), size)

    def _named(self, record: int | str) -> list[int] | list[str]:
        """Return what names a record, as an index takes it."""
        if isinstance(record, int):
            return [record]
        if not self._index.config.string_ids:
            raise UnknownIdError(f"there is no record {shown(record)}: the ids of this index are integers")
        return [record]

    def sample(self, count: int, seed: int) -> RandomRecords:
        """Return records chosen at random: each from a random partition, so that small partitions are shown, too."""
        return self._state.read(lambda version: self._sample(count, seed, version))

    def _sample(self, count: int, seed: int, version: str) -> RandomRecords:
        rng, sizes = np.random.default_rng(seed), np.array(self._state.stats(version).partitions)
        chosen = rng.choice(np.flatnonzero(sizes), count) if sizes.any() else np.empty(0, np.int64)
        ids = [np.empty(0, np.int64)]
        for partition, wanted in zip(*np.unique(chosen, return_counts=True), strict=True):
            some = self._index.members(int(partition), min(_MEMBERS_DRAWN_FROM, int(sizes[partition])))
            ids.append(rng.choice(some, min(int(wanted), len(some)), replace=False))
        return RandomRecords(records=self._describe.records(rng.permutation(np.concatenate(ids))))

    def partitions(self, offset: int, limit: int, samples: int) -> PartitionList:
        """Return partitions that hold records, largest first, with some records of each.

        Args:
            offset: number of partitions to skip.
            limit: maximum number of partitions to return.
            samples: maximum number of records to name of each partition.
        """
        return self._state.read(lambda version: self._partitions(offset, limit, samples, version))

    def _partitions(self, offset: int, limit: int, samples: int, version: str) -> PartitionList:
        sizes = np.array(self._state.stats(version).partitions)
        order = np.argsort(-sizes, kind="stable")
        order = order[sizes[order] > 0]
        cells = self._index.cells_per_partition()
        return PartitionList(
            total=len(order),
            partitions=[
                self._describe.partition(partition, int(sizes[partition]), int(cells[partition]), samples)
                for partition in order[offset : offset + limit].tolist()
            ],
        )

    def members(self, partition: int, limit: int, ambiguous: bool) -> PartitionMembers:
        """Return records of a partition.

        Args:
            partition: its number.
            limit: maximum number of records to return.
            ambiguous: return the records whose class is least certain, least certain first, instead of any records.

        Raises:
            InvalidParameterError: there is no such partition.
        """
        return self._state.read(lambda version: self._members(partition, limit, ambiguous, version))

    def _members(self, partition: int, limit: int, ambiguous: bool, version: str) -> PartitionMembers:
        total = self._state.stats(version).partitions[partition]
        records = self._describe.records(self._index.members(partition, limit, ambiguous=ambiguous))
        if ambiguous:
            records.sort(key=lambda record: record.classes[0].probability)
        name = self._describe.class_names[partition]
        return PartitionMembers(partition=partition, name=name, total=total, records=records)

    def encode(self, image: bytes) -> None:
        """Encode the content of an image file, so that a search with it need not.

        Raises:
            DataError: the image cannot be read, or there is no network.
        """
        self._images.encode(image)

    def search(self, request: SearchRequest, stop: Callable[[], bool] = lambda: False) -> SearchResponse:
        """Search, and explain the search or compare it with brute force if the request says so.

        Args:
            request: the query and the settings of the search.
            stop: called while the query is compared with every record; the comparison ends if it returns True.

        Raises:
            UnknownIdError: there is no record with the id or the key.
            DataError: the image cannot be read, there is no network, or `stop` returned True.
            InvalidEncodingsError: a fused ranking needs features of length 1, and these are not.
            InvalidParameterError: comparing with every record would take too long, or `where` is no filter for this
                index, or a long one.
            ServerError: the index changed during every attempt.
        """
        return self._state.read(lambda version: self._search(request, version, stop))

    def _search(self, request: SearchRequest, version: str, stop: Callable[[], bool]) -> SearchResponse:
        stats = self._state.stats(version)
        if request.compare and not is_feasible(self._index, stats.records):
            raise InvalidParameterError(
                f"comparing with every one of {stats.records:,} records would take too long: search without compare"
            )
        cutoff: float | Own = "own" if request.cutoff is None else request.cutoff
        params = self._defaults.params(
            k=request.k,
            cutoff=None if request.no_cutoff else cutoff,
            shortlist=request.shortlist,
            ranking=request.ranking or "own",
            fill=request.fill,
            exclude_self=request.exclude_self,
            diversity=request.diversity,
        )
        where = None if request.where is None else _filter(request.where)
        query, uri = self._query(request)
        start = time.perf_counter()
        result = self._index.search(query, **params.model_dump(), where=where)
        seconds = time.perf_counter() - start
        return SearchResponse(
            query=QueryRecord(
                id=None if query.ids is None else str(query.ids[0]),
                key=None if query.keys is None else query.keys[0],
                uri=uri,
                classes=self._describe.probable_classes(query.probabilities)[0],
                attributes=attributes_of(query)[0],
            ),
            hits=self._describe.hits(result),
            done=self._describe.work(result, stats, seconds),
            version=version,
            partitions=self._describe.pruning(query, params.cutoff, stats) if request.explain else None,
            compared=self._compare(query, result, params, where, stop) if request.compare else None,
        )

    def _query(self, request: SearchRequest) -> tuple[Encodings, str | None]:
        """Return the query of a search, and its uri if it is a record."""
        if request.image is not None:
            return self._images.encode(request.image), None
        record = request.key if request.id is None else request.id
        assert record is not None
        found = self._index.get(self._named(record))
        return found, None if found.uris is None else path_of(found.uris[0], self._root)

    def _compare(
        self, query: Encodings, result: SearchResult, params: SearchParams, where: Expression | None,
        stop: Callable[[], bool],
    ) -> ExhaustiveResults:  # fmt: skip
        """Compare the results of a search with the best of all records, or of those that match."""
        start = time.perf_counter()
        best = search_exhaustively(
            self._index,
            query,
            k=params.k,
            cutoff=params.cutoff,
            ranking=params.ranking,
            fill=params.fill,
            exclude_self=params.exclude_self,
            where=where,
            scored=not np.isnan(result.scores).any(),
            stop=stop,
        )
        seconds = time.perf_counter() - start
        hits = self._describe.hits(best)
        found = set(result.ids[0].tolist())
        return ExhaustiveResults(
            hits=hits,
            same=bool(np.array_equal(best.ids, result.ids)),
            missing=[hit.record.id for hit in hits if int(hit.record.id) not in found],
            milliseconds=1000 * seconds,
        )


def _filter(text: str) -> Expression:
    """Parse the filter of a request.

    Raises:
        InvalidParameterError: it is none, or has more comparisons than a request may have.
    """
    found = parsed(text)
    if (count := comparisons_in(found)) > MAX_COMPARISONS:
        raise InvalidParameterError(f"where has {count:,} comparisons, expected at most {MAX_COMPARISONS}")
    return found
