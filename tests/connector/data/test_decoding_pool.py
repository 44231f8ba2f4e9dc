"""Images are decoded in other processes: what happens in one of them, or to one of them, costs one image a reason."""

from __future__ import annotations

import gzip
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semcut.connector.data import decoding_pool, images
from semcut.connector.data.decoding_messages import ANSWER, HELLO, MAX_PIXELS, Outcome, Wanted, is_possible
from semcut.connector.data.decoding_pool import DecodingPool, Limits
from semcut.connector.data.images import (
    PassingReason,
    UnreadableImage,
    check_image,
    fitted_pixels,
    image_within,
    open_image,
    read_batches,
    stated_size,
)
from semcut.indexes.errors import DataError

LINUX = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="there is no /proc/self/status to look at processes with"
)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[DecodingPool]:
    """A pool of its own for the functions of `images`."""
    found = DecodingPool()
    monkeypatch.setattr(images, "POOL", found)
    yield found
    found.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A plain BMP file whose pixels are decoded in Python, for many seconds: it runs over the end of one line."""
    header = np.array([0, 0, 1078, 40, 9, 9, 1 | 8 << 16, 1, 0, 0, 0, 256, 0], "<u4").tobytes()
    (tmp_path / "endless.bmp").write_bytes(b"BM" + header + bytes(1024) + b"\1\1" * (1 << 25))
    return tmp_path / "endless.bmp"


def processes(pool: DecodingPool) -> list[int]:
    return sorted(worker.process.pid for worker in pool._all)


def wait_until_gone(*pids: int) -> None:
    """Wait until processes have ended, though nobody may have asked for their status."""
    deadline = time.monotonic() + 30
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # it ends between two looks
            while ") Z" not in Path(f"/proc/{pid}/stat").read_text():
                assert time.monotonic() < deadline
                time.sleep(0.01)


def wait_until_busy(pool: DecodingPool) -> int:
    """Wait until the one process of a pool decodes something; return its id."""
    while not (pool._all and (pid := processes(pool)[0]) and seconds_of(pid) > 0.4):
        time.sleep(0.01)
    return pid


def seconds_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_every_kind_of_answer_is_what_pillow_makes_of_the_file(photo: Path):
    picture = Image.open(photo)
    assert np.array_equal(open_image(photo), picture)
    assert np.array_equal(fitted_pixels(photo, 20), images.fit(picture, 20))
    assert stated_size(photo) == picture.size
    check_image(photo)
    small = image_within(photo, 30)
    picture.thumbnail((30, 30))
    assert np.array_equal(small, picture)


@pytest.mark.parametrize("kind", ["stream", "writable", "compressed", "pipe"])
def test_a_stream_of_any_kind_is_read_and_stays_open(kind: str, photo: Path):
    content = photo.read_bytes()
    if kind == "stream":
        stream = photo.open("rb")
        stream.seek(7)
    elif kind == "writable":
        stream = photo.open("r+b")
    else:
        stream = gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(content)))
    with stream:
        assert open_image(stream).size == (90, 60)
        assert not stream.closed
    assert photo.read_bytes() == content


def test_a_process_is_kept_for_the_next_image(pool: DecodingPool, photo: Path):
    open_image(photo)
    (first,) = processes(pool)
    with pytest.raises(UnreadableImage, match="not an image"):
        open_image(io.BytesIO(b"text"))
    open_image(photo)
    assert processes(pool) == [first]


@LINUX
def test_a_process_loads_little_and_has_limits(pool: DecodingPool, photo: Path):
    open_image(photo)
    (pid,) = processes(pool)
    assert "torch" not in (maps := Path(f"/proc/{pid}/maps").read_text())
    assert "faiss" not in maps
    assert int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) < 60_000
    limits = Path(f"/proc/{pid}/limits").read_text()
    for name, most in (("core file size", 0), ("file size", 0), ("open files", 16), ("address space", 1 << 30)):
        assert int(re.search(rf"Max {name}\s+(\d+)", limits)[1]) <= most
    assert len(os.listdir(f"/proc/{pid}/fd")) == 4
    ignored = int(re.search(r"SigIgn:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())[1], 16)
    assert ignored & 1 << signal.SIGINT - 1


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_process_that_dies_costs_one_image_a_reason(number: int, pool: DecodingPool, photo: Path, endless: Path):
    limits = Limits(1 << 28, 1 << 28)
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(fitted_pixels, endless, 8, limits)
        os.kill(wait_until_busy(pool), number)
        with pytest.raises(UnreadableImage, match=rf"its decoder has ended \({signal.Signals(number).name}\)") as error:
            future.result(30)
    assert isinstance(error.value.reason, PassingReason)
    assert processes(pool) == []
    assert fitted_pixels(photo, 8).shape == (3, 8, 8)


@LINUX
def test_a_process_that_died_while_nothing_used_it_costs_no_image(pool: DecodingPool, photo: Path):
    open_image(photo)
    (pid,) = processes(pool)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    assert open_image(photo).size == (90, 60)
    assert len(processes(pool)) == 1


def test_an_image_that_takes_long_is_refused(pool: DecodingPool, photo: Path, endless: Path):
    with pytest.raises(UnreadableImage, match=r"^takes more than 0\.2 s of processor time to decode$") as error:
        fitted_pixels(endless, 8, Limits(seconds=0.2))
    assert isinstance(error.value.reason, PassingReason)
    assert fitted_pixels(photo, 8).shape == (3, 8, 8)


@LINUX
def test_a_process_that_is_stopped_is_not_waited_for(pool: DecodingPool, photo: Path):
    open_image(photo)
    (pid,) = processes(pool)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(UnreadableImage, match=r"^takes more than 0\.6 s to decode$") as error:
        fitted_pixels(photo, 8, Limits(seconds=0.1))
    assert isinstance(error.value.reason, PassingReason)
    wait_until_gone(pid)


@LINUX
def test_an_image_that_takes_much_memory_is_decoded_alone(pool: DecodingPool, tmp_path: Path):
    Image.new("RGB", (2000, 2000)).save(tmp_path / "a.png")
    limits = Limits(first=10 << 20, most=1 << 28)
    pool._large.acquire()
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(fitted_pixels, tmp_path / "a.png", 8, limits)
        Image.new("RGB", (20, 20)).save(tmp_path / "b.png")
        assert fitted_pixels(tmp_path / "b.png", 8, limits).shape == (3, 8, 8)
        assert not future.done()
        pool._large.release()
        assert future.result(30).shape == (3, 8, 8)
    with pytest.raises(UnreadableImage, match=r"^takes more than 20,000,000 bytes of memory to decode$") as error:
        fitted_pixels(tmp_path / "a.png", 8, Limits(10 << 20, 20_000_000))
    assert isinstance(error.value.reason, PassingReason)


@LINUX
def test_a_process_keeps_no_memory_of_an_image(pool: DecodingPool, tmp_path: Path):
    Image.new("RGB", (4000, 4000)).save(tmp_path / "a.jpg", progressive=True)
    Image.new("L", (6000, 6000)).save(tmp_path / "b.tif", compression="packbits")
    with (tmp_path / "b.tif").open("ab") as stream:
        stream.write(bytes(50 << 20))  # Pillow keeps what it has read
    for name in ("a.jpg", "b.tif"):
        fitted_pixels(tmp_path / name, 8)
        (pid,) = processes(pool)
        deadline = time.monotonic() + 10
        while own_kilobytes(pid) > 40_000 and time.monotonic() < deadline:  # it answers before it clears up
            time.sleep(0.01)
        assert own_kilobytes(pid) < 40_000


def own_kilobytes(pid: int) -> int:
    return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def test_answers_that_nobody_asked_for_are_not_believed():
    assert is_possible((Outcome.DECODED, 8, 8, 192), Wanted.FIT, 8)
    assert is_possible((Outcome.REFUSED, 0, 0, 9), Wanted.FIT, 8)
    for answer, wanted in (
        ((Outcome.DECODED, 8, 8, 193), Wanted.FIT),
        ((Outcome.DECODED, 9, 9, 243), Wanted.FIT),
        ((Outcome.DECODED, 9, 8, 216), Wanted.WITHIN),
        ((Outcome.DECODED, 0, 8, 0), Wanted.WITHIN),
        ((Outcome.DECODED, 8, 8, 1), Wanted.CHECK),
        ((Outcome.DECODED, MAX_PIXELS, 2, 6 * MAX_PIXELS), Wanted.WHOLE),
        ((Outcome.DECODED, 1 << 14, 1 << 13, 3 << 27), Wanted.WHOLE),
        ((Outcome.REFUSED, 0, 0, 1 << 40), Wanted.WHOLE),
        ((9, 8, 8, 192), Wanted.FIT),
    ):
        assert not is_possible(answer, wanted, 8), answer


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER.pack(Outcome.DECODED, 8, 8, 1 << 60),
        ANSWER.pack(Outcome.DECODED, 1 << 30, 8, 192) + bytes(192),
        ANSWER.pack(Outcome.REFUSED, 0, 0, 1 << 50),
        ANSWER.pack(77, 8, 8, 192) + bytes(192),
        bytes(range(7, 71)),
        b"\1",
    ],
    ids=["long", "wide", "long reason", "unknown", "noise", "short"],
)
def test_a_process_that_was_taken_over_cannot_harm_this_one(answer, pool, photo, monkeypatch):
    """One that says nonsense is ended, and the image gets a reason; no memory is taken for it."""
    program = (
        "import os, socket, sys; parent = socket.socket(fileno=int(sys.argv[1])); "
        f"parent.sendall({HELLO!r}); socket.recv_fds(parent, 99, 1); parent.sendall({answer!r}); os._exit(3)"
    )
    monkeypatch.setattr(decoding_pool, "_PROGRAM", program)
    with pytest.raises(UnreadableImage, match=r"its decoder has ended \((its decoder gave|status 3)"):
        fitted_pixels(photo, 8)
    assert processes(pool) == []


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import nothing_like_this", "No module named 'nothing_like_this'"),
        ("import os; os._exit(5)", "it ended with status 5"),
    ],
)
def test_a_process_that_does_not_start_is_one_error(program, reason, pool, photo, monkeypatch):
    monkeypatch.setattr(decoding_pool, "_PROGRAM", program)
    with pytest.raises(DataError, match=f"cannot start the process that decodes images .*{reason}"):
        open_image(photo)
    monkeypatch.setattr(sys, "executable", str(photo))
    with pytest.raises(DataError, match=r"cannot start the process that decodes images .*photo\.png\): Permission"):
        list(read_batches([str(photo)], 8, 8))


def test_a_process_that_is_killed_at_its_start_is_started_once_more(pool, photo, tmp_path, monkeypatch):
    killed = "import os; os.kill(os.getpid(), 9)"
    once = f"import os; os.path.exists({str(tmp_path / 'a')!r}) or (os.mkdir({str(tmp_path / 'a')!r}), {killed[11:]})"
    monkeypatch.setattr(decoding_pool, "_PROGRAM", f"{once}; {decoding_pool._PROGRAM}")
    assert fitted_pixels(photo, 8).shape == (3, 8, 8)
    assert (tmp_path / "a").exists()
    pool.end_idle(0)
    monkeypatch.setattr(decoding_pool, "_PROGRAM", killed)
    with pytest.raises(DataError, match=r"cannot start the process that decodes images .*it ended with SIGKILL"):
        fitted_pixels(photo, 8)


def test_many_threads_share_the_processes(pool: DecodingPool, tmp_path: Path):
    for number in range(50):
        Image.new("RGB", (5 + number, 5), (number, 0, 0)).save(tmp_path / f"{number}.png")
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(open_image, [tmp_path / f"{number % 50}.png" for number in range(400)]))
    assert [image.size[0] for image in found] == [5 + number % 50 for number in range(400)]
    assert [image.getpixel((0, 0))[0] for image in found] == [number % 50 for number in range(400)]
    assert len(processes(pool)) <= 6


def test_read_batches_leaves_no_more_processes_than_cores(pool, photo, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    (batch,) = read_batches([str(photo)] * 20, 8, 20, 3)
    assert len(batch.positions) == 20
    assert len(processes(pool)) <= 1


@LINUX
def test_a_forked_child_starts_its_own_processes(photo: Path):
    """And its parent's end when the parent does, though the child still runs."""
    program = f"""
import os, signal, sys
from semcut.connector.data.decoding_pool import POOL
from semcut.connector.data.images import open_image
open_image({str(photo)!r})
pids = lambda: [worker.process.pid for worker in POOL._all]
before = pids()
if not os.fork():
    assert open_image({str(photo)!r}).size == (90, 60)
    assert pids() != before and len(pids()) == 1
    print(*pids(), flush=True)
    sys.stdin.read()
    os._exit(0)
print(*before, flush=True)
signal.pause()
"""
    with running(program) as process:
        child, parent = sorted((int(process.stdout.readline()) for _ in range(2)), reverse=True)
        process.kill()
        process.wait(30)
        wait_until_gone(parent)
        assert os.path.exists(f"/proc/{child}")
        process.stdin.close()
        wait_until_gone(child)


def running(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


DECODES = """
import sys, threading
from semcut.connector.data.decoding_pool import POOL, Limits
from semcut.connector.data.images import open_image, fitted_pixels
threading.Thread(target=lambda: fitted_pixels(sys.argv[1], 8), daemon=True).start()
def tell():
    workers = []
    while not [worker for worker in workers if worker._ready]:
        try: workers = list(POOL._all)
        except RuntimeError: pass  # a process was started meanwhile
    print(*[worker.process.pid for worker in workers], flush=True)
threading.Thread(target=tell).start()
"""


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_ends_with_its_parent_also_inside_a_decoder(number: int, endless: Path):
    """A file on which it would work for many seconds: no process is left, however the parent ends."""
    program = DECODES.replace("sys.argv[1]", repr(str(endless))) + f"open_image({str(endless)!r})"
    with running(program) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert pids
        while not all(seconds_of(pid) > 0.3 for pid in pids):
            time.sleep(0.01)
        start = time.monotonic()
        process.send_signal(number)
        errors = process.communicate(timeout=30)[1]
        wait_until_gone(*pids)
        assert time.monotonic() < start + 10
        assert process.returncode == -number, errors
        assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)


@LINUX
def test_ctrl_c_at_any_moment_spoils_no_image_and_leaves_no_process(photo: Path):
    program = f"""
import os, signal, subprocess, threading, time
from semcut.connector.data.decoding_pool import POOL
from semcut.connector.data.images import fitted_pixels
left, expected = 40, fitted_pixels({str(photo)!r}, 8).tobytes()
def interrupt():
    global left
    while left:
        time.sleep(left % 7 / 1000)
        os.kill(os.getpid(), signal.SIGINT)
        left -= 1
threading.Thread(target=interrupt, daemon=True).start()
while True:
    try:
        while left or signal.SIGINT in signal.sigpending():
            assert fitted_pixels({str(photo)!r}, 8).tobytes() == expected
        time.sleep(0.2)
        break
    except KeyboardInterrupt:
        pass
assert fitted_pixels({str(photo)!r}, 8).tobytes() == expected
deadline = time.monotonic() + 20
def children():
    ps = ["ps", "-o", "pid=", "--ppid", str(os.getpid())]
    return len(subprocess.run(ps, capture_output=True, text=True).stdout.split()) - 1  # without ps itself
# one that was being started ends when it has started
while not children() == len(POOL._all) == len(POOL._idle) and time.monotonic() < deadline:
    time.sleep(0.05)
    fitted_pixels({str(photo)!r}, 8)  # waits for processes that have ended
print(children() == len(POOL._all) == len(POOL._idle))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


@LINUX
def test_a_program_that_ends_leaves_no_process(photo: Path):
    program = f"""
from semcut.connector.data.decoding_pool import POOL
from semcut.connector.data.images import open_image
open_image({str(photo)!r})
print(*[worker.process.pid for worker in POOL._all])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert not os.path.exists(f"/proc/{int(done.stdout)}")


def test_modules_of_the_working_directory_are_not_loaded(tmp_path: Path, photo: Path):
    for name in ("numpy", "PIL", "struct", "semcut", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('wrong module')")
    program = f"""
import os, sys
from semcut.connector.data.images import open_image
os.chdir({str(tmp_path)!r})
sys.path.insert(0, "")
os.environ["PYTHONPATH"] = {str(tmp_path)!r}
print(open_image({str(photo)!r}).size)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("(90, 60)\n", "")


def test_a_reader_that_is_interrupted_waits_for_no_image(pool, photo, endless):
    batches = read_batches([*[str(photo)] * 4, *[str(endless)] * 40], 8, 4, 2)
    assert len(next(batches).positions) == 4
    start = time.monotonic()
    batches.close()
    assert time.monotonic() < start + 5
    pool.close()
    for thread in threading.enumerate():
        if thread.name == "decoding":
            thread.join(30)
            assert not thread.is_alive()


def test_a_file_that_becomes_shorter_while_it_is_read_is_a_reason(tmp_path: Path, pool):
    path = tmp_path / "a.tif"
    noise = np.random.default_rng(0).integers(0, 255, (500, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, compression="tiff_adobe_deflate")
    with path.open("rb") as stream:
        os.truncate(path, 4096)
        with pytest.raises(UnreadableImage, match="broken image"):
            open_image(stream)


def test_the_two_ends_are_sockets_that_no_other_program_inherits(pool: DecodingPool, photo: Path):
    open_image(photo)
    (worker,) = pool._all
    assert not os.get_inheritable(worker.socket.fileno())
    assert worker.socket.family == socket.AF_UNIX


def test_a_process_that_another_thread_starts_meanwhile_is_not_lost(pool: DecodingPool) -> None:
    class Process:
        def __init__(self, ended: bool) -> None:
            self.ended = ended

        def poll(self) -> int | None:
            if self.ended:
                pool._started.add(new)  # as another thread does between two steps of this one
            return 0 if self.ended else None

    new: Any = Process(False)
    ended: Any = Process(True)
    pool._started.add(ended)
    pool._end(pool._take())
    assert new in pool._started
    assert ended not in pool._started
    pool._started.discard(new)
