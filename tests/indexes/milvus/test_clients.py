"""Several clients of one index see the changes of each other, and those of clients that are killed."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from semcut.indexes import BruteForceIndex, Encodings, NotAnIndexError, ServerError
from semcut.indexes.milvus import MilvusIndex, schema
from tests.indexes.generate import assert_same, assert_same_records, classified
from tests.indexes.milvus.clients import (
    QUERIES,
    SEARCH,
    SMALL_CALL,
    FailingCall,
    address_for_others,
    assert_same_as,
    reference_of,
    start_writer,
    written,
)
from tests.indexes.milvus.conftest import skip_embedded
from tests.indexes.story import CONFIG

pytestmark = pytest.mark.milvus

# readers


def test_a_strong_reader_sees_what_others_have_just_written(backend, story):
    """These include records that the bounds which the reader knew before would prune."""
    reader, writer = backend.clients(story, 2, strong=True)
    rng = np.random.default_rng(0)
    material = classified(rng, CONFIG, 40)  # of all cells
    reference = BruteForceIndex(CONFIG)
    queries = material[::4]
    assert_same(reader.search(queries, **SEARCH), reference.search(queries, **SEARCH))
    for at in range(0, 40, 20):
        for one in (writer, reference):
            one.add(material[at : at + 20])
        assert_same(reader.search(queries, **SEARCH), reference.search(queries, **SEARCH))
        for one in (writer, reference):
            one.remove(material.ids[at : at + 2])
            one.upsert(_moved(material[at + 2 : at + 4]))
        assert_same(reader.search(queries, **SEARCH), reference.search(queries, **SEARCH))
    for client in (reader, writer):
        client.close()


def _moved(batch: Encodings) -> Encodings:
    """Return records with the same ids and other contents, in other cells."""
    return Encodings(
        probabilities=batch.probabilities[:, ::-1], codes=~batch.codes, features=-batch.features, ids=batch.ids
    )


def test_a_reader_that_is_not_strong_sees_changes_of_others_some_seconds_later(backend, story):
    reader, writer = backend.clients(story, 2)
    reader.search(QUERIES, **SEARCH)
    writer.add(written(0, 20))
    expected = reference_of(written(0, 20)).search(QUERIES, **SEARCH)
    end = time.monotonic() + 15
    while not np.array_equal(reader.search(QUERIES, **SEARCH).ids, expected.ids):
        assert time.monotonic() < end
    writer.add(written(20, 20, change=2))
    expected = reference_of(written(0, 20), written(20, 20, change=2)).search(QUERIES, **SEARCH)
    end = time.monotonic() + 15
    while not np.array_equal(reader.search(QUERIES, **SEARCH).ids, expected.ids):
        assert time.monotonic() < end
    for client in (reader, writer):
        client.close()


def before_call(index: MilvusIndex, name: str, action: Callable[[], None]) -> None:
    """Do something once, before the index reads records from the server by the method of this name."""
    call, done = index._server.call, []

    def waiting(method, collection="", *args, **kwargs):
        if method == name and not str(collection).endswith("_catalogue") and not done:
            done.append(method)
            action()
        return call(method, collection, *args, **kwargs)

    index._server.call = waiting


def test_the_next_record_replaces_one_that_is_removed_between_being_found_and_fetched(backend, story):
    reader, writer = backend.clients(story, 2)
    writer.add(written(0, 60))
    backend.wait_until_visible(story)
    for shortlist in (3, None):
        best = reader.search(QUERIES[:1], k=3, cutoff=0.0, shortlist=shortlist).ids[0]
        calls = []

        def remove(best=best, calls=calls) -> None:
            calls.append(best)
            writer.remove(best[:2])
            backend.wait_until_visible(story)

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


def test_a_record_that_a_first_read_misses_is_found_by_a_second_one(backend, story):
    (index,) = backend.clients(story)
    index.add(written(0, 6))
    expected, found = index.get(np.arange(6)), index._server.call
    missed = []

    def call(name, *args, **kwargs):
        rows = found(name, *args, **kwargs)
        if not missed and kwargs.get("output_fields") == ["id", "row"]:
            missed.append(rows[:4])
            return rows[4:]
        return rows

    index._server.call = call
    assert_same_records(index.get(np.arange(6)), expected)
    assert len(missed[0]) == 4
    index.close()


def test_iterating_leaves_out_what_is_removed_between_a_page_and_its_records(backend, story):
    reader, writer = backend.clients(story, 2, strong=True)
    writer.add(written(0, 6))
    found, removed = reader._server.call, []

    def call(name, *args, **kwargs):
        rows = found(name, *args, **kwargs)
        if not removed and "iterator" in kwargs and args[0] == story:
            removed.append(np.array([1, 3]))
            writer.remove(removed[0])
        return rows

    reader._server.call = call
    assert [part.ids.tolist() for part in reader.iterate(4)] == [[0, 2], [4, 5]]
    for client in (reader, writer):
        client.close()


@pytest.mark.parametrize("method", ["search", "query"])
def test_a_running_search_sees_all_or_none_of_a_batch_that_is_begun_in_the_meantime(
    backend, story, monkeypatch, method
):
    monkeypatch.setattr(schema, "_CALL_BYTES", SMALL_CALL)  # a batch of 40 takes several calls
    reader, writer = backend.clients(story, 2, strong=True)
    writer.add(written(0, 30))
    arguments = {"k": 200, "cutoff": 0.0, "shortlist": 200 if method == "search" else None}

    def begin() -> None:
        fault = FailingCall(writer, 2, what=("upsert", story))  # the first part is written
        with pytest.raises(ServerError):
            writer.add(written(100, 40))
        fault.end()

    before_call(reader, method, begin)
    ids = reader.search(QUERIES, **arguments).ids
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
    backend.wait_until_visible(story)
    for client in (*clients, *fresh):
        assert_same_as(client, reference)
        client.close()


def test_two_processes_that_write_at_the_same_time_lose_nothing(backend, story):
    (reader,) = backend.clients(story, strong=True)
    reader.search(QUERIES, **SEARCH)
    running = [start_writer(address_for_others(backend), story, first, 4, 12) for first in (0, 1000)]
    ends = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], ends
    assert [errors for _, errors in ends] == ["", ""]
    reference = reference_of(*(written(first + 12 * n, 12, n) for first in (0, 1000) for n in range(4)))
    assert_same_as(reader, reference)
    reader.add(written(5000, 3))
    reference.add(written(5000, 3))
    assert_same_as(reader, reference)
    reader.close()


# processes that are killed


def test_a_client_killed_at_any_moment_loses_nothing_that_was_acknowledged(backend, story):
    rng = random.Random(5)
    size, stored = 15, []
    (observer,) = backend.clients(story, strong=True)
    for run in range(2 if backend.is_server else 3):
        process = start_writer(address_for_others(backend), story, 1000 * run, 60, size)
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        time.sleep(rng.uniform(2, 4) if backend.is_server else rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        lines, _ = process.communicate(timeout=60)
        acknowledged = lines.count("added")
        batches = [written(1000 * run + size * n, size, n) for n in range(acknowledged + 1)]
        exists = observer.contains(batches[-1].ids)
        assert exists.all() or not exists.any()
        stored += batches[: acknowledged + bool(exists.all())]
        if not exists.any():  # another client adds the batch, which replaces the rows that the killed client has left
            (again,) = backend.clients(story, strong=True)
            again.add(batches[-1])
            stored.append(batches[-1])
            again.close()
    assert_same_as(observer, reference_of(*stored))
    assert len(stored) > 2
    observer.close()


def test_an_embedded_server_killed_with_its_process_loses_nothing_that_was_acknowledged(tmp_path):
    skip_embedded()
    rng, path, stored = random.Random(6), str(tmp_path / "milvus.db"), []
    MilvusIndex.create(path, CONFIG, collection="killed").close()
    for run in range(2):
        process = start_writer(path, "killed", 1000 * run, 60, 15)
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        time.sleep(rng.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        lines, _ = process.communicate(timeout=60)
        batches = [written(1000 * run + 15 * n, 15, n) for n in range(lines.count("added") + 1)]
        with MilvusIndex.open(path, collection="killed") as index:
            exists = index.contains(batches[-1].ids)
            assert exists.all() or not exists.any()
            if not exists.any():
                index.add(batches[-1])
            stored += batches
    with MilvusIndex.open(path, collection="killed") as index:
        assert_same_as(index, reference_of(*stored))


# an index that is replaced


def test_a_client_of_a_dropped_index_writes_no_records_without_bounds_to_its_successor(backend):
    """A client that knows the bounds of the dropped index publishes bounds in its successor as well, or fails."""
    name = backend.unused()
    dropped = MilvusIndex.create(backend.uri, CONFIG, collection=name, strong=True)
    dropped.add(written(0, 20))
    MilvusIndex.drop(backend.uri, collection=name)
    with MilvusIndex.create(backend.uri, CONFIG, collection=name, strong=True) as new:
        new.add(written(100, 1))
        try:
            dropped.add(written(0, 20))
        except NotAnIndexError:
            dropped.close()
            return
        assert_same_as(new, reference_of(written(100, 1), written(0, 20)))
        dropped.close()
    MilvusIndex.drop(backend.uri, collection=name)
