"""Whatever happens to a folder, and whenever a `sync` is killed, the next makes the index that is made from scratch.

Each round changes the folder at random, starts some processes that sync it and are interrupted at random moments, syncs
once more, and compares every record with the encoding of the content that its file has now.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut.connector import Connector
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval import file_records
from semcut.indexes import Encodings, FaissIndex
from semcut.indexes.storage.directory import FACTS, MARK
from semcut.indexes.unfinished import unfinished

CONTENTS, CLASSES, LONG_AGO = 40, "abcd", 1_600_000_000_000_000_000
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["semcut.connector.retrieval.image_index", "tests.connector.retrieval.test_sync_property"]
)


def sync_until(index: Path, signals: int, at_sync: int | None, seconds: float) -> None:
    """Sync an index in a process that sends itself a signal at the n-th time that something is forced to the disk."""
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    file_records.RECORDS_PER_COMMIT = 3
    left = at_sync
    fsync = os.fsync

    def counted(handle: Any) -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signals)
        fsync(handle)

    os.fsync = counted
    if at_sync is None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signals))
    with Connector.open(index) as connector:
        connector.sync()


class Folder:
    """A folder of images, changed at random, and what is in it: the number of the content of each file, by its path."""

    def __init__(self, path: Path, contents: list[bytes], rng: random.Random) -> None:
        self.path, self._contents, self._rng = path, contents, rng
        self.files: dict[str, int] = {}
        self._clock = 0
        for _ in range(12):
            self.create()

    def _new_name(self) -> str:
        folder = self._rng.choice(CLASSES) + self._rng.choice(["", "", "/deep", "/deep/er"])
        return f"{folder}/{self._rng.randrange(10**6):06d}.png"

    def _touch(self, name: str) -> None:
        """Give a file a time that it never had, long ago or now."""
        self._clock += 1
        when = LONG_AGO if self._rng.random() < 0.8 else time.time_ns()
        os.utime(self.path / name, ns=(when, when + 1000 * self._clock))

    def _write(self, name: str, content: int) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self._contents[content])
        self._touch(name)
        self.files[name] = content

    def create(self) -> None:
        self._write(self._new_name(), self._rng.randrange(CONTENTS))

    def change(self) -> None:
        self._write(self._some(), self._rng.randrange(CONTENTS))

    def delete(self) -> None:
        name = self._some()
        (self.path / name).unlink()
        del self.files[name]

    def move(self) -> None:
        old, new = self._some(), self._new_name()
        (self.path / new).parent.mkdir(parents=True, exist_ok=True)
        (self.path / old).rename(self.path / new)
        self.files[new] = self.files.pop(old)

    def exchange(self) -> None:
        one, other = self._some(), self._some()
        if one != other:
            first, second = self.files[one], self.files[other]
            self._write(one, second)
            self._write(other, first)

    def touch(self) -> None:
        self._touch(self._some())

    def copy(self) -> None:
        old, new = self._some(), self._new_name()
        (self.path / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(self.path / old, self.path / new)
        self.files[new] = self.files[old]

    def spoil(self) -> None:
        name = self._some()
        (self.path / name).write_bytes(b"no image" + os.urandom(5))
        self._touch(name)
        del self.files[name]

    def move_folder(self) -> None:
        old, new = self._some().partition("/")[0], f"{self._rng.choice(CLASSES)}/{self._rng.randrange(10**6)}"
        if old != new.partition("/")[0]:
            (self.path / new).parent.mkdir(exist_ok=True)
            (self.path / old).rename(self.path / new)
            moved = {name for name in self.files if name.startswith(f"{old}/")}
            self.files |= {name.replace(old, new, 1): self.files.pop(name) for name in moved}

    def _some(self) -> str:
        return self._rng.choice(sorted(self.files))

    def step(self) -> None:
        kinds = [self.create, self.create, self.change, self.delete, self.move, self.exchange, self.touch, self.copy,
                 self.spoil, self.move_folder]  # fmt: skip
        kind = self._rng.choice(kinds)
        if len(self.files) < 4:
            kind = self.create
        elif len(self.files) > 60:
            kind = self.delete
        kind()


@pytest.fixture(scope="module")
def expected(model: Checkpoint, digits: ImageSet) -> tuple[list[bytes], Encodings]:
    """Return contents of files, and the record of each as a new index has it."""
    chosen = digits.sample(CONTENTS, seed=3).files
    with Connector.create(None, model.path) as connector:
        connector.add_files(chosen)
        records = connector.index.get(np.arange(CONTENTS))
    contents = [Path(file).read_bytes() for file in chosen]
    assert len(set(contents)) == CONTENTS
    return contents, records


def check(index: Path, folder: Folder, records: Encodings) -> None:
    """Compare an index with one that would be made of the folder now."""
    with FaissIndex.open(index, engine="faiss") as opened:
        found = opened.get(opened.ids())
        assert opened.verify() == []
    assert sorted(map(str, found.uris or ())) == sorted(folder.files)
    same = records[np.array([folder.files[str(uri)] for uri in found.uris or ()], np.int64)]
    np.testing.assert_allclose(found.features, same.features, atol=2e-3)
    np.testing.assert_allclose(found.probabilities, same.probabilities, atol=1e-3)
    assert np.bitwise_count(found.codes ^ same.codes).sum(axis=1).max(initial=0) <= 2
    assert not (index / MARK).exists()
    assert unfinished(index, len(found)) is None


def run(seed: int, rounds: int, expected: tuple[list[bytes], Encodings], model: Checkpoint, place: Path) -> int:
    """Run some rounds; return how many processes were interrupted."""
    rng = random.Random(seed)
    contents, records = expected
    folder, index = Folder(place / "photos", contents, rng), place / "index"
    with Connector.create(index, model.path, roots=[folder.path]) as connector:
        connector.add_files([folder.path / name for name in folder.files])
    interrupted = 0
    ids: dict[str, int] = {}
    for _ in range(rounds):
        before = dict(folder.files)
        for _ in range(rng.randrange(1, 9)):
            folder.step()
        for _ in range(rng.choice([0, 1, 1, 2])):
            signals = rng.choice([signal.SIGKILL, signal.SIGINT])
            at_sync = rng.choice([None, rng.randrange(1, 12), rng.randrange(1, 60)])
            process = PROCESSES.Process(target=sync_until, args=(index, signals, at_sync, rng.uniform(0.02, 0.6)))
            process.start()
            process.join(60)
            assert process.exitcode in (0, 1, -signals)
            interrupted += process.exitcode != 0
            if rng.random() < 0.3:
                folder.step()
        with Connector.open(index) as connector:
            connector.sync()
            again = connector.sync()
            assert (again.unchanged, again.encoded, again.added, again.removed) == (len(folder.files), 0, 0, 0)
            now = dict(zip(sorted(folder.files), connector.ids_of(
                [folder.path / name for name in sorted(folder.files)]).tolist(), strict=True))  # fmt: skip
        check(index, folder, records)
        for name in before.keys() & folder.files.keys() & ids.keys():
            if before[name] == folder.files[name]:
                assert now[name] == ids[name]
        ids = now
    assert (index / FACTS).stat().st_size < 1 << 20
    return interrupted


@pytest.mark.filterwarnings("ignore:.*is unfinished")
def test_an_index_is_that_of_its_folder_whenever_a_sync_is_killed(
    expected: tuple[list[bytes], Encodings], model: Checkpoint, tmp_path: Path
) -> None:
    assert run(int.from_bytes(os.urandom(4)), 4, expected, model, tmp_path) >= 0


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*is unfinished")
@pytest.mark.parametrize("seed", range(4))
def test_an_index_is_that_of_its_folder_after_hundreds_of_kills(
    seed: int, expected: tuple[list[bytes], Encodings], model: Checkpoint, tmp_path: Path
) -> None:
    assert run(seed, 60, expected, model, tmp_path) > 20
