"""Directories of runs that come from someone else, or are none: nothing in them is deleted or written through links."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from semcut.connector.benchmark.datasets.dataset_tasks import DatasetTask, IndexPair, dataset_tasks
from semcut.connector.benchmark.datasets.run_folders import delete_dataset, delete_results
from semcut.connector.benchmark.measure.run import run
from semcut.connector.benchmark.measure.run_plan import Plan, keep_plan
from semcut.connector.benchmark.report.write_report import write_report
from semcut.indexes.errors import DataError
from semcut.indexes.progress import silent
from tests.command import semcut

PLAN = Plan(threads=1)


def tree(path):
    """Name all that is in a directory, with the content of the files."""
    return {str(file.relative_to(path)): file.read_bytes() if file.is_file() else None for file in path.rglob("*")}


@pytest.fixture
def home(pair, tmp_path):
    """Give a directory of a user: an index, an index of queries, and a picture that belongs to neither."""
    place = tmp_path / "home"
    for source, name in zip(pair, ("index", "queries"), strict=True):
        shutil.copytree(source, place / "photos" / name)
    (place / "photos" / "wedding.jpg").write_bytes(b"precious")
    return place


@pytest.fixture
def started(tmp_path):
    """Give the directory of a run that has started."""
    keep_plan(tmp_path / "started", PLAN)
    return tmp_path / "started"


def tasks_of(out, source):
    pairs = [IndexPair("photos", source / "index", source / "queries")]
    return dataset_tasks(out, pairs, [], [], [], grid="quick", seed=0, progress=silent)


def test_a_project_that_is_no_run_stays_as_it_is(home, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "data").symlink_to(home)
    before = tree(home)
    given = [f"project/data/photos/{name}" for name in ("index", "queries")]
    done = semcut("benchmark", "project", "--data", *given, "--quick", cwd=tmp_path, status=1)
    assert "project exists already and holds no run of a benchmark" in done.stderr
    (tmp_path / "project" / "data").unlink()
    home.rename(tmp_path / "project" / "data")
    done = semcut("benchmark", "project", "--data", *given, "--quick", cwd=tmp_path, status=1)
    assert "project exists already and holds no run of a benchmark" in done.stderr
    assert tree(tmp_path / "project" / "data") == before


def test_an_error_before_the_run_leaves_no_directory(tmp_path):
    semcut("benchmark", "out", "--data", "nowhere", "nothing", cwd=tmp_path, status=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("folder", "deeper"), [("data", False), ("raw", False), ("plots", False), ("data", True), ("raw", True)]
)
def test_folders_of_a_received_run_are_no_links(home, started, folder, deeper):
    before = tree(home)
    if deeper:
        (started / folder).mkdir()
        (started / folder / "photos").symlink_to(home / "photos")
    else:
        (started / folder).symlink_to(home)
    for call in (
        lambda: keep_plan(started, PLAN),
        lambda: run(started, tasks_of(started, home / "photos"), PLAN, silent),
        lambda: write_report(started),
    ):
        with pytest.raises(DataError, match="is a symbolic link, expected a directory that a benchmark made"):
            call()
    assert tree(home) == before
    assert not (started / "run.json").exists()


def test_links_instead_of_files_of_a_run_are_replaced_and_not_followed(out, tmp_path):
    copy, victim = tmp_path / "copy", tmp_path / "victim"
    shutil.copytree(out, copy)
    shutil.rmtree(copy / "plots", ignore_errors=True)
    (copy / "plots").mkdir()
    victim.write_text("mine")
    for name in ("run.json", "report.html", "plots/small-quality.png"):
        (copy / name).unlink(missing_ok=True)
        (copy / name).symlink_to(victim)
    write_report(copy)
    assert victim.read_text() == "mine"
    assert not (copy / "report.html").is_symlink()


def test_a_task_deletes_an_unfinished_data_set_and_nothing_else(home, started):
    path = started / "data" / "photos"
    (task,) = tasks_of(started, home / "photos")
    assert task.make() == path
    (path / "dataset.json").rename(path / f"dataset.json.{'0' * 16}.new")
    (path / "truth-10-40-0.npz").write_bytes(b"")
    (path / "mine.txt").write_text("mine")
    before = tree(path)
    with pytest.raises(DataError, match=r"photos has 'mine\.txt', which semcut did not write there"):
        task.make()
    assert tree(path) == before
    (path / "mine.txt").unlink()
    assert task.make() == path
    assert sorted(file.name for file in path.iterdir()) == ["dataset.json", "index", "labels.npz", "queries"]


@pytest.mark.parametrize("name", ["index/mine", "index/generation-0/mine", "generation-0/ids", "lock", "labels.npz/a"])
def test_what_semcut_does_not_write_is_not_deleted(tmp_path, name):
    file = tmp_path / "set" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(DataError, match="which semcut did not write there"):
        delete_dataset(tmp_path / "set")
    assert file.read_text() == "mine"


def test_links_and_directories_in_results_are_not_deleted(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "IndexFlatL2.npz").write_bytes(b"")
    for make in (lambda path: path.symlink_to(tmp_path / "mine"), lambda path: path.mkdir()):
        make(tmp_path / "raw" / "truth.npz")
        with pytest.raises(DataError, match=r"raw has 'truth\.npz', which semcut did not write there"):
            delete_results(tmp_path / "raw", ["IndexFlatL2.npz"])
        shutil.move(tmp_path / "raw" / "truth.npz", tmp_path / "aside")
        (tmp_path / "aside").unlink() if (tmp_path / "aside").is_symlink() else (tmp_path / "aside").rmdir()
    delete_results(tmp_path / "raw", ["IndexFlatL2.npz"])
    assert not (tmp_path / "raw").exists()
    delete_results(tmp_path / "raw")


@pytest.mark.parametrize("name", ["mine.txt", "features-2024.npz"])
def test_results_of_a_data_set_that_are_someone_elses_stay(started, name):
    mine = started / "raw" / "photos" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")

    def never():
        raise AssertionError("a data set was made")

    with pytest.raises(DataError, match="which semcut did not write there"):
        run(started, [DatasetTask("photos", "quick", never)], PLAN, silent)
    assert mine.read_text() == "mine"


def test_answers_that_came_with_a_data_set_are_not_taken(out, small, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    with np.load(out / "raw" / "small" / "truth.npz") as stored:
        forged = {name: array + 100 if name == "distances" else array for name, array in stored.items()}
    np.savez(copy / "truth-10-128-0.npz", **forged)
    plan = Plan(threads=1, queries=128, batches=(1, 32), rounds=1, call_seconds=0.02, methods=("IndexHNSWFlat",))
    run(tmp_path / "new", [DatasetTask("copy", "quick", lambda: copy)], plan, silent)
    with (
        np.load(tmp_path / "new" / "raw" / "copy" / "truth.npz") as found,
        np.load(out / "raw" / "small" / "truth.npz") as right,
    ):
        assert (found["distances"] == right["distances"]).all()


def test_indexes_inside_of_the_run_are_refused(home, started):
    shutil.move(home, started / "data")
    before = tree(started)
    with pytest.raises(DataError, match="is inside of"):
        tasks_of(started, started / "data" / "photos")
    assert tree(started) == before
