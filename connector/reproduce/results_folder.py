"""The directory of results: how semcut recognises its own, and which commands measured networks there.

    commands.json     the commands; the file also says that the directory is one of results

The directory may come from someone else, or be one that a user gave by mistake. So nothing is written before it is
known that the directory is new, or one of results, and that all folders in it are real directories.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from semcut.connector.data.protocols import PROTOCOLS
from semcut.connector.ground_truth import TruthForm
from semcut.connector.own_folders import listed, require_directory
from semcut.connector.reproduce.markdown_text import is_command
from semcut.indexes.errors import DataError
from semcut.indexes.regular_files import read_json
from semcut.indexes.storage.atomic_write import write_json

MAKER = "semcut reproduce"

PAGE_FILES = ("figures.csv", "categories.csv", "training.png", "fig4.png")
"""What the page has in the folder of a protocol, and the first and the last in that of a set. These files are
replaced, so a link in place of one leads nowhere."""

_COMMANDS = "commands.json"
_VERSION = 1
_MOST_COMMANDS = 1000


def check_results(out: Path) -> bool:
    """Check that a directory is new, empty or one of results, and return which; nothing is changed.

    Returns:
        Whether it is one of results.

    Raises:
        DataError: the directory has something else, or a folder of results is a link or no directory.
    """
    if os.path.lexists(out / _COMMANDS):
        recorded_commands(out)
        for protocol in (*PROTOCOLS, *get_args(TruthForm)):
            if require_directory(out / protocol, MAKER):
                for network in listed(out / protocol):
                    if network.is_symlink() and network.name not in PAGE_FILES:
                        require_directory(network, MAKER)
                    for index in ("index", "unfinished"):
                        require_directory(network / index, MAKER)
        return True
    if os.path.lexists(out) and not out.is_dir():
        raise DataError(f"{out} is not a directory: choose another")
    if out.is_dir() and listed(out):
        raise DataError(f"{out} exists already and holds no results of {MAKER}: choose a new directory")
    return False


def begin_results(out: Path) -> None:
    """Make a directory of results, unless it is there.

    Raises:
        DataError: as for `check_results`.
    """
    if not check_results(out):
        out.mkdir(parents=True, exist_ok=True)
        _write(out, [])


def recorded_commands(out: Path) -> list[str]:
    """Read the commands that measured networks in a directory of results; none if there is no such directory.

    Raises:
        DataError: the file has something else.
    """
    file = out / _COMMANDS
    if not os.path.lexists(file):
        return []
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise _foreign(file, str(getattr(error, "strerror", None) or error)) from None
    known = isinstance(content, dict) and content.get("semcut_results") == _VERSION
    # Earlier versions wrote the commands alone.
    commands = content.get("commands") if isinstance(content, dict) and known else content
    if not isinstance(commands, list) or not (known or commands):
        raise _foreign(file, "it has no list of commands")
    if len(commands) > _MOST_COMMANDS:
        raise _foreign(file, f"it has {len(commands):,} commands, expected at most {_MOST_COMMANDS:,}")
    if not all(is_command(command, "semcut", "reproduce") for command in commands):
        raise _foreign(file, "it has more than commands of this kind")
    return commands


def record_command(out: Path, command: str) -> list[str]:
    """Add a command to the recorded ones, of which the latest 1,000 are kept; return them.

    Args:
        out: a directory of results.
        command: the command, from `command_of`.
    """
    commands = list(dict.fromkeys([*recorded_commands(out), command]))[-_MOST_COMMANDS:]
    _write(out, commands)
    return commands


def _write(out: Path, commands: list[str]) -> None:
    write_json(out / _COMMANDS, {"semcut_results": _VERSION, "commands": commands})


def _foreign(file: Path, reason: str) -> DataError:
    return DataError(f"{file} was not written by {MAKER} ({reason}): choose a new directory")
