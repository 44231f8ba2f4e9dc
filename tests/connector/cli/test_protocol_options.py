"""Tests of the option --protocol: train, index and evaluate are given the same protocol, seed and data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semcut.connector.evaluation.rankings import CUTOFFS, RANKING_NAMES
from semcut.connector.retrieval.model_link import LINK
from tests.command import semcut


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("protocol")
    trained = semcut(
        "train", "digits", "--protocol", "cifar10-2", "--head", "orthohash", "--out", "model", "--image-size", 8,
        "--epochs", 4, "--dim", 32, "--augment", "shift", "--json", cwd=place,
    )  # fmt: skip
    assert json.loads(trained.stdout)["images"] == 1442
    indexed = semcut(
        "index", "digits", "--protocol", "cifar10-2", "--model", "model", "--out", "index", "--json", cwd=place
    )
    assert json.loads(indexed.stdout)["added"] == 1442
    return place


def test_the_index_records_how_its_codes_were_binarised(place: Path) -> None:
    link = json.loads((place / "index" / LINK).read_text())
    assert (link["head"], link["binarisation"]) == ("orthohash", "sign")


def test_evaluate_compares_rankings(place: Path) -> None:
    content = json.loads(semcut("evaluate", "index", "digits", "--protocol", "cifar10-2", "--json", cwd=place).stdout)
    rows = {(row["ranking"], row["cutoff"]): row for row in content["rankings"]}
    assert set(rows) == {(name, t) for name in RANKING_NAMES for t in CUTOFFS}
    assert rows["hamming", 0]["map_all"] > 0.9
    assert rows["fused", 0]["relevant"] == pytest.approx(1)
    assert rows["fused", 0.5]["scanned"] < 0.5
    assert rows["euclidean", 0.2]["map_all"] == pytest.approx(content["overall"]["map_all"])
    table = semcut("evaluate", "index", "digits", "--protocol", "cifar10-2", cwd=place).stdout
    assert "Rankings, cifar10-2" in table


def test_a_network_or_an_index_of_other_images_is_refused(place: Path) -> None:
    semcut(
        "train", "digits/train", "--limit", 100, "--out", "other", "--image-size", 8, "--epochs", 1, cwd=place,
    )  # fmt: skip
    semcut("index", "digits", "--protocol", "cifar10-2", "--model", "other", "--out", "others", cwd=place)
    done = semcut("evaluate", "others", "digits", "--protocol", "cifar10-2", cwd=place, status=1)
    assert "trained on 100 images; 0 of them are not among the 1,442 images that cifar10-2 selects" in done.stderr
    semcut("index", "digits/test", "--model", "model", "--out", "queries", cwd=place)
    done = semcut("evaluate", "queries", "digits", "--protocol", "cifar10-2", cwd=place, status=1)
    assert "the index holds 355 images; 355 of them are not among the 1,442 images" in done.stderr


def test_data_that_does_not_fit_the_protocol_is_refused(place: Path) -> None:
    done = semcut("train", "digits", "--protocol", "cifar10", "--out", "x", cwd=place, status=1)
    assert "digits/train has 1442 images, but cifar10 draws 5000 of them" in done.stderr
    done = semcut("train", "digits", "--protocol", "cifar10-2", "--limit", 5, "--out", "x", cwd=place, status=2)
    assert "leave out --limit" in done.stderr
    assert not (place / "x").exists()
