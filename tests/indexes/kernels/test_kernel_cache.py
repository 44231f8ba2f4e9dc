"""Kernels are compiled in the background, once for all processes of a machine; searches do not wait for that.

The behaviour of new processes is tested in new processes, each with a cache of its own. One cache is filled as it is
for a user, by a process that a search starts; the other tests get copies of this cache. A test in which no process may
compile holds the lock of the directory.

Compiling all kernels takes half a minute, much longer at the lowest priority. So the process that compiles is lent
those that these tests use, as soon as it is known that it compiles; it compiles what it needs until then. `semcut
warmup`, which every run of tests starts with, compiles all in the same way. Thorough tests lend none.
"""

from __future__ import annotations

import ast
import fcntl
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut import indexes
from semcut.indexes import FaissIndex, IndexConfig
from semcut.indexes.errors import install_hint
from semcut.indexes.kernels import kernel_cache
from semcut.indexes.scanners.engine_names import available_engines
from tests.command import SEMCUT
from tests.indexes.generate import classified
from tests.indexes.kernels.processes import (
    PRELUDE,
    ROOT,
    SECONDS,
    compiling,
    directory_in,
    environment,
    first_line,
    killed_at_the_end,
    read_terminal,
    wait_for_lock,
)
from tests.made_once import made_once
from tests.thorough import THOROUGH

if "compiled" not in available_engines():
    pytest.skip("numba is not installed", allow_module_level=True)

CONFIG = IndexConfig(classes=10, bits=64, dim=8)

SEARCH_BEFORE_AND_AFTER = """
index = FaissIndex.create(None, config)
index.add(records)
first = answer(index)
print(engine(index), "numba" in sys.modules, flush=True)
if sys.stdin.readline():  # the kernels are compiled now
    second = answer(index)
    while engine(index) == "IvfScanner":
        assert answer(index) == first
    print(engine(index), answer(index) == first == second)
"""


def start_cold(place: Path) -> None:
    """Store the output of three processes that search before kernels are compiled; two of the processes end soon."""
    cache = place / "kernels"
    with killed_at_the_end() as started:
        searching = [started.start(cache, SEARCH_BEFORE_AND_AFTER) for _ in range(3)]
        first = [first_line(process) for process in searching]
        (worker,) = compiling(cache)
        about = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()
        for process in searching[1:]:
            process.communicate("", timeout=SECONDS)
        still = compiling(cache) == [worker]
        if not THOROUGH:
            lend_kernels(directory_in(cache))
        wait_for_lock(directory_in(cache) / "lock", 3 * SECONDS)
        last, errors = searching[0].communicate("compiled\n", timeout=SECONDS)
        found = {
            "first": first,
            "last": last,
            "errors": errors,
            "terminal": int(about[4]),
            "nice": int(about[16]),
            "outlived": still and all(process.returncode == 0 for process in searching),
        }
        (place / "found.json").write_text(json.dumps(found))


def lend_kernels(directory: Path) -> None:
    """Copy all kernels, but not the mark that they are complete, into a directory that a process fills."""
    ready = kernel_cache.ready_directory()
    assert ready is not None
    for file in ready.glob("*.nb?"):
        written = Path(shutil.copy(file, directory / f"{file.name}.lent"))
        written.replace(directory / file.name)  # at once: the process may be reading


@pytest.fixture(scope="session")
def cold_start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what `start_cold` found, and the cache that was filled meanwhile."""
    place = made_once(tmp_path_factory, "cold", start_cold)
    return {**json.loads((place / "found.json").read_text()), "cache": place / "kernels"}


@pytest.fixture
def cache(cold_start: dict[str, Any], tmp_path: Path) -> Path:
    """Return a directory with all kernels."""
    return Path(shutil.copytree(cold_start["cache"], tmp_path / "cache"))


@pytest.fixture
def incomplete(cache: Path) -> Iterator[Path]:
    """Return a directory without one small kernel, into which no process starts to compile."""
    directory = directory_in(cache)
    missing = list(directory.glob("lists_numba.append-*"))
    assert missing
    for file in (directory / "complete", *missing):
        file.unlink()
    with open(directory / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield cache


def test_the_first_search_on_a_machine_is_answered_at_once_without_numba(cold_start):
    assert cold_start["first"] == ["IvfScanner False\n"] * 3


def test_one_process_compiles_for_all_detached_at_the_lowest_priority(cold_start):
    assert (cold_start["terminal"], cold_start["nice"]) == (0, 19)
    assert cold_start["outlived"]
    assert directory_in(cold_start["cache"]).joinpath("complete").is_file()


def test_an_open_index_moves_to_the_kernels_that_are_ready_and_answers_the_same(cold_start):
    assert cold_start["last"] == "NumbaScanner True\n"
    assert cold_start["errors"] == ""


def test_with_all_kernels_ready_no_search_and_no_change_compiles_anything(cache, processes, tmp_path):
    """Indexes are in memory or stored, with codes of one or many words, few or many classes, and arrays of any kind."""
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
assert len(jit.KERNELS) >= 5 and all(len(each.signatures) == 1 for each in jit.KERNELS)
print([details["dispatcher"] for _, details in compiled.buffer] if compiled.buffer else "nothing")
"""
    assert processes.output(cache, script) == (["nothing"], "")


def test_the_digest_covers_every_module_that_a_kernel_takes_a_constant_from():
    """Constants and named tuples are compiled into kernels: after a change to them kernels must be compiled again."""
    here = Path(indexes.__file__).parent
    kernels = {file.relative_to(here).as_posix() for file in here.glob("*/*_numba.py")}
    assert len(kernels) == 12
    for file in map(here.joinpath, kernels):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and any(name.name.isupper() for name in node.names):
                module = str(node.module).removeprefix("semcut.indexes.").replace(".", "/") + ".py"
                assert module in {*kernel_cache._SOURCES, *kernels}, file
    assert all((here / source).is_file() for source in kernel_cache._SOURCES)


def test_kernels_are_not_ready_when_one_of_their_files_is_missing(incomplete, processes):
    directory = directory_in(incomplete)
    script = "index = FaissIndex.create(None, config)\nindex.add(records)\nanswer(index)\nprint(engine(index))"
    assert processes.output(incomplete, script) == (["IvfScanner"], "")
    (directory / "complete").write_text(json.dumps({"lists_numba.append-1.nbi": 7}))
    assert processes.output(incomplete, script) == (["IvfScanner"], "")
    assert compiling(incomplete) == []


def test_a_process_that_compiles_longer_than_another_leaves_what_that_one_has_completed(cache, processes):
    directory = directory_in(cache)
    script = """
from semcut.indexes.kernels import jit
jit._Cache.load_overload = lambda *_: None  # as for a process that began before the other one had stored anything
from semcut.indexes.scanners.lists_numba import move
from semcut.indexes.scanners.scan_numba import CodeLists
numbers = np.zeros(1, np.int64)
lists = CodeLists(np.zeros((1, 1), np.uint64), np.zeros(1, np.int32), numbers, numbers)
move(lists, numbers, numbers, lists, numbers, numbers)
print(sum(move.stats.cache_misses.values()))
"""
    before = {file.name: file.stat().st_mtime_ns for file in directory.iterdir()}
    assert processes.output(cache, script) == (["1"], "")
    assert {file.name: file.stat().st_mtime_ns for file in directory.iterdir()} == before


def test_warmup_compiles_what_is_missing_and_says_so(incomplete):
    def warmup() -> str:
        done = subprocess.run(
            [SEMCUT, "warmup"], env=environment(incomplete), capture_output=True, text=True, timeout=SECONDS
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert re.fullmatch(rf"Search kernels were compiled in \d+ s, into {directory_in(incomplete)}\.\n", warmup())
    assert warmup() == f"Search kernels are ready in {directory_in(incomplete)}.\n"


def test_the_compiled_engine_by_name_is_compiled_at_once_which_a_terminal_shows(incomplete, processes):
    script = "print(engine(FaissIndex.create(None, config)), kernel_cache.ready_directory() is not None)"
    ours, theirs = pty.openpty()
    process = processes.start(incomplete, script, errors=theirs, SEMCUT_ENGINE="compiled", TERM="xterm")
    os.close(theirs)
    shown = read_terminal(ours)
    assert process.communicate(timeout=SECONDS)[0] == "NumbaScanner True\n"
    assert b"Compiling search kernels" in shown


def test_without_a_terminal_nothing_is_shown(incomplete, processes):
    script = (
        'print(engine(FaissIndex.create(None, config, engine="compiled")), kernel_cache.ready_directory() is not None)'
    )
    assert processes.output(incomplete, script) == (["NumbaScanner True"], "")


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_kernels_are_used_from_a_directory_that_cannot_be_written_to(cache):
    directory_in(cache).chmod(0o555)
    process = subprocess.run(
        ["setpriv", *(["--bounding-set=-all"] if os.geteuid() == 0 else []), sys.executable, "-c",
         f"{PRELUDE}\nassert kernel_cache.writable_directory() is None\nindex = FaissIndex.create(None, config)\n"
         "index.add(records)\nanswer(index)\nfrom semcut.indexes.search.search_numba import search\n"
         "print(engine(index), sum(search.stats.cache_misses.values()))"],
        capture_output=True, text=True, env=environment(cache), cwd=ROOT, timeout=SECONDS,
    )  # fmt: skip
    assert (process.stdout, process.stderr) == ("NumbaScanner 0\n", "")


UNWRITABLE = (
    r"compiled search kernels cannot be stored, \S+ cannot be written to: set NUMBA_CACHE_DIR to a writable directory"
)


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """Return a directory that cannot be created."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "cache"


def test_where_nothing_can_be_kept_one_warning_says_so_and_faiss_answers(unwritable, processes):
    script = """
for _ in range(2):
    index = FaissIndex.create(None, config)
    index.add(records)
    answer(index), answer(index)
    print(engine(index), index._switch, "numba" in sys.modules)
"""
    out, err = processes.output(unwritable, script)
    assert out == ["IvfScanner None False"] * 2
    assert len(re.findall("KernelCacheWarning", err)) == 1
    assert re.search(f"KernelCacheWarning: {UNWRITABLE}; FAISS scans instead", err)


def test_commands_report_it_in_one_line(unwritable, processes, tmp_path):
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
        capture_output=True, text=True, env=environment(unwritable), cwd=ROOT, timeout=SECONDS,
    )  # fmt: skip
    assert process.returncode == 0
    assert re.fullmatch(f"semcut: {UNWRITABLE}; FAISS scans instead, several times slower\n", process.stderr)
    warmup = subprocess.run(
        [SEMCUT, "warmup"], env=environment(unwritable), capture_output=True, text=True, timeout=SECONDS
    )
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
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(tmp_path), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 1
    hint = install_hint("fast")
    assert done.stderr == f"semcut: numba is not installed, which the compiled engine needs: {hint}\n"
