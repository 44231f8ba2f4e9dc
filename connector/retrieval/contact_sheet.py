"""A picture of search results: every query at the left, its best records at the right.

Under each record stand its distance and relevance; its frame is green if its class is the query's, red if it is
another, grey if one of them is not known (the figures 2 and 3 of Varga and Szirányi).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from semcut.connector.data.images import UnreadableImage, open_image

_TILE, _FRAME, _TEXT, _GAP = 96, 4, 30, 12
_GREEN, _RED, _GREY, _BLACK = (30, 150, 60), (200, 40, 40), (150, 150, 150), (20, 20, 20)


@dataclass(frozen=True)
class Tile:
    """An image of a sheet: where it is, its class if known, and the lines of text under it."""

    image: str | Path | Image.Image
    label: str | None
    lines: tuple[str, ...]


def contact_sheet(rows: Sequence[tuple[Tile, Sequence[Tile]]]) -> Image.Image:
    """Draw one row per query and its records, best first. An image that cannot be read shows as an empty tile."""
    columns = 1 + max((len(found) for _, found in rows), default=0)
    cell, height = _TILE + 2 * _FRAME, _TILE + 2 * _FRAME + _TEXT
    sheet = Image.new("RGB", (_GAP + (cell + _GAP) * columns + _GAP, _GAP + (height + _GAP) * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    for line, (query, found) in enumerate(rows):
        top = _GAP + line * (height + _GAP)
        for column, tile in enumerate([query, *found]):
            left = _GAP + column * (cell + _GAP) + (_GAP if column else 0)
            colour = _BLACK
            if column:
                known = query.label is not None and tile.label is not None
                colour = _GREY if not known else _GREEN if tile.label == query.label else _RED
            draw.rectangle((left, top, left + cell - 1, top + cell - 1), fill=colour)
            sheet.paste(_picture(tile.image), (left + _FRAME, top + _FRAME))
            for number, text in enumerate(tile.lines[:2]):
                draw.text((left, top + cell + 1 + 13 * number), text, fill=_BLACK, font=font)
    return sheet


def _picture(source: str | Path | Image.Image) -> Image.Image:
    try:
        image = open_image(source)
    except UnreadableImage:
        return Image.new("RGB", (_TILE, _TILE), (235, 235, 235))
    small = image.width < _TILE // 2
    return ImageOps.fit(image, (_TILE, _TILE), Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC)
