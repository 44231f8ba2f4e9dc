"""`Connector`: adding images, searching by image, and errors for an index of another network."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from semcut.connector import Connector
from semcut.connector.data.model_file import MODEL, encoding_digest
from semcut.connector.data.sources import ImageSet, class_of
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.network import Architecture
from semcut.connector.retrieval.model_link import LINK
from semcut.connector.retrieval.search_defaults_of import SearchDefaults
from semcut.connector.training.loop import train
from semcut.connector.training.train_config import TrainConfig
from semcut.indexes import FaissIndex, IndexExistsError, NotAnIndexError, StorageError
from semcut.indexes.errors import CheckpointError, DataError
from semcut.indexes.storage.directory import MARK
from tests.command import semcut
from tests.indexes.test_interrupts import in_child


def test_an_indexed_image_finds_itself_first(stored: Path, digits: ImageSet) -> None:
    with Connector.open(stored) as connector:
        hits = connector.search(digits.files[::100], k=3)
    for file, found in zip(digits.files[::100], hits, strict=True):
        assert found[0].uri == file
        assert found[0].distance < 1e-3
        assert found[0].hamming == 0
        assert [hit.distance for hit in found] == sorted(hit.distance for hit in found)


def test_a_search_that_names_no_cutoff_and_ranking_has_those_of_the_index(stored: Path, digits: ImageSet) -> None:
    with Connector.open(stored) as connector:
        connector.defaults = SearchDefaults(cutoff=0.5, ranking="relevance")
        (own,), (same,), (other,) = (
            connector.search(digits.files[:1], k=30, fill=False, **settings)
            for settings in ({}, {"cutoff": 0.5, "ranking": "relevance"}, {"cutoff": None, "ranking": "distance"})
        )
    assert own == same
    assert [hit.relevance for hit in own] == sorted((hit.relevance for hit in own), reverse=True)
    assert [hit.distance for hit in other] == sorted(hit.distance for hit in other)


def test_most_of_what_is_found_has_the_class_of_the_query(stored: Path, digits_test: ImageSet) -> None:
    with Connector.open(stored) as connector:
        hits = connector.search(digits_test.files, k=5)
    right = [
        class_of(hit.uri) == class_of(file)
        for file, found in zip(digits_test.files, hits, strict=True)
        for hit in found
    ]
    assert np.mean(right) > 0.8


def test_ids_continue_and_unreadable_files_are_reported(model: Checkpoint, digits: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no")
    reported: list[tuple[int, int]] = []

    def report(done: int, total: int, task: str = "") -> None:
        reported.append((done, total))

    with Connector.create(None, model.path) as connector:
        first = connector.add_files([*digits.files[:3], str(tmp_path / "bad.jpg")], progress=report)
        second = connector.add_files(digits.files[3:5])
        assert connector.index.ids().tolist() == [0, 1, 2, 3, 4]
        assert connector.labels(digits.classes).labels.tolist() == digits.labels[:5].tolist()
        assert connector.labels(("7", "8")).labels.tolist() == [-1] * 5
    assert (first.added, second.added) == (3, 2)
    assert first.skipped == [(str(tmp_path / "bad.jpg"), "not an image")]
    assert reported[-1] == (4, 4)


def test_a_batch_of_unreadable_files_adds_nothing(model: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no")
    with Connector.create(None, model.path) as connector:
        assert connector.add_files([str(tmp_path / "bad.jpg")]).added == 0
        assert len(connector.index) == 0
        assert connector.search([]) == []


def test_another_network_is_refused(stored: Path, digits: ImageSet, architecture: Architecture, tmp_path: Path) -> None:
    train(digits.sample(100), architecture, TrainConfig(epochs=1, seed=7), tmp_path / "other")
    with pytest.raises(CheckpointError, match="made by another network"):
        Connector.open(stored, tmp_path / "other")


def test_a_moved_network_is_given_by_its_new_path(stored: Path, model: Checkpoint, tmp_path: Path) -> None:
    index, moved = tmp_path / "index", tmp_path / "moved"
    shutil.copytree(stored, index)
    shutil.copytree(model.path, moved)
    link = json.loads((index / LINK).read_text())
    (index / LINK).write_text(json.dumps({**link, "model": str(tmp_path / "missing"), "beside": "../missing"}))
    with pytest.raises(CheckpointError, match=r"holds no model any more.*--model"):
        Connector.open(index)
    with Connector.open(index, moved) as connector:
        assert len(connector.index) == 1442


def test_an_edited_description_is_not_the_network_that_made_the_index(
    stored: Path, model: Checkpoint, tmp_path: Path
) -> None:
    """Neither as it is, nor with a digest that was made right, nor as a description of version 2."""
    edited = shutil.copytree(model.path, tmp_path / "edited")
    content = json.loads((edited / MODEL).read_text())
    content["architecture"]["image_size"] = 24
    (edited / MODEL).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="was changed after the training"):
        Connector.open(stored, edited)
    forged = {**content, "sha256": encoding_digest(content)}
    old = {name: content[name] for name in ("architecture", "training")}
    for other in (forged, {"semcut_model": 2, **old, "sha256": content["weights"]}):
        (edited / MODEL).write_text(json.dumps(other))
        with pytest.raises(CheckpointError, match="made by another network"):
            Connector.open(stored, edited)


def test_an_index_of_a_network_of_version_2_still_opens(digits: ImageSet, model: Checkpoint, tmp_path: Path) -> None:
    old = shutil.copytree(model.path, tmp_path / "old")
    content = json.loads((old / MODEL).read_text())
    kept = {name: content[name] for name in ("architecture", "training")}
    (old / MODEL).write_text(json.dumps({"semcut_model": 2, **kept, "sha256": content["weights"]}))
    with Connector.create(tmp_path / "index", old) as connector:
        connector.add_files(digits.files[:5])
    assert json.loads((tmp_path / "index" / LINK).read_text())["sha256"] == content["weights"]
    with Connector.open(tmp_path / "index") as connector:
        assert connector.search(digits.files[:1])[0][0].uri == digits.files[0]
    with pytest.raises(CheckpointError, match="made by another network"):
        Connector.open(tmp_path / "index", model.path)


def test_an_index_without_a_link_is_refused(tmp_path: Path, model: Checkpoint) -> None:
    from semcut.connector.retrieval.encoder import Encoder

    FaissIndex.create(tmp_path / "plain", Encoder(model).index_config()).close()
    with pytest.raises(NotAnIndexError, match=r"no connector\.json"):
        Connector.open(tmp_path / "plain")


def test_an_existing_index_is_not_overwritten(stored: Path, model: Checkpoint) -> None:
    with pytest.raises(IndexExistsError):
        Connector.create(stored, model.path)


def test_one_image_instead_of_a_list_is_refused(stored: Path, digits: ImageSet) -> None:
    with Connector.open(stored) as connector, pytest.raises(DataError, match="brackets"):
        connector.search(digits.files[0])  # type: ignore[arg-type]


def test_one_bad_query_leaves_the_others_their_answers(stored: Path, digits: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "zero.jpg").touch()
    images = [digits.files[0], str(tmp_path / "zero.jpg"), digits.files[1]]
    skipped: list[tuple[str, str]] = []
    with Connector.open(stored) as connector:
        found = connector.search(images, k=2, skipped=skipped)
        assert [hit.id for hit in found[0]] == [hit.id for hit in connector.search(images[:1], k=2)[0]]
        assert [hits[0].uri for hits in found if hits] == [images[0], images[2]]
        assert found[1] == []
        assert connector.search([images[1]] * 2, skipped=skipped) == [[], []]
        with pytest.raises(DataError, match=r"zero\.jpg"):
            connector.search(images)
        assert len(connector.search(images[:1], k=10**8, cutoff=0.0, shortlist=None)[0]) <= 1442
    assert skipped == [(images[1], "not an image")] * 3
    line = f"skipped {images[1]}: not an image"
    done = semcut("search", stored, *images, cwd=tmp_path, status=1)
    assert line in " ".join(done.stderr.split())
    assert done.stdout.count("distance") == 2
    answers = json.loads(semcut("search", stored, *images, "--json", cwd=tmp_path, status=1).stdout)
    assert ["error" in answer for answer in answers] == [False, True, False]


def test_every_public_name_is_importable() -> None:
    from semcut import connector

    for name in connector.__all__:
        assert getattr(connector, name).__name__ == name
    with pytest.raises(AttributeError, match="nonsense"):
        connector.nonsense  # noqa: B018


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_encodes_and_searches_whatever_threads_were_doing(stored: Path, digits: ImageSet) -> None:
    stop = threading.Event()
    with Connector.open(stored) as connector:
        expected = connector.search(digits.files[:8], k=3)

        def use() -> str:
            assert connector.search(digits.files[:8], k=3) == expected
            connector.index.refresh()
            with pytest.raises(StorageError, match="before this process was forked"):
                connector.index.remove([1])
            with pytest.raises(StorageError, match="before this process was forked"):
                connector.add_files(digits.files[:8])
            assert not (stored / MARK).exists()
            connector.close()
            return "done"

        other = threading.Thread(
            target=lambda: [connector.search(digits.files[:8]) for _ in iter(stop.is_set, True)], daemon=True
        )
        other.start()
        try:
            for _ in range(3):
                assert in_child(use) == "'done'"
        finally:
            stop.set()
            other.join()
