"""`SearchTrace`: what each step of a search did and how long it took.

    trace = SearchTrace()
    index.search(queries, trace=trace)
    print(trace.seconds["shortlist"], trace.counts["codes"])

A traced search uses the vectorised implementation, in one thread, each step for all queries. Its answers are the same
as without a trace, but the compiled implementation, which a search without a trace may use, takes less time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class SearchTrace:
    """Times and counts of searches. A trace that is passed to several searches adds them up.

    Attributes:
        seconds: wall time of each step: "prune", "shortlist" (scans and the cutoff), "rank", and "total", which
            includes the time between the steps. An index without these steps reports "total" only.
        counts: "queries"; "partitions", "cells" and "codes" that were scanned, "cut_off" records that the cutoff
            dropped, each summed over the queries; "scans", the number of calls of the scanner.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to the time of a step."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def count(self, name: str, more: int) -> None:
        """Add `more` to a count."""
        self.counts[name] = self.counts.get(name, 0) + int(more)

    @contextmanager
    def search(self, queries: int) -> Iterator[None]:
        """Count queries, and add the time that the block takes to "total"."""
        self.count("queries", queries)
        with self.step("total"):
            yield
