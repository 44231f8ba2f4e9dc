"""Directories of results that come from someone else, or are none: nothing in them is written over or through links."""

from __future__ import annotations

import json
import shutil

import pytest

from semcut.connector.reproduce.markdown_text import command_of, is_command
from semcut.connector.reproduce.measure_network import measure_network
from semcut.connector.reproduce.results_folder import begin_results, check_results, record_command, recorded_commands
from semcut.connector.reproduce.results_page import keep_speed, write
from semcut.indexes.errors import DataError
from semcut.indexes.progress import silent
from tests.command import semcut
from tests.connector.benchmark.test_run_folders import tree
from tests.connector.reproduce.conftest import PROTOCOL
from tests.connector.reproduce.test_results_page import run_of

COMMAND = "semcut reproduce out network --data digits"


@pytest.fixture
def out(results, tmp_path):
    """Give a copy of a directory of results."""
    return shutil.copytree(results[0], tmp_path / "out")


@pytest.mark.parametrize("commands", [None, {"mine": 1}, [], ["npm run build"], [COMMAND, "rm -rf x"]])
def test_a_directory_of_the_user_stays_as_it_is(commands, networks, out, tmp_path):
    (out / "results.md").write_text("my chapter")
    (out / "commands.json").unlink()
    if commands is not None:
        (out / "commands.json").write_text(json.dumps(commands))
    (tmp_path / "run.json").write_text(json.dumps(run_of(200, 10)))
    before = tree(out)
    for call in (
        lambda: measure_network(networks["ortho-0"], "digits", PROTOCOL, out, progress=silent),
        lambda: keep_speed(out, tmp_path),
        lambda: write(out),
    ):
        with pytest.raises(DataError, match="choose a new directory"):
            call()
    given = (networks["ortho-0"], "--data", "digits", "--protocol", PROTOCOL)
    for arguments in ((), given, ("--speed", tmp_path)):
        assert "choose a new directory" in semcut("reproduce", "out", *arguments, cwd=tmp_path, status=1).stderr
    assert tree(out) == before


@pytest.mark.parametrize("place", ["", "paper-0", "paper-0/index"])
def test_folders_of_results_are_no_links(place, networks, results, out, tmp_path):
    name = results[1]["paper-0"].about["name"]
    link = out / PROTOCOL / place.replace("paper-0", name)
    link.rename(tmp_path / "thesis")
    link.symlink_to(tmp_path / "thesis")
    for file in ("figures.csv", "fig4.png", "training.png"):
        (tmp_path / "thesis" / file).write_text("mine")
    before = tree(tmp_path)
    for arguments in ((), (networks["ortho-0"], "--data", "digits", "--protocol", PROTOCOL)):
        done = semcut("reproduce", "out", *arguments, cwd=tmp_path, status=1)
        assert "is a symbolic link, expected a directory that semcut reproduce made" in done.stderr
    assert tree(tmp_path) == before


def test_links_instead_of_files_are_replaced_and_not_followed(out, tmp_path):
    victim = tmp_path / "mine"
    victim.write_text("mine")
    names = ("results.md", *(f"{PROTOCOL}/{name}" for name in ("figures.csv", "categories.csv", "fig4.png")))
    for name in names:
        (out / name).symlink_to(victim)
    write(out)
    assert victim.read_text() == "mine"
    assert not any((out / name).is_symlink() for name in names)


def test_a_new_or_an_empty_directory_becomes_one_of_results(tmp_path):
    for out in (tmp_path / "new" / "deep", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert not check_results(out)
        begin_results(out)
        assert check_results(out)
        assert recorded_commands(out) == []
        for _ in range(2):
            assert record_command(out, COMMAND) == [COMMAND] == recorded_commands(out)


def test_commands_of_earlier_versions_are_kept(tmp_path):
    (tmp_path / "commands.json").write_text(json.dumps([COMMAND]))
    assert check_results(tmp_path)
    assert record_command(tmp_path, f"{COMMAND} --json") == [COMMAND, f"{COMMAND} --json"]


@pytest.mark.parametrize(
    "hostile",
    [
        7, "curl evil", "semcut reproduce", "semcut reproduce x; curl evil", "semcut reproduce $(curl evil)",
        "semcut reproduce x\n```\n<img src=evil>", "semcut reproduce '```'", "semcut reproduce '\x1b]0;evil'",
        "semcut reproduce '", "semcut reproduce x | sh", f"semcut reproduce {'x' * 100_000}",
    ],
)  # fmt: skip
def test_commands_that_are_none_of_semcut_are_refused(hostile, out):
    commands = [hostile] * (1001 if hostile == "semcut reproduce" else 1)
    (out / "commands.json").write_text(json.dumps({"semcut_results": 1, "commands": commands}))
    with pytest.raises(DataError, match="was not written by semcut reproduce"):
        write(out)


def test_a_command_of_any_words_can_be_recorded(tmp_path):
    begin_results(tmp_path)
    command = command_of("semcut", "reproduce", "a b", "it's", "line\nbreak", "\udcff", "$x;|", "\u202e", "\\", "")
    assert is_command(command, "semcut", "reproduce")
    assert record_command(tmp_path, command) == recorded_commands(tmp_path) == [command]
