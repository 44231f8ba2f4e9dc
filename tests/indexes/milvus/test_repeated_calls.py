"""Changes may fail at any call to the server: clients then see whole records, and a repeated change is completed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from semcut.indexes import BruteForceIndex, DuplicateIdError, Encodings, ServerError
from semcut.indexes.milvus import MilvusIndex, schema, shared_state
from tests.indexes.generate import assert_same_records
from tests.indexes.milvus.clients import QUERIES, SEARCH, SMALL_CALL, FailingCall, assert_same_as, reference_of, written
from tests.indexes.milvus.pool import Backend

pytestmark = pytest.mark.milvus


def failing_calls(
    backend: Backend, name: str, base: Encodings, *, after: bool
) -> Iterator[tuple[MilvusIndex, MilvusIndex, MilvusIndex, FailingCall]]:
    """Make one call after another fail, until a change has no more calls.

    Yields:
        The client whose call fails, of an index with the records of `base`; an observer; the client that repeats the
        change, which is the first client or a third one; and the failing call.
    """
    step = 7 if backend.is_server else 2  # each turn takes seconds on a server
    for turn, number in enumerate(range(1 + after, 60, step)):
        backend.empty(name)
        clients = backend.clients(name, 3)
        client, observer = clients[:2]
        client.add(base)
        backend.wait_until_visible(name)
        observer.search(QUERIES, **SEARCH)
        fault = FailingCall(client, number, after=after)
        yield client, observer, clients[0 if turn % 2 else 2], fault
        for one in clients:
            one.close()
        if not fault.failed:
            assert turn > 0  # the layouts of servers take different numbers of calls
            return
    pytest.fail("there are more calls")


ANSWER_LOST = pytest.mark.parametrize("after", [False, True], ids=["not done", "done, answer lost"])


@ANSWER_LOST
def test_an_add_may_fail_at_any_call_and_be_repeated(backend, story, monkeypatch, after):
    """No reader sees a record of a batch that failed; adding the batch again completes it, from any client."""
    monkeypatch.setattr(schema, "_CALL_BYTES", SMALL_CALL)
    base, batch = written(0, 10), written(100, 20, change=2)
    before, whole, less = reference_of(base), reference_of(base, batch), reference_of(base[1:], batch)
    for client, observer, repeats, fault in failing_calls(backend, story, base, after=after):
        if not fails(fault, lambda client=client: client.add(batch)):
            backend.wait_until_visible(story)
            assert_same_as(observer, whole)
            assert_same_as(client, whole)
            continue
        backend.wait_until_visible(story)
        complete = bool(observer.contains(batch.ids).any())
        assert complete <= after  # only the answer of the last call was lost
        assert_same_as(observer, whole if complete else before)
        if complete:
            with pytest.raises(DuplicateIdError):
                repeats.add(batch)
        else:
            assert_same_as(client, before)
            repeats.add(batch)
        backend.wait_until_visible(story)
        for one in (repeats, observer):
            assert_same_as(one, whole)
        client.remove([0])  # the next change of the client that failed keeps the batch
        backend.wait_until_visible(story)
        assert_same_as(observer, less)


def fails(fault: FailingCall, change: Callable[[], None]) -> bool:
    """Make a change and return whether it failed; all later calls succeed."""
    try:
        change()
    except ServerError:
        assert fault.failed
    fault.end()
    return fault.failed


@ANSWER_LOST
def test_an_upsert_may_fail_at_any_call_and_be_repeated(backend, story, monkeypatch, after):
    """Each record has its previous or its new content; repeating the upsert completes it, from any client."""
    monkeypatch.setattr(schema, "_CALL_BYTES", SMALL_CALL)
    base, batch = written(0, 10), written(4, 20, change=2)  # 6 are in the index, 14 are not
    before, whole = reference_of(base), reference_of(base)
    whole.upsert(batch)
    for client, observer, repeats, fault in failing_calls(backend, story, base, after=after):
        if fails(fault, lambda client=client: client.upsert(batch)):
            backend.wait_until_visible(story)
            for one in (client, observer):
                ids = one.ids()
                assert set(range(10)) <= set(ids.tolist()) <= set(range(24))
                found = one.get(ids)
                assert_same_as(
                    one, reference_of(*(previous_or_new(found[[at]], before, whole) for at in range(len(ids))))
                )
            repeats.upsert(batch)
        backend.wait_until_visible(story)
        for one in (repeats, observer):
            assert_same_as(one, whole)


def previous_or_new(found: Encodings, *possible: BruteForceIndex) -> Encodings:
    """Check that the record is one of those in the `possible` indexes, and return it."""
    for one in possible:
        if one.contains(found.ids)[0] and np.array_equal(one.get(found.ids).features, found.features):
            assert_same_records(found, one.get(found.ids))
            return found
    raise AssertionError(f"record {found.ids[0]} has a content that was never written")


@ANSWER_LOST
def test_a_removal_may_fail_at_any_call_and_be_repeated(backend, story, monkeypatch, after):
    """Each record exists or does not; repeating the removal completes it, from any client."""
    monkeypatch.setattr("semcut.indexes.milvus.writer.IDS_PER_FILTER", 4)
    base, removed = written(0, 20), np.arange(0, 20, 2)
    whole = reference_of(base[1::2])
    for client, observer, repeats, fault in failing_calls(backend, story, base, after=after):
        if fails(fault, lambda client=client: client.remove(removed)):
            backend.wait_until_visible(story)
            for one in (client, observer):
                exists = one.contains(np.arange(20))
                assert exists[1::2].all()
                assert_same_as(one, reference_of(base[exists]))
            if exists[removed].any():
                repeats.remove(removed if repeats is client else removed[exists[removed]])
        backend.wait_until_visible(story)
        for one in (repeats, observer):
            assert_same_as(one, whole)


def test_the_unfinished_batch_of_a_client_that_crashed_long_ago_is_deleted(backend, story, monkeypatch):
    monkeypatch.setattr(schema, "_CALL_BYTES", SMALL_CALL)
    dead, observer = backend.clients(story, 2)
    dead.add(written(0, 5))
    FailingCall(dead, 2, what=("upsert", story))
    with pytest.raises(ServerError):
        dead.add(written(100, 40))
    backend.wait_until_visible(story)
    assert len(observer) == 5
    left = backend.server.count(story, "id >= 100", strong=True)
    assert 0 < left < 40
    (early,) = backend.clients(story)
    early.add(written(10, 1))
    assert backend.server.count(story, "id >= 100", strong=True) == left  # the client may still be alive
    monkeypatch.setattr(shared_state, "_ABANDONED_AFTER", -1)
    (late,) = backend.clients(story)
    late.add(written(20, 1))
    assert backend.server.count(story, "id >= 100", strong=True) == 0
    reference = reference_of(written(0, 5), written(10, 1), written(20, 1))
    backend.wait_until_visible(story)
    for one in (observer, early, late):
        assert_same_as(one, reference)
        one.close()
    dead._server.close()
    dead._pool.shutdown()
