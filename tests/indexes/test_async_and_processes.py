"""An index beside an event loop, and in other processes: pickled, forked, spawned, in workers of a DataLoader."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut.indexes import Encodings, FaissIndex, IndexConfig, LockedError
from tests.indexes.generate import assert_same, assert_same_records, classified

CONFIG = IndexConfig(classes=5, bits=32, dim=8)
RECORDS = classified(np.random.default_rng(0), CONFIG, 400)
QUERIES = classified(np.random.default_rng(1), CONFIG, 6)


@pytest.fixture
def index(tmp_path: Path):
    with FaissIndex.create(tmp_path / "index", CONFIG, engine="faiss") as index:
        index.add(RECORDS)
        yield index


def found(index: FaissIndex) -> np.ndarray:
    return index.search(QUERIES, k=5).ids


# asynchronous


def test_an_event_loop_goes_on_during_a_search(index):
    async def main() -> tuple[Any, int]:
        turns = 0
        search = asyncio.create_task(index.asearch(QUERIES[np.arange(6).repeat(300)], k=5, cutoff=None))
        while not search.done():
            turns += 1
            await asyncio.sleep(0)
        return await search, turns

    result, turns = asyncio.run(main())
    np.testing.assert_array_equal(result.ids[::300], index.search(QUERIES, k=5, cutoff=None).ids)
    assert turns > 3


def test_errors_of_an_asynchronous_search_are_those_of_a_search(index):
    with pytest.raises(ValueError, match="k = 0"):
        asyncio.run(index.asearch(QUERIES, k=0))


# pickle and copy


def test_a_stored_index_is_pickled_by_its_path_and_options(index, tmp_path, monkeypatch):
    pickled = pickle.dumps(index)
    assert len(pickled) < 1000
    monkeypatch.chdir("/")
    with pickle.loads(pickled) as again, copy.copy(index) as copied:
        for other in (again, copied):
            assert_same(other.search(QUERIES, k=5), index.search(QUERIES, k=5))
            assert_same_records(other.get(RECORDS.ids), index.get(RECORDS.ids))
            assert other._options == index._options == {"durability": "batch", "engine": "faiss", "device": "cpu"}
            with pytest.raises(LockedError):  # the first one is the writer
                other.remove(RECORDS.ids[:1])


def test_postponed_changes_are_written_before_an_index_is_pickled(tmp_path):
    with FaissIndex.create(tmp_path / "index", CONFIG, durability="close") as index:
        index.add(RECORDS)
        with pickle.loads(pickle.dumps(index)) as again:
            assert len(again) == len(RECORDS)


# processes


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_search_the_index_that_they_are_given(index, method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        for ids in pool.map(found, [index] * 4):
            np.testing.assert_array_equal(ids, found(index))


class Neighbours:
    """A data set of torch whose items are searched when they are needed."""

    def __init__(self, index: FaissIndex, queries: Encodings) -> None:
        self.index, self.queries = index, queries

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, place: int) -> np.ndarray:
        return self.index.search(self.queries[[place]], k=5).ids[0]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_workers_of_a_data_loader_search_the_index_of_their_data_set(index, method):
    data = pytest.importorskip("torch.utils.data")
    loader = data.DataLoader(
        Neighbours(index, QUERIES), batch_size=2, num_workers=1, multiprocessing_context=method, collate_fn=np.stack
    )
    np.testing.assert_array_equal(np.concatenate(list(loader)), found(index))
