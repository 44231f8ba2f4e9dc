"""Every call that touches the disk, made to fail in turn: python -m tests.indexes.faults FOLDER [MODE ...]

For each operation and each write, truncation, sync, rename, making or deletion of a file or directory, and SQLite
statement of it:

    error   the call fails
    late    the call is made, and an error reported all the same
    gone    the call is made, and an error reported, and all calls after it fail: nobody can tell what has happened
    stop    the call is made, and Ctrl-C comes
    kill    the process is killed before the call
    power   the process is killed before the call, and whatever was written and not synced is lost

After each, the store must hold all of the change or nothing of it (all of it if the call returned; nothing if it raised
an error, unless that is `gone` or `stop`), be sound, and take the next change. It runs as a process of its own, without
a second thread, because it forks; it works on `Store`, which is all of an index that touches the disk. Prints how many
calls each operation makes and how many of them were made to fail, as JSON. Quick tests let each call fail in one of the
ways, and the first, the last and those around a commit in every way; thorough ones let each fail in every way.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from semcut.indexes import NotAnIndexError, SemcutError
from semcut.indexes.storage.store import Store
from semcut.indexes.storage.verify import verify
from tests.indexes.story import CONFIG, records
from tests.thorough import THOROUGH

MODES = ("error", "late", "gone", "stop", "kill", "power")
CALLS = ("pwrite", "ftruncate", "fsync", "rename", "mkdir", "rmdir", "unlink")
BASE = records(np.arange(300), np.zeros(300))
BATCH = records(np.arange(300, 500), np.ones(200))
MIXED = records(np.arange(200, 400), np.ones(200))
LATER = records(np.arange(1000, 1300), np.full(300, 2))


class Faults:
    """Counts calls, and lets the n-th go wrong in one of the ways above; 0 for none."""

    def __init__(self, at: int = 0, mode: str = "error") -> None:
        self.count, self._at, self._mode = 0, at, mode
        self.commits: list[int] = []
        self._real = {name: getattr(os, name) for name in CALLS}
        self._connect = sqlite3.connect
        self._unsynced: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def __enter__(self) -> Faults:
        for name, real in self._real.items():
            setattr(os, name, self._wrapped(name, real))
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, *arguments):
                if arguments[0] == "COMMIT":
                    faults.commits.append(faults.count + 1)
                return faults.call(lambda: super(Connection, self).execute(*arguments), "sqlite")

            def executemany(self, *arguments):
                return faults.call(lambda: super(Connection, self).executemany(*arguments), "sqlite")

        sqlite3.connect = lambda *arguments, **options: self._connect(*arguments, factory=Connection, **options)
        return self

    def __exit__(self, *exception: object) -> None:
        self._at = 0
        for name, real in self._real.items():
            setattr(os, name, real)
        sqlite3.connect = self._connect

    def _wrapped(self, name: str, real: Callable) -> Callable:
        def call(*arguments, **options):
            done = self.call(lambda: real(*arguments, **options), name)
            if name == "pwrite":
                self._unsynced[arguments[0]].append((arguments[2], done))
            elif name == "fsync":
                self._unsynced.pop(arguments[0], None)
            return done

        return call

    def call(self, real: Callable, name: str) -> object:
        self.count += 1
        if self.count != self._at and not (self._mode == "gone" and 0 < self._at < self.count):
            return real()
        if self._mode in ("kill", "power"):
            if self._mode == "power":
                self._lose()
            os.kill(os.getpid(), signal.SIGKILL)
        if self._mode == "late" or (self._mode in ("gone", "stop") and self.count == self._at):
            real()
        if self._mode == "stop":
            raise KeyboardInterrupt
        raise sqlite3.OperationalError("disk I/O error") if name == "sqlite" else OSError(errno.EIO, os.strerror(5))

    def finish(self) -> None:
        """The operation has returned: what it wrote must be safe by now."""
        if self._mode == "power":
            self._lose()

    def _lose(self) -> None:
        for handle, ranges in self._unsynced.items():
            for offset, size in ranges:
                with suppress(OSError):  # closed meanwhile
                    self._real["pwrite"](handle, bytes(size), offset)


def add(store: Store, path: Path) -> None:
    store.begin()
    store.write(BATCH)


def upsert(store: Store, path: Path) -> None:
    store.begin()
    store.write(MIXED, np.arange(200, 300))


def remove(store: Store, path: Path) -> None:
    store.begin()
    store.write(None, np.array([0, 299, 100]))


def compact(store: Store, path: Path) -> None:
    store.begin()
    store.write(None, np.array([0, 299, 100]))
    store.compact()


def backup(store: Store, path: Path) -> None:
    store.backup(path.with_name("copy"), store.state)


def bulk(store: Store, path: Path) -> None:
    store._durability = "close"
    store.begin()
    store.write(BATCH)
    store.write(None, np.array([0, 299, 100]))
    store.flush()


def held(*parts: tuple[int, int, int]) -> dict[int, int]:
    """Ids from, to, and the change that wrote them."""
    return {number: change for start, stop, change in parts for number in range(start, stop)}


BEFORE = held((0, 300, 0))
GONE = {number: 0 for number in BEFORE if number not in (0, 299, 100)}
OPERATIONS: dict[Callable, list[dict[int, int]]] = {
    add: [BEFORE, held((0, 300, 0), (300, 500, 1))],
    upsert: [BEFORE, held((0, 200, 0), (200, 400, 1))],
    remove: [BEFORE, GONE],
    compact: [BEFORE, GONE],
    backup: [BEFORE],
    bulk: [BEFORE, {**GONE, **held((300, 500, 1))}],
}
"""What an operation may leave, the last being what it is to do."""


def content(store: Store) -> dict[int, int]:
    """What the store holds; that every record is whole is checked."""
    state = store.state
    rows = state.live
    ids = state.columns.ids[rows]
    changes = np.array([int(uri.split()[-1]) if uri else -1 for uri in state.columns.uris(rows)], np.int64)
    features = state.columns.raw()["features"][rows]
    for place in np.flatnonzero(changes < 0).tolist():  # no uri: the features tell
        changes[place] = np.flatnonzero((FEATURES[:, ids[place]] == features[place]).all(axis=1))[0]
    expected = records(ids, changes)
    for name in ("probabilities", "codes", "features"):
        assert np.array_equal(state.columns.raw()[name][rows], getattr(expected, name)), name
    assert len(np.unique(ids)) == len(ids)
    return dict(zip(ids.tolist(), changes.tolist(), strict=True))


FEATURES = np.stack([records(np.arange(1300), np.full(1300, change)).features for change in range(3)])


def examine(store: Store, allowed: list[dict[int, int]], label: str) -> None:
    """The store holds one of what is allowed, here and on the disk, is sound, and takes the next change."""
    here = content(store)
    assert here in allowed, f"{label}: {len(here)} records"
    assert verify(store, store.state) == [], label
    store.begin()
    store.write(LATER)
    store.flush()
    again = Store.open(store.path)
    assert content(again) == here | held((1000, 1300, 2)), label
    assert verify(again, again.state) == [], label
    again.close()
    store.close()


def fresh(base: Path, folder: Path) -> Path:
    """A copy of the index, alone in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(base, folder / "index"))


def run(operation: Callable, mode: str, at: int, base: Path, folder: Path) -> bool:
    """One fault; whether the operation has as many calls."""
    allowed, label = OPERATIONS[operation], f"{operation.__name__}, {mode} at call {at}"
    path = fresh(base, folder)
    if mode in ("gone", "stop"):
        store = raised = None
        with Faults(at, mode) as faults:
            try:
                store = Store.open(path)
                operation(store, path)
            except (SemcutError, KeyboardInterrupt):
                raised = True
        reached = faults.count >= at
        if store is not None:
            store.close()
        store = Store.open(path)
        examine_copy(path, reached, store, label)
        examine(store, allowed if raised else allowed[-1:], label)
        return reached
    if mode in ("error", "late"):
        store, raised = None, False
        with Faults(at, mode) as faults:
            try:
                store = Store.open(path)
                operation(store, path)
            except SemcutError:
                raised = True
        reached = faults.count >= at
        if store is None:
            store = Store.open(path)
        elif operation in (bulk, compact) and raised:  # two steps: the first may have been done
            store.close()
            store = Store.open(path)
            allowed = [*allowed, BEFORE] if operation is compact else [BEFORE]
        elif operation is not backup:
            allowed = allowed[:1] if raised else allowed[1:]
        if reached:
            examine_copy(path, raised, store, label)
        examine(store, allowed, label)
        return reached
    child = os.fork()
    if not child:
        with suppress(BaseException), Faults(at, mode) as faults:
            operation(Store.open(path), path)
            faults.finish()
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    store = Store.open(path)
    examine_copy(path, killed, store, label)
    examine(store, allowed if killed else allowed[-1:], label)
    return killed


def examine_copy(path: Path, failed: bool, store: Store, label: str) -> None:
    """A backup is there whole or not at all, and can be made again."""
    copy = path.with_name("copy")
    if not copy.exists():
        return
    try:
        found = Store.open(copy)
    except NotAnIndexError:
        assert failed, label
        store.backup(copy, store.state)
        found = Store.open(copy)
    assert content(found) == BEFORE, label
    assert verify(found, found.state) == [], label
    assert (copy / "connector.json").read_text() == "{}", label
    found.close()


def create(mode: str, at: int, folder: Path) -> bool:
    """One fault while an index is made; whether it has as many calls."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path, label = folder / "index", f"create, {mode} at call {at}"
    if mode in ("error", "late", "gone", "stop"):
        with Faults(at, mode) as faults, suppress(SemcutError, KeyboardInterrupt):
            Store.create(path, CONFIG).close()
        reached = faults.count >= at
    else:
        child = os.fork()
        if not child:
            with suppress(BaseException), Faults(at, mode) as faults:
                Store.create(path, CONFIG)
                faults.finish()
            os._exit(0)
        reached = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    try:
        store = Store.open(path)
    except NotAnIndexError:
        store = Store.create(path, CONFIG)
    examine(store, [{}], label)
    return reached


def calls_of(operation: Callable, base: Path, folder: Path) -> tuple[int, list[int]]:
    """How many calls an operation makes when none fails, and which of them commit."""
    path = fresh(base, folder)
    if operation is create:
        shutil.rmtree(path)
    with Faults() as faults:
        store = Store.create(path, CONFIG) if operation is create else Store.open(path)
        if operation is not create:
            operation(store, path)
        found = faults.count, list(faults.commits)
    store.close()
    return found


def places(mode: str, calls: int, commits: list[int]) -> list[int]:
    """Which calls are to fail."""
    around = {commit + step for commit in commits for step in (-1, 0, 1)}
    turn = MODES.index(mode)
    return [at for at in range(1, calls + 1) if THOROUGH or at in (1, calls) or at in around or at % len(MODES) == turn]


def main() -> None:
    folder = Path(sys.argv[1])
    base = folder / "base"
    store = Store.create(base, CONFIG)
    store.write(BASE[:150])
    store.write(BASE[150:])
    store.close()
    (base / "connector.json").write_text("{}")
    counts = {}
    for mode in sys.argv[2:] or MODES:
        for operation in (*OPERATIONS, create):
            calls, commits = calls_of(operation, base, folder / "work")
            failing = places(mode, calls, commits)
            for at in [*failing, calls + 1]:
                reached = (
                    create(mode, at, folder / "work")
                    if operation is create
                    else run(operation, mode, at, base, folder / "work")
                )
                assert reached is (at <= calls), f"{operation.__name__}, {mode} at call {at} of {calls}"
            counts[f"{operation.__name__}, {mode}"] = calls, len(failing)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
