"""One writer, and many readers in other threads and processes: each reader sees one state, never a mixture."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import FaissIndex, LockedError
from semcut.indexes.storage.shared_lock import SharedLock
from tests.indexes.generate import RANKED, assert_same, assert_same_records
from tests.indexes.storage.stored_index import fork
from tests.indexes.story import CONFIG, IDS, Story, records
from tests.thorough import THOROUGH

ROOT = Path(__file__).parents[2]
SECONDS = [4 if THOROUGH else 2, pytest.param(60, marks=pytest.mark.long)]

WRITER = """
import os, sys
from semcut.indexes import FaissIndex
from tests.indexes.story import CONFIG, Story

index, story, enough = FaissIndex.open(sys.argv[1]), Story(7), float(sys.argv[2])
while story.changes <= enough or not os.path.exists(sys.argv[3]):
    story.change(index)
    if story.changes % 50 == 0:  # to another process, now and then
        index.close()
        index = FaissIndex.open(sys.argv[1])
print(story.changes)
"""

READER = """
import sys, time
import numpy as np
from semcut.indexes import FaissIndex
from tests.indexes.story import Story
from tests.indexes.storage.test_crash import assert_holds
from tests.indexes.test_many_users import ask

path, seed, end = sys.argv[1], int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
rng, story, index, versions = np.random.default_rng(seed), Story(7), FaissIndex.open(path), set()
while time.monotonic() < end or (len(versions) <= 3 and time.monotonic() < end + 60):
    if rng.random() < 0.1:
        index.close()
        index = FaissIndex.open(path)
    elif rng.random() < 0.7:
        index.refresh()
    assert index.version >= story.changes
    story.tell_until(index.version)
    versions.add(index.version)
    if rng.random() < 0.3:
        assert_holds(index, story)
    ask(index, story, rng)
    assert index.version == story.changes
index.refresh()
story.tell_until(index.version)
assert_holds(index, story)
print(len(versions))
"""


def ask(index: FaissIndex, story: Story, rng: np.random.Generator) -> None:
    """Search an index, and compare the result with brute force."""
    queries = records(rng.integers(0, IDS, 3), rng.integers(0, 9, 3))
    options = {"k": 10, "cutoff": float(rng.choice([0, 0.2, 0.5])), "shortlist": None}
    assert_same(index.search(queries, **options), story.brute_force().search(queries, **options))


@pytest.mark.parametrize("seconds", SECONDS)
def test_three_processes_read_while_one_writes(tmp_path, seconds):
    path = tmp_path / "index"
    FaissIndex.create(path, CONFIG).close()
    enough = 20 * seconds**0.5
    ended = tmp_path / "ended"
    scripts = [*((READER, [seed, seconds]) for seed in range(3)), (WRITER, [enough, ended])]
    running = [
        fork(script, [path, *arguments], tmp_path / f"output {number}", tmp_path / f"errors {number}")
        for number, (script, arguments) in enumerate(scripts)
    ]
    for process in running:
        if process is running[-1]:
            ended.touch()  # the readers have ended
        process.join(seconds + 120)
        process.kill()
    errors = [(tmp_path / f"errors {number}").read_text() for number in range(4)]
    assert [process.exitcode for process in running] == [0] * 4, "\n".join(errors)
    *seen, changes = (int((tmp_path / f"output {number}").read_text()) for number in range(4))
    assert changes > enough
    assert min(seen) > 3
    story = Story(7)
    story.tell_until(changes)
    with FaissIndex.open(path) as index:
        assert_same_records(index.get(sorted(story.held)), story.all())
        assert index.verify() == []


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "in memory"])
def test_three_threads_search_while_one_writes(tmp_path, seconds, stored):
    """Every search gives the result of brute force for one of the states between its start and its end."""
    index = FaissIndex.create(tmp_path / "index" if stored else None, CONFIG)
    start, failures, searches = time.monotonic(), [], []

    def going() -> bool:
        passed, few = time.monotonic() - start, index.version <= 20 or len(searches) <= 10
        return not failures and (passed < seconds or (few and passed < seconds + 120))

    def change() -> None:
        story = Story(7)
        while going():
            story.change(index)

    def search(seed: int) -> None:
        rng, story = np.random.default_rng(seed), Story(7)
        while going():
            story.tell_until(index.version)
            queries = records(rng.integers(0, IDS, 3), rng.integers(0, 9, 3))
            options = {"k": 10, "cutoff": float(rng.choice([0, 0.2, 0.5])), "shortlist": None}
            found, last = index.search(queries, **options), index.version
            possible = [story.brute_force().search(queries, **options)]
            while story.changes < last:
                story.tell()
                possible.append(story.brute_force().search(queries, **options))
            assert any(
                all(np.array_equal(getattr(found, name), getattr(one, name)) for name in RANKED) for one in possible
            )
            searches.append(len(possible))
            changes = [int(uri.split()[-1]) for part in index.iterate(100) for uri in part.uris or [] if uri]
            assert max(changes, default=0) <= index.version
            index.contains(np.arange(10))
            index.stats()

    def guarded(run, *arguments) -> None:
        try:
            run(*arguments)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(change,))]
    threads += [threading.Thread(target=guarded, args=(search, seed)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert index.version > 20
    assert len(searches) > 10
    story = Story(7)
    story.tell_until(index.version)
    assert_same_records(index.get(sorted(story.held)), story.all())
    index.close()


def test_of_several_threads_that_write_each_gets_its_turn(tmp_path):
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        threads = [
            threading.Thread(target=lambda first=first: [index.add(records([first + n], [n])) for n in range(10)])
            for first in range(0, 100, 10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(index.ids().tolist()) == list(range(100))
        assert index.version == 100
        assert index.verify() == []


def test_the_lock_outlives_neither_its_process_nor_a_child_that_was_forked(tmp_path):
    FaissIndex.create(tmp_path / "index", CONFIG).close()
    script = """
import os, sys, time
from semcut.indexes import FaissIndex, SemcutError
from tests.indexes.story import records
index = FaissIndex.open(sys.argv[1])
index.add(records([1], [0]))
if not os.fork():
    try:
        index.add(records([2], [0]))
    except SemcutError as error:
        print(error, flush=True)
    time.sleep(60)
os._exit(0)
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "index")], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    said = writer.stdout.readline()
    assert writer.wait(timeout=60) == 0
    assert "opened before this process was forked: open it again" in said
    with FaissIndex.open(tmp_path / "index") as index:  # while the child is still running
        index.add(records([3], [0]))
        assert index.ids().tolist() == [1, 3]
    os.killpg(writer.pid, 9)
    writer.stdout.close()


def test_the_error_of_a_second_writer_names_the_first_process(tmp_path):
    script = """
import sys
from semcut.indexes import FaissIndex
from tests.indexes.story import records
index = FaissIndex.open(sys.argv[1])
index.add(records([1], [0]))
print("added", flush=True)
sys.stdin.readline()
"""
    FaissIndex.create(tmp_path / "index", CONFIG).close()
    with (
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "index")], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as writer,
        FaissIndex.open(tmp_path / "index") as index,
    ):  # fmt: skip
        assert writer.stdout.readline() == "added\n"
        index.refresh()
        start = time.monotonic()
        with pytest.raises(LockedError, match=rf"process {writer.pid} on .*close the index there, then try again"):
            index.add(records([2], [0]))
        assert time.monotonic() - start < 1
        assert index.search(records([1], [0]), k=1, cutoff=0).ids.tolist() == [[1]]
        writer.communicate("close")
        index.add(records([2], [0]))
        assert index.ids().tolist() == [1, 2]


def test_a_reader_moves_to_a_new_state_when_it_refreshes(tmp_path):
    with FaissIndex.create(tmp_path / "index", CONFIG) as writer:
        writer.add(records(np.arange(300), np.zeros(300)))
        reader = FaissIndex.open(tmp_path / "index")
        assert reader.refresh() is False
        writer.remove([7])
        writer.add(records(np.arange(300, 500), np.ones(200)))
        writer.remove([301])
        assert len(reader) == 300
        assert reader.contains([7, 300]).tolist() == [True, False]
        assert reader.refresh() is True
        assert reader.contains([7, 300, 301]).tolist() == [False, True, False]
        assert len(reader) == 498
        writer.compact()
        assert reader.get([8]).uris == ["image 8, change 0"]  # the files are deleted, but readable
        assert reader.refresh() is True
        assert reader.stats() == writer.stats()
        reader.close()


def read_with(lock: SharedLock, call: Callable[[], object]) -> object:
    """Call a function while holding a lock as a reader, as the docstring of the lock says."""
    while True:
        with lock.of_this_thread():
            if lock.is_open():
                return call()
        lock.wait()


def test_readers_share_a_lock_and_a_writer_has_it_alone():
    lock, inside, most = SharedLock(), set(), []
    together = threading.Barrier(3)

    def read(name: int) -> None:
        together.wait(timeout=10)  # all three are inside at once, or this breaks
        inside.add(name)

    def write(name: int) -> None:
        most.append(name)
        assert len(most) == 1
        time.sleep(0.01)
        most.remove(name)

    def run(name: int) -> None:
        read_with(lock, lambda: read(name))
        lock.write(lambda: write(name))

    threads = [threading.Thread(target=run, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == {0, 1, 2}
    assert not most


def test_a_waiting_writer_goes_before_later_readers():
    lock, order = SharedLock(), []
    held, release = threading.Event(), threading.Event()

    def first() -> None:
        held.set()
        release.wait(10)

    calls = [
        lambda: read_with(lock, first),
        lambda: lock.write(lambda: order.append("writer")),
        lambda: read_with(lock, lambda: order.append("reader")),
    ]
    threads = [threading.Thread(target=call) for call in calls]
    threads[0].start()
    held.wait(10)
    threads[1].start()
    while not lock._gate.locked():
        time.sleep(0.001)
    threads[2].start()
    time.sleep(0.05)
    assert order == []
    release.set()
    for thread in threads:
        thread.join()
    assert order == ["writer", "reader"]
