"""Encodings equal those that the equations give for the outputs of the network."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semcut.connector.data.images import load_pixels
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.connector.retrieval.encoder import Encoder
from semcut.indexes import Encodings
from semcut.indexes.errors import DataError


def test_encodings_follow_from_the_networks_outputs(model: Checkpoint, digits_test: ImageSet) -> None:
    files = digits_test.files[:20]
    encodings = Encoder(model).encode(files)
    pixels = torch.from_numpy(np.stack([load_pixels(file, 16) for file in files]))
    with torch.no_grad():
        output = model.net(pixels)
    for row in range(20):
        exponentials = [math.exp(x) for x in output.logits[row].tolist()]
        expected = [e / math.fsum(exponentials) for e in exponentials]
        assert encodings.probabilities[row].tolist() == pytest.approx(expected, abs=1e-5)
        activations = [1 / (1 + math.exp(-x)) for x in output.hash[row].tolist()]
        mean = math.fsum(activations) / len(activations)
        clear = np.array([abs(a - mean) > 1e-4 for a in activations])
        bits = np.unpackbits(encodings.codes[row])
        assert clear.sum() > 50
        assert bits[clear].tolist() == [int(a > mean) for a, c in zip(activations, clear, strict=True) if c]
        length = math.sqrt(math.fsum(x * x for x in output.features[row].tolist()))
        assert encodings.features[row].tolist() == pytest.approx(
            [x / length for x in output.features[row].tolist()], abs=1e-5
        )
    assert encodings.normalised()


def test_the_batch_size_changes_encodings_only_by_rounding(model: Checkpoint, digits_test: ImageSet) -> None:
    files = digits_test.files[:50]
    whole, small = Encoder(model).encode(files), Encoder(model, batch_size=7).encode(files)
    assert np.allclose(whole.probabilities, small.probabilities, atol=1e-5)
    assert np.allclose(whole.features, small.features, atol=1e-5)
    assert np.unpackbits(whole.codes ^ small.codes).mean() < 0.005


@pytest.mark.parametrize(
    ("backbone", "size", "expected"),
    [("small", 16, 128), ("small", 160, 5), ("small", 1024, 1), ("resnet18", 224, 10)],
)
def test_a_batch_is_as_small_as_the_memory_of_the_network_asks_for(
    tmp_path: Path, backbone: str, size: int, expected: int
) -> None:
    """A batch of 128 images of 160 pixels took 2.6 GB; now the network takes at most 128 MiB for a batch."""
    architecture = Architecture(classes=("a", "b"), backbone=backbone, image_size=size, bits=32, dim=4)
    Checkpoint.save(tmp_path, architecture, SemanticHashNet(architecture).state_dict(), {})
    files = [str(tmp_path / "none")] * 150
    first = next(iter(Encoder(Checkpoint.load(tmp_path)).encode_files(files)))
    assert len(first.skipped) == expected


def test_positions_of_files_are_ids_and_unreadable_files_are_skipped(
    model: Checkpoint, digits_test: ImageSet, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_text("no")
    files = [*digits_test.files[:5], str(tmp_path / "bad.png"), *digits_test.files[5:9]]
    batches = list(Encoder(model, batch_size=4).encode_files(files, first_id=100))
    together = Encodings.concatenate([batch.encodings for batch in batches])
    assert together.ids is not None
    assert together.ids.tolist() == [100, 101, 102, 103, 104, 106, 107, 108, 109]
    assert together.uris == [file for file in files if "bad" not in file]
    assert [name for batch in batches for name, _ in batch.skipped] == [str(tmp_path / "bad.png")]


def test_images_may_be_files_or_pil_images(model: Checkpoint, digits_test: ImageSet) -> None:
    file = digits_test.files[0]
    one, two = Encoder(model).encode([file]), Encoder(model).encode([Image.open(file)])
    assert np.array_equal(one.codes, two.codes)
    assert Encoder(model).encode([Path(file)]).codes.tolist() == one.codes.tolist()


def test_no_images_give_an_empty_batch_of_the_right_widths(model: Checkpoint) -> None:
    encoder = Encoder(model)
    empty = encoder.encode([])
    encoder.index_config().check(empty)
    assert len(empty) == 0


def test_an_image_that_cannot_be_read_is_named(model: Checkpoint) -> None:
    with pytest.raises(DataError, match=r"missing\.png"):
        Encoder(model).encode(["missing.png"])


def test_a_network_whose_feature_vanishes_still_gives_unit_features(model: Checkpoint) -> None:
    checkpoint = Checkpoint.load(model.path)
    with torch.no_grad():
        checkpoint.net.middle[0].weight.zero_()
        checkpoint.net.middle[0].bias.fill_(-1)
    assert Encoder(checkpoint).encode([Image.new("RGB", (8, 8))]).normalised()
