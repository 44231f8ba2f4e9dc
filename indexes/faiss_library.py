"""FAISS, loaded here alone in this package: what is wrong with it is one sentence, whoever needs it first.

The wheels faiss-cpu and faiss-gpu both bring the module `faiss` and overwrite each other, so two of them are refused.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from semcut.indexes.errors import MissingDependencyError

__all__ = ["faiss"]

_INSTALL = "run `pip install 'semcut[cpu]'`, or `pip install 'semcut[gpu]'` on a machine with a CUDA GPU."

# importlib.metadata would read the description of every installed package for this
_found = (file.name for folder in sys.path for file in Path(folder).glob("faiss_[cg]pu*-*.dist-info"))
_wheels = sorted({name.split("-")[0].replace("_", "-") for name in _found})
if len(_wheels) > 1:
    raise MissingDependencyError(
        f"{' and '.join(_wheels)} are both installed and overwrite each other: uninstall both with "
        f"`pip uninstall {' '.join(_wheels)}`, then `pip install faiss-cpu`, or faiss-gpu on a machine with a GPU."
    )
if "faiss" not in sys.modules and find_spec("faiss") is None:
    raise MissingDependencyError(f"faiss is not installed: {_INSTALL}")

try:
    import faiss
except ImportError as broken:
    raise MissingDependencyError(f"faiss does not load ({broken}): {_INSTALL}") from None
