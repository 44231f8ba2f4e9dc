"""Shortlist engines: the records nearest in Hamming distance within given cells, one engine per file.

    cpu.py          "faiss": FAISS's inverted lists
    compiled.py     "compiled": semcut's own scan, several times faster; needs numba (extra `fast`), and to be compiled
    torch_engine.py "torch": for cards, products of matrices; needs torch, imported only where this engine is asked for
    flat.py         "flat": for cards, FAISS's flat indexes; needs faiss-gpu there
    segments.py     what the last two have in common; they also work on the processor, where they are tested

An engine knows codes, row numbers and cells, and nothing of relevance, ids or features. The seam is four methods:

    add(codes, rows, cells)             (n, bits / 8) uint8, (n,) int64, (n,) integers
    remove(rows, cells)                 as for add; they must be there
    search(codes, cells, depth)         (nq, bits / 8) uint8, (nq, w) int64 padded with -1, to `Found`: the nearest
                                        rows and their distances; any of those at the last distance
    rows(cells)                         (m,) int64, to all their rows (n,) int64 and which of the cells each is in

and three facts: `deepest`, the largest depth that a search may have; `patience`, see `pipeline.Engine`; and `fused`,
whether `compiled.search` does all of a search on what the engine holds.

What "flat" finds may be rows of other cells, too; a search drops them, since cells are left out because nothing in them
is relevant.

A cell that is searched must have been added to: FAISS does not survive a list number that it does not know. Searches
may run at the same time as each other; an add or a removal may not run beside anything.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from semcut.indexes.errors import InvalidParameterError, MissingDependencyError, shown
from semcut.indexes.kernels import kernel_cache

EngineName = Literal["auto", "compiled", "faiss", "torch", "flat"]

VARIABLE = "SEMCUT_ENGINE"
"""The environment variable that says what "auto" stands for, on the processor."""

NOWHERE = 2**31 - 1
"""Hamming distance of a place without a record."""


class Nearest(NamedTuple):
    """What a scan has found, nearest first.

    Attributes:
        rows: (nq, depth) int64; -1 behind the last record.
        hamming: (nq, depth) int32, their distances; `NOWHERE` behind the last record.
    """

    rows: NDArray[np.int64]
    hamming: NDArray[np.int32]

    @staticmethod
    def nothing(queries: int, depth: int) -> Nearest:
        """Places without a record."""
        return Nearest(np.full((queries, depth), -1, np.int64), np.full((queries, depth), NOWHERE, np.int32))


class Scanner(Protocol):
    """Finds rows of records by the Hamming distance of their codes, or all rows of some cells.

    Attributes:
        deepest: the largest depth that `search` can take.
        patience: places per place of the shortlist from which on ties at its end may fall as they like; infinite where
            they never may.
    """

    deepest: int
    patience: float

    def search(self, codes: NDArray[np.uint8], cells: NDArray[np.int64], depth: int) -> Nearest:
        """The nearest codes in the cells of each query, nearest first; which of those at the last distance is open.

        Args:
            codes: (nq, bits / 8) uint8.
            cells: (nq, w) int64, padded with -1.
            depth: how many to give for each query.
        """
        ...

    def rows(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All rows in (m,) cells: (n,) int64, and (n,) int64 positions in `cells`, one per row."""
        ...


_CARD = re.compile(r"cuda(:\d+)?")


def available() -> tuple[str, ...]:
    """Names of the engines that are made for the processor and can be used here, the default first."""
    return ("compiled", "faiss") if find_spec("numba") is not None else ("faiss",)


def chosen(engine: str, device: str = "cpu") -> str:
    """The name of the engine to use; "auto" for FAISS's until the kernels of the compiled engine are ready.

    Args:
        engine: its name; "auto" is what the environment variable says, or else the default, and on a card "torch".
        device: "cpu", "cuda:0" for a card, or "cuda" for all of them.

    Raises:
        InvalidParameterError: there is no such engine, or not for this device.
        MissingDependencyError: what it needs is not installed.
    """
    known = ("auto", "compiled", "faiss", "torch", "flat")
    if engine not in known:
        raise InvalidParameterError(f"engine = {shown(engine)}, expected one of {', '.join(known)}")
    if device != "cpu" and not (isinstance(device, str) and _CARD.fullmatch(device)):
        raise InvalidParameterError(f"device = {shown(device)}, expected cpu, cuda or cuda with a number, like cuda:0")
    if device != "cpu":
        if engine not in ("auto", "torch", "flat"):
            raise InvalidParameterError(f"engine = {engine} is for device = cpu: on {device} use torch or flat")
        engine = "torch" if engine == "auto" else engine
    if engine == "auto":
        asked = os.environ.get(VARIABLE)
        if not asked and "compiled" in available() and kernel_cache.found() is None:
            return "auto"
        engine = asked or available()[0]
        if engine not in known[1:]:
            raise InvalidParameterError(f"{VARIABLE} = {shown(engine)}, expected one of {', '.join(known[1:])}")
    if engine == "torch" and find_spec("torch") is None:
        raise MissingDependencyError("torch is not installed, which the torch engine needs: pip install torch")
    if engine == "compiled" and find_spec("numba") is None:
        raise MissingDependencyError(
            "numba is not installed, which the compiled engine needs: pip install 'semcut[fast]'"
        )
    return engine
