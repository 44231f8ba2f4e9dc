"""Time the parts of semcut's searches: the scan of a scanner alone, and the steps of a whole search.

The steps are timed by the search itself, in a `SearchTrace`, since the search decides how often each step runs and
with how many queries. A traced search uses the vectorised implementation and does not split queries over threads. So
steps are timed for FAISS's scanner only, whose searches are always vectorised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from semcut.connector.benchmark.methods.semcut_methods import Semcut, cells_kept
from semcut.indexes import Encodings
from semcut.indexes.search.trace import SearchTrace
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_SHORTLIST

Probe = Callable[[], dict[str, float]]
"""A function that measures something once and returns seconds by name."""

_DEPTH = 3 * DEFAULT_SHORTLIST // 2
"""Number of nearest records that the timed scan returns per query."""


def probes(structures: Sequence[Semcut], queries: Encodings, k: int) -> list[Probe]:
    """Return the probes that are timed in every round in addition to the methods: see `timing.measure`.

    Args:
        structures: built structures, one per scanner.
        queries: one batch.
        k: results of a search.
    """
    order = np.argsort(queries.probabilities.argmax(axis=1), kind="stable")  # a search scans in this order
    found: list[Probe] = []
    for structure in structures:
        found.append(_scan_probe(structure, queries[order]))
        if structure.engine == "faiss":
            found.append(_step_probe(structure, queries, k))
    return found


def _scan_probe(structure: Semcut, queries: Encodings) -> Probe:
    """Return a probe that times the scanner alone, on the cells that pruning keeps at the default cutoff."""
    cells = cells_kept(structure.index, queries, DEFAULT_CUTOFF)

    def scan() -> dict[str, float]:
        start = time.perf_counter()
        structure.index.scanner.search(queries.codes, cells, _DEPTH)
        return {f"scan {structure.name}": time.perf_counter() - start}

    return scan


def _step_probe(structure: Semcut, queries: Encodings, k: int) -> Probe:
    """Return a probe that times a search with the defaults: all of it, the scans with the cutoff, the re-rank."""

    def steps() -> dict[str, float]:
        trace = SearchTrace()
        structure.index.search(queries, k=k, cutoff=DEFAULT_CUTOFF, shortlist=DEFAULT_SHORTLIST, trace=trace)
        name, seconds = structure.name, trace.seconds
        return {
            f"total {name}": seconds["total"],
            f"in scan {name}": seconds["shortlist"],
            f"in re-rank {name}": seconds["rank"],
        }

    return steps
