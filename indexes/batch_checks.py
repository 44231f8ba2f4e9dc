"""Checks of a batch for one index: of records that are added, and of queries that are ranked."""

from __future__ import annotations

from semcut.indexes.config import IndexConfig
from semcut.indexes.encodings import Encodings
from semcut.indexes.errors import InvalidEncodingsError
from semcut.indexes.id_checks import refuse_duplicates
from semcut.indexes.keys import KeyReader, refuse_duplicate_keys, refuse_keys
from semcut.indexes.search_params import SearchParams
from semcut.indexes.stored_values import norm_tolerance, stored_values


def checked_batch(config: IndexConfig, encodings: Encodings, read_keys: KeyReader, *, replace: bool) -> Encodings:
    """Check records, and return them with the values that are stored. Integer ids are not compared with the index's.

    Args:
        config: the configuration of the index.
        encodings: the records.
        read_keys: reads the keys of the index, if it has some.
        replace: whether keys may be in the index already.

    Raises:
        InvalidEncodingsError: the records have no ids, other widths than the index, or values that it cannot store; or
            a record has the id, but not the key, of another.
        DuplicateIdError: an id occurs twice, or a key is in the index and not replaced.
    """
    config.check(encodings)
    if encodings.ids is None:
        raise InvalidEncodingsError("the batch has no ids: records need one unique id each")
    config.check_keys(encodings)
    if encodings.keys is not None:
        refuse_duplicate_keys(encodings.keys)
        refuse_keys(encodings.ids, encodings.keys, read_keys(encodings.ids), replace=replace)
    refuse_duplicates(encodings.ids)
    return stored_values(config, encodings)


def is_scored(config: IndexConfig, queries: Encodings, params: SearchParams, normalised: bool) -> bool:
    """Return whether Eq. 4 applies to a search.

    Args:
        config: the configuration of the index.
        queries, params: the search.
        normalised: whether the feature of every record has length 1.

    Raises:
        InvalidEncodingsError: it does not apply, and the search ranks by it.
    """
    both = normalised and queries.normalised(norm_tolerance(config))
    if params.ranking == "fused" and not both:
        owner = "the queries" if normalised else "the index"
        advice = 'so Eq. 4 does not apply: divide every feature by its length, or use ranking="distance"'
        raise InvalidEncodingsError(f"the features of {owner} are not L2-normalised, {advice}")
    return both
