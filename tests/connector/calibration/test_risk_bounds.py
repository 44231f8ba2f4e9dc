"""Upper bounds hold as often as they say, and the largest cutoff keeps its promise for new data."""

from __future__ import annotations

import numpy as np
import pytest

from semcut.connector.calibration.risk_bounds import CUTOFFS, images_needed, largest_cutoff, upper_bound


@pytest.mark.parametrize("mean", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("shape", ["all or nothing", "beta"])
def test_a_bound_is_above_the_mean_as_often_as_it_says(mean, shape):
    rng = np.random.default_rng(0)
    below, bounds = 0, []
    for _ in range(400):
        losses = rng.binomial(1, mean, 300) if shape == "all or nothing" else rng.beta(mean * 5, (1 - mean) * 5, 300)
        bounds.append(upper_bound(losses.astype(float), 0.9))
        below += bounds[-1] < mean
    assert below <= 0.1 * 400
    assert np.mean(bounds) < mean + 0.1  # and it is not far above


def test_a_bound_grows_with_the_confidence_and_shrinks_with_the_number_of_images():
    rng = np.random.default_rng(1)
    losses = rng.beta(0.5, 9.5, 2000)
    assert upper_bound(losses, 0.5) < upper_bound(losses, 0.9) < upper_bound(losses, 0.99)
    assert losses.mean() < upper_bound(losses, 0.9) < upper_bound(losses[:200], 0.9)


def test_the_largest_cutoff_keeps_its_promise_for_new_images():
    """Each image drops its right records at cutoffs around one of its own."""
    rng = np.random.default_rng(2)

    def losses(images: int) -> np.ndarray:
        values = np.sort(rng.beta(2, 5, (images, 1)) * rng.random((images, 20)), axis=1)
        return np.stack([np.searchsorted(row, CUTOFFS, side="right") for row in values]) / 20

    true = losses(20_000).mean(axis=0)
    broken, chosen = 0, []
    for _ in range(60):
        cutoff = largest_cutoff(losses(200), 0.1, 0.9)
        assert cutoff is not None
        chosen.append(cutoff)
        broken += true[np.searchsorted(CUTOFFS, cutoff)] > 0.1
    assert broken <= 6
    best = CUTOFFS[np.flatnonzero(true <= 0.1)[-1]]
    assert np.median(chosen) > best / 2


def test_no_cutoff_is_chosen_where_even_the_smallest_loses_too_much():
    assert largest_cutoff(np.full((500, len(CUTOFFS)), 0.2), 0.1, 0.95) is None
    assert largest_cutoff(np.zeros((10, len(CUTOFFS))), 0.01, 0.95) is None  # too few images
    assert largest_cutoff(np.zeros((1000, len(CUTOFFS))), 0.01, 0.95) == 0.99


def test_so_many_images_are_needed():
    for level in (0.2, 0.01):
        needed = images_needed(level, 0.95)
        assert upper_bound(np.zeros(needed), 0.95) <= level
        assert upper_bound(np.zeros(needed // 2), 0.95) > level
