"""Images get ids that are strings from lists and callers, and keep them; a mistake changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from semcut import DataError, DuplicateIdError, FaissIndex, InvalidEncodingsError, InvalidParameterError
from semcut.connector import Connector
from semcut.connector.data.list_files import read_list
from semcut.connector.data.sources import ImageSet, list_images
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval.relinking import relink
from semcut.connector.retrieval.relocation import relocate
from tests.command import semcut

KEYS = ["shop/1.jpg", "7", "\u00e9 \x1b[31m", "x" * 900]


@pytest.fixture
def place(digits: ImageSet, tmp_path: Path) -> Path:
    """A folder of eight photos that were written long ago."""
    for number in range(8):
        target = tmp_path / "photos" / f"{number}.png"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(digits.files[60 * number], target)
        os.utime(target, (10**9, 10**9))
    return tmp_path


def listed(place: Path, ids: dict[int, Any], name: str = "list.jsonl") -> str:
    """Write a list of photos with these ids; None for none."""
    rows = [{"path": f"photos/{n}.png"} | ({} if key is None else {"id": key}) for n, key in ids.items()]
    (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def held(place: Path) -> dict[str, str]:
    """Return the key of each photo."""
    with FaissIndex.open(place / "index", engine="faiss") as index:
        assert index.config.string_ids
        return dict(zip(map(str, index.uris(index.ids())), index.keys(index.ids()), strict=True))


def refused(place: Path, *arguments: object) -> str:
    before = held(place) if (place / "index").exists() else None
    done = semcut(*arguments, cwd=place, status=1)
    (line,) = done.stderr.splitlines()
    assert "\x1b" not in line
    assert before == (held(place) if before is not None else None)
    return line


@pytest.fixture
def indexed(place: Path, model: Checkpoint) -> Path:
    semcut("index", listed(place, dict(enumerate(KEYS))), "--model", model.path, "--out", "index", cwd=place)
    return place


def test_a_list_with_ids_makes_an_index_with_keys(indexed, model):
    assert held(indexed) == {f"{n}.png": key for n, key in enumerate(KEYS)}
    found = json.loads(semcut("search", "index", "photos/1.png", "-k", 1, "--json", cwd=indexed).stdout)
    assert found[0]["hits"][0]["key"] == "7"
    shown = semcut("search", "index", "photos/2.png", "-k", 2, cwd=indexed).stdout
    assert "\\x1b[31m" in shown
    assert "\x1b" not in shown
    (indexed / "list.csv").write_text("path,id\nphotos/1.png,007\nphotos/2.png,a b\n")
    semcut("index", "list.csv", "--model", model.path, "--out", "other", cwd=indexed)
    with FaissIndex.open(indexed / "other") as index:
        assert sorted(index.keys(index.ids())) == ["007", "a b"]


def test_a_list_without_ids_makes_an_index_with_integers(place, model):
    for ids in ({0: None, 1: None}, {0: "", 1: ""}):
        semcut("index", listed(place, ids), "--model", model.path, "--out", "index", cwd=place)
        with FaissIndex.open(place / "index") as index:
            assert not index.config.string_ids
            assert index.ids().tolist() == [0, 1]
        shutil.rmtree(place / "index")
    done = semcut("search", "index", "photos/1.png", "--json", cwd=place, status=1)
    assert done.stdout == ""


def test_integers_of_json_are_their_digits(place):
    name = str(place / listed(place, {0: 17, 1: 2**63, 2: "17.0"}))
    assert list_images(name, ids=True).ids == ["17", str(2**63), "17.0"]
    assert list_images(name).ids is None


def test_the_next_list_adds_images_and_known_ones_keep_their_keys(indexed):
    (indexed / "photos/0.png").write_bytes((indexed / "photos/7.png").read_bytes())
    done = semcut("add", "index", listed(indexed, {0: KEYS[0], 1: "7", 4: "four"}), "--json", cwd=indexed)
    assert {name: json.loads(done.stdout)[name] for name in ("added", "replaced", "known")} == {
        "added": 1, "replaced": 1, "known": 1,
    }  # fmt: skip
    assert held(indexed) == {f"{n}.png": key for n, key in enumerate([*KEYS, "four"])}
    (indexed / "photos/1.png").write_bytes((indexed / "photos/6.png").read_bytes())
    semcut("add", "index", "photos/1.png", cwd=indexed)
    assert held(indexed)["1.png"] == "7"


def test_images_with_the_same_content_are_records_with_ids_of_their_own(indexed):
    for number in (4, 5):
        shutil.copy(indexed / "photos/0.png", indexed / f"photos/{number}.png")
    semcut("add", "index", listed(indexed, {4: "four", 5: "five"}), cwd=indexed)
    assert [held(indexed)[f"{number}.png"] for number in (0, 4, 5)] == [KEYS[0], "four", "five"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({4: "a", 5: "a"}, "line 2: id 'a' is that of line 1, too: ids must be unique"),
        ({4: "a", 5: None}, "line 2: it has no id, but line 1 has one"),
        ({4: None, 5: None, 6: "a"}, "line 3: it has an id, but line 1 has none"),
        ({4: "a", 5: "x" * 1001}, "line 2: id 'xxx"),
        ({4: "a\0"}, r"line 1: id 'a\x00', expected text of 1 to 1,000 characters"),
        ({4: "\ud800"}, r"line 1: id '\ud800', expected text"),
        ({4: 1.5}, "line 1: id 1.5, expected text"),
        ({4: True}, "line 1: id True, expected text"),
        ({4: ["a"]}, "line 1: id ['a'], expected text"),
        ({4: "7"}, "the id '7' of "),
        ({1: "8", 4: "a"}, "1.png has the id '7' in the index, not '8': remove its record first"),
        ({4: None, 5: None}, "2 images have no id, such as "),
    ],
)
def test_a_list_with_wrong_ids_is_one_sentence(ids, message, indexed, model):
    name = listed(indexed, ids)
    assert message in refused(indexed, "add", "index", name)
    assert message in refused(indexed, "add", "index", name, "--dry-run")
    if message.startswith("line"):
        assert message in refused(indexed, "index", name, "--model", model.path, "--out", "new")
        assert not (indexed / "new").exists()
        read_list(str(indexed / name))  # what asks for no ids is not refused


def test_a_list_of_integers_in_json_that_are_too_long_is_refused(indexed):
    name = listed(indexed, {4: 10**30})
    assert "expected text of 1 to 1,000 characters" in refused(indexed, "add", "index", name)


def test_two_lists_may_not_disagree(indexed):
    one, other = listed(indexed, {4: "a"}), listed(indexed, {4: "b", 5: "c"}, "other.jsonl")
    assert "is given with two ids, 'a' and 'b'" in refused(indexed, "add", "index", one, other)
    listed(indexed, {5: "a"}, "other.jsonl")
    assert "the id 'a' is given for 4.png and for 5.png" in refused(indexed, "add", "index", one, other)


def test_images_without_ids_are_not_added(indexed):
    for source in ("photos", "photos/5.png"):
        assert "and the ids of the index are strings" in refused(indexed, "add", "index", source)


def test_ids_for_an_index_with_integers_are_refused(place, model):
    semcut("index", "photos", "--model", model.path, "--out", "index", cwd=place)
    done = semcut("add", "index", listed(place, {0: "a"}), cwd=place, status=1)
    (line,) = done.stderr.splitlines()
    assert "files have ids that are strings, such as 'a', but the ids of the index are integers" in line


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--reencode", "--model", "MODEL")])
def test_a_folder_is_not_brought_in_step_with_keys(more, indexed, model):
    arguments = [str(model.path) if word == "MODEL" else word for word in more]
    assert "the ids of the index are strings, which files of a folder do not" in refused(
        indexed, "sync", "index", *arguments
    )
    with Connector.open(indexed / "index") as connector, pytest.raises(DataError, match="the ids of the index are str"):
        connector.sync()


def test_an_interrupted_index_goes_on_with_the_same_keys(place, model):
    name = listed(place, {n: f"key {n}" for n in range(6)})
    with Connector.create(place / "index", model.path, string_ids=True, roots=[place / "photos"]) as connector:

        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            connector.add_files(
                [place / f"photos/{n}.png" for n in range(6)], keys=[f"key {n}" for n in range(6)], progress=stop
            )
    semcut("index", name, "--model", model.path, "--out", "index", cwd=place)
    assert held(place) == {f"{n}.png": f"key {n}" for n in range(6)}


def test_an_unfinished_index_with_other_ids_is_not_gone_on_with(place, model):
    Connector.create(place / "index", model.path, string_ids=True, roots=[place / "photos"]).close()
    done = semcut(
        "index", listed(place, {0: None, 1: None}), "--model", model.path, "--out", "index", cwd=place, status=1
    )
    assert "is unfinished, and its ids are strings, of a list with a column id" in done.stderr


def test_a_connector_takes_and_returns_keys(place, model):
    files = [place / f"photos/{n}.png" for n in range(4)]
    with Connector.create(None, model.path, string_ids=True) as connector:
        assert connector.add_files(files, keys=KEYS).added == 4
        assert connector.add_files(files).known == 4
        assert connector.index.keys(connector.ids_of(files)) == KEYS
        assert [hits[0].key for hits in connector.search(files, k=1)] == KEYS
        assert connector.search(files[:1], k=4, exclude_self=True)[0][0].key != KEYS[0]
        for keys, error in (
            (["a"], InvalidParameterError), ("abcde", InvalidParameterError), ([1, 2], InvalidParameterError),
            (["a", ""], InvalidParameterError), (["a", "a"], DuplicateIdError), (["a", KEYS[0]], DuplicateIdError),
            (None, DataError), ([], InvalidParameterError),
        ):  # fmt: skip
            with pytest.raises(error):
                connector.add_files([place / "photos/4.png", place / "photos/5.png"], keys=keys)
        with pytest.raises(InvalidEncodingsError, match="has the id '7' in the index, not 'b'"):
            connector.add_files([files[1]], keys=["b"])
        assert len(connector.index) == 4
    with Connector.create(None, model.path) as connector:
        with pytest.raises(InvalidParameterError, match="but the ids of the index are integers"):
            connector.add_files(files, keys=KEYS)
        connector.add_files(files)
        assert connector.search(files[:1], k=1)[0][0].key is None


def test_keys_survive_everything_else_that_is_done_with_an_index(indexed, model):
    other = indexed / "other"
    shutil.copytree(model.path, other)
    os.rename(indexed / "photos", indexed / "pictures")
    relocate(indexed / "index", images=indexed / "pictures")
    relink(indexed / "index", other)
    semcut("remove", "index", "--uri", "0.png", cwd=indexed)
    semcut("compact", "index", cwd=indexed)
    semcut("backup", "index", "copy", cwd=indexed)
    semcut("restore", "copy", "index", cwd=indexed)
    kept = {f"{n}.png": KEYS[n] for n in (1, 2, 3)}
    assert held(indexed) == kept
    (indexed / "labels.csv").write_text("".join(["path,label\n", *(f"pictures/{n}.png,{n % 2}\n" for n in range(4))]))
    measured = semcut("evaluate", "index", "labels.csv", "--labels", "labels.csv", "-k", 1, "--json", cwd=indexed)
    assert json.loads(measured.stdout)["records"] == 3
    assert "ids" in semcut("info", "index", cwd=indexed).stdout
    assert "is sound" in semcut("verify", "index", cwd=indexed).stdout
    assert held(indexed) == kept
    pytest.importorskip("pyarrow")
    semcut("export", "index", "x.parquet", cwd=indexed)
    semcut("import", "x.parquet", "--out", "again", cwd=indexed)
    (hits,) = json.loads(semcut("search", "again", "pictures/1.png", "-k", 1, "--json", cwd=indexed).stdout)
    assert hits["hits"][0]["key"] == "7"
