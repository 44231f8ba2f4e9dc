"""Write the pieces of an HTML page: tables, pictures, and numbers as text. They suit any page."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Text that is HTML already; every other text is escaped."""


Row = Sequence[str]
"""Cells: plain text, or `Html`."""


def bold(text: str) -> Html:
    """Write plain text in bold."""
    return Html(f"<b>{escape(text)}</b>")


def table(head: Row, rows: Iterable[Row], left: Sequence[int] = (0,)) -> str:
    """Write a table.

    Args:
        head: titles of the columns.
        rows: the cells of each row.
        left: positions of the columns that are aligned to the left.
    """
    sides = ["l" if i in left else "" for i in range(len(head))]

    def line(cells: Row, tag: str) -> str:
        return (
            "<tr>" + "".join(
                f'<{tag} class="{side}">{cell}</{tag}>' if side else f"<{tag}>{cell}</{tag}>"
                for side, cell in zip(sides, map(_html, cells), strict=True)
            ) + "</tr>"
        )  # fmt: skip

    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table><thead>{line(head, "th")}</thead><tbody>\n{body}\n</tbody></table></div>'


def _html(cell: str) -> str:
    return cell if isinstance(cell, Html) else escape(cell)


def folded(summary: str, rows: int, content: str) -> str:
    """Write content that a reader can fold; it starts open if it has few rows."""
    return f"<details{' open' if rows < 25 else ''}><summary>{escape(summary)}</summary>{content}</details>"


def picture(themes: tuple[bytes, bytes] | None, caption: str) -> str:
    """Write a picture as a part of the page; empty for None.

    Args:
        themes: the picture as a PNG file, for a light and for a dark page.
        caption: plain text.
    """
    if themes is None:
        return ""
    light, dark = themes
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{_inline(dark)}">'
        f'<img src="{_inline(light)}" alt="{escape(caption)}"></picture>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def bytes_text(count: float | None) -> str:
    """Write a number of bytes with a unit; empty for None."""
    if count is None:
        return ""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def number_text(value: float | None, places: int) -> str:
    """Write a number with this many decimal places; empty for None."""
    return "" if value is None else f"{value:.{places}f}"


def percent_text(share: float | None) -> str:
    """Write a share as a percentage with enough digits; empty for None."""
    if share is None:
        return ""
    return f"{share:.1%}" if share >= 0.1 or not share else f"{share:.2%}" if share >= 0.001 else f"{share:.4%}"


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
