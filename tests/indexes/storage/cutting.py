"""A process that uses an index in all ways while another one cuts and rewrites its files.

It ends when a file `stop` is there, and prints how many calls succeeded and how many raised an error of semcut; another
error, or another answer than that of the whole index, ends it with a traceback.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np

from semcut.indexes import Encodings, FaissIndex, IndexConfig, StorageError
from tests.indexes.generate import ATTRIBUTES, assert_same, assert_same_records, classified

CONFIG = IndexConfig(classes=10, bits=64, dim=32, stored_features="float32", attributes=ATTRIBUTES)


def batch(rows: int) -> Encodings:
    """Return the records of the index."""
    return classified(np.random.default_rng(0), CONFIG, rows)


def use(path: str, engine: str, stop: str, scratch: str) -> None:
    """Use the index until the file `stop` exists."""
    index = FaissIndex.open(path, engine=engine)
    whole = batch(len(index))
    queries = whole[:300]
    options = [{"ranking": ranking, "shortlist": size} for ranking in ("distance", "fused") for size in (200, None)]
    right = [index.search(queries, k=10, cutoff=0.1, **each) for each in options]
    alone = index.search(queries[:1], k=10, cutoff=0.1)
    some = np.arange(0, len(whole), 7)
    members = index.members(3, 50)

    def search(number: int) -> None:
        assert_same(index.search(queries, k=10, cutoff=0.1, **options[number]), right[number])

    def compare_all() -> None:
        for start, part in enumerate(index.iterate(4096)):
            assert_same_records(part, whole[start * 4096 : (start + 1) * 4096])

    def backup() -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        index.backup(scratch)
        with FaissIndex.open(scratch, engine="faiss") as copy:
            assert copy.verify() == []

    calls = [
        *[lambda number=number: search(number) for number in range(4)] * 3,
        lambda: assert_same(index.search(queries[:1], k=10, cutoff=0.1), alone),
        lambda: np.testing.assert_array_equal(index.ids(), whole.ids),
        lambda: np.testing.assert_array_equal(index.members(3, 50), members),
        lambda: assert_same_records(index.get(some), whole[some]),
        lambda: index.verify(),
        compare_all,
        backup,
    ]
    seen: Counter[str] = Counter()
    print("ready", flush=True)
    while not Path(stop).exists():
        for call in calls:
            with suppress(StorageError):
                seen["errors"] += 1
                call()
                seen.update({"errors": -1, "right": 1})
            seen["cut"] += index.snapshot.columns.cut
            with suppress(StorageError):
                index.refresh()
    index.refresh()
    for number in range(4):
        search(number)
    compare_all()
    assert index.verify() == []
    print(json.dumps(seen), flush=True)
