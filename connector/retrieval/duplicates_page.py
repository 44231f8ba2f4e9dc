"""Write groups of near-duplicates as one HTML page with small pictures, which needs no other file.

Uris come from anywhere, so every text is escaped, and the page may load nothing: its pictures are parts of it, decoded
and encoded here, within limits. Of many groups the page has the first, and says how many it leaves out.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from semcut.connector.data.decoding_pool import Limits
from semcut.connector.data.images import UnreadableImage, image_within
from semcut.indexes.progress import Progress
from semcut.indexes.regular_files import open_binary

BEGINS = b"<!doctype html>\n<!-- semcut duplicates -->"
"""How every such page begins."""

MOST_PICTURES, MOST_OF_A_GROUP = 1000, 12
"""Pictures on a page, and of one group."""

_SIDE = 128  # pixels
_LIMITS = Limits(first=1 << 26, most=5 << 28, seconds=10)
_MAX_FILE = 64 << 20  # bytes
_HEAD = """
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; }}
body {{ margin: 1.5rem; }}
section {{ border-top: 1px solid #8886; padding: .5rem 0 1rem; }}
ul {{ display: flex; flex-wrap: wrap; gap: .8rem; list-style: none; margin: 0; padding: 0; }}
li {{ width: {side}px; font-size: .75rem; overflow-wrap: anywhere; }}
img, .none {{ width: {side}px; height: {side}px; object-fit: contain; background: #8883; display: grid; place-items: center; }}
</style></head><body>
<h1>{title}</h1>
"""  # noqa: E501


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A record of a group of near-duplicates.

    Attributes:
        id: the id of the record.
        uri: the path of its file; None if the record has no uri.
        distance: Euclidean distance of its feature to that of the first record of the group.
        hamming: differing bits of their codes.
        key: the id as a string; None if the index has integer ids.
    """

    id: int
    uri: str | None
    distance: float
    hamming: int
    key: str | None = None

    @property
    def name(self) -> str:
        """The id as users write it."""
        return str(self.id) if self.key is None else self.key


def duplicates_page(
    title: str, summary: Sequence[str], groups: Sequence[Sequence[Duplicate]], progress: Progress
) -> tuple[bytes, list[str]]:
    """Write the page.

    Args:
        title: its heading.
        summary: paragraphs of plain text.
        groups: the groups, the first record of each first.
        progress: called with the number of groups whose pictures were made, and of all that are shown.

    Returns:
        The page in UTF-8, and a text "file (reason)" for each file that could not be shown.
    """
    counts, pictures, missing = [min(len(group), MOST_OF_A_GROUP) for group in groups], 0, []
    shown = 0
    while shown < len(groups) and pictures + counts[shown] <= MOST_PICTURES:
        pictures += counts[shown]
        shown += 1
    parts = [BEGINS.decode(), _HEAD.format(title=escape(_plain(title)), side=_SIDE)]
    parts += [f"<p>{escape(_plain(text))}</p>\n" for text in summary]
    for number, group in enumerate(groups[:shown]):
        items = []
        for member in group[:MOST_OF_A_GROUP]:
            picture, reason = _picture(member.uri)
            if reason is not None:
                missing.append(f"{member.uri} ({reason})")
            near = f"distance {member.distance:.3f}, {member.hamming} bits"
            texts = [escape(_plain(text)) for text in (member.name, near, member.uri or "no file")]
            items.append(f"<li>{picture}<b>{texts[0]}</b><br>{texts[1]}<br>{texts[2]}</li>")
        left = f"<p>and {len(group) - len(items):,} more</p>" if len(group) > len(items) else ""
        parts.append(f"<section><h2>{len(group):,} records</h2>\n<ul>{''.join(items)}</ul>{left}</section>\n")
        progress(number + 1, shown)
    if shown < len(groups):
        parts.append(f"<p>{len(groups) - shown:,} more groups are not shown here.</p>\n")
    return ("".join(parts) + "</body></html>\n").encode(), missing


def _picture(path: str | None) -> tuple[str, str | None]:
    """Return the small picture of a file as HTML, and why there is none; None if there is one, or no file."""
    if path is None:
        return '<span class="none">no file</span>', None
    try:
        with open_binary(path, max_bytes=_MAX_FILE, follow=True) as stream:
            image = image_within(stream, _SIDE, _LIMITS)
    except (OSError, ValueError, UnreadableImage) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return '<span class="none">missing</span>', reason
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}">', None


def _plain(text: str) -> str:
    """Replace half surrogates, which UTF-8 cannot hold, and characters that change the direction of text."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
