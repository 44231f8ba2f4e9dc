"""An open index moves from FAISS's scanner to the compiled search; searches and changes do not wait for that."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut.indexes import BruteForceIndex, ClosedIndexError, FaissIndex, IndexConfig
from semcut.indexes.engine_switch import EngineSwitch
from semcut.indexes.kernels import kernel_cache
from semcut.indexes.scanners.engine_names import available_engines
from semcut.indexes.storage.store import Store
from tests.indexes.generate import assert_same, classified
from tests.indexes.kernels.processes import SECONDS, killed_at_the_end

if "compiled" not in available_engines():
    pytest.skip("numba is not installed", allow_module_level=True)

CONFIG = IndexConfig(classes=10, bits=64, dim=8)


def started_with_faiss(path: Path | None = None) -> FaissIndex:
    """Create an index as if kernels had not been ready. They are ready, so the first search starts the move."""
    return FaissIndex(Store.create(path, CONFIG), "auto", "cpu")


def scanner_of(index: FaissIndex) -> str:
    return type(index.scanner).__name__


def switching_thread(index: FaissIndex) -> threading.Thread:
    """Return the thread that moves an index, after the first search of the index."""
    assert index._switch is not None
    assert index._switch._thread is not None
    return index._switch._thread


def join(thread: threading.Thread) -> None:
    """Wait for a thread, and fail if it does not end."""
    thread.join(SECONDS)
    assert not thread.is_alive()


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Return two events: the moving thread sets the first before it fills a scanner, then waits for the second."""
    reached, proceed, hand_over = threading.Event(), threading.Event(), EngineSwitch._hand_over

    def paused_hand_over(switch: EngineSwitch) -> None:
        reached.set()
        assert proceed.wait(SECONDS)
        hand_over(switch)

    monkeypatch.setattr(EngineSwitch, "_hand_over", paused_hand_over)
    yield reached, proceed
    proceed.set()


@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "stored"])
def test_an_index_moves_while_it_is_changed_and_searched(stored, tmp_path):
    rng = np.random.default_rng(1)
    index = started_with_faiss(tmp_path / "index" if stored else None)
    reference = BruteForceIndex(CONFIG)
    queries, done, wrong = classified(rng, CONFIG, 10), threading.Event(), []
    start = classified(rng, CONFIG, 500)
    index.add(start)
    reference.add(start)

    def search() -> None:
        while not done.is_set():
            result = index.search(queries, k=5, shortlist=None)
            if not (result.ids >= 0).any():
                wrong.append(result)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    first, moved = 500, False
    try:
        while not moved or first < 3000:
            moved = scanner_of(index) == "NumbaScanner"
            batch = classified(rng, CONFIG, 50, first_id=first)
            for one in (index, reference):
                one.add(batch)
                one.remove(np.arange(first, first + 50, 7))
            first += 50
            if first % 1000 == 0:
                index.compact()
            assert first < 100_000
    finally:
        done.set()
        for thread in threads:
            join(thread)
    assert not wrong
    for one in (index, FaissIndex.open(tmp_path / "index", engine="faiss")) if stored else (index,):
        for ranking in ("distance", "fused"):
            parameters = {"k": 20, "cutoff": 0.1, "shortlist": None, "ranking": ranking}
            assert_same(one.search(queries, **parameters), reference.search(queries, **parameters))
        one.close()


@pytest.mark.parametrize("change", ["add", "remove", "compact", "nothing"])
def test_changes_between_filling_a_scanner_and_using_it_are_applied(change, monkeypatch):
    rng = np.random.default_rng(2)
    index, queries, adopted = started_with_faiss(), classified(rng, CONFIG, 10), []
    index.add(classified(rng, CONFIG, 600))
    index.remove(range(10))
    adopt = FaissIndex._adopt

    def change_first(self: FaissIndex, scanner: Any, state: Any) -> bool:
        if not adopted:
            {
                "add": lambda: self.upsert(classified(rng, CONFIG, 100, first_id=550)),
                "remove": lambda: self.remove(range(10, 400)),
                "compact": self.compact,
                "nothing": lambda: None,
            }[change]()
        adopted.append(adopt(self, scanner, state))
        return adopted[-1]

    monkeypatch.setattr(FaissIndex, "_adopt", change_first)
    index.search(queries)
    join(switching_thread(index))
    assert adopted == ([True] if change == "nothing" else [False, True])
    assert scanner_of(index) == "NumbaScanner"
    reference = BruteForceIndex(CONFIG)
    reference.add(index.get(index.ids()))
    assert_same(index.search(queries, shortlist=None), reference.search(queries, shortlist=None))


def test_a_search_does_not_wait_for_a_change_nor_a_change_for_the_move(paused):
    reached, proceed = paused
    rng = np.random.default_rng(3)
    index = started_with_faiss()
    index.add(classified(rng, CONFIG, 500))
    index.search(classified(rng, CONFIG, 5))
    assert reached.wait(SECONDS)
    with index._changes.lock:  # a change that takes long
        proceed.set()
        assert (index.search(classified(rng, CONFIG, 5), cutoff=0.0).ids >= 0).all()
        assert scanner_of(index) == "IvfScanner"
    join(switching_thread(index))
    assert scanner_of(index) == "NumbaScanner"


def test_an_index_that_is_closed_during_the_move_stays_closed(paused, tmp_path):
    reached, proceed = paused
    rng = np.random.default_rng(4)
    index = started_with_faiss(tmp_path / "index")
    index.add(classified(rng, CONFIG, 500))
    index.search(classified(rng, CONFIG, 5))
    assert reached.wait(SECONDS)
    index.close()
    proceed.set()
    join(switching_thread(index))
    assert type(index._searchable.scanner).__name__ == "IvfScanner"
    with pytest.raises(ClosedIndexError):
        index.search(classified(rng, CONFIG, 5))
    with FaissIndex.open(tmp_path / "index") as again:  # the writer's lock was released
        again.add(classified(rng, CONFIG, 5, first_id=1000))


def test_the_move_does_not_keep_an_unused_index_alive(paused):
    reached, proceed = paused
    rng = np.random.default_rng(5)
    index = started_with_faiss()
    index.add(classified(rng, CONFIG, 500))
    index.search(classified(rng, CONFIG, 5))
    assert reached.wait(SECONDS)
    thread, alive = switching_thread(index), weakref.ref(index)
    del index
    gc.collect()
    assert alive() is None
    proceed.set()
    join(thread)


def test_a_move_that_fails_gives_one_warning_and_faiss_answers(monkeypatch):
    rng = np.random.default_rng(6)
    index, warnings = started_with_faiss(), []
    index.add(classified(rng, CONFIG, 500))
    monkeypatch.setattr(kernel_cache, "warn_once", warnings.append)
    monkeypatch.setattr(EngineSwitch, "_hand_over", lambda switch: np.empty(1 << 60))
    for _ in range(3):
        index.search(classified(rng, CONFIG, 5))
        if index._switch is not None:
            join(switching_thread(index))
            index._switch._next_look = 0.0
    assert len(warnings) == 1
    assert warnings[0].startswith(
        "compiled search kernels cannot be used, FAISS keeps scanning, several times slower: array is too big"
    )
    assert index._switch is None


def test_a_process_that_is_forked_during_the_move_searches_and_moves_too(tmp_path):
    """A lock that the moving thread holds at the fork would stay locked for ever in the new process.

    The test uses one OpenMP thread, since further threads of OpenMP do not exist after a fork.
    """
    script = f"""
import os, threading
from semcut.indexes.storage.store import Store
importing, forking = threading.Event(), threading.Event()
class Slow:
    def find_spec(self, name, *rest):
        if name == "numba.core.dispatcher":
            importing.set()
            forking.wait({SECONDS})
sys.meta_path.insert(0, Slow())
index = FaissIndex(Store.create(None, config), "auto", "cpu")
index.add(records)
first = answer(index)
assert importing.wait({SECONDS})
forking.set()
child = os.fork()
while engine(index) == "IvfScanner":
    assert answer(index) == first
assert answer(index) == first
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("both")
sys.stdout.flush()
os._exit(0)
"""
    ready = kernel_cache.ready_directory()
    assert ready is not None
    shutil.copytree(ready, tmp_path / "cache" / ready.name)
    with killed_at_the_end() as processes:
        out, _ = processes.output(tmp_path / "cache", script, OMP_NUM_THREADS="1")
    assert out == ["both"]
