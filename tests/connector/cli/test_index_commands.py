"""Tests of the commands that maintain a stored index, run as a user runs them: verify, compact, backup, info."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import Encodings, FaissIndex, IndexConfig, SearchResult
from semcut.indexes.pruning.cell_table import cell_numbers
from tests.command import semcut
from tests.indexes.generate import assert_same, assert_same_records, classified

CONFIG = IndexConfig(classes=10, bits=64, dim=16, stored_features="float32")
ROWS = 300
BLOCK = range(128, 256)
"""Rows that share one checksum. The id of a record in `index` is its row."""

HOLDER = """
import sys
from semcut.indexes import FaissIndex

with FaissIndex.open(sys.argv[1]) as index:
    index.remove([0])
    print("locked", flush=True)
    sys.stdin.read()
"""


def error_line(*arguments: object, cwd: Path) -> str:
    """Run a command that must fail, and return the one line that it prints."""
    done = semcut(*arguments, cwd=cwd, status=1)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("semcut: ")
    return line


def records() -> Encodings:
    """Return records in order of cells, in which an index stores them."""
    batch = classified(np.random.default_rng(5), CONFIG, ROWS)
    order = np.argsort(cell_numbers(CONFIG, batch.probabilities)[0], kind="stable")
    return Encodings(
        probabilities=batch.probabilities[order],
        codes=batch.codes,
        features=batch.features,
        ids=batch.ids,
        uris=[f"{number}.jpg" if number % 3 else None for number in range(ROWS)],
    )


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Create a stored index that no process has open."""
    with FaissIndex.create(tmp_path / "index", CONFIG) as created:
        created.add(records())
    return tmp_path / "index"


@contextmanager
def locked_by_another_process(index: Path) -> Iterator[int]:
    """Keep the index open in another process that has changed the index; yield the id of the process."""
    arguments = [sys.executable, "-c", HOLDER, str(index)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield process.pid
        finally:
            process.communicate("", timeout=60)
    assert process.returncode == 0


def flip_bit(index: Path, column: str, row: int) -> None:
    file = index / "generation-0" / column
    data = bytearray(file.read_bytes())
    data[row * len(data) // ROWS] ^= 4
    file.write_bytes(data)


def contents(path: Path) -> dict[str, bytes]:
    """Return the content of every file except the lock file, which names the last writer."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != "lock"]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def size(index: Path) -> int:
    return sum(len(data) for name, data in contents(index).items() if name.startswith("generation-"))


def read(index: Path) -> tuple[Encodings, SearchResult]:
    """Return all records of an index, and the result of a search."""
    with FaissIndex.open(index) as opened:
        everything = Encodings.concatenate(list(opened.iterate()))
        return everything, opened.search(records()[::10], k=20, cutoff=0.1, shortlist=None)


def assert_holds(found: Path, expected: tuple[Encodings, SearchResult]) -> None:
    everything, result = read(found)
    assert_same_records(everything, expected[0])
    assert_same(result, expected[1])


# verify


def test_verify_reports_that_a_sound_index_is_sound(index: Path) -> None:
    before = contents(index)
    assert semcut("verify", "index", cwd=index.parent).stdout == "index is sound.\n"
    assert contents(index) == before


def test_verify_prints_only_json_with_json(index: Path) -> None:
    done = semcut("verify", "index", "--json", cwd=index.parent)
    assert json.loads(done.stdout) == []
    assert done.stderr == ""


def test_verify_names_the_records_of_a_flipped_bit_in_features(index: Path) -> None:
    flip_bit(index, "features", 200)
    before = contents(index)
    (line,) = semcut("verify", "index", cwd=index.parent, status=1).stdout.splitlines()
    assert "index/generation-0/features: rows 128 to 255 do not match their checksum; 128 records: 128," in line
    assert line.endswith(", 147, ...")
    done = semcut("verify", "index", "--json", cwd=index.parent, status=1)
    (damage,) = json.loads(done.stdout)
    assert damage["where"] == str(index / "generation-0" / "features")
    assert damage["ids"] == list(BLOCK)
    assert done.stderr == ""
    assert contents(index) == before


def test_an_index_with_damaged_features_is_neither_compacted_nor_backed_up(index: Path) -> None:
    flip_bit(index, "features", 200)
    with FaissIndex.open(index) as opened:
        opened.remove([0])
    before = contents(index)
    assert "index/generation-0/features is damaged: rows 128 to 255" in error_line("compact", "index", cwd=index.parent)
    assert "features is damaged from row 128 on" in error_line("backup", "index", "copy", cwd=index.parent)
    assert contents(index) == before
    assert "copy is " in error_line("info", "copy", cwd=index.parent)


def test_an_index_is_sound_again_when_the_named_records_are_removed_and_it_is_compacted(index: Path) -> None:
    flip_bit(index, "features", 200)
    (damage,) = json.loads(semcut("verify", "index", "--json", cwd=index.parent, status=1).stdout)
    with FaissIndex.open(index) as opened:
        opened.remove(damage["ids"])
    semcut("compact", "index", cwd=index.parent)
    assert "index is sound." in semcut("verify", "index", cwd=index.parent).stdout
    everything, _ = read(index)
    assert_same_records(everything, records()[[row for row in range(ROWS) if row not in BLOCK]])


def test_verify_lists_damage_of_an_index_that_cannot_be_opened(index: Path) -> None:
    flip_bit(index, "codes", 290)
    flip_bit(index, "features", 5)
    before = contents(index)
    for command in (["info", "index"], ["compact", "index"], ["backup", "index", "copy"]):
        assert "index/generation-0/codes is damaged: rows 256 to 299" in error_line(*command, cwd=index.parent)
    listed = json.loads(semcut("verify", "index", "--json", cwd=index.parent, status=1).stdout)
    found = {(damage["where"], damage["what"]) for damage in listed}
    assert ("index/generation-0/codes", "rows 256 to 299 do not match their checksum") in found
    assert ("index/generation-0/features", "rows 0 to 127 do not match their checksum") in found
    lines = semcut("verify", "index", cwd=index.parent, status=1).stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [damage["where"] for damage in listed]
    assert contents(index) == before
    assert not (index.parent / "copy").exists()


# compact and info


def test_compact_releases_space_and_changes_no_result(index: Path) -> None:
    with FaissIndex.open(index) as opened:
        opened.remove(np.arange(0, ROWS, 2))
    before, bytes_before = read(index), size(index)
    shown = json.loads(semcut("info", "index", "--json", cwd=index.parent).stdout)
    assert (shown["records"], shown["removed, until compacted"]) == (ROWS // 2, ROWS // 2)
    assert shown["bytes"] == bytes_before
    done = semcut("compact", "index", cwd=index.parent)
    bytes_after = size(index)
    assert bytes_after < 0.6 * bytes_before
    assert (
        done.stdout
        == f"150 records kept, 150 removed records deleted, {bytes_before - bytes_after:,} bytes released.\n"
    )
    shown = json.loads(semcut("info", "index", "--json", cwd=index.parent).stdout)
    assert (shown["records"], shown["removed, until compacted"]) == (ROWS // 2, 0)
    assert shown["bytes"] == bytes_after
    assert_holds(index, before)


def test_compacting_twice_releases_nothing_more(index: Path) -> None:
    before = read(index)
    for _ in range(2):
        done = semcut("compact", "index", cwd=index.parent)
        assert done.stdout == "300 records kept, 0 removed records deleted, 0 bytes released.\n"
    assert_holds(index, before)


def test_info_changes_nothing_and_prints_only_json_with_json(index: Path) -> None:
    before = contents(index)
    done = semcut("info", "index", "--json", cwd=index.parent)
    shown = json.loads(done.stdout)
    assert done.stderr == ""
    assert (shown["records"], shown["removed, until compacted"], shown["changes so far"]) == (ROWS, 0, 1)
    assert (shown["classes"], shown["bits"], shown["dim"], shown["normalised"]) == (10, 64, 16, True)
    assert sum(shown["partitions"]) == ROWS
    assert shown["bytes"] == sum(shown["bytes per column"].values()) == size(index)
    assert contents(index) == before


# backup


def test_a_backup_is_an_equal_and_sound_index(index: Path) -> None:
    with FaissIndex.open(index) as opened:
        opened.remove([3, 7])
    (index / "notes.txt").write_text("what the images are")
    before = contents(index)
    done = semcut("backup", "index", "far/away/copy", cwd=index.parent)
    assert done.stdout == "298 records copied to far/away/copy.\n"
    assert contents(index) == before
    copy = index.parent / "far" / "away" / "copy"
    assert_holds(copy, read(index))
    assert (copy / "notes.txt").read_text() == "what the images are"
    assert json.loads(semcut("verify", copy, "--json", cwd=index.parent).stdout) == []
    shown = [json.loads(semcut("info", path, "--json", cwd=index.parent).stdout) for path in (index, copy)]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("target", ["a directory with a file", "another index", "a file", "the index", "inside"])
def test_a_backup_replaces_nothing(index: Path, target: str) -> None:
    where = index.parent / target
    if target == "a directory with a file":
        where.mkdir()
        (where / "notes.txt").write_text("keep me")
    elif target == "another index":
        FaissIndex.create(where, CONFIG).close()
    elif target == "a file":
        where.write_text("keep me")
    else:
        where = index if target == "the index" else index / "copy"
    before = contents(index.parent)
    line = error_line("backup", "index", where, cwd=index.parent)
    assert "exists already" in line or "is inside the index itself" in line
    assert str(where) in line
    assert contents(index.parent) == before


def test_a_backup_fills_an_empty_directory(index: Path) -> None:
    (index.parent / "copy").mkdir()
    semcut("backup", "index", "copy", cwd=index.parent)
    assert_holds(index.parent / "copy", read(index))


# remove


def test_records_are_removed_by_id_and_by_uri(index: Path) -> None:
    done = semcut("remove", "index", "--id", 0, "--id", 7, "--uri", "1?.jpg", "--uri", "29[0-9].jpg", cwd=index.parent)
    gone = {0, 7, *(number for number in (*range(10, 20), *range(290, 300)) if number % 3)}
    assert done.stdout.splitlines()[0].split() == ["0"]
    assert done.stdout.splitlines()[1].split() == ["7", "7.jpg"]
    assert done.stdout.splitlines()[-1] == f"{len(gone)} records removed, {ROWS - len(gone)} records in index."
    with FaissIndex.open(index) as opened:
        assert set(range(ROWS)) - set(opened.ids().tolist()) == gone


def test_a_dry_run_lists_the_records_and_removes_none(index: Path) -> None:
    before = contents(index)
    done = semcut("remove", "index", "--uri", "*", "--dry-run", "--json", cwd=index.parent)
    listed = json.loads(done.stdout)
    assert listed["records"] == ROWS
    assert [one["uri"] for one in listed["removed"]] == [f"{number}.jpg" for number in range(ROWS) if number % 3]
    assert "... and 180 more" in semcut("remove", "index", "--uri", "*", "--dry-run", cwd=index.parent).stdout
    assert contents(index) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--id", 5, "--id", 900], "id 900 is not in the index"),
        (["--uri", "1*.jpg", "--uri", "[red]*"], "no record has a uri that matches '[red]*': `*` matches any text"),
        (["--uri", "1*.JPG"], "no record has a uri that matches '1*.JPG'"),
    ],
)
def test_what_is_not_there_is_one_error_and_nothing_is_removed(index: Path, arguments: list[str], message: str) -> None:
    before = contents(index)
    assert message in error_line("remove", "index", *arguments, cwd=index.parent)
    assert contents(index) == before


def test_damaged_records_can_be_removed(index: Path) -> None:
    ends = np.fromfile(index / "generation-0" / "uri_ends", "<i8")
    ends[200] = -7
    ends.tofile(index / "generation-0" / "uri_ends")
    (damage,) = json.loads(semcut("verify", "index", "--json", cwd=index.parent, status=1).stdout)
    ids = [argument for number in damage["ids"] for argument in ("--id", number)]
    assert f"{len(damage['ids'])} records removed" in semcut("remove", "index", *ids, cwd=index.parent).stdout
    semcut("compact", "index", cwd=index.parent)
    assert "is sound" in semcut("verify", "index", cwd=index.parent).stdout


# paths without an index, and an index that another process changes


@pytest.mark.parametrize("command", ["verify", "compact", "backup", "info"])
def test_a_path_without_an_index_is_one_line_of_error(tmp_path: Path, command: str) -> None:
    (tmp_path / "pictures [red]").mkdir()
    (tmp_path / "pictures [red]" / "notes.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    before = contents(tmp_path)
    target = ["copy"] if command == "backup" else []
    assert "pictures [red] is not a semcut index" in error_line(command, "pictures [red]", *target, cwd=tmp_path)
    assert "file is not a directory" in error_line(command, "file", *target, cwd=tmp_path)
    assert contents(tmp_path) == before
    assert not (tmp_path / "copy").exists()


def test_a_path_without_an_index_is_one_line_of_error_with_json_too(tmp_path: Path) -> None:
    assert "nowhere is not a directory" in error_line("verify", "nowhere", "--json", cwd=tmp_path)


@pytest.mark.parametrize(
    "arguments", [["compact"], ["backup", "index"], ["verify", "index", "--wrong"], ["remove", "index"]]
)
def test_wrong_use_of_a_command_is_status_2(index: Path, arguments: list[str]) -> None:
    before = contents(index.parent)
    assert "Usage: " in semcut(*arguments, cwd=index.parent, status=2).stderr
    assert contents(index.parent) == before


def test_an_index_that_another_process_changes_is_verified_and_backed_up_but_not_compacted(index: Path) -> None:
    with locked_by_another_process(index) as process:
        before = contents(index / "generation-0")
        line = error_line("compact", "index", cwd=index.parent)
        assert f"index is being written to by process {process} on " in line
        assert json.loads(semcut("verify", "index", "--json", cwd=index.parent).stdout) == []
        assert json.loads(semcut("info", "index", "--json", cwd=index.parent).stdout)["removed, until compacted"] == 1
        assert "299 records copied" in semcut("backup", "index", "copy", cwd=index.parent).stdout
        assert contents(index / "generation-0") == before
    expected = read(index)
    assert_same_records(expected[0], records()[1:])
    assert_holds(index.parent / "copy", expected)
    assert "1 removed records deleted" in semcut("compact", "index", cwd=index.parent).stdout
