"""Create records to migrate, and run `semcut migrate`."""

from __future__ import annotations

import json

import numpy as np

from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.milvus import MilvusIndex
from tests.command import semcut
from tests.indexes.generate import ATTRIBUTES, classified

CONFIG = IndexConfig(classes=6, bits=64, dim=8, prior=[1, 2, 3, 4, 5, 6], attributes=ATTRIBUTES)
ROWS = 400


def records(rows: int = ROWS, config: IndexConfig = CONFIG, seed: int = 0) -> Encodings:
    """Return records in no order, with the largest id among them, and uris of all kinds."""
    rng = np.random.default_rng(seed)
    batch = classified(rng, config, rows)
    ids = rng.permutation(rows * 3)[:rows].astype(np.int64)
    ids[rows // 2] = 2**63 - 1
    uris = [(None, "", "a b.jpg", "ü\n'\".jpg")[number % 4] for number in range(rows)]
    return Encodings(**{**vars(batch), "ids": ids, "uris": uris})


def all_of(index: FaissIndex | MilvusIndex) -> Encodings:
    """Return all records, in order of ids."""
    batches = list(index.iterate(150))
    uris = [uri for batch in batches for uri in (batch.uris or [None] * len(batch))]
    return Encodings(**{**vars(Encodings.concatenate(batches)), "uris": uris})


def report_of(*arguments: object, cwd: object, status: int = 0) -> dict:
    """Run the command, and return the report that it prints."""
    done = semcut("migrate", *arguments, "--json", cwd=cwd, status=status)
    return json.loads(done.stdout)


def error_of(*arguments: object, cwd: object, status: int = 1) -> str:
    """Run the command, which must fail with one line, and return the line."""
    done = semcut("migrate", *arguments, cwd=cwd, status=status)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("semcut: ")
    return line
