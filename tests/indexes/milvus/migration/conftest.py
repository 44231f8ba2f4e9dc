"""Sources and targets of migrations."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from semcut.indexes import FaissIndex, NotAnIndexError
from semcut.indexes.milvus import MilvusIndex
from tests.indexes.milvus.conftest import ON_SERVER, skip_embedded
from tests.indexes.milvus.migration.command import CONFIG, records


@pytest.fixture(params=["lite", ON_SERVER])
def uri(request, tmp_path) -> str:
    """The address of Milvus.

    The embedded file of other tests is not used: this process has that file open, so a command could not open it.
    """
    if request.param == "lite":
        skip_embedded()
        return str(tmp_path / "milvus.db")
    return request.getfixturevalue("milvus_server").uri


@pytest.fixture
def source(tmp_path) -> Path:
    """The directory of a stored index in which records were replaced and removed."""
    batch = records()
    with FaissIndex.create(tmp_path / "source", CONFIG) as index:
        index.add(batch)
        index.upsert(records(seed=1)[:50])
        index.remove(index.ids()[::7])
    return tmp_path / "source"


@pytest.fixture
def collection(uri) -> Iterator[str]:
    """The name of a collection that does not exist; it is dropped at the end."""
    name = f"migration_{secrets.token_hex(6)}"
    yield name
    with contextlib.suppress(NotAnIndexError):
        MilvusIndex.drop(uri, collection=name)
