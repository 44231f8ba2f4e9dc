"""Small networks of other libraries, as users have them: with random weights, for images of 32 pixels."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

CLASSES = tuple(f"kind {number}" for number in range(7))
SIZE = 32
NAME = "shufflenet_v2_x0_5"
"""The smallest classification model of torchvision."""


def classifier() -> nn.Module:
    """Make a classifier of torchvision."""
    torch.manual_seed(0)
    return models.get_model(NAME, num_classes=len(CLASSES)).eval()


def write_weights(place: Path) -> Path:
    """Write the weights of the classifier."""
    save_file(classifier().state_dict(), place / "weights.safetensors")
    return place / "weights.safetensors"


def write_names(place: Path) -> Path:
    """Write the names of the classes, a line each."""
    (place / "names.txt").write_text("\n".join(CLASSES))
    return place / "names.txt"


def write_onnx(place: Path, network: nn.Module | None = None, *, outputs: tuple[str, ...] = ("scores",)) -> Path:
    """Export a network, the classifier by default, as torch does: a file with a batch of any size."""
    network = classifier() if network is None else network
    images = torch.zeros(1, 3, SIZE, SIZE)
    axes = {name: {0: "n"} for name in ("images", *outputs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (images,), place / "network.onnx", dynamo=False, input_names=["images"],
            output_names=list(outputs), dynamic_axes=axes,
        )  # fmt: skip
    return place / "network.onnx"


def write_timm(place: Path) -> Path:
    """Write a directory as timm does, for the Hugging Face hub."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_small_050", num_classes=len(CLASSES)).eval()
    folder = place / "timm"
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    content = {
        "architecture": "mobilenetv3_small_050", "num_classes": len(CLASSES),
        "model_args": {"num_classes": len(CLASSES), "in_chans": 3}, "label_names": list(CLASSES),
        "pretrained_cfg": {"input_size": [3, SIZE, SIZE], "mean": [0.5] * 3, "std": [0.25] * 3},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def write_transformers(place: Path) -> Path:
    """Write a directory as transformers does."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    labels = dict(enumerate(CLASSES))
    config = ViTConfig(**sizes, image_size=SIZE, patch_size=8, id2label=labels, label2id={})
    folder = place / "transformers"
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def blocks(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Be a network: mean colours of 16 blocks, and of each the sum with its neighbour as logits."""
    assert images.dtype == torch.uint8
    features = nn.functional.avg_pool2d(images.float() / 255, SIZE // 4).flatten(1)
    return (features + features.roll(1, dims=1))[:, : len(CLASSES)], features


def embeddings(images: torch.Tensor) -> tuple[None, np.ndarray]:
    """Be a network without classes."""
    return None, blocks(images)[1].numpy()


def not_finite(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Be a network that is broken."""
    logits, features = blocks(images)
    return logits / 0, features


def broken(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Be a network that fails."""
    raise KeyError("no such layer")
