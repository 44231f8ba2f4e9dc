"""What `semcut` imports before a command runs, and how it lists and finds its commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

from semcut.indexes import FaissIndex, IndexConfig
from tests.command import semcut
from tests.indexes.generate import classified

COMMANDS = sorted(entry.name for entry in entry_points(group="semcut.commands"))
HEAVY = {"fastapi", "grpc", "llvmlite", "matplotlib", "numba", "pymilvus", "scipy", "sklearn", "torch", "torchvision",
         "uvicorn"}  # fmt: skip
LIGHT = HEAVY | {"faiss", "numpy", "pydantic", "PIL"}

RUN = """
import json, sys
from contextlib import suppress

sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # as if these packages were not installed
from semcut.connector.cli.app import app

for arguments in json.loads(sys.argv[2]):
    with suppress(SystemExit):
        app(arguments, prog_name="semcut")
print(json.dumps([name for name, module in sys.modules.items() if module is not None]))
"""


def run(*lines: list[str], without: tuple[str, ...] = (), columns: int = 80) -> tuple[str, set[str]]:
    """Run commands one after the other in a new process; return the printed text, and the packages that are loaded."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(without), json.dumps(lines)],
        capture_output=True, text=True, env={**os.environ, "COLUMNS": str(columns)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *shown, modules = done.stdout.splitlines()
    return "\n".join(shown) + done.stderr, {name.partition(".")[0] for name in json.loads(modules)}


def summaries(shown: str) -> dict[str, str]:
    """Return the summaries at the end of the help, by name of the command."""
    entries = re.split(r"\n  (?=\S)", shown.split("Commands:")[1].rstrip())[1:]
    return {name: " ".join(words) for name, *words in map(str.split, entries)}


def test_help_and_version_load_no_package_that_only_a_command_needs() -> None:
    shown, loaded = run(["--help"], ["--version"], *([name, "--help"] for name in COMMANDS))
    for name in COMMANDS:
        assert f"Usage: semcut {name} " in shown
    assert "semcut, version " in shown
    assert not loaded & LIGHT


def test_info_and_verify_load_no_engine(tmp_path: Path) -> None:
    config = IndexConfig(classes=3, bits=32, dim=4)
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(classified(np.random.default_rng(0), config, 50))
    place = str(tmp_path / "index")
    shown, loaded = run(["info", place], ["verify", place])
    assert "records" in shown
    assert "is sound." in shown
    assert "numpy" in loaded
    assert not loaded & HEAVY


def test_an_index_of_images_is_maintained_without_pillow(tmp_path: Path) -> None:
    config = IndexConfig(classes=3, bits=32, dim=4)
    with FaissIndex.create(tmp_path / "index", config) as index:
        index.add(
            replace(classified(np.random.default_rng(0), config, 5), uris=[f"{number}.png" for number in range(5)])
        )
        ids = index.ids().tolist()
    link = {"model": "/gone", "sha256": "0" * 64, "root": str(tmp_path)}
    (tmp_path / "index" / "connector.json").write_text(json.dumps(link))
    facts = [[1, record, f"{number}.png", 9, 9, "00" * 16, number < 2] for number, record in enumerate(ids)]
    (tmp_path / "index" / "files.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in facts))
    place = str(tmp_path / "index")
    commands = ["remove", place, "--uri", "0.png"], ["info", place], ["compact", place], ["verify", place]
    shown, loaded = run(*commands, without=("PIL", "torch"))
    assert "1 records removed, 4 records in" in shown
    assert "records: 1" in shown  # of 4 records, one was seen in training
    assert "known records: 4" in shown
    assert "is sound" in shown
    assert "PIL" not in loaded
    said, _ = run(["explore", place], ["sync", place], ["train", place, "--out", place], without=("PIL",))
    assert said.count("pillow not installed") == 3


def test_summaries_fit_on_a_line_of_80_columns() -> None:
    shown, _ = run(["--help"])
    found = summaries(shown)
    assert sorted(found) == COMMANDS
    assert len(shown.split("Commands:\n")[1].strip().splitlines()) == len(COMMANDS)
    for summary in found.values():
        assert summary.endswith(".")
        assert not summary.endswith("..")


def test_summaries_are_not_cut_in_a_narrow_terminal() -> None:
    wide, narrow = (summaries(run(["--help"], columns=columns)[0]) for columns in (80, 50))
    assert narrow == wide


@pytest.mark.parametrize(
    ("missing", "names", "extra"),
    [
        (
            "torch",
            {"adopt", "add", "calibrate", "demo", "evaluate", "index", "relink", "reproduce", "search", "sync",
             "train"},
            "train",
        ),
        ("fastapi", {"explore"}, "explore"),
        ("matplotlib", {"benchmark", "reproduce"}, "benchmark"),
        ("pymilvus", {"migrate"}, "milvus"),
    ],
)  # fmt: skip
def test_a_command_without_its_packages_is_listed_and_reports_what_to_install(
    missing: str, names: set[str], extra: str
) -> None:
    shown, loaded = run(["--help"], without=(missing,))
    found = summaries(shown)
    reason = f"{missing} not installed, needed to "
    assert {name for name, summary in found.items() if reason in summary} == names
    assert sorted(found) == COMMANDS
    said, _ = run(*([name, "something", "--else"] for name in names), without=(missing,))
    assert len(re.findall(rf"Error: {reason}.*: run `pip install 'semcut\[{extra}\]'`", said)) == len(names)
    assert not loaded & LIGHT


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("serach", " Did you mean 'search'?"), ("INFO", " Did you mean 'info'?"), ("zzzzz", "")],
)
def test_a_mistyped_command_names_the_nearest(tmp_path: Path, typed: str, hint: str) -> None:
    done = semcut(typed, "index", cwd=tmp_path, status=2)
    assert done.stderr.splitlines()[-1] == f"Error: No such command '{typed}'.{hint}"
    assert done.stdout == ""
