"""A network that another one goes on from: a frozen one to be tuned, or one of small images to go on with larger ones.

It has learned none of the images that epochs of the other are chosen by: it was trained on the same images with the
same part for validation.
"""

from __future__ import annotations

import os
from dataclasses import replace

from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.indexes.errors import CheckpointError, shown


def beginning(
    start: str | os.PathLike[str], files: list[str], architecture: Architecture, seed: int, validation: float
) -> Checkpoint:
    """The network to start from.

    Args:
        start: its run directory.
        files: images to train and validate on.
        architecture: of the network to train.
        seed, validation: by which `files` are divided.

    Returns:
        It, with a network of `architecture`.

    Raises:
        CheckpointError: there is none, or it is of another architecture or of other images.
    """
    begin = Checkpoint.load(start)
    theirs, ours = begin.net.architecture.model_dump(), architecture.model_dump()
    different = [
        f"{name} {shown(theirs[name])}, expected {shown(ours[name])}"
        for name in ours
        if theirs[name] != ours[name] and name != "image_size"
    ]
    if different:
        raise CheckpointError(f"start = {start}: that network has another architecture ({'; '.join(different)})")
    split = {name: begin.training.get("config", {}).get(name) for name in ("seed", "validation")}
    if set(begin.training_images()) != set(files) or split != {"seed": seed, "validation": validation}:
        raise CheckpointError(
            f"start = {start}: that network was trained on other images, or kept others for validation "
            f"(seed {split['seed']}, validation {split['validation']}): start from one with the same images, seed and "
            "share for validation, since epochs are chosen by images that were never learned"
        )
    if begin.net.architecture == architecture:
        return begin
    net = SemanticHashNet(architecture)
    net.load_state_dict(begin.net.state_dict())
    return replace(begin, net=net)
