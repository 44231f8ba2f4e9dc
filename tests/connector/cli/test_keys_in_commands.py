"""Commands show and take the ids of an index whose ids are strings, and never obey what stands in them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semcut import FaissIndex, IndexConfig
from tests.command import semcut
from tests.indexes.generate import classified

CONFIG = IndexConfig(classes=4, bits=32, dim=16, string_ids=True)
KEYS = ["a/b%2F.jpg", "7", "-1", "\x1b]0;x\x07\n\u202e", "<b>&", *(f"photo {number}" for number in range(35))]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Store records; the second and the third are nearly the first and the fourth."""
    batch = classified(np.random.default_rng(0), CONFIG, len(KEYS))[[0, 0, 3, 3, *range(4, len(KEYS))]]
    with FaissIndex.create(tmp_path / "index", CONFIG) as made:
        made.add(replace(batch, ids=KEYS))
    return tmp_path / "index"


def held(index: Path) -> set[str]:
    with FaissIndex.open(index, engine="faiss") as opened:
        return set(opened.keys(opened.ids()))


def test_info_says_that_ids_are_strings(index):
    assert json.loads(semcut("info", "index", "--json", cwd=index.parent).stdout)["ids"] == "strings"
    assert "strings" in semcut("info", "index", cwd=index.parent).stdout


def test_records_are_removed_by_key(index):
    shown = semcut("remove", "index", "--id", KEYS[3], "--id", "7", "--dry-run", cwd=index.parent).stdout
    assert {*shown.splitlines()[:-1]} == {"\\x1b]0;x\\x07\\n\\u202e  ", "7  "}
    done = semcut("remove", "index", "--id", KEYS[3], "--id", "7", "--id", "7", "--json", cwd=index.parent)
    assert {one["key"] for one in json.loads(done.stdout)["removed"]} == {KEYS[3], "7"}
    assert held(index) == {*KEYS} - {KEYS[3], "7"}
    semcut("remove", "index", "--id=-1", "--id", KEYS[0], cwd=index.parent)
    assert held(index) == {*KEYS[4:]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("8", "1 ids ('8') are not in the index, whose ids are strings"),
        ("\x1b[31m", r"1 ids ('\x1b[31m') are not in the index"),
        ("", "id '' is no key, expected text of 1 to 1000 characters"),
        ("\udcff", r"id '\udcff' is no key"),
        ("x" * 2000, "is no key, expected text of 1 to 1000 characters"),
    ],
)
def test_a_key_that_is_not_there_is_one_sentence_and_nothing_is_removed(given, message, index):
    done = semcut("remove", "index", "--id", KEYS[0], "--id", given, cwd=index.parent, status=1)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert message in line
    assert len(line) < 250
    assert held(index) == {*KEYS}


@pytest.mark.parametrize("given", ["a", "-1", "1.5", "\u0661", "9223372036854775808", "1" * 5000, ""])
def test_text_for_an_index_with_integers_is_one_sentence(given, tmp_path):
    config = CONFIG.model_copy(update={"string_ids": False})
    with FaissIndex.create(tmp_path / "index", config) as made:
        made.add(classified(np.random.default_rng(0), config, 3))
    done = semcut("remove", "index", f"--id={given}", "--id=1", cwd=tmp_path, status=1)
    (line,) = done.stderr.splitlines()
    assert "expected an integer, as the ids of the index are" in line
    with FaissIndex.open(tmp_path / "index") as opened:
        assert len(opened) == 3


def test_groups_of_duplicates_have_keys(index):
    listed = json.loads(semcut("duplicates", "index", "--json", cwd=index.parent).stdout)["groups"]
    assert {frozenset(one["key"] for one in group) for group in listed} == {frozenset(KEYS[:2]), frozenset(KEYS[2:4])}
    done = semcut("duplicates", "index", "--page", "page.html", cwd=index.parent)
    assert KEYS[0] in done.stdout
    assert not {"\x1b", "\x07", "\u202e"} & {*done.stdout}
    page = (index.parent / "page.html").read_text()
    assert "<b>\\x1b]0;x\\x07\\n\\u202e</b>" in page


def test_keys_on_a_page_are_escaped(index):
    with FaissIndex.open(index) as opened:
        record = opened.get(["<b>&"])
        opened.add(replace(record, ids=["</li><script>"], keys=None))
    semcut("duplicates", "index", "--page", "page.html", cwd=index.parent)
    page = (index.parent / "page.html").read_text()
    assert "<b>&lt;/li&gt;&lt;script&gt;</b>" in page
    assert "<script>" not in page


def damaged(index: Path, name: str) -> list[dict]:
    path = index / "generation-0" / name
    content = bytearray(path.read_bytes())
    content[3] ^= 4
    path.write_bytes(content)
    return json.loads(semcut("verify", "index", "--json", cwd=index.parent, status=1).stdout)


def test_verify_names_the_keys_of_damaged_records(index):
    (found,) = damaged(index, "features")
    assert {*found["keys"]} == {*KEYS}
    assert len(found["ids"]) == len(KEYS)
    shown = semcut("verify", "index", cwd=index.parent, status=1).stdout
    assert "; 40 records: " in shown
    assert any(key in shown for key in KEYS[4:])
    assert "\x1b" not in shown
    removed = [argument for key in found["keys"] for argument in (f"--id={key}",)]
    assert "40 records removed" in semcut("remove", "index", *removed, cwd=index.parent).stdout


def test_records_whose_keys_are_damaged_are_removed_by_number(index):
    (found,) = damaged(index, "key_ends")
    assert "keys" not in found
    shown = semcut("verify", "index", cwd=index.parent, status=1).stdout
    assert str(found["ids"][0]) in shown
    with FaissIndex.open(index) as opened:
        opened.remove(found["ids"])
    semcut("compact", "index", cwd=index.parent)
    assert "is sound" in semcut("verify", "index", cwd=index.parent).stdout
