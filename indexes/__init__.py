"""Indexes of encoded images: exact semantic pruning, a Hamming shortlist, exact re-ranking.

from indexes import Encodings, FaissIndex, IndexConfig

index = FaissIndex.create(None, IndexConfig(classes=10, bits=64, dim=128))
index.add(encodings)
result = index.search(queries, k=10, cutoff=0.2, shortlist=100)
"""

from importlib import metadata as _metadata

from indexes.errors import MissingDependencyError as _MissingDependencyError


def _check_faiss() -> None:
    wheels = sorted(
        {
            name
            for distribution in _metadata.distributions()
            if (name := str(distribution.metadata["Name"]).lower()).startswith(("faiss-cpu", "faiss-gpu"))
        }
    )
    if len(wheels) > 1:
        raise _MissingDependencyError(
            f"{' and '.join(wheels)} are both installed and overwrite each other: uninstall both with "
            f"`pip uninstall {' '.join(wheels)}`, then `pip install faiss-cpu`, or faiss-gpu on a machine with a card."
        )
    try:
        import faiss  # noqa: F401
    except ImportError as error:
        found = "faiss is not installed" if isinstance(error, ModuleNotFoundError) else f"faiss does not load ({error})"
        raise _MissingDependencyError(
            f"{found}: run `pip install 'semcut[cpu]'`, or `pip install 'semcut[gpu]'` on a machine with a CUDA card."
        ) from None


_check_faiss()

from indexes.base import IndexStats, SearchResult, SemanticIndex  # noqa: E402
from indexes.brute_force import BruteForceIndex  # noqa: E402
from indexes.encodings import Encodings  # noqa: E402
from indexes.errors import (  # noqa: E402
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
from indexes.faiss_index import FaissIndex  # noqa: E402
from indexes.params import IndexConfig, SearchParams  # noqa: E402

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
