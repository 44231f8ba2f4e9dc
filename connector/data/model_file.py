"""Read `model.json`, the description of a trained network, and compute the digest of all that decides an encoding.

    semcut_model    version of the file: 3, or 4 for an adopted network
    sha256          digest of the four values below: the identity of the network
    architecture    parts and sizes of the network, its class names and its image size
    normalisation   mean and standard deviation of each channel of the pixels
    binarisation    how the outputs of the head become bits
    weights         SHA-256 of the file of the weights
    training        how the network was trained; decides no encoding

An index records the digest of the network that made it. So the index is used neither with other weights nor with a
description in which the image size, the order of the class names or anything else above was changed.

Version 4 is an adopted network: its architecture is that of `models.adopted_network`, and `training` says what it was
adopted from. In versions 1 and 2, `sha256` is the SHA-256 of the weights, and three of the values are missing. Such a
network still loads and fits the indexes that it made, but a change of its description is not noticed; networks that are
trained now have version 3. A field that its version does not have is an error, so no value is read under another
meaning.

No function here needs torch, so the explorer and the benchmark can read class names without it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semcut.connector.data.class_names import MAX_CLASSES, MAX_NAME, is_class_name
from semcut.indexes.errors import CheckpointError, shown
from semcut.indexes.regular_files import open_binary, read_json

MODEL = "model.json"
"""Name of the file, in the run directory of a network."""
WEIGHTS = "model.safetensors"
"""Name of the file of the weights, beside it."""

VERSION, ADOPTED = 3, 4
"""Versions of a description: of a network that semcut trained, and of one that it adopted."""
_DESCRIPTION_BYTES = 4 << 20
"""The largest file: 10,000 class names of 400 bytes, or thousands of epochs."""
_DECISIVE = ("architecture", "normalisation", "binarisation", "weights")
_FIELDS = {"semcut_model": int, "sha256": str, "architecture": dict, "training": dict}
"""The fields of versions 1 and 2, and their types."""
_LATER_FIELDS = {"normalisation": dict, "binarisation": str, "weights": str}
"""The fields that only versions 3 and 4 have."""
_DIGESTS = ("sha256", "weights")
_ENCODING_VERSION = 1
"""Version of the code that scales images and computes encodings. Raise it when the same network would encode otherwise
what most images are: 8 bits a channel, without transparency.
"""


def encoding_digest(description: Mapping[str, Any]) -> str:
    """Compute the identity of a network: the SHA-256 of everything in its description that decides an encoding.

    It is that of one line of JSON with sorted keys, without spaces, in ASCII.
    """
    facts = {"encoding": _ENCODING_VERSION, **{name: description[name] for name in _DECISIVE}}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256_of(file: Path) -> str:
    """Compute the SHA-256 of a regular file.

    Raises:
        OSError: it cannot be read, is something else, has more than a TiB, or is nearly all holes.
    """
    digest = hashlib.sha256()
    with open_binary(file, max_bytes=1 << 40) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_model_file(path: Path) -> dict[str, Any]:
    """Read and check the description in a run directory; its parts have the right types, sizes and digest.

    Raises:
        CheckpointError: there is none, it cannot be read, has another version, or was changed.
    """
    file = path / MODEL
    try:
        content = read_json(file, _DESCRIPTION_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{path} holds no model, because it has no {MODEL}: give the directory that training wrote"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{file} cannot be read as the description of a model: {reason}") from None
    if not isinstance(content, dict) or "semcut_model" not in content:
        raise CheckpointError(f"{file} cannot be read as the description of a model: it is something else")
    version = content["semcut_model"]
    if type(version) is not int or not 1 <= version <= ADOPTED:
        raise CheckpointError(
            f"{path} has model version {shown(version)} but this semcut reads versions 1 to {ADOPTED}"
        )
    if wrong := _wrong_field(content):
        raise CheckpointError(f"{file} cannot be read as the description of a model: {wrong}")
    if version >= VERSION and encoding_digest(content) != content["sha256"]:
        raise CheckpointError(
            f"{file} was changed after the training: its digest is not that of its architecture, class names and "
            "weights; restore the file, or train the network again"
        )
    return content


def _wrong_field(content: dict[str, Any]) -> str:
    """Name the first field of a wrong type or size, or that the version does not have; nothing if there is none."""
    training = content.setdefault("training", {})
    expected = _FIELDS | (_LATER_FIELDS if content["semcut_model"] >= VERSION else {})
    if unknown := content.keys() - expected.keys():
        return f"version {content['semcut_model']} has no field {shown(min(unknown))}"
    for name, kind in expected.items():
        value = content.get(name)
        if not isinstance(value, kind):
            return f"{name} = {shown(value)}"
        if name in _DIGESTS and not re.fullmatch("[0-9a-f]{64}", str(value)):
            return f"{name} = {shown(value)}, expected a SHA-256 of 64 digits 0 to 9 and a to f"
    classes = content["architecture"].get("classes")
    if not isinstance(classes, list) or not 2 <= len(classes) <= MAX_CLASSES:
        return f"classes = {shown(classes)}, expected 2 to {MAX_CLASSES:,} names"
    if wrong := [name for name in classes if not is_class_name(name)]:
        return f"class {shown(wrong[0])}, expected a name of 1 to {MAX_NAME:,} characters that is valid text"
    start = training.get("start", {})
    for name, value in (("config", training.get("config", {})), ("kept", training.get("kept", {})), ("start", start)):
        if not isinstance(value, dict):
            return f"{name} = {shown(value)}"
    epochs = start.get("epochs", [])
    if not isinstance(epochs, list) or not all(isinstance(epoch, dict) for epoch in epochs):
        return f"epochs = {shown(epochs)}"
    return ""
