"""What an image costs in a network is known before the network runs, and is limited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from semcut.connector.models import convolution_workspace
from semcut.connector.models.adopted_network import AdoptedArchitecture, AdoptedNet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.forward_cost import image_bytes
from semcut.connector.models.inference import NetworkRunner
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.connector.models.network_sources import build_classifier
from semcut.connector.retrieval.encoder import Encoder
from semcut.indexes.errors import CheckpointError
from tests.connector.adoption.test_forged_networks import NAMES, forge

SMALL = {"num_attention_heads": 1, "num_hidden_layers": 1, "patch_size": 1, "hidden_size": 8, "model_type": "vit"}


@pytest.mark.parametrize(
    ("settings", "size", "sentence"),
    [
        ({"intermediate_size": 8}, 1024, "4e\\+12 multiplications"),
        ({"intermediate_size": 16_384}, 256, "more than 3,072 MiB of memory"),
        ({"intermediate_size": 8, "image_size": 33}, 32, "cannot take images of 32 pixels"),
    ],
)
def test_a_stored_network_of_large_cost_is_refused_before_it_runs(
    settings: dict[str, Any], size: int, sentence: str, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    settings = {**SMALL, "image_size": size, **settings}
    channels = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    architecture = AdoptedArchitecture(
        source="transformers", settings=settings, classes=NAMES, image_size=size, width=8, **channels
    )
    state = AdoptedNet.outline(architecture).state_dict()
    weights = {name: torch.full(one.shape, 0.01, dtype=one.dtype) for name, one in state.items()}
    place = forge(tmp_path, "transformers", "", settings, save(weights), image_size=size)
    loaded = Checkpoint.load(place)
    with pytest.raises(CheckpointError, match=sentence):
        Encoder(loaded)


@pytest.mark.parametrize(
    "name", ["resnet50", "vit_base_patch16_224", "swin_tiny_patch4_window7_224", "maxvit_nano_rw_256"]
)
def test_usual_networks_are_far_below_the_limits(name: str) -> None:
    timm = pytest.importorskip("timm")
    size = timm.get_pretrained_cfg(name).input_size[-1]
    with torch.device("meta"):
        outline = build_classifier("timm", name, {}, 7).eval()
    assert 5 << 20 < image_bytes(outline, size) < 100 << 20
    assert all(one.is_meta for one in outline.parameters())


def test_the_memory_is_that_of_tensors_that_exist_at_once() -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 1), *(nn.Conv2d(16, 16, 1) for _ in range(5)))
    assert image_bytes(network, 32) == 2 * 16 * 32 * 32 * 4


@pytest.mark.parametrize(
    ("layer", "numbers"),
    [
        (nn.Conv2d(3, 1, 3, padding=100), 3 * 9 * 206**2),
        (nn.Conv2d(3, 1, 1, padding=100), 3 * 208**2),
        (nn.Conv2d(3, 1, (3, 5), padding=100, stride=2), 3 * 15 * 103 * 102),
        (nn.Conv2d(3, 1, 3, padding=100, dilation=2), 3 * 9 * 204**2),
        (nn.ConvTranspose2d(3, 8, 3), 8 * 9 * 8**2),
        (nn.Conv1d(3, 1, 3, padding=100), 3 * 3 * 206),
        (nn.Conv3d(3, 1, 3, padding=10), 3 * 27 * 26**3),
    ],
)
@pytest.mark.parametrize("says", [True, False])
def test_what_a_convolution_writes_out_is_counted(
    layer: nn.Module, numbers: int, says: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            side = (1, 1, *[8] * (layer.weight.dim() - 2))
            found: torch.Tensor = self.layer(images[:, :, :1, :1].flatten(1).view(1, 3, *[1] * len(side[2:])) + one)
            return found

    one = torch.zeros(1, 1, *[8] * (layer.weight.dim() - 2))
    if not says:
        monkeypatch.setattr(convolution_workspace, "_select_conv_backend", None)
    network = Network()
    output = layer(torch.zeros(1, 3, *one.shape[2:])).numel()
    least = 4 * (numbers + output)
    assert least <= image_bytes(network, 8) < least + 4 * 3 * 8 ** len(one.shape[2:]) * 3 + 4000


def test_a_network_that_does_not_fit_into_memory_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117]\n. DefaultCPUAllocator: can't allocate memory")

    network = SemanticHashNet(Architecture(backbone="small", classes=("a", "b"), image_size=32)).eval()
    runner = NetworkRunner(network)
    monkeypatch.setattr(SemanticHashNet, "forward", no_memory)
    with pytest.raises(CheckpointError, match=r"cannot be run on 1 images of 32 pixels \(.* allocate memory\): free"):
        runner.run(np.zeros((1, 3, 32, 32), np.uint8))


def test_what_depends_on_the_pixels_is_one_error() -> None:
    class Choosy(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[images > float(images.mean())]

    with pytest.raises(CheckpointError, match="cannot take images of 8 pixels"):
        image_bytes(Choosy(), 8)
