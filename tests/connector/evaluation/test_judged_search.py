"""Figures of searches for the same thing equal slow formulas over the answers of brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from semcut.connector.evaluation.judged_search import compare_searches
from semcut.connector.ground_truth.judged_records import JudgedIds
from semcut.indexes import BruteForceIndex, DataError, Encodings, FaissIndex, IndexConfig, InvalidParameterError
from semcut.indexes.search_params import SearchParams
from tests.connector.evaluation.conftest import CONFIG, Data
from tests.connector.evaluation.test_metrics import compute_ap, slow_average_precision

Levels = dict[str, list[JudgedIds]]


@pytest.fixture(scope="module")
def levels(data: Data) -> Levels:
    """Judge random records; one query has nothing relevant at the second level."""
    rng = np.random.default_rng(5)

    def judged(relevant: int, junk: int) -> JudgedIds:
        ids = rng.permutation(300)[: relevant + junk]
        return JudgedIds(np.sort(ids[:relevant]), np.sort(ids[relevant:]))

    first = [judged(int(rng.integers(1, 30)), int(rng.integers(0, 40))) for _ in range(20)]
    second = [judged(0 if query == 4 else 6, 20) for query in range(20)]
    return {"easy": first, "hard": second}


def slow(ids: np.ndarray, judged: JudgedIds, *, trapezoid: bool, k: int | None = None) -> tuple[float, int]:
    """Return the average precision, and the right ones among the first four, of an answer."""
    relevant, junk = set(judged.relevant.tolist()), set(judged.junk.tolist())
    kept = [one for one in ids.tolist() if one >= 0 and one not in junk]
    four = sum(one in relevant for one in kept[:4])
    kept = kept[:k]
    total = len(relevant) if k is None else min(k, len(relevant))
    right = [one in relevant for one in kept]
    if not trapezoid:
        return slow_average_precision(right, total), four
    whole = compute_ap([str(one) for one in kept], {str(one) for one in relevant}, set())
    return whole * len(relevant) / total, four


WAYS: dict[str, dict[str, Any]] = {
    "index, not filled": {"fill": False},
    "every record by distance": {"cutoff": None, "shortlist": None, "ranking": "distance"},
    "every record by relevance": {"cutoff": None, "shortlist": None, "ranking": "relevance"},
    "every record by fused score": {"cutoff": None, "shortlist": None, "ranking": "fused"},
}


@pytest.mark.parametrize("trapezoid", [True, False])
@pytest.mark.parametrize("ranking", ["distance", "relevance", "fused"])
@pytest.mark.parametrize(("cutoff", "shortlist"), [(0.2, 40), (0.5, None), (0.0, 1000)])
def test_figures_are_those_of_slow_formulas(
    data: Data, levels: Levels, trapezoid: bool, ranking: Any, cutoff: float, shortlist: int | None
) -> None:
    records, _, queries, _ = data
    params = SearchParams(k=3, cutoff=cutoff, shortlist=shortlist, ranking=ranking)
    with FaissIndex.create(None, CONFIG) as index, BruteForceIndex(CONFIG) as reference:
        index.add(records)
        reference.add(records)
        found = compare_searches(index, queries, levels, params, trapezoid=trapezoid)
        assert list(found) == ["index", *WAYS]
        for name, figures in found.items():
            settings = {**params.model_dump(include={"cutoff", "shortlist", "ranking"}), **WAYS.get(name, {})}
            every = reference.search(queries, **{**settings, "k": 300, "shortlist": None}).ids
            limited = settings["shortlist"] is not None and settings["shortlist"] < 300
            first = reference.search(queries, **{**settings, "k": 40}).ids if limited else every
            for level, judged in levels.items():
                for query, one in enumerate(judged):
                    values = tuple(kind[level][query] for kind in (figures.at_all, figures.at_k, figures.first_four))
                    if not len(one.relevant):
                        assert np.isnan(values).all()
                        continue
                    ap, _ = slow(every[query], one, trapezoid=trapezoid)
                    ap_k, four = slow(first[query], one, trapezoid=trapezoid, k=3)
                    assert values == pytest.approx((ap, ap_k, four))


def known(ids: list[int]) -> Encodings:
    """Return records in one dimension, at the distance of their places from the query at 0 degrees."""
    angles = np.arange(len(ids)) * 0.1
    return Encodings(
        probabilities=np.tile([0.5, 0.5], (len(ids), 1)),
        codes=np.zeros((len(ids), 4), np.uint8),
        features=np.stack([np.cos(angles), np.sin(angles)], axis=1),
        ids=np.array(ids),
    )


def test_figures_worked_out_by_hand() -> None:
    config = IndexConfig(classes=2, bits=32, dim=2, stored_features="float32")
    with FaissIndex.create(None, config) as index:
        index.add(known([5, 1, 2, 9, 3, 4]))  # nearest first: 5 is the query itself
        query = known([7])
        relevant, junk = np.array([1, 3]), np.array([2, 5])
        levels = {"all": [JudgedIds(relevant, junk)]}
        for trapezoid, expected in ((True, 1 / 2 + 7 / 24), (False, (1 + 2 / 3) / 2)):  # right, wrong, right, wrong
            found = compare_searches(index, query, levels, SearchParams(k=2), trapezoid=trapezoid)
            assert found["index"].at_all["all"] == pytest.approx([expected])
            assert found["index"].at_k["all"] == pytest.approx([1 / 2])
            assert found["index"].first_four["all"].tolist() == [2]
        far = compare_searches(index, query, levels, SearchParams(k=2, cutoff=0.9), trapezoid=True)
        assert far["index, not filled"].at_all["all"].tolist() == [0]  # every record is cut off
        assert far["index"].at_all["all"] == pytest.approx([1 / 2 + 7 / 24])


def test_features_of_any_length_have_no_fused_score(levels: Levels, data: Data) -> None:
    records, _, queries, _ = data
    longer = Encodings(probabilities=records.probabilities, codes=records.codes, features=2 * records.features,
                       ids=records.ids)  # fmt: skip
    with FaissIndex.create(None, CONFIG) as index:
        index.add(longer)
        found = compare_searches(index, queries, levels, SearchParams(cutoff=None), trapezoid=False)
        assert list(found) == ["index", "every record by distance", "every record by relevance"]


def test_wrong_levels_are_refused(levels: Levels, data: Data) -> None:
    records, _, queries, _ = data
    with FaissIndex.create(None, CONFIG) as index:
        with pytest.raises(DataError, match="no records"):
            compare_searches(index, queries, levels, SearchParams(), trapezoid=True)
        index.add(records)
        for wrong in (None, [], {"all": 3}, {"all": [(1, 2)]}):
            with pytest.raises(InvalidParameterError, match="expected lists of JudgedIds"):
                compare_searches(index, queries, wrong, SearchParams(), trapezoid=True)  # type: ignore[arg-type]
        with pytest.raises(InvalidParameterError, match=r"levels\['easy'\] judges 20 queries, expected 3"):
            compare_searches(index, queries[:3], levels, SearchParams(), trapezoid=True)
