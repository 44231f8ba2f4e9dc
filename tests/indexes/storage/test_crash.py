"""An index whose process is killed at a random moment has every acknowledged change, and no other change in part."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from semcut.indexes import FaissIndex, NotAnIndexError
from tests.indexes.generate import assert_same, assert_same_records
from tests.indexes.storage.stored_index import fork, python
from tests.indexes.story import CONFIG, Story

WRITER = """
import sys
from semcut.indexes import FaissIndex
from tests.indexes.story import Story

path, seed, backups = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "backup"
index = FaissIndex.open(path)
story = Story(seed)
story.tell_until(index.version)
print("ready", flush=True)
while True:
    if backups and story.changes % 3 == 0:
        index.backup(f"{path} {story.changes}")
        print("backup", story.changes, flush=True)
    story.change(index)
    print("change", story.changes, flush=True)
"""


@pytest.mark.parametrize("kills", [25, pytest.param(250, marks=pytest.mark.long)])
def test_a_process_killed_at_any_moment_loses_no_acknowledged_change(tmp_path, kills):
    rng = random.Random(kills)
    path, seed = tmp_path / "index", kills
    FaissIndex.create(path, CONFIG).close()
    shown, errors = tmp_path / "shown", tmp_path / "errors"
    os.mkfifo(shown)
    acknowledged, kinds, copies, rounds = 0, set(), 0, 0
    while rounds < kills or (not kinds >= {"add", "upsert", "remove"} and rounds < 4 * kills):
        rounds += 1
        writer = fork(WRITER, [path, seed, rng.choice(["backup", "none"])], shown, errors)
        with open(shown) as output:
            assert output.readline() == "ready\n", errors.read_text()
            time.sleep(rng.uniform(0, 0.15))
            writer.kill()
            lines = output.read()
        writer.join()
        assert not errors.read_text()
        lines_of_two = [line.split() for line in lines.splitlines() if line.count(" ") == 1]
        acknowledged = max([acknowledged, *(int(number) for what, number in lines_of_two if what == "change")])
        story = Story(seed)
        with FaissIndex.open(path) as index:
            assert acknowledged <= index.version <= acknowledged + 1
            story.tell_until(index.version)
            assert_holds(index, story)
            kinds.add(story.next()[0])
            story.change(index)  # the end of the killed process has released its lock
            assert_holds(index, story)
            assert index.verify() == []
            acknowledged = index.version
        done = {number for what, number in lines_of_two if what == "backup"}
        for copy in tmp_path.glob("index *"):
            number = copy.name.split()[-1]
            copies += assert_backup(copy, int(number), seed, whole=number in done)
    assert kinds >= {"add", "upsert", "remove"}
    assert copies


def assert_holds(index: FaissIndex, story: Story) -> None:
    """Assert that the index contains the records of the story, and finds them."""
    expected = story.all()
    assert len(index) == len(expected)
    assert_same_records(index.get(expected.ids), expected)
    queries = expected[:5]
    options = {"k": 20, "cutoff": 0.3, "shortlist": None}
    assert_same(index.search(queries, **options), story.brute_force().search(queries, **options))


def assert_backup(copy: Path, number: int, seed: int, *, whole: bool) -> bool:
    """Assert that a backup is complete, or that it is not an index and was not acknowledged; delete it.

    Returns:
        Whether the backup is an index.
    """
    try:
        with FaissIndex.open(copy) as index:
            story = Story(seed)
            story.tell_until(number)
            assert_holds(index, story)
            assert index.verify() == []
        found = True
    except NotAnIndexError:
        assert not whole
        found = False
        FaissIndex.create(copy, CONFIG).close()  # an index can be created in its place
    for file in sorted(copy.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    copy.rmdir()
    return found


def test_a_bulk_load_that_is_killed_leaves_what_was_flushed(tmp_path):
    done = python(
        """
        from tests.indexes.story import CONFIG, records

        index = FaissIndex.create(sys.argv[1], CONFIG, durability="close")
        for number in range(20):
            index.add(records(np.arange(number * 10, number * 10 + 10), np.full(10, number)))
            if number == 12:
                index.flush()
        assert len(index) == 200
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        tmp_path / "index",
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with FaissIndex.open(tmp_path / "index", durability="close") as index:
        assert index.ids().tolist() == list(range(130))
        index.remove([5])
        with FaissIndex.open(tmp_path / "index") as reader:
            assert len(reader) == 130
    with FaissIndex.open(tmp_path / "index") as index:
        assert len(index) == 129
        assert index.verify() == []
