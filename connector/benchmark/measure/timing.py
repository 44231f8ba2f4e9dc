"""Time searches: all methods in turn, round by round, so that other work of the machine affects all of them equally.

In a round, each method runs one group of calls for each size of batch. A group follows a pause, in which spinning
threads of the previous method stop, and some calls that are not timed, since a processor is slow after a pause. The
first round only warms up. If a full batch would take too long, it is cut, and a group has fewer calls; the actual size
of a batch is stored with the times. The results are still those of a full batch if that takes at most a few times the
seconds of a call, since quality can only be compared on the same queries.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.measure.run_plan import CALLS
from semcut.connector.benchmark.measure.stage_times import Probe
from semcut.connector.benchmark.methods.structures import Ids, Method
from semcut.indexes import Encodings
from semcut.indexes.progress import Progress, silent

_PAUSE = 0.02
"""Seconds of the pause before a group of calls."""
_WARM_UP = 0.02
"""Seconds of the calls after the pause that are not timed."""
_GROUP_SHARE = 0.02
"""Time of a group of calls, as a share of the seconds that a call of the largest batch may take."""
_CUT_SHARE = 0.1
"""Time of a call of a cut batch, as a share of the same seconds. It is small, since many methods are slow."""
_LEAST_BATCH = 4
_ALL_QUERIES = 6
"""Time that the results of all queries may take, as a multiple of the same seconds."""


@dataclass(eq=False)
class Times:
    """The measured times and results of a method.

    Attributes:
        seconds: by nominal size of batch, the seconds of every call of the measured rounds.
        sizes: by nominal size of batch, the actual number of queries of a call.
        ids: (m, k) int64, results of the first m queries: of a full batch of the largest size, or of a cut batch if all
            queries would take too long.
    """

    seconds: dict[int, list[float]] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    ids: Ids = field(default_factory=lambda: np.empty((0, 0), np.int64))


@dataclass(frozen=True)
class _Sizes:
    """The sizes of the batches and groups of a method.

    Attributes:
        batch: by nominal size of batch, the queries per call.
        calls: by nominal size of batch, the calls per group.
        warm_up: maximum number of queries in a call that is not timed.
    """

    batch: dict[int, int]
    calls: dict[int, int]
    warm_up: int


def measure(
    methods: Sequence[Method],
    queries: Encodings,
    *,
    k: int,
    batches: Sequence[int],
    rounds: int,
    seconds: float,
    probes: Sequence[Probe] = (),
    progress: Progress = silent,
) -> tuple[dict[str, Times], dict[str, NDArray[np.float64]]]:
    """Time all methods in turn.

    Args:
        methods: built methods.
        queries: nq queries; calls take them in order, and start again after the last one.
        k: results per query.
        batches: sizes of batch; the largest gives the results.
        rounds: measured rounds; one more round before them warms up.
        seconds: time that one call of the largest batch may take; a batch that would take longer is cut. A group of
            calls gets a fiftieth of this time.
        probes: run once per round after the methods.
        progress: callback that gets the number of groups that are done.

    Returns:
        Times by name of method, and the results of the probes: (rounds,) seconds by name.
    """
    largest = max(batches)
    times: dict[str, Times] = {}
    sizes: dict[str, _Sizes] = {}
    probed: dict[str, list[float]] = {}
    total, done = len(methods) * (rounds + 2), 0
    for method in methods:
        sizes[method.name] = _choose_sizes(method, queries, k, batches, seconds)
        times[method.name] = Times(sizes=sizes[method.name].batch)
        done += 1
        progress(done, total, "timing")
    for turn in range(rounds + 1):
        for method in methods:
            for batch in batches:
                taken, ids = _run_group(method, queries, k, batch, turn, sizes[method.name])
                if turn:
                    times[method.name].seconds.setdefault(batch, []).extend(taken)
                if batch == largest:
                    times[method.name].ids = ids
            done += 1
            progress(done, total, "timing")
        for probe in probes:
            time.sleep(_PAUSE)
            for name, value in probe().items():
                if turn:
                    probed.setdefault(name, []).append(value)
    for method in methods:
        _complete_results(method, queries[:largest], k, seconds * _ALL_QUERIES, times[method.name], largest)
    return times, {name: np.asarray(values) for name, values in probed.items()}


def _choose_sizes(method: Method, queries: Encodings, k: int, batches: Sequence[int], seconds: float) -> _Sizes:
    """Choose the sizes of batches and groups by timing larger and larger batches, while these take little time."""
    largest = min(max(batches), len(queries))
    size = min(_LEAST_BATCH, largest)
    method.search(queries[:1], k)

    def seconds_of(count: int) -> float:
        start = time.perf_counter()
        method.search(queries[:count], k)
        return time.perf_counter() - start

    while True:
        taken = seconds_of(size)
        if taken > seconds / 8:
            taken = seconds_of(size)  # a stored index reads and verifies what it needs in the first search
        per_query = taken / size
        if size == largest or taken > seconds / 8:
            break
        size = min(largest, 4 * size)
    affordable = largest if per_query * largest <= seconds else max(_LEAST_BATCH, int(_CUT_SHARE * seconds / per_query))
    cut = {batch: min(batch, len(queries), affordable) for batch in batches}
    calls: dict[int, int] = {}
    for batch in batches:
        least, most = CALLS.get(batch, (1, 1))
        calls[batch] = int(np.clip(seconds * _GROUP_SHARE / (per_query * cut[batch]), least, most))
    return _Sizes(cut, calls, max(1, int(_WARM_UP / per_query)))


def _run_group(
    method: Method, queries: Encodings, k: int, batch: int, turn: int, sizes: _Sizes
) -> tuple[list[float], Ids]:
    """Run one group of calls and return the seconds of each call and the results of the last call.

    Between the pause and the group, calls that are not timed wake the processor, with the queries that follow those of
    the group.
    """
    size, calls = sizes.batch[batch], sizes.calls[batch]
    parts = [_queries_from(queries, (turn * calls + call) * size, size) for call in range(calls)]
    if calls == 1:
        parts = [queries[:size]]  # the results that are kept are those of the first queries
    taken = []
    time.sleep(_PAUSE)
    following = _queries_from(queries, (turn + 1) * calls * size, min(size, sizes.warm_up))
    warm = time.perf_counter() + _WARM_UP
    while time.perf_counter() < warm:
        method.search(following, k)
    for part in parts:
        start = time.perf_counter()
        ids = method.search(part, k)
        taken.append(time.perf_counter() - start)
    return taken, ids


def _complete_results(method: Method, queries: Encodings, k: int, seconds: float, times: Times, largest: int) -> None:
    """Add the results of the queries that a cut batch left out, if that takes at most these seconds."""
    size, left = times.sizes[largest], len(queries) - times.sizes[largest]
    if left and left * float(np.median(times.seconds[largest])) / size <= seconds:
        parts = [method.search(queries[start : start + size], k) for start in range(size, len(queries), size)]
        times.ids = np.concatenate([times.ids, *parts])


def _queries_from(queries: Encodings, start: int, size: int) -> Encodings:
    """Return `size` queries from a position on; the first query follows the last one."""
    return queries[(start + np.arange(size)) % len(queries)]
