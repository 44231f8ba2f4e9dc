"""Checkpoints: loading one that is damaged, incomplete or of another architecture is one clear error."""

from __future__ import annotations

import json
import math
import os
import random
import resource
import shutil
import struct
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from semcut.connector.data.model_file import MODEL, WEIGHTS, encoding_digest, sha256_of
from semcut.connector.data.training_digests import TRAINING_DIGESTS
from semcut.connector.models.checkpoint import METRICS, TRAINING_IMAGES, Checkpoint
from semcut.connector.models.inference import NetworkRunner
from semcut.connector.models.network import SemanticHashNet
from semcut.indexes import regular_files
from semcut.indexes.errors import CheckpointError


@pytest.fixture
def copy(model: Checkpoint, tmp_path: Path) -> Path:
    shutil.copytree(model.path, tmp_path / "copy")
    return tmp_path / "copy"


def change(path: Path, **values: object) -> None:
    """Change values of the description, and nothing else."""
    content = json.loads((path / MODEL).read_text())
    (path / MODEL).write_text(json.dumps({**content, **values}))


def forge(path: Path, **values: object) -> None:
    """Change values of the description, and make all digests right again."""
    change(path, **values)
    change(path, weights=sha256_of(path / WEIGHTS))
    change(path, sha256=encoding_digest(json.loads((path / MODEL).read_text())))


def as_version_2(path: Path, **values: object) -> None:
    """Write the description as version 2 had it."""
    content = json.loads((path / MODEL).read_text())
    kept = {name: content[name] for name in ("architecture", "training")}
    content = {"semcut_model": 2, **kept, "sha256": sha256_of(path / WEIGHTS), **values}
    (path / MODEL).write_text(json.dumps(content))


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
    as_version_2(copy, semcut_model=1, architecture=content["architecture"])
    loaded = Checkpoint.load(copy)
    assert loaded.net.architecture == model.net.architecture
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(hashes(loaded, images), hashes(model, images))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("field", ["weights", "normalisation", "binarisation"])
def test_no_network_takes_the_identity_of_another(model: Checkpoint, copy: Path, version: int, field: str) -> None:
    """By a field of version 3 in a description of a version that does not have it."""
    content = json.loads((copy / MODEL).read_text())
    save_file({key: value + 1 for key, value in load_file(copy / WEIGHTS).items()}, copy / WEIGHTS)
    content["weights"] = sha256_of(copy / WEIGHTS)
    as_version_2(copy, semcut_model=version, sha256=model.digest, **{field: content[field]})
    with pytest.raises(CheckpointError, match=f"version {version} has no field '{field}'"):
        Checkpoint.load(copy)
    as_version_2(copy, sha256=model.digest)
    with pytest.raises(CheckpointError, match="damaged or belongs to another model"):
        Checkpoint.load(copy)


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
    for values, reason in (
        ({"bits": 128}, r"does not fit the architecture.*128 bits"),
        ({"dim": 64}, r"does not fit.*middle\.0\.weight"),
        ({"dim": None}, r"does not fit.*middle\.0\.bias"),
        ({"classes": ["a", "b"]}, r"does not fit.*semantic\.weight"),
        ({"head": "csq"}, r"does not fit.*head\.centres"),
        ({"backbone": "no_such_net"}, "cannot be built"),
        ({"backbone": "resnet18"}, r"does not fit.*backbone\.network\.\S+ is missing"),
        ({"backbone": 3}, "cannot be built"),
        ({"surprise": 1}, "cannot be built"),
        ({"image_size": 10**9}, "cannot be built"),
    ):
        forge(copy, architecture={**settings, **values})
        with pytest.raises(CheckpointError, match=reason):
            Checkpoint.load(copy)


def test_weights_that_lack_a_tensor(copy: Path) -> None:
    tensors = load_file(copy / WEIGHTS)
    del tensors["hash.bias"]
    save_file(tensors, copy / WEIGHTS)
    forge(copy)
    with pytest.raises(CheckpointError, match=r"hash\.bias"):
        Checkpoint.load(copy)


def test_saving_over_a_checkpoint_replaces_it(model: Checkpoint, copy: Path) -> None:
    torch.manual_seed(9)
    other = SemanticHashNet(model.net.architecture)
    Checkpoint.save(copy, other.architecture, other.state_dict(), {"note": "new"})
    loaded = Checkpoint.load(copy)
    assert loaded.digest != model.digest
    assert loaded.training == {"note": "new"}


@pytest.mark.parametrize(
    "values",
    [{"image_size": 17}, {"image_size": 32}, {"head": "dpn"}, {"classes": list("9876543210")}, {"classes": ["x"] * 10}],
)
def test_no_change_of_the_architecture_goes_unnoticed(model: Checkpoint, copy: Path, values: dict[str, object]) -> None:
    settings = model.net.architecture.model_dump(mode="json")
    change(copy, architecture={**settings, **values})
    with pytest.raises(CheckpointError, match="was changed after the training"):
        Checkpoint.load(copy)


@pytest.mark.parametrize("name", ["normalisation", "binarisation", "weights"])
def test_no_other_change_goes_unnoticed(copy: Path, name: str) -> None:
    content = json.loads((copy / MODEL).read_text())
    others = {"normalisation": {"mean": [0.4] * 3, "std": [0.5] * 3}, "binarisation": "sign", "weights": "ab" * 32}
    other = others[name]
    change(copy, **{name: other})
    with pytest.raises(CheckpointError, match="was changed after the training"):
        Checkpoint.load(copy)
    change(copy, sha256=encoding_digest({**content, name: other}))
    with pytest.raises(CheckpointError, match=r"written for another normalisation|damaged"):
        Checkpoint.load(copy)


def test_a_consistent_forgery_is_another_network(model: Checkpoint, copy: Path) -> None:
    """So an index that the original made is not opened with it."""
    settings = model.net.architecture.model_dump(mode="json")
    forge(copy, architecture={**settings, "image_size": 24})
    assert Checkpoint.load(copy).digest != model.digest
    as_version_2(copy, architecture={**settings, "image_size": 24})
    assert Checkpoint.load(copy).digest != model.digest


def test_a_network_of_version_2_still_loads_and_has_the_digest_of_its_weights(model: Checkpoint, copy: Path) -> None:
    as_version_2(copy)
    loaded = Checkpoint.load(copy)
    assert loaded.digest == sha256_of(copy / WEIGHTS)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(hashes(loaded, images), hashes(model, images))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["hash.weight", "semantic.bias", "backbone.network.1.running_mean", "temperature"])
def test_weights_that_are_not_finite_are_refused(copy: Path, name: str, value: float) -> None:
    tensors = load_file(copy / WEIGHTS)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, copy / WEIGHTS)
    forge(copy)
    with pytest.raises(CheckpointError, match=f"'{name}' holds numbers that are not finite"):
        Checkpoint.load(copy)


def test_a_temperature_is_positive(copy: Path) -> None:
    tensors = load_file(copy / WEIGHTS)
    for value in (0.0, -1.0):
        tensors["temperature"].fill_(value)
        save_file(tensors, copy / WEIGHTS)
        forge(copy)
        with pytest.raises(CheckpointError, match="temperature"):
            Checkpoint.load(copy)


def test_a_network_that_overflows_encodes_nothing(copy: Path) -> None:
    tensors = load_file(copy / WEIGHTS)
    tensors["hash.weight"].fill_(3e38)
    save_file(tensors, copy / WEIGHTS)
    forge(copy)
    with pytest.raises(CheckpointError, match="not finite"):
        NetworkRunner(Checkpoint.load(copy).net).run(np.full((2, 3, 16, 16), 200, np.uint8))


@pytest.mark.parametrize(
    "values",
    [
        {"architecture": []},
        {"architecture": {"classes": 3}},
        {"architecture": {"classes": ["a"]}},
        {"architecture": {"classes": ["a"] * 10_001}},
        {"architecture": {"classes": ["a", 3]}},
        {"architecture": {"classes": ["a", "b" * 1001]}},
        {"architecture": {"classes": ["a", "b\ud800"]}},
        {"sha256": 3},
        {"sha256": "ab"},
        {"sha256": "AB" * 32},
        {"weights": None},
        {"weights": "ab" * 31 + "a\n"},
        {"surprise": 3},
        {"normalisation": []},
        {"training": []},
        {"training": {"config": []}},
        {"training": {"kept": 3}},
        {"training": {"start": "x"}},
        {"training": {"start": {"epochs": {"a": 1}}}},
        {"training": {"start": {"epochs": [3]}}},
        {"semcut_model": True},
        {"semcut_model": [[]]},
    ],
)
def test_fields_of_a_wrong_type_or_size(copy: Path, values: dict[str, object]) -> None:
    change(copy, **values)
    with pytest.raises(CheckpointError, match=r"cannot be read as the description of a model: |model version"):
        Checkpoint.load(copy)


def test_an_inflated_description_is_not_read(copy: Path) -> None:
    with (copy / MODEL).open("a") as file:
        file.write(" " * (5 << 20))
    with pytest.raises(CheckpointError, match="expected at most 4,194,304"):
        Checkpoint.load(copy)


def test_a_large_architecture_takes_no_memory_without_its_weights(model: Checkpoint, copy: Path) -> None:
    settings = model.net.architecture.model_dump(mode="json")
    forge(
        copy,
        architecture={
            **settings,
            "classes": list(map(str, range(10_000))),
            "dim": 65_536,
            "backbone": "regnet_y_128gf",
        },
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="does not fit the architecture"):
        Checkpoint.load(copy)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def write_header(path: Path, entries: dict[str, object]) -> None:
    """Write weights that have a header and no content, and the right digests."""
    header = json.dumps(entries).encode()
    (path / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header)
    forge(path)


@pytest.mark.parametrize("values", [{"dim": 65_536}, {"dim": 1, "head": "dpn", "bits": 1000}])
def test_weights_without_content_take_no_memory_and_draw_no_codewords(
    model: Checkpoint, copy: Path, values: dict[str, object]
) -> None:
    classes = [f"{number}" for number in range(10_000)]
    settings = {**model.net.architecture.model_dump(mode="json"), "classes": classes, **values}
    forge(copy, architecture=settings)
    first = {"semantic": 10_000, "hash": settings["bits"], "middle.0": settings["dim"]}
    empty = {"dtype": "F32", "data_offsets": [0, 0]}
    write_header(copy, {f"{name}.weight": {**empty, "shape": [outputs, 0]} for name, outputs in first.items()})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="does not fit the architecture"):
        Checkpoint.load(copy)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [999] * 500_000, "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [1 << 41, 0], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": [0], "data_offsets": [0]},
        {"dtype": "F33", "shape": [0], "data_offsets": [0, 0]},
        {"dtype": [], "shape": [0], "data_offsets": [0, 0]},
    ],
)
def test_a_header_with_a_shape_that_cannot_be(copy: Path, entry: dict[str, object]) -> None:
    write_header(copy, {"backbone.x": entry})
    with pytest.raises(CheckpointError, match=r"does not fit the architecture.*its header cannot be read"):
        Checkpoint.load(copy)


def test_codewords_are_taken_from_the_weights(model: Checkpoint, tmp_path: Path) -> None:
    architecture = model.net.architecture.model_copy(update={"head": "dpn"})
    weights = SemanticHashNet(architecture).state_dict()
    weights["head.targets"] = -weights["head.targets"]
    Checkpoint.save(tmp_path, architecture, weights, {})
    loaded = Checkpoint.load(tmp_path).net
    assert torch.equal(loaded.head.targets, weights["head.targets"])
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_weights_of_another_precision_are_converted(copy: Path) -> None:
    """Before they are checked: 1e300 is finite as it is, and not as one of the network's numbers."""
    tensors = load_file(copy / WEIGHTS)
    tensors["hash.bias"] = tensors["hash.bias"].half()
    save_file(tensors, copy / WEIGHTS)
    forge(copy)
    assert Checkpoint.load(copy).net.hash.bias.dtype == torch.float32
    tensors["hash.bias"] = torch.full(tensors["hash.bias"].shape, 1e300, dtype=torch.float64)
    save_file(tensors, copy / WEIGHTS)
    forge(copy)
    with pytest.raises(CheckpointError, match="not finite"):
        Checkpoint.load(copy)


@pytest.mark.parametrize("name", [MODEL, WEIGHTS])
@pytest.mark.parametrize("kind", ["fifo", "device", "link", "directory"])
def test_files_are_regular(copy: Path, name: str, kind: str) -> None:
    path = copy / name
    path.rename(copy / "away")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else copy / "away")
    with pytest.raises(CheckpointError, match=r"not a regular file|symbolic link"):
        Checkpoint.load(copy)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (1 << 20).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}xx",
        (40).to_bytes(8, "little") + b"[" * 40,
        b"\x41" + bytes(7) + b'{"hash.weight":{"dtype":"F32","shape":[1e9],"data_offsets":[0,4]}}'[:65],
    ],
)
def test_a_file_that_holds_no_tensors(copy: Path, content: bytes) -> None:
    (copy / WEIGHTS).write_bytes(content)
    forge(copy)
    with pytest.raises(CheckpointError, match="does not fit"):
        Checkpoint.load(copy)


def test_a_large_sparse_file_of_weights_is_not_read(copy: Path) -> None:
    os.truncate(copy / WEIGHTS, 1 << 33)
    with pytest.raises(CheckpointError, match="most of its 8,589,934,592 bytes are holes"):
        Checkpoint.load(copy)
    os.truncate(copy / WEIGHTS, 1 << 40)
    with pytest.raises(CheckpointError, match="expected at most"):
        Checkpoint.load(copy)


@pytest.mark.parametrize("count", [100, pytest.param(3000, marks=pytest.mark.long)])
def test_random_damage_is_one_error(model: Checkpoint, copy: Path, count: int) -> None:
    """Flipped bytes of the description and of the header of the weights."""
    rng = random.Random(count)
    for name, length in ((MODEL, 3000), (WEIGHTS, 2000)):
        whole = (model.path / name).read_bytes()
        for _ in range(count):
            damaged = bytearray(whole)
            for _ in range(rng.randint(1, 3)):
                damaged[rng.randrange(min(length, len(damaged)))] = rng.randrange(256)
            (copy / name).write_bytes(damaged)
            if name == WEIGHTS:
                forge(copy)
            with suppress(CheckpointError):
                Checkpoint.load(copy)
        shutil.copyfile(model.path / name, copy / name)
        shutil.copyfile(model.path / MODEL, copy / MODEL)


@pytest.mark.parametrize("content", [b"3", b"{", b"[" * 100_000, b"\xff"])
def test_metrics_that_cannot_be_read(copy: Path, content: bytes) -> None:
    (copy / METRICS).write_bytes(content)
    with pytest.raises(CheckpointError, match="does not say how its network was trained"):
        Checkpoint.load(copy).epochs()


def test_lists_beside_the_weights_are_regular_files_and_bounded(copy: Path) -> None:
    loaded = Checkpoint.load(copy)
    for name, read in ((TRAINING_IMAGES, loaded.training_images), (METRICS, loaded.epochs)):
        for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir):
            (copy / name).unlink()
            make(copy / name)
            with pytest.raises(CheckpointError):
                read()
        (copy / name).rmdir()
        (copy / name).touch()
        os.truncate(copy / name, 1 << 40)
        with pytest.raises(CheckpointError, match="expected at most"):
            read()
    (copy / TRAINING_IMAGES).unlink()
    assert loaded.training_images() == []


def test_lists_beside_the_weights_have_a_bounded_number_of_lines(copy: Path) -> None:
    loaded = Checkpoint.load(copy)
    for name, read, most in (
        (TRAINING_IMAGES, loaded.training_images, 2_000_000),
        (METRICS, loaded.epochs, 50_000),
    ):
        (copy / name).write_bytes(b"\n" * (most + 1))
        with pytest.raises(CheckpointError, match=f"it has {most + 1:,} lines, expected at most {most:,}"):
            read()
    (copy / METRICS).write_bytes(b"{}\n" * 50_000)
    assert len(loaded.epochs()) == 50_000
    (copy / METRICS).write_bytes(b"{}\r" * 50_001)  # lines end in one way only
    with pytest.raises(CheckpointError, match="does not say how its network was trained"):
        loaded.epochs()


@pytest.mark.parametrize("start", [3, {"epochs": 3}, {"epochs": [3]}, {"epochs": [{}] * 50_000}])
def test_epochs_of_a_warm_start_that_cannot_be_read(start: object, copy: Path) -> None:
    loaded = Checkpoint.load(copy)
    with pytest.raises(CheckpointError, match="does not say how its network was trained"):
        replace(loaded, training={**loaded.training, "start": start}).epochs()


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"training": (4_000_000, 16), "validation": (1, 16)}, "it has 4,000,001 digests, expected at most 4,000,000"),
        ({"training": (2, 15), "validation": (1, 16)}, "training are not digests"),
        ({"training": (2, 16), "validation": (16,)}, "validation are not digests"),
        ({"training": (2, 16)}, "expected the tensors training and validation"),
        ({"training": (2, 16), "validation": (1, 16), "more": (1, 16)}, "expected the tensors"),
    ],
)
def test_digests_are_counted_before_they_are_read(
    shapes: dict[str, tuple[int, ...]], reason: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regular_files, "_ANY_BYTES", 1 << 30)  # or a hole would be refused for itself
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [end, end + math.prod(shape)]}
        end += math.prod(shape)
    content = json.dumps(header).encode()
    (copy / TRAINING_DIGESTS).write_bytes(struct.pack("<Q", len(content)) + content)
    os.truncate(copy / TRAINING_DIGESTS, 8 + len(content) + end)
    loaded = Checkpoint.load(copy)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=reason):
            loaded.training_digests()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
