"""Read shards of WebDataset: tar archives in which members of one key, which follow each other, are one sample.

    000.jpg, 000.png ...    the image; the end of its name is one of `SUFFIXES`
    000.cls                 its label, a number or a text
    000.json                an object; its `label`, a text or an integer, and `labels`, an array of them, are the labels
                            of the image. They count instead of those of `000.cls`.

The key is the name up to the first dot after the last "/". Its folders are below that of the class. An image with no
label or several is in no folder; its name has the whole key, with U+2215 in place of "/", and a digest of a key that
has U+2215 itself. Names that lead out of the folder are refused, as those of other archives are: see `archives`, whose
limits hold here too.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from semcut.connector.data.archive_members import (
    FILE,
    FOLDER,
    Budget,
    Member,
    RefusedArchiveError,
    parts_of,
    require_members,
)
from semcut.connector.data.class_names import label_names
from semcut.connector.data.decoding_messages import MAX_BYTES
from semcut.connector.data.sample_folders import MAX_SAMPLE_BYTES, SLASH, Sample, with_digest
from semcut.connector.data.tar_archives import TarArchive
from semcut.indexes.errors import shown
from semcut.indexes.regular_files import open_binary

SUFFIXES = frozenset(
    "jpg jpeg png webp gif bmp tif tiff ppm pgm pbm pnm avif heic heif".split()  # noqa: SIM905  # easier to read
)
"""Ends of the names of images."""

_CLASS, _OBJECT = "cls", "json"
_TEXTS = {_CLASS: 4096, _OBJECT: 1 << 20, "txt": 0}
"""Ends of the names of texts that are no images, and the most bytes that are read of each."""
_COPY_BYTES = 1 << 20


@dataclass
class _Group:
    """What was read of one sample."""

    key: tuple[str, ...] = ()
    images: list[tuple[str, bytearray]] = field(default_factory=list)
    texts: dict[str, bytearray] = field(default_factory=dict)
    size: int = 0


def shard_samples(stream: IO[bytes], name: str, budget: Budget, left_out: Counter[str]) -> Iterator[Sample]:
    """Yield the images of a shard, in order.

    Args:
        stream: the shard, from its beginning; it may be compressed as other tar archives.
        name: its name, with which the names of the images begin.
        budget: counts the bytes that are read.
        left_out: grows by what is left out, such as "member that is neither an image nor a label".

    Raises:
        RefusedArchiveError: it is damaged, beyond a limit, or has a label or a name that cannot be used.
    """
    archive, group = TarArchive(stream, budget), _Group()
    for count, member in enumerate(archive.members()):
        require_members(count)
        *folders, last = parts_of(member.name)
        stem, _, end = last.partition(".")
        end = end.lower()
        if member.kind == FOLDER:
            continue
        if member.kind != FILE or not stem or end not in SUFFIXES | _TEXTS.keys():
            left_out["member that is neither an image nor a label" if member.kind == FILE else member.kind] += 1
            continue
        if (*folders, stem) != group.key:
            yield from _samples(group, name, left_out)
            group = _Group((*folders, stem))
        if end in SUFFIXES:
            group.size += member.size
            if group.size > MAX_SAMPLE_BYTES:
                left_out[f"image of more than {MAX_SAMPLE_BYTES:,} bytes"] += 1
            else:
                group.images.append((end, _content(archive, member.size)))
        elif end in (_CLASS, _OBJECT):
            group.texts[end] = _content(archive, _bounded(member, _TEXTS[end]))
    yield from _samples(group, name, left_out)


def is_shard(path: Path) -> bool:
    """Return whether a tar archive is a shard: its first two files have one key, and are an image and a label.

    Files that have one key in a folder are those of a shard only with a `.cls`, because photos in folders of classes
    can have a `.json` beside them.
    """
    try:
        with open_binary(path, follow=True) as stream:
            size = os.fstat(stream.fileno()).st_size
            names: list[list[str]] = []
            for member in TarArchive(stream, Budget(size, 2 * MAX_BYTES)).members():
                if member.kind == FILE:
                    names.append(parts_of(member.name))
                    if len(names) == 2 or member.size > MAX_BYTES:
                        break
    except (OSError, ValueError, RefusedArchiveError):
        return False  # what unpacks archives names the reason
    ends = {name[-1].partition(".")[2].lower() for name in names}
    keys = {(*name[:-1], name[-1].partition(".")[0]) for name in names}
    flat = all(len(name) == 1 for name in names)
    labels = {_CLASS, _OBJECT} if flat else {_CLASS}
    return len(names) == 2 and len(keys) == 1 and bool(ends & SUFFIXES) and bool(ends & labels)


def _samples(group: _Group, name: str, left_out: Counter[str]) -> Iterator[Sample]:
    """Yield the images of a sample, with its labels."""
    if group.texts and not group.images:
        left_out["label without an image beside it"] += 1
        return
    labels = _labels(group)
    for end, content in group.images:
        *folders, stem = group.key
        if len(labels) != 1:
            yield Sample((), f"{name}#{_flat_key(group.key)}.{end}", content, labels)
        else:
            yield Sample(tuple(folders), f"{name}#{stem}.{end}", content, labels)


def _flat_key(key: tuple[str, ...]) -> str:
    """Return a key as a part of a name; different keys never become the same."""
    flat = SLASH.join(key)
    return with_digest(flat, "/".join(key)) if any(SLASH in part for part in key) else flat


def _labels(group: _Group) -> tuple[str, ...]:
    """Return the labels of a sample: those of its object, if that has some, otherwise that of its class."""
    key = "/".join(group.key)
    if _OBJECT in group.texts:
        try:
            found = json.loads(group.texts[_OBJECT])
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("labels") or [], list):
            raise RefusedArchiveError(f"{shown(f'{key}.{_OBJECT}')} is no JSON object whose labels are an array")
        labels, wrong = label_names(found.get("label"), found.get("labels"))
        if wrong is not None:
            raise RefusedArchiveError(f"{shown(f'{key}.{_OBJECT}')}: {wrong}")
        if labels:
            return labels
    if _CLASS not in group.texts:
        return ()
    text = group.texts[_CLASS].decode("utf-8", "surrogateescape").strip()
    labels, wrong = label_names(text, None)
    if wrong is not None or not labels:
        raise RefusedArchiveError(f"{shown(f'{key}.{_CLASS}')} has {shown(text)}, expected the number of a class")
    return labels


def _content(archive: TarArchive, size: int) -> bytearray:
    """Read the data of a member, in blocks: a header can state more than there is."""
    content = bytearray()
    for start in range(0, size, _COPY_BYTES):
        content += archive.read(min(_COPY_BYTES, size - start))
    return content


def _bounded(member: Member, most: int) -> int:
    if member.size > most:
        raise RefusedArchiveError(f"{shown(member.name)} has {member.size:,} bytes, expected at most {most:,}")
    return member.size
