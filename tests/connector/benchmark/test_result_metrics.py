from __future__ import annotations

import numpy as np
import pytest

from semcut.connector.benchmark.measure.ground_truth import Exact
from semcut.connector.benchmark.report import result_metrics
from semcut.connector.benchmark.report.figures import Losses
from semcut.connector.benchmark.report.result_metrics import recall


def slow_recall(ids, costs, exact):
    """Compute recall query by query, as its definition says."""
    shares = []
    for query in range(len(ids)):
        answers = [cost for cost in exact[query] if cost != np.inf]
        if not answers:
            shares.append(np.nan)
            continue
        right = set()
        for record, cost in zip(ids[query], costs[query], strict=True):
            if record >= 0 and cost != np.inf and cost <= max(answers) + 1e-5 * (1 + abs(max(answers))):
                right.add(record)
        shares.append(min(len(right), len(answers)) / len(answers))
    return np.array(shares)


@pytest.mark.parametrize("seed", range(30))
def test_recall_is_that_of_a_slow_implementation_with_ties_gaps_and_repeats(seed):
    rng = np.random.default_rng(seed)
    k, queries = int(rng.integers(1, 8)), 40
    exact = np.sort(rng.integers(0, 5, (queries, k)) / 4, axis=1).astype(np.float32)
    exact[np.arange(k) >= rng.integers(0, k + 1, (queries, 1))] = np.inf
    ids = rng.integers(-1, 12, (queries, k))
    costs = np.where(ids >= 0, (ids % 5) / 4, np.inf).astype(np.float32)
    if seed % 2:
        exact, costs = exact - 3, costs - 3  # scores negated
    np.testing.assert_array_equal(recall(ids, costs, exact), slow_recall(ids, costs, exact))


def test_another_record_as_near_as_the_last_answer_is_right_and_one_farther_is_not():
    exact = np.array([[0.1, 0.5]], np.float32)
    ids = np.array([[7, 8]])
    assert recall(ids, np.array([[0.1, 0.5]], np.float32), exact) == 1
    assert recall(ids, np.array([[0.1, 0.5 + 5e-6]], np.float32), exact) == 1
    assert recall(ids, np.array([[0.1, 0.501]], np.float32), exact) == 0.5
    assert recall(np.array([[7, 7]]), np.array([[0.1, 0.1]], np.float32), exact) == 0.5


def exact_answers(ids, relevance):
    ids = np.asarray(ids)
    zeros = np.zeros(ids.shape, np.float32)
    return Exact(ids, zeros, np.asarray(relevance, np.float32), zeros, np.ones(len(ids), np.int64))


def test_recall_of_equations_demands_relevance_above_the_cutoff():
    exact = Exact(
        ids=np.array([[3, 4]]),
        distances=np.array([[0.2, 0.3]], np.float32),
        relevance=np.array([[0.9, 0.8]], np.float32),
        scores=np.array([[0.9 * 0.9, 0.8 * 0.85]], np.float32),
        relevant=np.array([2]),
    )
    ids, near = np.array([[3, 9]]), np.array([[0.2, 0.1]], np.float32)
    relevances = np.array([[0.9, 0.2]], np.float32)
    assert result_metrics.recall_of_equations(ids, near, relevances, exact, 0.2, "distance") == 0.5
    assert result_metrics.recall_of_equations(ids, near, relevances, exact, 0.1, "distance") == 1
    assert (
        result_metrics.recall_of_equations(ids, near, relevances, exact, 0.1, "fused") == 0.5
    )  # 0.2 x 0.95 is no score


def test_losses_name_the_step_at_which_a_record_gets_lost():
    best = exact_answers([[1, 2, 3, 4]], [[0.9, 0.1, 0.9, 0.9]])
    exact = exact_answers([[1, 3, 4, 5]], [[0.9, 0.9, 0.9, 0.9]])
    pruned = np.array([[False, True, False, True]])
    lost = result_metrics.losses(np.array([[1, 5, 6, -1]]), best, exact, 0.2, pruned)
    assert lost == Losses(cutoff=0.25, pruning=0.25, shortlist=0.25, found=0.25)


def test_quality_leaves_out_queries_without_a_right_record():
    labels = np.array([[0, 1, 0], [1, 1, -1], [0, 0, 0]], np.int32)
    per_label = np.array([5, 2, 0])
    quality = result_metrics.quality(labels, np.array([0, 1, 2], np.int32), per_label)
    assert quality.map == pytest.approx(((1 + 2 / 3) / 3 + 1) / 2)
    assert quality.precision == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_quality_without_a_right_record_is_unknown():
    labels = np.array([[0, 1]], np.int32)
    assert result_metrics.quality(labels, np.array([2], np.int32), np.array([5, 2, 0])) == (None, None)


def test_latencies_are_of_calls_and_speed_of_queries():
    found = result_metrics.batch_figures({32: np.array([0.01, 0.02, 0.03])}, {32: 30})[32]
    assert found.queries_per_second == pytest.approx(1500)
    assert found.p50_ms == pytest.approx(20)
    assert found.p99_ms == pytest.approx(29.8)
    assert (found.calls, found.queries) == (3, 30)
