"""Kernels are compiled beside searches, once, and an open index moves on to them; nothing waits for that.

What is said of fresh processes is tested in fresh processes, each with a directory of its own for what is compiled. One
of them is filled as it is for a user, by a process beside a search; the other tests get copies of it. A test that wants
no process to be started holds the lock of its directory.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import gc
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut import indexes
from semcut.indexes import BruteForceIndex, ClosedIndexError, FaissIndex, IndexConfig
from semcut.indexes.kernels import kernel_cache
from semcut.indexes.kernels.engine_switch import EngineSwitch
from semcut.indexes.scanners.protocol import available
from semcut.indexes.storage.store import Store
from tests.command import SEMCUT
from tests.indexes.generate import assert_same, classified

if "compiled" not in available():
    pytest.skip("numba is not installed", allow_module_level=True)

ROOT = Path(__file__).parents[3]
CONFIG = IndexConfig(classes=10, bits=64, dim=8)

PRELUDE = """
import sys, numpy as np
from semcut.indexes import FaissIndex, IndexConfig
from semcut.indexes.kernels import kernel_cache
from tests.indexes.generate import classified
config = IndexConfig(classes=10, bits=64, dim=8)
rng = np.random.default_rng(0)
records, queries = classified(rng, config, 2000), classified(rng, config, 20)
def engine(index):
    return type(index.scanner).__name__
def answer(index, **asked):
    results = [index.search(queries, k=5, shortlist=shortlist, **asked) for shortlist in (None, 15)]
    return [[result.ids.tolist(), result.distances.tolist()] for result in results]
"""

STAYING = """
import json
index = FaissIndex.create(None, config)
index.add(records)
first = answer(index)
print(engine(index), "numba" in sys.modules, flush=True)
if sys.stdin.readline():  # compiled now
    second = answer(index)
    while engine(index) == "IvfScanner":
        assert answer(index) == first
    print(engine(index), answer(index) == first == second)
"""


def environment(cache: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "SEMCUT_ENGINE"}
    return {**inherited, "NUMBA_CACHE_DIR": str(cache), **more}


def started(cache: Path, script: str, errors: int = subprocess.PIPE, **variables: str) -> subprocess.Popen[str]:
    """A Python process with the records of `PRELUDE`."""
    return subprocess.Popen(
        [sys.executable, "-W", "default", "-c", PRELUDE + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment(cache, **variables),
        cwd=ROOT,
    )


def printed(cache: Path, script: str, **variables: str) -> tuple[list[str], str]:
    """Lines on standard output, and what is on standard error, of a process that ends well."""
    process = started(cache, script, **variables)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.splitlines(), err


def compiling(cache: Path) -> list[int]:
    """The processes that compile into a directory."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            about = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            if b"warmup import fill" in about and f"NUMBA_CACHE_DIR={cache}\0".encode() in about:
                found.append(int(place.name))
    return found


def folder_in(cache: Path) -> Path:
    """Where kernels are kept in it."""
    return cache / f"semcut-{kernel_cache.digest()}"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three processes that search at once while nothing is compiled yet, two of which end soon, and what they saw."""
    cache = tmp_path_factory.mktemp("cold")
    processes = [started(cache, STAYING) for _ in range(3)]
    first = [process.stdout.readline() for process in processes]
    (worker,) = compiling(cache)
    about = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
    for process in processes[1:]:
        process.communicate("", timeout=60)
    still = compiling(cache) == [worker]
    with open(folder_in(cache) / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held until it is through
    last, errors = processes[0].communicate("compiled\n", timeout=60)
    return {
        "cache": cache,
        "first": first,
        "last": last,
        "errors": errors,
        "terminal": int(about[4]),
        "nice": int(about[16]),
        "outlived": still and all(process.returncode == 0 for process in processes),
    }


@pytest.fixture
def cache(story: dict[str, Any], tmp_path: Path) -> Path:
    """A directory with all kernels."""
    return Path(shutil.copytree(story["cache"], tmp_path / "cache"))


@pytest.fixture
def incomplete(cache: Path) -> Iterator[Path]:
    """A directory that lacks one small kernel, and into which nobody else compiles."""
    folder = folder_in(cache)
    for file in (folder / "complete", *folder.glob("lists.remove-*")):
        file.unlink()
    with open(folder / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def test_a_search_of_a_cold_machine_is_answered_at_once_without_numba(story):
    assert story["first"] == ["IvfScanner False\n"] * 3


def test_one_process_compiles_for_all_detached_at_the_lowest_priority(story):
    assert (story["terminal"], story["nice"]) == (0, 19)
    assert story["outlived"]
    assert folder_in(story["cache"]).joinpath("complete").is_file()


def test_an_open_index_moves_to_the_kernels_that_are_ready_and_answers_the_same(story):
    assert story["last"] == "NumbaScanner True\n"
    assert story["errors"] == ""


def test_with_all_kernels_ready_no_search_and_no_change_compiles_anything(cache, tmp_path):
    """In memory or stored, with codes of one word and of many, few and many classes, and whatever arrays are like."""
    script = f"""
from numba.core import event
with event.install_recorder("numba:compile") as compiled:
    for bits, classes in ((40, 3), (64, 10), (128, 300), (256, 10)):
        config = IndexConfig(classes=classes, bits=bits, dim=8)
        records, queries = classified(rng, config, 3000), classified(rng, config, 100)
        for array in (queries.codes, queries.features, queries.probabilities):
            array.flags.writeable = False
        for path in (None, f"{tmp_path}/{{bits}}"):
            with FaissIndex.create(path, config) as index:
                assert engine(index) == "NumbaScanner"
                index.add(records[:1000])
                index.add(records[1000:])
                index.remove(range(0, 3000, 3))
                for one in (index, *([FaissIndex.open(path)] if path else [])):
                    for some in (queries, queries[:1], one.get(range(1, 40, 3))):
                        for ranking in ("distance", "fused"):
                            for shortlist in (20, None):
                                one.search(some, k=5, shortlist=shortlist, ranking=ranking)
                    one.search(queries, k=2000, cutoff=0.0, shortlist=None)
                    one.search(queries, k=5, cutoff=0.0, shortlist=2500)
                    one.compact()
                    one.upsert(records[:10])
                    one.search(queries)
                    one.close()
from semcut.indexes.kernels import jit
from semcut.indexes.scanners import lists_kernel
from semcut.indexes.search import search_kernel
assert len(jit.KERNELS) >= 5 and all(len(each.signatures) == 1 for each in jit.KERNELS)
print([details["dispatcher"] for _, details in compiled.buffer] if compiled.buffer else "nothing")
"""
    assert printed(cache, script) == (["nothing"], "")


def test_constants_of_kernels_count_as_their_sources():
    """A module from which a kernel takes a constant, or arrays by name."""
    here = Path(indexes.__file__).parent
    kernels = {file.relative_to(here).as_posix() for file in here.glob("*/*_kernel.py")}
    assert len(kernels) == 7
    for file in map(here.joinpath, kernels):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and any(name.name.isupper() for name in node.names):
                module = str(node.module).removeprefix("semcut.indexes.").replace(".", "/") + ".py"
                assert module in {*kernel_cache._SOURCES, *kernels}, file


def test_kernels_of_which_a_file_is_gone_are_not_ready(incomplete):
    folder = folder_in(incomplete)
    script = "index = FaissIndex.create(None, config)\nindex.add(records)\nanswer(index)\nprint(engine(index))"
    assert printed(incomplete, script) == (["IvfScanner"], "")
    (folder / "complete").write_text(json.dumps({"lists.remove-1.nbi": 7}))
    assert printed(incomplete, script) == (["IvfScanner"], "")
    assert compiling(incomplete) == []


def test_warmup_compiles_what_is_missing_and_says_so(incomplete, tmp_path):
    def warmup() -> str:
        done = subprocess.run([SEMCUT, "warmup"], env=environment(incomplete), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert re.fullmatch(rf"Search kernels were compiled in \d+ s, into {folder_in(incomplete)}\.\n", warmup())
    assert warmup() == f"Search kernels are ready in {folder_in(incomplete)}.\n"


def test_the_compiled_engine_by_name_is_compiled_at_once_which_a_terminal_shows(incomplete):
    script = "print(engine(FaissIndex.create(None, config)), kernel_cache.found() is not None)"
    ours, theirs = pty.openpty()
    process = started(incomplete, script, theirs, SEMCUT_ENGINE="compiled", TERM="xterm")
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(ours, 1000):
            shown += part
    os.close(ours)
    assert process.communicate(timeout=60)[0] == "NumbaScanner True\n"
    assert b"Compiling search kernels" in shown


def test_without_a_terminal_nothing_is_shown(incomplete):
    script = 'print(engine(FaissIndex.create(None, config, engine="compiled")), kernel_cache.found() is not None)'
    assert printed(incomplete, script) == (["NumbaScanner True"], "")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_kernels_are_used_from_a_directory_that_cannot_be_written_to(cache):
    folder_in(cache).chmod(0o555)
    process = subprocess.run(
        ["setpriv", *(["--bounding-set=-all"] if os.geteuid() == 0 else []), sys.executable, "-c",
         f"{PRELUDE}\nassert kernel_cache.target() is None\nindex = FaissIndex.create(None, config)\n"
         "index.add(records)\nanswer(index)\nfrom semcut.indexes.search.search_kernel import search\n"
         "print(engine(index), sum(search.stats.cache_misses.values()))"],
        capture_output=True, text=True, env=environment(cache), cwd=ROOT,
    )  # fmt: skip
    assert (process.stdout, process.stderr) == ("NumbaScanner 0\n", "")


UNWRITABLE = (
    r"compiled search kernels cannot be kept, \S+ cannot be written to: set NUMBA_CACHE_DIR to a directory that can"
)


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    (tmp_path / "file").touch()
    return tmp_path / "file" / "cache"


def test_where_nothing_can_be_kept_one_warning_says_so_and_faiss_answers(nowhere):
    script = """
for _ in range(2):
    index = FaissIndex.create(None, config)
    index.add(records)
    answer(index), answer(index)
    print(engine(index), index._switch, "numba" in sys.modules)
"""
    out, err = printed(nowhere, script)
    assert out == ["IvfScanner None False"] * 2
    assert len(re.findall("KernelCacheWarning", err)) == 1
    assert re.search(f"KernelCacheWarning: {UNWRITABLE}; FAISS scans instead", err)


def test_commands_say_it_in_one_line(nowhere, tmp_path):
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(classified(np.random.default_rng(0), CONFIG, 100))
    script = """
import click
from semcut.connector.cli.app import main
@click.command()
@click.argument("index")
def command(index):
    with FaissIndex.open(index) as opened:
        opened.search(queries)
main(command)
"""
    process = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, tmp_path / "index"],
        capture_output=True, text=True, env=environment(nowhere), cwd=ROOT,
    )  # fmt: skip
    assert process.returncode == 0
    assert re.fullmatch(f"semcut: {UNWRITABLE}; FAISS scans instead, several times slower\n", process.stderr)
    warmup = subprocess.run([SEMCUT, "warmup"], env=environment(nowhere), capture_output=True, text=True)
    assert warmup.returncode == 1
    assert re.fullmatch(f"semcut: {UNWRITABLE}\n", warmup.stderr)


def test_without_numba_warmup_says_what_to_install(tmp_path):
    script = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba" else find(name, *rest)
from semcut.connector.cli.app import main
from semcut.connector.cli.warmup_command import warmup
main(warmup)
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1
    assert (
        done.stderr == "semcut: numba is not installed, which the compiled engine needs: pip install 'semcut[fast]'\n"
    )


def test_after_three_processes_that_failed_none_is_started(tmp_path):
    """As they would where numba cannot compile."""
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("import os, sys\nif sys.argv[:1] == ['-c'] and len(sys.argv) > 3:\n    os._exit(1)\n")
    script = """
index = FaissIndex.create(None, config)
index.add(records)
answer(index)
kernel_cache.start.cache_clear()  # as in the next process
answer(index)
print(engine(index), *map(str, [kernel_cache.start() for _ in range(3) if not kernel_cache.start.cache_clear()]))
"""
    out, err = printed(tmp_path / "cache", script, PYTHONPATH=str(tmp_path))
    assert out == ["IvfScanner True True False"]
    assert len(re.findall("KernelCacheWarning: search kernels could not be compiled, 3 processes that tried", err)) == 1
    assert compiling(tmp_path / "cache") == []


def waiting(path: Path | None = None) -> FaissIndex:
    """An index as if kernels had not been ready when it was made; they are, so its first search has it moved."""
    return FaissIndex(Store.create(path, CONFIG), "auto", "cpu")


def thread_of(index: FaissIndex) -> threading.Thread:
    """What moves an index, after its first search."""
    assert index._switch is not None
    assert index._switch._thread is not None
    return index._switch._thread


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """The thread that moves an index sets the first event before it fills an engine, and goes on after the second."""
    there, go_on, through = threading.Event(), threading.Event(), EngineSwitch._hand_over

    def hand_over(switch: EngineSwitch) -> None:
        there.set()
        assert go_on.wait(60)
        through(switch)

    monkeypatch.setattr(EngineSwitch, "_hand_over", hand_over)
    return there, go_on


@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "stored"])
def test_an_index_moves_while_it_is_changed_and_searched(stored, tmp_path):
    rng = np.random.default_rng(1)
    index, reference = waiting(tmp_path / "index" if stored else None), BruteForceIndex(CONFIG)
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
    while not moved or first < 3000:
        moved = type(index.scanner).__name__ == "NumbaScanner"
        batch = classified(rng, CONFIG, 50, first_id=first)
        for one in (index, reference):
            one.add(batch)
            one.remove(np.arange(first, first + 50, 7))
        first += 50
        if first % 1000 == 0:
            index.compact()
        assert first < 100_000
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    for one in (index, FaissIndex.open(tmp_path / "index", engine="faiss")) if stored else (index,):
        for ranking in ("distance", "fused"):
            asked = {"k": 20, "cutoff": 0.1, "shortlist": None, "ranking": ranking}
            assert_same(one.search(queries, **asked), reference.search(queries, **asked))
        one.close()


@pytest.mark.parametrize("change", ["add", "remove", "compact", "nothing"])
def test_what_changes_between_the_filling_of_an_engine_and_its_use_counts(change, monkeypatch):
    rng = np.random.default_rng(2)
    index, queries, seen = waiting(), classified(rng, CONFIG, 10), []
    index.add(classified(rng, CONFIG, 600))
    index.remove(range(10))
    adopt = FaissIndex._adopt

    def changed_first(self: FaissIndex, engine: Any, state: Any) -> bool:
        if not seen:
            {
                "add": lambda: self.upsert(classified(rng, CONFIG, 100, first_id=550)),
                "remove": lambda: self.remove(range(10, 400)),
                "compact": self.compact,
                "nothing": lambda: None,
            }[change]()
        seen.append(adopt(self, engine, state))
        return seen[-1]

    monkeypatch.setattr(FaissIndex, "_adopt", changed_first)
    index.search(queries)
    thread_of(index).join()
    assert seen == ([True] if change == "nothing" else [False, True])
    assert type(index.scanner).__name__ == "NumbaScanner"
    reference = BruteForceIndex(CONFIG)
    reference.add(index.get(index.ids()))
    assert_same(index.search(queries, shortlist=None), reference.search(queries, shortlist=None))


def test_a_search_does_not_wait_for_a_change_nor_a_change_for_the_move(held):
    there, go_on = held
    rng = np.random.default_rng(3)
    index = waiting()
    index.add(classified(rng, CONFIG, 500))
    index.search(classified(rng, CONFIG, 5))
    assert there.wait(60)
    with index._changing:  # a change that takes long
        go_on.set()
        assert (index.search(classified(rng, CONFIG, 5), cutoff=0.0).ids >= 0).all()
        assert type(index.scanner).__name__ == "IvfScanner"
    thread_of(index).join()
    assert type(index.scanner).__name__ == "NumbaScanner"


def test_an_index_that_is_closed_meanwhile_stays_closed(held, tmp_path):
    there, go_on = held
    rng = np.random.default_rng(4)
    index = waiting(tmp_path / "index")
    index.add(classified(rng, CONFIG, 500))
    index.search(classified(rng, CONFIG, 5))
    assert there.wait(60)
    index.close()
    go_on.set()
    thread_of(index).join()
    assert type(index.scanner).__name__ == "IvfScanner"
    with pytest.raises(ClosedIndexError):
        index.search(classified(rng, CONFIG, 5))
    with FaissIndex.open(tmp_path / "index") as again:  # the lock was let go of
        again.add(classified(rng, CONFIG, 5, first_id=1000))


def test_an_index_that_nobody_uses_any_more_is_let_go_of(held):
    there, go_on = held
    rng = np.random.default_rng(5)
    index = waiting()
    index.add(classified(rng, CONFIG, 500))
    index.search(classified(rng, CONFIG, 5))
    assert there.wait(60)
    thread, alive = thread_of(index), weakref.ref(index)
    del index
    gc.collect()
    assert alive() is None
    go_on.set()
    thread.join()


def test_what_goes_wrong_is_one_warning_and_faiss_answers(monkeypatch):
    rng = np.random.default_rng(6)
    index, told = waiting(), []
    index.add(classified(rng, CONFIG, 500))
    monkeypatch.setattr(kernel_cache, "warn", told.append)
    monkeypatch.setattr(EngineSwitch, "_hand_over", lambda switch: np.empty(1 << 60))
    for _ in range(3):
        index.search(classified(rng, CONFIG, 5))
        if index._switch is not None:
            thread_of(index).join()
            index._switch._next = 0.0
    assert len(told) == 1
    assert told[0].startswith(
        "compiled search kernels cannot be used, FAISS scans on, several times slower: array is too big"
    )
    assert index._switch is None


def test_a_process_that_is_forked_during_the_move_searches_and_moves_too(cache):
    """A lock that the moving thread holds at that moment would stay locked for ever in the new process.

    With one thread of OpenMP, whose own threads do not survive a fork.
    """
    script = """
import os, threading
from semcut.indexes.storage.store import Store
importing, forking = threading.Event(), threading.Event()
class Slow:
    def find_spec(self, name, *rest):
        if name == "numba.core.dispatcher":
            importing.set()
            forking.wait()
sys.meta_path.insert(0, Slow())
index = FaissIndex(Store.create(None, config), "auto", "cpu")
index.add(records)
first = answer(index)
importing.wait()
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
    out, _ = printed(cache, script, OMP_NUM_THREADS="1")
    assert out == ["both"]
