"""What is measured is what an index and obvious formulas say; once, and of the right network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from semcut.connector.data import sources
from semcut.connector.data.labels import labels_by_id
from semcut.connector.data.protocols import parts
from semcut.connector.evaluation.evaluate import evaluate
from semcut.connector.evaluation.rankings import NAMES
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.reproduce import results_page
from semcut.connector.reproduce.baselines import baseline_codes
from semcut.connector.reproduce.measured import FILE, KS, Measured, measure
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.training.loop import TrainConfig, train
from semcut.indexes import Encodings, FaissIndex
from semcut.indexes.errors import CheckpointError, DataError
from tests.connector.evaluation.test_metrics import slow_average_precision
from tests.connector.reproduce.conftest import PROTOCOL, place_of


def nothing(what: str, done: int, of: int) -> None:
    pass


def test_figures_are_those_of_the_index(networks, results):
    measured = results[1]
    queries = sources.load("digits/test")
    encodings = Encoder(Checkpoint.load(networks["ortho-0"])).encode(queries.files)
    one = measured["ortho-0"]
    assert one.about["queries"] == len(queries) == len(one.labels)
    assert one.right.mean() == (encodings.probabilities.argmax(axis=1) == queries.labels).mean()
    with FaissIndex.open(place_of(results, "ortho-0") / "index") as index:
        assert one.about["records"] == len(index) == 1442
        labels = labels_by_id(index, queries.classes)
        for name, ranking in (("euclidean", "distance"), ("fused", "fused")):
            for t in (0.0, 0.2):
                expected = evaluate(index, labels, encodings, queries.labels, queries.classes, k=100, cutoff=t,
                                    shortlist=None, ranking=ranking)  # fmt: skip
                at = NAMES.index(name), one.comparison.cutoffs.index(t)
                assert one.comparison.at_all[at].mean() == pytest.approx(expected.overall.map_all, abs=1e-5)
                at_k = one.comparison.at_k[at][:, KS.index(100)].mean()
                assert at_k == pytest.approx(expected.overall.map_k, abs=1e-5)


def test_networks_of_one_frozen_backbone_share_what_it_makes_of_the_images(networks, tmp_path):
    divided, start = parts(PROTOCOL, "digits", 0), networks["ortho-0"]
    architecture, seen = Checkpoint.load(start).net.architecture, []
    config = TrainConfig(epochs=1, learning_rate=4e-3, augment="none", freeze=True, seed=0)
    for name, bits in (("one", {}), ("other", {"weight_decay": 0.0})):
        train(divided.training, architecture, TrainConfig(**{**config.model_dump(), **bits}), tmp_path / name,
              start=start)  # fmt: skip
        found = measure(tmp_path / name, "digits", PROTOCOL, tmp_path / "out",
                        progress=lambda what, done, of: seen.append((what.split(": ")[1], done, of)))  # fmt: skip
        with FaissIndex.open(tmp_path / "out" / PROTOCOL / str(found.about["name"]) / "index") as index:
            kept = Encodings.concatenate(list(index.iterate()))
            files = index.uris(kept.ids)
        plain = Encoder(Checkpoint.load(tmp_path / name))
        expected = plain.encode(files)
        assert np.allclose(kept.probabilities, expected.probabilities, atol=1e-5)
        assert np.allclose(kept.features, expected.features, atol=1e-5)
        assert (np.bitwise_count(kept.codes ^ expected.codes).sum(axis=1) > 0).mean() < 0.01
        queries = plain.encode(divided.queries.files)
        assert found.right.mean() == (queries.probabilities.argmax(axis=1) == divided.queries.labels).mean()
    passes = [of for what, done, of in seen if what == "encoding all images" and done == of]
    assert passes == [len(divided.database) + len(divided.queries)]


def test_a_network_with_a_frozen_backbone_of_its_own_and_a_query_that_cannot_be_read(networks, tmp_path, monkeypatch):
    root = tmp_path / "digits"
    shutil.copytree(Path(sources.load("digits/train").files[0]).parents[2], root)
    monkeypatch.setenv("SEMCUT_CACHE", str(tmp_path / "cache"))
    divided = parts(PROTOCOL, str(root), 0)
    config = TrainConfig(epochs=1, freeze=True, augment="none")
    architecture = Checkpoint.load(networks["ortho-0"]).net.architecture
    train(divided.training, architecture, config, tmp_path / "frozen")
    measure(tmp_path / "frozen", str(root), PROTOCOL, tmp_path / "whole", progress=nothing)
    assert not list((tmp_path / "cache").glob("frozen-*"))  # no other network has this backbone, of random weights
    Path(divided.queries.files[7]).write_bytes(b"not an image")
    with pytest.raises(DataError, match=f"the query {divided.queries.files[7]} cannot be read"):
        measure(tmp_path / "frozen", str(root), PROTOCOL, tmp_path / "out", progress=nothing)


def test_baselines_are_ranked_by_their_codes(results):
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
    for theirs, ours in baseline_codes(features, features[:20], 16).values():
        assert np.array_equal(theirs[:20], ours)
        assert theirs.shape == (800, 2)
        apart = np.bitwise_count(ours[:, None] ^ theirs[None]).sum(axis=2)
        for query in range(20):
            right = labels[np.argsort(apart[query], kind="stable")] == labels[query]
            assert slow_average_precision(right.tolist(), int(right.sum())) > 0.9
    assert set(baseline_codes(features, features, 24)) == {"LSH"}
    assert set(baseline_codes(features[:10], features, 16)) == {"LSH"}


def test_what_is_there_is_not_measured_again(networks, results):
    file = place_of(results, "paper-0") / FILE
    before = file.stat().st_mtime_ns
    again = measure(networks["paper-0"], "digits", PROTOCOL, results[0], progress=nothing)
    assert file.stat().st_mtime_ns == before
    assert again.about == results[1]["paper-0"].about
    assert np.array_equal(again.comparison.at_k, results[1]["paper-0"].comparison.at_k)


def test_another_network_of_the_same_name_has_a_place_of_its_own(networks, results, tmp_path):
    out = shutil.copytree(results[0], tmp_path / "out")
    other = shutil.copytree(networks["ortho-1"], tmp_path / "networks" / "paper-0")
    found = measure(other, "digits", PROTOCOL, out, progress=nothing)
    assert found.about["sha256"] == results[1]["ortho-1"].about["sha256"]
    assert np.array_equal(found.comparison.at_all, results[1]["ortho-1"].comparison.at_all)
    assert len(list((out / PROTOCOL).glob(f"*/{FILE}"))) == 4
    with pytest.raises(DataError, match="were trained in the same way from the same seed: delete one of them"):
        results_page.write(out)


def test_what_was_not_finished_is_made_again(networks, results, tmp_path):
    out = shutil.copytree(results[0], tmp_path / "out")
    place = out / PROTOCOL / results[1]["ortho-0"].about["name"]
    (place / FILE).unlink()
    (place / "index").rename(place / "unfinished")
    (place / "unfinished" / "connector.json").unlink()
    found = measure(networks["ortho-0"], "digits", PROTOCOL, out, progress=nothing)
    assert np.array_equal(found.comparison.at_all, results[1]["ortho-0"].comparison.at_all)
    assert sorted(path.name for path in place.iterdir()) == [FILE, "index"]


def test_an_index_of_other_images_is_not_used(networks, results, tmp_path):
    out = shutil.copytree(results[0], tmp_path / "out")
    place = out / PROTOCOL / results[1]["ortho-0"].about["name"]
    (place / FILE).unlink()
    with FaissIndex.open(place / "index") as index:
        index.remove(index.ids()[:5])
    with pytest.raises(DataError, match="is an index of other images than 1,442 of this protocol: delete it"):
        measure(networks["ortho-0"], "digits", PROTOCOL, out, progress=nothing)


@pytest.mark.parametrize("damage", ["no metrics", "half a line", "no training"])
def test_a_network_that_does_not_say_how_it_was_trained_is_refused_at_once(damage, networks, tmp_path):
    model = shutil.copytree(networks["ortho-0"], tmp_path / "model")
    if damage == "no metrics":
        (model / "metrics.jsonl").unlink()
    elif damage == "half a line":
        (model / "metrics.jsonl").write_text('{"epoch": 1, "los')
    else:
        content = json.loads((model / "model.json").read_text())
        (model / "model.json").write_text(json.dumps({**content, "training": {}}))
    with pytest.raises(CheckpointError, match="does not say how its network was trained"):
        measure(model, "digits", PROTOCOL, tmp_path / "out", progress=nothing)
    assert not (tmp_path / "out").exists()


def test_a_network_of_other_images_is_refused(model, results, tmp_path):
    with pytest.raises(DataError, match="the network was trained on 600 images"):
        measure(model.path, "digits", PROTOCOL, tmp_path, progress=nothing)
    assert not any(tmp_path.iterdir())


def test_a_damaged_file_is_one_error(results, tmp_path):
    file = tmp_path / FILE
    file.write_bytes((place_of(results, "ortho-0") / FILE).read_bytes()[:1000])
    with pytest.raises(DataError, match="delete it, and the network is measured again"):
        Measured.load(file)
