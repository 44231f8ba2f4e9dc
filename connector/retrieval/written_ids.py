"""Ids of records that a user writes as text: whole numbers, or keys, as the index has them.

`7` is the number 7 for an index with integer ids, and the key "7" for an index with keys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semcut.indexes import SemanticIndex
from semcut.indexes.errors import InvalidParameterError, UnknownIdError, shown
from semcut.indexes.id_checks import refuse_unknown
from semcut.indexes.keys import ids_of

_NUMBER = re.compile(r"[0-9]{1,19}")


def ids_written(index: SemanticIndex, texts: Sequence[str]) -> NDArray[np.int64]:
    """Return the ids of the records that texts name, ascending, each once.

    Raises:
        InvalidParameterError: a text is no integer, for an index with integer ids, or no key.
        UnknownIdError: the index has no such record.
    """
    if not texts:
        return np.empty(0, np.int64)
    if index.config.string_ids:
        unknown = [text for text, known in zip(texts, index.contains(list(texts)).tolist(), strict=True) if not known]
        if unknown:
            named = ", ".join(map(shown, unknown[:5]))
            raise UnknownIdError(f"{len(unknown)} ids ({named}) are not in the index, whose ids are strings")
        return np.unique(ids_of(texts))
    for text in texts:
        if not _NUMBER.fullmatch(text) or int(text) >= 2**63:
            raise InvalidParameterError(f"id {shown(text)}, expected an integer, as the ids of the index are")
    ids = np.unique(np.array([int(text) for text in texts], np.int64))
    refuse_unknown(ids, np.where(index.contains(ids), 0, -1))
    return ids
