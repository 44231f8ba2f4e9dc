"""Helpers for tests with several clients of one index: records, comparison with brute force, processes that write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from semcut.indexes import BruteForceIndex, Encodings, ServerError
from semcut.indexes.milvus import MilvusIndex
from tests.indexes.generate import assert_same, assert_same_records, filled
from tests.indexes.milvus.pool import Backend
from tests.indexes.story import CONFIG, records

ROOT = Path(__file__).parents[3]
SEARCH = {"k": 100, "cutoff": 0.15, "shortlist": 2000}
SMALL_CALL = 4500  # bytes in one call: about ten records of `story`
QUERIES = records(np.arange(3), np.full(3, 3))


def assert_same_as(index: MilvusIndex, reference: BruteForceIndex) -> None:
    """Check that the index contains and finds the same records as the reference."""
    assert_same(index.search(QUERIES, **SEARCH), reference.search(QUERIES, **SEARCH))
    ids = np.sort(reference.ids())
    np.testing.assert_array_equal(index.ids(), ids)
    assert_same_records(index.get(ids), reference.get(ids))


def reference_of(*batches: Encodings) -> BruteForceIndex:
    """Return a brute-force index of these records."""
    return filled(BruteForceIndex(CONFIG), list(batches))


def written(first: int, count: int, change: int = 1) -> Encodings:
    """Return `count` records with consecutive ids, with the content that this change writes."""
    return records(np.arange(first, first + count), np.full(count, change))


def address_for_others(backend: Backend) -> str:
    """Return the address at which another process can use Milvus while this process has it open."""
    if backend.is_server:
        return backend.uri
    from milvus_lite.server_manager import server_manager_instance

    return server_manager_instance.start_and_get_uri(backend.uri)


_WRITER = """
import sys
import numpy as np
from semcut.indexes.milvus import MilvusIndex
from tests.indexes.milvus.clients import written

uri, name, first, count, size = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
with MilvusIndex.open(uri, collection=name, strong=True) as index:
    print("ready", flush=True)
    for step in range(count):
        index.add(written(first + size * step, size, change=step))
        print("added", step, flush=True)
"""


def start_writer(uri: str, name: str, first: int, count: int, size: int) -> subprocess.Popen:
    """Start a process that adds `count` batches of `size` records, with ids from `first`."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _WRITER, uri, name, str(first), str(count), str(size)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


class FailingCall:
    """A patch of a client that makes one of its calls to the server fail.

    Args:
        index: the client.
        number: number of the call that fails, from 1.
        after: whether the server executes the call, so that only its answer is lost.
        what: a method and a collection, to count only such calls; None counts all calls.

    Attributes:
        failed: whether the call has failed.
    """

    def __init__(
        self, index: MilvusIndex, number: int, *, after: bool = False, what: tuple[str, str] | None = None
    ) -> None:
        self._left, self._after, self._what, self.failed = number, after, what, False
        self._index, self._call = index, index._server.call
        index._server.call = self.call

    def call(self, name, /, *args, **kwargs):
        self._left -= self._what in (None, (name, *args[:1]))
        if self._left or self.failed:
            return self._call(name, *args, **kwargs)
        self.failed = True
        if self._after:
            self._call(name, *args, **kwargs)
        raise ServerError("the server does not answer")

    def end(self) -> None:
        """Let every further call succeed."""
        self._index._server.call = self._call
