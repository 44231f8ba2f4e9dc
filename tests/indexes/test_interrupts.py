"""Ctrl-C at any moment: an index in memory stays there, all of a change or none of it; no lock stays held.

A timer interrupts the main thread after random fractions of a millisecond, as Ctrl-C does.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.ma  # which numpy imports late: an interrupted import keeps Python's own lock
import pytest

from semcut.indexes import ClosedIndexError, FaissIndex, StorageError, searchable
from semcut.indexes.storage.shared_lock import SharedLock
from semcut.indexes.warmup import load_kernels
from tests.indexes.generate import assert_same, assert_same_records
from tests.indexes.story import CONFIG, Story, records
from tests.indexes.test_many_users import read_with

INTERRUPTS = [500, pytest.param(30_000, marks=pytest.mark.long)]
SEARCH = {"k": 20, "cutoff": 0.3, "shortlist": None}


@pytest.fixture
def interrupted() -> Iterator[Callable[[float, Callable[[], object]], bool]]:
    """A function that calls a function, interrupts it after some seconds, and returns whether it was interrupted."""

    armed = False

    def interrupt(number: int, frame: object) -> None:
        if armed:  # the system may deliver the signal late, to another thread
            raise KeyboardInterrupt

    def run(seconds: float, call: Callable[[], object]) -> bool:
        nonlocal armed
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, seconds)
            call()
            armed = False
        except KeyboardInterrupt:
            return True
        finally:
            armed = False
        return False

    before = signal.signal(signal.SIGALRM, interrupt)
    yield run
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def in_time(call: Callable[[], object]) -> None:
    """Call a function in another thread, which must not wait for a lock that nobody holds."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(30)
    if thread.is_alive():
        faulthandler.dump_traceback()
    assert not thread.is_alive(), "a lock has stayed held"


def assert_holds(index: FaissIndex, story: Story) -> None:
    expected = story.all()
    assert len(index) == len(expected)
    if len(expected):
        assert_same_records(index.get(expected.ids), expected)
        assert_same(index.search(expected[:3], **SEARCH), story.brute_force().search(expected[:3], **SEARCH))


def ask(index: FaissIndex) -> None:
    """Use an index in all ways that share its lock."""
    queries = records(np.arange(3), np.arange(3))
    index.search(queries, **SEARCH)
    index.contains(queries.ids)
    index.next_id()
    index.members(0)
    index.stats()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # interrupted while memory is freed
@pytest.mark.parametrize("interrupts", INTERRUPTS)
@pytest.mark.parametrize("engine", ["auto", "faiss"])
@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "stored"])
def test_changes_and_searches_may_be_interrupted(tmp_path, interrupted, interrupts, engine, stored):
    rng = np.random.default_rng(interrupts)
    path = tmp_path / "index" if stored else None
    index, story = FaissIndex.create(path, CONFIG, engine=engine), Story(5)
    if engine == "auto":
        load_kernels()  # numba does not survive an interrupt while it loads them
    story.change(index)
    ask(index)
    changes = searches = 0
    while changes + searches < (interrupts // 5 if stored else interrupts):
        changes += interrupted(float(rng.exponential(0.002 if stored else 0.0005)), story.prepared(index))
        try:
            searches += interrupted(float(rng.exponential(0.0003)), partial(ask, index))
            ask(index)
            in_time(partial(ask, index))
        except ClosedIndexError:
            assert stored  # it is not known whether the change was committed; an index in memory is never closed
            index = FaissIndex.open(path, engine=engine)
        assert index.version in (story.changes, story.changes + 1)
        story.tell_until(index.version)
        if rng.random() < 0.1:
            assert_holds(index, story)
    assert_holds(index, story)
    in_time(partial(index.remove, index.ids()[:1]))
    assert len(index) == len(story.all()) - 1
    assert changes > 0
    assert searches > 0
    index.close()


def test_a_lock_is_never_held_after_an_interrupt(interrupted):
    lock, rng, times = SharedLock(), np.random.default_rng(0), 0

    def use() -> None:
        for _ in range(50):
            read_with(lock, lambda: None)
            lock.write(lambda: None)

    for turn in range(5000):
        times += interrupted(float(rng.exponential(0.00005)), use)
        if turn % 100 == 0:
            in_time(lambda: lock.write(lambda: None))
    in_time(lambda: lock.write(lambda: None))
    assert times > 1000


def in_child(call: Callable[[], object]) -> str:
    """Call a function in a forked child, and return what it returned or raised, as text."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            shown = repr(call())
        except BaseException as error:
            shown = f"{type(error).__name__}: {error}"
        os.write(write, shown.encode())
        os._exit(0)
    os.close(write)
    end = time.monotonic() + 20
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child waits for ever")
        time.sleep(0.01)
    shown = os.read(read, 10_000).decode()
    os.close(read)
    return shown


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_is_not_held_up_by_readers_of_its_parent():
    lock, held, release = SharedLock(), threading.Event(), threading.Event()
    reader = threading.Thread(target=lambda: read_with(lock, lambda: (held.set(), release.wait(60))))
    reader.start()
    held.wait(10)
    assert in_child(lambda: lock.write(lambda: "written")) == "'written'"
    release.set()
    reader.join()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("half", [False, True])
def test_a_child_that_was_forked_during_a_change_sees_all_of_it_or_nothing(monkeypatch, half):
    index, held, release = FaissIndex.create(None, CONFIG), threading.Event(), threading.Event()
    index.add(records(np.arange(10), np.zeros(10)))
    apply = searchable.apply_changes

    def applied(scanner, *arguments):
        if half and os.getpid() == parent:
            apply(scanner, *arguments)
        held.set()
        release.wait(60)

    parent = os.getpid()
    monkeypatch.setattr("semcut.indexes.searchable.apply_changes", applied)
    writer = threading.Thread(target=lambda: index.add(records(np.arange(10, 20), np.zeros(10))))
    writer.start()
    held.wait(10)
    query = records([1], [0])
    found = in_child(lambda: sorted(index.search(query, k=20, cutoff=0, shortlist=None).ids[0].tolist()))
    release.set()
    writer.join()
    assert found == str(list(range(20)))


BUSY = {
    "search": lambda index, turn: ask(index),
    "change": lambda index, turn: index.upsert(records(np.arange(turn % 50, turn % 50 + 5), np.ones(5))),
    "refresh": lambda index, turn: index.refresh(),
    "verify": lambda index, turn: index.verify(),
}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("engine", ["faiss", "compiled"])
@pytest.mark.parametrize(
    ("place", "busy"),
    [(None, "search"), (None, "change"), *(("index", name) for name in BUSY)],
)
def test_a_child_searches_refreshes_and_closes_whatever_threads_were_doing(tmp_path, place, busy, engine):
    if engine == "compiled":
        pytest.importorskip("numba")
    index = FaissIndex.create(place and tmp_path / place, CONFIG, engine=engine)
    index.add(records(np.arange(300), np.zeros(300)))
    ask(index)  # OpenMP has threads for this thread, which a child does not have
    stop = threading.Event()
    others = [
        threading.Thread(target=lambda: [BUSY[busy](index, turn) for turn, _ in enumerate(iter(stop.is_set, True))])
        for _ in range(2)
    ]

    def use() -> str:
        ask(index)
        assert index.contains([1]).tolist() == [True]
        index.refresh()
        said = []
        for change in (lambda: index.remove([1]), lambda: index.upsert(records([1], [0])), index.compact):
            with pytest.raises(StorageError, match=r"before this process was forked.* open it") as caught:
                change()
            said.append(str(caught.value))
        assert len(set(said)) == 1
        ask(index)
        index.close()
        return "done"

    for other in others:
        other.start()
    try:
        for _ in range(5):
            assert in_child(use) == "'done'"
    finally:
        stop.set()
        for other in others:
            other.join()
    assert index.remove([1]) is None
    index.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_builds_the_map_of_ids_that_another_thread_was_building():
    index = FaissIndex.create(None, CONFIG)
    index.add(records(np.arange(300), np.zeros(300)))
    with index._searchable._mapping:
        assert in_child(lambda: index.contains([1]).tolist()) == "[True]"


def test_an_index_that_was_closed_half_way_releases_its_lock_when_it_is_used_or_closed(tmp_path):
    index = FaissIndex.create(tmp_path / "index", CONFIG)
    index.add(records([1], [0]))
    index._searchable.closed = True  # as Ctrl-C leaves it when it ends `abandon`
    with pytest.raises(ClosedIndexError):
        index.remove([1])
    with FaissIndex.open(tmp_path / "index") as other:
        other.remove([1])
    index.close()
