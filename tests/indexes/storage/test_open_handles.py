"""An operation that fails closes the files that it opened.

Each test keeps the exception, and with it the frames in its traceback and all of their objects. So a file that only
garbage collection would close is still open.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from semcut.indexes import DamagedIndexError, FormatVersionError, NotAnIndexError, StorageError
from semcut.indexes.storage import directory, verify
from semcut.indexes.storage.catalogue import Catalogue
from semcut.indexes.storage.column_files import Column
from semcut.indexes.storage.column_specs import names_of
from semcut.indexes.storage.store import Store
from semcut.indexes.storage.verify import verify_path
from tests.indexes.storage.stored_index import CATALOGUE, catalogue, column, open_handles
from tests.indexes.story import CONFIG, records


def refuse(*_):
    raise OSError(5, "Input/output error")


def test_a_catalogue_that_is_refused_is_closed(path, tmp_path):
    with catalogue(path) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    (tmp_path / "text").write_text("text")
    before = open_handles()
    with pytest.raises(FormatVersionError) as version:
        Catalogue(path / CATALOGUE)
    assert open_handles() == before
    with pytest.raises(NotAnIndexError) as no_index:
        Catalogue(tmp_path / "text")
    assert open_handles() == before
    assert version.value is not no_index.value


def test_a_catalogue_that_cannot_be_filled_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr("semcut.indexes.storage.catalogue.schema", lambda _: "CREATE TABLE")
    before = open_handles()
    with pytest.raises(StorageError) as error:
        Catalogue.create(tmp_path / "catalogue", CONFIG)
    assert open_handles() == before
    assert "syntax" in str(error.value) or "incomplete" in str(error.value)


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_an_index_that_cannot_be_created_leaves_no_file_open(tmp_path, monkeypatch, call):
    before = open_handles()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(StorageError, match="Input/output error") as error:
            Store.create(tmp_path / "index", CONFIG)
        assert open_handles() == before
    assert error.value is not None


def test_columns_of_an_index_that_cannot_be_completed_are_closed(tmp_path, monkeypatch):
    """The error comes when all columns are open."""
    created, create = [], directory.create_columns

    def spy(*arguments):
        created.append(create(*arguments))
        monkeypatch.setattr(os, "fsync", refuse)
        return created[-1]

    monkeypatch.setattr(directory, "create_columns", spy)
    before = open_handles()
    with pytest.raises(StorageError, match="Input/output error"):
        Store.create(tmp_path / "index", CONFIG)
    assert set(created[0]) == set(names_of(CONFIG))
    assert open_handles() == before


@pytest.mark.parametrize("operation", ["backup", "compact"])
def test_a_damaged_record_that_stops_an_operation_leaves_no_file_open(tmp_path, operation):
    path = tmp_path / "index"
    store = Store.create(path, CONFIG)
    store.write(records(np.arange(300), np.zeros(300)))
    store.close()
    with open(column(path, "features"), "r+b") as file:
        file.write(b"\x99")
    store = Store.open(path)
    store.begin()
    before = open_handles()
    with pytest.raises(DamagedIndexError) as error:
        {"backup": lambda: store.backup(tmp_path / "copy", store.snapshot), "compact": store.compact}[operation]()
    assert open_handles() == before
    assert "features" in str(error.value)
    store.close()


def test_verifying_an_index_that_cannot_be_opened_leaves_no_file_open(path, monkeypatch):
    opened = []

    class Recorded(Column):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            opened.append(self)  # so that garbage collection does not close it

    column(path, "codes").unlink()
    monkeypatch.setattr(verify, "Column", Recorded)
    before = open_handles()
    assert any("codes is missing" in damage.what for damage in verify_path(path))
    assert len(opened) == 9
    assert open_handles() == before


def test_an_interrupted_verification_leaves_no_file_open(path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    column(path, "removed").unlink()
    monkeypatch.setattr(Column, "fault", interrupt)
    before = open_handles()
    with pytest.raises(KeyboardInterrupt) as error:
        verify_path(path)
    assert open_handles() == before
    assert error.value is not None
