"""Calibrate probabilities with one temperature, so that they match how often the network is right.

A network that was trained until it fits its training images is overconfident on other images. Relevance is the
probability that two images show the same class, and pruning compares relevance with the cutoff. Relevance and cutoff
have this meaning only if the probabilities are calibrated. Dividing the logits by a temperature T, fitted on images
that the network was not trained on, changes the confidence but never the order of the classes.

Source: Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017).
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

_LIMITS = (0.05, 20.0)


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Find the T in [0.05, 20] that minimises the cross-entropy of logits / T.

    Args:
        logits: (n, C), of images that the network was not trained on.
        labels: (n,) int64.
    """
    from scipy.optimize import minimize_scalar  # takes 40 MB, and networks are adopted without it

    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return functional.cross_entropy(logits / math.exp(log_temperature), labels).item()

    found = minimize_scalar(loss, bounds=[math.log(limit) for limit in _LIMITS], method="bounded")
    return math.exp(found.x)
