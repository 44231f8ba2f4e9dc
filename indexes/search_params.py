"""`SearchParams`, the parameters of a search: frozen, validated once.

Code that receives `SearchParams` does not check its values again; `search_params` remembers those of the last searches.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, model_validator

from semcut.indexes.config import Settings
from semcut.indexes.errors import InvalidParameterError, shown
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_K, DEFAULT_SHORTLIST

Ranking = Literal["distance", "fused", "relevance"]

MAX_RESULTS = 10**8
"""Largest result, in slots (queries times k); a larger one is refused before memory is allocated."""


class SearchParams(Settings):
    """The parameters of one search; see `SemanticIndex.search` for the meaning of each field.

    Raises:
        InvalidParameterError: a value is out of range; the message names the field, the value and the range.
    """

    k: int = Field(default=DEFAULT_K, ge=1, le=MAX_RESULTS)
    cutoff: float | None = Field(default=DEFAULT_CUTOFF, ge=0, lt=1)
    shortlist: int | None = Field(default=DEFAULT_SHORTLIST, ge=1)
    ranking: Ranking = "distance"
    fill: bool = True
    exclude_self: bool = False
    diversity: float = Field(default=0.0, ge=0, lt=1)

    @property
    def candidates(self) -> int:
        """The number of records per query among which results are chosen: k, unless they shall differ."""
        return max(self.k, self.shortlist or DEFAULT_SHORTLIST) if self.diversity else self.k

    @model_validator(mode="after")
    def _shortlist_holds_k(self) -> SearchParams:
        if self.shortlist is not None and self.shortlist < self.k:
            raise ValueError(
                f"a shortlist of {shown(self.shortlist)} cannot give k = {self.k} results: "
                "raise the shortlist, or rank every relevant record (None; on the command line --shortlist all)"
            )
        return self

    def check(self, queries: int, with_ids: bool = True) -> None:
        """Raise `InvalidParameterError` if the result for this number of queries would be larger than `MAX_RESULTS`.

        It is also raised if `exclude_self` needs the ids of the queries, and these are not `with_ids`.
        """
        if self.exclude_self and not with_ids:
            raise InvalidParameterError(
                "exclude_self needs the ids of the queries: pass records, as `get` returns them, or Encodings with ids"
            )
        if self.candidates != self.k and queries * self.candidates > MAX_RESULTS:
            raise InvalidParameterError(
                f"{queries} queries with {self.candidates} candidates each make {queries * self.candidates}, at most "
                f"{MAX_RESULTS} are allowed: lower the shortlist or search in smaller batches"
            )
        if queries * self.k > MAX_RESULTS:
            raise InvalidParameterError(
                f"{queries} queries with k = {self.k} make a result of {queries * self.k} slots, at most {MAX_RESULTS} "
                "are allowed: lower k or search in smaller batches"
            )


def search_params(
    k: int, cutoff: float | None, shortlist: int | None, ranking: Ranking, fill: bool = True,
    exclude_self: bool = False, diversity: float = 0.0,
) -> SearchParams:  # fmt: skip
    """Return the `SearchParams` with these values. The last 64 are cached, so repeated values are not checked again."""
    values = (k, cutoff, shortlist, ranking, fill, exclude_self, diversity)
    try:
        return _known(*values)
    except TypeError:  # a value that cannot be hashed, so the cache cannot look it up
        return _params(*values)


def _params(*values: Any) -> SearchParams:
    return SearchParams(**dict(zip(SearchParams.model_fields, values, strict=True)))


_known = lru_cache(maxsize=64, typed=True)(_params)  # typed: 1 and True are equal, but only 1 is a valid k
