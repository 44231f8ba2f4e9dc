"""The picture of results: query at the left, results at the right, colours of frames by class."""

from __future__ import annotations

from PIL import Image

from semcut.connector.retrieval.contact_sheet import Tile, contact_sheet


def test_the_colour_of_a_frame_says_right_wrong_or_unknown() -> None:
    image = Image.new("RGB", (50, 50), "blue")
    missing: list[str] = []
    sheet = contact_sheet(
        [
            (
                Tile(image, "cat", ("query",)),
                [
                    Tile(image, "cat", ("d 0.1", "R 0.9")),
                    Tile(image, "dog", ("d 0.2", "R 0.5")),
                    Tile(image, None, ("d 0.3", "R 0.4")),
                    Tile("missing.png", "cat", ("d 0.4", "R 0.3")),
                ],
            )
        ],
        missing,
    )
    top, lefts = 12 + 1, [12 + 1 + i * 116 + (12 if i else 0) for i in range(5)]
    colours = [sheet.getpixel((left, top)) for left in lefts]
    assert colours == [(20, 20, 20), (30, 150, 60), (200, 40, 40), (150, 150, 150), (150, 150, 150)]
    middle = [sheet.getpixel((left + 50, top + 20)) for left in lefts]
    assert middle == [(0, 0, 255)] * 4 + [(235, 235, 235)]
    assert missing == ["missing.png (no such file)"]
    below = sheet.crop((lefts[1], top + 104, lefts[1] + 60, top + 134)).convert("L")
    assert below.getextrema()[0] < 100  # dark pixels of text


def test_rows_may_have_different_numbers_of_results() -> None:
    tile = Tile(Image.new("RGB", (8, 8)), None, ())
    assert contact_sheet([(tile, [tile] * 3), (tile, [])]).width == contact_sheet([(tile, [tile] * 3)]).width
    assert contact_sheet([]).size[0] > 0
