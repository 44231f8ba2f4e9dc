"""Every public function of an index, called with every kind of wrong value: one sentence of semcut, nothing left."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut.indexes import (
    BruteForceIndex,
    Encodings,
    FaissIndex,
    IndexConfig,
    InvalidEncodingsError,
    InvalidParameterError,
    Records,
    SearchParams,
    SearchResult,
    SearchTrace,
    SemcutError,
    averaged_records,
    expanded_queries,
    joined_query,
    near_duplicates,
)
from semcut.indexes.attributes.expressions import attribute
from semcut.indexes.attributes.selections import Among
from semcut.indexes.encodings import SUM_TOLERANCE
from tests.indexes.generate import assert_same, classified

torch = pytest.importorskip("torch")

CONFIG = IndexConfig(classes=4, bits=32, dim=4, attributes={"price": "float"})

WRONG = [
    None, True, np.True_, np.int64(3), np.float32(3), 3.5, "3", "", b"3", "a\0b", "\udcff", float("nan"), float("inf"),
    -1, 0, 10**30, -(10**30), 1j, [3], [[1], [1, 2]], (), {}, {1}, object(), Exception, np.array(3), np.array([3.0]),
    np.array([None]), np.ma.masked_array([1, 2], mask=[0, 1]), np.zeros(3, "M8[s]"), Path("none"), iter([1]),
    torch.tensor(3), torch.ones(3).requires_grad_(), torch.ones(2, 4).bfloat16(), torch.eye(3).to_sparse(),
    torch.empty(2, device="meta"),
]  # fmt: skip


def records(rows: int = 20) -> Encodings:
    return classified(np.random.default_rng(0), CONFIG, rows)


def calls(path: Path) -> list[tuple[str, Callable[..., Any], dict[str, Any]]]:
    """Return every public function with valid arguments, one of which a test replaces."""
    index, reference, batch = FaissIndex.create(None, CONFIG), BruteForceIndex(CONFIG), records()
    index.add(batch)
    reference.add(batch)
    result = index.search(batch)
    arrays = {
        name: getattr(batch, name) for name in ("probabilities", "codes", "features", "ids", "uris", "attributes")
    }
    how = {"durability": "batch", "engine": "faiss", "device": "cpu"}
    functions: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (Encodings, arrays),
        (Encodings.concatenate, {"batches": [batch]}),
        (Records.of, {"encodings": batch}),
        (batch.__getitem__, {"rows": [1]}),
        (
            IndexConfig,
            {"classes": 4, "bits": 32, "dim": 4, "prior": None, "similarity": None, "groups": 0, "attributes": {}},
        ),
        (SearchParams, {"k": 1, "cutoff": 0.2, "shortlist": 10, "ranking": "fused"}),
        (FaissIndex.create, {"path": None, "config": CONFIG, **how}),
        (FaissIndex.open, {"path": path, **how}),
        (BruteForceIndex, {"config": CONFIG}),
        (index.similarity.weights, {"probabilities": batch.probabilities}),
        (result.__getitem__, {"query": 0}),
        (index.search_range(batch, radius=1).__getitem__, {"query": 0}),
        (expanded_queries, {"index": index, "queries": batch, "found": result, "power": 3.0}),
        (averaged_records, {"index": index, "neighbours": 1, "power": 3.0, "shortlist": 10, "progress": None}),
        (joined_query, {"queries": batch, "less_like": batch, "weight": 0.5}),
        (
            near_duplicates,
            {
                "index": index,
                "max_hamming": 3,
                "max_distance": 0.5,
                "everywhere": False,
                "progress": None,
            },
        ),
        (result.to_frame, {"library": None}),
        (attribute, {"name": "price"}),
        (attribute("price").__lt__, {"value": 3}),
        (attribute("price").isin, {"values": [3]}),
        (attribute("price").contains_any, {"categories": ["x"]}),
        (Among, {"ids": [1]}),
    ]
    valid = {
        "queries": batch, "encodings": batch[:0], "k": 3, "cutoff": 0.2, "shortlist": 10, "ranking": "distance",
        "fill": True, "where": "price < 3", "among": [1, 2],
        "exclude_self": False, "diversity": 0.0, "radius": 1.0, "by": "distance",
        "trace": None, "ids": [], "batch_size": 10, "after": -1, "partition": 0, "limit": 3, "ambiguous": False,
        "progress": None, "path": path.with_name("backup"),
    }  # fmt: skip
    for one in (index, reference):
        for name, function in inspect.getmembers(one, inspect.ismethod):
            names = list(inspect.signature(function).parameters)
            if not name.startswith("_") and name not in ("create", "open", "close", "backup", "asearch"):
                functions.append((function, {given: valid[given] for given in names}))
    functions.append((index.backup, {"path": path.with_name("backup"), "progress": None}))
    return [(function.__qualname__, function, arguments) for function, arguments in functions]


@pytest.mark.filterwarnings("ignore:Converting a tensor:UserWarning")
def test_a_wrong_value_is_one_sentence_of_semcut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FaissIndex.create("index", CONFIG).close()
    place = tmp_path / "index"
    before = sorted(file.name for file in place.rglob("*"))
    tried, foreign = 0, []
    for name, function, arguments in calls(place):
        for argument in arguments:
            for value in WRONG:
                tried += 1
                try:
                    done = function(**{**arguments, argument: value})
                    for _ in done if inspect.isgenerator(done) or isinstance(done, map) else ():
                        pass
                    if isinstance(done, FaissIndex):
                        done.close()
                except SemcutError as error:
                    if "\n" in str(error) or len(str(error)) > 400:
                        foreign.append((name, argument, repr(value)[:40], str(error)))
                except IndexError as error:
                    if "there is no" not in str(error):
                        foreign.append((name, argument, repr(value)[:40], repr(error)))
                except Exception as error:
                    foreign.append((name, argument, repr(value)[:40], repr(error)[:200]))
    assert foreign == []
    assert tried > 1500
    assert sorted(file.name for file in place.rglob("*")) == before


# tensors, which are taken as arrays


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("gradients", [False, True])
def test_tensors_are_arrays(dtype: Any, gradients: bool) -> None:
    logits = torch.randn(50, 100, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_(gradients)
    features = torch.nn.functional.normalize(logits.float(), dim=1).to(dtype)
    batch = Encodings(
        probabilities=torch.softmax(logits, 1), codes=torch.zeros(50, 4, dtype=torch.uint8), features=features,
        ids=torch.arange(50),
    )  # fmt: skip
    np.testing.assert_allclose(batch.features, features.detach().float().numpy(), rtol=1e-6)
    assert np.abs(batch.probabilities.sum(axis=1, dtype=float) - 1).max() <= SUM_TOLERANCE
    assert batch.ids is not None
    assert batch.ids.tolist() == list(range(50))


def test_masked_values_are_refused_and_a_mask_without_any_is_not() -> None:
    batch = records(2)
    given = {"probabilities": batch.probabilities, "codes": batch.codes, "features": batch.features}
    for name, values in given.items():
        Encodings(**{**given, name: np.ma.masked_array(values, mask=False)})
        with pytest.raises(InvalidEncodingsError, match=f"{name} have masked values"):
            Encodings(**{**given, name: np.ma.masked_array(values, mask=values == values[0, 0])})


# probabilities that were rounded


@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
@pytest.mark.parametrize("how", ["2 decimals", "3 decimals", "4 decimals", "bfloat16", "float16"])
def test_rounded_probabilities_are_scaled(classes: int, how: str) -> None:
    rng = np.random.default_rng(classes)
    exact = torch.softmax(torch.from_numpy(rng.normal(0, 4, (200, classes))), 1)
    if "decimals" in how:
        given = np.round(exact.numpy(), int(how[0]))
        given = given[given.sum(axis=1) >= 0.5]
    else:
        given = exact.to(getattr(torch, how)).float().numpy()
    before = given.copy()
    batch = Encodings(probabilities=given, codes=np.zeros((len(given), 4), np.uint8), features=np.ones((len(given), 2)))
    assert len(batch) > 100
    assert np.abs(batch.probabilities.sum(axis=1, dtype=float) - 1).max() <= SUM_TOLERANCE
    expected = before / before.sum(axis=1, keepdims=True)
    near = np.abs(before.astype(np.float32).sum(axis=1, dtype=float) - 1) <= SUM_TOLERANCE
    np.testing.assert_allclose(batch.probabilities[~near], expected[~near], rtol=1e-6)
    np.testing.assert_array_equal(batch.probabilities[near], before[near].astype(np.float32))
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize(
    "row",
    [[0.9, 0.8, 0.1, 0.0], [0.2, 0.2, 0.05, 0.0], [1.0, 0.02, 0.0, 0.0], [0.123456, 0.8, 0.05, 0], [3.0, 0, 0, 0]],
)
def test_what_rounding_does_not_explain_is_refused(row: list[float]) -> None:
    with pytest.raises(InvalidEncodingsError, match=r"row 0 sum to .*(divide each row|apply a softmax)"):
        Encodings(probabilities=np.array([row]), codes=np.zeros((1, 4), np.uint8), features=np.ones((1, 2)))


def test_scaled_values_are_what_every_index_stores_and_searches() -> None:
    batch = records(200)
    rounded = Encodings(
        probabilities=np.round(batch.probabilities, 2), codes=batch.codes, features=batch.features, ids=batch.ids
    )
    index, reference = FaissIndex.create(None, CONFIG), BruteForceIndex(CONFIG)
    for one in (index, reference):
        one.add(rounded)
        np.testing.assert_array_equal(one.get(rounded.ids).probabilities, rounded.probabilities)
    for cutoff in (0.0, 0.2, 0.5):
        given = {"k": 20, "cutoff": cutoff, "shortlist": None}
        assert_same(index.search(rounded, **given), reference.search(rounded, **given))


# pickle and copy


@pytest.mark.parametrize("copying", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_index_in_memory_and_its_result_cannot_be_pickled_or_copied(copying: Callable[[Any], Any]) -> None:
    for index in (FaissIndex.create(None, CONFIG), BruteForceIndex(CONFIG)):
        index.add(records())
        result = index.search(records())
        for thing, message in ((index, "in memory or on a server cannot be pickled"), (result, r"use to_dicts\(\)")):
            with pytest.raises(InvalidParameterError, match=message):
                copying(thing)
        assert len(index) == 20
    assert len(copying(SearchResult.empty(1, 1))) > 0
    assert len(copying(records())) > 0
    assert SearchTrace is not None
