"""Several clients of one index, and clients that fail or die in the middle of a change: what each of them sees."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from milvus_lite.server_manager import server_manager_instance

from semcut.indexes import BruteForceIndex, DuplicateIdError, Encodings, IndexConfig, NotAnIndexError, ServerError
from semcut.indexes.milvus import MilvusIndex, schema, shared_state
from tests.indexes.generate import assert_same, assert_same_records, classified, filled
from tests.indexes.milvus.pool import Backend
from tests.indexes.story import CONFIG, records

ROOT = Path(__file__).parents[3]
ASKED = {"k": 100, "cutoff": 0.15, "shortlist": 2000}
FEW = 4500  # bytes in one call: about ten records of `story`
QUERIES = records(np.arange(3), np.full(3, 3))


def assert_same_as(index: MilvusIndex, reference: BruteForceIndex) -> None:
    """The index holds and finds what the reference does."""
    assert_same(index.search(QUERIES, **ASKED), reference.search(QUERIES, **ASKED))
    ids = np.sort(reference.ids())
    np.testing.assert_array_equal(index.ids(), ids)
    assert_same_records(index.get(ids), reference.get(ids))


def reference_of(*batches: Encodings) -> BruteForceIndex:
    """Brute force with these records."""
    return filled(BruteForceIndex(CONFIG), list(batches))


def written(first: int, count: int, change: int = 1) -> Encodings:
    """Records with consecutive ids, as this change wrote them."""
    return records(np.arange(first, first + count), np.full(count, change))


@pytest.fixture
def story(backend) -> Iterator[str]:
    """The name of an empty index of the records of `story`."""
    name = backend.take(CONFIG)
    yield name
    backend.give_back(name)


def address(backend: Backend) -> str:
    """Where another process finds it while this one has it open."""
    return backend.uri if backend.real else server_manager_instance.start_and_get_uri(backend.uri)


# readers


def test_a_reader_that_asks_for_the_newest_state_sees_what_others_have_just_written(backend, story):
    """Also what bounds that it has read before would have pruned."""
    reader, writer = backend.clients(story, 2, strong=True)
    rng = np.random.default_rng(0)
    material = classified(rng, CONFIG, 40)  # of all cells
    reference = BruteForceIndex(CONFIG)
    queries = material[::4]
    assert_same(reader.search(queries, **ASKED), reference.search(queries, **ASKED))
    for at in range(0, 40, 20):
        for one in (writer, reference):
            one.add(material[at : at + 20])
        assert_same(reader.search(queries, **ASKED), reference.search(queries, **ASKED))
        for one in (writer, reference):
            one.remove(material.ids[at : at + 2])
            one.upsert(_moved(material[at + 2 : at + 4]))
        assert_same(reader.search(queries, **ASKED), reference.search(queries, **ASKED))
    for client in (reader, writer):
        client.close()


def _moved(batch: Encodings) -> Encodings:
    """The same ids with all else another, the cell too."""
    return Encodings(
        probabilities=batch.probabilities[:, ::-1], codes=~batch.codes, features=-batch.features, ids=batch.ids
    )


def test_a_reader_that_does_not_ask_sees_it_some_seconds_later(backend, story):
    reader, writer = backend.clients(story, 2)
    reader.search(QUERIES, **ASKED)
    writer.add(written(0, 20))
    expected = reference_of(written(0, 20)).search(QUERIES, **ASKED)
    end = time.monotonic() + 15
    while not np.array_equal(reader.search(QUERIES, **ASKED).ids, expected.ids):
        assert time.monotonic() < end
    writer.add(written(20, 20, change=2))
    expected = reference_of(written(0, 20), written(20, 20, change=2)).search(QUERIES, **ASKED)
    end = time.monotonic() + 15
    while not np.array_equal(reader.search(QUERIES, **ASKED).ids, expected.ids):
        assert time.monotonic() < end
    for client in (reader, writer):
        client.close()


def before_call(index: MilvusIndex, name: str, action: Callable[[], None]) -> None:
    """Do something once, before the index asks the server for records by a method of this name."""
    call, done = index._server.call, []

    def waiting(method, collection="", *args, **kwargs):
        if method == name and not str(collection).endswith("_catalogue") and not done:
            done.append(method)
            action()
        return call(method, collection, *args, **kwargs)

    index._server.call = waiting


def test_a_record_that_is_removed_between_being_found_and_being_fetched_leaves_its_place_to_the_next(backend, story):
    reader, writer = backend.clients(story, 2)
    writer.add(written(0, 60))
    backend.settle(story)
    for shortlist in (3, None):
        best = reader.search(QUERIES[:1], k=3, cutoff=0.0, shortlist=shortlist).ids[0]
        calls = []

        def remove(best=best, calls=calls) -> None:
            calls.append(best)
            writer.remove(best[:2])
            backend.settle(story)

        found = reader._server.call

        def call(name, *args, found=found, remove=remove, calls=calls, **kwargs):
            result = found(name, *args, **kwargs)
            fields = kwargs.get("output_fields", [])
            if not calls and (name == "search" or ("iterator" in kwargs and "cell" in fields)):
                remove()
            return result

        reader._server.call = call
        result = reader.search(QUERIES[:1], k=3, cutoff=0.0, shortlist=shortlist)
        assert len(calls) == 1
        reader._server.call = found
        assert not np.isin(best[:2], result.ids).any()
        assert_same(result, reader.search(QUERIES[:1], k=3, cutoff=0.0, shortlist=shortlist))
        assert (result.ids >= 0).all()
    for client in (reader, writer):
        client.close()


@pytest.mark.parametrize("method", ["search", "query"])
def test_a_search_that_has_begun_sees_nothing_or_all_of_a_batch_that_is_begun_then(backend, story, monkeypatch, method):
    monkeypatch.setattr(schema, "_CALL_BYTES", FEW)  # a batch of 40 takes several calls
    reader, writer = backend.clients(story, 2, strong=True)
    writer.add(written(0, 30))
    asked = {"k": 200, "cutoff": 0.0, "shortlist": 200 if method == "search" else None}

    def begin() -> None:
        fault = Fault(writer, 2, what=("upsert", story))  # the first part is written
        with pytest.raises(ServerError):
            writer.add(written(100, 40))
        fault.end()

    before_call(reader, method, begin)
    ids = reader.search(QUERIES, **asked).ids
    assert np.isin(np.arange(100, 140), ids).sum() in (0, 40)
    assert 0 < backend.server.count(story, "id >= 100", strong=True) < 40
    for client in (reader, writer):
        client.close()


# writers


def test_two_clients_that_write_at_the_same_time_lose_nothing(backend, story):
    clients = backend.clients(story, 2)
    failures: list[BaseException] = []

    def write(index: MilvusIndex, first: int) -> None:
        try:
            for step in range(4):
                index.add(written(first + 10 * step, 10, change=step))
                if step % 2:
                    index.upsert(written(first + 10 * step, 5, change=step + 50))
                    index.remove([first + 10 * step + 9])
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=write, args=(client, 1000 * at)) for at, client in enumerate([*clients, clients[0]])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    reference = reference_of()
    for at in range(3):
        write(reference, 1000 * at)
    fresh = backend.clients(story)
    backend.settle(story)
    for client in (*clients, *fresh):
        assert_same_as(client, reference)
        client.close()


WRITER = """
import sys
import numpy as np
from semcut.indexes.milvus import MilvusIndex
from tests.indexes.milvus.test_clients import written

uri, name, first, count, size = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
with MilvusIndex.open(uri, collection=name, strong=True) as index:
    print("ready", flush=True)
    for step in range(count):
        index.add(written(first + size * step, size, change=step))
        print("added", step, flush=True)
"""


def writer(uri: str, name: str, first: int, count: int, size: int) -> subprocess.Popen:
    """A process that adds batches."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WRITER, uri, name, str(first), str(count), str(size)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_two_processes_that_write_at_the_same_time_lose_nothing(backend, story):
    (reader,) = backend.clients(story, strong=True)
    reader.search(QUERIES, **ASKED)
    running = [writer(address(backend), story, first, 4, 12) for first in (0, 1000)]
    ends = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], ends
    assert [errors for _, errors in ends] == ["", ""]
    reference = reference_of(*(written(first + 12 * n, 12, n) for first in (0, 1000) for n in range(4)))
    assert_same_as(reader, reference)
    reader.add(written(5000, 3))
    reference.add(written(5000, 3))
    assert_same_as(reader, reference)
    reader.close()


# calls that fail


class Fault:
    """Makes one call of a client to the server fail, the others not.

    Args:
        index: the client.
        number: which call, from 1.
        after: whether the server did what it was asked to, and only the answer was lost.
        what: the method of the calls that count, and the collection; None for all calls.

    Attributes:
        failed: whether it has.
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
        """Nothing fails any more."""
        self._index._server.call = self._call


def faults(
    backend: Backend, name: str, base: Encodings, *, after: bool
) -> Iterator[tuple[MilvusIndex, MilvusIndex, MilvusIndex, Fault]]:
    """For one call after another: a client with these records and the fault, an observer, and who tries again.

    Who tries again is the same client, or another one. It ends when nothing has failed.
    """
    step = 7 if backend.real else 2  # seconds each on a server
    for turn, number in enumerate(range(1 + after, 60, step)):
        backend.empty(name)
        clients = backend.clients(name, 3)
        client, observer = clients[:2]
        client.add(base)
        backend.settle(name)
        observer.search(QUERIES, **ASKED)
        fault = Fault(client, number, after=after)
        yield client, observer, clients[0 if turn % 2 else 2], fault
        for one in clients:
            one.close()
        if not fault.failed:
            assert turn > 1
            return
    pytest.fail("there are more calls")


AFTER = pytest.mark.parametrize("after", [False, True], ids=["not done", "done and not told"])


@AFTER
def test_an_add_may_fail_at_any_call_and_be_repeated(backend, story, monkeypatch, after):
    """No record of a batch that failed is seen; adding it again completes it, whoever does."""
    monkeypatch.setattr(schema, "_CALL_BYTES", FEW)
    base, batch = written(0, 10), written(100, 20, change=2)
    before, whole, less = reference_of(base), reference_of(base, batch), reference_of(base[1:], batch)
    for client, observer, repeats, fault in faults(backend, story, base, after=after):
        if not fails(fault, lambda client=client: client.add(batch)):
            backend.settle(story)
            assert_same_as(observer, whole)
            assert_same_as(client, whole)
            continue
        backend.settle(story)
        told = bool(observer.contains(batch.ids).any())
        assert told <= after  # only the answer to the last call was lost
        assert_same_as(observer, whole if told else before)
        if told:
            with pytest.raises(DuplicateIdError):
                repeats.add(batch)
        else:
            assert_same_as(client, before)
            repeats.add(batch)
        backend.settle(story)
        for one in (repeats, observer):
            assert_same_as(one, whole)
        client.remove([0])  # the client that failed goes on, and takes nothing of this away
        backend.settle(story)
        assert_same_as(observer, less)


def fails(fault: Fault, change: Callable[[], None]) -> bool:
    """Whether a change fails; nothing does after it."""
    try:
        change()
    except ServerError:
        assert fault.failed
    fault.end()
    return fault.failed


@AFTER
def test_an_upsert_may_fail_at_any_call_and_be_repeated(backend, story, monkeypatch, after):
    """Each record is the old or the new one; repeating it completes it, whoever does."""
    monkeypatch.setattr(schema, "_CALL_BYTES", FEW)
    base, batch = written(0, 10), written(4, 20, change=2)  # 6 are there, 14 are not
    before, whole = reference_of(base), reference_of(base)
    whole.upsert(batch)
    for client, observer, repeats, fault in faults(backend, story, base, after=after):
        if fails(fault, lambda client=client: client.upsert(batch)):
            backend.settle(story)
            for one in (client, observer):
                ids = one.ids()
                assert set(range(10)) <= set(ids.tolist()) <= set(range(24))
                found = one.get(ids)
                assert_same_as(one, reference_of(*(old_or_new(found[[at]], before, whole) for at in range(len(ids)))))
            repeats.upsert(batch)
        backend.settle(story)
        for one in (repeats, observer):
            assert_same_as(one, whole)


def old_or_new(found: Encodings, *possible: BruteForceIndex) -> Encodings:
    """The record, which is one of those."""
    for one in possible:
        if one.contains(found.ids)[0] and np.array_equal(one.get(found.ids).features, found.features):
            assert_same_records(found, one.get(found.ids))
            return found
    raise AssertionError(f"record {found.ids[0]} is none of those written")


@AFTER
def test_a_removal_may_fail_at_any_call_and_be_repeated(backend, story, monkeypatch, after):
    """Each record is there or gone; repeating it completes it, whoever does."""
    monkeypatch.setattr("semcut.indexes.milvus.writer.IDS", 4)
    base, gone = written(0, 20), np.arange(0, 20, 2)
    whole = reference_of(base[1::2])
    for client, observer, repeats, fault in faults(backend, story, base, after=after):
        if fails(fault, lambda client=client: client.remove(gone)):
            backend.settle(story)
            for one in (client, observer):
                there = one.contains(np.arange(20))
                assert there[1::2].all()
                assert_same_as(one, reference_of(base[there]))
            if there[gone].any():
                repeats.remove(gone if repeats is client else gone[there[gone]])
        backend.settle(story)
        for one in (repeats, observer):
            assert_same_as(one, whole)


def test_a_batch_left_by_a_client_that_died_long_ago_is_cleared_away(backend, story, monkeypatch):
    monkeypatch.setattr(schema, "_CALL_BYTES", FEW)
    dead, observer = backend.clients(story, 2)
    dead.add(written(0, 5))
    Fault(dead, 2, what=("upsert", story))
    with pytest.raises(ServerError):
        dead.add(written(100, 40))
    backend.settle(story)
    assert len(observer) == 5
    left = backend.server.count(story, "id >= 100", strong=True)
    assert 0 < left < 40
    (young,) = backend.clients(story)
    young.add(written(10, 1))
    assert backend.server.count(story, "id >= 100", strong=True) == left  # it may be alive
    monkeypatch.setattr(shared_state, "_LEFT_BEHIND", -1)
    (old,) = backend.clients(story)
    old.add(written(20, 1))
    assert backend.server.count(story, "id >= 100", strong=True) == 0
    reference = reference_of(written(0, 5), written(10, 1), written(20, 1))
    backend.settle(story)
    for one in (observer, young, old):
        assert_same_as(one, reference)
        one.close()
    dead._server.close()
    dead._pool.shutdown()


# processes that are killed


def test_a_client_killed_at_any_moment_loses_nothing_that_was_acknowledged(backend, story):
    rng = random.Random(5)
    size, held = 15, []
    (observer,) = backend.clients(story, strong=True)
    for life in range(2 if backend.real else 3):
        process = writer(address(backend), story, 1000 * life, 60, size)
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        time.sleep(rng.uniform(2, 4) if backend.real else rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        lines, _ = process.communicate(timeout=60)
        acknowledged = lines.count("added")
        batches = [written(1000 * life + size * n, size, n) for n in range(acknowledged + 1)]
        there = observer.contains(batches[-1].ids)
        assert there.all() or not there.any()
        held += batches[: acknowledged + bool(there.all())]
        if not there.any():  # by another client, whatever the dead one has left
            (again,) = backend.clients(story, strong=True)
            again.add(batches[-1])
            held.append(batches[-1])
            again.close()
    assert_same_as(observer, reference_of(*held))
    assert len(held) > 2
    observer.close()


def test_an_embedded_server_killed_with_its_process_loses_nothing_that_was_acknowledged(tmp_path):
    rng, path, held = random.Random(6), str(tmp_path / "milvus.db"), []
    MilvusIndex.create(path, CONFIG, collection="killed").close()
    for life in range(2):
        process = writer(path, "killed", 1000 * life, 60, 15)
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        time.sleep(rng.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        lines, _ = process.communicate(timeout=60)
        batches = [written(1000 * life + 15 * n, 15, n) for n in range(lines.count("added") + 1)]
        with MilvusIndex.open(path, collection="killed") as index:
            there = index.contains(batches[-1].ids)
            assert there.all() or not there.any()
            if not there.any():
                index.add(batches[-1])
            held += batches
    with MilvusIndex.open(path, collection="killed") as index:
        assert_same_as(index, reference_of(*held))


# shapes that change


def test_an_index_that_was_made_again_under_a_client_is_not_written_to_without_bounds(backend):
    """What a client knows of an index that is gone does not make it hide records of the one in its place."""
    name, config = backend.unused(), IndexConfig(classes=7, bits=64, dim=8)
    old = MilvusIndex.create(backend.uri, config, collection=name, strong=True)
    old.add(written(0, 20))
    MilvusIndex.drop(backend.uri, collection=name)
    with MilvusIndex.create(backend.uri, config, collection=name, strong=True) as new:
        new.add(written(100, 1))
        try:
            old.add(written(0, 20))
        except NotAnIndexError:
            old.close()
            return
        assert_same_as(new, reference_of(written(100, 1), written(0, 20)))
        old.close()
    MilvusIndex.drop(backend.uri, collection=name)
