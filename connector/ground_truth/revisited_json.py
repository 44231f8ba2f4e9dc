"""Read the ground truth of revisited Oxford and Paris: a JSON file of what is published as a pickle.

    imlist    the names of the images to search
    qimlist   the names of the images of the queries, which are not among them
    gnd       for each query: bbx, its box, and easy, hard and junk, positions in imlist

Three levels of difficulty follow: at `easy`, hard images are ignored; at `medium`, easy and hard ones are relevant; at
`hard`, easy ones are ignored. A query without a relevant image at a level does not count there. The images of all
queries are ignored, so that an index may have them. The guide "Find the same thing" says how to convert the pickle.

Source: Radenovic, Iscen, Tolias, Avrithis and Chum, "Revisiting Oxford and Paris: Large-Scale Image Retrieval
Benchmarking" (CVPR 2018).
"""

from __future__ import annotations

from typing import Any, Literal

from semcut.connector.ground_truth.judged_queries import GroundTruth, Judgement, Query, judgement, parsed_box
from semcut.indexes.errors import DataError, shown
from semcut.indexes.regular_files import JSON_BYTES, read_json

PUBLISHED = {"roxford5k": (70, 4993), "rparis6k": (70, 6322)}
"""Numbers of queries and of images to search."""

LEVELS = ("easy", "medium", "hard")


def read_revisited_json(form: Literal["roxford5k", "rparis6k"], path: str) -> GroundTruth:
    """Read the file of a set.

    Raises:
        DataError: the file cannot be read, or has another form.
    """
    try:
        content = read_json(path, JSON_BYTES, follow=True)
    except OSError as error:
        raise DataError(f"cannot read the ground truth {path}: {error.strerror or error}") from None
    except ValueError:
        raise DataError(
            f"cannot read the ground truth {shown(path)}: it is no JSON; a published pickle must be converted first, "
            "see the guide Find the same thing"
        ) from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {shown(content)}, expected an object with imlist, qimlist and gnd")
    images, names = _texts(content, "imlist", path), _texts(content, "qimlist", path)
    judged = content.get("gnd")
    if not isinstance(judged, list) or len(judged) != len(names) or not names:
        raise DataError(f"{path} has {len(names):,} queries in qimlist, expected one object in gnd for each")
    queries = []
    levels: dict[str, list[Judgement]] = {level: [] for level in LEVELS}
    ignored = frozenset(names) - frozenset(images)
    for place, (name, one) in enumerate(zip(names, judged, strict=True)):
        source = f"{path}, gnd[{place}]"
        if not isinstance(one, dict):
            raise DataError(f"{source} is {shown(one)}, expected an object with bbx, easy, hard and junk")
        easy, hard, junk = (_images(one, kind, images, source) for kind in ("easy", "hard", "junk"))
        box = one.get("bbx")
        queries.append(
            Query(name, name, None if box is None else parsed_box(box if isinstance(box, list) else [box], source))
        )
        for level, relevant, others in (("easy", easy, hard), ("medium", easy | hard, set()), ("hard", hard, easy)):
            levels[level].append(judgement(name, relevant, ignored | junk | others, source))
    return GroundTruth(
        form,
        tuple(queries),
        {level: tuple(found) for level, found in levels.items()},
        names=frozenset(images),
        published=PUBLISHED[form],
    )


def _texts(content: dict[str, Any], key: str, path: str) -> list[str]:
    """Return a list of different names."""
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise DataError(f"{path} has {key} = {shown(found)}, expected a list of names of images")
    if len(set(found)) < len(found):
        raise DataError(f"{path} names an image twice in {key}: expected each once")
    return found


def _images(one: dict[str, Any], key: str, images: list[str], source: str) -> set[str]:
    """Return the names of the images whose positions a query has under a key."""
    found = one.get(key)
    valid = isinstance(found, list) and all(type(at) is int and 0 <= at < len(images) for at in found)
    if not isinstance(found, list) or not valid:
        raise DataError(f"{source} has {key} = {shown(found)}, expected a list of positions in imlist, from 0")
    return {images[at] for at in found}
