"""`averaged_records`: every record, averaged with the records nearest to it, before anyone searches.

What `expanded_queries` does for a query, this does for each record of an index: pictures of one thing move together, so
that a query that is near to one of them finds the others, too. It helps where most things have several pictures, and
costs no time of a search. As with queries, wrong neighbours lead away.

Source: Turcot and Lowe, "Better matching with fewer features: the selection of useful features in large database
recognition problems" (ICCV 2009 workshops); Arandjelovic and Zisserman, "Three things everyone should know to improve
object retrieval" (CVPR 2012), 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator

from semcut.indexes.argument_checks import callback_given, instance_given, integer_given, number_given
from semcut.indexes.encodings import Encodings
from semcut.indexes.index import SemanticIndex
from semcut.indexes.progress import Progress, silent
from semcut.indexes.query_expansion import EXPANSION_POWER, MOST_POWER, expanded_queries
from semcut.indexes.search_defaults import DEFAULT_SHORTLIST

MOST_NEIGHBOURS = 1000
"""The largest number of records that one is averaged with."""

_PART = 2000
"""Records that are averaged at once."""


def averaged_records(
    index: SemanticIndex,
    neighbours: int = 1,
    *,
    power: float = EXPANSION_POWER,
    shortlist: int | None = DEFAULT_SHORTLIST,
    progress: Progress | None = None,
) -> Iterator[Encodings]:
    """Yield all records of an index in parts, ordered by id, each averaged with its nearest others.

    Feature, probabilities and code are those of `expanded_queries`; ids, uris and attributes stay. The index is not
    changed: the parts can be added to another one of the same configuration.

    Args:
        index: an index with features of length 1.
        neighbours: number of records that each is averaged with, nearest by distance, whatever their relevance.
        power: how much nearer ones count more, from 0 to 100, see `query_expansion`.
        shortlist: number of records, nearest by hash code, among which they are; None for all.
        progress: called with the number of records that were averaged.

    Raises:
        InvalidParameterError: an argument is of another type or out of range, or features have another length.
    """
    instance_given("index", index, SemanticIndex)  # type: ignore[type-abstract]
    count = integer_given("neighbours", neighbours, 1, MOST_NEIGHBOURS)
    power = number_given("power", power, 0, MOST_POWER)
    chosen = None if shortlist is None else max(integer_given("shortlist", shortlist, 1), count)
    callback_given("progress", progress)
    return _averaged(index, count, power, chosen, progress or silent)


def _averaged(
    index: SemanticIndex, count: int, power: float, shortlist: int | None, report: Progress
) -> Iterator[Encodings]:
    done, total = 0, len(index)
    for part in index.iterate(_PART):
        found = index.search(part, k=count, cutoff=None, shortlist=shortlist, ranking="distance", exclude_self=True)
        mean = expanded_queries(index, part, found, power=power)
        yield Encodings(
            probabilities=mean.probabilities,
            codes=mean.codes,
            features=mean.features,
            ids=part.ids if part.keys is None else part.keys,
            uris=part.uris,
            attributes=part.attributes,
            any_mass=True,
        )
        done += len(part)
        report(done, total)
