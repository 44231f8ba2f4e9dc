"""Indexes of encoded images: exact semantic pruning, a Hamming shortlist, exact re-ranking.

from indexes import Encodings, FaissIndex, IndexConfig

index = FaissIndex.create(None, IndexConfig(classes=10, bits=64, dim=128))
index.add(encodings)
result = index.search(queries, k=10, cutoff=0.2, shortlist=100)

Errors are imported at once, everything else when it is first used: the command line starts without faiss and numpy.
"""

import sys as _sys
from importlib.util import find_spec as _find_spec
from pathlib import Path as _Path
from typing import TYPE_CHECKING

from indexes.errors import (
    ClosedIndexError,
    ConcurrentWriteError,
    DamagedIndexError,
    DeviceError,
    DuplicateIdError,
    FormatVersionError,
    IndexExistsError,
    InvalidEncodingsError,
    InvalidParameterError,
    LockedError,
    MissingDependencyError,
    NotAnIndexError,
    SemcutError,
    ServerError,
    StorageError,
    UnknownIdError,
)

if TYPE_CHECKING:
    from indexes.base import IndexStats, SearchResult, SemanticIndex
    from indexes.brute_force import BruteForceIndex
    from indexes.encodings import Encodings
    from indexes.faiss_index import FaissIndex
    from indexes.params import IndexConfig, SearchParams


def _check_faiss() -> None:
    """Refuse to start without faiss, or with two wheels of it, without loading it: `faiss_library` does."""
    # importlib.metadata would read the description of every installed package for this
    found = (file.name for folder in _sys.path for file in _Path(folder).glob("faiss_[cg]pu*-*.dist-info"))
    wheels = sorted({name.split("-")[0].replace("_", "-") for name in found})
    if len(wheels) > 1:
        raise MissingDependencyError(
            f"{' and '.join(wheels)} are both installed and overwrite each other: uninstall both with "
            f"`pip uninstall {' '.join(wheels)}`, then `pip install faiss-cpu`, or faiss-gpu on a machine with a GPU."
        )
    if _find_spec("faiss") is None:
        raise MissingDependencyError(
            "faiss is not installed: run `pip install 'semcut[cpu]'`, or `pip install 'semcut[gpu]'` on a machine with "
            "a CUDA GPU."
        )


_check_faiss()

_HOMES = {
    "BruteForceIndex": "indexes.brute_force",
    "Encodings": "indexes.encodings",
    "FaissIndex": "indexes.faiss_index",
    "IndexConfig": "indexes.params",
    "IndexStats": "indexes.base",
    "SearchParams": "indexes.params",
    "SearchResult": "indexes.base",
    "SemanticIndex": "indexes.base",
}

__all__ = [
    "BruteForceIndex",
    "ClosedIndexError",
    "ConcurrentWriteError",
    "DamagedIndexError",
    "DeviceError",
    "DuplicateIdError",
    "Encodings",
    "FaissIndex",
    "FormatVersionError",
    "IndexConfig",
    "IndexExistsError",
    "IndexStats",
    "InvalidEncodingsError",
    "InvalidParameterError",
    "LockedError",
    "MissingDependencyError",
    "NotAnIndexError",
    "SearchParams",
    "SearchResult",
    "SemanticIndex",
    "SemcutError",
    "ServerError",
    "StorageError",
    "UnknownIdError",
]

if not TYPE_CHECKING:  # a type checker would take any name for one that is found here

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module 'indexes' has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
