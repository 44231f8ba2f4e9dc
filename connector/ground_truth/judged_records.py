"""Find the records of an index that a ground truth names, and say how much of the set is there.

Names are only looked up among the images of the set, so a ground truth from someone else opens no other file. A set may
be incomplete. Then only images that have a record count as relevant, and queries without one are left out: the figures
are those of a part of the set, and `Coverage` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semcut.connector.data.file_arguments import files_given
from semcut.connector.data.image_folders import Skipped
from semcut.connector.ground_truth.judged_queries import Box, GroundTruth, stem_of
from semcut.indexes.argument_checks import instance_given
from semcut.indexes.array_checks import integers_given
from semcut.indexes.errors import DataError, shown

Ids = NDArray[np.int64]


class JudgedIds(NamedTuple):
    """The ids of the records that are relevant for a query, and of those that are ignored, each ascending."""

    relevant: Ids
    junk: Ids


@dataclass(frozen=True)
class Coverage:
    """How much of a set is there.

    Attributes:
        queries, images: the numbers that can be used: queries, and images of the set that have a record.
        published_queries, published_images: the numbers of the whole set; None if it has no published size.
        missing: number of images that the ground truth names and that have no record.
        example: one of them.
        left_out: number of queries and images that are not used.
    """

    queries: int
    images: int
    published_queries: int | None
    published_images: int | None
    missing: int
    example: str | None
    left_out: int

    @property
    def whole(self) -> bool:
        """Whether the whole set is there, so that figures can be compared with published ones."""
        return (
            not self.missing
            and not self.left_out
            and self.queries >= (self.published_queries or 0)
            and self.images >= (self.published_images or 0)
        )

    def as_dict(self) -> dict[str, Any]:
        """Return all values by name."""
        return {"whole": self.whole, **asdict(self)}

    def sentence(self, form: str) -> str:
        """Say how much of the set is there."""
        if self.published_queries is None:
            counts = f"{self.queries:,} queries, {self.images:,} images"
        else:
            counts = (
                f"{self.queries:,} of {self.published_queries:,} queries, "
                f"{self.images:,} of {self.published_images:,} images"
            )
        if self.whole:
            return f"{form}: {self.queries:,} queries, {self.images:,} images"
        named = f"; {self.missing:,} named images have no record, such as {self.example}" if self.missing else ""
        return f"a part of {form}: {counts}{named}; do not compare these figures with those of the whole set"


@dataclass(frozen=True)
class JudgedRecords:
    """The queries of a ground truth that can be used.

    Attributes:
        names: n names of queries.
        files: n paths of their images.
        boxes: n boxes that they are cropped to, None for whole images.
        levels: n pairs of ids for each level.
        left_out: queries and images that are not used, with reasons.
        coverage: how much of the set is there.
    """

    names: tuple[str, ...]
    files: tuple[str, ...]
    boxes: tuple[Box | None, ...]
    levels: dict[str, tuple[JudgedIds, ...]]
    left_out: tuple[Skipped, ...]
    coverage: Coverage

    def without_unreadable(self, kept: Sequence[int], skipped: Sequence[Skipped]) -> JudgedRecords:
        """Return the queries at these positions; the others are left out, with the reasons that are given."""
        return JudgedRecords(
            tuple(self.names[place] for place in kept),
            tuple(self.files[place] for place in kept),
            tuple(self.boxes[place] for place in kept),
            {level: tuple(every[place] for place in kept) for level, every in self.levels.items()},
            (*self.left_out, *skipped),
            replace(self.coverage, queries=len(kept), left_out=self.coverage.left_out + len(skipped)),
        )

    def left_out_records(self, own: Ids, other: int) -> Ids:
        """Return the record of each query's own image where the ground truth ignores it, and another id elsewhere."""
        ignored = [all((every[n].junk == one).any() for every in self.levels.values()) for n, one in enumerate(own)]
        return np.where(ignored, own, other)


def find_judged_records(truth: GroundTruth, root: str, files: Sequence[str], ids: Ids) -> JudgedRecords:
    """Look up the images that a ground truth names.

    Args:
        truth: the ground truth.
        root: the folder of the images, to which the names of a table are relative.
        files: n paths of the images of the set.
        ids: (n,) int64, the record of each; -1 for none.

    Raises:
        DataError: two images have the same name, or no query can be used.
        InvalidParameterError: an argument is of another type.
    """
    instance_given("truth", truth, GroundTruth, "read_ground_truth reads one")
    files = files_given("files", files)
    ids = integers_given("ids", ids, -1, 2**63 - 1, (len(files),))
    start = root.rstrip("/") + "/"

    def key(name: str) -> str:
        """Return what a name of the ground truth and a file have in common."""
        return name if truth.by_stem else name.removeprefix(start)

    judged, places = set(map(key, truth.judged())), dict[str, int]()
    for place, file in enumerate(files):
        name = stem_of(file) if truth.by_stem else key(file)
        if places.setdefault(name, place) != place and name in judged:
            raise DataError(
                f"{files[places[name]]} and {file} have the same name {shown(name)}, by which {truth.form} knows an "
                "image: give a folder that has each once"
            )
    with_record = {name: int(ids[place]) for name, place in places.items() if ids[place] >= 0}

    def records_of(names: frozenset[str]) -> Ids:
        return np.array(sorted({with_record[name] for name in map(key, names) if name in with_record}), np.int64)

    left_out, kept = [*truth.left_out], []
    for number, query in enumerate(truth.queries):
        if key(query.image) not in places:
            left_out.append((query.name, "there is no image of the query"))
        elif not any(len(records_of(level[number].relevant)) for level in truth.levels.values()):
            left_out.append((query.name, "no image that is relevant for it has a record"))
        else:
            kept.append(number)
    if not kept:
        raise DataError(
            f"none of the {len(truth.queries):,} queries of {truth.form} can be used, the first is "
            f"{': '.join(left_out[len(truth.left_out)])}; give the images that were indexed, with the names that the "
            "ground truth has"
        )
    queries = [truth.queries[number] for number in kept]
    return JudgedRecords(
        names=tuple(query.name for query in queries),
        files=tuple(files[places[key(query.image)]] for query in queries),
        boxes=tuple(query.box for query in queries),
        levels={
            level: tuple(JudgedIds(records_of(every[n].relevant), records_of(every[n].junk)) for n in kept)
            for level, every in truth.levels.items()
        },
        left_out=tuple(left_out),
        coverage=_coverage(truth, places.keys(), with_record.keys(), key, len(kept), len(left_out)),
    )


def _coverage(
    truth: GroundTruth,
    images: Collection[str],
    indexed: Collection[str],
    key: Callable[[str], str],
    queries: int,
    left_out: int,
) -> Coverage:
    """Count what is there; the image of a query needs no record, unless it is to be found."""
    asked = {key(query.image) for query in truth.queries}
    judged = {key(name) for level in truth.levels.values() for one in level for name in one.relevant}
    ignored = {key(name) for level in truth.levels.values() for one in level for name in one.junk} - asked
    missing = sorted((judged | ignored).difference(indexed))
    names = indexed if truth.names is None else truth.names
    there = sum(name in indexed or (name in asked and name in images) for name in names)
    published_queries, published_images = truth.published or (None, None)
    return Coverage(
        queries, there, published_queries, published_images, len(missing), missing[0] if missing else None, left_out
    )
