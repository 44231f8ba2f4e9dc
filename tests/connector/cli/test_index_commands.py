"""The commands that look after a stored index, run as a user runs them: verify, compact, backup, info."""

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
from tests.command import semcut
from tests.indexes.generate import assert_same, assert_same_records, classified

CONFIG = IndexConfig(classes=10, bits=64, dim=16)
ROWS = 300
BLOCK = range(128, 256)
"""Rows that share one checksum; the id of a record in `index` is its row."""

HOLDER = """
import sys
from semcut.indexes import FaissIndex

with FaissIndex.open(sys.argv[1]) as index:
    index.remove([0])
    print("locked", flush=True)
    sys.stdin.read()
"""


def complaint(*arguments: object, cwd: Path) -> str:
    """The one line that a command ends with when it fails."""
    done = semcut(*arguments, cwd=cwd, status=1)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("semcut: ")
    return line


def records() -> Encodings:
    batch = classified(np.random.default_rng(5), CONFIG, ROWS)
    return Encodings(
        probabilities=batch.probabilities,
        codes=batch.codes,
        features=batch.features,
        ids=batch.ids,
        uris=[f"{number}.jpg" if number % 3 else None for number in range(ROWS)],
    )


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A stored index that nobody has open."""
    with FaissIndex.create(tmp_path / "index", CONFIG) as made:
        made.add(records())
    return tmp_path / "index"


@contextmanager
def held_by_another_process(index: Path) -> Iterator[int]:
    """Another process has changed the index and has it open still; gives its number."""
    arguments = [sys.executable, "-c", HOLDER, str(index)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield process.pid
        finally:
            process.communicate("", timeout=60)
    assert process.returncode == 0


def flip_a_byte(index: Path, column: str, row: int) -> None:
    file = index / "generation-0" / column
    data = bytearray(file.read_bytes())
    data[row * len(data) // ROWS] ^= 4
    file.write_bytes(data)


def contents(path: Path) -> dict[str, bytes]:
    """Every file but the lock, which says who wrote last."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != "lock"]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def size(index: Path) -> int:
    return sum(len(data) for name, data in contents(index).items() if name.startswith("generation-"))


def held(index: Path) -> tuple[Encodings, SearchResult]:
    """All records of an index, and what a search of it gives."""
    with FaissIndex.open(index) as opened:
        everything = Encodings.concatenate(list(opened.iterate()))
        return everything, opened.search(records()[::10], k=20, cutoff=0.1, shortlist=None)


def assert_equal(found: Path, expected: tuple[Encodings, SearchResult]) -> None:
    everything, result = held(found)
    assert_same_records(everything, expected[0])
    assert_same(result, expected[1])


# verify


def test_a_sound_index_is_called_sound(index: Path) -> None:
    before = contents(index)
    assert semcut("verify", "index", cwd=index.parent).stdout == "index is sound.\n"
    assert contents(index) == before


def test_verify_prints_json_and_nothing_else(index: Path) -> None:
    done = semcut("verify", "index", "--json", cwd=index.parent)
    assert json.loads(done.stdout) == []
    assert done.stderr == ""


def test_a_flipped_byte_in_features_is_named_with_its_records(index: Path) -> None:
    flip_a_byte(index, "features", 200)
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


def test_an_index_with_damaged_features_is_neither_compacted_nor_copied(index: Path) -> None:
    flip_a_byte(index, "features", 200)
    with FaissIndex.open(index) as opened:
        opened.remove([0])
    before = contents(index)
    assert "index/generation-0/features is damaged: rows 128 to 255" in complaint("compact", "index", cwd=index.parent)
    assert "features is damaged from row 128 on" in complaint("backup", "index", "copy", cwd=index.parent)
    assert contents(index) == before
    assert "copy is " in complaint("info", "copy", cwd=index.parent)


def test_an_index_is_sound_again_when_the_named_records_are_removed_and_it_is_compacted(index: Path) -> None:
    flip_a_byte(index, "features", 200)
    (damage,) = json.loads(semcut("verify", "index", "--json", cwd=index.parent, status=1).stdout)
    with FaissIndex.open(index) as opened:
        opened.remove(damage["ids"])
    semcut("compact", "index", cwd=index.parent)
    assert "index is sound." in semcut("verify", "index", cwd=index.parent).stdout
    everything, _ = held(index)
    assert_same_records(everything, records()[[row for row in range(ROWS) if row not in BLOCK]])


def test_damage_is_listed_even_if_the_index_cannot_be_opened(index: Path) -> None:
    flip_a_byte(index, "codes", 290)
    flip_a_byte(index, "features", 5)
    before = contents(index)
    for command in (["info", "index"], ["compact", "index"], ["backup", "index", "copy"]):
        assert "index/generation-0/codes is damaged: rows 256 to 299" in complaint(*command, cwd=index.parent)
    listed = json.loads(semcut("verify", "index", "--json", cwd=index.parent, status=1).stdout)
    found = {(damage["where"], damage["what"]) for damage in listed}
    assert ("index/generation-0/codes", "rows 256 to 299 do not match their checksum") in found
    assert ("index/generation-0/features", "rows 0 to 127 do not match their checksum") in found
    lines = semcut("verify", "index", cwd=index.parent, status=1).stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == [damage["where"] for damage in listed]
    assert contents(index) == before
    assert not (index.parent / "copy").exists()


# compact and info


def test_compacting_gives_back_space_and_changes_no_answer(index: Path) -> None:
    with FaissIndex.open(index) as opened:
        opened.remove(np.arange(0, ROWS, 2))
    before, bytes_before = held(index), size(index)
    shown = json.loads(semcut("info", "index", "--json", cwd=index.parent).stdout)
    assert (shown["records"], shown["removed, until compacted"]) == (ROWS // 2, ROWS // 2)
    assert shown["bytes"] == bytes_before
    done = semcut("compact", "index", cwd=index.parent)
    bytes_after = size(index)
    assert bytes_after < 0.6 * bytes_before
    assert done.stdout == f"150 records kept, 150 removed ones gone, {bytes_before - bytes_after:,} bytes given back.\n"
    shown = json.loads(semcut("info", "index", "--json", cwd=index.parent).stdout)
    assert (shown["records"], shown["removed, until compacted"]) == (ROWS // 2, 0)
    assert shown["bytes"] == bytes_after
    assert_equal(index, before)


def test_compacting_twice_gives_nothing_more_back(index: Path) -> None:
    before = held(index)
    for _ in range(2):
        done = semcut("compact", "index", cwd=index.parent)
        assert done.stdout == "300 records kept, 0 removed ones gone, 0 bytes given back.\n"
    assert_equal(index, before)


def test_info_changes_nothing_and_shows_json_alone_if_asked(index: Path) -> None:
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
    assert_equal(copy, held(index))
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
    line = complaint("backup", "index", where, cwd=index.parent)
    assert "exists already" in line or "lies in the index itself" in line
    assert str(where) in line
    assert contents(index.parent) == before


def test_a_backup_fills_an_empty_directory(index: Path) -> None:
    (index.parent / "copy").mkdir()
    semcut("backup", "index", "copy", cwd=index.parent)
    assert_equal(index.parent / "copy", held(index))


# what is no index, and an index that somebody else changes


@pytest.mark.parametrize("command", ["verify", "compact", "backup", "info"])
def test_what_is_no_index_is_refused_with_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "pictures [red]").mkdir()
    (tmp_path / "pictures [red]" / "notes.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    before = contents(tmp_path)
    target = ["copy"] if command == "backup" else []
    assert "pictures [red] is not a semcut index" in complaint(command, "pictures [red]", *target, cwd=tmp_path)
    assert "file is not a directory" in complaint(command, "file", *target, cwd=tmp_path)
    assert contents(tmp_path) == before
    assert not (tmp_path / "copy").exists()


def test_verify_says_in_one_line_what_is_no_index_with_json_too(tmp_path: Path) -> None:
    assert "nowhere is not a directory" in complaint("verify", "nowhere", "--json", cwd=tmp_path)


@pytest.mark.parametrize("arguments", [["compact"], ["backup", "index"], ["verify", "index", "--wrong"]])
def test_a_command_that_is_called_wrongly_is_status_2(index: Path, arguments: list[str]) -> None:
    before = contents(index.parent)
    assert "Usage: " in semcut(*arguments, cwd=index.parent, status=2).stderr
    assert contents(index.parent) == before


def test_an_index_that_another_process_changes_is_checked_and_copied_but_not_compacted(index: Path) -> None:
    with held_by_another_process(index) as process:
        before = contents(index / "generation-0")
        line = complaint("compact", "index", cwd=index.parent)
        assert f"index is being written to by process {process} on " in line
        assert json.loads(semcut("verify", "index", "--json", cwd=index.parent).stdout) == []
        assert json.loads(semcut("info", "index", "--json", cwd=index.parent).stdout)["removed, until compacted"] == 1
        assert "299 records copied" in semcut("backup", "index", "copy", cwd=index.parent).stdout
        assert contents(index / "generation-0") == before
    expected = held(index)
    assert_same_records(expected[0], records()[1:])
    assert_equal(index.parent / "copy", expected)
    assert "1 removed ones gone" in semcut("compact", "index", cwd=index.parent).stdout
