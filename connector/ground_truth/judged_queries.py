"""Queries whose right answers are known one by one: what every form of ground truth is read as.

An image is known by a name: that of its file without the ending, or, where `by_stem` is false, its path in the folder
of the images. Each query has three kinds of images. A search should find the relevant ones. Junk, such
as a picture on which the thing can hardly be seen, is taken out of every answer before it is judged. All others are
wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from semcut.connector.data.image_folders import Skipped
from semcut.connector.ground_truth import TruthForm
from semcut.indexes.errors import DataError, shown

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in pixels."""

ALL = "all"
"""The name of the level of a ground truth that has only one."""


class Query(NamedTuple):
    """A query: its name, the name of its image, and the box that the image is cropped to, if there is one."""

    name: str
    image: str
    box: Box | None = None


class Judgement(NamedTuple):
    """The names of the images that are relevant for a query, and of those that are ignored; none is both."""

    relevant: frozenset[str]
    junk: frozenset[str]


@dataclass(frozen=True)
class GroundTruth:
    """The right answers of a set of queries.

    Attributes:
        form: the form that was read.
        queries: n queries.
        levels: n judgements for each level of difficulty, by its name; most forms have only `ALL`.
        trapezoid: whether published figures of this set use the trapezoid rule, see `evaluation.metrics`.
        first_four: whether they count the right images among the first four, the N-S score.
        by_stem: whether images are known by the names of their files without the ending.
        names: the names of all images of the set; None if only judged ones are known.
        published: the numbers of queries and of images of the whole set; None if it has no published size.
        left_out: queries and images that cannot be used, with reasons.
    """

    form: TruthForm
    queries: tuple[Query, ...]
    levels: Mapping[str, tuple[Judgement, ...]]
    trapezoid: bool = True
    first_four: bool = False
    by_stem: bool = True
    names: frozenset[str] | None = None
    published: tuple[int, int] | None = None
    left_out: tuple[Skipped, ...] = field(default=())

    def judged(self) -> frozenset[str]:
        """Return the names of all images that are a query, relevant or junk."""
        sets = (named for level in self.levels.values() for one in level for named in one)
        return frozenset(query.image for query in self.queries).union(*sets)


def judgement(query: str, relevant: Iterable[str], junk: Iterable[str], source: str) -> Judgement:
    """Make the judgement of a query.

    Raises:
        DataError: an image is both relevant and junk; the message names the source.
    """
    found = Judgement(frozenset(relevant), frozenset(junk))
    if both := found.relevant & found.junk:
        raise DataError(
            f"{source}: {shown(min(both))} is both relevant and junk for the query {shown(query)}: expected one of them"
        )
    return found


def parsed_box(texts: Iterable[object], source: str) -> Box:
    """Read a box from four numbers or texts of numbers.

    Raises:
        DataError: they are no four numbers, or the box has no area; the message names the source.
    """
    values = list(texts)
    try:
        left, top, right, bottom = (float(value) for value in values)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        left = top = right = bottom = 0.0
    if not (-(2**31) < left < right < 2**31 and -(2**31) < top < bottom < 2**31):
        raise DataError(
            f"{source}: the box is {shown(values)}, expected left, top, right and bottom in pixels: four numbers"
        )
    return left, top, right, bottom


def stem_of(path: str) -> str:
    """Return the name of a file without its ending."""
    return os.path.splitext(os.path.basename(path))[0]
