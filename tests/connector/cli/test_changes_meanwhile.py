"""Commands that change records read them when they are the writer, so that no change of another command is undone."""

from __future__ import annotations

import csv
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semcut.connector import Connector
from semcut.connector.cli.app import app
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval.indexed_files import IndexedFiles
from semcut.indexes import FaissIndex
from tests.command import semcut


def write_prices(file: Path, images: list[Path], price: Callable[[int], int]) -> None:
    with open(file, "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "price"])
        rows.writerows([path, price(number)] for number, path in enumerate(images))


@pytest.fixture
def images(digits: ImageSet, model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Images of an index with the price 0 for the first ten, and 5 for ten others."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number, file in enumerate(digits.files[:20]):
        shutil.copy(file, f"photos/{number:02}.png")
    found = sorted(path.absolute() for path in Path("photos").iterdir())
    write_prices(Path("first.csv"), found, lambda number: 0 if number < 10 else 5)
    semcut("index", "photos", "--model", model.path, "--out", "index", "--attribute", "price=float", cwd=tmp_path)
    semcut("sync", "index", "--attributes", "first.csv", cwd=tmp_path)
    return found


def run(*words: str) -> None:
    """Run a command in this process, so that a test can act in the middle of it."""
    app(list(words), standalone_mode=False)


def test_records_that_changed_meanwhile_keep_their_encodings(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prices(Path("later.csv"), images, lambda number: 7)
    update = IndexedFiles.update_attributes

    def after_another_sync(files: IndexedFiles, *arguments: object, **options: object) -> int:
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        shutil.copy(images[-1], images[0])
        os.utime(images[0], (time.time() + 9, time.time() + 9))
        images[5].unlink()
        semcut("sync", "index", cwd=tmp_path)
        return update(files, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(IndexedFiles, "update_attributes", after_another_sync)
    run("sync", "index", "--attributes", "later.csv")
    with Connector.open("index") as connector:
        ids = connector.ids_of([images[0], images[-1], images[5]])
        assert ids[2] == -1
        assert len(connector.index) == 19
        changed = connector.index.get(ids[:2])
        assert np.array_equal(changed.features[0], changed.features[1])
        assert connector.index.matching("price == 7").tolist() == connector.index.ids().tolist()


def test_records_that_match_no_more_are_not_removed(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prices(Path("later.csv"), images, lambda number: 5 if number < 10 else 0)
    begin = FaissIndex.begin

    def after_another_sync(index: FaissIndex) -> None:
        monkeypatch.setattr(FaissIndex, "begin", begin)
        semcut("sync", "index", "--attributes", "later.csv", cwd=tmp_path)
        begin(index)

    with Connector.open("index") as connector:
        kept = connector.ids_of(images[:10]).tolist()
    monkeypatch.setattr(FaissIndex, "begin", after_another_sync)
    run("remove", "index", "--where", "price == 0")
    with Connector.open("index") as connector:
        assert connector.index.ids().tolist() == sorted(kept)
