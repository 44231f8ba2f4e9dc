"""The compiled search gives the results of `VectorisedSearch`, which answers queries that the kernel cannot decide."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import semcut
from semcut.indexes import BruteForceIndex, DamagedIndexError, Encodings, FaissIndex, IndexConfig, InvalidParameterError
from semcut.indexes.errors import install_hint
from semcut.indexes.kernels import kernel_cache
from semcut.indexes.pruning.cells import Cells
from semcut.indexes.scanners import lists_numba
from semcut.indexes.scoring.equations import Similarity, is_relevant, relevance
from semcut.indexes.scoring.rounding import relative_error
from semcut.indexes.search import compiled, search_numba
from semcut.indexes.search.compiled import CompiledSearch, bounds_of
from semcut.indexes.search.prune_numba import large_weights, prune, prune_workspace
from semcut.indexes.search_params import search_params
from tests.indexes.generate import (
    PROPERTY,
    World,
    assert_same,
    assert_shortlist,
    classified,
    each,
    filled,
    worlds,
)

CONFIG = IndexConfig(classes=40, bits=64, dim=8)


@numba.njit
def pruned(weights, cutoff, slack, bounds):
    workspace = prune_workspace(bounds.sizes.shape[0], bounds.starts.shape[0] - 1)
    large, tail = large_weights(weights, cutoff, workspace.large)
    counts = prune(weights, cutoff, slack, bounds, 0, large, tail, workspace)
    return workspace.kept[: counts[0]], workspace.certain[: counts[0]], counts


def kept_cells(cells: Cells, weights: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, tuple]:
    """Prune for one query by the kernel: return the (n,) kept cells, (n,) whether each is certain, and the counts."""
    found: tuple[np.ndarray, np.ndarray, tuple] = pruned(
        weights, cutoff, relative_error(cells.config.classes), bounds_of(cells)
    )
    return found


@PROPERTY
@given(world=worlds())
def test_pruning_keeps_every_cell_that_holds_a_relevant_record(world: World):
    cells, of_record = Cells.empty(world.config).extended(world.records.probabilities)
    cells.sizes[:] = np.bincount(of_record, minlength=len(cells))
    weights = Similarity(world.config).weights(world.queries.probabilities)
    for cutoff in world.cutoffs()[:6]:
        for s in weights:
            kept, certain, (count, codes, partitions) = kept_cells(cells, s, cutoff)
            relevant = is_relevant(relevance(s, world.records.probabilities), cutoff)
            assert np.isin(of_record[relevant], kept).all()
            assert relevant[np.isin(of_record, kept[certain])].all()
            assert count == len(np.unique(kept)) == len(kept)
            assert codes == cells.sizes[kept].sum()
            assert partitions == len(np.unique(cells.dominant()[kept]))


@pytest.mark.parametrize("weight", [1e-2, 1e-4, 1e-18, 1e-300, 1e-310, 0.0])
@pytest.mark.parametrize("cutoff", [0.0, 1e-40, 1e-19, 1e-5, 0.05])
def test_pruning_knows_queries_that_hardly_have_a_weight(weight, cutoff):
    """Such queries occur if the similarity has small values or zeros in all entries of a class."""
    records = np.array([[0.95, 0.05], [0.05, 0.95], [1, 0]], np.float32)
    cells, of_record = Cells.empty(IndexConfig(classes=2, bits=32, dim=1)).extended(records)
    weights = np.array([0.0, weight])
    kept, _, _ = kept_cells(cells, weights, cutoff)
    assert np.isin(of_record[is_relevant(relevance(weights, records), cutoff)], kept).all()


def test_pruning_keeps_hardly_more_than_all_bounds_of_all_cells_would():
    """Pruning by lists of cells keeps hardly more records than products with all envelopes."""
    rng = np.random.default_rng(0)
    records, queries = classified(rng, CONFIG, 20_000), classified(rng, CONFIG, 200)
    cells, _ = Cells.empty(CONFIG).extended(records.probabilities)
    weights = Similarity(CONFIG).weights(queries.probabilities)
    for cutoff in (0.05, 0.2, 0.5):
        found = sum(kept_cells(cells, s, cutoff)[2][1] for s in weights)
        assert found <= 1.1 * cells.prune(weights, cutoff).codes.sum()
    assert len(cells) > 300


def test_weights_and_distances_that_underflow():
    """Squares that are 0 or denormal in float32, and a weight whose reciprocal overflows."""
    config = IndexConfig(classes=2, bits=32, dim=1, similarity=[[1, 1e-310], [1e-310, 1]], stored_features="float32")
    reference = BruteForceIndex(config)
    index = FaissIndex.create(None, config, engine="compiled")
    features = np.array([3.3e-23, 3.2e-23, 3.1e-23, 1e-40, 2e-40], np.float32)[:, None]
    records = Encodings(
        probabilities=np.tile(np.array([0, 1], np.float32), (5, 1)),
        codes=np.zeros((5, 4), np.uint8),
        features=features,
        ids=np.arange(5),
    )
    for one in (reference, index):
        one.add(records)
    queries = Encodings(
        probabilities=np.array([[1, 0], [0, 1], [0, 1]], np.float32),
        codes=np.zeros((3, 4), np.uint8),
        features=np.array([[0], [0], [3.15e-23]], np.float32),
    )
    for k, cutoff in ((1, 0.0), (2, 0.0), (3, 0.2)):
        for shortlist in (None, 5):
            options = {"k": k, "cutoff": cutoff, "shortlist": shortlist}
            assert_same(index.search(queries, **options), reference.search(queries, **options))


@PROPERTY
@given(world=worlds(), doubt=st.sampled_from([1.0, 2.0**24, 2.0**40]))
def test_queries_in_doubt_are_answered_all_the_same(world: World, doubt: float):
    """Error bounds of sums are multiplied by `doubt`, up to a factor that leaves every query to `VectorisedSearch`."""
    brute_force = world.brute_force()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "_DOUBT", doubt)
        index = filled(FaissIndex.create(None, world.config, engine="compiled"), world.batches)
        assert isinstance(index._searchable._search, CompiledSearch)
        for cutoff, ranking in each(world):
            for k in (1, 7):
                expected = brute_force.search(world.queries, k=k, cutoff=cutoff, shortlist=None, ranking=ranking)
                found = index.search(world.queries, k=k, cutoff=cutoff, shortlist=None, ranking=ranking)
                assert_same(found, expected)
            found = index.search(world.queries, k=3, cutoff=cutoff, shortlist=5, ranking=ranking, fill=False)
            assert_shortlist(found, world, k=3, cutoff=cutoff, shortlist=5, ranking=ranking)


def test_of_records_with_the_same_code_those_that_are_surely_relevant_are_preferred():
    """If more records share a code than a shortlist has slots, the choice decides how relevant the answer is."""
    rng = np.random.default_rng(4)
    records = classified(rng, CONFIG, 20_000)
    records.codes[:] = 0
    queries = classified(rng, CONFIG, 100)
    index = filled(FaissIndex.create(None, CONFIG, engine="compiled"), [records])
    short, everything = (index.search(queries, k=10, cutoff=0.2, shortlist=n).relevance.mean() for n in (20, None))
    assert short > 1.1 * everything


def test_only_queries_in_doubt_are_left_to_the_vectorised_search(monkeypatch):
    rng = np.random.default_rng(1)
    index = FaissIndex.create(None, CONFIG, engine="compiled")
    index.add(classified(rng, CONFIG, 3000))
    queries, left = classified(rng, CONFIG, 300), []
    through = index._searchable._search._vectorised.answer
    monkeypatch.setattr(
        index._searchable._search._vectorised,
        "answer",
        lambda some, *rest: left.append(len(some)) or through(some, *rest),
    )
    for ranking in ("distance", "fused"):
        for shortlist in (20, None):
            index.search(queries, k=10, cutoff=0.2, shortlist=shortlist, ranking=ranking)
    assert sum(left) <= 2
    monkeypatch.setattr(compiled, "_DOUBT", 2.0**40)
    index.search(queries, k=10, cutoff=0.2, shortlist=20)
    assert max(left) > 250


def test_the_kernel_answers_when_the_rows_that_it_needs_were_compared_with_their_checksums(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    with FaissIndex.create(tmp_path / "index", CONFIG, engine="compiled") as index:
        index.add(classified(rng, CONFIG, 3000))
    queries, left = classified(rng, CONFIG, 40), []
    with FaissIndex.open(tmp_path / "index", engine="compiled") as index:
        search = index._searchable._search
        through = search._vectorised.answer
        monkeypatch.setattr(search._vectorised, "answer", lambda some, *rest: left.append(some) or through(some, *rest))
        for rounds, most in ((0, 1), (1000, 0)):
            monkeypatch.setattr(compiled, "_ROUNDS", rounds)
            found = index.search(queries[:20] if rounds else queries[20:21], k=10, cutoff=0.2, shortlist=20)
            assert len(left) == most
            left.clear()
    with FaissIndex.open(tmp_path / "index", engine="faiss") as index:
        assert_same(found, index.search(queries[:20], k=10, cutoff=0.2, shortlist=20))


def test_both_engines_give_the_same_of_a_stored_index_in_any_number_of_threads(tmp_path):
    rng = np.random.default_rng(2)
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        for first in range(0, 6000, 1000):
            index.add(classified(rng, CONFIG, 1000, first_id=first))
        index.remove(np.arange(0, 6000, 7))
    queries = classified(rng, CONFIG, 500)
    results = []
    for engine in ("faiss", "compiled"):
        with FaissIndex.open(tmp_path / "index", engine=engine) as index:
            results += [  # first with rows that were not compared with their checksums before, then with rows that were
                [index.search(queries, k=10, cutoff=0.1, shortlist=shortlist) for shortlist in (None, 15)]
                for _ in range(2)
            ]
            for shortlist, together in zip((None, 15), results[0], strict=True):
                for i in range(20):
                    alone = index.search(queries[i : i + 1], k=10, cutoff=0.1, shortlist=shortlist)
                    assert_same(alone, together.in_order(np.array([i])))
    for whole, short in results[1:]:
        assert_same(whole, results[0][0])
        assert_same(short, results[0][1])


def test_cells_that_contradict_the_lists_of_the_scanner_are_an_error_before_the_kernel_sees_them():
    with FaissIndex.create(None, CONFIG, engine="compiled") as index:
        index.add(classified(np.random.default_rng(0), CONFIG, 300))
        snapshot, scanner = index.snapshot, index._searchable.scanner
        queries = classified(np.random.default_rng(0), CONFIG, 300)[:2]
        params = search_params(5, 0.1, None, "distance")
        for change in (-1, 1):
            sizes = snapshot.cells.sizes.copy()
            sizes[3] += change
            cells = replace(snapshot.cells, sizes=sizes)
            with pytest.raises(DamagedIndexError, match="do not have the records"):
                CompiledSearch(snapshot.columns, cells, scanner, Similarity(CONFIG)).search(
                    queries, params, True, np.full(len(queries), 0.1)
                )


def test_kernels_are_compiled_once_whatever_the_arrays_are_like(tmp_path):
    """Arrays are in memory or mapped, read-only or not, with few or many records, for any number of classes or bits."""
    rng = np.random.default_rng(3)
    for path in (None, tmp_path / "index"):
        index = FaissIndex.create(path, CONFIG, engine="compiled")
        for first in (0, 1000, 2000):
            index.add(classified(rng, CONFIG, 1000, first_id=first))
        index.remove([3, 4])
        queries = classified(rng, CONFIG, 30)
        for array in (queries.codes, queries.features, queries.probabilities):
            array.flags.writeable = False
        for some in (queries, queries[:1], index.get(np.arange(10, 20))):
            for ranking in ("distance", "fused"):
                for shortlist in (20, None):
                    index.search(some, k=5, shortlist=shortlist, ranking=ranking)
        index.close()
    with FaissIndex.open(tmp_path / "index", engine="compiled") as index:
        index.search(queries)
    narrow = IndexConfig(classes=3, bits=40, dim=1)
    small = filled(FaissIndex.create(None, narrow, engine="compiled"), [classified(rng, narrow, 5)])
    small.search(classified(rng, narrow, 1), shortlist=10)
    for kernel in (
        search_numba.search,
        lists_numba.append,
        lists_numba.move,
        lists_numba.remove,
        lists_numba.search,
    ):
        assert len(kernel.signatures) <= 1, kernel


def test_the_engine_is_chosen_by_name_and_by_the_environment(monkeypatch):
    def engine_of(**options) -> str:
        return type(FaissIndex.create(None, CONFIG, **options).scanner).__name__

    monkeypatch.delenv("SEMCUT_ENGINE", raising=False)
    assert engine_of() == "NumbaScanner"
    monkeypatch.setenv("SEMCUT_ENGINE", "faiss")
    assert engine_of() == engine_of(engine="faiss") == "IvfScanner"
    assert engine_of(engine="compiled") == "NumbaScanner"
    with pytest.raises(
        InvalidParameterError, match=r"engine = 'fast', expected one of auto, compiled, faiss, torch, flat"
    ):
        FaissIndex.create(None, CONFIG, engine="fast")
    monkeypatch.setenv("SEMCUT_ENGINE", "fast")
    with pytest.raises(
        InvalidParameterError, match=r"SEMCUT_ENGINE = 'fast', expected one of compiled, faiss, torch, flat"
    ):
        FaissIndex.create(None, CONFIG)


def test_without_numba_faiss_is_used_and_asking_for_the_compiled_engine_says_what_to_install():
    script = """
import sys
sys.modules["numba"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "numba" else find(name, *rest)
from semcut.indexes import FaissIndex, IndexConfig, MissingDependencyError
config = IndexConfig(classes=2, bits=32, dim=2)
print(type(FaissIndex.create(None, config).scanner).__name__)
try:
    FaissIndex.create(None, config, engine="compiled")
except MissingDependencyError as error:
    print(error)
"""
    environment = {name: value for name, value in os.environ.items() if name != "SEMCUT_ENGINE"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == [
        "IvfScanner",
        f"numba is not installed, which the compiled engine needs: {install_hint('fast')}",
    ], done.stderr


def test_kernels_are_compiled_anew_when_another_file_of_theirs_has_changed(tmp_path):
    """The compiled code of a function also contains functions and constants from other files."""
    package = Path(semcut.__file__).parent
    shutil.copytree(package, tmp_path / "semcut", ignore=shutil.ignore_patterns("__pycache__"))
    script = """
import numpy as np
from semcut.indexes.kernels.jit import read_only
from semcut.indexes.scanners.lists_numba import search
from semcut.indexes.scanners.scan_numba import CodeLists
lists = CodeLists(np.zeros((1, 1), np.uint64), np.zeros(1, np.int32), np.zeros(1, np.int64), np.ones(1, np.int64))
rows, apart = np.full((1, 1), -1), np.zeros((1, 1), np.int32)
codes, cells = read_only(np.zeros((1, 1), np.uint64)), read_only(np.zeros((1, 1), np.int64))
search(codes, cells, lists, 64, rows, apart)
print(rows[0, 0], sum(search.stats.cache_hits.values()))
"""
    ready = kernel_cache.ready_directory()
    assert ready is not None
    shutil.copytree(ready, tmp_path / "cache" / ready.name)

    def run() -> list[str]:
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert run() == ["0", "1"]
    file = tmp_path / "semcut" / "indexes" / "scanners" / "scan_numba.py"
    text = file.read_text()
    body = "    hits = run = done = 0\n"  # of `find_hits`; little of what it calls is compiled if it returns at once
    changed = text.replace(body, f"    return 0\n{body}")
    assert changed != text
    file.write_text(changed)
    assert run() == ["-1", "0"]
