"""Fixtures for tests of images in a collection: the servers of the tests of `MilvusIndex`, and a folder of images."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from semcut.connector.data.sources import ImageSet
from semcut.indexes.errors import NotAnIndexError
from semcut.indexes.milvus import MilvusIndex
from tests.indexes.milvus.conftest import milvus_server, uri

__all__ = ["milvus_server", "uri"]


@pytest.fixture(scope="session")
def photos(digits_test: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with folders of images, and a file that is none; no test may change it."""
    folder = tmp_path_factory.mktemp("photos")
    for file in digits_test.files[:90]:
        place = folder / Path(file).parent.name / Path(file).name
        place.parent.mkdir(exist_ok=True)
        shutil.copy(file, place)
    (folder / "notes.jpg").write_text("no image")
    return folder


@pytest.fixture
def collection(uri: str) -> Iterator[str]:
    """The name of a collection that is not there; it is dropped at the end."""
    name = f"images_{secrets.token_hex(4)}"
    yield name
    try:
        MilvusIndex.drop(uri, collection=name)
    except NotAnIndexError:
        return
