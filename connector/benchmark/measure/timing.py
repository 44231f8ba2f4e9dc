"""How long searches take: all methods in turn, round by round, so that what disturbs the machine disturbs all alike.

A round runs, for each method and each size of batch, one group of calls, after a pause in which threads of the method
before stop spinning, and some calls that are not timed, since processors are slow at first. The first round only warms
up. Where a full batch would take too long it is cut, and so is the number of calls in a group; how large the batch
really was is kept with the times. Results are of a full batch nevertheless, where it takes no more than a few times a
call's seconds: quality of other queries is no comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semcut.connector.benchmark.methods.methods import Ids, Method
from semcut.indexes import Encodings

_PAUSE = _WAKE = 0.02
"""Seconds of the pause, and of the calls behind it that are not timed."""
_CALLS = {1: (10, 100), 32: (2, 10)}
"""Calls in a group, at least and at most, by size of batch; one of any other size."""
_GROUP = 0.02
"""Seconds for a group of calls, of those for the largest batch."""
_CUT = 0.1
"""Of the seconds, what a call of a cut batch may take: slow methods are many, and need no more."""
_LEAST = 4
_WHOLE = 6
"""Times the seconds of a call, what the results of the queries that were cut off may take."""


@dataclass(eq=False)
class Times:
    """What was measured of a method.

    Attributes:
        seconds: by nominal size of batch, seconds of every call of the measured rounds.
        sizes: by nominal size of batch, how many queries a call really had.
        ids: (nq, k) int64, results of a full batch of the largest size, or of a cut one where that would take too long.
    """

    seconds: dict[int, list[float]] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    ids: Ids = field(default_factory=lambda: np.empty((0, 0), np.int64))


def measure(
    methods: Sequence[Method],
    queries: Encodings,
    *,
    k: int,
    batches: Sequence[int],
    rounds: int,
    seconds: float,
    probes: dict[str, Callable[[], dict[str, float]]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Times], dict[str, NDArray[np.float64]]]:
    """Time all methods, in turn.

    Args:
        methods: built.
        queries: nq of them; calls take them in order, from the start again when they end.
        k: results per query.
        batches: sizes of batch; the largest gives the results.
        rounds: measured, after one to warm up.
        seconds: that one call of the largest batch may take; larger ones are cut. A group of calls gets a fiftieth.
        probes: run once per round between the methods; each gives seconds by name.
        progress: told how many groups, of how many, are done.

    Returns:
        Times by name of method, and what the probes gave: (rounds,) by name.
    """
    times = {method.name: Times() for method in methods}
    calls: dict[tuple[str, int], int] = {}
    waking: dict[str, int] = {}
    probed: dict[str, list[float]] = {}
    total, done = len(methods) * (rounds + 2), 0
    for method in methods:
        rate = _size(method, queries, k, batches, seconds, times[method.name], calls)
        waking[method.name] = max(1, int(_WAKE / rate))
        done += 1
        if progress is not None:
            progress(done, total)
    for turn in range(rounds + 1):
        for method in methods:
            for batch in batches:
                size, count = times[method.name].sizes[batch], calls[method.name, batch]
                taken, ids = _group(method, queries, k, size, count, turn, waking[method.name])
                if turn:
                    times[method.name].seconds.setdefault(batch, []).extend(taken)
                if batch == max(batches):
                    times[method.name].ids = ids
            done += 1
            if progress is not None:
                progress(done, total)
        for probe in (probes or {}).values():
            time.sleep(_PAUSE)
            for name, value in probe().items():
                if turn:
                    probed.setdefault(name, []).append(value)
    for method in methods:
        _complete(method, queries[: max(batches)], k, seconds * _WHOLE, times[method.name], max(batches))
    return times, {name: np.asarray(values) for name, values in probed.items()}


def _size(
    method: Method,
    queries: Encodings,
    k: int,
    batches: Sequence[int],
    seconds: float,
    times: Times,
    calls: dict[tuple[str, int], int],
) -> float:
    """Find how large batches may be and how many calls make a group, from batches that grow while they are quick; and
    say how many seconds a query takes in a large one."""
    largest = min(max(batches), len(queries))
    size, rate = min(_LEAST, largest), 0.0
    method.search(queries[:1], k)

    def seconds_of(count: int) -> float:
        start = time.perf_counter()
        method.search(queries[:count], k)
        return time.perf_counter() - start

    while True:
        taken = seconds_of(size)
        if taken > seconds / 8:
            taken = seconds_of(size)  # the first time a stored index reads and compares what it needs
        rate = taken / size
        if size == largest or rate * size > seconds / 8:
            break
        size = min(largest, 4 * size)
    affordable = largest if rate * largest <= seconds else max(_LEAST, int(_CUT * seconds / rate))
    for batch in batches:
        here = min(batch, len(queries), affordable)
        times.sizes[batch] = here
        least, most = _CALLS.get(batch, (1, 1))
        calls[method.name, batch] = int(np.clip(seconds * _GROUP / (rate * here), least, most))
    return rate


def _group(
    method: Method, queries: Encodings, k: int, size: int, calls: int, turn: int, waking: int
) -> tuple[list[float], NDArray[Any]]:
    """Seconds of each call of a group, and the results of the last. Before, calls with the queries that come next, so
    many at a time, bring the processor out of the pause."""
    parts = [_taken(queries, (turn * calls + call) * size, size) for call in range(calls)]
    if calls == 1:
        parts = [queries[:size]]  # the results that are kept are those of the first queries
    taken = []
    time.sleep(_PAUSE)
    following, awake = _taken(queries, (turn + 1) * calls * size, min(size, waking)), time.perf_counter() + _WAKE
    while time.perf_counter() < awake:
        method.search(following, k)
    for part in parts:
        start = time.perf_counter()
        ids = method.search(part, k)
        taken.append(time.perf_counter() - start)
    return taken, ids


def _complete(method: Method, queries: Encodings, k: int, seconds: float, times: Times, largest: int) -> None:
    """Get the results of the queries behind the largest batch, if they take no more than so many seconds."""
    size, left = times.sizes[largest], len(queries) - times.sizes[largest]
    if left and left * float(np.median(times.seconds[largest])) / size <= seconds:
        parts = [method.search(queries[start : start + size], k) for start in range(size, len(queries), size)]
        times.ids = np.concatenate([times.ids, *parts])


def _taken(queries: Encodings, start: int, size: int) -> Encodings:
    """So many queries from a place on, from the start again behind the last."""
    return queries[(start + np.arange(size)) % len(queries)]
