"""Which sources are packed data sets, and what all commands do with one, of Parquet files as of shards."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcut.connector.data import packed_files, sample_folders, sources
from semcut.connector.explore.thumbnails import thumbnail
from semcut.connector.retrieval.image_index import Connector
from semcut.indexes.errors import DataError
from tests.command import semcut
from tests.connector.adoption import networks
from tests.connector.data.packed import Row, picture, write_parquet, write_shard

TRAIN = ("--image-size", 16, "--epochs", 1, "--dim", 8)
FORMS = pytest.mark.parametrize(
    ("end", "write"), [("tar", write_shard), ("parquet", write_parquet)], ids=["webdataset", "parquet"]
)
Writer = Callable[[Path, Sequence[Row]], Path]


def found(source: object) -> list[str] | None:
    files = packed_files.packed_files(str(source))
    return None if files is None else [file.name for file in files]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEMCUT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    place = tmp_path / "shards"
    place.mkdir()
    for number in range(3):
        write_shard(place / f"{number:02d}.tar", [Row(picture(number), ("a",))])
    return place


def test_patterns_name_files_in_order(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = ["00.tar", "01.tar", "02.tar"]
    assert found(shards) == found(shards / "*.tar") == found(shards / "0[0-2].tar") == every
    assert found(shards / "{00..02}.tar") == every
    assert found(shards / "{02,00}.tar") == ["02.tar", "00.tar"]
    assert found(shards / "0{0..1}.tar") == every[:2]
    assert found(f"{shards.parent}/{{cache/../shards,shards}}/*0.tar") is not None
    monkeypatch.setenv("HOME", str(shards.parent))
    assert found("~/shards/?1.tar") == ["01.tar"]
    shutil.copy(shards / "00.tar", shards / "{00..02}.tar")
    assert found(shards / "{00..02}.tar") == ["{00..02}.tar"]  # the name of a file is no pattern


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("*9.tar", "names no file: expected a pattern of Parquet files, or of shards of WebDataset$"),
        ("*9.parquet", "names no file"),
        ("{00..03}.tar", r"names .*/03.tar, which does not exist$"),
        ("{a}.tar", r"\{a\} is no pattern, expected numbers such as \{000..009\} or names such as \{a,b\}$"),
        ("{5..2}.tar", r"\{5..2\} is no pattern"),
        ("{0..999999999}.tar", "names more than 100,000 files"),
        ("{0..999}{0..999}.tar", "names more than 100,000 files"),
    ],
)
def test_a_wrong_pattern_is_one_sentence(pattern: str, reason: str, shards: Path) -> None:
    with pytest.raises(DataError, match=reason):
        found(shards / pattern)


def test_other_folders_are_folders(shards: Path, tmp_path: Path) -> None:
    (shards / ".hidden").write_text("x")
    assert found(shards) is not None
    write_parquet(shards / "a.parquet", [Row(picture(0))])
    assert found(shards) is None  # of both kinds
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder" / "a.tar").mkdir(parents=True)
    others = (tmp_path, tmp_path / "empty", tmp_path / "folder", tmp_path / "folder/a.tar", "digits/train", "no.tar")
    assert [found(source) for source in others] == [None] * len(others)


@FORMS
def test_labels_are_the_classes_and_files_are_named_by_their_place(end: str, write: Writer, tmp_path: Path) -> None:
    labels = ["cat", "T-shirt/top", "cat", "dog"]
    for part in range(2):
        write(tmp_path / f"part-{part}.{end}", [Row(picture(n), (label,)) for n, label in enumerate(labels)])
    images = sources.load(f"{tmp_path}/part-*.{end}")
    assert images.classes == ("T-shirt\u2215top", "cat", "dog")
    assert images.labels.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    names = [re.fullmatch(rf"part-([01])\.{end}#0*([0-3])(\.png)?", os.path.basename(file)) for file in images.files]
    assert sorted((int(name[1]), int(name[2])) for name in names if name) == [
        (p, n) for p in range(2) for n in range(4)
    ]
    for file, name in zip(images.files, names, strict=True):
        assert name is not None
        assert Path(file).read_bytes() == picture(int(name[2]))
    again = sources.load(f"{tmp_path}/part-{{0,1}}.{end}")  # the same files are unpacked once
    assert again.files == images.files
    os.utime(tmp_path / f"part-0.{end}")
    assert sources.load(f"{tmp_path}/part-*.{end}").files != images.files


@FORMS
@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (("..",), "the label '..' cannot be the name of a folder: expected at most 255 bytes, and no dot"),
        ((".hidden",), "the label '.hidden' cannot be"),
        (("../../x",), r"the label '\.\./\.\./x' cannot be"),
        (("é" * 130,), "cannot be the name of a folder"),
        (("a\0b",), "cannot be the name of a folder"),
        (("x" * 1001,), "expected text of 1 to 1,000 characters|expected the number of a class"),
    ],
)
def test_labels_that_are_no_folders_are_refused(
    end: str, write: Writer, labels: tuple[str, ...], reason: str, tmp_path: Path, cache: Path
) -> None:
    path = write(tmp_path / f"a.{end}", [Row(picture(0), ("a",)), Row(picture(1), labels)])
    with pytest.raises(DataError, match=rf"^cannot unpack {path}: .*({reason})"):
        sources.load(path)
    assert list(cache.iterdir()) == []


@FORMS
def test_two_labels_never_share_a_folder(end: str, write: Writer, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{end}", [Row(picture(0), ("a/b",)), Row(picture(1), ("a\u2215b",))])
    with pytest.raises(DataError, match=r"the labels 'a\u2215b' and 'a/b' look the same$"):
        sources.load(path)


@FORMS
def test_a_file_without_images_is_refused(end: str, write: Writer, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{end}", [])
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path))}/\*\.{end} has no images$"):
        sources.load(f"{tmp_path}/*.{end}")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=f"cannot read {path}: it is not a regular file"):
        sources.load(f"{tmp_path}/*.{end}")


@FORMS
def test_files_that_change_meanwhile_are_not_kept(
    end: str, write: Writer, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / f"a.{end}", [Row(picture(0), ("a",)), Row(picture(1), ("b",))])
    finish = sample_folders.SampleFolder.finish

    def finish_late(folder: sample_folders.SampleFolder) -> None:
        finish(folder)
        os.utime(path, (1, 1))

    with monkeypatch.context() as patch:
        patch.setattr(sample_folders.SampleFolder, "finish", finish_late)
        with pytest.raises(DataError, match="has changed while it was read: run the command again"):
            sources.load(path)
    assert list(cache.iterdir()) == []
    assert len(sources.load(path)) == 2


@FORMS
def test_images_with_several_labels_are_in_a_list(end: str, write: Writer, tmp_path: Path) -> None:
    labels = [("cat", "pet"), ("dog",), (), ("cat",)]
    path = write(tmp_path / f"a.{end}", [Row(picture(number), found) for number, found in enumerate(labels)])
    images = sources.load(path)
    assert images.classes == ("cat", "dog", "pet")
    sets = images.all_labels
    assert {
        os.path.basename(file)[len(f"a.{end}#") :][:3].strip("0.").partition(".")[0]: sets[
            np.array([at])
        ].labels.tolist()
        for at, file in enumerate(images.files)
    } == ({"": [0, 2], "1": [1], "3": [0]})
    assert len(sources.list_images(path).files) == 4


@FORMS
def test_labels_beyond_the_limit_of_a_list_end_the_reading_at_once(
    end: str, write: Writer, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_folders, "MAX_LIST_BYTES", 300)
    single = write(
        tmp_path / f"single.{end}", [Row(picture(number), ("a", "b")[number % 2 :][:1]) for number in range(9)]
    )
    assert len(sources.load(single)) == 9  # the folders say their labels
    several = [Row(picture(number), ("a", "b") if number else ("a",)) for number in range(9)]
    path, written = write(tmp_path / f"several.{end}", several), []
    write_file = sample_folders.SampleFolder._write_file

    def count(folder: sample_folders.SampleFolder, *arguments: Any) -> None:
        written.append(arguments)
        write_file(folder, *arguments)

    monkeypatch.setattr(sample_folders.SampleFolder, "_write_file", count)
    with pytest.raises(DataError, match="its labels take more than 300 bytes: give a part of it"):
        sources.load(path)
    assert len(written) < 9
    assert len(list(cache.iterdir())) == 1


@FORMS
def test_evaluation_by_several_labels(end: str, write: Writer, tmp_path: Path) -> None:
    labels = [("cat", "pet"), ("dog", "pet"), ("cat",), ("dog",)]
    write(tmp_path / f"several.{end}", [Row(picture(number), found) for number, found in enumerate(labels)])
    write(tmp_path / f"single.{end}", [Row(picture(number), found[:1]) for number, found in enumerate(labels)])
    semcut("train", f"single.{end}", "--out", "model", *TRAIN, cwd=tmp_path)
    semcut("index", f"several.{end}", "--model", "model", "--out", "index", cwd=tmp_path)
    arguments = ("evaluate", "index", f"several.{end}", "--labels", f"several.{end}", "-t", 0, "-k", 4, "--json")
    measured = json.loads(semcut(*arguments, cwd=tmp_path).stdout)
    assert {name: row["queries"] for name, row in measured["per_class"].items()} == {"cat": 2, "dog": 2, "pet": 2}
    assert measured["overall"]["precision_k"] == (3 + 3 + 2 + 2) / 4 / 4
    assert "several labels" in semcut("train", f"several.{end}", "--out", "no", cwd=tmp_path, status=1).stderr


@FORMS
def test_all_commands(end: str, write: Writer, tmp_path: Path, cache: Path) -> None:
    rows = [Row(picture(number), (("cat", "dog")[number % 2],)) for number in range(8)]
    (tmp_path / "photos").mkdir()
    write(tmp_path / "photos" / f"0.{end}", rows[:6])
    write(tmp_path / "photos" / f"1.{end}", [*rows[6:], Row(b"no image", ("cat",))])
    write(tmp_path / f"more.{end}", [Row(picture(20), ("cat",)), rows[0]])
    pattern = f"photos/*.{end}"
    trained = semcut("train", "photos", "--out", "model", *TRAIN, "--json", cwd=tmp_path)
    assert (json.loads(trained.stdout)["images"], len(json.loads(trained.stdout)["skipped"])) == (8, 1)
    indexed = semcut("index", pattern, "--model", "model", "--out", "index", "--json", cwd=tmp_path)
    assert json.loads(indexed.stdout)["added"] == 8
    (reason,) = json.loads(indexed.stdout)["skipped"]
    assert reason[1] == "not an image"
    options = ("--model", "model", "--exclude-training", "--out", "other", "--json")
    left = semcut("index", f"more.{end}", *options, cwd=tmp_path)
    assert json.loads(left.stdout)["added"] == 1
    measured = json.loads(semcut("evaluate", "index", pattern, "-t", 0, "-k", 8, "--json", cwd=tmp_path).stdout)
    assert measured["overall"]["precision_k"] == 0.5
    labels = ("--labels", "photos")
    again = json.loads(semcut("evaluate", "index", pattern, *labels, "-t", 0, "-k", 8, "--json", cwd=tmp_path).stdout)
    assert again["overall"] == measured["overall"]
    added = json.loads(semcut("add", "index", f"more.{end}", "--json", cwd=tmp_path).stdout)
    assert (added["added"], added["known"]) == (1, 1)
    with Connector.open(tmp_path / "index") as connector:
        ids = connector.index.ids()
        uris = sorted(map(str, connector.index.uris(ids)))
        assert [thumbnail(path, 16).missing for path in connector.paths(ids)] == [None] * 9
    assert uris[0].startswith("/"), "the image of another data set"
    assert [uri.split("#")[0] for uri in uris[1:]] == [f"cat/0.{end}"] * 3 + [f"cat/1.{end}"] + [f"dog/0.{end}"] * 3 + [
        f"dog/1.{end}"
    ]
    copy = next(cache.glob("0-images-*")) / "images" / uris[1]
    hits = semcut("search", "index", copy, "-t", 0, "--json", cwd=tmp_path)
    assert json.loads(hits.stdout)[0]["hits"][0]["uri"].endswith(uris[1])
    names, graph = networks.write_names(tmp_path), networks.write_onnx(tmp_path)
    adopted = semcut(
        "adopt", graph, "--classes", names, "--images", pattern, "--out", "adopted", "--json", cwd=tmp_path
    )
    assert json.loads(adopted.stdout)["fitted to images"] == 8
    refused = semcut("sync", "index", f"photos/0.{end}", cwd=tmp_path, status=1)
    assert f"photos/0.{end}: Not a directory; nothing was removed for it" in refused.stderr
    refused = semcut("sync", "index", "photos", cwd=tmp_path, status=1)
    assert "photos has Parquet files or shards: give the folder of its images, or use `semcut add`" in refused.stderr
    synced = json.loads(semcut("sync", "index", "--dry-run", "--json", cwd=tmp_path).stdout)
    assert (synced["unchanged"], synced["added"], synced["removed"]) == (8, 0, 0)
