"""A deterministic sequence of changes to an index. A seed determines the records after any number of changes.

So another process can compute from the `version` of an index, which counts changes, what records it must have. The
content of a record is determined by its id and the number of the change that wrote it, which its uri contains.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial

import numpy as np

from semcut.indexes import BruteForceIndex, Encodings, FaissIndex, IndexConfig
from semcut.indexes.stored_values import stored_values

CONFIG = IndexConfig(
    classes=7,
    bits=64,
    dim=8,
    stored_probabilities=4,
    attributes={
        "change": "int",
        "share": "float",
        "even": "bool",
        "at": "datetime",
        "kind": "category",
        "tags": "categories",
    },
)
IDS = 600
FIRST = datetime(2020, 1, 1, tzinfo=timezone.utc)


def records(ids: np.ndarray, changes: np.ndarray) -> Encodings:
    """Return the records with these ids, as these changes wrote them and an index stores them."""
    ids, changes = np.asarray(ids, np.int64), np.asarray(changes, np.int64)
    mixed = (ids[:, None] * 7919 + changes[:, None] * 104_729 + np.arange(64) * 1_299_709) * 2_654_435_761 % 2**32
    mixed = (mixed >> 7) % 1009
    logits = mixed[:, : CONFIG.classes] / 150
    p = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    features = mixed[:, 10 : 10 + CONFIG.dim] - 500.5
    written = Encodings(
        probabilities=(p / p.sum(axis=1, keepdims=True)).astype(np.float32),
        codes=np.packbits(mixed > 504, axis=1),
        features=(features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32),
        ids=ids,
        uris=[
            f"image {number}, change {change}" if number % 5 else None
            for number, change in zip(ids, changes, strict=True)
        ],
        attributes=_attributes(ids.tolist(), changes.tolist()),
    )
    return stored_values(CONFIG, written)


def _attributes(ids: list[int], changes: list[int]) -> dict[str, list]:
    """Return attributes that depend on the id and the change; those of every third id are missing."""
    pairs = list(zip(ids, changes, strict=True))
    columns: dict[str, list] = {
        "change": changes,
        "share": [number / (change + 1) for number, change in pairs],
        "even": [change % 2 == 0 for change in changes],
        "at": [FIRST + timedelta(hours=number + change) for number, change in pairs],
        "kind": [f"kind {(number + change) % 5}" for number, change in pairs],
        "tags": [[f"tag {(number + step) % 7}" for step in range(change % 4)] for number, change in pairs],
    }
    return {
        name: [None if number % 3 == place % 3 else value for number, value in zip(ids, values, strict=True)]
        for place, (name, values) in enumerate(columns.items())
    }


class Story:
    """The changes number 1, 2, ... of a seed.

    Attributes:
        changes: the number of changes that were made so far.
        held: for the id of each record that the index has now, the number of the change that wrote it.
    """

    def __init__(self, seed: int) -> None:
        self._seed, self.changes = seed, 0
        self.held: dict[int, int] = {}

    def next(self) -> tuple[str, np.ndarray]:
        """Return the kind of the next change, and the ids that it changes, without making it."""
        rng = np.random.default_rng([self._seed, self.changes + 1])
        kind = str(rng.choice(["add", "add", "upsert", "remove", "compact"], p=[0.3, 0.1, 0.3, 0.2, 0.1]))
        free = np.array([number for number in range(IDS) if number not in self.held], np.int64)
        there = np.array(sorted(self.held), np.int64)
        if kind == "add" and len(free) < 10:
            kind = "remove"
        if kind == "remove" and len(there) < 10:
            kind = "add"
        some = int(rng.integers(1, rng.choice([2, 30, 300])))
        pool = {"add": free, "upsert": np.arange(IDS), "remove": there, "compact": there}[kind]
        return kind, rng.permutation(pool)[: 0 if kind == "compact" else some]

    def tell(self) -> None:
        """Record that the next change was made."""
        kind, ids = self.next()
        self.changes += 1
        for number in ids.tolist():
            if kind == "remove":
                del self.held[number]
            else:
                self.held[number] = self.changes

    def tell_until(self, change: int) -> None:
        """Record that all changes up to this one were made."""
        while self.changes < change:
            self.tell()

    def change(self, index: FaissIndex) -> None:
        """Make the next change in an index."""
        self.prepared(index)()
        self.tell()

    def prepared(self, index: FaissIndex) -> Callable[[], object]:
        """Return a function that makes the next change in an index, and does nothing else."""
        kind, ids = self.next()
        if kind == "compact":
            return index.compact
        if kind == "remove":
            return partial(index.remove, ids)
        return partial(index.add if kind == "add" else index.upsert, records(ids, np.full(len(ids), self.changes + 1)))

    def all(self) -> Encodings:
        """Return the records that the index has now, in order of ids."""
        ids = sorted(self.held)
        return records(np.array(ids, np.int64), np.array([self.held[number] for number in ids], np.int64))

    def brute_force(self) -> BruteForceIndex:
        """Return the reference index with the same records."""
        reference = BruteForceIndex(CONFIG)
        reference.add(self.all())
        return reference
