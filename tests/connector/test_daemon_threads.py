"""Calls in daemon threads keep nothing waiting: neither the end of a process, nor Ctrl-C of a command."""

from __future__ import annotations

import gc
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from semcut.connector.daemon_threads import DaemonThreads
from semcut.connector.data import image_contents
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.indexes import FaissIndex
from semcut.indexes.errors import SemcutWarning

RUNS_FOR_EVER = """
import atexit, threading
from semcut.connector.daemon_threads import DaemonThreads, leave
leave(5)
begun = threading.Event()
threads = DaemonThreads(1, "test")
threads.submit(lambda: begun.set() or threading.Event().wait())
begun.wait()
atexit.register(print, "at exit")
"""
DECODES_FOR_EVER = r"""
import os, threading
from semcut.connector.cli.app import main
from semcut.connector.data import image_contents
from semcut.connector.data.decoding_pool import DecodingPool

first = iter([b"begun\n"])  # one line alone: a second thread's could fall into what the command prints

def decode(*rest):
    os.write(2, next(first, b""))
    threading.Event().wait()

DecodingPool.ask = image_contents.digest_of = decode
main()
"""


Interrupted = Callable[..., "subprocess.CompletedProcess[str]"]


def ended(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_results_and_errors_come_back():
    threads = DaemonThreads(2, "test")
    assert [threads.submit(lambda n=n: n * n).result(30) for n in range(20)] == [n * n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 / 0).result(30)
    assert threads.submit(lambda: 3).result(30) == 3


def test_calls_that_wait_are_cancelled_and_the_threads_end():
    threads, begun, end = DaemonThreads(1, "stopped"), threading.Event(), threading.Event()
    runs = threads.submit(lambda: begun.set() or end.wait(30))
    waits = [threads.submit(lambda: 1) for _ in range(3)]
    assert begun.wait(30)
    threads.stop()
    assert all(future.cancelled() for future in waits)
    end.set()
    assert runs.result(30)
    join("stopped")


def test_threads_that_are_not_used_any_more_end():
    threads = DaemonThreads(3, "unused")
    threads.submit(lambda: 1).result(30)
    del threads
    gc.collect()
    join("unused")


def join(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(30)
            assert not thread.is_alive()


def test_a_process_ends_while_a_call_runs():
    done = ended(RUNS_FOR_EVER)
    assert (done.returncode, done.stdout, done.stderr) == (0, "at exit\n", "")


def test_leaving_ends_the_process_with_a_status_and_all_that_was_printed():
    done = ended(RUNS_FOR_EVER + "print('printed'); leave(3, 'because')")
    assert (done.returncode, done.stdout, done.stderr) == (3, "printed\nat exit\n", "because\n")


def ask(address: str) -> None:
    with suppress(httpx2.HTTPError):  # the server stops
        httpx2.get(address, timeout=60)


COMMANDS = r"""
import json, os, sys
import semcut.connector.explore.http_api
import semcut.connector.explore.service
import semcut.connector.retrieval.image_index
import semcut.connector.training.loop
import semcut.indexes.search.search_numba

for line in sys.stdin:
    script, arguments, errors = json.loads(line)
    if not (child := os.fork()):
        break
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    os._exit(0)
nothing = os.open(os.devnull, os.O_RDWR)
for mine, standard in ((nothing, 0), (nothing, 1), (os.open(errors, os.O_WRONLY), 2)):
    os.dup2(mine, standard)
sys.argv[1:] = arguments
exec(script)
"""


@pytest.fixture(scope="module")
def commands() -> Iterator[subprocess.Popen[str]]:
    """Give a process that has imported all commands. It forks one for each line; that ends as a new process does."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMANDS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        start_new_session=True,
    ) as process:
        yield process


@pytest.fixture
def interrupted(commands: subprocess.Popen[str], tmp_path: Path) -> Interrupted:
    """Return a function that runs a command in which no image is ever decoded, and interrupts the first decoding."""

    def run(arguments: Sequence[object], address: str = "") -> subprocess.CompletedProcess[str]:
        assert commands.stdin is not None
        os.mkfifo(tmp_path / "errors")
        line = [DECODES_FOR_EVER, [*map(str, arguments)], str(tmp_path / "errors")]
        commands.stdin.write(json.dumps(line) + "\n")
        process = int(printed(commands))
        with open(tmp_path / "errors") as errors:
            for line in errors:
                if found := re.search(address, line) if address else None:
                    threading.Thread(target=ask, args=(f"{found[0]}records/0/thumbnail",)).start()
                if line == "begun\n":
                    break
            os.kill(process, signal.SIGINT)
            status = printed(commands)
            rest = errors.read()
        assert "Traceback" not in rest
        return subprocess.CompletedProcess(arguments, int(status), None, rest)

    return run


def printed(commands: subprocess.Popen[str]) -> str:
    """Return the next line that the process prints, in time."""
    assert commands.stdout is not None
    if not select.select([commands.stdout], [], [], 30)[0]:
        os.killpg(commands.pid, signal.SIGKILL)
        pytest.fail("the command does not end")
    return commands.stdout.readline()


def test_ctrl_c_ends_index_while_images_are_decoded(
    interrupted: Interrupted, model: Checkpoint, digits: ImageSet, tmp_path: Path
):
    folder = Path(digits.files[0]).parents[1]
    done = interrupted(["index", folder, "--model", model.path, "--out", tmp_path / "new"])
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "Aborted!")
    with pytest.warns(SemcutWarning, match="is unfinished"):
        opened = FaissIndex.open(tmp_path / "new")
    with opened as index:
        assert len(index) == 0
        assert index.verify() == []


@pytest.mark.parametrize("command", ["train", "index"])
def test_ctrl_c_ends_a_command_while_it_looks_at_all_contents(
    command, interrupted, model: Checkpoint, digits: ImageSet, tmp_path
):
    folder, new = Path(digits.files[0]).parents[1], tmp_path / "new"
    index = ["index", folder, "--model", model.path, "--out", new, "--exclude-training"]
    done = interrupted(index if command == "index" else ["train", folder, "--out", new])
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "Aborted!")


def test_ctrl_c_ends_search_while_a_query_is_decoded(interrupted: Interrupted, stored: Path, digits: ImageSet) -> None:
    done = interrupted(["search", stored, digits.files[0]])
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "Aborted!")


def test_ctrl_c_ends_explore_while_an_image_is_decoded(interrupted: Interrupted, stored: Path):
    done = interrupted(["explore", stored, "--port", "0", "--no-browser"], r"http://\S+")
    assert done.returncode == 0, done.stderr


def test_nothing_that_was_received_is_readin_threads_that_python_waits_for():
    """An evaluation compares blocks of matrices, and a benchmark scans lists, in others: a second each at most."""
    root = Path(__file__).parents[2] / "connector"
    found = {
        str(path.relative_to(root)) for path in root.rglob("*.py") if "import ThreadPoolExecutor" in path.read_text()
    }
    assert found == {"evaluation/rankings.py", "benchmark/methods/argmax_lists.py"}


def test_digests_that_are_interrupted_wait_for_no_file(monkeypatch: pytest.MonkeyPatch):
    begun, end = threading.Semaphore(0), threading.Event()

    def work(file: str) -> str:
        begun.release()
        if file != "0":
            end.wait(30)
        return file

    found = image_contents.in_threads(work, [str(number) for number in range(100)], 1)
    try:
        assert next(found) == "0"
        assert begun.acquire(timeout=30)
        assert begun.acquire(timeout=30)
        found.close()
        assert not end.is_set()
        join_nothing = [thread for thread in threading.enumerate() if thread.name == "contents" and not thread.daemon]
        assert join_nothing == []
    finally:
        end.set()
    join("contents")
    assert not begun.acquire(blocking=False)
