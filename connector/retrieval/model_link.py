"""Read and write `connector.json`: which network made an index, and where that network is.

No other module reads or writes this file, which is in the directory of every stored index that a connector made:

    model         run directory of the network, an absolute path; "." for a network whose files are in the directory
                  of the index itself, which then can be moved and copied as a whole
    sha256        digest of the network: of all that decides an encoding, see `data.model_file`
    head          name of the head that was trained, for people who read the file
    binarisation  how the head's outputs became bits, for people who read the file
    cutoff        relevance cutoff of searches that name none; missing where it is the default of semcut
    roots         folders whose folders are the classes of the images, absolute paths; see `data.image_folders.class_of`

Codes and features of different networks cannot be compared. The digest shows whether a network, in the directory
`model` or elsewhere, is the network that made the index.

No function here needs torch, so the explorer and the benchmark can read links and class names without it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semcut.connector.data.model_file import VERSION, WEIGHTS, read_model_file, sha256_of
from semcut.indexes.errors import CheckpointError, DataError
from semcut.indexes.regular_files import read_json
from semcut.indexes.search_defaults import DEFAULT_CUTOFF
from semcut.indexes.storage.atomic_write import write_json

LINK = "connector.json"
"""Name of the file with the link, in the directory of an index."""

OWN = "."
"""What a link says in place of the directory of a network whose files are in that of the index."""
ADOPTED_CUTOFF = 0.0
"""Cutoff of an index whose network was adopted: the probabilities of classes that do not fit the images say little."""
_LINK_BYTES = 64 << 10
"""The largest file, so that there are at most some thousands of roots."""


@dataclass(frozen=True)
class ModelLink:
    """The network that made an index.

    Attributes:
        model: run directory of the network when the index was made.
        sha256: digest of the network; None if the file does not have it.
        roots: folders whose folders are the classes of the images.
        cutoff: relevance cutoff of searches that name none.
    """

    model: Path
    sha256: str | None
    roots: tuple[str, ...] = ()
    cutoff: float = DEFAULT_CUTOFF


@dataclass(frozen=True)
class ModelDescription:
    """The facts in `model.json` that are needed without torch.

    Attributes:
        classes: names of the classes, in order of the probabilities.
        sha256: digest of the network.
    """

    classes: tuple[str, ...]
    sha256: str


def write_link(
    index: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    sha256: str,
    head: str,
    binarisation: str,
    roots: Sequence[str] = (),
    cutoff: float = DEFAULT_CUTOFF,
) -> None:
    """Record in the directory of an index which network made the index; the module docstring explains each value.

    Raises:
        OSError: the file cannot be written.
        DataError: the paths of the roots are longer than what is read.
    """
    content = {
        "model": OWN if Path(model).absolute() == Path(index).absolute() else str(Path(model).absolute()),
        "sha256": sha256,
        "head": head,
        "binarisation": binarisation,
        **({"roots": list(dict.fromkeys(roots))} if roots else {}),
        **({"cutoff": cutoff} if cutoff != DEFAULT_CUTOFF else {}),
    }
    size = len(json.dumps(content, indent=2))
    if size > _LINK_BYTES:
        raise DataError(
            f"the paths of {len(roots):,} roots make {LINK} {size:,} bytes large, expected at most {_LINK_BYTES:,}: "
            "give fewer roots"
        )
    write_json(Path(index) / LINK, content)


def read_link(index: str | os.PathLike[str]) -> ModelLink | None:
    """Read which network made the index in a directory; None if the directory does not record it."""
    content = _read_object(Path(index) / LINK)
    if not isinstance(content.get("model"), str):
        return None
    roots = content.get("roots")
    named = [root for root in roots if isinstance(root, str) and root] if isinstance(roots, list) else []
    model = Path(index).absolute() if content["model"] == OWN else Path(content["model"])
    return ModelLink(model, _digest(content), tuple(dict.fromkeys(named)), _cutoff(content))


def read_content(index: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read the arguments of `write_link` that a link was written with; None if the directory has no whole link."""
    content = _read_object(Path(index) / LINK)
    if content.get("model") == OWN:
        content["model"] = str(Path(index).absolute())
    return link_content(content)


def link_content(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of `write_link` in a mapping that may come from anywhere; None unless all are there."""
    found = {name: content.get(name) for name in ("model", "sha256", "head", "binarisation")}
    roots = content.get("roots", [])
    if not all(isinstance(value, str) for value in found.values()) or not isinstance(roots, list):
        return None
    cutoff = _cutoff(content)
    named = [root for root in roots if isinstance(root, str) and root]
    return {**found, "roots": named, **({"cutoff": cutoff} if cutoff != DEFAULT_CUTOFF else {})}


def read_description(model: str | os.PathLike[str]) -> ModelDescription | None:
    """Read class names and digest of the network in a run directory; None if its `model.json` cannot be used.

    The digest is that of the description, which `Checkpoint.load` compares with the weights. In the first versions it
    is that of the weights alone, which are compared here: anyone could write a description with any digest.
    """
    try:
        content = read_model_file(Path(model))
        if content["semcut_model"] < VERSION and content["sha256"] != sha256_of(Path(model) / WEIGHTS):
            return None
    except (CheckpointError, OSError):
        return None
    return ModelDescription(tuple(content["architecture"]["classes"]), content["sha256"])


def network_classes(index: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Read the class names, in order of the probabilities, of the network that made the index in a directory.

    Returns:
        The class names; None if the index does not record which network made it, or if that network is not there.
    """
    link = read_link(index)
    description = None if link is None else read_description(link.model)
    if link is None or description is None or link.sha256 not in (None, description.sha256):
        return None
    return description.classes


def _cutoff(content: Mapping[str, Any]) -> float:
    """Return the cutoff in a link; the default if there is none, or something else."""
    cutoff = content.get("cutoff")
    return float(cutoff) if isinstance(cutoff, int | float) and 0 <= cutoff < 1 else DEFAULT_CUTOFF


def _digest(content: dict[str, Any]) -> str | None:
    digest = content.get("sha256")
    return digest if isinstance(digest, str) else None


def _read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file is missing, unreadable or holds something else."""
    try:
        content = read_json(file, _LINK_BYTES)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
