"""An index is kept in step with a folder: what `sync` and `add` do for every kind of change, and what they leave."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from semcut.connector import Connector
from semcut.connector.data import images
from semcut.connector.data.decoding_messages import Answer, Outcome, not_decoded
from semcut.connector.data.decoding_pool import DecodingPool
from semcut.connector.data.image_contents import digest_of
from semcut.connector.data.model_file import encoding_digest
from semcut.connector.data.sources import ImageSet
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval import file_facts, folder_changes, folder_sync
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.retrieval.trained_records import TRAINED
from semcut.indexes import DataError, DuplicateIdError, FaissIndex, LockedError
from semcut.indexes.storage.directory import FACTS, MARK
from tests.command import semcut

LONG_AGO = 1_600_000_000_000_000_000


@pytest.fixture
def photos(digits: ImageSet, tmp_path: Path) -> Path:
    """Make a folder of 24 digits in 3 classes, with a file that is no image, all modified long ago."""
    folder = tmp_path / "photos"
    for number, file in enumerate(digits.files[:24]):
        target = folder / "abc"[number % 3] / f"{number:02d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    (folder / "notes.txt").write_text("no image")
    settle(folder)
    return folder


@pytest.fixture
def index(photos: Path, model: Checkpoint, tmp_path: Path) -> Path:
    semcut("index", "photos", "--model", model.path, "--out", "index", cwd=tmp_path)
    return tmp_path / "index"


def settle(folder: Path) -> None:
    """Give all files of a folder a time of modification long ago, each its own, in order."""
    for number, file in enumerate(sorted(folder.rglob("*"))):
        if file.is_file() and file.stat().st_mtime_ns > LONG_AGO + 10**12:
            os.utime(file, ns=(LONG_AGO, LONG_AGO + number))


def sync(index: Path, *arguments: object, status: int = 0) -> dict[str, object]:
    done = semcut("sync", index.name, *arguments, "--json", cwd=index.parent, status=status)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def figures(done: dict[str, object]) -> dict[str, object]:
    """Return what was done, without zeros."""
    names = ("added", "replaced", "moved", "removed", "touched", "unchanged", "others", "encoded")
    return {name: done[name] for name in names if done[name]}


def content(index: Path) -> dict[str, tuple[int, bytes]]:
    """Return id and code of each record by its uri."""
    with FaissIndex.open(index, engine="faiss") as opened:
        found = opened.get(opened.ids())
    assert found.uris is not None
    return {
        str(uri): (int(record), code.tobytes())
        for uri, record, code in zip(found.uris, found.ids, found.codes, strict=True)
    }


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(Encoder, "encode_files", refuse)


def test_uris_are_relative_to_the_folder(index: Path, photos: Path) -> None:
    assert sorted(content(index)) == sorted(f"{'abc'[number % 3]}/{number:02d}.png" for number in range(24))
    with Connector.open(index) as connector:
        (hits,) = connector.search([photos / "a" / "00.png"], k=1, cutoff=0)
        assert hits[0].uri == str(photos / "a" / "00.png")
        assert connector.labels(("a", "b", "c")).labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
        assert connector.ids_of([photos / "b" / "01.png", photos / "none.png"]).tolist() == [hits[0].id + 8, -1]
    shown = semcut(
        "remove", "index", "--uri", "a/*", "--uri", "*/photos/b/01.png", "--dry-run", cwd=index.parent
    ).stdout
    assert "9 records would be removed" in shown
    assert str(photos / "b" / "01.png") in shown


def test_nothing_is_done_if_nothing_has_changed(index: Path) -> None:
    before = {file.name: file.read_bytes() for file in index.iterdir() if file.is_file()}
    code = (
        "import sys; from semcut.connector.cli.app import app\n"
        "try: app(['sync', 'index', '--json'])\n"
        "finally: assert not {'torch', 'numba', 'semcut.connector.models.network'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=index.parent, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert figures(found) == {"unchanged": 24}
    assert [Path(file).name for file, _ in found["skipped"]] == ["notes.txt"]
    assert {file.name: file.read_bytes() for file in index.iterdir() if file.is_file()} == before


def test_each_kind_of_change_is_made_and_counted(index: Path, photos: Path, digits: ImageSet) -> None:
    before = content(index)
    shutil.copy(digits.files[100], photos / "a" / "new.png")
    shutil.copy(digits.files[101], photos / "a" / "00.png")
    (photos / "b" / "01.png").rename(photos / "c" / "moved.png")
    (photos / "b" / "04.png").unlink()
    os.utime(photos / "c" / "02.png")
    (photos / "d").mkdir()
    shutil.copy(photos / "c" / "05.png", photos / "d" / "copy.png")
    (photos / "c" / "08.png").write_text("no image any more")
    (photos / "a" / "broken.jpg").write_text("no image")
    expected = {"added": 2, "replaced": 1, "moved": 1, "removed": 2, "touched": 1, "unchanged": 19, "encoded": 2}
    planned = sync(index, "--dry-run")
    assert content(index) == before
    done = sync(index)
    assert figures(planned) == figures(done) == expected
    assert sorted(planned["skipped"]) == sorted(done["skipped"])
    assert {Path(file).name for file, _ in done["skipped"]} == {"notes.txt", "08.png", "broken.jpg"}
    after = content(index)
    assert after["c/moved.png"] == before["b/01.png"]
    assert after["a/00.png"][0] == before["a/00.png"][0]
    assert after["a/00.png"][1] != before["a/00.png"][1]
    assert after["d/copy.png"][1] == before["c/05.png"][1]
    assert sorted(after) == sorted(file.relative_to(photos).as_posix() for file in photos.rglob("*/*.png")
                                   if file.name != "08.png")  # fmt: skip
    settle(photos)
    for _ in range(2):
        assert figures(sync(index)) == {"unchanged": 24}
    assert not (index / MARK).exists()


def test_moves_and_copies_need_no_network(index: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(index)
    no_network(monkeypatch)
    (photos / "a").rename(photos / "z")
    shutil.copy(photos / "b" / "01.png", photos / "b" / "again.png")
    shutil.copy(photos / "b" / "04.png", photos / "b" / "07.png")
    assert figures(sync(index)) == {"added": 1, "replaced": 1, "moved": 8, "unchanged": 15}
    after = content(index)
    assert {uri: found for uri, found in after.items() if uri.startswith("z/")} == {
        uri.replace("a/", "z/"): found for uri, found in before.items() if uri.startswith("a/")
    }
    assert after["b/07.png"] == (before["b/07.png"][0], before["b/04.png"][1])


def test_two_files_that_change_places_keep_their_ids(index: Path, photos: Path) -> None:
    before = content(index)
    one, other = photos / "a" / "00.png", photos / "b" / "01.png"
    one.rename(photos / "x")
    other.rename(one)
    (photos / "x").rename(other)
    assert figures(sync(index)) == {"replaced": 2, "unchanged": 22, "encoded": 2}
    after = content(index)
    assert after["a/00.png"] == (before["a/00.png"][0], before["b/01.png"][1])
    assert after["b/01.png"] == (before["b/01.png"][0], before["a/00.png"][1])


@pytest.mark.parametrize("kind", ["gone", "empty", "file", "hidden"])
def test_nothing_is_removed_for_a_folder_that_is_not_there(kind: str, index: Path, photos: Path) -> None:
    before = content(index)
    photos.rename(photos.parent / "elsewhere")
    if kind in ("empty", "hidden"):
        photos.mkdir()
        if kind == "hidden":
            (photos / ".mounted").touch()
    elif kind == "file":
        photos.touch()
    for more in ([], ["--dry-run"]):
        done = semcut("sync", "index", *more, cwd=index.parent, status=1)
        assert len(done.stderr.splitlines()) == 1
        assert "nothing was removed" in done.stderr or "is not there" in done.stderr
    assert content(index) == before
    assert not (index / MARK).exists()
    done = semcut("sync", "index", "elsewhere", cwd=index.parent, status=0 if kind in ("empty", "hidden") else 1)
    assert "semcut relocate --images" in done.stderr or kind in ("empty", "hidden")


def test_a_folder_that_vanishes_during_the_sync_loses_no_record(
    index: Path, photos: Path, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "a" / "00.png").unlink()
    shutil.copy(digits.files[100], photos / "a" / "new.png")
    whole = folder_sync.encode_into

    def vanish(*arguments: object) -> object:
        photos.rename(photos.parent / "elsewhere")
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(folder_sync, "encode_into", vanish)
    before = content(index)
    assert "nothing was removed for it" in semcut("sync", "index", cwd=index.parent, status=1).stderr
    with pytest.warns(UserWarning, match="unfinished"):
        assert content(index) == before
    monkeypatch.undo()
    (photos.parent / "elsewhere").rename(photos)
    assert figures(sync(index)) == {"added": 1, "removed": 1, "unchanged": 23, "encoded": 1}
    assert not (index / MARK).exists()


LIMITED = """
import os, sys
from semcut.connector.cli.app import app

app(["sync", "index", "--dry-run"], standalone_mode=False)  # loads all modules, which the other user may not read
os.seteuid(65534)
sys.stdout.write("\\0")
app(["sync", "index", "--json"])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not read a folder")
def test_nothing_is_removed_below_a_subfolder_that_cannot_be_listed(index: Path, photos: Path) -> None:
    for folder in (index.parent, *index.parent.parents):
        if folder.owner() == "root" and folder.parent != folder:
            folder.chmod(folder.stat().st_mode | 0o055)
    for path in (index, *index.rglob("*")):
        path.chmod(0o777)
    (photos / "b").chmod(0o700)
    (photos / "a" / "00.png").unlink()
    done = subprocess.run([sys.executable, "-c", LIMITED], cwd=index.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert figures(json.loads(done.stdout.partition("\0")[2])) == {"removed": 1, "unchanged": 15, "others": 8}
    assert f"skipped {photos / 'b'}: Permission denied" in done.stderr
    (photos / "b").chmod(0o755)
    assert figures(sync(index)) == {"unchanged": 23}


def test_a_file_that_cannot_be_looked_at_keeps_its_record(
    index: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "a" / "00.png").unlink()
    monkeypatch.setattr(folder_changes, "why_missing", lambda path: "Input/output error")
    done = sync(index)
    assert figures(done) == {"unchanged": 23, "others": 1}
    assert [str(photos / "a" / "00.png"), "Input/output error"] in done["skipped"]
    assert "a/00.png" in content(index)


def test_records_of_other_files_are_left_alone(index: Path, photos: Path) -> None:
    with FaissIndex.open(index, engine="faiss") as opened:
        some = opened.get([1, 2, 3, 4])
        uris = ["http://x/1.png", "../2.png", "/elsewhere/3.png", None]
        opened.add(dataclasses.replace(some, ids=np.arange(100, 104), uris=uris, any_mass=True))
    (photos / "a" / "00.png").unlink()
    assert figures(sync(index)) == {"removed": 1, "unchanged": 23, "others": 4}
    (photos / "a" / "03.png").unlink()
    assert figures(sync(index, "photos/b")) == {"unchanged": 8, "others": 19}
    assert figures(sync(index, "photos/a")) == {"removed": 1, "unchanged": 6, "others": 20}


def test_a_folder_elsewhere_is_kept_in_step_too(index: Path, photos: Path, digits: ImageSet) -> None:
    other = photos.parent / "other"
    (other / "7" / "deep").mkdir(parents=True)
    shutil.copy(digits.files[100], other / "7" / "deep" / "x.png")
    assert figures(sync(index, "other")) == {"added": 1, "others": 24, "encoded": 1}
    with Connector.open(index) as connector:
        assert connector.labels(("7",)).labels.tolist() == [-1] * 24 + [0]
        assert connector.sync().others == 1
        (other / "7" / "deep" / "x.png").rename(other / "7" / "y.png")
        done = connector.sync(other)
        assert (done.moved, done.encoded, done.others) == (1, 0, 24)
        assert connector.ids_of([other / "7" / "y.png"]).tolist() == [25]


def test_what_is_known_of_a_record_is_never_that_of_another_content(
    index: Path, photos: Path, digits: ImageSet, tmp_path: Path
) -> None:
    """Also of a backup, of records that Python has replaced under another uri, and of a torn or forged file."""
    semcut("backup", "index", "copy", cwd=tmp_path)
    facts = (index / FACTS).read_bytes()
    shutil.copy(digits.files[100], photos / "a" / "00.png")
    os.utime(photos / "a" / "00.png", ns=(LONG_AGO, LONG_AGO))
    assert figures(sync(index))["replaced"] == 1
    newer = (index / FACTS).read_bytes()
    (tmp_path / "copy" / FACTS).write_bytes(newer)  # as if the backup had copied the file later
    assert figures(sync(tmp_path / "copy")) == {"replaced": 1, "unchanged": 23, "encoded": 1}
    for forged, changed in (
        (b"", 24), (facts[:-20], 1), (b"\xff\n[[[\n" + b"[" * 100_000, 24), (b"[1,2,3]\n" + newer, 0),
        (newer + b"[1" + b"0" * 5000 + b',5,"a/00.png"]\n', 0), (newer.replace(b'"a/', b'"b/'), 8),
        (b"x" * (1 << 18) + newer, 0), (b"x" * (1 << 21) + newer, 24), (newer.replace(b"\n", b"\n[-1]\n"), 0),
    ):  # fmt: skip
        (index / FACTS).write_bytes(forged)
        planned = sync(index, "--dry-run")
        assert planned["replaced"] == changed, forged[:50]
    (index / FACTS).unlink()
    os.mkfifo(index / FACTS)
    assert sync(index, "--dry-run")["replaced"] == 24
    (index / FACTS).unlink()
    (index / FACTS).symlink_to(photos / "notes.txt")
    assert sync(index)["replaced"] == 24
    assert not (index / FACTS).is_symlink()
    assert (photos / "notes.txt").read_text() == "no image"


def test_the_file_of_what_is_known_does_not_grow_without_end(
    index: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_facts, "_SPARE_LINES", 20)
    sizes = set()
    for number in range(1, 7):
        for file in photos.rglob("*.png"):
            os.utime(file, ns=(LONG_AGO, LONG_AGO + 1000 * number))
        assert figures(sync(index))["touched"] == 24
        (photos / "c").rename(photos / "d")
        sync(index)
        (photos / "d").rename(photos / "c")
        sync(index)
        sizes.add(len((index / FACTS).read_bytes().splitlines()))
    assert max(sizes) < 2 * 25 + 20 + 24 + 2 * 16
    assert figures(sync(index)) == {"unchanged": 24}


def test_a_file_that_was_only_just_written_is_looked_at_again(index: Path, photos: Path, digits: ImageSet) -> None:
    """Its time can stay the same when it changes again."""
    shutil.copy(digits.files[100], photos / "a" / "00.png")
    now = time.time_ns()
    os.utime(photos / "a" / "00.png", ns=(now, now))
    size = (photos / "a" / "00.png").stat().st_size
    assert figures(sync(index))["replaced"] == 1
    same_size = next(file for file in digits.files[101:] if Path(file).stat().st_size == size)
    shutil.copy(same_size, photos / "a" / "00.png")
    os.utime(photos / "a" / "00.png", ns=(now, now))
    assert figures(sync(index))["replaced"] == 1
    assert figures(sync(index)) == {"unchanged": 24}


def test_two_at_once_are_one_after_the_other(index: Path, photos: Path, digits: ImageSet) -> None:
    shutil.copy(digits.files[100], photos / "a" / "new.png")
    with Connector.open(index) as one, Connector.open(index) as other:
        assert one.sync().added == 1
        with pytest.raises(LockedError):
            other.index.begin()
        assert other.sync(dry_run=True).added == 1
        one.close()
        assert other.sync().added == 0
        assert len(other.index) == 25


def test_add_skips_what_is_there_by_path_or_content(
    index: Path, photos: Path, digits: ImageSet, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    (other / "a").mkdir(parents=True)
    shutil.copy(photos / "a" / "00.png", other / "a" / "same.png")
    shutil.copy(digits.files[100], other / "a" / "new.png")
    shutil.copy(digits.files[100], other / "a" / "twice.png")
    shutil.copy(digits.files[101], photos / "b" / "01.png")
    (other / "none.png").write_text("no")
    arguments = ["add", "index", "other", "photos/b", "photos/a/00.png", "photos/a/00.png", "--json"]
    planned = json.loads(semcut(*arguments, "--dry-run", cwd=tmp_path).stdout)
    assert len(content(index)) == 24
    done = json.loads(semcut(*arguments, cwd=tmp_path).stdout)
    assert {**done, "skipped": []} == {
        "index": "index", "added": 1, "replaced": 1, "known": 11, "updated": 0, "skipped": [],
        "dry_run": False, "records": 25,
    }  # fmt: skip
    assert (planned["added"], planned["replaced"]) == (2, 1)  # it cannot say that none.png is no image
    assert done["skipped"] == [[str(other / "none.png"), "not an image"]]
    line = semcut("add", "index", "other", cwd=tmp_path).stdout
    assert "0 images added, 0 replaced, 3 known already, 1 skipped; 25 records" in line
    with Connector.open(index) as connector:
        assert connector.labels(("a",)).labels.tolist()[-1] == 0
        more = connector.add_files([other / "a" / "same.png"])
        assert (more.added, more.known) == (1, 0)  # copies are added, unless the caller asks for none
        more = connector.add_files([other / "a" / "twice.png"], copies=False)
        assert (more.added, more.known) == (0, 1)
    for wrong in ("none", "photos/notes.txt"):
        assert len(semcut("add", "index", wrong, cwd=tmp_path, status=1).stderr.splitlines()) == 1


def test_adding_an_archive(index: Path, tmp_path: Path, digits: ImageSet) -> None:
    (tmp_path / "more" / "7").mkdir(parents=True)
    shutil.copy(digits.files[100], tmp_path / "more" / "7" / "x.png")
    shutil.make_archive(str(tmp_path / "more"), "tar", tmp_path / "more")
    for added in (1, 0):
        assert json.loads(semcut("add", "index", "more.tar", "--json", cwd=tmp_path).stdout)["added"] == added


@pytest.mark.parametrize("command", ["add", "sync", "index"])
def test_an_interrupted_command_is_marked_and_completed_by_the_same(
    command: str, index: Path, photos: Path, model: Checkpoint, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semcut.connector.retrieval import file_records

    monkeypatch.setattr(file_records, "RECORDS_PER_COMMIT", 1)
    source = photos if command == "sync" else photos.parent / "other"
    (source / "a").mkdir(parents=True, exist_ok=True)
    for number in range(300):
        shutil.copy(digits.files[100 + number], source / "a" / f"new-{number}.png")
    name = "fresh" if command == "index" else "index"
    arguments = {
        "add": ["add", "index", "other"], "sync": ["sync", "index"],
        "index": ["index", "other", "--model", model.path, "--out", "fresh"],
    }[command]  # fmt: skip
    put = file_records._put

    def interrupted(*given: object) -> None:
        put(*given)  # type: ignore[arg-type]
        monkeypatch.setattr(file_records, "_put", stop)

    def stop(*given: object) -> None:
        raise OSError(5, "as if a disk had failed")

    monkeypatch.setattr(file_records, "_put", interrupted)
    semcut(*arguments, cwd=index.parent, status=1)
    monkeypatch.setattr(file_records, "_put", put)
    for asked in (["verify", name], ["info", name], ["search", name, digits.files[0]]):
        done = semcut(*asked, cwd=index.parent, status=None)
        assert "is unfinished" in " ".join((done.stdout + done.stderr).split()), asked
    if command == "add":  # going through the folder of the index does not add what is missing
        sync(index)
        assert (index / MARK).exists()
    semcut(*arguments, cwd=index.parent)
    assert semcut("verify", name, cwd=index.parent).stdout == f"{name} is sound.\n"
    with FaissIndex.open(index.parent / name, engine="faiss") as opened:
        assert len(opened) == (300 if command == "index" else 324)


def test_moved_images_and_a_moved_network_are_found(
    index: Path, photos: Path, model: Checkpoint, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    shutil.copytree(model.path, tmp_path / "net")
    semcut("relocate", "index", "--model", "net", cwd=tmp_path)
    place.mkdir()
    for name in ("index", "net", "photos"):
        (tmp_path / name).rename(place / name)
    done = semcut("relocate", "index", "--images", "photos", "--json", cwd=place)
    assert json.loads(done.stdout) == {"index": "index", "looked_for": 24, "missing": 0}
    with Connector.open(place / "index") as connector:  # the network was moved with it
        (hits,) = connector.search([place / "photos" / "a" / "00.png"], k=1, cutoff=0)
        assert hits[0].uri == str(place / "photos" / "a" / "00.png")
        assert connector.roots == (str(place / "photos"),)
        assert connector.labels(("a", "b", "c")).labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert figures(sync(place / "index")) == {"unchanged": 24}
    (place / "net").rename(place / "other net")
    done = semcut("search", "index", "photos/a/00.png", cwd=place, status=1)
    assert "--model" in done.stderr
    assert "semcut relocate" in done.stderr
    semcut("relocate", "index", "--model", "other net", cwd=place)
    semcut("search", "index", "photos/a/00.png", cwd=place)
    (place / "photos" / "a" / "00.png").unlink()
    line = semcut("relocate", "index", "--images", "photos", cwd=place).stdout
    assert "1 of 24 that were looked for are not there, such as" in line


def test_a_wrong_relocation_is_one_sentence(
    index: Path, photos: Path, model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    before = (index / "connector.json").read_bytes()
    edited = shutil.copytree(model.path, tmp_path / "edited")
    text = json.loads((edited / "model.json").read_text())
    text["architecture"]["image_size"] = 24
    text["sha256"] = encoding_digest(text)
    (edited / "model.json").write_text(json.dumps(text))
    for arguments, message in (
        (["--images", "empty"], f"none of 24 images of index is in {tmp_path / 'empty'}, such as"),
        (["--images", "none"], "none is no folder"),
        (["--images", "photos/notes.txt"], "is no folder"),
        (["--model", "none"], "none"),
        (["--model", "edited", "--images", "photos"], "did not make this index"),
    ):
        done = semcut("relocate", "index", *arguments, cwd=tmp_path, status=1)
        assert message in " ".join(done.stderr.split())
        assert len(done.stderr.splitlines()) == 1
    assert (index / "connector.json").read_bytes() == before
    semcut("relocate", "index", cwd=tmp_path, status=2)
    with Connector.create(tmp_path / "old", model.path) as made:
        made.add_files(digits.files[:2])
    assert "absolute paths" in semcut("relocate", "old", "--images", "photos", cwd=tmp_path, status=1).stderr


def test_an_older_index_is_kept_in_step_too(photos: Path, model: Checkpoint, tmp_path: Path, index: Path) -> None:
    """It has absolute uris, and nothing is known of its files, so all count as changed once."""
    with Connector.create(tmp_path / "old", model.path) as made:
        made.add_files([photos / "notes.txt", *(photos / uri for uri in content(index))])
    link = json.loads((tmp_path / "old" / "connector.json").read_text())
    (tmp_path / "old" / "connector.json").write_text(json.dumps({**link, "roots": [str(photos)]}))
    (tmp_path / "old" / FACTS).unlink()
    assert figures(sync(tmp_path / "old")) == {"replaced": 24, "encoded": 24}
    assert figures(sync(tmp_path / "old")) == {"unchanged": 24}
    assert content(tmp_path / "old") == {str(photos / uri): found for uri, found in content(index).items()}


def test_an_index_without_a_folder_asks_for_one(model: Checkpoint, digits: ImageSet, tmp_path: Path) -> None:
    with Connector.create(tmp_path / "index", model.path) as made:
        made.add_files(digits.files[:2])
        with pytest.raises(DataError, match="give one"):
            made.sync()
    assert "give FOLDER" in semcut("sync", "index", cwd=tmp_path, status=1).stderr


def test_an_index_in_memory_is_kept_in_step(photos: Path, model: Checkpoint, digits: ImageSet) -> None:
    with Connector.create(None, model.path, roots=[photos]) as connector:
        assert connector.sync().added == 24
        (photos / "a" / "00.png").rename(photos / "b" / "00.png")
        done = connector.sync()
        assert (done.moved, done.encoded, done.unchanged) == (1, 0, 23)
        shutil.copy(digits.files[100], photos / "b" / "00.png")
        assert connector.add_files([photos / "b" / "00.png"]).replaced == 1
        assert connector.sync().unchanged == 24


def test_threads_look_up_records_while_one_syncs(index: Path, photos: Path, digits: ImageSet) -> None:
    errors: list[BaseException] = []
    with Connector.open(index) as connector:
        stop = threading.Event()

        def look() -> None:
            try:
                while not stop.is_set():
                    assert connector.ids_of([photos / "b" / "01.png"]).tolist() == [9]
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=look)
        thread.start()
        for number in range(8):
            shutil.copy(digits.files[100 + number], photos / "a" / f"{100 + number}.png")
            connector.sync()
        stop.set()
        thread.join()
    assert errors == []


def test_two_threads_that_add_do_it_one_after_the_other(index: Path, photos: Path, digits: ImageSet) -> None:
    """Neither takes the ids of the other, nor replaces what a program adds with ids of its own meanwhile."""
    with Connector.open(index) as connector:
        parts = [digits.files[100:140], digits.files[140:180]]
        threads = [threading.Thread(target=connector.add_files, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(connector.ids_of(digits.files[100:180]).tolist()) == list(range(25, 105))
        foreign = dataclasses.replace(connector.index.get([1]), ids=np.array([105]), uris=["x"], any_mass=True)
        whole = connector.encoder.encode_files

        def encode(*arguments: object) -> object:
            connector.index.add(foreign)
            return whole(*arguments)  # type: ignore[arg-type]

        connector.encoder.encode_files = encode  # type: ignore[assignment, method-assign]
        with pytest.raises(DuplicateIdError):
            connector.add_files(digits.files[200:210])
        assert connector.index.uris([105]) == ["x"]


def test_removed_and_compacted_records_are_added_again(index: Path, photos: Path) -> None:
    semcut("remove", "index", "--uri", "a/*", "--uri", "b/22.png", cwd=index.parent)
    semcut("compact", "index", cwd=index.parent)
    assert figures(sync(index)) == {"added": 9, "unchanged": 15, "encoded": 9}
    assert figures(sync(index)) == {"unchanged": 24}


def test_a_folder_that_is_named_from_below_is_the_same_folder(
    photos: Path, model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    semcut("index", "../../photos", "--model", model.path, "--out", tmp_path / "index", cwd=photos / "a")
    assert "a/00.png" in content(tmp_path / "index")
    (tmp_path / "link").symlink_to(photos)
    for folder in ("photos", "./photos/", "link", "photos/../photos", photos):
        assert figures(sync(tmp_path / "index", folder)) == {"unchanged": 24}


@pytest.mark.parametrize("moment", ["void", "upsert", "note"])
def test_what_is_known_is_true_if_the_process_ends_around_a_change(
    moment: str, index: Path, photos: Path, digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the file then gets back the content and the time that it had, or its content turns up elsewhere."""
    before, file = content(index), photos / "a" / "00.png"
    old = file.rename(photos.parent / "old")
    shutil.copy(digits.files[-1], file)
    os.utime(file, ns=(LONG_AGO, LONG_AGO - 1))

    def end(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    where = {"void": file_facts.KnownFiles, "upsert": FaissIndex, "note": file_facts.KnownFiles}[moment]
    with monkeypatch.context() as patch, Connector.open(index) as connector:
        patch.setattr(where, moment, end)
        with pytest.raises(KeyboardInterrupt):
            connector.sync()
    copy = Path(shutil.copytree(photos, photos.parent / "copy"))
    shutil.copytree(index, photos.parent / "index-2")
    semcut("relocate", "index-2", "--images", "copy", cwd=photos.parent)
    changed = content_of_unfinished(index)["a/00.png"]
    assert (changed == before["a/00.png"]) == (moment != "note")
    old.rename(file)
    shutil.move(copy / "a" / "00.png", copy / "a" / "new.png")
    shutil.copy2(file, copy / "b" / "00.png")
    sync(index)
    assert content(index) == before
    sync(photos.parent / "index-2")
    after = content(photos.parent / "index-2")
    assert after["b/00.png"][1] == before["a/00.png"][1]
    assert after["a/new.png"][1] not in {found[1] for found in before.values()}


def content_of_unfinished(index: Path) -> dict[str, tuple[int, bytes]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return content(index)


def test_training_images_that_were_left_out_stay_left_out(
    photos: Path, model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    trained = digits.sample(600).files[0]
    shutil.copy(trained, photos / "a" / "trained.png")
    settle(photos)
    arguments = ["index", "photos", "--model", model.path, "--out", "index", "--exclude-training", "--json"]
    records = json.loads(semcut(*arguments, cwd=tmp_path).stdout)["added"]
    assert records < 25
    index = tmp_path / "index"
    done = sync(index)
    assert figures(done) == {"unchanged": records}
    assert [str(photos / "a" / "trained.png"), "the network was trained on it"] in done["skipped"]
    new = next(file for file in digits.files if file not in set(digits.sample(600).files))
    shutil.copy(new, photos / "a" / "trained.png")
    assert figures(sync(index))["added"] == 1


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("why", ["killed", "no memory", "permission"])
def test_a_picture_of_which_no_decoder_has_judged_the_bytes_keeps_its_record_and_is_tried_again(
    why: str, index: Path, photos: Path, digits: ImageSet, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    before = content(index)
    for name, file in zip(("a/00.png", "a/new.png"), digits.files[-2:], strict=True):
        shutil.copy(file, photos / name)
    settle(photos)

    def kill(self: DecodingPool, *arguments: object, **named: object) -> Answer:
        answer = not_decoded("its decoder has ended (SIGKILL)")
        return answer if why == "killed" else answer._replace(outcome=Outcome.MORE_MEMORY)

    def forbid(*arguments: object, **named: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch, Connector.open(index) as connector:
        patch.setattr(DecodingPool, "ask", kill)
        if why == "permission":
            patch.setattr(images, "open_binary", forbid)
        done = connector.sync(dry_run=dry_run)
    assert (done.added, done.replaced, done.removed) == (0, 0, 0)
    assert content(index) == before
    done = sync(index)
    assert (done["added"], done["replaced"], done["removed"]) == (1, 1, 0)


def test_a_picture_that_was_moved_out_of_the_folder_and_added_there_is_not_lost(
    index: Path, photos: Path, digits: ImageSet, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (photos / "a" / "00.png").rename(other / "moved.png")
    shutil.copy2(photos / "b" / "01.png", other / "changed.png")
    shutil.copy(digits.files[-1], photos / "b" / "01.png")
    shutil.copy2(photos / "c" / "02.png", other / "touched.png")
    os.utime(photos / "c" / "02.png", ns=(LONG_AGO, LONG_AGO + 10**9))
    shutil.copy2(photos / "a" / "03.png", other / "copy.png")
    with Connector.open(index) as connector:
        added = connector.add_files(sorted(other.iterdir()), copies=False)
        assert (added.added, added.known) == (2, 2)
        connector.sync()
        assert (connector.ids_of([other / "moved.png", other / "changed.png"]) >= 0).all()


@pytest.mark.parametrize("dry_run", [False, True])
def test_training_images_stay_out_by_their_content_wherever_they_are(
    dry_run: bool, photos: Path, model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    first, second, third = digits.sample(600).files[:3]
    shutil.copy(first, photos / "a" / "trained.png")
    settle(photos)
    arguments = ["index", "photos", "--model", model.path, "--out", "index", "--exclude-training", "--json"]
    records = json.loads(semcut(*arguments, cwd=tmp_path).stdout)["added"]
    os.utime(photos / "a" / "trained.png", ns=(LONG_AGO, LONG_AGO + 10**9))  # touched
    shutil.copy(second, photos / "b" / "later.png")
    (photos / "b" / "link.png").symlink_to(third)
    replaced = sorted(content(tmp_path / "index"))[0]
    shutil.copy(third, photos / replaced)
    new = next(file for file in digits.files if file not in set(digits.sample(600).files))
    (photos / "c" / "new.png").write_bytes(Path(new).read_bytes() + b"not compared with it")
    settle(photos)
    done = sync(tmp_path / "index", *(["--dry-run"] if dry_run else []))
    assert figures(done) == {"added": 1, "removed": 1, "unchanged": records - 1, "encoded": 1}
    reasons = {Path(name).name: reason for name, reason in done["skipped"]}
    names = {"trained.png", "later.png", "link.png", Path(replaced).name}
    assert {name for name, reason in reasons.items() if reason == "the network was trained on it"} >= names
    if not dry_run:
        assert figures(sync(tmp_path / "index")) == {"unchanged": records}


def test_a_network_that_lost_its_record_lets_no_training_image_in(
    photos: Path, model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    shutil.copytree(model.path, tmp_path / "model")
    semcut("index", "photos", "--model", "model", "--out", "index", "--exclude-training", cwd=tmp_path)
    before = content(tmp_path / "index")
    (tmp_path / "model" / "training-images.safetensors").unlink()
    shutil.copy(digits.sample(600).files[0], photos / "a" / "trained.png")
    assert "does not record the contents" in semcut("sync", "index", cwd=tmp_path, status=1).stderr
    assert content(tmp_path / "index") == before


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "the folder above"])
@pytest.mark.parametrize("added", [False, True])
def test_a_copy_of_a_folder_that_is_not_mounted_is_known(left: str, added: bool, index: Path, photos: Path) -> None:
    home = photos.parent / "home"
    if added:  # of a folder that was added, too, whose uris are absolute
        away = photos.parent / "usb" / "more"
        shutil.copytree(photos, away, ignore=shutil.ignore_patterns("a"))
        for number, file in enumerate(sorted(away.rglob("*.png"))):
            file.write_bytes(file.read_bytes() + bytes(number + 1))
        settle(away)
        semcut("add", "index", away, cwd=photos.parent)
        assert len(content(index)) == 40
    else:
        away = photos
    shutil.copytree(away, home)
    away.rename(away.parent / "elsewhere")
    if left == "an empty folder":
        away.mkdir()
    elif left == "nothing" and added:
        (away.parent / "elsewhere").rename(photos.parent / "elsewhere")
        away.parent.rmdir()
    before = content(index)
    semcut("add", "index", "home", cwd=photos.parent)
    assert content(index) == before


@pytest.mark.parametrize("readable", [True, False])
def test_a_file_keeps_one_record_and_that_is_the_true_one(
    index: Path, photos: Path, digits: ImageSet, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    before = content(index)["a/00.png"][0]
    copy = Path(shutil.copytree(photos, photos.parent / "copy"))
    shutil.copy(digits.files[-1], copy / "a" / "00.png")
    settle(copy)
    semcut("add", "index", "copy", cwd=photos.parent)
    (true,) = (found[1] for uri, found in content(index).items() if uri == str(copy / "a" / "00.png"))
    semcut("relocate", "index", "--images", "copy", cwd=photos.parent)
    if not readable:
        monkeypatch.setattr(DecodingPool, "ask", lambda *arguments, **named: not_decoded("killed"))
        with Connector.open(index) as connector:
            done = connector.sync()
            assert (done.removed, done.others, len(connector.index)) == (0, 2, 25)
        monkeypatch.undo()
    planned = sync(index, "--dry-run")
    done = sync(index)
    assert figures(planned) == figures(done) == {"replaced": 1, "removed": 1, "unchanged": 23, "encoded": 1}
    assert content(index)["a/00.png"] == (before, true)
    assert len(content(index)) == 24
    assert figures(sync(index)) == {"unchanged": 24}


@pytest.mark.parametrize(
    "case", ["other files", "times to come", "killed", "touched", "moved", "relocated", "nothing known", "imported"]
)
def test_training_images_that_were_left_out_never_come_back(
    case: str, photos: Path, model: Checkpoint, digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = photos / "a" / "trained.png"
    shutil.copy(digits.sample(600).files[0], trained)
    settle(photos)
    if case == "times to come":
        os.utime(trained, ns=(LONG_AGO, time.time_ns() + 10**15))
    arguments = ["index", "photos", "--model", model.path, "--out", "index", "--exclude-training"]
    with monkeypatch.context() as patch:
        if case == "killed":
            patch.setattr("semcut.connector.retrieval.file_records._put", lambda *arguments: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                semcut(*arguments, cwd=tmp_path)
        else:
            semcut(*arguments, cwd=tmp_path)
    if case == "other files":  # a line that does not count has the file written anew by a command that asks for others
        with (tmp_path / "index" / FACTS).open("a") as stream:
            stream.write("torn\n")
        with Connector.open(tmp_path / "index") as connector:
            connector.add_files([next(file for file in digits.files if file not in set(digits.sample(600).files))])
    if case == "touched":
        os.utime(trained, ns=(LONG_AGO, LONG_AGO + 10**9))
    elif case == "moved":
        trained.rename(photos / "b" / "trained.png")
    elif case == "relocated":
        shutil.copytree(photos, tmp_path / "copy", copy_function=shutil.copy)
        semcut("relocate", "index", "--images", "copy", cwd=tmp_path)
    elif case == "nothing known":
        (tmp_path / "index" / FACTS).unlink()
    elif case == "imported":
        pytest.importorskip("pyarrow")
        semcut("export", "index", "index.parquet", cwd=tmp_path)
        shutil.rmtree(tmp_path / "index")
        semcut("import", "index.parquet", "--out", "index", cwd=tmp_path)
    trained_on = model.training_digests().all
    expected = {file.name for file in photos.rglob("*.png") if digest_of(str(file)) not in trained_on}
    for _ in range(2):
        done = sync(tmp_path / "index")
        assert {Path(uri).name for uri in content(tmp_path / "index") if not uri.startswith("/")} == expected
    skipped = [file for file, reason in done["skipped"] if reason == TRAINED]  # type: ignore[attr-defined]
    assert len(skipped) == 25 - len(expected) > 0


def test_a_training_image_that_was_added_keeps_its_record_when_it_is_moved(
    photos: Path, model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    trained = photos / "a" / "trained.png"
    shutil.copy(digits.sample(600).files[0], trained)
    settle(photos)
    semcut("index", "photos", "--model", model.path, "--out", "index", "--exclude-training", cwd=tmp_path)
    semcut("add", "index", trained, cwd=tmp_path)
    before = content(tmp_path / "index")["a/trained.png"]
    os.utime(trained, ns=(LONG_AGO, LONG_AGO + 10**9))
    assert sync(tmp_path / "index")["touched"] == 1
    trained.rename(photos / "b" / "trained.png")
    assert sync(tmp_path / "index")["moved"] == 1
    assert content(tmp_path / "index")["b/trained.png"] == before
    (tmp_path / "index" / FACTS).unlink()  # then nothing says that it was added, and is no file that has become one
    planned, done = sync(tmp_path / "index", "--dry-run"), sync(tmp_path / "index")
    assert figures(planned) == figures(done)
    assert done["removed"] == 1
    assert "b/trained.png" not in content(tmp_path / "index")
