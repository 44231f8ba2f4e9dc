"""Warm start: load the trained network whose weights a new training starts from.

A warm start has three uses: train all layers of a network whose backbone was frozen so far, train a network further on
larger versions of its images, or give it more classes, see `class_growth`. Without new classes, the loaded network must
have been trained on the same images, with the same images held out for validation. Otherwise it could have been trained
on validation images of the new training, and the choice of the epoch would be biased.
"""

from __future__ import annotations

import os
from dataclasses import replace

from semcut.connector.data.training_digests import TrainingDigests
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.connector.training.class_growth import grown
from semcut.indexes.errors import CheckpointError, shown


def load_start(start: str | os.PathLike[str], images: TrainingDigests, architecture: Architecture) -> Checkpoint:
    """Load the network to start from, and check that the new training may start from it.

    Args:
        start: run directory of the network.
        images: digests of the images that the new training uses for training and for validation.
        architecture: architecture of the network to train.

    Returns:
        The checkpoint, with its weights in a network of `architecture`.

    Raises:
        CheckpointError: the directory holds no usable checkpoint, its architecture differs in more than the image size
            and new classes, or it was trained on other images though there are no new classes, or does not record on
            which.
    """
    checkpoint = Checkpoint.load(start)
    trained_net(checkpoint)
    found, expected = checkpoint.net.architecture.model_dump(), architecture.model_dump()
    more = len(expected["classes"]) > len(found["classes"])
    if more and expected["classes"][: len(found["classes"])] == found["classes"]:
        found["classes"] = expected["classes"]
    else:
        more = False
    different = [
        f"{name} {shown(found[name])}, expected {shown(expected[name])}"
        for name in expected
        if found[name] != expected[name] and name != "image_size"
    ]
    if different:
        raise CheckpointError(f"start = {start}: that network has another architecture ({'; '.join(different)})")
    split = {name: checkpoint.training.get("config", {}).get(name) for name in ("seed", "validation")}
    if not more and _without_doubles(checkpoint.training_digests()) != _without_doubles(images):
        raise CheckpointError(
            f"start = {start}: that network was trained on other images, or held out others for validation "
            f"(seed {split['seed']}, validation {split['validation']}): start from a network with the same images, "
            "seed and validation share, because the epoch must be chosen by images that no network was trained on"
        )
    if checkpoint.net.architecture == architecture:
        return checkpoint
    return replace(checkpoint, net=grown(trained_net(checkpoint), architecture))


def _without_doubles(digests: TrainingDigests) -> TrainingDigests:
    """Count an image that is in both parts, under two names, as trained on."""
    return digests._replace(validation=digests.validation - digests.training)


def trained_net(checkpoint: Checkpoint) -> SemanticHashNet:
    """Return the network of a checkpoint.

    Raises:
        CheckpointError: semcut has not trained it, but adopted it.
    """
    if not isinstance(checkpoint.net, SemanticHashNet):
        raise CheckpointError(
            f"{checkpoint.path} is a network that was adopted, expected one that `semcut train` wrote"
        )
    return checkpoint.net
