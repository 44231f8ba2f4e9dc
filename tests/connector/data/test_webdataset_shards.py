"""Shards of WebDataset: members of one key are one sample, and what means harm is one error."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from semcut.connector.data import sources, webdataset_shards
from semcut.connector.data.archive_members import Budget
from semcut.connector.data.sample_folders import Sample, SampleFolder
from semcut.connector.data.webdataset_shards import is_shard, shard_samples
from semcut.indexes.errors import DataError, SemcutWarning
from tests.connector.data.packed import picture, write_tar

Members = list[tuple[str, "bytes | str"]]
ENDS = ("jpg", "cls")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEMCUT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def read(path: Path) -> tuple[list[Sample], Counter[str]]:
    left_out: Counter[str] = Counter()
    with open(path, "rb") as stream:
        return list(shard_samples(stream, path.name, Budget(1 << 20, 1 << 30), left_out)), left_out


def test_members_of_one_key_are_one_sample(tmp_path: Path) -> None:
    members: Members = [
        ("a/0.cls", "7\n"), ("a/0.jpg", b"one"), ("b/0.png", b"two"), ("b/0.cls", " 8"), ("1.JPEG", b"three"),
        ("1.txt", "a caption"), ("1.json", json.dumps({"label": "cat", "labels": ["pet", 3, "cat"]})),
        ("2.webp", b"four"), ("2.jpg", b"five"), ("2.json", json.dumps({"width": 5})), ("2.cls", "0"),
        ("3.jpg", b"six"), ("3.json", json.dumps({"label": None, "labels": []})),
    ]  # fmt: skip
    samples, left_out = read(write_tar(tmp_path / "x.tar", members))
    assert samples == [
        Sample(("a",), "x.tar#0.jpg", b"one", ("7",)),
        Sample(("b",), "x.tar#0.png", b"two", ("8",)),
        Sample((), "x.tar#1.jpeg", b"three", ("cat", "pet", "3")),
        Sample((), "x.tar#2.webp", b"four", ("0",)),
        Sample((), "x.tar#2.jpg", b"five", ("0",)),
        Sample((), "x.tar#3.jpg", b"six", ()),
    ]
    assert not left_out


def test_an_image_without_one_label_is_in_no_class_whatever_its_key(tmp_path: Path) -> None:
    long = "/".join(("long" * 20,) * 3)
    members: Members = [
        ("a/0.jpg", b"0"), ("a/0.cls", "cat"), ("1.jpg", b"1"), ("1.cls", "dog"), ("cat/2.jpg", b"2"),
        ("dog/2.jpg", b"3"), ("dog/3.jpg", b"4"), ("dog/3.json", '{"label": null}'), (f"{long}/4.jpg", b"5"),
    ]  # fmt: skip
    path = write_tar(tmp_path / "x.tar", members)
    images = sources.load(path)
    assert images.classes == ("cat", "dog")
    assert [Path(file).read_bytes() for file in images.files] == [b"0", b"1"]
    assert [reason for _, reason in images.skipped] == ["it is in no class folder"] * 4
    listed = sources.list_images(path)
    assert sorted(listed.classes) == ["cat", "dog"]
    assert sorted(Path(file).name for file in listed.loose)[:-1] == [
        "x.tar#cat∕2.jpg", "x.tar#dog∕2.jpg", "x.tar#dog∕3.jpg"
    ]  # fmt: skip
    several: Members = [*members[:4], ("cat/5.jpg", b"6"), ("cat/5.json", '{"labels": ["cat", "dog"]}')]
    listed = sources.list_images(write_tar(tmp_path / "y.tar", several))
    assert [Path(file).name for file in listed.loose] == ["y.tar#cat∕5.jpg"]
    assert len(sources.load(tmp_path / "y.tar")) == 3


S = "\u2215"
LONG = "d" * 200


@pytest.mark.parametrize(
    "keys",
    [
        ["a/b", f"a{S}b"],
        ["a/b/c", f"a{S}b/c", f"a/b{S}c", f"a{S}b{S}c"],
        ["a/" + "k" * 250, "k" * 250, "a/" + "é" * 120, "a/" + "é" * 119 + "e"],
        [f"{LONG}/{LONG}/x", f"{LONG}/{LONG}/y", f"{LONG}/{LONG}{S}x"],
        ["a/\udcff", "\udcff/b", "\udcff" * 240],
    ],
)
@pytest.mark.parametrize("label", [None, '{"labels": ["x", "y"]}', '{"label": "x"}'])
@pytest.mark.parametrize("shard", ["x.tar", f"{'t' * 250}.tar"])
def test_images_of_different_keys_have_different_names(
    keys: list[str], label: str | None, shard: str, tmp_path: Path
) -> None:
    members: Members = []
    for number, key in enumerate(keys):
        members += [(f"{key}.jpg", b"%d" % number)] + ([] if label is None else [(f"{key}.json", label)])
    samples, _ = read(write_tar(tmp_path / shard, members))
    with SampleFolder(tmp_path / "new", Budget(1 << 20, 1 << 30)) as folder:
        folder.write(samples, 0)
        folder.finish()
    written = [file for file in (tmp_path / "new" / "images").rglob("*") if file.is_file()]
    assert sorted(file.read_bytes() for file in written) == [b"%d" % number for number in range(len(keys))]
    assert {file.suffix for file in written} == {".jpg"}
    listed = tmp_path / "new" / "labels.jsonl"
    if listed.exists():
        paths = [json.loads(line)["path"] for line in listed.read_text("ascii").splitlines()]
        assert sorted(paths) == sorted(str(file.relative_to(tmp_path / "new")) for file in written)


def test_what_is_neither_an_image_nor_a_label_is_counted(tmp_path: Path) -> None:
    members: Members = [
        ("0.jpg", picture(0)), ("0.cls", "1"), ("0.npy", b"x"), ("0.seg.png", b"x"), ("1.cls", "1"), ("._1.jpg", b"x"),
        ("2.jpg", picture(1)), ("2.cls", "2"),
    ]  # fmt: skip
    path = write_tar(tmp_path / "x.tar", members)
    _, left_out = read(path)
    assert left_out == {"member that is neither an image nor a label": 3, "label without an image beside it": 1}
    with pytest.warns(SemcutWarning, match=rf"^{path}: left out 3 x member that is neither .*, 1 x label without"):
        images = sources.load(path)
    assert images.skipped == ()
    assert images.classes == ("1", "2")


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("../0.jpg", b"x")], r"'\.\./0\.jpg' would be written outside of the folder"),
        ([("/0.jpg", b"x")], "'/0.jpg' would be written outside of the folder"),
        ([("a/../../0.cls", "1")], "would be written outside of the folder"),
        ([("0.jpg", b"x"), ("0.cls", "")], "'0.cls' has '', expected the number of a class"),
        ([("0.jpg", b"x"), ("0.cls", b"\xff")], r"'0.cls' has '\\udcff', expected the number of a class"),
        ([("0.jpg", b"x"), ("0.cls", "1" * 5000)], "'0.cls' has 5,000 bytes, expected at most 4,096"),
        ([("0.jpg", b"x"), ("0.json", "[1]")], "'0.json' is no JSON object whose labels are an array"),
        ([("0.jpg", b"x"), ("0.json", "[" * 10**5)], "'0.json' is no JSON object"),
        ([("0.jpg", b"x"), ("0.json", '{"labels": "a"}')], "'0.json' is no JSON object whose labels are an array"),
        ([("0.jpg", b"x"), ("0.json", '{"labels": [[]]}')], r"'0.json': column labels has \[\], expected text"),
        ([("0.jpg", b"x"), ("0.json", '{"label": 1.5}')], "'0.json': column label has 1.5, expected text"),
        ([("0.jpg", b"x"), ("1.jpg", b"y"), ("0.jpg", b"z")], "it holds 'x.tar#0.jpg' twice"),
        ([("b.jpg", b"x"), ("c.jpg", b"y"), ("c.cls", "x.tar#b.jpg")], "'x.tar#b.jpg' is a file and a folder"),
        ([("a\n\x1b[31m.jpg", b"x"), ("a\n\x1b[31m.cls", "")], r"'a\\n\\x1b\[31m.cls' has ''"),
    ],
)
def test_harm_is_one_sentence(members: Members, reason: str, tmp_path: Path, cache: Path) -> None:
    path = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(DataError, match=f"^cannot unpack {path}: .*{reason}"):
        sources.list_images(f"{tmp_path}/*.tar")
    assert list(cache.iterdir()) == []
    assert not (tmp_path / "0.jpg").exists()


def test_sizes_are_bounded_before_the_content_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset_shards, "MAX_SAMPLE_BYTES", 100)
    members: Members = [("0.jpg", b"x" * 60), ("0.png", b"x" * 60), ("1.jpg", b"x" * 100), ("2.jpg", b"x" * 101)]
    samples, left_out = read(write_tar(tmp_path / "x.tar", members))
    assert [sample.name for sample in samples] == ["x.tar#0.jpg", "x.tar#1.jpg"]
    assert left_out == {"image of more than 100 bytes": 2}


def test_an_image_is_in_memory_once(tmp_path: Path) -> None:
    size = 8 << 20
    members: Members = [
        (f"{number}.{end}", bytes(size) if end == "jpg" else "1") for number in range(3) for end in ENDS
    ]
    path = write_tar(tmp_path / "x.tar", members)
    del members
    folder = SampleFolder(tmp_path / "new", Budget(1 << 20, 1 << 30))
    with folder, open(path, "rb") as stream:
        tracemalloc.start()
        try:
            folder.write(shard_samples(stream, path.name, Budget(1 << 20, 1 << 30), Counter()), 0)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert folder.written == 3
    assert most < 1.7 * size


@pytest.mark.parametrize(
    ("members", "shard"),
    [
        ([("0.jpg", b"x"), ("0.cls", "1")], True),
        ([("0.cls", "1"), ("0.jpg", b"x")], True),
        ([("0.jpg", b"x"), ("0.json", "{}")], True),
        ([("train/0.jpg", b"x"), ("train/0.cls", "1")], True),
        ([("cat/0.jpg", b"x"), ("cat/0.json", "{}")], False),
        ([("0.jpg", b"x"), ("0.txt", "a caption")], False),
        ([("cat/0.jpg", b"x"), ("cat/1.jpg", b"x")], False),
        ([("0.jpg", b"x"), ("1.cls", "1")], False),
        ([("0.jpg", b"x")], False),
        ([], False),
    ],
)
def test_a_single_archive_is_a_shard_by_its_first_members(members: Members, shard: bool, tmp_path: Path) -> None:
    assert is_shard(write_tar(tmp_path / "x.tar", members)) == shard


def test_compressed_shards_are_read_and_damaged_ones_refused(tmp_path: Path) -> None:
    members: Members = [("0.jpg", picture(0)), ("0.cls", "1"), ("1.jpg", picture(1)), ("1.cls", "2")]
    path = write_tar(tmp_path / "x.tar.gz", members, "w:gz")
    assert sources.load(path).classes == ("1", "2")
    (tmp_path / "cut.tgz").write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"cannot unpack .*cut.tgz: it is damaged or cut off"):
        sources.load(f"{tmp_path}/cu*.tgz")
    (tmp_path / "large.tgz").write_bytes(gzip.compress(b"no archive" * 100))
    with pytest.raises(DataError, match=r"cannot unpack .*large.tgz: it is neither a folder nor a tar or zip archive"):
        sources.load(f"{tmp_path}/l*.tgz")
