"""What an account trusts is what it adopted, and is noted in its own folder only."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from semcut.connector.adoption.adopt import AdoptionChoices, adopt
from semcut.connector.data import source_folders
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.models.trusted_networks import TRUSTED, require_trust, trust
from semcut.indexes.errors import CheckpointError, DataError
from tests.connector.adoption import networks

ONE, OTHER = "a" * 64, "b" * 64


def test_a_note_whose_last_line_has_no_end_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMCUT_DATA", str(tmp_path))
    (tmp_path / TRUSTED).write_text(ONE)
    trust(OTHER)
    trust(OTHER)
    for digest in (ONE, OTHER):
        require_trust(digest, "python", tmp_path)
    assert (tmp_path / TRUSTED).read_text().count(OTHER) == 1


@pytest.mark.parametrize("library", ["raises", "answers with a folder below the current one"])
def test_an_account_without_a_home_has_no_folder(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(name: str) -> Path:
        if library == "raises":
            raise RuntimeError("no home")
        return Path("~/.local", name)

    for name in ("user_data_path", "user_cache_path"):
        monkeypatch.setattr(platformdirs, name, no_home)
    for name in ("SEMCUT_DATA", "SEMCUT_CACHE"):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~" / ".local" / "semcut").mkdir(parents=True)
    (tmp_path / "~" / ".local" / "semcut" / TRUSTED).write_text(ONE)
    with pytest.raises(CheckpointError, match=f"set SEMCUT_TRUST={ONE}"):
        require_trust(ONE, "python", tmp_path)
    with pytest.raises(DataError, match="no home folder for the data of semcut: set SEMCUT_DATA to a folder"):
        trust(OTHER)
    with pytest.raises(DataError, match="set SEMCUT_CACHE to a folder"):
        source_folders.cache()


def test_a_network_that_takes_the_place_of_an_adopted_one_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMCUT_DATA", str(tmp_path / "data"))
    choices = AdoptionChoices(image_size=networks.SIZE, classes=networks.CLASSES)
    adopt(networks.blocks, tmp_path / "other", choices=choices.model_copy(update={"bits": 32}))
    (tmp_path / "data" / TRUSTED).unlink()
    save = Checkpoint.save

    def save_and_replace(path: Path, *described: object) -> str:
        digest = save(path, *described)  # type: ignore[arg-type]
        for file in (tmp_path / "other").iterdir():
            (path / file.name).write_bytes(file.read_bytes())
        return digest

    monkeypatch.setattr(Checkpoint, "save", staticmethod(save_and_replace))
    with pytest.raises(CheckpointError, match="this account did not adopt it"):
        adopt(networks.blocks, tmp_path / "network", choices=choices)
