"""What commands show in a terminal: one style of progress bar, one style of table, JSON, messages and errors.

Results (tables, sentences, JSON) go to standard output; progress, messages and errors go to standard error, so that
the output of every command can be piped into another program.

Names, paths and reasons may come from someone else, and a terminal obeys what it gets: an escape sequence in the name
of a file can change its title, its colours or what is typed. So every string that is printed goes through `visible`,
and none is read as markup. `PlainConsole` does that to all strings, also those in tables; this module alone makes
`Text` objects, which are printed as they are.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click
from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from semcut.indexes.progress import Progress

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]|[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""Controls of terminals (C0, C1), changes of the direction of text, and surrogates, which cannot be encoded."""


def visible(text: str) -> str:
    """Replace every character that a terminal would obey, or could not show, by its escape, such as \\x1b."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


SKIPPED_SHOWN = 20
"""Skipped files that a command names; of others it prints the number."""


class PlainConsole(Console):
    """A console that shows every string as it is, with `visible`: no markup, no emoji codes, no highlighting."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn any string that is printed, alone or in a table, into a text."""
        return super().render_str(visible(text), **options)


OUT = PlainConsole()
ERR = PlainConsole(stderr=True)


class _RateColumn(rich_progress.ProgressColumn):
    """A column of a progress bar: the speed of the work, in units per second."""

    def render(self, task: rich_progress.Task) -> str:
        """Return the speed, or an empty text while the speed is unknown."""
        speed = task.finished_speed or task.speed
        return f"{speed:,.0f}/s" if speed else ""


@contextmanager
def progress_bar(work: str, quiet: bool = False) -> Iterator[Progress]:
    """Show a progress bar while the block runs, on standard error if that is a terminal.

    Args:
        work: name of the work; the task of the latest call of the callback is shown after the name.
        quiet: show nothing.

    Yields:
        The callback that moves the bar.
    """
    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        _RateColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=ERR, disable=quiet or not ERR.is_terminal) as bar:
        shown = bar.add_task(visible(work), total=None)
        last = 0

        def report(done: int, total: int, task: str = "") -> None:
            nonlocal last
            if done < last:  # another part of the work begins, with another speed
                bar.reset(shown)
            last = done
            bar.update(shown, completed=done, total=total, description=visible(f"{work}: {task}" if task else work))

        yield report


def new_table(*columns: str, title: str = "", text: Collection[int] = (0,)) -> Table:
    """Create an empty table in the style of all commands.

    Args:
        columns: headings. Long cells are wrapped, never cut.
        title: heading of the table.
        text: positions of the columns that are aligned left; all others hold figures and are aligned right.
    """
    table = Table(title=title or None, show_header=any(columns))
    for position, name in enumerate(columns):
        table.add_column(name, justify="left" if position in text else "right", overflow="fold")
    return table


def show_facts(facts: Mapping[str, object], title: str = "") -> None:
    """Print named values on standard output as a table of two columns; a dictionary is printed one entry per line."""
    table = new_table("", "", title=title)
    for name, value in facts.items():
        lines = (
            [f"{key}: {_plain(item)}" for key, item in value.items()] if isinstance(value, dict) else [_plain(value)]
        )
        table.add_row(name, Text("\n".join(map(visible, lines))))
    OUT.print(table)


def _plain(value: object) -> str:
    """Format a value; numbers get thousands separators."""
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def print_json(content: object) -> None:
    """Print JSON on standard output."""
    click.echo(json.dumps(content, indent=2))


def print_line(text: str) -> None:
    """Print one line on standard output."""
    OUT.print(text, soft_wrap=True)


def print_message(text: str) -> None:
    """Print one line on standard error."""
    ERR.print(text, soft_wrap=True)


def print_warning(text: str, label: str = "semcut", colour: str = "yellow") -> None:
    """Print one line on standard error that starts with a coloured label."""
    ERR.print(Text.assemble((f"{visible(label)}:", colour), f" {visible(text)}"), soft_wrap=True)


def print_skipped(skipped: Sequence[tuple[str, str]], at_most: int | None = None) -> None:
    """Print skipped files with reasons on standard error: all, or the first `at_most` and the number of others."""
    for file, reason in skipped[:at_most]:
        print_message(f"skipped {file}: {reason}")
    if at_most is not None and len(skipped) > at_most:
        print_message(f"skipped {len(skipped) - at_most} more")


def fail(reason: str, status: int = 1) -> NoReturn:
    """Print the reason as one line on standard error and end with the exit status."""
    print_warning(reason, colour="bold red")
    sys.exit(status)
