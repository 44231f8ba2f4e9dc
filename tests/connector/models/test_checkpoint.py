"""Checkpoints: loading one that is damaged, incomplete or of another architecture is one clear error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from semcut.connector.models.checkpoint import MODEL, WEIGHTS, Checkpoint, _digest
from semcut.connector.models.network import SemanticHashNet
from semcut.indexes.errors import CheckpointError


@pytest.fixture
def copy(model: Checkpoint, tmp_path: Path) -> Path:
    shutil.copytree(model.path, tmp_path / "copy")
    return tmp_path / "copy"


def change(path: Path, **values: object) -> None:
    content = json.loads((path / MODEL).read_text())
    (path / MODEL).write_text(json.dumps({**content, **values}))


def hashes(checkpoint: Checkpoint, images: torch.Tensor) -> torch.Tensor:
    """Compute outputs of the hash branch, always in one memory layout; another would change the last bits of floats."""
    return checkpoint.net.cpu().to(memory_format=torch.channels_last)(images).hash


def test_a_checkpoint_holds_the_network(model: Checkpoint) -> None:
    loaded = Checkpoint.load(model.path)
    assert loaded.digest == model.digest
    assert loaded.net.architecture == model.net.architecture
    assert not loaded.net.training
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(hashes(loaded, images), hashes(model, images))


def test_a_network_of_version_1_still_loads(model: Checkpoint, copy: Path) -> None:
    """Version 1 had one head, the paper's, with other names for its parameters."""
    state = load_file(copy / WEIGHTS)
    save_file({key.replace("head.classifier.", "auxiliary."): value for key, value in state.items()}, copy / WEIGHTS)
    content = json.loads((copy / MODEL).read_text())
    del content["architecture"]["head"]
    change(copy, semcut_model=1, architecture=content["architecture"], sha256=_digest(copy / WEIGHTS))
    loaded = Checkpoint.load(copy)
    assert loaded.net.architecture == model.net.architecture
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(hashes(loaded, images), hashes(model, images))


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match="holds no model"):
            Checkpoint.load(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"semcut_model": 1}', "null", "\x00\x01"])
def test_a_file_that_is_not_a_description(content: str, copy: Path) -> None:
    (copy / MODEL).write_text(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoint.load(copy)


def test_a_model_of_a_later_version(copy: Path) -> None:
    change(copy, semcut_model=99)
    with pytest.raises(CheckpointError, match="version 99"):
        Checkpoint.load(copy)


def test_weights_with_one_flipped_byte(copy: Path) -> None:
    data = bytearray((copy / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (copy / WEIGHTS).write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoint.load(copy)


def test_missing_weights(copy: Path) -> None:
    (copy / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        Checkpoint.load(copy)


def test_weights_of_another_architecture(model: Checkpoint, copy: Path) -> None:
    settings = model.net.architecture.model_dump(mode="json")
    change(copy, architecture={**settings, "bits": 128})
    with pytest.raises(CheckpointError, match=r"does not fit the architecture.*128 bits"):
        Checkpoint.load(copy)
    change(copy, architecture={**settings, "backbone": "no_such_net"})
    with pytest.raises(CheckpointError, match="cannot be built"):
        Checkpoint.load(copy)
    change(copy, architecture={**settings, "surprise": 1})
    with pytest.raises(CheckpointError, match="cannot be built"):
        Checkpoint.load(copy)


def test_weights_that_lack_a_tensor(copy: Path) -> None:
    tensors = load_file(copy / WEIGHTS)
    del tensors["hash.bias"]
    save_file(tensors, copy / WEIGHTS)
    change(copy, sha256=_digest(copy / WEIGHTS))
    with pytest.raises(CheckpointError, match=r"hash\.bias"):
        Checkpoint.load(copy)


def test_saving_over_a_checkpoint_replaces_it(model: Checkpoint, copy: Path) -> None:
    torch.manual_seed(9)
    other = SemanticHashNet(model.net.architecture)
    Checkpoint.save(copy, other.architecture, other.state_dict(), {"note": "new"})
    loaded = Checkpoint.load(copy)
    assert loaded.digest != model.digest
    assert loaded.training == {"note": "new"}
