"""Descriptions and directories of networks that someone forged load no other file, take no memory, and are an error."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules import module

from semcut.connector.adoption.adopt import adopt
from semcut.connector.cli.adopt_command import _array
from semcut.connector.data.model_file import encoding_digest
from semcut.connector.models import device, outline_limits
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.network_settings import kept_settings, used_settings
from semcut.connector.models.network_sources import build_classifier
from semcut.indexes.errors import CheckpointError, DataError
from tests.connector.adoption import networks
from tests.connector.data.packed import picture

NAMES = [f"kind {place}" for place in range(7)]
LABELS = {"id2label": dict(enumerate(NAMES))}
SWIN = "swin_tiny_patch4_window7_224"


def forge(
    place: Path, source: str, name: str, settings: dict[str, Any], content: bytes = save({}), **more: Any
) -> Path:
    """Write a network with a description that fits its weights."""
    architecture = {
        "source": source, "name": name, "settings": settings, "classes": NAMES, "image_size": 32, "width": 8,
        "dim": None, "mean": [0.5] * 3, "std": [0.5] * 3, "vectors": False, "bits": 64, "head": "itq", **more,
    }  # fmt: skip
    described = {
        "semcut_model": 4, "architecture": architecture, "normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3},
        "binarisation": "sign", "weights": hashlib.sha256(content).hexdigest(), "training": {},
    }  # fmt: skip
    (place / "model.json").write_text(json.dumps({**described, "sha256": encoding_digest(described)}))
    (place / "model.safetensors").write_bytes(content)
    return place


@pytest.mark.parametrize(
    ("library", "name", "settings", "sentence"),
    [
        ("transformers", "", {"model_type": "timm_wrapper", "architecture": "resnet18"}, "whose layers are all of"),
        ("transformers", "", {"model_type": "timm_wrapper", "model_args": {"checkpoint_path": "x"}}, "'model_args'"),
        ("transformers", "", {"model_type": "clip"}, "several networks"),
        ("transformers", "", {"model_type": "vit", "hidden_act": "a/b"}, "no path"),
        ("transformers", "", {"model_type": "vit", "num_hidden_layers": 257}, "at most 256"),
        ("transformers", "", {"model_type": "swin", "depths": [200, 100]}, "at most 256"),
        ("transformers", "", {"model_type": "vit", "hidden_size": 65_537}, "at most 65,536"),
        ("transformers", "", {"model_type": "vit", "layer_norm_eps": float("inf")}, "at most 65,536"),
        ("transformers", "", {"model_type": "vit", "num_labels": 10**9}, "is missing"),
        ("transformers", "", {"model_type": "vit", "attn_implementation": "a/b:c"}, "is missing"),
        ("timm", "resnet18", {"layers": [100_000, 1, 1, 1]}, "at most 65,536"),
        ("timm", "resnet18", {"checkpoint_path": "x.pth", "device": "cpu"}, "is missing"),
        ("timm", SWIN, {"img_size": 1024, "window_size": 64}, "more than 128 MiB"),
        ("timm", SWIN, {"img_size": 1024, "window_size": 65}, "at most 64"),
        ("timm", "tiny_vit_5m_224", {"window_sizes": [200] * 4}, "at most 64"),
        ("transformers", "", {"model_type": "levit", "image_size": 65_536}, "at most 1,024"),
    ],
)
def test_a_stored_description_has_only_plain_settings_within_limits(
    library: str, name: str, settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    pytest.importorskip(library)
    with pytest.raises(CheckpointError, match=sentence):
        Checkpoint.load(forge(tmp_path, library, name, settings))


@pytest.mark.parametrize(
    ("library", "name", "settings"),
    [
        ("timm", "dla34", {"levels": [1, 1, 1, 22, 1, 1]}),
        ("timm", "densenet121", {"block_config": [65_536, 1, 1, 1], "growth_rate": 1}),
        ("timm", "rexnet_100", {"depth_mult": 65_536}),
        ("transformers", "", {"model_type": "imagegpt", "n_layer": 65_536, "n_embd": 8, "n_head": 1}),
    ],
)
def test_layers_are_counted_whatever_setting_makes_them(
    library: str, name: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library)
    monkeypatch.setattr(outline_limits, "_PARTS", 1_000)
    with pytest.raises(CheckpointError, match="more than 1,000 layers and tensors"):
        Checkpoint.load(forge(tmp_path, library, name, settings))
    assert not module._global_module_registration_hooks
    assert not module._global_parameter_registration_hooks


def test_an_outline_that_takes_too_long_to_build_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr(outline_limits, "_SECONDS", -1)
    with pytest.raises(CheckpointError, match="s to build: it is described wrongly"):
        Checkpoint.load(forge(tmp_path, "timm", "resnet18", {}))


def test_settings_of_other_kinds_are_left_out_or_refused() -> None:
    plain = {"hidden_size": 32, "depths": [2, 2], "bias": True, "act": "gelu", "rate": 0.5, "nothing": None,
             "architectures": ["ViTForImageClassification"]}  # fmt: skip
    loading = {"id2label": {"0": "a"}, "auto_map": {"a": "b"}, "_name_or_path": "a/b", "torch_dtype": "float16",
               "attn_implementation": "a/b", "pretrained_cfg": {}, "backbone": "x",
               "transformers_weights": "x.bin"}  # fmt: skip
    assert used_settings({**plain, **loading}) == plain
    assert kept_settings({**plain, **loading, "nested": {"a": 1}, "path": "a/b", "lists": [[1]]}) == plain
    for value in ({"a": 1}, "a/b", "a:b", [[1]], "a" * 101):
        with pytest.raises(CheckpointError, match="expected a number, a short text"):
            used_settings({"one": value})


def test_tensors_that_no_file_has_are_bounded_by_the_file(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    from semcut.connector.models.adopted_network import AdoptedArchitecture, AdoptedNet

    settings = {"img_size": 1024, "embed_dim": 8, "depths": [20, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
    channels = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    architecture = AdoptedArchitecture(
        source="timm", name=SWIN, settings=settings, classes=NAMES, image_size=32, width=64, **channels
    )
    state = AdoptedNet.outline(architecture).state_dict()
    content = save({name: torch.ones(one.shape, dtype=one.dtype) for name, one in state.items()})
    with pytest.raises(CheckpointError, match="bytes beside its weights"):
        Checkpoint.load(forge(tmp_path, "timm", SWIN, settings, content, width=64))

    folder = tmp_path / "directory"
    folder.mkdir()
    with torch.device("meta"):
        state = build_classifier("timm", SWIN, settings, 7).state_dict()
    own = {name: torch.ones(one.shape, dtype=one.dtype) for name, one in state.items()}
    save_file(own, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": SWIN, "num_classes": 7, "model_args": settings}))
    with pytest.raises(CheckpointError, match="bytes beside its weights"):
        adopt(folder, tmp_path / "network")


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_directory_is_compared_with_its_weights_before_the_network_is_built(library: str, tmp_path: Path) -> None:
    pytest.importorskip(library)
    large = {"embed_dim": 65_536, "num_heads": 1, "depth": 200}  # 40 TB
    config = {
        "timm": {"architecture": "vit_tiny_patch16_224", "num_classes": 7, "model_args": large},
        "transformers": {"model_type": "vit", "hidden_size": 65_536, "num_attention_heads": 1, **LABELS},
    }[library]
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not hold weights of this network"):
        adopt(tmp_path, tmp_path / "network")


@pytest.mark.parametrize(("batch_bytes", "taken_apart", "adopted"), [(1 << 30, 2, 6), (2, 1, 1)])
def test_adoption_runs_as_many_images_at_once_as_fit(
    batch_bytes: int, taken_apart: int, adopted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(device, "_BYTES_ON_CPU", batch_bytes)
    files = [tmp_path / f"{number}.png" for number in range(7)]
    for number, file in enumerate(files):
        file.write_bytes(picture(number))
    batches: list[int] = []
    called = torch.nn.Conv2d.forward

    def count(layer: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        if not isinstance(images, FakeTensor):
            batches.append(len(images))
        return called(layer, images)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", count)
    assert adopt(networks.write_transformers(tmp_path), tmp_path / "new", files).images == 7
    assert (batches[0], max(batches[2:])) == (taken_apart, adopted)


@pytest.mark.parametrize("size", ["abc", float("inf"), 0, -5, 10**9, [1], True, None])
def test_the_image_size_of_an_efficientnet_lite_is_a_number_of_pixels(size: Any, tmp_path: Path) -> None:
    settings = {"image_size": size}
    with pytest.raises(CheckpointError, match="expected 8 to 1,024"):
        Checkpoint.load(forge(tmp_path, "efficientnet_lite", "efficientnet_lite0", settings, width=1280))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("<f4", "(1000000, 1500)"),
        ("<f4", "(2000000000000,)"),
        ("<f4", "(-1, 5)"),
        ("<f4", "(99999999999999999999,)"),
        ("<f4", "(" * 3000 + ")" * 3000),
        ("|O", "(8,)"),
    ],
)
def test_vectors_are_compared_with_their_file_before_they_are_read(kind: str, shape: str, tmp_path: Path) -> None:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    (tmp_path / "v.npy").write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + b"\0" * 64)
    with pytest.raises(DataError, match=r"cannot read vectors in .*v\.npy: ."):
        _array(tmp_path / "v.npy")


def test_integers_are_no_weights(tmp_path: Path) -> None:
    from semcut.connector.models.adopted_network import AdoptedArchitecture, AdoptedNet

    name = "shufflenet_v2_x0_5"
    channels = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    architecture = AdoptedArchitecture(
        source="torchvision", name=name, classes=NAMES, image_size=32, width=1024, **channels
    )
    state = AdoptedNet.outline(architecture).state_dict()
    content = save({key: torch.ones(one.shape, dtype=torch.uint8) for key, one in state.items()})
    with pytest.raises(CheckpointError, match=r"dtype torch\.uint8, expected torch\.float"):
        Checkpoint.load(forge(tmp_path, "torchvision", name, {}, content, width=1024))
