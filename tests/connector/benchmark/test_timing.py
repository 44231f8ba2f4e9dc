from __future__ import annotations

import itertools

import numpy as np
import pytest

from semcut.connector.benchmark.measure import stage_times, timing
from semcut.connector.benchmark.methods import faiss_methods
from semcut.connector.benchmark.methods.semcut_methods import Semcut
from semcut.connector.benchmark.methods.structures import Method


class Clock:
    """A clock that only `sleep` and reading it move, in place of the module `time`: a busy machine changes nothing."""

    now = 0.0

    def perf_counter(self):
        self.now += 1e-5
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(timing, "time", made)
    return made


def fake(clock, name, calls, seconds=0.0):
    """Return a method that records how many queries each call has, and takes these seconds for each query."""

    def search(queries, k):
        calls.append((name, len(queries)))
        clock.sleep(seconds * len(queries))
        return np.tile(np.arange(k), (len(queries), 1))

    return Method(name=name, family=name, parameters={}, structure=None, search=search)


def test_methods_take_turns_and_calls_of_the_first_round_do_not_count(dataset, clock):
    queries, calls = dataset.queries.get(np.arange(100)), []
    methods = [fake(clock, "a", calls), fake(clock, "b", calls)]
    probed = []
    times, probes = timing.measure(
        methods, queries, k=3, batches=(64,), rounds=3, seconds=5,
        probes=[lambda: probed.append(1) or {"part": 0.5}],
    )  # fmt: skip
    groups = [call for call, _ in itertools.groupby(calls)]
    assert groups[-8:] == [("a", 64), ("b", 64)] * 4
    assert [len(times[name].seconds[64]) for name in "ab"] == [3, 3]
    assert len(probed) == 4
    np.testing.assert_array_equal(probes["part"], [0.5] * 3)
    assert times["a"].ids.shape == (64, 3)


def test_a_slow_method_gets_smaller_batches_and_fewer_calls(dataset, clock):
    queries, calls = dataset.queries.get(np.arange(100)), []
    times, _ = timing.measure(
        [fake(clock, "slow", calls, 0.002), fake(clock, "fast", calls)],
        queries,
        k=3,
        batches=(1, 32, 1024),
        rounds=1,
        seconds=0.1,
    )
    assert times["fast"].sizes == {1: 1, 32: 32, 1024: 100}
    assert 4 <= times["slow"].sizes[1024] <= 50
    assert times["slow"].sizes[1] == 1
    assert len(times["fast"].seconds[1]) > 3 * len(times["slow"].seconds[1])


def test_a_batch_is_not_cut_because_its_queries_were_slow_the_first_time(dataset, clock):
    """A stored index answers queries slowly the first time: blocks that are first read are compared with checksums."""
    queries, known = dataset.queries.get(np.arange(100)), set()

    def search(batch, k):
        fresh = {row.tobytes() for row in batch.features} - known
        known.update(fresh)
        clock.sleep(0.005 * len(fresh))
        return np.tile(np.arange(k), (len(batch), 1))

    method = Method(name="stored", family="stored", parameters={}, structure=None, search=search)
    times, _ = timing.measure([method], queries, k=3, batches=(1, 1024), rounds=1, seconds=0.2)
    assert times["stored"].sizes[1024] == 100


@pytest.mark.parametrize(("seconds", "complete"), [(0.001, True), (0.02, False)])
def test_results_are_those_of_all_queries_unless_these_take_too_long(dataset, clock, seconds, complete):
    queries, calls = dataset.queries.get(np.arange(100)), []
    times, _ = timing.measure(
        [fake(clock, "slow", calls, seconds)], queries, k=3, batches=(1, 1024), rounds=1, seconds=0.05
    )
    assert times["slow"].sizes[1024] < 100
    assert len(times["slow"].ids) == (100 if complete else times["slow"].sizes[1024])


def test_results_are_those_of_the_first_queries(dataset, data):
    structure = faiss_methods.flat_with_rerank()
    structure.build(data)
    queries, methods = dataset.queries.get(np.arange(150)), structure.methods()
    times, _ = timing.measure(methods, queries, k=5, batches=(1, 64), rounds=2, seconds=5)
    for method in methods:
        np.testing.assert_array_equal(times[method.name].ids, method.search(queries[:64], 5))
    structure.close()


def test_the_steps_of_a_search_take_less_time_than_the_whole(dataset, data):
    structure = Semcut("faiss")
    structure.build(data)
    queries = dataset.queries.get(np.arange(150))
    before = structure.index.search(queries, k=10).ids
    found = {}
    for probe in stage_times.probes([structure], queries, 10):
        found |= probe()
    assert sorted(found) == [f"{part} semcut (faiss)" for part in ("in re-rank", "in scan", "scan", "total")]
    assert all(seconds > 0 for seconds in found.values())
    assert found["in scan semcut (faiss)"] + found["in re-rank semcut (faiss)"] < found["total semcut (faiss)"]
    np.testing.assert_array_equal(structure.index.search(queries, k=10).ids, before)
    structure.close()
