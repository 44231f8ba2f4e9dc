"""Choose how to search a snapshot: the compiled search where its scanner allows it, else the vectorised one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from semcut.indexes.scanners.choose import AnyScanner
from semcut.indexes.scoring.equations import Similarity
from semcut.indexes.search.beyond_cutoff import Search
from semcut.indexes.search.vectorised import VectorisedSearch
from semcut.indexes.storage.snapshot import Snapshot

if TYPE_CHECKING:
    from semcut.indexes.scanners.gpu_features import GpuFeatures
    from semcut.indexes.scanners.hamming_numba_cpu import NumbaScanner


def build_search(
    snapshot: Snapshot, scanner: AnyScanner, similarity: Similarity, features: GpuFeatures | None = None
) -> Search:
    """Build the search of a snapshot.

    Args:
        snapshot: the records.
        scanner: has the codes of the records.
        similarity: the S of the index.
        features: a store on a GPU for the features of the records. The features are copied to the GPU here, if there is
            enough memory. None for distances on the CPU.
    """
    if scanner.fused:
        from semcut.indexes.search.compiled import CompiledSearch

        return CompiledSearch(snapshot.columns, snapshot.cells, cast("NumbaScanner", scanner), similarity)
    distances = features.squared_distances if features is not None and features.extend(snapshot.columns) else None
    return VectorisedSearch(snapshot.columns, snapshot.cells, scanner, similarity, distances=distances)
