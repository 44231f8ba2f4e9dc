"""What a search is limited to: records that match a filter (`where`), records with given ids (`among`), or both."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.array_reading import array_given
from semcut.indexes.attributes.bound_filters import Filter, bound_filter
from semcut.indexes.errors import InvalidEncodingsError, InvalidParameterError, shown
from semcut.indexes.id_checks import ids_given
from semcut.indexes.keys import are_keys, ids_of, keys_given, refuse_texts

if TYPE_CHECKING:  # the configuration knows the types of attributes
    from semcut.indexes.config import IndexConfig


class Among:
    """A set of ids, prepared once for any number of searches: `index.search(queries, among=Among(ids))`.

    Args:
        ids: (n,) integers, or keys; an id that occurs twice counts once. Ids that an index does not have are allowed.

    Attributes:
        texts: whether keys were given, not integers.
        ids: (n,) int64, ascending and different, read-only.
        key: a digest of the ids, equal for equal sets.

    Raises:
        InvalidParameterError: the ids are no integers.
    """

    def __init__(self, ids: Any) -> None:
        self.texts = are_keys(ids) and np.size(ids) > 0
        given = ids_of(keys_given(ids)) if self.texts else ids_given([] if are_keys(ids) else ids, must_exist=False)
        self.ids: NDArray[np.int64] = np.unique(given)
        self.ids.flags.writeable = False
        self.key = hashlib.blake2b(self.ids.tobytes(), digest_size=16).digest()

    def __len__(self) -> int:
        return len(self.ids)


class Selection(NamedTuple):
    """A filter, ids, or both; a record must match all that is given.

    Attributes:
        where: the filter, or None.
        among: the ids, or None.
    """

    where: Filter | None
    among: Among | None

    @property
    def key(self) -> tuple[Filter | None, bytes | None]:
        """Equal for selections that mean the same."""
        return self.where, None if self.among is None else self.among.key


def selection_given(
    where: Any, among: Any, config: IndexConfig, ids: Callable[[], NDArray[np.int64]]
) -> Selection | None:
    """Return what `where` and `among` of a search mean for an index; None if both are None.

    Args:
        where: a filter, see `bound_filter`.
        among: an `Among`, ids, or a boolean for every record in ascending order of ids.
        config: the shape of the index: its attributes, and whether its ids are strings.
        ids: returns all ids of the index in ascending order, for booleans.

    Raises:
        InvalidParameterError: one of the two is not what it must be.
    """
    if where is None and among is None:
        return None
    chosen = None if where is None else bound_filter(where, config.attributes)
    if among is None:
        return Selection(chosen, None)
    if not config.string_ids and not isinstance(among, Among) and are_keys(among):
        refuse_texts(among)
    limited = among if isinstance(among, Among) else _among(among, ids)
    if limited.texts and not config.string_ids:
        raise InvalidParameterError("among has strings, but the index has integer ids")
    return Selection(chosen, limited)


def _among(given: Any, ids: Callable[[], NDArray[np.int64]]) -> Among:
    try:
        array = array_given("among", given, 1)
    except InvalidEncodingsError:
        raise InvalidParameterError(f"among = {shown(given)}, expected ids, or one boolean for each record") from None
    if array.dtype.kind != "b":
        return Among(given)
    known = ids()
    if len(array) != len(known):
        raise InvalidParameterError(f"among has {len(array):,} booleans but the index has {len(known):,} records")
    return Among(known[array])
