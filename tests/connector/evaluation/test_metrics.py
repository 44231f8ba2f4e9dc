"""Average precision equals that of slow, simple implementations; with ties, the mean over all orders of ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from semcut.connector.evaluation.metrics import average_precision, tied_average_precision


def slow_average_precision(right: list[bool], total: int) -> float:
    found, score = 0, 0.0
    for place, is_right in enumerate(right, 1):
        if is_right:
            found += 1
            score += found / place
    return score / total


def mean_over_all_orders(groups: list[list[bool]], total: int, k: int | None) -> float:
    orders = itertools.product(*(itertools.permutations(group) for group in groups))
    scores = [slow_average_precision([one for group in order for one in group][:k], total) for order in orders]
    return math.fsum(scores) / len(scores)


def test_average_precision() -> None:
    rng = np.random.default_rng(0)
    right = rng.random((40, 17)) < 0.4
    total = right.sum(axis=1) + rng.integers(1, 5, 40)
    expected = [slow_average_precision(right[i].tolist(), int(total[i])) for i in range(40)]
    assert average_precision(right, total) == pytest.approx(expected)


def test_average_precision_of_a_known_list() -> None:
    right = np.array([[True, False, True, False]])
    assert average_precision(right, np.array([2])) == pytest.approx([(1 + 2 / 3) / 2])
    assert average_precision(right, np.array([4])) == pytest.approx([(1 + 2 / 3) / 4])


@pytest.mark.parametrize("k", [None, 1, 3, 5, 7, 100])
def test_ties_count_as_the_mean_over_all_their_orders(k: int | None) -> None:
    rng = np.random.default_rng(1)
    sizes = np.array([[2, 0, 4, 1], [5, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 6], [3, 3, 0, 0]])
    right = np.array([[rng.integers(0, size + 1) for size in row] for row in sizes])
    right[3] = [0, 0, 0, 6]
    total = right.sum(axis=1) + np.array([0, 2, 1, 0, 3]) + (right.sum(axis=1) == 0)
    expected = [
        mean_over_all_orders(
            [[i < r for i in range(n)] for r, n in zip(rights, row, strict=True)], int(total[query]), k
        )
        for query, (rights, row) in enumerate(zip(right.tolist(), sizes.tolist(), strict=True))
    ]
    assert tied_average_precision(right, sizes, total, k) == pytest.approx(expected)


def test_without_ties_both_functions_agree() -> None:
    rng = np.random.default_rng(2)
    right = rng.random((30, 50)) < 0.3
    total = right.sum(axis=1) + 1
    ones = np.ones(right.shape, np.int64)
    assert tied_average_precision(right.astype(np.int64), ones, total) == pytest.approx(average_precision(right, total))
    for k in (1, 10, 50, 60):
        assert tied_average_precision(right.astype(np.int64), ones, total, k) == pytest.approx(
            average_precision(right[:, :k], total)
        )
