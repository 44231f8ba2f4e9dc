"""semcut: fast search for similar images, with exact semantic pruning.

from semcut import Encodings, FaissIndex, IndexConfig

index = FaissIndex.create(None, IndexConfig(classes=10, bits=64, dim=128))
index.add(encodings)
result = index.search(queries, k=10, cutoff=0.2, shortlist=100)

This package has the public names of `semcut.indexes`, which stores and searches encodings, and of `semcut.connector`,
which encodes images. Each name is imported when it is first used, so `import semcut` loads neither numpy nor torch.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semcut.connector import (
        AdoptionChoices,
        Architecture,
        Checkpoint,
        Connector,
        Encoder,
        Hit,
        ImageSet,
        SemanticHashNet,
        TrainConfig,
        adopt,
        train,
    )
    from semcut.indexes import (
        Among,
        BruteForceIndex,
        Capabilities,
        CheckpointError,
        ClosedIndexError,
        ConcurrentWriteError,
        DamagedIndexError,
        DataError,
        DeviceError,
        DuplicateIdError,
        Encodings,
        Explanation,
        Expression,
        FaissIndex,
        FormatVersionError,
        IndexConfig,
        IndexExistsError,
        IndexStats,
        InvalidEncodingsError,
        InvalidParameterError,
        LockedError,
        MissingDependencyError,
        NearDuplicates,
        NotAnIndexError,
        RangeResult,
        Records,
        SearchHit,
        SearchParams,
        SearchResult,
        SearchTrace,
        SemanticIndex,
        SemcutError,
        ServerError,
        StorageError,
        UnknownIdError,
        attribute,
        averaged_records,
        expanded_queries,
        joined_query,
        near_duplicates,
    )

__all__ = [
    "AdoptionChoices",
    "Among",
    "Architecture",
    "BruteForceIndex",
    "Capabilities",
    "Checkpoint",
    "CheckpointError",
    "ClosedIndexError",
    "ConcurrentWriteError",
    "Connector",
    "DamagedIndexError",
    "DataError",
    "DeviceError",
    "DuplicateIdError",
    "Encoder",
    "Encodings",
    "Explanation",
    "Expression",
    "FaissIndex",
    "FormatVersionError",
    "Hit",
    "ImageSet",
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
    "SemanticHashNet",
    "SemanticIndex",
    "SemcutError",
    "ServerError",
    "StorageError",
    "TrainConfig",
    "UnknownIdError",
    "adopt",
    "attribute",
    "averaged_records",
    "expanded_queries",
    "joined_query",
    "near_duplicates",
    "train",
]

_CONNECTOR_NAMES = {
    "AdoptionChoices",
    "Architecture",
    "Checkpoint",
    "Connector",
    "Encoder",
    "Hit",
    "ImageSet",
    "SemanticHashNet",
    "TrainConfig",
    "adopt",
    "train",
}

if not TYPE_CHECKING:  # a type checker that sees `__getattr__` accepts every name, even a misspelt one

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        if name not in __all__:
            raise AttributeError(f"module 'semcut' has no attribute {name!r}")
        return getattr(_import_module("semcut.connector" if name in _CONNECTOR_NAMES else "semcut.indexes"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
