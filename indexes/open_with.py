"""Open an index and read what is beside it, such as the link to its network, both of one moment.

An index can be replaced by another one at any moment, by `semcut restore` or `semcut sync --reencode`. An open index
stays the former one, while a file that is read by its path is that of the later one. So `open_with` asks, after
reading, whether the directory still holds the index that is open, and begins again if it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from semcut.indexes.errors import SemcutError
from semcut.indexes.storage.store import Store

if TYPE_CHECKING:  # a store is opened where no search engine is loaded
    from semcut.indexes.faiss_index import FaissIndex

_Index = TypeVar("_Index", "FaissIndex", Store)
_T = TypeVar("_T")


def open_with(open_index: Callable[[], _Index], read: Callable[[_Index], _T]) -> tuple[_Index, _T]:
    """Open an index and read what is beside it.

    Args:
        open_index: opens the index.
        read: reads files in the directory of the open index. It is called again if the index was replaced meanwhile.

    Returns:
        The open index, which the caller closes, and what was read.

    Raises:
        SemcutError: as `open_index` and `read` raise it; the index is closed.
    """
    while True:
        index = open_index()
        try:
            found = read(index)
            if _in_place(index):
                return index, found
        except BaseException as error:
            replaced = isinstance(error, SemcutError) and not _in_place(index)
            index.close()
            if not replaced:
                raise
        else:
            index.close()


def _in_place(index: FaissIndex | Store) -> bool:
    return index.in_same_directory() if isinstance(index, Store) else index.in_place
