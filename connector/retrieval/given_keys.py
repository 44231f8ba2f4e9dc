"""The keys that a caller gives for files: the ids of their records, in an index whose ids are strings.

The record of a file keeps its key, whatever else of it is replaced. A file has no key of its own, so a new one needs a
key from the caller, and a folder cannot be brought in step with such an index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semcut.indexes.errors import DataError, DuplicateIdError, InvalidEncodingsError, InvalidParameterError, shown
from semcut.indexes.index import SemanticIndex
from semcut.indexes.keys import are_keys, keys_given

if TYPE_CHECKING:
    from semcut.connector.retrieval.indexed_files import IndexedFiles


def keys_by_uri(index: SemanticIndex, uris: Sequence[str], given: Any) -> dict[str, str]:
    """Read the keys of n files as a caller passes them, by uri.

    Args:
        index: the index.
        uris: n uris.
        given: n keys; None for none.

    Raises:
        InvalidParameterError: they are not n keys, or the index has integer ids.
        DuplicateIdError: files share a key, or a file is given with two.
    """
    if given is None or (isinstance(given, Sequence) and not len(given) and not uris):
        return {}
    if isinstance(given, str) or not are_keys(given):
        raise InvalidParameterError(f"keys = {shown(given)}, expected one string for each file")
    keys = keys_given(given)
    if len(keys) != len(uris):
        raise InvalidParameterError(f"there are {len(keys):,} keys and {len(uris):,} files: give one for each file")
    if not index.config.string_ids:
        raise InvalidParameterError(
            f"files have ids that are strings, such as {shown(keys[0])}, but the ids of the index are integers: leave "
            "them out, or make an index with them"
        )
    found: dict[str, str] = {}
    owners: dict[str, str] = {}
    for uri, key in zip(uris, keys, strict=True):
        if found.setdefault(uri, key) != key:
            raise DuplicateIdError(f"{uri} is given with two ids, {shown(found[uri])} and {shown(key)}")
        if owners.setdefault(key, uri) != uri:
            raise DuplicateIdError(f"the id {shown(key)} is given for {owners[key]} and for {uri}: ids must be unique")
    return found


def require_keys(files: IndexedFiles, new: Sequence[str]) -> None:
    """Check, before files are added, that the keys given for them fit the index.

    Args:
        files: the files of the index, with the keys that are given.
        new: uris of the files that get a record.

    Raises:
        DataError: a new file has no key.
        InvalidEncodingsError: the record of a file has another key.
        DuplicateIdError: another record has the key of a new file.
    """
    if not files.index.config.string_ids:
        return
    if without := [uri for uri in new if uri not in files.keys]:
        raise DataError(
            f"{len(without):,} images have no id, such as {files.path_of(without[0])}, and the ids of the index are "
            "strings: give each image one, in the column id of a list"
        )
    known = [(uri, key) for uri, key in files.keys.items() if uri in files.ids]
    stored = files.index.keys(np.array([files.ids[uri] for uri, _ in known], np.int64))
    for (uri, key), own in zip(known, stored, strict=True):
        if own != key:
            raise InvalidEncodingsError(
                f"{files.path_of(uri)} has the id {shown(own)} in the index, not {shown(key)}: remove its record first"
            )
    keys = [files.keys[uri] for uri in new]
    taken = files.index.contains(keys)
    if taken.any():
        first = int(np.argmax(taken))
        raise DuplicateIdError(
            f"the id {shown(keys[first])} of {files.path_of(new[first])} is that of another record: remove that first"
        )


def refuse_folder(index: SemanticIndex) -> None:
    """Raise `DataError` if the ids of an index are strings: the files of a folder have none."""
    if index.config.string_ids:
        raise DataError(
            "the ids of the index are strings, which files of a folder do not have: use `semcut add` with a list that "
            "gives them, and `semcut remove`"
        )
