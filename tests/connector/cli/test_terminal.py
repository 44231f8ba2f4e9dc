"""Output of commands in a terminal: progress bars, tables, and texts that contain markup."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from semcut.connector.cli import terminal
from semcut.connector.models.checkpoint import Checkpoint
from tests.command import SEMCUT, semcut


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> terminal.PlainConsole:
    """Replace standard output and standard error by a terminal of 80 columns."""
    console = terminal.PlainConsole(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    for name in ("OUT", "ERR"):
        monkeypatch.setattr(terminal, name, console)
    return console


def shown(screen: terminal.PlainConsole) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_a_progress_bar_shows_work_task_and_share(screen: terminal.PlainConsole) -> None:
    with terminal.progress_bar("Copying [red]") as progress:
        progress(1, 4)
        progress(5, 10, "second part")
        progress(2, 8, "third part")
    assert "Copying [red]: third part" in shown(screen)
    assert "25%" in shown(screen)


def test_a_progress_bar_is_hidden_if_it_is_quiet_or_no_terminal(
    screen: terminal.PlainConsole, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.progress_bar("Copying", quiet=True) as progress:
        progress(1, 2)
    assert shown(screen) == ""
    monkeypatch.setattr(terminal, "ERR", terminal.PlainConsole(stderr=True))
    with terminal.progress_bar("Copying") as progress:
        progress(1, 2)
    assert capsys.readouterr().err == ""


def test_facts_show_markup_verbatim_and_numbers_with_separators(screen: terminal.PlainConsole) -> None:
    facts = {"records": 1234567, "normalised": True, "bytes [red]": {"codes": 1000, "features": 2000.5}}
    terminal.show_facts(facts, title="pictures [red]")
    lines = [line.strip("│┃┏┓└┘├┤ ").split("│") for line in shown(screen).splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert ["pictures [red]"] in cells
    assert ["records", "1,234,567"] in cells
    assert ["normalised", "True"] in cells
    assert ["bytes [red]", "codes: 1,000"] in cells
    assert ["", "features: 2,000.5"] in cells or ["features: 2,000.5"] in cells


def test_long_cells_are_wrapped_and_not_cut(screen: terminal.PlainConsole) -> None:
    table = terminal.new_table("id", "uri", text=(1,))
    table.add_row("7", "x" * 200)
    screen.print(table)
    assert shown(screen).count("x") == 200
    assert [column.justify for column in table.columns] == ["right", "left"]


def test_skipped_files_are_named_up_to_a_limit(screen: terminal.PlainConsole) -> None:
    terminal.print_skipped([(f"{number} [red].jpg", "not an image") for number in range(5)], at_most=2)
    assert shown(screen).splitlines() == [
        "skipped 0 [red].jpg: not an image",
        "skipped 1 [red].jpg: not an image",
        "skipped 3 more",
    ]


NAMES = [
    "\x1b]0;title\x07", "\x1b[2J\x1b[31mred", "\x9b31mred", "\x85", "a\nb", "a\rb", "a\tb", "\x7f", "\0",
    "\u202egnp.exe", "\u2066x\u2069", "\u200f", "\u2028", "\ud800", "\udc9b31m", "\udfff", "[red]x[/]",
    "[link=http://x]y", ":smile:", "[/nothing]", "x\\", "[red\\",
]  # fmt: skip
SHOWN = [
    r"\x1b]0;title\x07", r"\x1b[2J\x1b[31mred", r"\x9b31mred", r"\x85", r"a\nb", r"a\rb", r"a\tb", r"\x7f", r"\x00",
    r"\u202egnp.exe", r"\u2066x\u2069", r"\u200f", r"\u2028", r"\ud800", r"\udc9b31m", r"\udfff", "[red]x[/]",
    "[link=http://x]y", ":smile:", "[/nothing]", "x\\", "[red\\",
]  # fmt: skip
"""Names that mean harm, and what a terminal gets of them."""


@pytest.mark.parametrize(("name", "expected"), list(zip(NAMES, SHOWN, strict=True)))
def test_no_name_commands_a_terminal(screen: terminal.PlainConsole, name: str, expected: str) -> None:
    terminal.print_line(name)
    terminal.print_message(name)
    terminal.print_warning(name)
    terminal.print_warning("x", label=name)
    terminal.print_skipped([(name, name)])
    terminal.show_facts({name: name, f"{name}2": {name: name}}, title=name)
    table = terminal.new_table(name, title=name)
    table.add_row(name)
    screen.print(table)
    with pytest.raises(SystemExit):
        terminal.fail(name)
    printed = shown(screen)
    assert printed.count(expected) == 16
    assert not set(printed) & (set(map(chr, range(32))) - {"\n"})
    assert not set(printed) & set(map(chr, range(0x7F, 0xA0)))
    printed.encode()
    with terminal.progress_bar(name) as progress:
        progress(1, 2, name)
    assert f"{expected}: {expected}" in shown(screen)
    shown(screen).encode()


def test_every_control_and_direction_is_made_visible_and_nothing_else() -> None:
    for code in (*range(0x3000), *range(0xD000, 0x10000), *range(0xE0000, 0xE0100)):
        character, kind = chr(code), unicodedata.category(chr(code))
        unsafe = kind in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in BIDI
        unsafe |= code in (0x061C, 0x200E, 0x200F, 0xFEFF)
        assert (terminal.visible(character) != character) == unsafe, hex(code)
        assert terminal.visible(character).isascii() or not unsafe


BIDI = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@pytest.mark.parametrize("command", ["index", "search", "train", "evaluate", "info", "verify", "backup", "migrate"])
def test_no_command_prints_a_name_raw(command: str, tmp_path: Path) -> None:
    """Names of files, as a pattern of a shell gives them to a command: in errors of semcut and of the command line."""
    evil = "\x1b]0;owned\x07[red]\u202e\udc9b.png"
    (tmp_path / evil).mkdir()
    (tmp_path / evil / "connector.json").write_text("{}")
    for arguments in ([evil], [evil, evil], [f"--{evil}"], [evil, evil, evil, evil], [f"--model={evil}", evil]):
        for status in (1, 2):
            with suppress(AssertionError):
                done = semcut(command, *arguments, cwd=tmp_path, status=status)
                break
        else:
            pytest.fail(f"{command} {arguments} ended in another way")
        printed = done.stdout + done.stderr
        assert not set(printed) & (set(map(chr, range(32))) - {"\n"}), printed
        assert not set(printed) & {"\u202e", "\udc9b", "\x9b"}


def test_crafted_names_of_files_classes_and_records(tmp_path: Path, model: Checkpoint) -> None:
    evil = "\x1b[31m[red]:smile:\u202e\x9b"
    folder = tmp_path / evil
    folder.mkdir()
    Image.new("L", (9, 9)).save(folder / f"{evil}.png")
    (folder / f"{evil}.txt").write_text("no image")
    (folder / "\udcff.png").write_text("no text")
    done = semcut("index", folder, "--model", model.path, "--out", "index", cwd=tmp_path)
    found = semcut("search", "index", folder / f"{evil}.png", "--cutoff", "0", "--picture", "p.png", cwd=tmp_path)
    expected = r"\x1b[31m[red]:smile:\u202e\x9b"
    assert f"{expected}.txt: not an image" in done.stderr
    assert r"\udcff.png: its name is not valid text" in done.stderr
    assert expected in "".join(line.strip("│ ").split("│")[-1].strip() for line in found.stdout.splitlines())
    for printed in (done.stdout, done.stderr, found.stdout, found.stderr):
        assert not set(printed) & (set(map(chr, range(32))) - {"\n"}), printed
        assert not set(printed) & {"\u202e", "\x9b"}
    as_json = semcut("search", "index", folder / f"{evil}.png", "--cutoff", "0", "--json", cwd=tmp_path)
    assert json.loads(as_json.stdout)[0]["hits"][0]["uri"] == str(folder / f"{evil}.png")
    assert as_json.stdout.isascii()


def test_a_terminal_without_unicode_gets_escapes(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([SEMCUT, "info", "é\x1b"], capture_output=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 1
    assert b"\\xe9\\x1b" in done.stderr
    assert b"Traceback" not in done.stderr


WARNS = """
import click, warnings
from semcut.connector.cli.app import main

@click.command()
def command():
    for number in range(1000):
        warnings.warn_explicit(f"damaged {number}", UserWarning, "TiffImagePlugin.py", 1, "PIL.TiffImagePlugin")
    warnings.warn("of another library")

main(command)
"""


def test_what_pillow_says_of_a_received_image_does_not_fill_the_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", WARNS], capture_output=True, text=True, check=True)
    assert "damaged" not in done.stderr
    assert "of another library" in done.stderr
