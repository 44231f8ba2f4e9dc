"""Pictures in which the same thing is to be found, made by drawing: groups of overlapping crops and recoloured copies.

Each form of ground truth is written for the same pictures, so that all give figures of the same kind.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

WIDTH, HEIGHT, THINGS, DISTRACTORS = 96, 72, 6, 12


def drawn(number: int) -> Image.Image:
    """Draw a thing: bars and discs in colours and places that depend on its number."""
    rng = np.random.default_rng(number)
    picture = Image.new("RGB", (WIDTH, HEIGHT), tuple(int(one) for one in rng.integers(0, 256, 3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(6):
        left, top, wide, high = (int(one) for one in rng.integers((0, 0, 16, 16), (64, 48, 60, 60)))
        colour = tuple(int(one) for one in rng.integers(0, 256, 3))
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)((left, top, left + wide, top + high), fill=colour)
    return picture


def variants(number: int) -> list[Image.Image]:
    """Return four pictures of a thing: whole, two overlapping crops, and a recoloured crop."""
    whole = drawn(number)
    crops = [whole.crop((0, 0, 84, 64)), whole.crop((8, 6, 96, 72)), whole.crop((6, 4, 90, 70))]
    return [whole, crops[0], crops[1], ImageEnhance.Color(ImageEnhance.Brightness(crops[2]).enhance(1.1)).enhance(0.8)]


def detail(number: int) -> Image.Image:
    """Return a picture on which hardly anything of a thing can be seen: junk."""
    return drawn(number).crop((0, 0, 16, 12)).resize((WIDTH, HEIGHT))


def save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def write_oxford(place: Path) -> None:
    """Write photos/ and truth/ as Oxford 5k has them: the box of a query is its whole picture but a margin."""
    truth = place / "truth"
    truth.mkdir(parents=True)
    for thing in range(THINGS):
        names = [f"hall_{thing}_{number:06}" for number in range(4)]
        for name, picture in zip(names, variants(thing), strict=True):
            save(picture, place / "photos" / f"{name}.png")
        save(detail(thing), place / "photos" / f"hall_{thing}_junk.png")
        (truth / f"hall_{thing}_1_query.txt").write_text(f"oxc1_{names[0]} 2.5 2.0 {WIDTH - 2}.0 {HEIGHT - 2}\n")
        for kind, named in (("good", names[:2]), ("ok", names[2:]), ("junk", [f"hall_{thing}_junk"])):
            (truth / f"hall_{thing}_1_{kind}.txt").write_text("".join(f"{name}\n" for name in named))
    write_distractors(place)


def write_revisited(place: Path) -> None:
    """Write photos/ and truth.json as revisited Oxford has them; the images of the queries are in photos/, too."""
    images, queries, judged = [], [], []
    for thing in range(THINGS):
        at = len(images)
        names = [f"hall_{thing}_{number:06}" for number in range(4)]
        for name, picture in zip(names, variants(thing), strict=True):
            save(picture, place / "photos" / f"{name}.png")
        save(detail(thing), place / "photos" / f"hall_{thing}_junk.png")
        queries.append(names[0])
        images += [*names[1:], f"hall_{thing}_junk"]
        hard = [at + 2] if thing else []  # the first query has no hard image
        easy = [at, at + 1] if thing else [at, at + 1, at + 2]
        judged.append({"bbx": [0, 0, WIDTH - 3.5, HEIGHT - 1], "easy": easy, "hard": hard, "junk": [at + 3]})
    write_distractors(place)
    (place / "truth.json").write_text(json.dumps({"imlist": images, "qimlist": queries, "gnd": judged}))


def write_holidays(place: Path, things: int = THINGS) -> None:
    for thing in range(things):
        for number, picture in enumerate(variants(thing)):
            save(picture, place / "photos" / f"{1000 + thing}{number:02}.png")
    write_distractors(place)


def write_ukbench(place: Path) -> None:
    for thing in range(THINGS):
        for number, picture in enumerate(variants(thing)):
            save(picture, place / "photos" / f"ukbench{4 * thing + number:05}.png")
    write_distractors(place)


def write_table(place: Path) -> None:
    """Write photos/ in folders, and truth.csv."""
    rows = ["query,relevant,junk,box"]
    for thing in range(THINGS):
        for number, picture in enumerate(variants(thing)):
            save(picture, place / "photos" / f"thing {thing}" / f"{number}.png")
        save(detail(thing), place / "photos" / f"thing {thing}" / "junk.png")
        folder = f"thing {thing}"
        rows.append(f"{folder}/0.png,{folder}/1.png;{folder}/2.png;{folder}/3.png,{folder}/junk.png,")
    write_distractors(place)
    (place / "truth.csv").write_text("\n".join(rows) + "\n")


def write_distractors(place: Path) -> None:
    for number in range(DISTRACTORS):
        save(drawn(1000 + number), place / "photos" / "others" / f"other {number}.png")


FORMS = {
    "oxford5k=truth": write_oxford,
    "paris6k=truth": write_oxford,
    "roxford5k=truth.json": write_revisited,
    "rparis6k=truth.json": write_revisited,
    "holidays": write_holidays,
    "ukbench": write_ukbench,
    "csv=truth.csv": write_table,
}
"""What writes a set, by the value of --ground-truth."""
