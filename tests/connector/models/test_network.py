"""Building backbones by name, and the network on top of a backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from semcut.connector.models.backbones import build_backbone
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.indexes import InvalidParameterError
from semcut.indexes.errors import CheckpointError, DataError

CLASSES = ("a", "b", "c")


def test_alexnet_feeds_fc6_and_fc7_to_the_hash_branch() -> None:
    net = SemanticHashNet(Architecture(backbone="alexnet", classes=CLASSES, image_size=64, bits=48)).eval()
    assert net.hash.in_features == 4096 + 4096
    assert net.semantic.in_features == net.dim == 4096
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        fc6, fc7 = net.backbone((images - net.mean) / net.std)
        output = net(images)
    assert torch.equal(output.features, fc7)
    assert torch.allclose(output.hash, net.hash(torch.cat([fc6, fc7], dim=1)))
    assert (fc6 >= 0).all()
    assert (fc7 >= 0).all()


def test_alexnet_computes_what_torchvisions_computes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = models.alexnet(weights=None).eval()
    torch.save(whole.state_dict(), tmp_path / "alexnet.pth")
    backbone = build_backbone("alexnet", 64, str(tmp_path / "alexnet.pth")).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(whole.classifier[6](backbone(images)[1]), whole(images), atol=1e-5)


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("mobilenet_v3_small", 1024), ("vit_b_16", 768)])
def test_torchvision_models_lose_their_last_linear_layer(name: str, width: int) -> None:
    size = 224 if name == "vit_b_16" else 32
    assert build_backbone(name, size).widths(size) == (width,)


def test_weights_of_a_local_file_are_loaded(tmp_path: Path) -> None:
    torch.manual_seed(2)
    whole = models.resnet18(weights=None)
    save_file(whole.state_dict(), tmp_path / "resnet18.safetensors")
    backbone = build_backbone("resnet18", 32, str(tmp_path / "resnet18.safetensors"))
    assert torch.equal(backbone.network.conv1.weight, whole.conv1.weight)


def test_weights_of_another_network_or_with_code_are_refused(tmp_path: Path) -> None:
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match="does not hold weights of this network"):
        build_backbone("alexnet", 64, str(tmp_path / "resnet18.pth"))
    torch.save(models.resnet18(weights=None), tmp_path / "pickled.pth")
    with pytest.raises(CheckpointError, match="does not hold weights of this network"):
        build_backbone("resnet18", 64, str(tmp_path / "pickled.pth"))


def test_a_weight_that_claims_more_numbers_than_the_file_has_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "evil.pth"
    whole = models.resnet18(weights=None).state_dict()
    for state, reason in (
        ({"x": torch.zeros(1).expand(1 << 24, 1 << 16)}, "'x' has 1,099,511,627,776 numbers, but its record holds 1"),
        ({**whole, "conv1.weight": torch.zeros(1).expand(64, 3, 7, 7)}, "'conv1.weight' has 9,408 numbers"),
        ({**whole, "conv1.weight": torch.zeros(64, 3, 7, 7, device="meta")}, "which weights do not need"),
        ({**whole, "conv1.weight": torch.zeros(64, 3, 7, 7).to_sparse()}, "does not hold weights"),
        ({**whole, "conv1.weight": torch.zeros(64, 3, 7)}, "conv1.weight has shape"),
        ({**whole, "x": torch.zeros(1)}, "'x' is not part of the network"),
        ([1], "does not hold weights"),
    ):
        torch.save(state, file)
        with pytest.raises(CheckpointError, match=reason):
            build_backbone("resnet18", 32, str(file))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_are_finite_as_the_network_stores_them(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"large.{suffix}"
    save = torch.save if suffix == "pth" else save_file
    state = {key: value.bfloat16() for key, value in models.resnet18(weights=None).state_dict().items()}
    save(state, file)
    assert build_backbone("resnet18", 32, file).network.state_dict()["conv1.weight"].dtype == torch.float32
    save({**state, "conv1.weight": state["conv1.weight"].double() + 1e300}, file)
    with pytest.raises(CheckpointError, match=r"'conv1\.weight' holds numbers that are not finite"):
        build_backbone("resnet18", 32, file)


@pytest.mark.parametrize("name", ["small", "alexnet", "efficientnet_lite0", "regnet_y_400mf", "swin_v2_t"])
def test_an_outline_has_the_shapes_of_the_network(name: str) -> None:
    architecture = Architecture(backbone=name, classes=CLASSES, image_size=64, bits=48, head="csq", dim=5)
    outline, whole = SemanticHashNet.outline(architecture), SemanticHashNet(architecture)
    expected = whole.state_dict()
    assert {key: value.shape for key, value in outline.state_dict().items()} == {
        k: v.shape for k, v in expected.items()
    }
    outline.load_state_dict(expected, assign=True)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(outline.eval()(images).hash, whole.eval()(images).hash)


def test_weights_that_cannot_be_downloaded_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import urllib.error

    from torch import hub

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(hub, "urlopen", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataError, match="give a local file"):
        build_backbone("resnet18", 32, "imagenet")


def test_a_weights_name_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(InvalidParameterError, match="IMAGENET1K_V1"):
        build_backbone("resnet18", 32, "IMAGENET7K")


@pytest.mark.parametrize("name", ["no_such_net", "squeezenet1_0", "fcn_resnet50"])
def test_a_backbone_that_cannot_be_used_says_so(name: str) -> None:
    with pytest.raises(InvalidParameterError, match=name):
        build_backbone(name, 64)


def test_lite0_has_its_imagenet_weights_and_gives_one_image_the_same_feature_as_in_a_batch() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs semcut[pretrained]")
    architecture = Architecture(backbone="efficientnet_lite0", classes=CLASSES, image_size=64)
    torch.manual_seed(0)
    pretrained = SemanticHashNet(architecture, "imagenet").eval()
    torch.manual_seed(0)
    fresh = SemanticHashNet(architecture).eval()
    images = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        features = pretrained(images).features
        assert features.shape == (3, 1280)
        assert not torch.allclose(features, fresh(images).features)
        assert torch.allclose(features[:1], pretrained(images[:1]).features, atol=1e-4)


def test_dim_puts_a_shorter_feature_before_the_split() -> None:
    net = SemanticHashNet(Architecture(classes=CLASSES, dim=24, bits=32)).eval()
    output = net(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert output.features.shape == (2, 24)
    assert output.logits.shape == (2, 3)
    assert output.hash.shape == (2, 32)
    assert net.head.class_scores(output.hash).shape == (2, 3)


def test_images_too_small_for_the_backbone_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="larger image size"):
        SemanticHashNet(Architecture(backbone="alexnet", classes=CLASSES, image_size=16))


@pytest.mark.parametrize(
    "wrong", [{"bits": 63}, {"head": "deep"}, {"classes": ("one",)}, {"image_size": 2}, {"dim": 0}]
)
def test_architectures_are_validated(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(wrong))):
        Architecture(**{"classes": CLASSES, **wrong})
