"""Shortlist engines: the records nearest in Hamming distance within given cells, one engine per file.

    cpu.py          "faiss": FAISS's inverted lists
    compiled.py     "compiled": semcut's own scan, several times faster; needs numba (extra `fast`)

An engine knows codes, row numbers and cells, and nothing of relevance, ids or features. The seam is four methods:

    add(codes, rows, cells)             (n, bits / 8) uint8, (n,) int64, (n,) integers
    remove(rows, cells)                 as for add; they must be there
    search(codes, cells, depth)         (nq, bits / 8) uint8, (nq, w) int64 padded with -1, to
                                        rows (nq, depth) int64 padded with -1, nearest first
    rows(cells)                         (m,) int64, to all their rows (n,) int64 and which of the cells each is in

A cell that is searched must have been added to: FAISS does not survive a list number that it does not know. Searches
may run at the same time as each other; an add or a removal may not run beside anything.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal

from indexes.errors import InvalidParameterError, MissingDependencyError, shown

EngineName = Literal["auto", "compiled", "faiss"]

VARIABLE = "SEMCUT_ENGINE"
"""The environment variable that says what "auto" stands for."""


def available() -> tuple[str, ...]:
    """Names of the engines that can be used here, the default first."""
    return ("compiled", "faiss") if find_spec("numba") is not None else ("faiss",)


def chosen(engine: str) -> str:
    """The name of the engine to use: "auto" is what the environment variable says, or else the default.

    Raises:
        InvalidParameterError: there is no such engine.
        MissingDependencyError: what it needs is not installed.
    """
    known = ("auto", "compiled", "faiss")
    if engine not in known:
        raise InvalidParameterError(f"engine = {shown(engine)}, expected one of {', '.join(known)}")
    if engine == "auto":
        engine = os.environ.get(VARIABLE) or available()[0]
        if engine not in known[1:]:
            raise InvalidParameterError(f"{VARIABLE} = {shown(engine)}, expected compiled or faiss")
    if engine not in available():
        raise MissingDependencyError(
            "numba is not installed, which the compiled engine needs: pip install 'semcut[fast]'"
        )
    return engine
