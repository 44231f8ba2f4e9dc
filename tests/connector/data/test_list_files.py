"""Lists of images: what they name is found or named, and what means harm is one error."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcut.connector.data import class_names, list_files, sources
from semcut.connector.data.list_files import read_list
from semcut.indexes.errors import DataError
from tests.command import semcut
from tests.connector.adoption import networks

TRAIN = ("--image-size", 16, "--epochs", 1, "--dim", 8)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of twelve images, all in folders that do not name their classes."""
    for number in range(12):
        path = tmp_path / "photos" / f"day {number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((16, 16), 10 + number).save(path)
    return tmp_path


def rows(count: int = 12) -> list[tuple[str, str]]:
    return [(f"photos/day {number % 3}/{number}.png", "cat" if number % 2 else "dog") for number in range(count)]


def write(path: Path, content: str | bytes | list[tuple[str, str]]) -> str:
    """Write a list: text, bytes, or rows of path and label in the form that the name of the file says."""
    if isinstance(content, list) and path.suffix == ".csv":
        content = "path,label\n" + "".join(f'"{file}",{label}\n' for file, label in content)
    elif isinstance(content, list):
        content = "".join(json.dumps({"label": label, "path": file}) + "\n" for file, label in content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize("name", ["photos.csv", "photos.jsonl", "PHOTOS.CSV"])
def test_labels_of_a_list_are_the_classes(name: str, place: Path) -> None:
    path = place / name
    if name.isupper():
        path.write_text("\ufeffother, label ,path\r\n" + "".join(f"x,{label},{file}\r\n" for file, label in rows()))
    else:
        write(path, rows())
    images = sources.load(path)
    assert images.classes == ("cat", "dog")
    assert images.files == tuple(str(place / file) for file, _ in rows())
    assert images.labels.tolist() == [1, 0] * 6
    assert images.roots == (str(place / "photos"),)
    assert images.skipped == ()


def test_paths_are_absolute_or_relative_to_the_list(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "lists").mkdir()
    (place / "link").symlink_to(place / "photos" / "day 0")
    paths = [
        f"{place}/photos/day 1/1.png",
        "../photos/day 0/0.png",
        ".//../link/../day 2/2.png",
        f"/{place}/link/3.png",
    ]
    write(place / "lists" / "a.jsonl", [(path, "") for path in paths])
    monkeypatch.chdir(place / "lists")
    found = read_list("a.jsonl")
    day = f"{place.resolve()}/photos/day "
    assert found.files == [f"{place}/photos/day 1/1.png", f"{day}0/0.png", f"{day}2/2.png", f"{place}/link/3.png"]
    assert found.labels == [()] * 4
    assert found.skipped == []


def test_the_root_is_the_deepest_folder_of_all_files() -> None:
    def root(*files: str) -> str:
        return list_files.ImageList("", list(files)).root

    assert root("/a/b/1", "/a/b/2") == "/a/b"
    assert root("/a/b/1", "/a/b-c/2", "/a/b/c/3") == "/a"
    assert root("/a/b/1", "/a/bc/2") == "/a"
    assert root("/a/1", "/b/1") == root("/1") == ""


def test_what_is_missing_or_repeated_is_named_and_skipped(place: Path) -> None:
    os.mkfifo(place / "pipe.png")
    first = rows()[0][0]
    listed = [
        *rows(4), ("missing.png", "cat"), (first, "dog"), (f"./{first}", "cat"), ("photos", "cat"), ("pipe.png", "cat"),
        ("/dev/zero", "cat"), ("", "cat"), (rows()[4][0], "x" * 1001), (rows()[5][0], ""), ("pipe.png/x", "cat"),
    ]  # fmt: skip
    name = write(place / "a.csv", listed)
    images = sources.load(name)
    assert len(images) == 4
    regular, again = "it is not a regular file", "line 2 of the list names it, too"
    assert images.skipped == (
        (str(place / rows()[5][0]), "it has no label"),
        (str(place / "missing.png"), "No such file or directory"),
        (str(place / first), again),
        (str(place / first), again),
        (str(place / "photos"), regular),
        (str(place / "pipe.png"), regular),
        ("/dev/zero", regular),
        (f"line 12 of {name}", "it has no path"),
        (str(place / rows()[4][0]), images.skipped[8][1]),
        (str(place / "pipe.png/x"), "Not a directory"),
    )
    assert "expected text of 1 to 1,000 characters or an integer" in images.skipped[8][1]


def test_a_path_that_no_system_opens_is_skipped_unresolved(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[str] = []
    for name in ("realpath", "normpath"):
        own = getattr(os.path, name)
        monkeypatch.setattr(list_files.os.path, name, lambda path, own=own: resolved.append(path) or own(path))
    listed = [*rows(1), ("../" * 300_000 + "x.png", "cat"), ("a/" * 300_000 + "x.png", "cat"), ("é" * 3000, "dog")]
    found = read_list(write(place / "a.jsonl", listed))
    assert len(found.files) == 1
    assert [reason for _, reason in found.skipped] == ["File name too long"] * 3
    assert max(map(len, resolved)) < 5000


def test_values_of_json_that_are_no_paths_or_labels_are_skipped(place: Path) -> None:
    good = [{"path": file, "label": number % 2} for number, (file, _) in enumerate(rows(4))]
    bad = [{"path": 1}, {"path": None}, {"path": ["a"]}, {"label": 1}, {"path": "a\0b"}, {"path": "\ud800"}]
    labels = [{"path": rows()[4][0], "label": label} for label in (["a"], {"a": 1}, 1.5, True, "\ud800")]
    name = write(place / "a.jsonl", "\n\n".join(map(json.dumps, [*good, *bad, *labels])))
    images = sources.load(name)
    assert images.classes == ("0", "1")
    assert len(images) == 4
    assert len(images.skipped) == len(bad) + len(labels)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "file,label\nx,y\n", "has no column path, it has the columns 'file', 'label'$"),
        ("a.csv", "", "has no column path, it has no columns$"),
        ("a.csv", ",".join(map(str, range(30))), "the columns '0', .*'9' and 20 more$"),
        ("a.csv", "path;label\nx;y\n", "it has the columns 'path;label'$"),
        ("a.csv", "\x1b[31m\n", r"it has the columns '\\x1b\[31m'$"),
        ("a.jsonl", '{"file": "x"}\n', "has no column path, it has the columns 'file'$"),
        ("a.csv", "path\n", "names no files: expected a path in each row"),
        ("a.jsonl", "\n", "names no files"),
        (
            "a.csv",
            "path\nx\ny\n",
            "none of the 2 files that .*a.csv names can be used, the first is .*/x: No such file",
        ),
        ("a.csv", "path,path\nx,y\n", "line 1 has a column twice"),
        ("a.csv", "path,label\na,b,c.png,cat\n", "line 2 has 4 values, expected 2: put a value with a comma in quotes"),
        ("a.csv", 'path\n"x\n', "line 2 is no CSV"),
        ("a.csv", 'path\n"x"y\n', "line 2 is no CSV"),
        ("a.csv", "path\n" + "x" * 200_000, "line 2 is no CSV"),
        ("a.csv", "path\n" + "x" * (1 << 20) + "y", "line 2 has a row of more than 1,048,576 bytes"),
        ("a.csv", "path\n" + '"a\n",' * 400_000, "has a row of more than 1,048,576 bytes"),
        ("a.csv", "path,label\nx,é\n".encode("latin-1"), "line 2 is not text in UTF-8"),
        ("a.csv", "path\nx\n".encode("utf-16"), "line 1 is not text in UTF-8"),
        ("a.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("a.jsonl", '{"path": "x"}\n{"path":\n', "line 2 is no JSON object"),
        ("a.jsonl", "[" * 200_000, "line 1 is no JSON object"),
        ("a.jsonl", '{"path": ' + "9" * 5000 + "}", "line 1 is no JSON object|none of the 1 files"),
    ],
)
def test_a_list_that_cannot_be_used_is_one_error(name: str, content: str | bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason) as error:
        sources.list_images(write(tmp_path / name, content))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_list_without_labels_is_no_set_for_training(place: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no labels, .*: add a column label or labels; it has the columns 'path', 'day'"
    ):
        sources.load(write(place / "a.csv", "path,day\n" + "".join(f"{file},1\n" for file, _ in rows())))
    with pytest.raises(DataError, match="has labels of 1 classes, expected 2 to 10,000"):
        sources.load(write(place / "b.csv", [(file, "cat") for file, _ in rows()]))


def test_sizes_are_bounded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(place / "a.csv", rows())
    for limit, value, reason in (
        ("MAX_ROWS", 11, "more than 11 rows"),
        ("MOST_BYTES", 1000, "take more than 1,000 bytes"),
        ("MAX_LIST_BYTES", 100, "expected at most 100"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(list_files, limit, value)
            with pytest.raises(DataError, match=reason):
                read_list(name)
    assert len(read_list(name).files) == 12


@pytest.mark.parametrize("kind", ["fifo", "device", "hole"])
def test_a_list_is_a_regular_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"path\n")
        os.truncate(path, 100 << 20)
    with pytest.raises(DataError, match=r"cannot read the list .*(not a regular file|holes)"):
        sources.list_images(path)


def test_every_command_takes_a_list(place: Path) -> None:
    for file, label in rows():
        copy = place / "sorted" / label / Path(file).name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(place / file)
    (place / "sorted" / "all").mkdir()
    write(place / "photos.csv", [*rows(), ("gone\x1b[31m.png", "cat")])
    write(place / "more.jsonl", [(rows()[0][0], "cat"), ("new.png", "cat")])
    Image.effect_noise((16, 16), 99).save(place / "new.png")
    gone = r"gone\x1b[31m.png: No such file or directory"
    trained = semcut("train", "photos.csv", "--out", "model", *TRAIN, "--json", cwd=place)
    assert json.loads(trained.stdout)["images"] == 12
    indexed = semcut("index", "photos.csv", "--model", "model", "--out", "index", "--json", cwd=place)
    assert json.loads(indexed.stdout)["added"] == 12
    semcut("index", "sorted", "--model", "model", "--out", "by class", cwd=place)
    measured = semcut("evaluate", "by class", "photos.csv", "-t", 0, "--json", cwd=place)
    assert {name: row["queries"] for name, row in json.loads(measured.stdout)["per_class"].items()} == {
        "cat": 6, "dog": 6,
    }  # fmt: skip
    names, graph = networks.write_names(place), networks.write_onnx(place)
    adopted = semcut(
        "adopt", graph, "--classes", names, "--images", "photos.csv", "--out", "adopted", "--json", cwd=place
    )
    assert json.loads(adopted.stdout)["fitted to images"] == 12
    for done in (trained, indexed, measured, adopted):
        assert "\x1b" not in done.stderr
        assert gone in done.stderr
    added = json.loads(semcut("add", "index", "more.jsonl", "--json", cwd=place).stdout)
    assert (added["added"], added["known"]) == (1, 1)
    excluded = semcut(
        "index", "more.jsonl", "--model", "model", "--exclude-training", "--out", "other", "--json", cwd=place
    )
    assert json.loads(excluded.stdout)["added"] == 1


def test_uris_are_relative_as_for_a_folder(place: Path) -> None:
    from semcut.indexes import FaissIndex

    write(place / "photos.csv", rows())
    semcut("train", "photos.csv", "--out", "model", *TRAIN, cwd=place)
    found = []
    for source in ("photos", "photos.csv"):
        semcut("index", source, "--model", "model", "--out", f"{source} index", cwd=place)
        with FaissIndex.open(place / f"{source} index") as index:
            found.append(sorted(index.uris(index.ids())))
    assert found[0] == found[1]
    assert found[0][0] == "day 0/0.png"


def write_several(place: Path, name: str) -> str:
    """Write a list in which every third image has two labels, and one image has none."""
    labels = [["cat", "pet"] if number % 3 == 0 else ["dog"] if number % 3 == 1 else ["cat"] for number in range(12)]
    labels[11] = []
    files = [file for file, _ in rows()]
    if name.endswith(".csv"):
        lines = [f"{file},{' ; '.join(found)}" for file, found in zip(files, labels, strict=True)]
        return write(place / name, "\n".join(["path,labels", *lines]))
    pairs = zip(files, labels, strict=True)
    return write(place / name, "\n".join(json.dumps({"path": file, "labels": found}) for file, found in pairs))


@pytest.mark.parametrize("name", ["several.csv", "several.jsonl"])
def test_a_list_can_give_several_labels(name: str, place: Path) -> None:
    images = sources.load(write_several(place, name))
    assert images.classes == ("cat", "dog", "pet")
    assert images.labels.tolist() == [0, 1, 0] * 3 + [0, 1]
    assert images.label_sets is not None
    assert [images.label_sets[np.array([at])].labels.tolist() for at in range(3)] == [[0, 2], [1], [0]]
    assert images.skipped == ((str(place / rows()[11][0]), "it has no label"),)
    part = images.subset([3, 1])
    assert part.label_sets is not None
    assert (part.label_sets.starts.tolist(), part.label_sets.labels.tolist()) == ([0, 2, 3], [0, 2, 1])


def test_label_comes_before_labels_and_none_counts_twice(place: Path) -> None:
    files = [file for file, _ in rows()]
    found = read_list(write(place / "a.csv", f"path,labels,label\n{files[0]},b;a;b,a\n{files[1]},;;,\n{files[2]},c,\n"))
    assert found.labels == [("a", "b"), (), ("c",)]
    found = read_list(write(place / "a.jsonl", json.dumps({"path": files[0], "labels": [3, "b", 3], "label": "b"})))
    assert found.labels == [("b", "3")]


def test_labels_that_are_none_are_named_by_line_and_column(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = [{"path": file, "label": number % 2} for number, (file, _) in enumerate(rows(4))]
    bad = [{"path": rows()[5][0], "labels": labels} for labels in ([None], ["a", 1.5], [""], ["x" * 2000])]
    images = sources.load(write(place / "a.jsonl", "\n".join(map(json.dumps, [*good, *bad]))))
    assert len(images.skipped) == len(bad)
    assert images.skipped[1][1] == (
        f"line 6 of {place}/a.jsonl, column labels has 1.5, expected text of 1 to 1,000 characters or an integer"
    )
    monkeypatch.setattr(class_names, "MAX_CLASSES", 3)
    images = sources.load(write(place / "b.csv", f"path,labels\n{rows()[0][0]},a;b\n{rows()[1][0]},a;b;c;d\n"))
    assert images.skipped[0][1].endswith(
        "line 3 of " + f"{place}/b.csv, column labels has 4 labels, expected at most 3"
    )
    with pytest.raises(DataError, match=r"line 1 has labels 'a', expected an array such as \[\"cat\", \"dog\"\]"):
        read_list(write(place / "c.jsonl", json.dumps({"path": rows()[0][0], "labels": "a"})))


def test_commands_with_several_labels(place: Path) -> None:
    write_several(place, "several.csv")
    write(place / "single.csv", rows())
    refused = semcut("train", "several.csv", "--out", "model", *TRAIN, cwd=place, status=1)
    assert refused.stderr.strip().endswith(
        f"4 of 11 images have several labels, the first is {place}/{rows()[0][0]}: training needs one label of each "
        "image"
    )
    semcut("train", "single.csv", "--out", "model", *TRAIN, cwd=place)
    indexed = semcut("index", "several.csv", "--model", "model", "--out", "index", "--json", cwd=place)
    assert json.loads(indexed.stdout)["added"] == 12
    arguments = ("evaluate", "index", "several.csv", "-t", 0, "--json")
    measured = json.loads(semcut(*arguments, "--labels", "several.csv", "-k", 12, cwd=place).stdout)
    assert {name: row["queries"] for name, row in measured["per_class"].items()} == {"cat": 7, "dog": 4, "pet": 4}
    assert measured["overall"]["queries"] == 11
    # 7 images share a label with each that has the label cat, which all with the label pet have, and 4 with each dog
    assert measured["overall"]["precision_k"] == pytest.approx((7 * 7 + 4 * 4) / 11 / 12)
    assert "do not match" in semcut(*arguments, cwd=place, status=1).stderr  # the folders are days, not labels
    for label in ("cat", "dog"):
        (place / "other" / label).mkdir(parents=True)
        Image.effect_noise((16, 16), 98).save(place / "other" / label / "new.png")
    refused = semcut(*arguments, "--labels", "other", cwd=place, status=1)
    assert "none of the 12 records of the index is one of the 2 labelled images" in refused.stderr
    refused = semcut(*arguments, "--labels", "several.csv", "--protocol", "cifar10", cwd=place, status=2)
    assert "leave out --labels" in refused.stderr
    names, graph = networks.write_names(place), networks.write_onnx(place)
    refused = semcut(
        "adopt", graph, "--classes", names, "--labelled", "several.csv", "--out", "adopted", cwd=place, status=1
    )
    assert "adopting a network needs one label of each image" in refused.stderr
