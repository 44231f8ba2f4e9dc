"""`semcut duplicates` names groups of near-duplicates, writes a page of them, and changes nothing."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcut.connector.retrieval import duplicates_page
from semcut.connector.retrieval.duplicates_page import Duplicate
from semcut.indexes import Encodings, FaissIndex, IndexConfig
from semcut.indexes.progress import silent
from tests.command import semcut
from tests.indexes.generate import classified

CONFIG = IndexConfig(classes=4, bits=32, dim=16)
HOSTILE = "photos/<img src=x onerror=alert(1)>\u202egnp.png"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Store records of images; the records 0 to 2, and 3 and 30, are nearly the same."""
    (tmp_path / "photos").mkdir()
    uris = [f"photos/{number}.png" for number in range(31)]
    uris[1] = HOSTILE
    for number in (0, 1, 3):
        Image.new("RGB", (300, 200), (80 * number, 90, 10)).save(tmp_path / uris[number])
    records = classified(np.random.default_rng(0), CONFIG, 31)
    same = np.arange(31)
    same[[1, 2, 30]] = 0, 0, 3
    features = records.features[same] + 0.001 * np.random.default_rng(1).standard_normal(records.features.shape)
    batch = Encodings(
        probabilities=records.probabilities[same], codes=records.codes[same],
        features=(features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32),
        ids=records.ids, uris=uris,
    )  # fmt: skip
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(batch)
    return tmp_path / "index"


def files(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_groups_are_listed_and_nothing_is_changed(index: Path) -> None:
    before = files(index)
    done = semcut("duplicates", "index", cwd=index.parent)
    assert "2 groups of near-duplicates have 5 of the 31 records" in done.stdout
    assert "28 records would remain. Nothing was removed" in " ".join(done.stdout.split())
    assert "photos/30.png" in done.stdout
    assert "\u202e" not in done.stdout
    listed = json.loads(semcut("duplicates", "index", "--json", "--everywhere", cwd=index.parent).stdout)
    assert [[member["id"] for member in group] for group in listed["groups"]] == [[0, 1, 2], [3, 30]]
    assert listed["groups"][0][1]["uri"] == HOSTILE
    assert listed["groups"][0][0] == {"id": 0, "uri": "photos/0.png", "distance": 0.0, "hamming": 0}
    assert 0 < listed["groups"][0][1]["distance"] < 0.02
    assert (listed["records"], listed["everywhere"]) == (31, True)
    assert files(index) == before
    assert "0 groups" in semcut("duplicates", "index", "--distance", 0, cwd=index.parent).stdout


def test_the_page_shows_the_images_and_escapes_what_is_not_its_own(index: Path) -> None:
    done = semcut("duplicates", "index", "--page", "out/page.html", cwd=index.parent)
    assert "page: out/page.html" in done.stderr
    assert "2 images on it could not be opened, as if moved: photos/2.png" in done.stderr
    page = (index.parent / "out" / "page.html").read_text()
    assert page.startswith("<!doctype html>\n<!-- semcut duplicates -->")
    assert "&lt;img src=x onerror=alert(1)&gt;\\u202egnp.png" in page
    pictures = re.findall(r'<img alt="" src="data:image/jpeg;base64,([^"]+)">', page)
    assert re.findall(r"<img[^>]*", page) == [f'<img alt="" src="data:image/jpeg;base64,{one}"' for one in pictures]
    assert [Image.open(io.BytesIO(base64.b64decode(one))).width for one in pictures] == [128, 128, 128]
    assert page.count('<span class="none">missing</span>') == 2
    semcut("duplicates", "index", "--page", "out/page.html", "--distance", 0, cwd=index.parent)
    assert "<section>" not in (index.parent / "out" / "page.html").read_text()


def test_a_file_that_is_no_such_page_is_not_replaced(index: Path) -> None:
    (index.parent / "diary.html").write_text("<!doctype html>\n<p>dear diary")
    done = semcut("duplicates", "index", "--page", "diary.html", cwd=index.parent, status=2)
    assert "diary.html exists, and is not a page of near-duplicates" in done.stderr
    assert (index.parent / "diary.html").read_text().endswith("dear diary")


def test_a_page_goes_to_a_pipe_that_is_read_and_not_below_a_file(index: Path) -> None:
    (index.parent / "notes").write_text("notes")
    done = semcut("duplicates", "index", "--page", "notes/page.html", cwd=index.parent, status=2)
    assert "notes is no folder, so notes/page.html cannot be written: choose another name" in done.stderr
    pipe = index.parent / "pipe"
    os.mkfifo(pipe)
    done = semcut("duplicates", "index", "--page", "pipe", cwd=index.parent, status=1)
    assert done.stderr.splitlines()[-1] == "semcut: cannot write the page pipe: it is a pipe that nobody reads from"
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        semcut("duplicates", "index", "--page", "pipe", cwd=index.parent)
        assert reader.stdout is not None
        assert reader.stdout.read().startswith(b"<!doctype html>")


def test_features_of_any_length_need_a_distance(tmp_path: Path) -> None:
    records = classified(np.random.default_rng(0), CONFIG, 5)
    with FaissIndex.create(tmp_path / "index", CONFIG) as index:
        index.add(
            Encodings(
                probabilities=records.probabilities, codes=records.codes, features=3 * records.features, ids=records.ids
            )
        )
    done = semcut("duplicates", "index", cwd=tmp_path, status=1)
    assert "not of length 1, so no distance is small for all indexes: give --distance" in done.stderr
    assert "0 groups" in semcut("duplicates", "index", "--distance", 0.1, cwd=tmp_path).stdout


def test_a_page_has_a_bounded_number_of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates_page, "MOST_PICTURES", 5)
    groups = [[Duplicate(10 * group + place, None, 0.5, 3) for place in range(2)] for group in range(4)]
    page, missing = duplicates_page.duplicates_page("\udcff", ["a & b"], groups, silent)
    assert page.count(b'<span class="none">no file</span>') == 4
    assert b"2 more groups are not shown here" in page
    assert b"<h1>\\udcff</h1>" in page
    assert b"<p>a &amp; b</p>" in page
    assert missing == []
