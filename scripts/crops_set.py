"""Make a set in which the same thing is to be found, from any pictures: overlapping crops, recoloured, and distractors.

    python scripts/crops_set.py PICTURES OUT --things 1000 --distractors 2000 --kept 0.75

Of each thing, a picture gives three: the upper left part (the query, NNNN00.png), the lower right part (NNNN01.png),
and a mirrored crop of the middle in another light (NNNN02.png). Distractors are whole pictures of which nothing else is
in the set. The names are those of Holidays, so that two commands give the figures:

    semcut index OUT --out INDEX
    semcut evaluate INDEX OUT --ground-truth holidays
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MOST = 9000  # names have four digits, from 1000


@click.command(help=__doc__)
@click.argument("pictures", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--things", type=click.IntRange(1, MOST), default=1000, show_default=True)
@click.option("--distractors", type=click.IntRange(0), default=2000, show_default=True)
@click.option("--kept", type=click.FloatRange(0.5, 1), default=0.75, show_default=True, help="Share of a side kept.")
@click.option("--seed", default=0, show_default=True)
def main(pictures: Path, out: Path, things: int, distractors: int, kept: float, seed: int) -> None:
    files = sorted(path for path in pictures.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(files))[: things + distractors]
    if len(chosen) < things + distractors:
        raise click.ClickException(f"{pictures} has {len(files):,}, expected {things + distractors:,} pictures")
    out.mkdir()
    for number, place in enumerate(chosen.tolist()):
        picture = Image.open(files[place]).convert("RGB")
        if number >= things:
            picture.save(out / f"other {number}.png")
            continue
        for part, crop in enumerate(parts(picture, kept, rng)):
            crop.save(out / f"{1000 + number}{part:02}.png")


def parts(picture: Image.Image, kept: float, rng: np.random.Generator) -> list[Image.Image]:
    """Return two opposite corners of a picture, and a mirrored crop of its middle in another light."""
    width, height = picture.size
    wide, high = round(kept * width), round(kept * height)
    left, top = (width - wide) // 2, (height - high) // 2
    middle = ImageOps.mirror(picture.crop((left, top, left + wide, top + high)))
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        middle = change(middle).enhance(float(rng.uniform(0.7, 1.3)))
    return [picture.crop((0, 0, wide, high)), picture.crop((width - wide, height - high, width, height)), middle]


if __name__ == "__main__":
    main()
