"""Classes to train on, from a ground truth: what a query should find is one class with it.

This is the paper's training on Oxford and Holidays, with landmarks or groups as classes. Queries that share a right
image are of one class, and so are the queries of one landmark in the files of Oxford and Paris. Junk is left out,
unless it is right for another query. Images that the ground truth does not name are left out, or are one more class.
"""

from __future__ import annotations

import re

import numpy as np

from semcut.connector.data.image_folders import ImageFolder, Skipped
from semcut.connector.data.sources import ImageSet
from semcut.connector.ground_truth.judged_queries import GroundTruth, stem_of
from semcut.indexes.argument_checks import flag_given, instance_given
from semcut.indexes.errors import DataError

OTHERS = "none of these"
"""The class of images that the ground truth does not name."""

_LANDMARK_FORMS = ("oxford5k", "paris6k")
_NUMBER = re.compile(r"_[0-9]+$")


def images_of_truth(truth: GroundTruth, found: ImageFolder, *, others: bool = False) -> ImageSet:
    """Label the images of a set by its ground truth.

    Args:
        truth: the ground truth.
        found: the images, see `data.sources.list_images`.
        others: whether images that the ground truth does not name are a class, `OTHERS`; else they are left out.

    Returns:
        The images in sorted order, with the files that could not be listed and those that are left out in `skipped`.
        A class is named after its landmark, else after its first query.

    Raises:
        DataError: fewer than two classes have images, or two images have the same name.
        InvalidParameterError: an argument is of another type.
    """
    instance_given("truth", truth, GroundTruth, "read_ground_truth reads one")
    instance_given("found", found, ImageFolder, "list_images finds one")
    others = flag_given("others", others)
    start = found.root.rstrip("/") + "/"

    def key(name: str) -> str:
        """Return what a name of the ground truth and a file have in common, see `find_judged_records`."""
        return name if truth.by_stem else name.removeprefix(start)

    class_of = {key(name): label for name, label in _classes(truth).items()}
    ignored = set(map(key, truth.judged()))
    names: list[str] = []
    labelled: list[tuple[str, str]] = []
    skipped: list[Skipped] = []
    for file in sorted(found.files):
        name = stem_of(file) if truth.by_stem else key(file)
        names.append(name)
        if name in class_of:
            labelled.append((file, class_of[name]))
        elif name in ignored:
            skipped.append((file, "junk in the ground truth"))
        elif others:
            labelled.append((file, OTHERS))
        else:
            skipped.append((file, "not named by the ground truth"))
    _require_one_file_each(names, class_of, truth)
    classes = sorted({label for _, label in labelled})
    if len(set(classes) - {OTHERS}) < 2:
        raise DataError(
            f"the ground truth {truth.form} names images of {len(set(classes) - {OTHERS})} classes among the "
            f"{len(names):,} images of {found.root}, expected at least 2: give the folder of its images"
        )
    position = {name: number for number, name in enumerate(classes)}
    return ImageSet(
        files=tuple(file for file, _ in labelled),
        labels=np.array([position[label] for _, label in labelled], np.int64),
        classes=tuple(classes),
        roots=(found.root,),
        skipped=(*found.skipped, *truth.left_out, *skipped),
    )


def _classes(truth: GroundTruth) -> dict[str, str]:
    """Return the class of each image that is a query or relevant."""
    parent: dict[str, str] = {}

    def top(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    landmark: dict[str, str] = {}
    for place, query in enumerate(truth.queries):
        named = landmark_of(truth, query.name)
        first = landmark.setdefault(named, query.image)
        for image in (query.image, *(name for level in truth.levels.values() for name in level[place].relevant)):
            parent[top(image)] = top(first)
    title: dict[str, str] = {}
    for query in truth.queries:
        title.setdefault(top(query.image), landmark_of(truth, query.name))
    return {name: title[top(name)] for name in parent}


def landmark_of(truth: GroundTruth, query: str) -> str:
    """Return what the queries of one class have in common: the landmark in "all_souls_1", else the query itself."""
    return _NUMBER.sub("", query) if truth.form in _LANDMARK_FORMS else query


def _require_one_file_each(names: list[str], class_of: dict[str, str], truth: GroundTruth) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen and name in class_of:
            raise DataError(
                f"two images have the name {name}, by which {truth.form} knows an image: give a folder that has each "
                "once"
            )
        seen.add(name)
