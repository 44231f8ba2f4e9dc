"""`SearchDefaults`: cutoff, ranking and shortlist of searches that name none, which an index keeps with its network.

What answers best depends on the images and the network. With classes that a network was trained for, relevance says
much; with those of an adopted one, it may say little. So an index has defaults of its own, in `connector.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_SHORTLIST
from semcut.indexes.search_params import Ranking, SearchParams

Own = Literal["own"]
"""In place of a cutoff, a ranking or a shortlist: that of the index."""

_MOST_LISTED = 1_000_000
"""The largest shortlist that a link can name, since each query keeps as many records."""


@dataclass(frozen=True)
class SearchDefaults:
    """The defaults of searches of one index.

    Attributes:
        cutoff: t of Eq. 2, in [0, 1); None for no cutoff.
        ranking: what results are ordered by.
        shortlist: number of records, nearest by hash code, to re-rank; None for every relevant record.
    """

    cutoff: float | None = DEFAULT_CUTOFF
    ranking: Ranking = "distance"
    shortlist: int | None = DEFAULT_SHORTLIST

    def params(
        self,
        *,
        k: int,
        cutoff: float | Own | None,
        shortlist: int | Own | None,
        ranking: Ranking | Own,
        fill: bool = True,
        exclude_self: bool = False,
        diversity: float = 0.0,
    ) -> SearchParams:
        """Return the parameters of a search, with the defaults in place of "own"; their shortlist has at least k.

        Raises:
            InvalidParameterError: a value is out of range.
        """
        if isinstance(shortlist, str) and shortlist == "own":
            shortlist = self.shortlist
            if shortlist is not None and isinstance(k, int):
                shortlist = max(shortlist, k)
        return SearchParams(
            k=k,
            cutoff=self.cutoff if isinstance(cutoff, str) and cutoff == "own" else cutoff,
            shortlist=shortlist,
            ranking=self.ranking if isinstance(ranking, str) and ranking == "own" else ranking,
            fill=fill,
            exclude_self=exclude_self,
            diversity=diversity,
        )

    def content(self) -> dict[str, Any]:
        """Return what a link stores: the values that differ from those of semcut."""
        return {name: value for name, value in vars(self).items() if value != getattr(STANDARD, name)}

    @staticmethod
    def of(content: Mapping[str, Any]) -> SearchDefaults:
        """Return the defaults in a link, which may come from anywhere; those of semcut where it has no valid ones."""
        cutoff, ranking = content.get("cutoff", DEFAULT_CUTOFF), content.get("ranking")
        number = float(cutoff) if isinstance(cutoff, int | float) and 0 <= cutoff < 1 else DEFAULT_CUTOFF
        shortlist = content.get("shortlist", DEFAULT_SHORTLIST)
        valid = shortlist is None or (type(shortlist) is int and 1 <= shortlist <= _MOST_LISTED)
        return SearchDefaults(
            None if cutoff is None else number,
            cast(Ranking, ranking) if isinstance(ranking, str) and ranking in get_args(Ranking) else "distance",
            shortlist if valid else DEFAULT_SHORTLIST,
        )


STANDARD = SearchDefaults()
"""Defaults of an index whose network was trained by semcut."""

ADOPTED = SearchDefaults(cutoff=0.0)
"""Defaults of an index whose network was adopted: the probabilities of classes that do not fit images say little."""
