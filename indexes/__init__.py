"""Indexes of encoded images: exact semantic pruning, a Hamming shortlist, exact re-ranking.

from semcut import Encodings, FaissIndex, IndexConfig

index = FaissIndex.create(None, IndexConfig(classes=10, bits=64, dim=128))
index.add(encodings)
result = index.search(queries, k=10, cutoff=0.2, shortlist=100)

Errors are imported with the package, all other names when they are first used. So the command line can start without
faiss and numpy.
"""

from typing import TYPE_CHECKING

from semcut.indexes.errors import (
    CheckpointError,
    ClosedIndexError,
    ConcurrentWriteError,
    DamagedIndexError,
    DataError,
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
    from semcut.indexes.attributes.expressions import Expression, attribute
    from semcut.indexes.attributes.selections import Among
    from semcut.indexes.brute_force import BruteForceIndex
    from semcut.indexes.config import IndexConfig
    from semcut.indexes.database_averages import averaged_records
    from semcut.indexes.description import Capabilities, IndexStats
    from semcut.indexes.duplicate_groups import NearDuplicates, near_duplicates
    from semcut.indexes.encodings import Encodings, Records
    from semcut.indexes.faiss_index import FaissIndex
    from semcut.indexes.index import SemanticIndex
    from semcut.indexes.pruning.explanation import Explanation
    from semcut.indexes.query_expansion import expanded_queries
    from semcut.indexes.query_of_several import joined_query
    from semcut.indexes.range_result import RangeResult
    from semcut.indexes.result import SearchHit, SearchResult
    from semcut.indexes.search.trace import SearchTrace
    from semcut.indexes.search_params import SearchParams


_MODULES = {
    "Among": "semcut.indexes.attributes.selections",
    "BruteForceIndex": "semcut.indexes.brute_force",
    "Capabilities": "semcut.indexes.description",
    "Encodings": "semcut.indexes.encodings",
    "Explanation": "semcut.indexes.pruning.explanation",
    "Expression": "semcut.indexes.attributes.expressions",
    "FaissIndex": "semcut.indexes.faiss_index",
    "IndexConfig": "semcut.indexes.config",
    "IndexStats": "semcut.indexes.description",
    "NearDuplicates": "semcut.indexes.duplicate_groups",
    "RangeResult": "semcut.indexes.range_result",
    "Records": "semcut.indexes.encodings",
    "SearchHit": "semcut.indexes.result",
    "SearchParams": "semcut.indexes.search_params",
    "SearchResult": "semcut.indexes.result",
    "SearchTrace": "semcut.indexes.search.trace",
    "SemanticIndex": "semcut.indexes.index",
    "attribute": "semcut.indexes.attributes.expressions",
    "averaged_records": "semcut.indexes.database_averages",
    "expanded_queries": "semcut.indexes.query_expansion",
    "joined_query": "semcut.indexes.query_of_several",
    "near_duplicates": "semcut.indexes.duplicate_groups",
}

__all__ = [
    "Among",
    "BruteForceIndex",
    "Capabilities",
    "CheckpointError",
    "ClosedIndexError",
    "ConcurrentWriteError",
    "DamagedIndexError",
    "DataError",
    "DeviceError",
    "DuplicateIdError",
    "Encodings",
    "Explanation",
    "Expression",
    "FaissIndex",
    "FormatVersionError",
    "IndexConfig",
    "IndexExistsError",
    "IndexStats",
    "InvalidEncodingsError",
    "InvalidParameterError",
    "LockedError",
    "MissingDependencyError",
    "NearDuplicates",
    "NotAnIndexError",
    "RangeResult",
    "Records",
    "SearchHit",
    "SearchParams",
    "SearchResult",
    "SearchTrace",
    "SemanticIndex",
    "SemcutError",
    "ServerError",
    "StorageError",
    "UnknownIdError",
    "attribute",
    "averaged_records",
    "expanded_queries",
    "joined_query",
    "near_duplicates",
]

if not TYPE_CHECKING:  # a type checker that sees `__getattr__` accepts every name, even a misspelt one

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module 'semcut.indexes' has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
