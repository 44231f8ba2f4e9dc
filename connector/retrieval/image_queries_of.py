"""Turn images into the queries of one search: each image alone, or all of them together, less like others.

A query of one image has the id of the record of its file, if the index has one, so that the search can leave it out. A
query of several has no record of its own: it is searched among all records but those of its images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semcut.connector.retrieval.encoder import Encoder
from semcut.indexes import Encodings, SearchResult, SemanticIndex, expanded_queries, joined_query
from semcut.indexes.argument_checks import integer_given
from semcut.indexes.attributes.expressions import Expression
from semcut.indexes.attributes.selections import Among
from semcut.indexes.search_params import SearchParams

MOST_EXPANDED = 1000
"""The largest number of results that a query is averaged with."""


def expansion_given(value: Any) -> int:
    """Read the argument `expand`, a number of results."""
    return integer_given("expand", value, 0, MOST_EXPANDED)


@dataclass(frozen=True)
class ImageQueries:
    """The queries that images make.

    Attributes:
        encodings: the queries.
        images: the position, among the images, of the image of each query; of a joined query, of its first image.
        own: (m,) int64, ids of records that the results of a joined query leave out.
    """

    encodings: Encodings
    images: list[int]
    own: NDArray[np.int64]

    def expanded(
        self, index: SemanticIndex, params: SearchParams, where: Expression | str | None, among: Among | Any, count: int
    ) -> ImageQueries:
        """Return these queries, each averaged with its first results: see `expanded_queries`.

        Args:
            index, params, where, among: of the search.
            count: the number of results; 0 for none.
        """
        if not count:
            return self
        size = None if params.shortlist is None else max(params.shortlist, count)
        first = params.model_copy(update={"k": count, "shortlist": size, "diversity": 0.0})
        found = self.search(index, first, where, among)
        return replace(self, encodings=expanded_queries(index, self.encodings, found))

    def search(
        self, index: SemanticIndex, params: SearchParams, where: Expression | str | None, among: Among | Any
    ) -> SearchResult:
        """Search an index with these queries; the result has at most as many slots as the index has records.

        Args:
            index: the index.
            params: the parameters of the search.
            where, among: as for `SemanticIndex.search`.
        """
        params = params.model_copy(update={"k": min(params.k, max(1, len(index)))})
        if len(self.own):
            others = np.setdiff1d(index.matching(where, among=among), self.own, assume_unique=True)
            params, where, among = params.model_copy(update={"exclude_self": False}), None, others
        return index.search(self.encodings, **params.model_dump(), where=where, among=among)


def expanded(
    index: SemanticIndex,
    queries: Encodings,
    params: SearchParams,
    count: int,
    own: NDArray[np.int64] | None = None,
    where: Expression | str | None = None,
) -> Encodings:
    """Average queries with their first results: see `expanded_queries`.

    Args:
        index: the index.
        queries: n queries; their ids do not matter.
        params, where: of the search.
        count: the number of results; 0 for none.
        own: (n,) int64, the id of the record that a query is not averaged with; None for no such records.

    Raises:
        InvalidParameterError: the count is out of range.
    """
    if not expansion_given(count):
        return queries
    plain = Encodings(
        probabilities=queries.probabilities, codes=queries.codes, features=queries.features, ids=own, any_mass=True
    )
    params = params.model_copy(update={"exclude_self": own is not None})
    alone = ImageQueries(plain, [*range(len(plain))], np.empty(0, np.int64))
    return alone.expanded(index, params, where, None, count).encodings


def image_queries(
    encoder: Encoder,
    images: Sequence[str | Image.Image],
    less_like: Sequence[str | Image.Image],
    records: NDArray[np.int64] | None,
    *,
    together: bool,
    skipped: list[tuple[str, str]] | None,
) -> ImageQueries:
    """Encode images as queries.

    Args:
        encoder: encodes them.
        images: the images of the queries.
        less_like: images that the results of every query shall be less like.
        records: (n,) int64, the id of the record of each image, one that no record has for an image without a record;
            None if no record is left out.
        together: whether all images make one query.
        skipped: gets a pair (image, reason) for each image of a query that cannot be read; None for an error.

    Raises:
        DataError: an image cannot be read.
        InvalidParameterError: nothing is left of a query, see `joined_query`.
    """
    if skipped is None:
        encoded, positions = encoder.encode(images), list(range(len(images)))
    else:
        encoded, positions = encoder.encode_readable(images, skipped)
    others = encoder.encode(less_like)
    own = np.empty(0, np.int64) if records is None else records[positions]
    if together and positions:
        return ImageQueries(joined_query(encoded, others), positions[:1], np.unique(own))
    if len(others) and positions:
        encoded = Encodings.concatenate([joined_query(encoded[[place]], others) for place in range(len(positions))])
    if records is not None:
        encoded = Encodings(
            probabilities=encoded.probabilities, codes=encoded.codes, features=encoded.features, ids=own, any_mass=True
        )
    return ImageQueries(encoded, positions, own[:0])


def records_of(
    images: Sequence[str | Image.Image], ids_of: Callable[[list[str]], NDArray[np.int64]], index: SemanticIndex
) -> NDArray[np.int64]:
    """Return the id of the record of each image, or an id that no record has: (n,) int64.

    Args:
        images: files, and pictures of Pillow, which have no record.
        ids_of: returns the ids of the records of files, -1 for a file without one.
        index: the index.
    """
    files = [image for image in images if isinstance(image, str)]
    ids = dict(zip(files, ids_of(files).tolist(), strict=True))
    found = np.array([ids.get(image, -1) if isinstance(image, str) else -1 for image in images], np.int64)
    if (found < 0).any():
        free = index.next_id()
        if free > np.iinfo(np.int64).max:
            free = int(np.setdiff1d(np.arange(len(index) + 1), index.ids())[0])
        found[found < 0] = free
    return found
