"""Figures of rankings at cutoffs equal slow formulas over every record; ties of codes, the mean over many orders."""

from __future__ import annotations

import numpy as np
import pytest

from semcut.connector.evaluation.judged_rankings import JUDGED_RANKINGS, compare_rankings
from semcut.connector.ground_truth.judged_records import JudgedIds
from semcut.indexes import BruteForceIndex, DataError, Encodings, FaissIndex, InvalidParameterError
from semcut.indexes.scoring.equations import hamming, is_relevant
from tests.connector.evaluation.conftest import CONFIG, Data
from tests.connector.evaluation.test_judged_search import Levels, levels, slow

__all__ = ["levels"]

CUTOFFS = (0.0, 0.2, 0.6)


@pytest.mark.parametrize("trapezoid", [True, False])
def test_figures_are_those_of_slow_formulas(data: Data, levels: Levels, trapezoid: bool) -> None:
    records, _, queries, _ = data
    rng = np.random.default_rng(0)
    with FaissIndex.create(None, CONFIG) as index, BruteForceIndex(CONFIG) as reference:
        index.add(records)
        reference.add(records)
        calls: list[tuple[int, int]] = []
        found = compare_rankings(
            index, queries, levels, trapezoid=trapezoid, cutoffs=CUTOFFS, progress=lambda *call: calls.append(call[:2])
        )
        assert calls[-1] == (10, 10)
        assert found.cutoffs == CUTOFFS
        ids = np.arange(len(records)) if records.ids is None else records.ids
        apart = hamming(queries.codes[:, None], records.codes[None])
        relevance = index.similarity.weights(queries.probabilities) @ records.probabilities.T.astype(np.float64)
        for place, t in enumerate(CUTOFFS):
            kept = is_relevant(relevance.astype(np.float32), t)
            assert found.relevant[place] == pytest.approx(kept.mean())
            assert kept.mean() <= found.scanned[place] <= 1
            for level, judged in levels.items():
                for query, one in enumerate(judged):
                    values = {name: found.at_all[level][name][place, query] for name in JUDGED_RANKINGS}
                    if not len(one.relevant):
                        assert np.isnan(list(values.values())).all()
                        continue
                    for name in ("distance", "fused", "relevance"):
                        answer = reference.search(
                            queries[query : query + 1], k=300, cutoff=t, shortlist=None, ranking=name, fill=False
                        ).ids[0]
                        assert values[name] == pytest.approx(slow(answer, one, trapezoid=trapezoid)[0])
                    if query < 3:
                        rows, scores = np.flatnonzero(kept[query]), []
                        for _ in range(400):
                            mixed = rng.permutation(rows)
                            order = mixed[np.argsort(apart[query, mixed], kind="stable")]
                            scores.append(slow(ids[order], one, trapezoid=trapezoid)[0])
                        error = 5 * np.std(scores) / np.sqrt(len(scores)) + 1e-9
                        assert values["hamming"] == pytest.approx(np.mean(scores), abs=error)


def test_blocks_of_queries_give_the_same(data: Data, levels: Levels, monkeypatch: pytest.MonkeyPatch) -> None:
    records, _, queries, _ = data
    with FaissIndex.create(None, CONFIG) as index:
        index.add(records)
        index.remove([3, 4])
        whole = compare_rankings(index, queries, levels, trapezoid=True)
        monkeypatch.setattr("semcut.connector.evaluation.judged_rankings._PAIRS", 3 * len(index))
        parts = compare_rankings(index, queries, levels, trapezoid=True)
        for level in levels:
            np.testing.assert_allclose(parts.at_all[level]["hamming"], whole.at_all[level]["hamming"])
        np.testing.assert_allclose(parts.relevant, whole.relevant)


def test_features_of_any_length_have_no_fused_score(levels: Levels, data: Data) -> None:
    records, _, queries, _ = data
    longer = Encodings(probabilities=records.probabilities, codes=records.codes, features=2 * records.features,
                       ids=records.ids)  # fmt: skip
    with FaissIndex.create(None, CONFIG) as index:
        index.add(longer)
        found = compare_rankings(index, queries, levels, trapezoid=False, cutoffs=(0.2,))
        assert {name: list(one) for name, one in found.at_all.items()} == {
            name: ["hamming", "distance", "relevance"] for name in levels
        }


def test_bad_arguments_are_named(levels: Levels, data: Data) -> None:
    records, _, queries, _ = data
    with FaissIndex.create(None, CONFIG) as index:
        with pytest.raises(DataError, match="the index has no records"):
            compare_rankings(index, queries, levels, trapezoid=True)
        index.add(records)
        fewer = {"all": [JudgedIds(np.arange(1), np.arange(0))]}
        with pytest.raises(InvalidParameterError, match="judges 1 queries, expected 20"):
            compare_rankings(index, queries, fewer, trapezoid=True)
