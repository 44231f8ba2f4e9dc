"""Each scanner returns the nearest codes of the given cells, compared with numpy over all of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcut.indexes import DamagedIndexError, FaissIndex
from semcut.indexes.scanners import hamming_faiss_cpu, hamming_faiss_gpu
from semcut.indexes.scanners.choose import apply_changes
from semcut.indexes.scanners.engine_names import available_engines
from semcut.indexes.scanners.hamming_faiss_cpu import IvfScanner
from semcut.indexes.scanners.hamming_faiss_gpu import FlatScanner
from semcut.indexes.scanners.hamming_numba_cpu import NumbaScanner
from semcut.indexes.scanners.hamming_torch_gpu import TorchScanner
from semcut.indexes.scanners.protocol import NO_RECORD
from semcut.indexes.scoring.equations import hamming
from tests.indexes.conftest import CONFIG
from tests.indexes.generate import PROPERTY, codes, threads

SCANNERS = {
    "faiss": IvfScanner,
    "compiled": NumbaScanner,
    "torch": TorchScanner,
    "torch, two devices": lambda bits: TorchScanner(bits, ["cpu", "cpu:0"]),
    "flat": FlatScanner,
}


@pytest.fixture(params=SCANNERS)
def kind(request, monkeypatch) -> type:
    """Return each scanner; "flat" has an index per cell, since it searches all cells that share an index."""
    monkeypatch.setattr(hamming_faiss_gpu, "MIN_CODES", 1)
    return SCANNERS[request.param]


def test_the_engines_for_the_cpu_are_available():
    assert available_engines() == ("compiled", "faiss")


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
        """Check that the rows are the nearest of the cells, each once, with their distances, nearest first, then -1."""
        candidates = np.isin(self.cells, cells[cells >= 0])
        distances = np.sort(hamming(query, self.codes[candidates]))[: len(found)]
        present = found[found >= 0]
        assert found.tolist() == [*present, *[-1] * (len(found) - len(present))]
        assert len(set(present.tolist())) == len(present)
        place = {row: at for at, row in enumerate(self.rows.tolist())}
        at = [place[row] for row in present.tolist()]
        assert candidates[at].all()
        assert hamming(query, self.codes[at]).tolist() == distances.tolist()
        assert apart.tolist() == [*distances, *[NO_RECORD] * (len(found) - len(present))]


def some_cells(rng: np.random.Generator, queries: int, cells: int, width: int) -> np.ndarray:
    """Return (queries, width) distinct cells in random order, of different lengths, padded with -1."""
    chosen = np.full((queries, width), -1, np.int64)
    for query in range(queries):
        count = int(rng.integers(0, min(width, cells) + 1))
        chosen[query, :count] = rng.permutation(cells)[:count]
    return chosen


def scanner_and_model(kind: type, rng: np.random.Generator, bits: int, cells: int, sizes: list[int]) -> tuple:
    """Return a scanner and a model with the same random codes, added in batches."""
    scanner, model, first = kind(bits), Model(bits), 0
    for size in sizes:
        batch = codes(rng, rng.integers(0, 3, size), bits)
        rows, lists = first + rng.permutation(size), rng.integers(0, cells, size)
        scanner.add(batch, rows, lists)
        model.add(batch, rows, lists)
        first += size
    return scanner, model


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
def test_a_scan_returns_the_nearest_codes_of_the_cells(kind, seed, bits, cells, sizes, queries, width, depth, counters):
    rng = np.random.default_rng(seed)
    scanner, model = scanner_and_model(kind, rng, bits, cells, sizes)
    targets = codes(rng, rng.integers(0, 3, queries), bits)
    known = int(model.cells.max(initial=0)) + 1  # later cells have no list: an index never searches them
    lists = some_cells(rng, queries, known, min(width, known))
    with threads(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming_faiss_cpu, "_COUNTER_BYTES", counters)
        found = scanner.search(targets, lists, depth)
    assert found.rows.shape == found.hamming.shape == (queries, depth)
    assert (found.rows.dtype, found.hamming.dtype) == (np.int64, np.int32)
    for query in range(queries):
        model.check(targets[query], lists[query], found.rows[query], found.hamming[query])


def test_lists_grow_with_the_number_of_cells_and_keep_their_codes(kind):
    rng = np.random.default_rng(0)
    scanner, model = kind(64), Model(64)
    for first, cells in ((0, 10), (500, 256), (1000, 257), (1500, 700), (2000, 5000)):
        batch, rows = rng.integers(0, 256, (500, 8), np.uint8), np.arange(first, first + 500)
        lists = rng.integers(0, cells, 500)
        lists[0] = cells - 1
        scanner.add(batch, rows, lists)
        model.add(batch, rows, lists)
        targets = rng.integers(0, 256, (5, 8), np.uint8)
        everywhere = np.tile(np.arange(cells), (5, 1))
        found = scanner.search(targets, everywhere, 20)
        for query in range(len(targets)):
            model.check(targets[query], everywhere[query], found.rows[query], found.hamming[query])


@PROPERTY
@given(seed=st.integers(0, 2**32 - 1), cells=st.integers(1, 400), rows=st.integers(1, 300))
def test_removed_codes_are_not_found_and_all_others_are(kind, seed, cells, rows):
    rng = np.random.default_rng(seed)
    codes, lists = rng.integers(0, 256, (rows, 4), np.uint8), rng.integers(0, cells, rows)
    scanner, alive = kind(32), np.ones(rows, bool)
    scanner.add(codes, np.arange(rows), lists)
    for _ in range(3):
        removed = np.flatnonzero(alive & (rng.random(rows) < 0.4))
        order = rng.permutation(removed)
        scanner.remove(order, lists[order])
        alive[removed] = False
        back = removed[rng.random(len(removed)) < 0.2]
        scanner.add(codes[back], back, lists[back])
        alive[back] = True
        everywhere = np.unique(lists)[None]
        found = scanner.search(codes[:1], everywhere, rows).rows[0]
        assert sorted(found[found >= 0].tolist()) == np.flatnonzero(alive).tolist()


def test_cells_of_more_codes_than_the_buffer_of_a_scan_holds(kind):
    """The scan fills its buffer several times, and stops and continues within a cell."""
    rng = np.random.default_rng(6)
    scanner, lists = kind(64), np.sort(rng.choice(3, 150_000, p=[0.2, 0.5, 0.3]))
    batch, targets = rng.integers(0, 256, (150_000, 8), np.uint8), rng.integers(0, 256, (3, 8), np.uint8)
    scanner.add(batch, np.arange(150_000), lists)
    found = scanner.search(targets, np.tile([1, 0, 2], (3, 1)), 300)
    for query in range(3):
        apart = hamming(targets[query], batch)
        np.testing.assert_array_equal(found.hamming[query], np.sort(apart)[:300])
        np.testing.assert_array_equal(apart[found.rows[query]], found.hamming[query])
        assert len(np.unique(found.rows[query])) == 300


def test_a_query_without_cells_finds_nothing(kind):
    scanner, _ = scanner_and_model(kind, np.random.default_rng(0), 64, 3, [20])
    padded = scanner.search(np.zeros((2, 8), np.uint8), np.full((2, 3), -1), 4)
    no_columns = scanner.search(np.zeros((2, 8), np.uint8), np.empty((2, 0), np.int64), 4)
    for found in (padded, no_columns):
        assert found.rows.tolist() == [[-1] * 4] * 2
        assert found.hamming.tolist() == [[NO_RECORD] * 4] * 2


def test_an_empty_engine_finds_nothing(kind):
    assert kind(32).search(np.zeros((1, 4), np.uint8), np.array([[0]]), 2).rows.tolist() == [[-1, -1]]


def test_adding_no_codes_changes_nothing(kind):
    scanner = kind(32)
    scanner.add(np.empty((0, 4), np.uint8), np.empty(0, np.int64), np.empty(0, np.int32))
    assert scanner.search(np.zeros((1, 4), np.uint8), np.array([[0]]), 1).rows.tolist() == [[-1]]


def test_codes_rows_and_cells_may_have_any_layout(kind):
    rng = np.random.default_rng(3)
    batch, lists = rng.integers(0, 256, (30, 8), np.uint8), rng.integers(0, 4, 30)
    plain, odd = kind(64), kind(64)
    plain.add(batch, np.arange(30), lists)
    odd.add(
        np.asfortranarray(batch), np.arange(0, 60, 2, dtype=np.int32) // 2, np.repeat(lists, 2)[::2].astype(np.int32)
    )
    targets, everywhere = batch[:3], np.tile(np.arange(4), (3, 1))
    expected = plain.search(targets, everywhere, 30)
    np.testing.assert_array_equal(odd.search(targets, everywhere, 30), expected)
    np.testing.assert_array_equal(odd.search(np.asfortranarray(targets), np.asfortranarray(everywhere), 30), expected)


def test_searches_of_different_widths_and_depths_may_run_at_once(kind):
    rng = np.random.default_rng(4)
    scanner, model = scanner_and_model(kind, rng, 64, 40, [2000])
    targets = rng.integers(0, 256, (6, 8), np.uint8)
    calls = [(some_cells(rng, 6, 40, width), depth) for width in (1, 5, 40) for depth in (1, 30, 300)] * 4
    with ThreadPoolExecutor(6) as pool:
        for (lists, depth), found in zip(
            calls, pool.map(lambda call: scanner.search(targets, *call), calls), strict=True
        ):
            assert found.rows.shape == (6, depth)
            for query in range(6):
                model.check(targets[query], lists[query], found.rows[query], found.hamming[query])


def test_all_rows_of_some_cells(kind):
    """`Scanner.rows` returns all rows of the cells, each with the cell that it is in."""
    rng = np.random.default_rng(5)
    scanner, lists = kind(32), rng.integers(0, 40, 500)
    scanner.add(codes(rng, lists, 32), np.arange(500), lists)
    scanner.remove(np.arange(0, 500, 3), lists[::3])
    cells = rng.permutation(40)[:15]
    rows, which = scanner.rows(cells)
    there = np.flatnonzero(np.isin(lists, cells) & (np.arange(500) % 3 > 0))
    np.testing.assert_array_equal(np.sort(rows), there)
    np.testing.assert_array_equal(cells[which], lists[rows])
    assert len(scanner.rows(cells[:0])[0]) == 0


def test_a_cell_that_no_scanner_knows_is_empty(kind):
    """FAISS and kernels would read and write outside of their lists; the number of a cell can come from a file."""
    rng = np.random.default_rng(0)
    scanner, words = kind(64), codes(rng, rng.integers(0, 3, 100), 64)
    beyond = np.array([10_000, 2**31 - 1])
    assert scanner.remove(np.arange(2), beyond) == 0
    scanner.add(words, np.arange(100), np.repeat([0, 2], 50))
    assert scanner.remove(np.array([3, 60]), beyond) == 0
    assert scanner.rows(np.array([10_000, 0]))[1].tolist() == [1] * 50
    found = scanner.search(words[:3], np.array([[0, 10_000], [2**31 - 1, -1], [2, 300]]), 60)
    assert (found.rows >= 0).sum(axis=1).tolist()[:2] == [50, 0]
    assert (found.rows[0] < 50).all()


def test_a_removal_says_how_many_codes_were_there(kind):
    """Rows that are not in the cell that the caller names stay where they are."""
    rng = np.random.default_rng(0)
    scanner = kind(64)
    scanner.add(codes(rng, rng.integers(0, 3, 100), 64), np.arange(100), np.repeat([0, 2], 50))
    assert scanner.remove(np.array([3, 60]), np.array([0, 0])) == 1
    assert scanner.remove(np.array([3]), np.array([0])) == 0
    assert scanner.remove(np.array([60]), np.array([2])) == 1
    assert len(scanner.rows(np.array([0, 2]))[0]) == 98


def test_a_removal_of_codes_that_are_not_there_is_an_error(kind, batch):
    with FaissIndex.create(None, CONFIG) as index:
        index.add(batch)
        scanner = kind(CONFIG.bits)
        with pytest.raises(DamagedIndexError, match="the codes of 2 removed records are not in their cells"):
            apply_changes(scanner, index.snapshot, np.arange(0), np.array([0, 3]))
