"""Train a head on the features of labelled images, so that codes tell their classes apart; the network stays as it is.

The images' classes need not be those of the network. The linear layer that is trained is all that is kept: the outputs
become bits as the head says, see `models.heads`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from semcut.connector.adoption.code_fitting import LinearMap
from semcut.connector.models import HeadName
from semcut.connector.models.heads import make_head

_EPOCHS, _BATCH, _RATE = 60, 64, 0.01


def fit_head(
    features: NDArray[np.float32], labels: NDArray[np.int64], bits: int, head: HeadName, seed: int = 0
) -> LinearMap:
    """Train the projection of a head.

    Args:
        features: (k, n) float32, rows of length 1.
        labels: (k,) int64, from 0.
        bits: length of the code.
        head: name of the head.
        seed: of the first weights and of the order of the images.
    """
    mean, spread = features.mean(axis=0), features.std(axis=0).clip(min=1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projection = nn.Linear(features.shape[1], bits)
        made = make_head(head, bits, int(labels.max()) + 1)
        images, truth = torch.from_numpy((features - mean) / spread), torch.from_numpy(labels)
        parameters = [*projection.parameters(), *made.parameters()]
        optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=0.01)
        steps = _EPOCHS * -(-len(images) // _BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_RATE, total_steps=steps)
        for _ in range(_EPOCHS):
            for part in torch.split(torch.randperm(len(images)), _BATCH):
                optimiser.zero_grad()
                made.loss(made(projection(images[part])), truth[part], 0.0).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
    weight, bias = (one.detach().numpy() for one in (projection.weight, projection.bias))
    weight = weight / spread  # of features as they are, not scaled to the same spread
    return LinearMap(weight, bias - weight @ mean)
