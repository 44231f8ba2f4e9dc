"""Draw search results as one picture: a row per query, with the query at the left and its results at the right.

The caller gives up to two lines of text for each image, such as distance and relevance. The frame of a result is green
if the result has the class of the query, red if it has another class, and grey if either class is unknown (like figures
2 and 3 of Varga and Szirányi).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from semcut.connector.data.images import UnreadableImage, open_image

_TILE, _FRAME, _TEXT, _GAP = 96, 4, 30, 12  # pixels: side of an image, width of a frame, height of the text, margin
_GREEN, _RED, _GREY, _BLACK = (30, 150, 60), (200, 40, 40), (150, 150, 150), (20, 20, 20)
_UNREADABLE = (235, 235, 235)


@dataclass(frozen=True)
class Tile:
    """An image on a sheet: the image or its file, its class (None if unknown), and the lines of text under it."""

    image: str | Path | Image.Image
    label: str | None
    lines: tuple[str, ...]


def contact_sheet(rows: Sequence[tuple[Tile, Sequence[Tile]]], missing: list[str] | None = None) -> Image.Image:
    """Draw one row for each query and its results, best first.

    Args:
        rows: queries and their results.
        missing: gets a text "file (reason)" for each image that cannot be read, whose tile is crossed out.
    """
    missing = [] if missing is None else missing
    columns = 1 + max((len(records) for _, records in rows), default=0)
    side, height = _TILE + 2 * _FRAME, _TILE + 2 * _FRAME + _TEXT
    sheet = Image.new("RGB", (_GAP + (side + _GAP) * columns + _GAP, _GAP + (height + _GAP) * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    for row, (query, records) in enumerate(rows):
        top = _GAP + row * (height + _GAP)
        for column, tile in enumerate([query, *records]):
            left = _GAP + column * (side + _GAP) + (_GAP if column else 0)
            try:
                picture, colour = _picture(tile.image), _frame_colour(query, tile) if column else _BLACK
            except UnreadableImage as reason:
                missing.append(f"{tile.image} ({reason})")
                picture, colour = _crossed_out(), _GREY
            draw.rectangle((left, top, left + side - 1, top + side - 1), fill=colour)
            sheet.paste(picture, (left + _FRAME, top + _FRAME))
            for number, text in enumerate(tile.lines[:2]):
                draw.text((left, top + side + 1 + 13 * number), text, fill=_BLACK, font=font)
    return sheet


def _frame_colour(query: Tile, record: Tile) -> tuple[int, int, int]:
    if query.label is None or record.label is None:
        return _GREY
    return _GREEN if record.label == query.label else _RED


def _picture(source: str | Path | Image.Image) -> Image.Image:
    """Crop and scale an image to a tile; small images are enlarged without smoothing."""
    image = open_image(source)
    small = image.width < _TILE // 2
    return ImageOps.fit(image, (_TILE, _TILE), Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC)


def _crossed_out() -> Image.Image:
    """Draw the tile of an image that cannot be opened."""
    tile = Image.new("RGB", (_TILE, _TILE), _UNREADABLE)
    draw = ImageDraw.Draw(tile)
    draw.line((0, 0, _TILE, _TILE), fill=_GREY)
    draw.line((0, _TILE, _TILE, 0), fill=_GREY)
    draw.text((_TILE // 2, _TILE // 2), "missing", fill=_BLACK, anchor="mm", font=ImageFont.load_default(11))
    return tile
