"""A change that fails or is interrupted leaves the index unchanged, or closes it if the effect is unknown."""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import (
    ClosedIndexError,
    Encodings,
    FaissIndex,
    InvalidParameterError,
    StorageError,
)
from tests.indexes.generate import assert_same, assert_same_records
from tests.indexes.storage.stored_index import (
    CONFIG,
    assert_holds,
    moved,
)


@contextmanager
def largest_file(size: int):
    """Let the system refuse to make files larger than this many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_untouched(index: FaissIndex, path: Path, batch: Encodings, result) -> None:
    """Assert that the open index and the stored one contain the batch, and that the next add works."""
    assert len(index) == len(batch)
    assert_same_records(index.get(batch.ids), batch)
    assert_same(index.search(batch, k=6, cutoff=0.0), result)
    assert_holds(path, batch)
    more = moved(batch, 5000)
    index.add(more)
    assert_holds(path, Encodings.concatenate([batch, more]))


def test_a_batch_that_does_not_fit_on_the_disk_is_not_added(path, batch):
    many = batch[np.zeros(10_000, int)]
    big = Encodings(
        probabilities=many.probabilities, codes=many.codes, features=many.features, ids=np.arange(100, 10_100)
    )
    with FaissIndex.open(path) as index:
        result = index.search(batch[:4], k=6, cutoff=0.0)
        with largest_file(100_000), pytest.raises(StorageError, match=r"File too large; free some space"):
            index.add(big)
        assert_untouched(index, path, batch[:4], result)


def test_a_batch_whose_uris_do_not_fit_on_the_disk_is_not_added(path, batch):
    one = batch[4:5]
    big = Encodings(
        probabilities=one.probabilities, codes=one.codes, features=one.features, ids=one.ids, uris=["x" * 10_000_000]
    )
    with FaissIndex.open(path) as index:
        result = index.search(batch[:4], k=6, cutoff=0.0)
        with largest_file(200_000), pytest.raises(StorageError, match="uri_bytes"):
            index.add(big)
        assert_untouched(index, path, batch[:4], result)


@pytest.mark.parametrize("name", ["pwrite", "fsync", "ftruncate"])
def test_a_batch_that_the_disk_refuses_is_not_added(path, batch, monkeypatch, name):
    def refuse(*_):
        raise OSError(5, "Input/output error")

    with FaissIndex.open(path) as index:
        result = index.search(batch[:4], k=6, cutoff=0.0)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            with pytest.raises(StorageError, match="Input/output error"):
                index.add(batch[4:])
        assert_untouched(index, path, batch[:4], result)


def test_an_interrupted_add_changes_nothing(path, batch, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with FaissIndex.open(path) as index:
        result = index.search(batch[:4], k=6, cutoff=0.0)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                index.add(batch[4:])
        assert_untouched(index, path, batch[:4], result)


def test_a_change_is_refused_while_a_compaction_reports_its_progress(path, batch):
    with FaissIndex.open(path) as index:
        with pytest.raises(InvalidParameterError, match="cannot be changed by its own progress callback"):
            index.compact(lambda done, total, task="": index.add(batch[4:]))
        assert len(index) == 4
        index.add(batch[4:])
    assert_holds(path, batch)


@pytest.mark.parametrize("change", ["add", "remove", "refresh"])
def test_an_index_whose_memory_was_changed_in_part_closes_itself(path, batch, monkeypatch, change):
    """The change itself was committed."""
    with FaissIndex.open(path) as index, FaissIndex.open(path) as writer:
        if change == "refresh":
            writer.add(batch[4:])

        def interrupt(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(type(index.scanner), "remove", interrupt)
            with pytest.raises(KeyboardInterrupt):
                {"add": lambda: index.add(batch[4:]), "remove": lambda: index.remove([10]), "refresh": index.refresh}[
                    change
                ]()
        with pytest.raises(ClosedIndexError):
            index.search(batch)
    with FaissIndex.open(path) as index:
        assert index.ids().tolist() == (batch.ids[1:4] if change == "remove" else batch.ids).tolist()
        assert index.verify() == []


def test_a_flush_that_fails_closes_the_index_and_is_not_tried_again(path, batch, monkeypatch):
    for action in (FaissIndex.flush, FaissIndex.compact, FaissIndex.close):
        index = FaissIndex.open(path, durability="close")
        index.add(batch[4:])
        assert len(index) == 6
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
            with pytest.raises(StorageError, match="Input/output error"):
                action(index)
        with pytest.raises(ClosedIndexError):
            index.flush()
        index.close()
        assert_holds(path, batch[:4])


def test_what_is_read_after_closing_is_an_error_not_the_content_of_another_file(path, batch, monkeypatch):
    monkeypatch.setattr(
        "semcut.indexes.storage.mapped_columns._MAPPED_BYTES", 0
    )  # as if the columns were too large to stay mapped
    with FaissIndex.open(path) as index:
        parts = index.iterate(1)
        next(parts)
    with FaissIndex.create(path.with_name("other"), CONFIG) as other:
        other.add(moved(batch, 1000))
        with pytest.raises(ClosedIndexError):
            next(parts)
