"""Make every call that touches the disk fail in turn: python -m tests.indexes.storage.faults FOLDER [MODE ...]

For each operation, and for each of its writes, truncations, syncs, renames, creations and deletions of files and
directories, and SQLite statements:

    error    the call fails
    late     the call succeeds, but reports an error
    broken   the call succeeds, but reports an error, and all calls after it fail: the caller cannot find out more
    stop     the call succeeds, then Ctrl-C is pressed
    kill     the process is killed before the call
    power    the process is killed before the call, and everything that was written and not synced is lost

After each failure, the store must contain all of the change or none of it (all of it if the operation returned; none of
it if the operation raised an error, except in the modes `broken` and `stop`), be sound, and accept the next change. The
script tests `Store`, which makes all calls of an index that touch the disk. The script is a process without a second
thread, because it forks. It prints, as JSON, the number of calls of each operation and how many of them failed. In
quick tests each call fails in one mode, and the first call, the last, and those next to a commit fail in every mode; in
thorough tests each call fails in every mode.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semcut.indexes import NotAnIndexError, SemcutError
from semcut.indexes.storage.store import Store
from semcut.indexes.storage.verify import verify
from tests.indexes.storage.fault_injection import MODES, Faults
from tests.indexes.story import CONFIG, records
from tests.thorough import THOROUGH

BASE = records(np.arange(300), np.zeros(300))
BATCH = records(np.arange(300, 500), np.ones(200))
MIXED = records(np.arange(200, 400), np.ones(200))
LATER = records(np.arange(1000, 1300), np.full(300, 2))


def rows_of(store: Store, ids: Iterable[int]) -> np.ndarray:
    """Return the rows of records."""
    return np.flatnonzero(np.isin(store.snapshot.columns.ids, list(ids)))


def add(store: Store, path: Path) -> None:
    store.begin()
    store.write(BATCH)


def upsert(store: Store, path: Path) -> None:
    store.begin()
    store.write(MIXED, rows_of(store, range(200, 300)))


def remove(store: Store, path: Path) -> None:
    store.begin()
    store.write(None, rows_of(store, (0, 299, 100)))


def compact(store: Store, path: Path) -> None:
    store.begin()
    store.write(None, rows_of(store, (0, 299, 100)))
    store.compact()


def backup(store: Store, path: Path) -> None:
    store.backup(path.with_name("copy"), store.snapshot)


def bulk(store: Store, path: Path) -> None:
    store._transactions._durability = "close"
    store.begin()
    store.write(BATCH)
    store.write(None, rows_of(store, (0, 299, 100)))
    store.flush()


def written(*parts: tuple[int, int, int]) -> dict[int, int]:
    """Map ids to the number of the change that wrote them, from parts of first id, id after the last, and change."""
    return {number: change for start, stop, change in parts for number in range(start, stop)}


BEFORE = written((0, 300, 0))
REMAINING = {number: 0 for number in BEFORE if number not in (0, 299, 100)}
OPERATIONS: dict[Callable, list[dict[int, int]]] = {
    add: [BEFORE, written((0, 300, 0), (300, 500, 1))],
    upsert: [BEFORE, written((0, 200, 0), (200, 400, 1))],
    remove: [BEFORE, REMAINING],
    compact: [BEFORE, REMAINING],
    backup: [BEFORE],
    bulk: [BEFORE, {**REMAINING, **written((300, 500, 1))}],
}
"""The contents that an operation may leave; the last is the content that it must leave if it succeeds."""


def content(store: Store) -> dict[int, int]:
    """Map the ids in the store to the change that wrote them; assert that each record is whole, from one change."""
    snapshot = store.snapshot
    rows = snapshot.live
    ids = snapshot.columns.ids[rows]
    changes = np.array([int(uri.split()[-1]) if uri else -1 for uri in snapshot.columns.uris(rows)], np.int64)
    found, places = snapshot.columns.features(rows)
    features = found[places]
    found, places = snapshot.columns.probabilities(rows)
    probabilities = found[places]
    for place in np.flatnonzero(changes < 0).tolist():  # records without uri are identified by their features
        changes[place] = np.flatnonzero((WRITTEN.features[:, ids[place]] == features[place]).all(axis=1))[0]
    assert np.array_equal(snapshot.columns.codes[rows], WRITTEN.codes[changes, ids])
    assert np.array_equal(features, WRITTEN.features[changes, ids])
    assert np.array_equal(probabilities, WRITTEN.probabilities[changes, ids])
    assert len(np.unique(ids)) == len(ids)
    return dict(zip(ids.tolist(), changes.tolist(), strict=True))


class Written(NamedTuple):
    """Arrays by the number of a change and the id of a record: what the change writes for the record."""

    codes: np.ndarray
    features: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def by(cls, changes: int) -> Written:
        batches = [records(np.arange(1300), np.full(1300, change)) for change in range(changes)]
        return cls(*(np.stack([getattr(batch, name) for batch in batches]) for name in cls._fields))


WRITTEN = Written.by(3)


def examine(store: Store, allowed: list[dict[int, int]], label: str) -> None:
    """Assert that the store has one of the allowed contents, is sound, and accepts the next change."""
    here = content(store)
    assert here in allowed, f"{label}: {len(here)} records"
    assert verify(store, store.snapshot) == [], label
    store.begin()
    store.write(LATER)
    store.flush()
    again = Store.open(store.path)
    assert content(again) == here | written((1000, 1300, 2)), label
    assert verify(again, again.snapshot) == [], label
    again.close()
    store.close()


def new_copy(base: Path, folder: Path) -> Path:
    """Clear the folder and copy the index there."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(base, folder / "index"))


def run(operation: Callable, mode: str, at: int, base: Path, folder: Path) -> bool:
    """Make call number `at` fail, examine the store, and return whether the operation makes that call at all."""
    allowed, label = OPERATIONS[operation], f"{operation.__name__}, {mode} at call {at}"
    path = new_copy(base, folder)
    if mode in ("broken", "stop"):
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
        examine_backup(path, reached, store, label)
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
        elif operation in (bulk, compact) and raised:  # two commits: the first may have succeeded
            store.close()
            store = Store.open(path)
            allowed = [*allowed, BEFORE] if operation is compact else [BEFORE]
        elif operation is not backup:
            allowed = allowed[:1] if raised else allowed[1:]
        if reached:
            examine_backup(path, raised, store, label)
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
    examine_backup(path, killed, store, label)
    examine(store, allowed if killed else allowed[-1:], label)
    return killed


def examine_backup(path: Path, failed: bool, store: Store, label: str) -> None:
    """Assert that a backup is complete, or is not an index and can be repeated."""
    copy = path.with_name("copy")
    if not copy.exists():
        return
    try:
        found = Store.open(copy)
    except NotAnIndexError:
        assert failed, label
        store.backup(copy, store.snapshot)
        found = Store.open(copy)
    assert content(found) == BEFORE, label
    assert verify(found, found.snapshot) == [], label
    assert (copy / "connector.json").read_text() == "{}", label
    found.close()


def create(mode: str, at: int, folder: Path) -> bool:
    """Make call number `at` fail while an index is created, and return whether `create` makes that call at all."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path, label = folder / "index", f"create, {mode} at call {at}"
    if mode in ("error", "late", "broken", "stop"):
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
    """Count the calls of an operation without a failure, and list the numbers of those that commit."""
    path = new_copy(base, folder)
    if operation is create:
        shutil.rmtree(path)
    with Faults() as faults:
        store = Store.create(path, CONFIG) if operation is create else Store.open(path)
        if operation is not create:
            operation(store, path)
        found = faults.count, list(faults.commits)
    store.close()
    return found


def failing_calls(mode: str, calls: int, commits: list[int]) -> list[int]:
    """List the numbers of the calls that fail in this mode."""
    around = {commit + step for commit in commits for step in (-1, 0, 1)}
    turn = MODES.index(mode)
    return [at for at in range(1, calls + 1) if THOROUGH or at in (1, calls) or at in around or at % len(MODES) == turn]


def main() -> None:
    gc.freeze()  # what was imported is kept
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
            failing = failing_calls(mode, calls, commits)
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
