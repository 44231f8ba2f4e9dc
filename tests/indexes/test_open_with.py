"""An index and what is beside it are read together, also if another one replaces it in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from semcut.indexes import FaissIndex, NotAnIndexError, StorageError
from semcut.indexes.open_with import open_with
from semcut.indexes.storage.store import Store


@pytest.fixture
def path(tmp_path, config, batch) -> Path:
    """Make an index of two records, and one of four in `later`, each with its number of records in a file."""
    for name, count in (("index", 2), ("later", 4)):
        with FaissIndex.create(tmp_path / name, config) as index:
            index.add(batch[:count])
        (tmp_path / name / "count").write_text(str(count))
    return tmp_path / "index"


def replace(path: Path) -> None:
    if (path.parent / "later").exists():
        path.rename(path.parent / "former")
        (path.parent / "later").rename(path)


@pytest.mark.parametrize("opener", [FaissIndex.open, Store.open])
def test_both_are_of_one_index(path, opener):
    def read(index) -> str:
        replace(path)
        return (path / "count").read_text()

    index, count = open_with(lambda: opener(path), read)
    assert count == "4"
    assert len(index.snapshot) == 4
    index.close()


def test_an_error_counts_only_if_the_index_is_still_there(path):
    opened = []

    def opening() -> FaissIndex:
        opened.append(FaissIndex.open(path))
        return opened[-1]

    def read(index) -> int:
        replace(path)
        raise StorageError(str(len(index)))

    with pytest.raises(StorageError, match=r"^4$"):
        open_with(opening, read)
    assert [index._searchable.closed for index in opened] == [True, True]
    with pytest.raises(NotAnIndexError):
        open_with(lambda: FaissIndex.open(path), lambda index: path.rename(path.parent / "gone"))
