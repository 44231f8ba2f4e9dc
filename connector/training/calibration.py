"""Calibration: one temperature that makes probabilities as sure as they are right.

A network that was trained until it knows its training images by heart is too sure of others. Relevance is a probability
that two images show the same class, and pruning compares it with the cutoff, so both mean what they say only where
probabilities do. Dividing the logits by a temperature T, fitted on images that the network was not trained on, changes
how sure it is and never which class comes first.

Source: Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017).
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional

_LIMITS = (0.05, 20.0)


def temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The T in [0.05, 20] for which the cross-entropy of logits / T is least.

    Args:
        logits: (n, C) of images that were not trained on.
        labels: (n,) int64.
    """
    logits = logits.double()

    def loss(log: float) -> float:
        return functional.cross_entropy(logits / math.exp(log), labels).item()

    found = minimize_scalar(loss, bounds=[math.log(limit) for limit in _LIMITS], method="bounded")
    return math.exp(found.x)
