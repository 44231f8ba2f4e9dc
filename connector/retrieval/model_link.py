"""Read and write `connector.json`: which network made an index, and where that network is.

No other module reads or writes this file, which is in the directory of every stored index that a connector made:

    model         run directory of the network, an absolute path
    beside        the same directory, relative to that of the index: both may have been moved together
    sha256        digest of the network: of all that decides an encoding, see `data.model_file`
    head          name of the head that was trained, for people who read the file
    binarisation  how the head's outputs became bits, for people who read the file
    roots         folders whose folders are the classes of the images, absolute paths; see `data.image_folders.class_of`
    cutoff        cutoff of searches that name none; null for no cutoff, missing where it is the default of semcut
    ranking       ranking of such searches, likewise
    shortlist     shortlist of such searches, likewise; null for every relevant record
    root          the folder to which the uris of the records are relative, an absolute path; see `data.image_uris`.
                  Older indexes have no root, and absolute uris
    exclude_training    true if `semcut sync` adds no image that the network was trained on; missing otherwise

Codes and features of different networks cannot be compared. The digest shows whether a network, in the directory
`model` or elsewhere, is the network that made the index.

No function here needs torch, so the explorer and the benchmark can read links and class names without it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semcut.connector.data.image_folders import is_text
from semcut.connector.data.image_uris import common_root
from semcut.connector.data.model_file import VERSION, WEIGHTS, read_model_file, sha256_of
from semcut.connector.retrieval.search_defaults_of import STANDARD, SearchDefaults
from semcut.indexes.errors import CheckpointError, DataError, NotAnIndexError
from semcut.indexes.regular_files import read_json
from semcut.indexes.search_defaults import DEFAULT_CUTOFF, DEFAULT_SHORTLIST
from semcut.indexes.search_params import Ranking
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
        root: the folder to which the uris of the records are relative; None if uris are paths.
        beside: where the network is if it was moved together with the index; None if that is not known.
        defaults: cutoff, ranking and shortlist of searches that name none.
        exclude_training: whether `semcut sync` adds no image that the network was trained on.
    """

    model: Path
    sha256: str | None
    roots: tuple[str, ...] = ()
    root: str | None = None
    beside: Path | None = field(default=None, compare=False)  # two links to one network are the same
    defaults: SearchDefaults = STANDARD
    exclude_training: bool = False

    @property
    def folder(self) -> str | None:
        """The folder that has the images; None if that is not known."""
        return self.root or common_root(self.roots)


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
    root: str | None = None,
    cutoff: float | None = DEFAULT_CUTOFF,
    ranking: Ranking = "distance",
    shortlist: int | None = DEFAULT_SHORTLIST,
    exclude_training: bool = False,
) -> None:
    """Record in the directory of an index which network made the index; the module docstring explains each value.

    Raises:
        OSError: the file cannot be written.
        DataError: the paths of the roots are longer than what is read.
    """
    content = {
        "model": str(Path(model).absolute()),
        "beside": relative_place(model, index),
        "sha256": sha256,
        "head": head,
        "binarisation": binarisation,
        **({"roots": list(dict.fromkeys(roots))} if roots else {}),
        **({} if root is None else {"root": root}),
        **SearchDefaults(cutoff, ranking, shortlist).content(),
        **({"exclude_training": True} if exclude_training else {}),
    }
    _write(Path(index), content)


def change_link(index: str | os.PathLike[str], **values: Any) -> None:
    """Replace some values of the link of an index, in one step; the module docstring explains each value.

    Raises:
        OSError, DataError: as for `write_link`.
    """
    _write(Path(index), {**_read_object(Path(index) / LINK), **values})


def _write(index: Path, content: dict[str, Any]) -> None:
    size = len(json.dumps(content, indent=2))
    if size > _LINK_BYTES:
        raise DataError(
            f"the paths of {len(content.get('roots', ())):,} roots make {LINK} {size:,} bytes large, expected at most "
            f"{_LINK_BYTES:,}: give fewer roots"
        )
    write_json(index / LINK, content)


def add_root(index: str | os.PathLike[str], folder: str) -> None:
    """Record that the folders in a folder are classes, unless it is one of the roots, or below one.

    Raises:
        OSError, DataError: as for `write_link`.
    """
    link = read_link(index)
    if link is None or any(f"{folder}/".startswith(f"{root.rstrip('/')}/") for root in link.roots):
        return
    change_link(index, roots=[*link.roots, folder])


def relative_place(model: str | os.PathLike[str], index: str | os.PathLike[str]) -> str:
    """Return where a network is, relative to an index: `beside` of a link."""
    return os.path.relpath(os.path.abspath(model), os.path.abspath(index))


def read_link(index: str | os.PathLike[str]) -> ModelLink | None:
    """Read which network made the index in a directory; None if the directory does not record it."""
    return link_in(_read_object(Path(index) / LINK), Path(index))


def link_in(content: Mapping[str, Any], index: Path | None = None) -> ModelLink | None:
    """Return the link in a mapping that may come from anywhere; None if it names no network.

    Args:
        content: the mapping.
        index: the directory to which `beside` is relative; None leaves it out.
    """
    if not isinstance(content.get("model"), str):
        return None
    roots = content.get("roots")
    named = [root for root in roots if isinstance(root, str) and root] if isinstance(roots, list) else []
    beside = content.get("beside")
    named_beside = isinstance(beside, str) and beside and "\0" not in beside and is_text(beside)
    return ModelLink(
        Path(content["model"]),
        _digest(content),
        tuple(dict.fromkeys(named)),
        _root(content),
        index / str(beside) if index is not None and named_beside else None,
        SearchDefaults.of(content),
        content.get("exclude_training") is True,
    )


def required_link(index: str | os.PathLike[str]) -> ModelLink:
    """Read which network made an index.

    Raises:
        NotAnIndexError: the index does not record that.
    """
    link = read_link(index)
    if link is None or link.sha256 is None:
        raise NotAnIndexError(
            f"{index} does not record which network made it (no {LINK}): it was not made by `semcut index`"
        )
    return link


def read_content(index: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read the arguments of `write_link` that a link was written with; None if the directory has no whole link."""
    return link_content(_read_object(Path(index) / LINK))


def link_content(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of `write_link` in a mapping that may come from anywhere; None unless all are there."""
    found = {name: content.get(name) for name in ("model", "sha256", "head", "binarisation")}
    roots = content.get("roots", [])
    if not all(isinstance(value, str) for value in found.values()) or not isinstance(roots, list):
        return None
    root = _root(content)
    named = [one for one in roots if isinstance(one, str) and one]
    others: dict[str, Any] = {"root": root} if root is not None else {}
    others |= {"exclude_training": True} if content.get("exclude_training") is True else {}
    return {**found, "roots": named, **others, **SearchDefaults.of(content).content()}


def network_of(index: str | os.PathLike[str], link: ModelLink) -> Path:
    """Return where the network is that made an index.

    That is the directory of the link, or, if another network or none is there, the one that lies to the index as it did
    when the index was made. If the network is in neither, the directory of the link is returned.
    """
    for place in (link.model, link.beside):
        found = None if place is None else read_description(place)
        if place is not None and found is not None and found.sha256 == link.sha256:
            return place
    return link.model


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


def require_network(model: str | os.PathLike[str], digest: str | None) -> None:
    """Check that a directory, which a user has named, holds the network that made an index.

    Raises:
        CheckpointError: it holds no network, or another one than that with the digest; None allows any.
    """
    read_model_file(Path(model))  # raises what is wrong
    found = read_description(model)
    if found is None or digest not in (None, found.sha256):
        raise CheckpointError(f"the network in {model} did not make this index: give the one that did")


def network_classes(index: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """Read the class names, in order of the probabilities, of the network that made the index in a directory.

    Returns:
        The class names; None if the index does not record which network made it, or if that network is not there.
    """
    link = read_link(index)
    description = None if link is None else read_description(network_of(index, link))
    if link is None or description is None or link.sha256 not in (None, description.sha256):
        return None
    return description.classes


def _root(content: Mapping[str, Any]) -> str | None:
    """Return the root in a link; None unless it is an absolute path that a file can have."""
    root = content.get("root")
    possible = isinstance(root, str) and os.path.isabs(root) and "\0" not in root and is_text(root)
    return os.path.normpath(str(root)) if possible and str(root).strip("/") else None


def _digest(content: Mapping[str, Any]) -> str | None:
    digest = content.get("sha256")
    return digest if isinstance(digest, str) else None


def _read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file is missing, unreadable or holds something else."""
    try:
        content = read_json(file, _LINK_BYTES)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
