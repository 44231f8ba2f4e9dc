"""Read and write `connector.json`: which network made an index, and where that network is.

No other module reads or writes this file, which is in the directory of every stored index that a connector made:

    model         run directory of the network, an absolute path
    sha256        digest of the network: of all that decides an encoding, see `data.model_file`
    head          name of the head that was trained, for people who read the file
    binarisation  how the head's outputs became bits, for people who read the file
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
from semcut.indexes.storage.atomic_write import write_json

LINK = "connector.json"
"""Name of the file with the link, in the directory of an index."""

_LINK_BYTES = 64 << 10
"""The largest file, so that there are at most some thousands of roots."""


@dataclass(frozen=True)
class ModelLink:
    """The network that made an index.

    Attributes:
        model: run directory of the network when the index was made.
        sha256: digest of the network; None if the file does not have it.
        roots: folders whose folders are the classes of the images.
    """

    model: Path
    sha256: str | None
    roots: tuple[str, ...] = ()


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
) -> None:
    """Record in the directory of an index which network made the index; the module docstring explains each value.

    Raises:
        OSError: the file cannot be written.
        DataError: the paths of the roots are longer than what is read.
    """
    content = {
        "model": str(Path(model).absolute()),
        "sha256": sha256,
        "head": head,
        "binarisation": binarisation,
        **({"roots": list(dict.fromkeys(roots))} if roots else {}),
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
    return ModelLink(Path(content["model"]), _digest(content), tuple(dict.fromkeys(named)))


def read_content(index: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read the arguments of `write_link` that a link was written with; None if the directory has no whole link."""
    return link_content(_read_object(Path(index) / LINK))


def link_content(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of `write_link` in a mapping that may come from anywhere; None unless all are there."""
    found = {name: content.get(name) for name in ("model", "sha256", "head", "binarisation")}
    roots = content.get("roots", [])
    if not all(isinstance(value, str) for value in found.values()) or not isinstance(roots, list):
        return None
    return {**found, "roots": [root for root in roots if isinstance(root, str) and root]}


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
