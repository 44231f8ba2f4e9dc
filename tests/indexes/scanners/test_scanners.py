"""Each engine gives the nearest codes of the given cells: compared with numpy over all of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes.scanners import faiss_flat, faiss_ivf
from semcut.indexes.scanners.faiss_flat import FlatScanner
from semcut.indexes.scanners.faiss_ivf import IvfScanner
from semcut.indexes.scanners.numba_lists import NumbaScanner
from semcut.indexes.scanners.protocol import NOWHERE, available
from semcut.indexes.scanners.torch_gpu import TorchScanner
from semcut.indexes.scoring.equations import hamming
from tests.indexes.generate import PROPERTY, codes, threads

ENGINES = {
    "faiss": IvfScanner,
    "compiled": NumbaScanner,
    "torch": TorchScanner,
    "torch, two devices": lambda bits: TorchScanner(bits, ["cpu", "cpu:0"]),
    "flat": FlatScanner,
}


@pytest.fixture(params=ENGINES)
def kind(request, monkeypatch) -> type:
    """Each engine; where cells share shelves, "flat" also finds what it was not asked for."""
    monkeypatch.setattr(faiss_flat, "SHELF", 1)
    return ENGINES[request.param]


def test_the_engines_for_the_processor_are_there():
    assert available() == ("compiled", "faiss")


class Model:
    """Codes, rows and cells, in plain arrays."""

    def __init__(self, bits: int) -> None:
        self.codes = np.empty((0, bits // 8), np.uint8)
        self.rows = np.empty(0, np.int64)
        self.cells = np.empty(0, np.int64)

    def add(self, codes: np.ndarray, rows: np.ndarray, cells: np.ndarray) -> None:
        self.codes = np.concatenate([self.codes, codes])
        self.rows = np.concatenate([self.rows, rows])
        self.cells = np.concatenate([self.cells, cells])

    def check(self, query: np.ndarray, cells: np.ndarray, found: np.ndarray, apart: np.ndarray) -> None:
        """The rows found are the nearest of the cells, each once, with their distances, nearest first, then -1."""
        candidates = np.isin(self.cells, cells[cells >= 0])
        distances = np.sort(hamming(query, self.codes[candidates]))[: len(found)]
        present = found[found >= 0]
        assert found.tolist() == [*present, *[-1] * (len(found) - len(present))]
        assert len(set(present.tolist())) == len(present)
        place = {row: at for at, row in enumerate(self.rows.tolist())}
        at = [place[row] for row in present.tolist()]
        assert candidates[at].all()
        assert hamming(query, self.codes[at]).tolist() == distances.tolist()
        assert apart.tolist() == [*distances, *[NOWHERE] * (len(found) - len(present))]


def some_cells(rng: np.random.Generator, queries: int, cells: int, width: int) -> np.ndarray:
    """(queries, width) different cells, padded with -1 to different lengths, in no order."""
    chosen = np.full((queries, width), -1, np.int64)
    for query in range(queries):
        count = int(rng.integers(0, min(width, cells) + 1))
        chosen[query, :count] = rng.permutation(cells)[:count]
    return chosen


def both(kind: type, rng: np.random.Generator, bits: int, cells: int, sizes: list[int]) -> tuple:
    """An engine and a model with the same random codes, in batches."""
    engine, model, first = kind(bits), Model(bits), 0
    for size in sizes:
        batch = codes(rng, rng.integers(0, 3, size), bits)
        rows, lists = first + rng.permutation(size), rng.integers(0, cells, size)
        engine.add(batch, rows, lists)
        model.add(batch, rows, lists)
        first += size
    return engine, model


@PROPERTY
@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.sampled_from([32, 40, 64, 72, 128, 256, 512, 1024]),
    cells=st.sampled_from([1, 2, 7, 256, 300, 900]),
    sizes=st.lists(st.integers(0, 100), min_size=1, max_size=4),
    queries=st.integers(1, 7),
    width=st.integers(0, 9),
    depth=st.sampled_from([1, 2, 10, 500]),
    counters=st.sampled_from([1, 1 << 24]),
)
def test_the_engine_gives_the_nearest_codes_of_the_cells(
    kind, seed, bits, cells, sizes, queries, width, depth, counters
):
    rng = np.random.default_rng(seed)
    engine, model = both(kind, rng, bits, cells, sizes)
    asked = codes(rng, rng.integers(0, 3, queries), bits)
    known = int(model.cells.max(initial=0)) + 1  # cells beyond have no list: an index never asks for them
    lists = some_cells(rng, queries, known, min(width, known))
    with threads(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss_ivf, "_COUNTER_BYTES", counters)
        found = engine.search(asked, lists, depth)
    assert found.rows.shape == found.hamming.shape == (queries, depth)
    assert (found.rows.dtype, found.hamming.dtype) == (np.int64, np.int32)
    for query in range(queries):
        model.check(asked[query], lists[query], found.rows[query], found.hamming[query])


def test_lists_are_made_as_cells_come_and_keep_what_they_hold(kind):
    rng = np.random.default_rng(0)
    engine, model = kind(64), Model(64)
    for first, cells in ((0, 10), (500, 256), (1000, 257), (1500, 700), (2000, 5000)):
        batch, rows = rng.integers(0, 256, (500, 8), np.uint8), np.arange(first, first + 500)
        lists = rng.integers(0, cells, 500)
        lists[0] = cells - 1
        engine.add(batch, rows, lists)
        model.add(batch, rows, lists)
        asked = rng.integers(0, 256, (5, 8), np.uint8)
        everywhere = np.tile(np.arange(cells), (5, 1))
        found = engine.search(asked, everywhere, 20)
        for query in range(len(asked)):
            model.check(asked[query], everywhere[query], found.rows[query], found.hamming[query])


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), cells=st.integers(1, 400), rows=st.integers(1, 300))
def test_removed_codes_are_not_found_and_all_others_are(kind, seed, cells, rows):
    rng = np.random.default_rng(seed)
    codes, lists = rng.integers(0, 256, (rows, 4), np.uint8), rng.integers(0, cells, rows)
    engine, alive = kind(32), np.ones(rows, bool)
    engine.add(codes, np.arange(rows), lists)
    for _ in range(3):
        gone = np.flatnonzero(alive & (rng.random(rows) < 0.4))
        order = rng.permutation(gone)
        engine.remove(order, lists[order])
        alive[gone] = False
        back = gone[rng.random(len(gone)) < 0.2]
        engine.add(codes[back], back, lists[back])
        alive[back] = True
        everywhere = np.unique(lists)[None]
        found = engine.search(codes[:1], everywhere, rows).rows[0]
        assert sorted(found[found >= 0].tolist()) == np.flatnonzero(alive).tolist()


def test_cells_of_more_codes_than_are_compared_at_a_time(kind):
    """A scan that goes through its buffer several times, and ends and begins within a cell."""
    rng = np.random.default_rng(6)
    engine, lists = kind(64), np.sort(rng.choice(3, 150_000, p=[0.2, 0.5, 0.3]))
    batch, asked = rng.integers(0, 256, (150_000, 8), np.uint8), rng.integers(0, 256, (3, 8), np.uint8)
    engine.add(batch, np.arange(150_000), lists)
    found = engine.search(asked, np.tile([1, 0, 2], (3, 1)), 300)
    for query in range(3):
        apart = hamming(asked[query], batch)
        np.testing.assert_array_equal(found.hamming[query], np.sort(apart)[:300])
        np.testing.assert_array_equal(apart[found.rows[query]], found.hamming[query])
        assert len(np.unique(found.rows[query])) == 300


def test_a_query_without_cells_finds_nothing(kind):
    engine, _ = both(kind, np.random.default_rng(0), 64, 3, [20])
    nothing = engine.search(np.zeros((2, 8), np.uint8), np.full((2, 3), -1), 4)
    nowhere = engine.search(np.zeros((2, 8), np.uint8), np.empty((2, 0), np.int64), 4)
    for found in (nothing, nowhere):
        assert found.rows.tolist() == [[-1] * 4] * 2
        assert found.hamming.tolist() == [[NOWHERE] * 4] * 2


def test_an_empty_engine_finds_nothing(kind):
    assert kind(32).search(np.zeros((1, 4), np.uint8), np.array([[0]]), 2).rows.tolist() == [[-1, -1]]


def test_adding_no_codes_changes_nothing(kind):
    engine = kind(32)
    engine.add(np.empty((0, 4), np.uint8), np.empty(0, np.int64), np.empty(0, np.int32))
    assert engine.search(np.zeros((1, 4), np.uint8), np.array([[0]]), 1).rows.tolist() == [[-1]]


def test_codes_rows_and_cells_of_any_layout_are_taken(kind):
    rng = np.random.default_rng(3)
    batch, lists = rng.integers(0, 256, (30, 8), np.uint8), rng.integers(0, 4, 30)
    plain, odd = kind(64), kind(64)
    plain.add(batch, np.arange(30), lists)
    odd.add(
        np.asfortranarray(batch), np.arange(0, 60, 2, dtype=np.int32) // 2, np.repeat(lists, 2)[::2].astype(np.int32)
    )
    asked, everywhere = batch[:3], np.tile(np.arange(4), (3, 1))
    expected = plain.search(asked, everywhere, 30)
    np.testing.assert_array_equal(odd.search(asked, everywhere, 30), expected)
    np.testing.assert_array_equal(odd.search(np.asfortranarray(asked), np.asfortranarray(everywhere), 30), expected)


def test_searches_of_different_widths_and_depths_may_run_at_once(kind):
    rng = np.random.default_rng(4)
    engine, model = both(kind, rng, 64, 40, [2000])
    asked = rng.integers(0, 256, (6, 8), np.uint8)
    calls = [(some_cells(rng, 6, 40, width), depth) for width in (1, 5, 40) for depth in (1, 30, 300)] * 4
    with ThreadPoolExecutor(6) as pool:
        for (lists, depth), found in zip(calls, pool.map(lambda call: engine.search(asked, *call), calls), strict=True):
            assert found.rows.shape == (6, depth)
            for query in range(6):
                model.check(asked[query], lists[query], found.rows[query], found.hamming[query])


def test_all_rows_of_some_cells(kind):
    """The seam that looks at every record: all rows of the cells, each with the cell that it is in."""
    rng = np.random.default_rng(5)
    engine, lists = kind(32), rng.integers(0, 40, 500)
    engine.add(codes(rng, lists, 32), np.arange(500), lists)
    engine.remove(np.arange(0, 500, 3), lists[::3])
    cells = rng.permutation(40)[:15]
    rows, which = engine.rows(cells)
    there = np.flatnonzero(np.isin(lists, cells) & (np.arange(500) % 3 > 0))
    np.testing.assert_array_equal(np.sort(rows), there)
    np.testing.assert_array_equal(cells[which], lists[rows])
    assert len(engine.rows(cells[:0])[0]) == 0
