"""Ground truth in files: what is read of each form, and the sentence for what is wrong."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut.connector.ground_truth import oxford_files, truth_tables
from semcut.connector.ground_truth.judged_queries import Judgement, Query
from semcut.connector.ground_truth.read_truth import read_ground_truth
from semcut.indexes import DataError, InvalidParameterError
from tests.connector.ground_truth.pictures import write_oxford, write_revisited

OXFORD = {
    "hall_1_query.txt": "oxc1_hall_000013 136.5 34.1 648.5 955.7\n",
    "hall_1_good.txt": "hall_000013\nhall_000026\n",
    "hall_1_ok.txt": "hall_000051\r\n\n",
    "hall_1_junk.txt": "",
}


def written(place: Path, files: dict[str, str]) -> Path:
    place.mkdir(exist_ok=True)
    for name, text in files.items():
        (place / name).write_text(text)
    return place


def test_the_files_of_a_query_are_joined(tmp_path: Path) -> None:
    truth = read_ground_truth("oxford5k", written(tmp_path, {**OXFORD, "README.txt": "\0"}))
    assert truth.queries == (Query("hall_1", "hall_000013", (136.5, 34.1, 648.5, 955.7)),)
    assert truth.levels == {"all": (Judgement(frozenset({"hall_000013", "hall_000026", "hall_000051"}), frozenset()),)}
    assert truth.trapezoid
    assert (truth.by_stem, truth.published, truth.left_out) == (True, (55, 5062), ())
    assert read_ground_truth("paris6k", tmp_path).published == (55, 6392)


def test_a_query_without_one_of_its_files_is_left_out_and_named(tmp_path: Path) -> None:
    write_oxford(tmp_path)
    (tmp_path / "truth" / "hall_2_1_ok.txt").unlink()
    (tmp_path / "truth" / "hall_3_1_junk.txt").unlink()
    truth = read_ground_truth("oxford5k", tmp_path / "truth")
    assert len(truth.queries) == 4
    assert dict(truth.left_out) == {
        "hall_2_1": "hall_2_1_ok.txt missing beside its query",
        "hall_3_1": "hall_3_1_junk.txt missing beside its query",
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"other.txt": ""}, "has no ground truth of oxford5k: expected files such as all_souls_1_query.txt"),
        ({**OXFORD, "hall_1_query.txt": ""}, "holds '', expected the name of an image and four numbers"),
        ({**OXFORD, "hall_1_query.txt": "a 1 2 3\n"}, "expected the name of an image and four numbers"),
        ({**OXFORD, "hall_1_query.txt": "a 1 2 x 4\n"}, "the box is .*, expected left, top, right and bottom"),
        ({**OXFORD, "hall_1_query.txt": "a 1 2 nan 4\n"}, "the box is .*, expected left, top, right and bottom"),
        ({**OXFORD, "hall_1_query.txt": "a 9 2 3 4\n"}, "the box is .*, expected left, top, right and bottom"),
        ({**OXFORD, "hall_1_junk.txt": "hall_000026\n"}, "'hall_000026' is both relevant and junk for the query"),
        ({**OXFORD, "hall_1_good.txt": "x" * (oxford_files.MAX_FILE_BYTES + 1)}, "expected at most 1,048,576"),
    ],
)  # fmt: skip
def test_wrong_text_files_are_one_sentence(files: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_ground_truth("oxford5k", written(tmp_path, files))


def test_files_that_are_no_regular_text_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, OXFORD)
    (tmp_path / "hall_1_ok.txt").unlink()
    os.mkfifo(tmp_path / "hall_1_ok.txt")
    with pytest.raises(DataError, match=r"hall_1_ok.txt: it is not a regular file"):
        read_ground_truth("oxford5k", tmp_path)
    (tmp_path / "hall_1_ok.txt").unlink()
    (tmp_path / "hall_1_ok.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match="not text in UTF-8"):
        read_ground_truth("oxford5k", tmp_path)
    (tmp_path / "hall_1_ok.txt").write_text("a\n")
    monkeypatch.setattr(oxford_files, "MAX_BYTES", 20)
    with pytest.raises(DataError, match="hold more than 20 bytes"):
        read_ground_truth("oxford5k", tmp_path)
    monkeypatch.setattr(oxford_files, "MAX_FILES", 2)
    with pytest.raises(DataError, match="has more than 2 files"):
        read_ground_truth("oxford5k", tmp_path)
    for wrong in ("missing", "hall_1_ok.txt"):
        with pytest.raises(DataError, match="expected a folder of text files"):
            read_ground_truth("oxford5k", tmp_path / wrong)


REVISITED: dict[str, Any] = {
    "imlist": ["a", "b", "c", "d"],
    "qimlist": ["q", "r"],
    "gnd": [
        {"bbx": [1, 2, 3, 4.5], "easy": [0], "hard": [1], "junk": [2]},
        {"easy": [], "hard": [3], "junk": []},
    ],
}


def test_easy_medium_and_hard_follow_from_one_file(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(REVISITED))
    truth = read_ground_truth("roxford5k", tmp_path / "truth.json")
    assert truth.queries == (Query("q", "q", (1, 2, 3, 4.5)), Query("r", "r", None))
    own = {"q", "r"}
    assert truth.levels == {
        "easy": (Judgement(frozenset("a"), frozenset("bc") | own), Judgement(frozenset(), frozenset("d") | own)),
        "medium": (Judgement(frozenset("ab"), frozenset("c") | own), Judgement(frozenset("d"), own)),
        "hard": (Judgement(frozenset("b"), frozenset("ac") | own), Judgement(frozenset("d"), own)),
    }
    assert (truth.names, truth.published) == (frozenset("abcd"), (70, 4993))
    assert read_ground_truth("rparis6k", tmp_path / "truth.json").published == (70, 6322)


def changed(place: int | None, **values: Any) -> dict[str, Any]:
    if place is None:
        return {**REVISITED, **values}
    judged = [{**one, **(values if at == place else {})} for at, one in enumerate(REVISITED["gnd"])]
    return {**REVISITED, "gnd": judged}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"holds \[\], expected an object with imlist"),
        (changed(None, imlist="ab"), "has imlist = 'ab', expected a list of names"),
        (changed(None, imlist=["a", ""]), "expected a list of names"),
        (changed(None, imlist=["a", "a", "b", "c"]), "names an image twice in imlist"),
        (changed(None, qimlist=["q"]), "has 1 queries in qimlist, expected one object in gnd for each"),
        (changed(None, qimlist=[], gnd=[]), "has 0 queries in qimlist"),
        (changed(None, gnd=[[], {}]), r"gnd\[0\] is \[\], expected an object with bbx"),
        (changed(0, easy=[4]), r"gnd\[0\] has easy = \[4\], expected a list of positions in imlist"),
        (changed(0, easy=[-1]), "expected a list of positions"),
        (changed(0, easy=[True]), "expected a list of positions"),
        (changed(1, junk=None), r"gnd\[1\] has junk = None"),
        (changed(0, junk=[1]), "'b' is both relevant and junk"),
        (changed(0, bbx=[1, 2, 3]), "the box is"),
        (changed(0, bbx="1234"), "the box is"),
        (changed(0, bbx=[1, 2, 3, 10**400]), "the box is"),
    ],
)  # fmt: skip
def test_a_wrong_json_is_one_sentence(content: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_ground_truth("roxford5k", tmp_path / "truth.json")


def test_no_pickle_is_read(tmp_path: Path) -> None:
    (tmp_path / "truth.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match="it is no JSON; a published pickle must be converted first"):
        read_ground_truth("roxford5k", tmp_path / "truth.pkl")
    write_revisited(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for wrong, reason in (("missing", "No such file"), ("pipe", "not a regular file"), ("", "not a regular file")):
        with pytest.raises(DataError, match=reason):
            read_ground_truth("roxford5k", tmp_path / wrong)


def test_a_table_names_images_by_their_paths(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(
        "\ufeffrelevant, query,note,junk,box\n"
        "a/2.jpg; ./a/3.jpg,a/1.jpg,x,a/9.jpg,\n"
        "a/4.jpg,./a/1.jpg,,,\n"
        '"b,2.jpg",b/1.jpg,,,10 20 300 400.5\n'
        "\n"
        "c/1.jpg;c/2.jpg,c/1.jpg\n"
    )
    truth = read_ground_truth("csv", tmp_path / "truth.csv")
    assert truth.queries == (
        Query("a/1.jpg", "a/1.jpg"),
        Query("b/1.jpg 10 20 300 400.5", "b/1.jpg", (10, 20, 300, 400.5)),
        Query("c/1.jpg", "c/1.jpg"),
    )
    assert truth.levels["all"] == (
        Judgement(frozenset({"a/2.jpg", "a/3.jpg", "a/4.jpg"}), frozenset({"a/9.jpg", "a/1.jpg"})),
        Judgement(frozenset({"b,2.jpg"}), frozenset({"b/1.jpg"})),
        Judgement(frozenset({"c/1.jpg", "c/2.jpg"}), frozenset()),
    )
    assert (truth.trapezoid, truth.by_stem, truth.published) == (False, False, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has the columns '', expected query and relevant"),
        ("query,right\na,b\n", "has the columns 'query, right', expected query and relevant"),
        ("query,relevant,query\na,b,c\n", "line 1 has a column twice"),
        ("query,relevant\na,b,c\n", "line 2 has 3 values, expected 2: put a value with a comma in quotes"),
        ("query,relevant\n,b\n", "line 2 names no query"),
        ("query,relevant\na,\n", "names no relevant image"),
        ("query,relevant,junk\na,b,b\n", "'b' is both relevant and junk for the query 'a'"),
        ("query,relevant,box\na,b,1 2 3\n", "line 2: the box is"),
        ('query,relevant\n"a,b\n', "is no CSV"),
        ("query,relevant\na,\ud800\n", "is not text in UTF-8"),
        ("query,relevant\na," + "b" * (1 << 20), "has a row of more than"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(DataError, match=message) as error:
        read_ground_truth("csv", tmp_path / "truth.csv")
    assert len(str(error.value)) < 400


def test_a_table_is_a_bounded_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "truth.csv").write_text("query,relevant\na,b;c\nd,e\n")
    monkeypatch.setattr(truth_tables, "MAX_NAMES", 4)
    with pytest.raises(DataError, match="names more than 4 images"):
        read_ground_truth("csv", tmp_path / "truth.csv")
    monkeypatch.setattr(truth_tables, "MAX_TABLE_BYTES", 4)
    with pytest.raises(DataError, match="expected at most 4"):
        read_ground_truth("csv", tmp_path / "truth.csv")
    with pytest.raises(DataError, match="not a regular file"):
        read_ground_truth("csv", tmp_path)


def test_a_form_needs_its_source_or_none() -> None:
    with pytest.raises(InvalidParameterError, match="form = 'oxford', expected oxford5k, paris6k"):
        read_ground_truth("oxford", "x")  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="csv has its ground truth in files"):
        read_ground_truth("csv", None)
    with pytest.raises(InvalidParameterError, match="the ground truth of holidays are the names of its images"):
        read_ground_truth("holidays", "x", ["100000.jpg"])


def test_the_guide_converts_a_published_pickle(tmp_path: Path) -> None:
    """The pickle has arrays of numpy in place of lists."""
    guide = (Path(__file__).parents[3] / "docs" / "same-thing.md").read_text()
    code = guide.partition("```py\n")[2].partition("```")[0]
    judged = [{key: np.array(value) for key, value in one.items()} for one in REVISITED["gnd"]]
    (tmp_path / "gnd_roxford5k.pkl").write_bytes(pickle.dumps({**REVISITED, "gnd": judged}))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    (tmp_path / "expected.json").write_text(json.dumps(REVISITED))
    found, expected = (
        read_ground_truth("roxford5k", tmp_path / f"{one}.json") for one in ("gnd_roxford5k", "expected")
    )
    assert found == expected
