"""`semcut index --to` and `semcut search --uri`: images in a collection, which knows the network that made it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from semcut.connector.explore.open_index import open_collection as open_explored
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval.collection_link import read_collection_link, write_collection_link
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.training.loop import train
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes import FaissIndex, IndexConfig
from semcut.indexes.milvus import MilvusIndex
from semcut.indexes.milvus.index_note import write_note
from tests.command import SEMCUT, semcut


def fill(uri: str, collection: str, photos: Path, model: Checkpoint, *more: str) -> dict:
    done = semcut(
        "index", photos, "--model", model.path, "--to", collection, "--uri", uri, *more, "--json", cwd=photos.parent
    )
    return json.loads(done.stdout)


def start(uri: str, collection: str, photos: Path, model: Checkpoint, part: str) -> subprocess.Popen:
    command = [
        SEMCUT,
        "index",
        photos,
        "--model",
        model.path,
        "--to",
        collection,
        "--uri",
        uri,
        "--part",
        part,
        "--json",
    ]
    return subprocess.Popen(
        list(map(str, command)), env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def images_in(photos: Path) -> list[Path]:
    return sorted(photos.glob("*/*"))


def hits(*arguments: object, photos: Path, queries: list[Path]) -> list[list[tuple[str, float]]]:
    found = semcut(
        "search", *arguments[:1], *queries, *arguments[1:], "--shortlist", "all", "--json", cwd=photos.parent
    )
    return [[(hit["uri"], hit["distance"]) for hit in one["hits"]] for one in json.loads(found.stdout)]


def assert_whole(uri: str, collection: str, photos: Path) -> None:
    with MilvusIndex.open(uri, collection=collection, strong=True) as index:
        uris = index.uris(index.ids())
    assert sorted(map(str, uris)) == [str(file.relative_to(photos)) for file in images_in(photos)]


def test_a_folder_in_a_collection_is_searched_as_a_local_index(uri, collection, photos, model, tmp_path) -> None:
    first = fill(uri, collection, photos, model)
    assert (first["added"], first["known"], first["records"]) == (90, 0, 90)
    assert [Path(file).name for file, _ in first["skipped"]] == ["notes.jpg"]
    again = fill(uri, collection, photos, model)
    assert (again["added"], again["known"], again["records"]) == (0, 90, 90)

    semcut("index", photos, "--model", model.path, "--out", tmp_path / "local", cwd=tmp_path)
    queries = images_in(photos)[::10]
    local = hits(tmp_path / "local", photos=photos, queries=queries)
    there = hits(collection, "--uri", uri, photos=photos, queries=queries)
    assert [[name for name, _ in one] for one in there] == [[name for name, _ in one] for one in local]
    np.testing.assert_allclose(
        [distance for one in there for _, distance in one], [distance for one in local for _, distance in one],
        rtol=0, atol=1e-6,
    )  # fmt: skip

    picture = tmp_path / "sheet.png"
    semcut("search", collection, queries[0], "--uri", uri, "--picture", picture, cwd=tmp_path)
    assert picture.stat().st_size > 0
    facts = json.loads(semcut("info", collection, "--uri", uri, "--json", cwd=tmp_path).stdout)
    assert (facts["records"], facts["network"], facts["digest of the network"]) == (90, str(model.path), model.digest)
    assert "folder of the images" in semcut("info", collection, "--uri", uri, cwd=tmp_path).stdout
    with MilvusIndex.open(uri, collection=collection) as index, FaissIndex.open(tmp_path / "local") as other:
        link = read_collection_link(index, collection)
        assert index.config == other.config
    assert link is not None
    assert (link.model, link.sha256, link.root) == (model.path.absolute(), model.digest, str(photos))


def test_a_collection_of_another_network_or_without_one_is_refused(
    uri, collection, photos, model, digits, tmp_path
) -> None:
    with MilvusIndex.create(uri, config_of(model), collection=collection):
        pass
    refused = semcut("search", collection, images_in(photos)[0], "--uri", uri, cwd=tmp_path, status=1)
    assert f"the collection {collection} does not record which network made it" in refused.stderr
    fill(uri, collection, photos, model)
    other = tmp_path / "other"
    train(digits.sample(50), model.net.architecture, TrainConfig(epochs=1), other)
    for command in (["index", photos, "--to"], ["search"]):
        given = [*command, collection, *([] if "index" in command else [images_in(photos)[0]])]
        refused = semcut(*given, "--model", other, "--uri", uri, cwd=tmp_path, status=1)
        assert "made by another network than that in" in refused.stderr.replace("\n", " ")
    assert_whole(uri, collection, photos)


def config_of(model: Checkpoint) -> IndexConfig:
    return Encoder(model).index_config()


def test_the_explorer_finds_the_network_of_a_collection(uri, collection, photos, model, tmp_path) -> None:
    fill(uri, collection, photos, model)
    warnings: list[str] = []
    opened = open_explored(uri, collection, None, None, "cpu", warnings.append)
    with opened.index:
        assert tuple(opened.class_names or ()) == model.net.architecture.classes
        assert (opened.digest, opened.root, opened.encode is None, warnings) == (model.digest, None, False, [])
    with MilvusIndex.open(uri, collection=collection) as index:
        link = read_collection_link(index, collection)
        assert link is not None
        write_collection_link(
            index,
            {"model": str(tmp_path / "gone"), "sha256": link.sha256, "head": "paper", "binarisation": "mean"},
        )
    opened = open_explored(uri, collection, None, None, "cpu", warnings.append)
    opened.index.close()
    assert opened.encode is None
    assert warnings == [f"no network in {tmp_path / 'gone'}: only records of the index can be queries"]
    refused = semcut("search", collection, images_in(photos)[0], "--uri", uri, cwd=tmp_path, status=1).stderr
    assert "holds no model any more" in " ".join(refused.split())
    opened = open_explored(uri, collection, None, model.path, "cpu", warnings.append)
    opened.index.close()
    assert opened.encode is not None
    query = images_in(photos)[0]
    semcut("search", collection, query, "--uri", uri, "--model", model.path, cwd=tmp_path)


@pytest.mark.milvus
def test_parts_that_run_at_once_make_the_whole(milvus_server, photos, model) -> None:
    uri, name = milvus_server.uri, "images_in_parts"
    processes = [start(uri, name, photos, model, part) for part in ("2/2", "1/2")]
    added = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        added.append(json.loads(out)["added"])
    assert sum(added) == 90
    assert min(added) > 20
    assert_whole(uri, name, photos)
    again = fill(uri, name, photos, model, "--part", "2/2")
    assert (again["added"], again["records"]) == (0, 90)
    MilvusIndex.drop(uri, collection=name)


@pytest.mark.milvus
@pytest.mark.parametrize("after", [0.0, 0.1, 0.5])
def test_a_part_that_was_killed_is_repeated(milvus_server, photos, model, after) -> None:
    uri, name = milvus_server.uri, "images_killed"
    fill(uri, name, photos, model, "--part", "1/3")
    process = start(uri, name, photos, model, "3/3")
    with MilvusIndex.open(uri, collection=name, strong=True) as index:
        before = index.version
        while process.poll() is None and index.version == before:  # until it writes its first batch
            time.sleep(0.01)
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for part in ("3/3", "2/3", "1/3"):
        fill(uri, name, photos, model, "--part", part)
    assert_whole(uri, name, photos)
    MilvusIndex.drop(uri, collection=name)


HOSTILE = {
    "no JSON": "{",
    "nothing": "",
    "a list": "[]",
    "deep": "[" * 60_000,
    "no digest": {"sha256": None},
    "short digest": {"sha256": "ab"},
    "relative model": {"model": "../network"},
    "zero in the model": {"model": "/a\0b"},
    "surrogate in the model": {"model": "/\udcff"},
    "number as model": {"model": 7},
    "relative root": {"root": "photos"},
    "root of all": {"root": "/"},
    "root is a list": {"root": []},
    "roots are text": {"roots": "/photos"},
    "a root is a number": {"roots": [7]},
    "a root is relative": {"roots": ["photos"]},
    "cutoff above 1": {"cutoff": 2},
    "cutoff is no number": {"cutoff": float("nan")},
    "ranking": {"ranking": "best"},
}


def test_a_link_that_semcut_has_not_written_is_refused(uri, collection, photos, model, tmp_path) -> None:
    fill(uri, collection, photos, model)
    right = {
        "model": str(model.path), "sha256": model.digest, "head": "paper", "binarisation": "mean", "roots": [],
        "root": str(photos),
    }  # fmt: skip
    query = images_in(photos)[0]
    for what, change in HOSTILE.items():
        text = change if isinstance(change, str) else json.dumps(right | change)
        with MilvusIndex.open(uri, collection=collection) as index:
            write_note(index, text)
        refused = semcut("search", collection, query, "--uri", uri, cwd=tmp_path, status=1).stderr.replace("\n", " ")
        assert "records of its network cannot be read" in " ".join(refused.split()), what
    with MilvusIndex.open(uri, collection=collection) as index:
        write_note(index, json.dumps(right | {"of a later version": 1}))
    semcut("search", collection, query, "--uri", uri, cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "give either --out DIRECTORY or --to COLLECTION"),
        (["--out", "x", "--to", "y"], "give either --out DIRECTORY or --to COLLECTION"),
        (["--out", "x", "--part", "1/2"], "a directory has one writer at a time"),
        (["--out", "x", "--uri", "a.db"], "--uri is for --to"),
        (["--to", "y", "--uri", "a.db"], "--to needs --model"),
        (["--to", "y", "--part", "0/2"], "expected a number from 1 to 2"),
        (["--to", "y", "--part", "3/2"], "expected a number from 1 to 2"),
        (["--to", "y", "--part", "half"], "expected i/n, such as 3/8"),
    ],
)
def test_wrong_options(photos, tmp_path, arguments, expected) -> None:
    refused = semcut("index", photos, *arguments, cwd=tmp_path, status=2).stderr
    assert expected in " ".join(refused.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_no_part_of_an_embedded_file(photos, model, tmp_path) -> None:
    arguments = ["--model", model.path, "--to", "y", "--uri", "new.db", "--part", "1/2"]
    refused = semcut("index", photos, *arguments, cwd=tmp_path, status=1).stderr
    assert "several processes cannot write an embedded Milvus file at once" in " ".join(refused.split())
    assert list(tmp_path.iterdir()) == []
