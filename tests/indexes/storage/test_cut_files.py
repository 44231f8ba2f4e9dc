"""A process survives when another program cuts files that it has mapped, and gets an error, never a wrong answer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import DamagedIndexError, FaissIndex
from semcut.indexes.scanners.engine_names import available_engines
from semcut.indexes.search_params import search_params
from semcut.indexes.storage.cut_files import GUARDED, map_file, mapping_of
from semcut.indexes.storage.kept_column import KEPT
from semcut.indexes.storage.store import Store
from tests.indexes.generate import assert_same
from tests.indexes.storage.cutting import CONFIG, batch
from tests.indexes.storage.stored_index import COLUMNS, HEAD, column, fork, python

pytestmark = pytest.mark.skipif(not GUARDED, reason="needs Linux on x86-64 or aarch64")

ROWS = 5000


@pytest.fixture
def stored(tmp_path) -> Path:
    """A stored index of `ROWS` records, closed, and a copy of its files in `backup` beside it."""
    with FaissIndex.create(tmp_path / "index", CONFIG, engine="faiss") as index:
        index.add(batch(ROWS))
    shutil.copytree(tmp_path / "index", tmp_path / "backup")
    return tmp_path / "index"


def put_back(index: Path) -> None:
    """Write the files of the backup over those of the index, as `cp -r backup/. index/` does."""
    shutil.copytree(index.with_name("backup"), index, dirs_exist_ok=True)


def search_while_cut(index: FaissIndex, path: Path, name: str) -> None:
    """Search an index, one of whose files is cut after its size was compared."""
    columns, chosen = index.snapshot.columns, index._searchable._search
    params = search_params(10, 0.1, None, "fused")
    os.truncate(column(path, name), 0)
    columns.reading(lambda: chosen.search(batch(ROWS)[:64], params, True, np.full(64, 0.1)))


@pytest.mark.skipif("compiled" not in available_engines(), reason="numba is not installed")
@pytest.mark.parametrize("name", ["probabilities", "features", "ids"])
def test_a_running_search_ends_with_an_error_and_a_refresh_reads_the_restored_files(stored, name):
    queries = batch(ROWS)[:64]
    with FaissIndex.open(stored, engine="compiled") as index:
        right = index.search(queries, k=10, cutoff=0.1)
        with pytest.raises(DamagedIndexError, match=f"{name} could not be read: another program has cut it"):
            search_while_cut(index, stored, name)
        with pytest.raises(DamagedIndexError, match=f"{name} has 0 bytes"):
            index.refresh()
        put_back(stored)
        for read in (index.ids, lambda: index.search(queries), lambda: index.get([1]), lambda: list(index.iterate())):
            with pytest.raises(DamagedIndexError, match="refresh it or open it again"):
                read()
        index.refresh()
        assert_same(index.search(queries, k=10, cutoff=0.1), right)
        assert index.verify() == []


@pytest.mark.parametrize("name", ["probabilities", "features", "ids"])
def test_a_running_search_by_faiss_finds_the_cut_before_it_reads(stored, name):
    with FaissIndex.open(stored, engine="faiss") as index:
        right = index.search(batch(ROWS)[:64], k=10, cutoff=0.1)
        with pytest.raises(DamagedIndexError, match=f"{name} has 0 bytes"):
            search_while_cut(index, stored, name)
        put_back(stored)
        assert_same(index.search(batch(ROWS)[:64], k=10, cutoff=0.1), right)


@pytest.mark.parametrize("name", sorted(set(COLUMNS) - set(KEPT)))
def test_every_column_can_be_cut_while_it_is_mapped(stored, name):
    store = Store.open(stored)
    array = store.snapshot.columns.raw()[name]
    os.truncate(column(stored, name), 0)
    if array.size:
        assert not array.any()
        assert store.snapshot.columns.cut
    store.close()


def test_a_change_by_a_writer_whose_files_were_cut_changes_nothing(stored):
    with FaissIndex.open(stored) as index:
        index.remove([0])
        os.truncate(column(stored, "ids"), 0)
        assert not index.snapshot.columns.raw()["ids"].any()
        for change in (lambda: index.remove([1]), lambda: index.add(batch(ROWS + 1)[ROWS:]), index.compact):
            with pytest.raises(DamagedIndexError):
                change()
        assert index.version == 2
    put_back(stored)
    with FaissIndex.open(stored) as index:
        np.testing.assert_array_equal(index.ids(), np.arange(ROWS))


@pytest.mark.parametrize("name", ["ids", "codes", "features", "probabilities"])
def test_a_file_that_was_cut_is_not_filled_with_zeros_by_the_next_add(stored, name):
    with FaissIndex.open(stored) as index:
        index.remove([0])
        os.truncate(column(stored, name), 4096)
        with pytest.raises(DamagedIndexError, match=f"{name} has 4096 bytes"):
            index.add(batch(ROWS + 1)[ROWS:])
        assert column(stored, name).stat().st_size == 4096


def test_a_file_that_is_rewritten_during_a_compaction_stops_it(stored):
    with FaissIndex.open(stored) as index:
        index.remove([0])
        first = column(stored, "features")
        times = iter([1])

        def rewrite(done: int, total: int, task: str = "") -> None:
            for _ in times:
                data = first.read_bytes()
                os.utime(first, ns=(0, 0))
                first.write_bytes(data)

        with pytest.raises(DamagedIndexError, match=r"changed files of .* during the compaction"):
            index.compact(rewrite)
        assert sorted(file.name for file in stored.glob("generation-*")) == ["generation-0"]
        assert len(index) == ROWS - 1
        index.compact()
        assert len(index) == ROWS - 1


FOREIGN = """
import faulthandler, mmap, tempfile
from semcut.indexes.storage.cut_files import map_file, mapping_of

def mapped(file):
    file.truncate(8192)
    return map_file(file.fileno(), 8192)

own, other = tempfile.TemporaryFile(), tempfile.TemporaryFile()
if sys.argv[1] == "before":
    faulthandler.enable()
first = mapped(own)
if sys.argv[1] == "after":
    faulthandler.enable()
    second = mapped(own)
own.truncate(0)
assert first.sum() == 0 and mapping_of(first).cut
print("survived", flush=True)
other.truncate(8192)
foreign = np.frombuffer(mmap.mmap(other.fileno(), 8192, access=mmap.ACCESS_READ), np.uint8)
other.truncate(0)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGBUS)
else:
    foreign.sum()
"""


@pytest.mark.parametrize("how", ["killed", "read"])
@pytest.mark.parametrize("fault_handler", ["none", "before", "after"])
def test_other_bus_errors_end_the_process_as_before(fault_handler, how):
    done = python(FOREIGN, fault_handler, how)
    assert done.stdout == "survived\n"
    assert done.returncode == -signal.SIGBUS
    assert ("Fatal Python error: Bus error" in done.stderr) == (fault_handler != "none")


INTERRUPTED = """
import random, tempfile, time
from semcut.indexes.storage.cut_files import map_file, mapping_of, raise_interrupt

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
random.seed(1)
file, interrupts, kept = tempfile.TemporaryFile(), 0, 0
while interrupts < int(sys.argv[1]):
    file.truncate(1 << 22)
    array = map_file(file.fileno(), 1 << 22)
    reading = False
    try:
        file.truncate(0)
        signal.setitimer(signal.ITIMER_REAL, random.random() * 0.0004 + 1e-6)
        reading = True
        array[::4096].sum()
        reading = False
        kept += 1
        raise_interrupt()
        kept -= 1
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        interrupts += 1
print("all")
"""


@pytest.mark.parametrize("interrupts", [300, pytest.param(20_000, marks=pytest.mark.long)])
def test_ctrl_c_in_the_handler_is_neither_lost_nor_printed(interrupts):
    done = python(INTERRUPTED, interrupts)
    assert done.stderr == ""
    assert done.stdout == "all\n"


HANDLER = """
import gc, os, signal, sys
from semcut.indexes.storage import cut_files
from semcut.indexes.storage.cut_files import map_file, require_frames

class Circle:
    def __init__(self, array):
        self.array, self.me = array, self

class Late(Exception):
    pass

def late(*_):
    raise Late

file = os.open("/dev/shm" if os.path.isdir("/dev/shm") else ".", os.O_TMPFILE | os.O_RDWR)

def cut(size=8192):
    os.ftruncate(file, size)
    array = map_file(file, size)
    os.ftruncate(file, 4096)
    return array

def collected():
    kept = [cut() for _ in range(900)]
    gc.disable()
    for _ in range(5):
        Circle(cut())
    array = cut()
    gc.enable()
    return array[5000]

def alarmed():
    signal.signal(signal.SIGALRM, late)
    for turn in range(500):
        array = cut(1 << 20)
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + turn % 300))
            for _ in range(3):
                array[5000:].sum()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Late:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return 0

def deep(call, depth):
    return deep(call, depth - 1) if depth else call()

def read():
    require_frames()
    return cut()[5000]

def nested():
    for depth in range(sys.getrecursionlimit()):
        try:
            deep(read, depth)
        except RecursionError:
            return 0

print({"collected": collected, "alarmed": alarmed, "nested": nested}[sys.argv[1]](), len(cut_files.cuts) > 0)
"""


@pytest.mark.parametrize("what", ["collected", "alarmed", "nested"])
def test_the_handler_survives_what_happens_meanwhile(what):
    """The garbage collector closes mappings, another handler raises an error, few functions can still be called."""
    done = python(HANDLER, what)
    assert (done.stdout, done.stderr, done.returncode) == ("0 True\n", "", 0)


def test_mappings_are_forgotten_when_they_are_closed(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(8192))
    with open(file, "rb") as opened:
        array = map_file(opened.fileno(), 8192)
    start, known = mapping_of(array).start, type(mapping_of(array)).__del__.__defaults__[0]
    assert start in known
    del array
    assert start not in known


@pytest.mark.parametrize("engine", ["compiled", "faiss"])
@pytest.mark.parametrize("copies", [12, pytest.param(1500, marks=pytest.mark.long)])
def test_all_calls_survive_copies_over_the_index(stored, tmp_path, engine, copies):
    """Another program copies the backup over the index, or cuts a single file, while a process uses the index."""
    rng = np.random.default_rng(copies)
    stop, backup = tmp_path / "stop", stored.with_name("backup")
    script = "from tests.indexes.storage.cutting import use; use(*sys.argv[1:])"
    stdout, stderr = tmp_path / "stdout", tmp_path / "stderr"
    process = fork(HEAD + script, (stored, engine, stop, tmp_path / "scratch"), stdout, stderr)
    try:
        while process.is_alive() and not (stdout.exists() and stdout.read_text()):
            time.sleep(0.01)
        for _ in range(copies):
            if rng.random() < 0.5:
                subprocess.run(["cp", "-r", f"{backup}/.", str(stored)], check=True)
            else:
                file = column(stored, str(rng.choice(COLUMNS)))
                os.truncate(file, int(rng.choice([0, 4096])))
                time.sleep(rng.random() * 0.01)
                file.write_bytes(column(backup, file.name).read_bytes())
        put_back(stored)
        stop.touch()
        process.join(60)
    finally:
        process.kill()
        process.join()
    assert process.exitcode == 0, stderr.read_text()
    assert json.loads(stdout.read_text().splitlines()[1])["right"] > 0
