"""Output of commands in a terminal: progress bars, tables, and texts that contain markup."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from semcut.connector.cli import terminal


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Console:
    """Replace standard output and standard error by a terminal of 80 columns."""
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    for name in ("OUT", "ERR"):
        monkeypatch.setattr(terminal, name, console)
    return console


def shown(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_a_progress_bar_shows_work_task_and_share(screen: Console) -> None:
    with terminal.progress_bar("Copying [red]") as progress:
        progress(1, 4)
        progress(5, 10, "second part")
        progress(2, 8, "third part")
    assert "Copying [red]: third part" in shown(screen)
    assert "25%" in shown(screen)


def test_a_progress_bar_is_hidden_if_it_is_quiet_or_no_terminal(
    screen: Console, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.progress_bar("Copying", quiet=True) as progress:
        progress(1, 2)
    assert shown(screen) == ""
    monkeypatch.setattr(terminal, "ERR", Console(stderr=True))
    with terminal.progress_bar("Copying") as progress:
        progress(1, 2)
    assert capsys.readouterr().err == ""


def test_facts_show_markup_verbatim_and_numbers_with_separators(screen: Console) -> None:
    facts = {"records": 1234567, "normalised": True, "bytes [red]": {"codes": 1000, "features": 2000.5}}
    terminal.show_facts(facts, title="pictures [red]")
    lines = [line.strip("│┃┏┓└┘├┤ ").split("│") for line in shown(screen).splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert ["pictures [red]"] in cells
    assert ["records", "1,234,567"] in cells
    assert ["normalised", "True"] in cells
    assert ["bytes [red]", "codes: 1,000"] in cells
    assert ["", "features: 2,000.5"] in cells or ["features: 2,000.5"] in cells


def test_long_cells_are_wrapped_and_not_cut(screen: Console) -> None:
    table = terminal.new_table("id", "uri", text=(1,))
    table.add_row("7", "x" * 200)
    screen.print(table)
    assert shown(screen).count("x") == 200
    assert [column.justify for column in table.columns] == ["right", "left"]


def test_skipped_files_are_named_up_to_a_limit(screen: Console) -> None:
    terminal.print_skipped([(f"{number} [red].jpg", "not an image") for number in range(5)], at_most=2)
    assert shown(screen).splitlines() == [
        "skipped 0 [red].jpg: not an image",
        "skipped 1 [red].jpg: not an image",
        "skipped 3 more",
    ]
