"""Write texts that may come from someone else into a page of Markdown, so that they stay texts.

Names of networks and classes, and recorded commands, come with figures that were received. None of them can become a
link, HTML or another line of the page, and no command has anything that a shell would run besides semcut.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&$#]")
_MOST_CHARACTERS = 100_000


def one_line(text: str) -> str:
    """Replace every character that is not printed, such as a line break, by its escape, such as \\n."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def plain(text: str) -> str:
    """Escape a text for a paragraph or a cell of a table."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", one_line(text))


def console(commands: Sequence[str]) -> str:
    """Write commands as a block of code; empty if there are none.

    No line can end the block, because each begins with "$ " and has no line break.
    """
    return "```console\n" + "\n".join(f"$ {one_line(command)}" for command in commands) + "\n```" if commands else ""


def command_of(*words: str) -> str:
    """Write a command for a shell; characters that are not printed are replaced by escapes."""
    return shlex.join(map(one_line, words))


def is_command(text: object, *words: str) -> bool:
    """Return whether this is a single command, as `command_of` writes it, that begins with these words."""
    if not isinstance(text, str) or len(text) > _MOST_CHARACTERS or "```" in text or not text.isprintable():
        return False
    try:
        found = shlex.split(text)
    except ValueError:
        return False
    return found[: len(words)] == [*words] and shlex.join(found) == text
