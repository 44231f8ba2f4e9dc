"""An index whose making was interrupted is called unfinished by every command and in Python."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from semcut.connector import Connector
from semcut.connector.data.model_file import WEIGHTS
from semcut.connector.data.sources import ImageSet
from semcut.connector.explore.open_index import open_stored
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval import file_records, image_index
from semcut.connector.retrieval.model_link import write_link
from semcut.indexes import DataError, FaissIndex, IndexExistsError, LockedError
from semcut.indexes.errors import SemcutWarning
from semcut.indexes.storage.directory import MARK, lock_new_directory
from semcut.indexes.unfinished import adding, is_marked, unfinished_works
from tests.command import semcut

SENTENCE = "is unfinished: it has 256 of 1,442 records, because the command that fills it was interrupted"

KILLED = """
import os, signal, sys
from pathlib import Path
from semcut.connector.cli.index_command import index_with_progress
from semcut.connector.cli import index_command
from semcut.connector.retrieval import file_records
from contextlib import contextmanager

file_records.RECORDS_PER_COMMIT = 100

@contextmanager
def progress_bar(work):
    yield lambda done, total: done < 256 or os.kill(os.getpid(), signal.SIGKILL)

index_command.progress_bar = progress_bar
files = Path(sys.argv[1]).read_text().splitlines()
index_with_progress(files, Path(sys.argv[2]), Path(sys.argv[3]))
"""


def interrupt(error: BaseException) -> Callable[[int, int], None]:
    def report(done: int, total: int, task: str = "") -> None:
        if done >= 256:
            raise error

    return report


def interrupt_at(count: int) -> Callable[[int, int], None]:
    def report(done: int, total: int, task: str = "") -> None:
        if done >= count:
            raise KeyboardInterrupt

    return report


@pytest.fixture
def unfinished(model: Checkpoint, digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(file_records, "RECORDS_PER_COMMIT", 100)
    with Connector.create(tmp_path / "index", model.path) as connector, pytest.raises(KeyboardInterrupt):
        connector.add_files(digits.files, progress=interrupt(KeyboardInterrupt()))
    return tmp_path / "index"


def test_a_command_that_is_killed_leaves_an_unfinished_index(
    model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    (tmp_path / "files").write_text("\n".join(digits.files))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "files", model.path, tmp_path / "index"], capture_output=True
    )
    assert done.returncode == -signal.SIGKILL
    assert SENTENCE in " ".join(semcut("verify", "index", cwd=tmp_path, status=1).stdout.split())


def test_every_command_says_in_one_line_that_an_index_is_unfinished(unfinished: Path, digits: ImageSet) -> None:
    place = unfinished.parent
    assert json.loads(semcut("info", "index", "--json", cwd=place).stdout)["unfinished"].startswith(f"index {SENTENCE}")
    assert "unfinished" in semcut("info", "index", cwd=place).stdout
    (line,) = semcut("verify", "index", cwd=place, status=1).stdout.splitlines()
    assert SENTENCE in line
    assert SENTENCE in json.loads(semcut("verify", "index", "--json", cwd=place, status=1).stdout)[0]["what"]
    for arguments in (["search", "index", digits.files[0]], ["evaluate", "index", "digits/test", "--limit", "20"]):
        (line,) = semcut(*arguments, cwd=place).stderr.splitlines()
        assert line.startswith(f"semcut: index {SENTENCE}")
    with pytest.warns(SemcutWarning, match=SENTENCE):
        open_stored(unfinished, None, "cpu", print).index.close()
    with pytest.warns(SemcutWarning, match=SENTENCE) as caught:
        FaissIndex.open(unfinished).close()
    assert caught[0].filename == __file__
    assert SENTENCE in semcut("backup", "index", "copy", cwd=place).stderr
    assert SENTENCE in semcut("verify", "copy", cwd=place, status=1).stdout
    assert SENTENCE in semcut("restore", "copy", "restored", cwd=place).stderr
    with pytest.warns(SemcutWarning, match=SENTENCE):
        Connector.open(unfinished).close()


def test_the_command_says_what_to_do_about_an_unfinished_index(
    unfinished: Path, model: Checkpoint, digits: ImageSet
) -> None:
    for _ in range(2):
        with pytest.raises(IndexExistsError, match=f"{SENTENCE}.*run the same command again"):
            Connector.create(unfinished, model.path)
    shutil.rmtree(unfinished)
    with Connector.create(unfinished, model.path) as connector:
        connector.add_files(digits.files)
    assert semcut("verify", "index", cwd=unfinished.parent).stdout == "index is sound.\n"
    with pytest.raises(IndexExistsError, match="exists already"):
        Connector.create(unfinished, model.path)


def test_the_same_command_goes_on_with_an_unfinished_index(
    model: Checkpoint, digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_records, "RECORDS_PER_COMMIT", 100)
    folder = tmp_path / "digits"
    for file in (*digits.files[:300], *digits.files[-100:]):
        copy = folder / Path(file).parent.name / Path(file).name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    (folder / "0" / "broken.png").write_text("no image")
    arguments = ["index", folder, "--model", model.path, "--json", "--out"]
    whole = json.loads(semcut(*arguments, "whole", cwd=tmp_path).stdout)
    with Connector.open(tmp_path / "whole") as connector:
        uris, roots = connector.paths(connector.index.ids()), connector.roots
    for done in (0, 100, 400):
        with Connector.create(tmp_path / "index", model.path, roots=roots) as connector:
            if done:
                with pytest.raises(KeyboardInterrupt):
                    connector.add_files([*uris[:done], str(folder / "gone.png")], progress=interrupt_at(done))
        again = semcut(*arguments, "index", cwd=tmp_path)
        assert f"index is unfinished, with {done} records: going on with the other files" in again.stderr
        assert json.loads(again.stdout) == {"index": "index", "added": 400 - done, "skipped": whole["skipped"]}
        assert semcut("verify", "index", cwd=tmp_path).stdout == "index is sound.\n"
        with Connector.open(tmp_path / "index") as connector:
            assert sorted(connector.paths(connector.index.ids())) == sorted(uris)
        assert "exists already" in semcut(*arguments, "index", cwd=tmp_path, status=1).stderr
        shutil.rmtree(tmp_path / "index")


@pytest.mark.parametrize("other", ["network", "roots"])
def test_an_unfinished_index_of_another_command_stays_as_it_is(
    other: str, model: Checkpoint, digits: ImageSet, unfinished: Path, tmp_path: Path
) -> None:
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    shutil.copy(digits.files[0], tmp_path / "pictures" / "a")
    network = model.path
    if other == "network":
        write_link(unfinished, model=model.path, sha256="0" * 64, head="paper", binarisation="x", roots=["pictures"])
    before = {file: file.read_bytes() for file in unfinished.rglob("*") if file.is_file()}
    done = semcut("index", "pictures", "--model", network, "--out", "index", cwd=tmp_path, status=1)
    assert f"{SENTENCE}" in done.stderr
    assert {file: file.read_bytes() for file in unfinished.rglob("*") if file.is_file()} == before


def test_an_index_without_records_is_called_that(model: Checkpoint, tmp_path: Path) -> None:
    Connector.create(tmp_path / "index", model.path).close()
    with pytest.warns(SemcutWarning, match="index has no records"):
        Connector.open(tmp_path / "index").close()


def test_commands_say_one_thing_about_an_index_without_records(
    model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    Connector.create(tmp_path / "index", model.path).close()
    done = semcut("search", "index", digits.files[0], cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("", "semcut: index has no records\n")
    done = semcut("evaluate", "index", "digits/test", "--limit", "20", cwd=tmp_path, status=1)
    assert "the index has no records: there is nothing to evaluate" in done.stderr
    assert "folders" not in done.stderr


def test_files_of_which_none_can_be_read_give_no_index(model: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "photos" / "cat" / f"{number}.png").write_text("no image")
    done = semcut("index", "photos", "--model", model.path, "--out", "index", cwd=tmp_path, status=1)
    assert "none of the 3 files can be read, so there is no index index" in " ".join(done.stderr.split())
    assert [at.name for at in tmp_path.iterdir()] == ["photos"]


def test_a_disk_that_refuses_the_link_leaves_no_index(
    model: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_index, "write_link", full)
    with pytest.raises(OSError, match="No space"):
        Connector.create(tmp_path / "index", model.path)
    assert list(tmp_path.iterdir()) == []


KILLED_EARLY = """
import os, shutil, signal, sys
from pathlib import Path
from semcut.connector import Connector
from semcut.connector.models import checkpoint
from semcut.connector.retrieval import image_index

def die(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)

def die_half(read, write):
    write.write(read.read(100))
    write.flush()
    die()

rename = os.rename
if sys.argv[1] == "the catalogue":
    os.rename = lambda source, target: die() if Path(target).name == "catalogue.sqlite" else rename(source, target)
elif sys.argv[1] == "the link":
    image_index.write_link = die
else:
    shutil.copyfileobj = die_half
Connector.create("out", sys.argv[2], keep_network=sys.argv[3] == "kept", engine="faiss")
"""


@pytest.mark.parametrize(
    ("before", "network"),
    [("the link", ""), ("the catalogue", ""), ("the network", "kept"), ("the link", "kept"), ("the catalogue", "kept")],
)
def test_a_creation_that_was_killed_before_its_end_counts_as_none(
    before: str, network: str, model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    out, images = tmp_path / "out", Path(digits.files[0]).parents[1]
    command = [sys.executable, "-c", KILLED_EARLY, before, str(model.path), network]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == -signal.SIGKILL
    left = sorted(file.name for file in out.iterdir())
    assert "catalogue.new" in left
    assert ("connector.json" in left) == (before == "the catalogue")
    assert any(name.startswith(WEIGHTS) for name in left) == (network == "kept")
    done = semcut("info", "out", cwd=tmp_path, status=1)
    assert "creation was interrupted: create it there again" in done.stderr
    (out / "thesis.txt").write_text("mine")
    done = semcut("index", images, "--model", model.path, "--out", "out", cwd=tmp_path, status=1)
    assert "there belongs to no index: move it away" in " ".join(done.stderr.split())
    assert sorted(file.name for file in out.iterdir()) == sorted([*left, "thesis.txt"])
    (out / "thesis.txt").unlink()
    semcut("index", images, "--model", model.path, "--out", "out", cwd=tmp_path)
    with Connector.open(out) as connector:
        assert len(connector.index) == len(digits.files)
    names = {file.name.partition("-")[0] for file in out.iterdir()}
    assert names == {"catalogue.sqlite", "connector.json", "files.jsonl", "generation", "lock"}


def test_a_creation_that_is_at_work_is_not_cleared_by_another(model: Checkpoint, tmp_path: Path) -> None:
    lock = lock_new_directory(tmp_path / "out")
    for name in ("catalogue.new", "connector.json"):
        (tmp_path / "out" / name).touch()
    with pytest.raises(LockedError, match="is being written to by"):
        Connector.create(tmp_path / "out", model.path)
    assert (tmp_path / "out" / "connector.json").exists()
    lock.release()
    Connector.create(tmp_path / "out", model.path, keep_network=True).close()
    with pytest.raises(IndexExistsError):
        Connector.create(tmp_path / "out", model.path)
    with pytest.warns(SemcutWarning, match="has no records"):
        Connector.open(tmp_path / "out").close()


def test_an_unfinished_index_is_no_data_of_a_benchmark(unfinished: Path, tmp_path: Path) -> None:
    from semcut.connector.benchmark.datasets.from_indexes import dataset_from_indexes

    with (
        pytest.warns(SemcutWarning, match=SENTENCE),
        pytest.raises(DataError, match=f"{SENTENCE}.*index the images again"),
    ):
        dataset_from_indexes(tmp_path / "data", unfinished, unfinished, name="digits")


def test_an_index_that_is_not_made_leaves_what_was_in_its_directory(model: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_text("no image")
    album = tmp_path / "album"
    (album / "trip").mkdir(parents=True)
    for name in ("trip/photo.jpg", "thesis.txt", "catalogue.new"):
        (album / name).touch()
    done = semcut("index", "photos", "--model", model.path, "--out", "album", cwd=tmp_path, status=1)
    assert "there belongs to no index: move it away" in " ".join(done.stderr.split())
    assert sorted(file.name for file in album.rglob("*")) == ["catalogue.new", "photo.jpg", "thesis.txt", "trip"]
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "catalogue.new").touch()
    for place, error, message in (
        (album, IndexExistsError, "there belongs to no index: move it away"),
        (tmp_path / "begun", DataError, "expected at most 65,536"),
    ):
        with pytest.raises(error, match=message):
            Connector.create(place, model.path, roots=[f"/{'long' * 50}/{number}" for number in range(400)])
    assert sorted(file.name for file in album.rglob("*")) == ["catalogue.new", "photo.jpg", "thesis.txt", "trip"]
    assert not (tmp_path / "begun" / "catalogue.new").exists()


def test_the_command_that_made_an_index_does_not_end_the_mark_of_another(
    model: Checkpoint, digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, files in (("photos", digits.files[:4]), ("more", digits.files[4:8])):
        (tmp_path / folder / "a").mkdir(parents=True)
        for file in files:
            shutil.copy(file, tmp_path / folder / "a")
    arguments = ["index", "photos", "--model", model.path, "--out", "index"]
    semcut(*arguments, cwd=tmp_path)
    more = sorted(map(str, (tmp_path / "more" / "a").iterdir()))

    def call(work: str, progress: Callable[[int, int], None] | None = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SemcutWarning)
            connector = Connector.open(tmp_path / "index")
        with connector:
            if work == "add":
                connector.add_files(more, progress=progress)
            else:
                connector.sync(progress=progress)

    for work in ("add", "sync"):
        shutil.copy(digits.files[-1], tmp_path / "photos" / "a" / "new.png")
        with pytest.raises(KeyboardInterrupt):
            call(work, interrupt_at(1))
        said = " ".join(semcut(*arguments, cwd=tmp_path, status=1).stderr.split())
        assert ("`semcut sync index` was interrupted" if work == "sync" else "such as `semcut add`") in said
        assert is_marked(tmp_path / "index")
        call(work)
        assert not is_marked(tmp_path / "index")


def test_each_of_several_interrupted_works_is_done_again_by_itself(tmp_path: Path) -> None:
    def work(of: str, *, stop: bool = False, makes: bool = False, new: bool = False) -> bool:
        with suppress(KeyboardInterrupt), adding(tmp_path, 1, 0, of=of, makes=makes, new=new):
            if stop:
                raise KeyboardInterrupt
        return is_marked(tmp_path)

    for of in "abc":
        assert work(of, stop=True, new=True)
    assert unfinished_works(tmp_path) == (("a", "b", "c"), True)
    assert work("d")
    assert work("b")
    assert work("a with other files", makes=True)
    assert unfinished_works(tmp_path) == (("c",), False)
    assert work("a with other files", makes=True)
    assert not work("c")
    for of in "abcd":
        work(of, stop=True)
    assert all(map(work, "abcd"))


def test_the_mark_of_an_earlier_version_says_by_its_numbers_what_makes_the_index(tmp_path: Path) -> None:
    mark = {"expected": 3, "before": 0, "of": "a+b", "outside": False}
    for before in (0, 2):
        (tmp_path / MARK).write_text(json.dumps(mark | {"before": before}))
        assert unfinished_works(tmp_path) == (("a", "b"), before == 0)


def test_making_an_index_does_not_end_what_was_added_after_it_was_emptied(
    model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    for folder, files in (("photos", digits.files[:6]), ("more", digits.files[6:12])):
        (tmp_path / folder / "a").mkdir(parents=True)
        for file in files:
            shutil.copy(file, tmp_path / folder / "a")
    arguments = ["index", "photos", "--model", model.path, "--out", "index"]
    semcut(*arguments, cwd=tmp_path)
    semcut("remove", "index", "--uri", "*", cwd=tmp_path)
    more = sorted(map(str, (tmp_path / "more" / "a").iterdir()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SemcutWarning)
        with Connector.open(tmp_path / "index") as connector, pytest.raises(KeyboardInterrupt):
            connector.add_files(more, progress=interrupt_at(1))
        semcut(*arguments, cwd=tmp_path, status=1)
        assert is_marked(tmp_path / "index")
        with Connector.open(tmp_path / "index") as connector:
            connector.add_files(more)
    assert not is_marked(tmp_path / "index")


def test_an_interrupted_sync_is_done_again_after_the_folder_was_moved(
    model: Checkpoint, digits: ImageSet, tmp_path: Path
) -> None:
    for folder, files in (("photos", digits.files[:6]), ("more", digits.files[6:12])):
        (tmp_path / folder / "a").mkdir(parents=True)
        for file in files:
            shutil.copy(file, tmp_path / folder / "a")
    semcut("index", "photos", "--model", model.path, "--out", "index", cwd=tmp_path)
    shutil.copy(digits.files[-1], tmp_path / "photos" / "a" / "new.png")
    more = sorted(map(str, (tmp_path / "more" / "a").iterdir()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SemcutWarning)
        with Connector.open(tmp_path / "index") as connector:
            with pytest.raises(KeyboardInterrupt):
                connector.add_files(more, progress=interrupt_at(1))
            with pytest.raises(KeyboardInterrupt):
                connector.sync(progress=interrupt_at(1))
        (tmp_path / "photos").rename(tmp_path / "moved")
        semcut("relocate", "index", "--images", "moved", cwd=tmp_path)
        with Connector.open(tmp_path / "index") as connector:
            connector.sync()
            assert is_marked(tmp_path / "index")
            connector.add_files(more)
    assert not is_marked(tmp_path / "index")
