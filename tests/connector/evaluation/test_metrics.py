"""Average precision equals that of slow, simple implementations; with ties, the mean over all orders of ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from semcut.connector.evaluation.metrics import average_precision, tied_average_precision, trapezoid_average_precision


def slow_average_precision(right: list[bool], total: int) -> float:
    found, score = 0, 0.0
    for place, is_right in enumerate(right, 1):
        if is_right:
            found += 1
            score += found / place
    return score / total


def compute_ap(ranked: list[str], relevant: set[str], junk: set[str]) -> float:
    """Compute what the program `compute_ap` of Oxford 5k does, step by step."""
    old_recall, old_precision, score, found, seen = 0.0, 1.0, 0.0, 0, 0
    for name in ranked:
        if name in junk:
            continue
        found += name in relevant
        seen += 1
        recall, precision = found / len(relevant), found / seen
        score += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return score


def mean_over_all_orders(groups: list[list[bool]], total: int, k: int | None, *, trapezoid: bool) -> float:
    def score(order: tuple[tuple[bool, ...], ...]) -> float:
        ranked = [one for group in order for one in group][:k]
        if not trapezoid:
            return slow_average_precision(ranked, total)
        names, relevant = [str(place) for place in range(len(ranked))], {"not ranked"}
        relevant |= {name for name, one in zip(names, ranked, strict=True) if one}
        return compute_ap(names, relevant, set()) * len(relevant) / total

    scores = list(map(score, itertools.product(*(itertools.permutations(group) for group in groups))))
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


def test_the_trapezoid_rule_is_that_of_the_program_of_oxford() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        names = [str(number) for number in range(rng.integers(1, 30))]
        kinds = rng.choice(["relevant", "junk", "wrong"], len(names))
        relevant = {name for name, kind in zip(names, kinds, strict=True) if kind == "relevant"} | {"not ranked"}
        junk = {name for name, kind in zip(names, kinds, strict=True) if kind == "junk"}
        ranked = rng.permutation(names).tolist()
        right = np.array([[name in relevant for name in ranked if name not in junk]], bool)
        found = trapezoid_average_precision(right, np.array([len(relevant)]))
        assert found == pytest.approx([compute_ap(ranked, relevant, junk)])


def test_the_trapezoid_rule_of_known_lists() -> None:
    right = np.array([[True, False, True, False], [False, True, False, False], [True, True, False, False]])
    # 1/2 (1 + 1)/2 + 1/2 (1/2 + 2/3)/2;  (0 + 1/2)/2;  all found at once
    assert trapezoid_average_precision(right, np.array([2, 1, 2])) == pytest.approx([1 / 2 + 7 / 24, 1 / 4, 1])
    assert (
        trapezoid_average_precision(right, np.array([2, 1, 2])) <= average_precision(right, np.array([2, 1, 2]))
    ).all()
    assert trapezoid_average_precision(np.zeros((2, 0), bool), np.array([1, 1])).tolist() == [0, 0]


@pytest.mark.parametrize("trapezoid", [False, True])
@pytest.mark.parametrize("k", [None, 1, 3, 5, 7, 100])
def test_ties_count_as_the_mean_over_all_their_orders(k: int | None, trapezoid: bool) -> None:
    rng = np.random.default_rng(1)
    sizes = np.array([[2, 0, 4, 1], [5, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 6], [3, 3, 0, 0]])
    right = np.array([[rng.integers(0, size + 1) for size in row] for row in sizes])
    right[3] = [0, 0, 0, 6]
    total = right.sum(axis=1) + np.array([0, 2, 1, 0, 3]) + (right.sum(axis=1) == 0)
    expected = [
        mean_over_all_orders(
            [[i < r for i in range(n)] for r, n in zip(rights, row, strict=True)],
            int(total[query]),
            k,
            trapezoid=trapezoid,
        )
        for query, (rights, row) in enumerate(zip(right.tolist(), sizes.tolist(), strict=True))
    ]
    assert tied_average_precision(right, sizes, total, k, trapezoid=trapezoid) == pytest.approx(expected)


def test_without_ties_both_functions_agree() -> None:
    rng = np.random.default_rng(2)
    right = rng.random((30, 50)) < 0.3
    total = right.sum(axis=1) + 1
    ones = np.ones(right.shape, np.int64)
    assert tied_average_precision(right.astype(np.int64), ones, total) == pytest.approx(average_precision(right, total))
    assert tied_average_precision(right.astype(np.int64), ones, total, trapezoid=True) == pytest.approx(
        trapezoid_average_precision(right, total)
    )
    for k in (1, 10, 50, 60):
        assert tied_average_precision(right.astype(np.int64), ones, total, k) == pytest.approx(
            average_precision(right[:, :k], total)
        )
