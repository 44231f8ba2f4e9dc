"""An index to which records were being added says so, however that ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from semcut.indexes import StorageError
from semcut.indexes.storage.directory import MARK
from semcut.indexes.unfinished import adding, unfinished


def test_records_are_missing_until_all_were_added(tmp_path: Path) -> None:
    assert unfinished(tmp_path, 0) is None
    with adding(tmp_path, 22_400, 5):
        assert "it has 10,112 of 22,400 records" in str(unfinished(tmp_path, 10_117))
        assert "22,405, does not tell whether some are missing" in str(unfinished(tmp_path, 22_405))
    assert unfinished(tmp_path, 22_405) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, SystemExit, StorageError])
def test_what_was_interrupted_stays_unfinished(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), adding(tmp_path, 10, 0):
        raise error
    assert "it has 4 of 10 records" in str(unfinished(tmp_path, 4))


def test_other_records_do_not_complete_an_unfinished_index(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), adding(tmp_path, 10, 2):
        raise KeyboardInterrupt
    with adding(tmp_path, 5, 6):
        pass
    assert "it has 9 of 15 records" in str(unfinished(tmp_path, 11))
    with adding(tmp_path, 6, 11, resumes=True):
        assert "it has 9 of 15 records" in str(unfinished(tmp_path, 11))
    assert unfinished(tmp_path, 17) is None


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"expected": "many"}', '{"expected": -1}', "[" * 4000, "1" * 5000]
)
def test_a_damaged_file_means_unfinished(tmp_path: Path, content: str) -> None:
    (tmp_path / MARK).write_text(content)
    assert "is unfinished" in str(unfinished(tmp_path, 3))
    with adding(tmp_path, 5, 6, resumes=True):
        pass
    assert unfinished(tmp_path, 3) is None


def test_a_directory_that_cannot_be_written_is_an_error_of_semcut(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"cannot write .*unfinished\.json: No such file"),
        adding(tmp_path / "no", 1, 0),
    ):
        pass
    (tmp_path / MARK).symlink_to("/dev/zero")
    assert "is unfinished" in str(unfinished(tmp_path, 3))
