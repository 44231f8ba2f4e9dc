"""All images of an index are encoded again by another network, in a new index that replaces it in one step."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut.connector import Connector
from semcut.connector.data.decode_stream import PassingReason
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval import reencoding
from semcut.indexes import FaissIndex
from tests.command import semcut
from tests.connector.retrieval.test_relinking import TRAIN, link_images, records
from tests.indexes.storage.stored_index import contents as all_contents


@pytest.fixture(scope="module")
def made(digits: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of photos, its network, and another network with more classes."""
    place = tmp_path_factory.mktemp("reencoding")
    link_images(digits, place / "first", 20, bee="0", cat="1", dog="2")
    link_images(digits, place / "more", 30, ant="3", bee="0", cat="1", dog="2")
    semcut("train", "first", "--out", "model", *TRAIN, cwd=place)
    semcut("train", "more", "--out", "other", *TRAIN, "--seed", 3, cwd=place)
    for number, file in enumerate(digits.files[::60]):
        target = place / "photos" / "ab"[number % 2] / f"{number:02}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        os.utime(target, (10**9, 10**9))
    semcut("index", "photos", "--model", "model", "--out", "index", cwd=place)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(made, tmp_path / "copy", symlinks=True))
    semcut("relocate", "index", "--images", "photos", "--model", "model", cwd=copy)
    return copy


def contents(index: Path) -> dict[str, bytes]:
    """Read all files of an index, without the name of the last writer."""
    return {name: content for name, content in all_contents(index).items() if name != "lock"}


def reencode(place: Path, *options: object, model: str = "other", status: int = 0) -> subprocess.CompletedProcess[str]:
    return semcut("sync", "index", *options, "--reencode", "--model", model, "--json", cwd=place, status=status)


def ids(index: Path) -> dict[str, int]:
    found = records(index)
    assert found.ids is not None
    return dict(zip(map(str, found.uris or ()), found.ids.tolist(), strict=True))


def test_every_image_is_encoded_again_and_keeps_its_id(place: Path, digits: ImageSet) -> None:
    before = ids(place / "index")
    (place / "photos" / "a" / "00.png").unlink()
    (place / "photos" / "a" / "02.png").rename(place / "photos" / "b" / "moved.png")
    shutil.copy(digits.files[1], place / "photos" / "b" / "01.png")
    shutil.copy(digits.files[2], place / "photos" / "b" / "new.png")
    (place / "photos" / "b" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (place / "index" / "notes.txt").write_text("mine")
    planned = json.loads(reencode(place, "--dry-run").stdout)
    assert ids(place / "index") == before
    with Connector.open(place / "index") as reader:
        done = json.loads(reencode(place).stdout)
        assert len(reader.search([digits.files[0]], k=3, cutoff=0.0)[0]) == 3
    count = len(before)
    assert {name: done[name] for name in ("added", "replaced", "moved", "removed", "encoded", "records")} == {
        "added": 1, "replaced": count - 2, "moved": 1, "removed": 1, "encoded": count, "records": count,
    }  # fmt: skip
    assert {**planned, "dry_run": False} == done
    after = ids(place / "index")
    assert after.pop("b/new.png") > max(before.values())
    assert after == {
        {"a/02.png": "b/moved.png"}.get(uri, uri): record for uri, record in before.items() if uri != "a/00.png"
    }
    with Connector.open(place / "index") as connector:
        assert connector.encoder.checkpoint.digest == Checkpoint.load(place / "other").digest
        found = connector.index.get(connector.index.ids())
        expected = connector.encoder.encode(connector.paths(found.ids))
        assert np.array_equal(found.codes, expected.codes)
        assert np.allclose(found.probabilities, expected.probabilities, atol=1e-6)
        assert connector.index.verify() == []
    assert (place / "index" / "notes.txt").read_text() == "mine"
    assert sorted(file.name for file in place.iterdir() if file.name.startswith("index")) == ["index"]
    shown = json.loads(semcut("info", "index", "--json", cwd=place).stdout)
    assert shown["classes"] == 4
    assert shown["seen in training"]["known records"] == count
    again = json.loads(semcut("sync", "index", "--json", cwd=place).stdout)
    assert (again["unchanged"], again["encoded"]) == (count, 0)
    assert [Path(name).name for name, _ in again["skipped"]] == ["broken.png"]


def test_training_images_that_are_left_out_are_those_of_the_other_network(place: Path) -> None:
    learned = sorted((place / "more" / "ant").iterdir())[0]
    kept = sorted((place / "first" / "bee").iterdir())[0]
    shutil.copy(learned, place / "photos" / "a" / "ant.png")
    semcut("index", "photos", "--model", "model", "--out", "without", "--exclude-training", cwd=place)
    shutil.copy(kept, place / "photos" / "a" / "bee.png")
    assert "a/ant.png" in ids(place / "without")
    done = semcut("sync", "without", "--reencode", "--model", "other", "--json", cwd=place)
    skipped = dict(json.loads(done.stdout)["skipped"])
    for name in ("ant.png", "bee.png"):
        assert skipped[str(place / "photos" / "a" / name)] == "the network was trained on it"
    assert not {"a/ant.png", "a/bee.png"} & ids(place / "without").keys()
    assert json.loads(semcut("info", "without", "--json", cwd=place).stdout)["seen in training"]["records"] == 0


def test_a_file_with_two_records_keeps_one(place: Path) -> None:
    count = len(ids(place / "index"))
    shutil.copytree(place / "photos", place / "again")
    (place / "again" / "a" / "00.png").write_bytes((place / "photos" / "b" / "01.png").read_bytes() + b"other")
    semcut("add", "index", "again", cwd=place)
    semcut("relocate", "index", "--images", "again", cwd=place)
    assert len(ids(place / "index")) == count + 1
    planned, done = (json.loads(reencode(place, *options).stdout) for options in (("--dry-run",), ()))
    assert (planned["removed"], done["removed"], done["records"]) == (1, 1, count)
    assert len(ids(place / "index")) == count


def test_what_cannot_be_encoded_again_ends_the_command(
    place: Path, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = place / "index"
    semcut("train", "first", "--out", "short", "--image-size", 16, "--dim", 8, "--epochs", 1, cwd=place)
    shutil.copy(digits.files[3], place / "elsewhere.png")
    semcut("add", "index", "elsewhere.png", cwd=place)
    before = contents(index)
    for status, options, model, reason in (
        (1, (), "other", "1 records of files that are not in"),
        (1, ("photos/a",), "other", "records of files that are not in"),
        (1, (), "short", "codes of 64 bits and features of 8 values, the index has 64 and 16"),
        (1, (), "photos", "holds no model"),
    ):
        done = reencode(place, *options, model=model, status=status)
        assert reason in " ".join(done.stderr.split())
    assert "give the network with --model" in semcut("sync", "index", "--reencode", cwd=place, status=2).stderr
    assert contents(index) == before
    semcut("remove", "index", "--uri", "*elsewhere.png", cwd=place)
    before = contents(index)
    with monkeypatch.context() as patch:
        patch.setattr(reencoding, "is_no_image", lambda path, reason: False)  # as if the system did not let it be read
        (place / "photos" / "a" / "00.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        assert "1 images with a record cannot be read at the moment" in reencode(place, status=1).stderr
    assert contents(index) == before
    with FaissIndex.open(index) as writer:
        writer.begin()
        assert "is being written to by" in reencode(place, status=1).stderr
    assert not (place / "index.rebuilding").exists()


@pytest.mark.parametrize(
    ("during", "reason"),
    [
        (lambda photos: photos.rename(photos.with_name("away")), "photos is not there, and nothing was removed for it"),
        (lambda photos: (photos / "b").rename(photos.with_name("away")), "images with a record cannot be read at the"),
        (lambda photos: (photos / "b" / "01.png").unlink(), "1 images with a record cannot be read at the moment"),
        (
            lambda photos: shutil.copy(photos / "b" / "01.png", photos / "a" / "00.png"),
            "1 files with a record were gone",
        ),
    ],
)
def test_what_changes_while_images_are_encoded_removes_no_record(
    place: Path, monkeypatch: pytest.MonkeyPatch, during: Callable[[Path], object], reason: str
) -> None:
    (place / "photos" / "a" / "00.png").unlink()
    before = contents(place / "index")
    encode_into = reencoding.encode_into

    def changed(*arguments: Any) -> dict[str, str]:
        during(place / "photos")
        return encode_into(*arguments)

    monkeypatch.setattr(reencoding, "encode_into", changed)
    assert reason in " ".join(reencode(place, status=1).stderr.split())
    assert contents(place / "index") == before
    assert not (place / "index.rebuilding").exists()


def test_a_moved_image_that_cannot_be_read_at_the_moment_ends_the_command(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "photos" / "a" / "02.png").rename(place / "photos" / "b" / "moved.png")
    before = contents(place / "index")
    why = {"b/moved.png": PassingReason("no decoder")}
    for options, name in ((("--dry-run",), "unreadable_files"), ((), "encode_into")):
        monkeypatch.setattr(reencoding, name, lambda *arguments: why)
        done = reencode(place, *options, status=1)
        assert "1 images with a record cannot be read at the moment" in " ".join(done.stderr.split())
    assert contents(place / "index") == before


def test_a_killed_command_leaves_the_index_and_the_next_one_begins_again(place: Path) -> None:
    before = contents(place / "index")
    script = (
        "import os, signal, sys\n"
        "from semcut.connector.retrieval import file_records\n"
        "file_records._put = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from semcut.connector.cli.app import main\n"
        "sys.argv = ['semcut', 'sync', 'index', '--reencode', '--model', 'other']\n"
        "main()\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=place, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert contents(place / "index") == before
    assert (place / "index.rebuilding").exists()
    started = time.time()
    assert json.loads(reencode(place).stdout)["records"] == len(ids(place / "index"))
    assert (place / "index" / "connector.json").stat().st_mtime >= started - 2
    assert not (place / "index.rebuilding").exists()
