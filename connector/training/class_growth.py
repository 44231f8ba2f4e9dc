"""Train a network further with more classes: the order of its classes, its new rows, and which images are held out.

A warm start from a network with C classes on images of further classes gives a network with more classes:

- the classes of the first network keep their numbers, whether there are still images of them or not; the new ones
  follow in sorted order. So a later network names every earlier class by the same number;
- the rows of the classifiers and the codewords of the former classes are kept. The rows of new classes begin at random,
  and their codewords are as far from all others as those of a new network are;
- images that the first network was trained on are trained on again, and those that were held out are held out again.
  Of all other images, a share of each class is held out. So the epoch is chosen by images that no network was trained
  on.

If only the classifiers are trained (`freeze_codes`), features and codes stay those of the first network, so an index of
that network needs no image encoded again, see `retrieval.relinking`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from semcut.connector.data.model_file import read_model_file
from semcut.connector.data.sources import ImageSet
from semcut.connector.data.training_digests import TrainingDigests, read_digests
from semcut.connector.models.heads.codewords import further_codewords
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.indexes.argument_checks import path_given


def new_classes(start: str | os.PathLike[str], classes: Sequence[str]) -> tuple[str, ...]:
    """Return which of these classes a trained network does not have, sorted.

    Raises:
        CheckpointError: the directory `start` holds no network.
    """
    before = read_model_file(path_given("start", start))["architecture"]["classes"]
    return tuple(sorted(set(classes) - set(before)))


def continued(images: ImageSet, start: str | os.PathLike[str]) -> ImageSet:
    """Number the classes of images as a network does that starts from another: its classes first, then the new ones.

    If the images have no new class, they must have all classes of the network; otherwise they are returned as they are.

    Raises:
        CheckpointError: the directory `start` holds no network.
    """
    before = read_model_file(path_given("start", start))["architecture"]["classes"]
    new = new_classes(start, images.classes)
    if not new and set(images.classes) != set(before):
        return images
    classes = (*before, *new)
    number = {name: place for place, name in enumerate(classes)}
    places = np.array([number[name] for name in images.classes], np.int64)
    sets = None if images.label_sets is None else images.label_sets.renumbered(places)
    return replace(images, classes=classes, labels=places[images.labels], label_sets=sets)


def divided(
    images: ImageSet, start: str | os.PathLike[str] | None, fraction: float, seed: int
) -> tuple[ImageSet, ImageSet]:
    """Divide images into those to train on and those held out; with new classes as the module docstring says.

    Args:
        images: the images, with digests.
        start: run directory of the network to start from, whose classes come first; None for a new network.
        fraction: share of the images of each class that is held out.
        seed: seed of the random choice.

    Raises:
        CheckpointError: there are new classes, and the network does not record its images; or it is no network.
    """
    if start is None:
        return images.split(fraction, seed)
    more, images = new_classes(start, images.classes), continued(images, start)
    before = read_digests(path_given("start", start))
    if not more and not _grown_by(start, images, before, fraction, seed):
        return images.split(fraction, seed)
    unseen, digests = before.validation - before.training, images.digests or ()
    held_out = np.array([digest in unseen for digest in digests], bool)
    others = np.flatnonzero([digest not in before.all for digest in digests])
    held_out[others] = images.subset(others).held_out(fraction, seed)
    return images.subset(np.flatnonzero(~held_out)), images.subset(np.flatnonzero(held_out))


def _grown_by(
    start: str | os.PathLike[str], images: ImageSet, before: TrainingDigests, fraction: float, seed: int
) -> bool:
    """Return whether a network that got new classes by a training with this share and seed has seen just these images.

    Then no share and seed give the division of its images again, which was made in several steps.
    """
    training = read_model_file(path_given("start", start))["training"]
    config = training.get("config", {})
    same = (config.get("seed"), config.get("validation")) == (seed, fraction)
    return "start" in training and same and set(images.digests or ()) == before.all


def digests_with(before: TrainingDigests, now: TrainingDigests) -> TrainingDigests:
    """Return the digests of all images that a network has seen: those of its own training, and of that before."""
    return TrainingDigests(before.training | now.training, before.validation | now.validation)


def grown(net: SemanticHashNet, architecture: Architecture) -> SemanticHashNet:
    """Return a network of an architecture with the weights of another, which may have fewer classes.

    Args:
        net: the network, whose classes are the first of the architecture; all else but the image size is the same.
        architecture: the architecture; new rows of classifiers are drawn with torch's random numbers.
    """
    after = SemanticHashNet(architecture)
    state, buffers = after.state_dict(), {name for name, _ in after.named_buffers()}
    for name, value in net.state_dict().items():
        if state[name].shape == value.shape:
            state[name] = value
        elif name in buffers:  # a codeword for each class
            state[name] = further_codewords(value, len(state[name]))
        else:
            state[name] = torch.cat([value, state[name][len(value) :]])
    after.load_state_dict(state)
    return after


def freeze_codes(net: SemanticHashNet) -> tuple[nn.Module, ...]:
    """Keep all parameters but those of the classifiers; return the layers that stay in evaluation mode for that."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith(("semantic.", "head.classifier.")))
    return net.middle, net.hash, net.head
