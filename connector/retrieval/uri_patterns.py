"""Find records by patterns of their uris, as a shell would: `*` is any text, also of several folders.

`?` is one character and `[abc]` one of several; upper and lower case differ. A pattern must match the whole uri, as
the index stores it, or the whole path of the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.image_uris import path_of
from semcut.indexes import SemanticIndex
from semcut.indexes.argument_checks import instance_given
from semcut.indexes.errors import DataError, InvalidParameterError, shown

_RECORDS = 100_000


def ids_by_uri(index: SemanticIndex, patterns: Sequence[str], root: str | None = None) -> NDArray[np.int64]:
    """Return the ids of all records whose uri matches one of the patterns, ascending: (n,) int64.

    Args:
        index: the index.
        patterns: the patterns.
        root: folder to which uris are relative, see `data.image_uris`.

    Raises:
        DataError: a pattern matches no record.
        InvalidParameterError: `patterns` is no list of texts.
    """
    instance_given("index", index, SemanticIndex)  # type: ignore[type-abstract]
    if isinstance(patterns, str) or not all(isinstance(pattern, str) for pattern in patterns):
        raise InvalidParameterError(f"patterns = {shown(patterns)}, expected a list of texts such as '*/cats/*.jpg'")
    compiled = [re.compile(translate(pattern)).match for pattern in patterns]
    unused = set(range(len(compiled)))
    ids = index.ids()
    found = np.zeros(len(ids), bool)
    for start in range(0, len(ids), _RECORDS):
        part = ids[start : start + _RECORDS]
        for place, uri in enumerate(index.uris(part), start):
            if uri is not None:
                path = path_of(uri, root)
                matching = [number for number, match in enumerate(compiled) if match(uri) or match(str(path))]
                found[place] = bool(matching)
                unused.difference_update(matching)
    if unused:
        named = ", ".join(shown(patterns[number]) for number in sorted(unused)[:3])
        raise DataError(f"no record has a uri that matches {named}: `*` matches any text, and a pattern the whole uri")
    return ids[found]
