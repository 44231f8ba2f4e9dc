"""The attributes of all records of a snapshot as arrays, and the records that a filter matches.

An attribute is copied from the stored rows into an array of its own when a filter first reads it: 1 to 8 bytes per
record, as long as the snapshot is in use.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.attributes.attribute_rows import missing_value, stored_values_of
from semcut.indexes.attributes.attribute_types import AttributeType, has_vocabulary
from semcut.indexes.attributes.bound_filters import Containing, Filter, Missing, OneOf, Opposite, Several, Within
from semcut.indexes.attributes.vocabulary import Vocabulary


class AttributeTable:
    """The attributes of n records, by row; several threads may use it at the same time.

    Args:
        types: the attributes of the index.
        read: returns the stored rows, (n, bytes of a row) uint8.
        vocabulary: the values of categories.
        removed: (m,) int64, rows of removed records, whose values are missing here, and may be damaged.
    """

    def __init__(
        self,
        types: Mapping[str, AttributeType],
        read: Callable[[], NDArray[np.uint8]],
        vocabulary: Vocabulary,
        removed: NDArray[np.int64],
    ) -> None:
        self._types, self._read, self._vocabulary, self._removed = types, read, vocabulary, removed
        self._arrays: dict[str, NDArray[Any]] = {}
        self._reading = threading.Lock()

    def matching(self, chosen: Filter) -> NDArray[np.bool_]:
        """Return which records match: (n,) bool, as `bound_filters.matches` says for each.

        Raises:
            DamagedIndexError: stored values of records are damaged.
        """
        if isinstance(chosen, Several):
            join = np.logical_and if chosen.word == "and" else np.logical_or
            found = self.matching(chosen.parts[0])
            for part in chosen.parts[1:]:
                join(found, self.matching(part), out=found)
            return found
        if isinstance(chosen, Opposite):
            return ~self.matching(chosen.part)
        values, kind = self._values(chosen.name), self._types[chosen.name]
        if isinstance(chosen, Within):  # no range has the number of a missing value, and NaN is in none
            inside: NDArray[np.bool_] = (values >= chosen.low) & (values <= chosen.high)
            return inside
        if isinstance(chosen, Missing):
            if kind == "float":
                missing: NDArray[np.bool_] = np.isnan(values)
            else:
                missing = values == missing_value(kind)
            return missing
        if has_vocabulary(kind):
            return self._of_numbers(values, chosen)
        assert isinstance(chosen, OneOf)
        return np.isin(values, np.array(sorted(chosen.values), values.dtype))

    def _of_numbers(self, values: NDArray[Any], chosen: OneOf | Containing) -> NDArray[np.bool_]:
        """Return which numbers are those of values that match."""
        known = self._vocabulary.values[chosen.name]
        wanted = np.zeros(len(known) + 1, bool)  # the last one is that of -1
        if isinstance(chosen, OneOf):
            numbers = map(known.number_of, chosen.values)
            wanted[[number for number in numbers if number is not None]] = True
        elif chosen.every:
            wanted[:-1] = [chosen.values.issubset(value) for value in known]
        else:
            wanted[:-1] = [not chosen.values.isdisjoint(value) for value in known]
        found: NDArray[np.bool_] = wanted[values]
        return found

    def _values(self, name: str) -> NDArray[Any]:
        with self._reading:
            found = self._arrays.get(name)
            if found is None:
                found = stored_values_of(self._types, name, self._read(), self._vocabulary, self._removed)
                self._arrays[name] = found
            return found
