"""FAISS, loaded here alone in this package: one that is broken is one sentence, whoever needs it first."""

from __future__ import annotations

from indexes.errors import MissingDependencyError

try:
    import faiss
except ImportError as broken:
    raise MissingDependencyError(
        f"faiss does not load ({broken}): run `pip install 'semcut[cpu]'`, or `pip install 'semcut[gpu]'` on a machine "
        "with a CUDA GPU."
    ) from None

__all__ = ["faiss"]
