"""The `semcut` command: finds its sub-commands by entry point and runs one of them.

Every sub-command has a module of its own, registered in pyproject.toml in the group `semcut.commands`. The top of such
a module imports only click, rich and other modules that load quickly; a heavy package is imported inside the function
that needs it. So listing all commands and printing their help takes a fraction of a second (tests/test_start.py).

An error that semcut raises on purpose, and an error of the operating system with a file, is printed as one line on
standard error, with exit status 1. Wrong use of the command line has exit status 2.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from semcut.connector.cli.terminal import fail, print_warning, visible
from semcut.connector.daemon_threads import leave
from semcut.indexes.errors import SemcutError, SemcutWarning


class CommandGroup(click.Group):
    """The sub-commands that are installed. A sub-command whose packages are missing is listed with what to install."""

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group="semcut.commands")}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all sub-commands."""
        return sorted(self._entry_points)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a sub-command; return None for a name that does not exist."""
        entry = self._entry_points.get(cmd_name)
        if entry is None:
            return None
        try:
            command = entry.load()
        except SemcutError as error:
            return _unavailable_command(cmd_name, str(error))
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the sub-command; names in an error of the command line can be those of files, by a pattern of a shell."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.message = visible(error.message)  # type: ignore[misc]
            raise
        except KeyboardInterrupt:
            leave(1, "\nAborted!")  # as click says it
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of sub-commands with their whole summaries; click itself would cut each to one line."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, found.get_short_help_str(limit=1000)) for name, found in commands if found])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the sub-command that the first argument names; suggest a similar name in the error for a wrong one."""
        name = args[0]
        near = [] if name in self._entry_points else get_close_matches(name.lower(), self._entry_points, n=1)
        if near and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)


def _unavailable_command(name: str, reason: str) -> click.Command:
    """Create a command that only prints the reason why the sub-command with this name cannot be imported."""

    @click.command(name, short_help=f"(not available: {reason})", context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1)
    def command(arguments: tuple[str, ...]) -> None:
        raise click.ClickException(reason)

    return command


@click.command(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="semcut")
def app() -> None:
    """Find similar images: train a network, index images, search them."""


def main(command: click.Command = app) -> None:
    """Run the `semcut` command, or the sub-command that a script passes; then exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without Unicode shows escapes in place of an error
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _own_warnings_as_lines():
            command()
    except SemcutError as error:
        fail(str(error))
    except OSError as error:  # with a file or directory: full disk, no permission
        fail(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}")


@contextmanager
def _own_warnings_as_lines() -> Iterator[None]:
    """Print each warning of semcut as one line, without the source line that issued the warning."""
    show_other: Callable[..., None] = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **others: Any) -> None:
        if issubclass(category, SemcutWarning):
            print_warning(str(message))
        else:
            show_other(visible(str(message)), category, *rest, **others)

    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.simplefilter("always", SemcutWarning)  # whatever PYTHONWARNINGS asks for
        warnings.filterwarnings("ignore", module="PIL")  # a received image could fill the terminal or the log
        yield
