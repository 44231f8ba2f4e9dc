"""A network of every library is adopted without training, and then encodes, indexes, searches and is evaluated."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from semcut.connector import Connector
from semcut.connector.adoption import named_network
from semcut.connector.adoption.adopt import AdoptionChoices, adopt
from semcut.connector.data.images import load_pixels
from semcut.connector.data.sources import ImageSet
from semcut.connector.explore.open_index import open_stored
from semcut.connector.explore.service import ExploreService
from semcut.connector.models.adopted_network import AdoptedNet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.indexes.errors import CheckpointError, InvalidParameterError
from tests.command import semcut
from tests.connector.adoption import networks
from tests.connector.adoption.networks import CLASSES, NAME, SIZE
from tests.connector.explore.conftest import client_of

FUNCTION = "tests.connector.adoption.networks"


def of_torchvision(place: Path) -> list[object]:
    return [NAME, "--weights", networks.write_weights(place), "--image-size", SIZE,
            "--classes", networks.write_names(place)]  # fmt: skip


def of_onnx(place: Path) -> list[object]:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    return [networks.write_onnx(place), "--classes", networks.write_names(place), "--image-size", SIZE]


def of_timm(place: Path) -> list[object]:
    pytest.importorskip("timm")
    return [networks.write_timm(place)]


def of_transformers(place: Path) -> list[object]:
    pytest.importorskip("transformers")
    return [networks.write_transformers(place)]


def of_function(place: Path) -> list[object]:
    return [f"{FUNCTION}:blocks", "--image-size", SIZE, "--classes", networks.write_names(place)]


def of_vectors(place: Path) -> list[object]:
    np.save(place / "vectors.npy", np.random.default_rng(0).random((len(CLASSES), 48), np.float32))
    return [f"{FUNCTION}:embeddings", "--image-size", SIZE, "--vectors", place / "vectors.npy",
            "--classes", networks.write_names(place)]  # fmt: skip


@pytest.mark.parametrize("source", [of_torchvision, of_onnx, of_timm, of_transformers, of_function, of_vectors])
def test_a_network_of_any_library_is_adopted_and_used(
    source: Callable[[Path], list[object]], digits: ImageSet, digits_test: ImageSet, tmp_path: Path
) -> None:
    arguments = source(tmp_path)
    done = semcut("adopt", *arguments, "--images", "digits/train", "--out", "network", "--json", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert (facts["classes"], facts["image size"], facts["fitted to images"]) == (len(CLASSES), SIZE, 500)
    assert Checkpoint.load(tmp_path / "network").net.architecture.classes == CLASSES

    semcut("index", "digits/train", "--model", "network", "--out", "index", cwd=tmp_path)
    query = digits_test.files[7]
    hits = json.loads(semcut("search", "index", query, "-k", "3", "--json", cwd=tmp_path).stdout)[0]["hits"]
    assert len(hits) == 3  # with the cutoff of the index

    with Connector.open(tmp_path / "index") as connector:
        cutoff = connector.defaults.cutoff
        ours = connector.search([query], k=3)[0]
        assert [hit.id for hit in ours] == [hit["id"] for hit in hits]
        every = connector.search([query], k=3, shortlist=None, ranking="distance")[0]
        encoded = connector.encoder.encode([query, *digits.files[:20]])
        assert np.allclose(np.linalg.norm(encoded.features, axis=1), 1, atol=1e-5)
        assert np.allclose(encoded.probabilities.sum(axis=1), 1, atol=1e-5)
        stored = connector.index.get(connector.index.ids())
        distances = np.linalg.norm(stored.features - encoded.features[0], axis=1)
        r = stored.probabilities @ encoded.probabilities[0]
        assert every[0].distance == pytest.approx(distances[r > (-1 if cutoff is None else cutoff)].min(), abs=1e-4)

    opened = open_stored(tmp_path / "index", None, "cpu", pytest.fail)
    with opened.index:
        client = client_of(ExploreService(opened.index, opened.class_names, opened.encode, defaults=opened.defaults))
        stats = client.get("/stats").json()
        assert (stats["cutoff"], stats["classes"]) == (cutoff, list(CLASSES))
        image = base64.b64encode(Path(query).read_bytes()).decode()
        answer = client.post("/search", json={"image": image, "k": 3, "explain": True}).json()
        assert [int(hit["record"]["id"]) for hit in answer["hits"]] == [hit["id"] for hit in hits]

    figures = json.loads(semcut("evaluate", "index", "digits/test", "--limit", "60", "--json", cwd=tmp_path).stdout)
    assert figures["cutoff"] == cutoff
    assert figures["overall"]["map_all"] > 0.12  # of ten classes, by networks that know nothing of digits


def test_what_torchs_classifier_computes_is_what_the_adopted_network_computes(tmp_path: Path, digits: ImageSet) -> None:
    choices = AdoptionChoices(weights=str(networks.write_weights(tmp_path)), image_size=SIZE, classes=CLASSES)
    net = adopt(NAME, tmp_path / "network", digits.files[:250], choices=choices).checkpoint.net
    pixels = torch.from_numpy(np.stack([load_pixels(file, SIZE) for file in digits.files[:5]]))
    with torch.inference_mode():
        expected = networks.classifier()((pixels - net.mean) / net.std)
        found = net(pixels)
    assert torch.equal(found.logits, expected)
    assert torch.equal(net.probabilities(found.logits), torch.softmax(expected.double(), dim=1))
    assert found.features.shape == (5, 128)


@pytest.mark.parametrize("outputs", ["logits", "probabilities", "both"])
def test_logits_and_features_of_onnx_are_found(outputs: str, tmp_path: Path, digits: ImageSet) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")

    class Exported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = networks.classifier()
            self.last, self.network.fc = self.network.fc, nn.Identity()

        def forward(self, images: torch.Tensor) -> object:
            features = self.network(images)
            logits = self.last(features)
            return {"logits": logits, "probabilities": torch.softmax(logits, 1), "both": (logits, features)}[outputs]

    exported = Exported().eval()
    names = ("scores", "pooled") if outputs == "both" else ("scores",)
    file = networks.write_onnx(tmp_path, exported, outputs=names)
    net = adopt(file, tmp_path / "network", digits.files[:30], choices=AdoptionChoices(image_size=SIZE)).checkpoint.net
    pixels = torch.from_numpy(np.stack([load_pixels(file, SIZE) for file in digits.files[:5]]))
    with torch.inference_mode():
        images = (pixels - net.mean) / net.std
        features = exported.network(images)
        found = net.source(images)
        assert torch.allclose(found[0], exported.last(features), atol=1e-4)
        assert torch.allclose(found[1], features, atol=1e-4)


def test_outputs_of_onnx_that_cannot_be_distinguished_are_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3 * SIZE * SIZE, 4), nn.Linear(3 * SIZE * SIZE, 5)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.one(images.flatten(1)), self.two(images.flatten(1))

    file = networks.write_onnx(tmp_path, Two().eval(), outputs=("one", "two"))
    with pytest.raises(InvalidParameterError, match="returns one, two, of which several could be logits"):
        adopt(file, tmp_path / "network")
    assert not (tmp_path / "network").exists()
    choices = AdoptionChoices(image_size=SIZE, logits="two", features="one", codes="rotation")
    net = adopt(file, tmp_path / "network", choices=choices).checkpoint.net
    assert (len(net.architecture.classes), net.dim) == (5, 4)
    with pytest.raises(InvalidParameterError, match="computes nothing of this name"):
        adopt(file, tmp_path / "other", choices=AdoptionChoices(logits="three"))


def test_weights_of_onnx_in_other_files_become_part_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    file = networks.write_onnx(tmp_path)
    model = onnx.load(file)
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="split.weights", size_threshold=64)
    split = adopt(tmp_path / "split.onnx", tmp_path / "network", choices=AdoptionChoices(image_size=SIZE))
    (tmp_path / "split.weights").unlink()
    whole = adopt(file, tmp_path / "whole", choices=AdoptionChoices(image_size=SIZE))
    images = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
    with torch.inference_mode():
        for found, expected in zip(
            Checkpoint.load(split.checkpoint.path).net(images), whole.checkpoint.net(images), strict=True
        ):
            assert torch.equal(found, expected)


def test_a_stored_network_of_onnx_reads_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from semcut.connector.models.onnx_network import open_session

    onnx.save(onnx.load(networks.write_onnx(tmp_path)), tmp_path / "split.onnx", save_as_external_data=True,
              location="split.weights", size_threshold=64)  # fmt: skip
    monkeypatch.chdir(tmp_path)  # where onnxruntime would look for it
    with pytest.raises(CheckpointError, match="cannot open the file of ONNX"):
        open_session((tmp_path / "split.onnx").read_bytes())


@pytest.mark.parametrize("source", ["function", "ONNX"])
def test_a_network_that_this_account_did_not_adopt_does_not_run(
    source: str, tmp_path: Path, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = AdoptionChoices(image_size=SIZE, classes=CLASSES)
    if source == "ONNX":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    network = networks.blocks if source == "function" else networks.write_onnx(tmp_path)
    adopted = adopt(network, tmp_path / "network", digits.files[:30], choices=choices).checkpoint
    with Connector.create(tmp_path / "index", adopted.path, keep_network=True) as connector:
        connector.add_files(digits.files[:30])
        assert connector.search([digits.files[3]], k=1)[0][0].id == 3
    monkeypatch.setenv("SEMCUT_DATA", str(tmp_path / "of another account"))
    reason = "runs code of its own" if source == "function" else "has a file of ONNX"
    with pytest.raises(CheckpointError, match=f"{reason}.*if you trust who made it, set SEMCUT_TRUST={adopted.digest}"):
        Connector.open(tmp_path / "index")
    monkeypatch.setenv("SEMCUT_TRUST", f"{'0' * 64},{adopted.digest}")
    with Connector.open(tmp_path / "index") as connector:
        assert connector.search([digits.files[3]], k=1)[0][0].id == 3


@pytest.mark.parametrize(
    ("network", "choices", "sentence"),
    [
        (f"{FUNCTION}:not_finite", AdoptionChoices(image_size=SIZE), "numbers that are not finite"),
        (f"{FUNCTION}:broken", AdoptionChoices(image_size=SIZE), "broken failed: KeyError"),
        (f"{FUNCTION}:missing", AdoptionChoices(image_size=SIZE), "cannot import"),
        (f"{FUNCTION}:blocks", AdoptionChoices(), "give the image size"),
        (f"{FUNCTION}:blocks", AdoptionChoices(image_size=SIZE, classes=["a", "b"]), "has 7 logits"),
        (f"{FUNCTION}:blocks", AdoptionChoices(image_size=SIZE, codes="csq"), "need labelled images"),
        (f"{FUNCTION}:blocks", AdoptionChoices(image_size=SIZE, codes="itq"), "expected at most 20"),
        (f"{FUNCTION}:embeddings", AdoptionChoices(image_size=SIZE), "has no logits"),
        (f"{FUNCTION}:embeddings", AdoptionChoices(image_size=SIZE, vectors=np.ones((2, 5))), "any x 48"),
        (f"{FUNCTION}:embeddings", AdoptionChoices(image_size=SIZE, vectors=np.ones((2, 48))), "give classes"),
        ("resnet18", AdoptionChoices(), "file of its weights"),
        ("resnet1818", AdoptionChoices(weights="x"), "expected small, efficientnet_lite0"),
        ("resnet18", AdoptionChoices(weights="nothing"), "or give a local file"),
        ("resnet18", AdoptionChoices(logits="x", weights="y"), "is none"),
    ],
)
def test_what_cannot_be_adopted_is_one_sentence_and_leaves_nothing(
    network: str, choices: AdoptionChoices, sentence: str, digits: ImageSet, tmp_path: Path
) -> None:
    with pytest.raises((CheckpointError, InvalidParameterError), match=sentence):
        adopt(network, tmp_path / "network", digits.files[:20], choices=choices)
    assert not (tmp_path / "network").exists()


def test_a_network_does_not_replace_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not an empty directory"):
        adopt(networks.blocks, tmp_path / "network", choices=AdoptionChoices(image_size=SIZE))
    assert [file.name for file in (tmp_path / "network").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("head", ["csq", "orthohash", "dpn", "paper"])
def test_a_trained_head_makes_codes_that_know_the_labels(head: str, digits: ImageSet, tmp_path: Path) -> None:
    labelled = digits.sample(400)
    maps = {}
    for codes in (head, "rotation"):
        path = tmp_path / codes
        choices = AdoptionChoices(image_size=SIZE, classes=CLASSES, codes=codes, bits=32)  # type: ignore[arg-type]
        adopt(networks.blocks, path, digits.files, labelled=labelled, choices=choices)
        with Connector.create(None, path) as connector:
            connector.add_files(digits.files[:600])
            codes_ = connector.index.get(connector.index.ids()).codes
        distances = np.bitwise_count(codes_[:, None] ^ codes_[None]).sum(axis=2, dtype=int)
        np.fill_diagonal(distances, 1000)
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :50]
        maps[codes] = (digits.labels[:600][nearest] == digits.labels[:600, None]).mean()
    assert maps[head] > maps["rotation"] + 0.02, maps


def test_means_of_a_few_labelled_images_are_semantics(digits: ImageSet, digits_test: ImageSet, tmp_path: Path) -> None:
    choices = AdoptionChoices(image_size=SIZE, vectors="means", codes="rotation")
    net = adopt(networks.embeddings, tmp_path / "network", labelled=digits.sample(100), choices=choices).checkpoint.net
    assert net.architecture.classes == digits.classes
    assert 0.001 < float(net.temperature) < 0.2
    some = digits_test.sample(100)
    pixels = torch.from_numpy(np.stack([load_pixels(file, SIZE) for file in some.files]))
    with torch.inference_mode():
        probabilities = net.probabilities(net(pixels).logits).numpy()
    assert (probabilities.argmax(axis=1) == some.labels).mean() > 0.7
    assert abs(probabilities.max(axis=1).mean() - (probabilities.argmax(axis=1) == some.labels).mean()) < 0.15


@pytest.mark.parametrize("vectors", ["means", "array"])
def test_a_classifier_of_other_classes_gives_the_features_of_vectors(
    vectors: str, digits: ImageSet, tmp_path: Path
) -> None:
    few = digits.sample(60)
    given = np.random.default_rng(0).normal(size=(3, 1024))
    choices = AdoptionChoices(
        image_size=SIZE, weights=str(networks.write_weights(tmp_path)), codes="rotation",
        vectors="means" if vectors == "means" else given, classes=None if vectors == "means" else ("a", "b", "c"),
    )  # fmt: skip
    adopt(networks.NAME, tmp_path / "network", few.files, labelled=few, choices=choices)
    net = Checkpoint.load(tmp_path / "network").net
    assert isinstance(net, AdoptedNet)
    assert net.architecture.source_classes == len(CLASSES) != len(net.architecture.classes)
    pixels = torch.from_numpy(np.stack([load_pixels(file, SIZE) for file in few.files[:4]]))
    with torch.inference_mode():
        output = net(pixels)
        _, raw = net.source((pixels - net.mean) / net.std)
        direction = torch.nn.functional.normalize(raw, dim=1)
        expected = direction @ torch.nn.functional.normalize(net.vectors, dim=1).T
    assert output.logits.shape == (4, len(net.architecture.classes))
    torch.testing.assert_close(output.logits, expected)


def test_the_names_of_imagenet_are_those_that_torchvision_publishes() -> None:
    published = models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert named_network._names_in_file() == published  # without loading torchvision
    names = named_network.imagenet_classes()
    assert len(set(names)) == 1000
    assert all(name.startswith(one) for name, one in zip(names, published, strict=True))
