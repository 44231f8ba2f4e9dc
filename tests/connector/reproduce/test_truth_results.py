"""Sets with ground truth go from a folder to the paper's tables: figures, page, and files from someone else."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut.connector import Connector
from semcut.connector.evaluation.rankings import CUTOFFS
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.reproduce import judged_tables
from semcut.connector.reproduce.measure_truth import measure_truth
from semcut.connector.reproduce.truth_measurement import TruthMeasurement
from semcut.connector.reproduce.truth_section import truths_in
from semcut.indexes import DataError
from semcut.indexes.progress import silent
from tests.command import semcut
from tests.connector.ground_truth.pictures import FORMS, THINGS, write_holidays, write_oxford


@pytest.fixture(scope="module")
def network(model: Checkpoint) -> Path:
    return Path(model.path)


@pytest.mark.parametrize("form", ["paris6k=truth", "rparis6k=truth.json", "ukbench", "csv=truth.csv"])
def test_a_set_goes_from_folder_to_tables_in_one_command(form: str, network: Path, tmp_path: Path) -> None:
    FORMS[form](tmp_path)
    name = form.partition("=")[0]
    command = ("reproduce", "out", network, "--data", "photos", "--ground-truth", form)
    done = json.loads(semcut(*command, "--json", cwd=tmp_path).stdout)
    (found,) = done["sets"]
    assert (found["ground_truth"], done["networks"]) == (name, [])
    place = tmp_path / "out" / name / found["name"]
    evaluated = json.loads(
        semcut("evaluate", place / "index", "photos", "--ground-truth", form, "--cutoff", "none", "--ranking",
               "distance", "--json", cwd=tmp_path).stdout
    )  # fmt: skip
    measured = TruthMeasurement.load(place / "figures.json")
    assert measured.queries == [one["query"] for one in evaluated["queries"]]
    for level, searches in evaluated["levels"].items():
        for search in ("every record by distance", "every record by relevance", "every record by fused score"):
            assert found["searches"][level][search]["map_all"] == pytest.approx(searches[search]["map_all"])
            assert found["searches"][level][search]["map_10"] == pytest.approx(searches[search]["map_k"])
        assert found["searches"][level]["index"]["map_all"] == pytest.approx(searches["index"]["map_all"])
        assert found["searches"][level]["index"]["n_s"] is not None
        for ranking, search in (
            ("distance", "by distance"),
            ("fused", "by fused score"),
            ("relevance", "by relevance"),
        ):
            curves = measured.figures(level, ranking)
            assert curves.shape == (len(CUTOFFS), len(measured.queries))
            assert np.nanmean(curves[0]) <= searches[f"every record {search}"]["map_all"] + 1e-6
    page = (tmp_path / "out" / "results.md").read_text()
    assert f"## {name}" in page
    assert "a part of" in page or name == "csv"
    assert ("N-S, index" in page) == (name == "ukbench")
    assert ("mAP by landmark" in page) == (name != "ukbench")  # of which every image is a query
    assert page.count("What calibration by copies chose") == (3 if name == "rparis6k" else 1)
    assert "## Time by set and number of categories" in page
    assert (tmp_path / "out" / name / "fig4.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((tmp_path / "out" / name / "figures.csv").read_text().splitlines()))
    distance = [float(row["AP@all"]) for row in rows if row["ranking"] == "distance" and row["t"] == "0.0"]
    assert len(distance) == sum(
        value is not None for level in measured.curves.values() for value in level["distance"][0]
    )


def test_seeds_are_one_method_and_training_images_are_not_searched(tmp_path: Path) -> None:
    write_oxford(tmp_path)
    form = ("--ground-truth", "oxford5k=truth")
    for seed in (0, 1):
        semcut(
            "train", "photos", *form, "--others", "--limit", "20", "--backbone", "small", "--image-size", "16",
            "--epochs", "1", "--bits", "32", "--dim", "16", "--seed", seed, "--out", f"net-{seed}", cwd=tmp_path,
        )  # fmt: skip
        done = semcut("reproduce", "out", f"net-{seed}", "--data", "photos", *form, cwd=tmp_path)
    assert "oxford5k, mAP by landmark" in done.stdout
    measured = truths_in(tmp_path / "out")["oxford5k"]
    assert len(measured) == 2
    assert all(one.records + one.trained == 42 and one.trained >= 15 for one in measured)
    (group,) = judged_tables.truth_groups(measured)
    assert [member.about["config"]["seed"] for member in group.members] == [0, 1]
    assert group.label == "paper"
    table = judged_tables.landmarks([group], "all")
    assert table.columns == ("", *(f"hall_{thing}" for thing in range(THINGS)), "all")
    distance = {row[0]: row[1:] for row in table.rows}["paper: features, Euclidean"]
    means = [np.nanmean(one.figures("all", "distance")[0]) for one in measured]
    assert distance[-1] == f"{np.mean(means):.3f} ± {np.std(means, ddof=1):.3f}"
    of_first = [
        one.figures("all", "distance")[0][one.landmarks.index("hall_0")]
        for one in measured
        if "hall_0" in one.landmarks
    ]
    assert distance[0].startswith(f"{np.mean(of_first):.3f}")
    before = (tmp_path / "out" / "results.md").read_text()
    semcut("reproduce", "out", cwd=tmp_path)
    assert (tmp_path / "out" / "results.md").read_text() == before
    assert before.count("$ semcut reproduce out") == 2
    assert "images that a network was trained on" in before


def test_what_calibration_chose_are_the_defaults_of_the_index(network: Path, tmp_path: Path) -> None:
    write_holidays(tmp_path, 110)
    (tmp_path / "photos" / "broken.png").write_text("broken")
    tasks: set[str] = set()
    found = measure_truth(
        network, str(tmp_path / "photos"), "holidays", None, tmp_path / "out", device="cpu",
        progress=lambda done, total, task="": tasks.add(task.partition(": ")[2]),
    )  # fmt: skip
    assert tasks == {"indexing", "encoding queries", "calibrating", "ranking", "searching"}
    assert not isinstance(found.chosen, str)
    with Connector.open(tmp_path / "out" / "holidays" / found.name / "index") as connector:
        assert (connector.defaults.cutoff, connector.defaults.ranking) == (found.chosen.cutoff, found.chosen.ranking)
        assert len(connector.index) == found.records == 452
    again = measure_truth(
        network, str(tmp_path / "missing"), "holidays", None, tmp_path / "out", device="cpu", progress=silent
    )
    assert again == found


def test_adopted_networks_are_methods_of_their_own(tmp_path: Path) -> None:
    write_holidays(tmp_path)
    for number, pooling in enumerate(((), ("--pooling", "3"))):
        command = ("adopt", "efficientnet_lite0", "--images", "photos", "--image-size", "32", *pooling)
        semcut(*command, "--out", f"net-{number}", cwd=tmp_path)
    semcut("reproduce", "out", "net-0", "net-1", "--data", "photos", "--ground-truth", "holidays", cwd=tmp_path)
    measured = truths_in(tmp_path / "out")["holidays"]
    groups = judged_tables.truth_groups(measured)
    assert [group.label for group in groups] == [one.name for one in measured]
    assert [one.about["classes"] for one in measured] == [1000, 1000]
    table = judged_tables.times({"holidays": groups})
    assert [row[2:4] for row in table.rows] == [("1,000", "36"), ("1,000", "36")]


@pytest.fixture(scope="module")
def figures(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("figures")
    write_holidays(place)
    name = measure_truth(
        network, str(place / "photos"), "holidays", None, place / "out", device="cpu", progress=silent
    ).name
    return place / "out" / "holidays" / name / "figures.json"


CHANGES: dict[str, Any] = {
    "form": "ukbench",
    "sentence": 3,
    "about": {"name": "other", "sha256": "0", "classes": 3},
    "records": -1,
    "queries": [],
    "landmarks": ["one"],
    "curves": {},
    "relevant": [0.1],
    "chosen": {"cutoff": "none"},
    "searches": {"all": {"index": [2.0, 0, 0]}},
    "times": {"index": [1, 1]},
    "machine": None,
}


@pytest.mark.parametrize("name", CHANGES)
def test_figures_from_someone_else_are_checked(name: str, figures: Path) -> None:
    whole = figures.read_text()
    content = json.loads(whole)
    try:
        figures.write_text(json.dumps({**content, name: CHANGES[name]}))
        with pytest.raises(DataError, match=r"delete it"):
            truths_in(figures.parents[2])
    finally:
        figures.write_text(whole)


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"times": 3, "searches": []}', "[" * 100_000])
def test_damaged_figures_are_one_sentence(text: str, figures: Path) -> None:
    whole = figures.read_text()
    try:
        figures.write_text(text)
        with pytest.raises(DataError, match=r"figures.json cannot be read \(.*delete it"):
            truths_in(figures.parents[2])
    finally:
        figures.write_text(whole)


def test_figures_of_another_network_are_not_taken_for_its_own(network: Path, figures: Path) -> None:
    whole = figures.read_text()
    content = json.loads(whole)
    try:
        figures.write_text(json.dumps({**content, "about": {**content["about"], "sha256": "0" * 64}}))
        with pytest.raises(DataError, match="has the figures of another network"):
            measure_truth(network, "photos", "holidays", None, figures.parents[2], device="cpu", progress=silent)
    finally:
        figures.write_text(whole)


def test_misuse_is_one_line(network: Path, tmp_path: Path) -> None:
    command = ("reproduce", "out", network, "--data", "photos", "--ground-truth", "holidays")
    done = semcut(*command, "--protocol", "cifar10-1", cwd=tmp_path, status=2)
    assert "leave out --protocol" in done.stderr
    done = semcut("reproduce", "out", network, "--ground-truth", "holidays", cwd=tmp_path, status=2)
    assert "--protocol or --ground-truth: give both" in " ".join(done.stderr.split())
    (tmp_path / "photos").mkdir()
    done = semcut(*command, cwd=tmp_path, status=1)
    assert "no images are named as those of holidays" in done.stderr
    assert not (tmp_path / "out").exists()
