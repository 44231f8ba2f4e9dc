"""`files.jsonl` keeps what is known of files without a record, and junk in it costs neither time nor memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semcut.connector.retrieval import file_facts
from semcut.connector.retrieval.file_facts import KnownFiles, Unreadable
from semcut.indexes.storage.directory import FACTS

DIGEST = "a" * 32
LEFT_OUT = [1, -1, "left", 5, 6, "trained"]
RECORD = [1, 3, "a", 5, 6, DIGEST]


def write(place: Path, *lines: object) -> None:
    (place / FACTS).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def stored(place: Path) -> list[object]:
    return [json.loads(line) for line in (place / FACTS).read_text().splitlines()]


def test_what_is_known_of_files_without_a_record_stays_when_the_file_is_written_anew(tmp_path: Path) -> None:
    others = [[1, -1, "found", 5, 6, "x"], [1, -1, "changed", 5, 6, "old"], [1, -1, "forgotten", 5, 6, "x"]]
    later = [[2, -1, "changed", 7, 8, "new"], [2, 4, "found", 7, 8, DIGEST], [2, -1, "forgotten"]]
    write(tmp_path, LEFT_OUT, *others, *later, RECORD, [9, 9, "of a later version"], [9, -1, "left", 1, 1, "later"])
    KnownFiles(tmp_path, 2, {"a": 3}).prepare(2)
    assert stored(tmp_path) == [[2, *RECORD[1:]], LEFT_OUT, [2, -1, "changed", 7, 8, "new"]]
    known = KnownFiles(tmp_path, 5, {"a": 3}, {"left"})
    assert known.unreadable == {"left": Unreadable(5, 6, "trained")}
    before = (tmp_path / FACTS).stat().st_ino
    known.prepare(5)
    assert (tmp_path / FACTS).stat().st_ino == before


def test_files_that_nobody_asks_for_are_no_reason_to_write_the_file_anew(tmp_path: Path) -> None:
    write(tmp_path, *([1, -1, f"{number}", 5, 6, "x"] for number in range(2000)), RECORD)
    before = (tmp_path / FACTS).stat().st_ino
    KnownFiles(tmp_path, 1, {"a": 3}).prepare(1)
    assert (tmp_path / FACTS).stat().st_ino == before


@pytest.mark.parametrize("junk", [b"\n", b"x\n", b"[]\n", b"[" * 1000 + b"\n", b"0\n", b'[0,1,"\\ud800"]\n'])
def test_a_file_of_junk_counts_as_empty_and_is_not_read_to_its_end(
    junk: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = f"{json.dumps(RECORD)}\n".encode()
    (tmp_path / FACTS).write_bytes(good + junk * 1000)
    assert set(KnownFiles(tmp_path, 5, {"a": 3}).facts) == {"a"}
    (tmp_path / FACTS).write_bytes(good + junk * 3000 + good)
    seen = 0
    of_line = file_facts._parsed_line

    def count(line: bytes) -> object:
        nonlocal seen
        seen += 1
        return of_line(line)

    monkeypatch.setattr(file_facts, "_parsed_line", count)
    known = KnownFiles(tmp_path, 5, {"a": 3})
    assert not known.facts
    assert seen <= 1002
    known.prepare(5)
    assert (tmp_path / FACTS).read_bytes() == b""


@pytest.mark.parametrize("line", ['[0,-1,"a",5,5,"\\ud800"]', '[0,-1,"\\ud800",5,5,"x"]', '[0,1,"\\udfff"]'])
def test_a_line_that_is_not_valid_text_does_not_count(line: str, tmp_path: Path) -> None:
    (tmp_path / FACTS).write_text(f"{line}\n")
    known = KnownFiles(tmp_path, 5, {}, {"a", "\ud800"})
    assert not known.unreadable
    known.prepare(5)
    assert (tmp_path / FACTS).read_bytes() == b""
