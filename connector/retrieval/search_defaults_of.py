"""`SearchDefaults`: the cutoff and the ranking of searches that name none, which an index keeps with its network.

What answers best depends on the images and the network. With classes that a network was trained for, relevance says
much; with those of an adopted one, it may say little. So an index has defaults of its own, in `connector.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from semcut.indexes.search_defaults import DEFAULT_CUTOFF
from semcut.indexes.search_params import Ranking, SearchParams

Own = Literal["own"]
"""In place of a cutoff or a ranking: that of the index."""


@dataclass(frozen=True)
class SearchDefaults:
    """The defaults of searches of one index.

    Attributes:
        cutoff: t of Eq. 2, in [0, 1); None for no cutoff.
        ranking: what results are ordered by.
    """

    cutoff: float | None = DEFAULT_CUTOFF
    ranking: Ranking = "distance"

    def params(
        self,
        *,
        k: int,
        cutoff: float | Own | None,
        shortlist: int | None,
        ranking: Ranking | Own,
        fill: bool = True,
        exclude_self: bool = False,
        diversity: float = 0.0,
    ) -> SearchParams:
        """Return the parameters of a search, with the defaults in place of "own".

        Raises:
            InvalidParameterError: a value is out of range.
        """
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
        return SearchDefaults(
            None if cutoff is None else number,
            cast(Ranking, ranking) if isinstance(ranking, str) and ranking in get_args(Ranking) else "distance",
        )


STANDARD = SearchDefaults()
"""Defaults of an index whose network was trained by semcut."""

ADOPTED = SearchDefaults(cutoff=0.0)
"""Defaults of an index whose network was adopted: the probabilities of classes that do not fit images say little."""
