"""Which networks may run: those that this account adopted, where running them is more than computing with numbers.

A function is code, and a forged file of ONNX can end the process that runs it, or take memory without end. A model
directory or an index with such a network can come from anyone. So the digests of these networks are noted when they are
adopted, in the file `trusted-networks` of the user's data folder, and others are refused. The environment variable
SEMCUT_TRUST names further ones, separated by commas: for a network that was moved from another machine.
"""

from __future__ import annotations

import os
from pathlib import Path

from semcut.connector.data.user_folders import user_folder
from semcut.indexes.errors import CheckpointError, DataError
from semcut.indexes.regular_files import read_bytes

TRUSTED, ALSO, FOLDER = "trusted-networks", "SEMCUT_TRUST", "SEMCUT_DATA"
"""Name of the file, and of the environment variables with further digests and with the folder of the file."""
_BYTES = 1 << 24
_REASONS = {
    "python": "runs code of its own",
    "onnx": "has a file of ONNX, and a forged one can end this process or take all memory",
}


def needs_trust(source: str) -> bool:
    """Return whether a network of a library may only run if it is trusted."""
    return source in _REASONS


def trust(digest: str) -> None:
    """Note that this account trusts the network with a digest.

    Raises:
        CheckpointError: the note cannot be written.
        DataError: there is no folder for it.
    """
    file = _folder() / TRUSTED
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if digest not in _noted():
            with open(file, "a", encoding="ascii") as stream:  # in one call, whatever others write meanwhile
                stream.write(f"\n{digest}\n")  # the last line may have no end
    except OSError as error:
        raise CheckpointError(
            f"cannot note that the network is trusted in {file}: {error.strerror}; set {FOLDER} to another folder"
        ) from None


def require_trust(digest: str, source: str, path: Path) -> None:
    """Refuse a network that may only run if it is trusted, and is not.

    Args:
        digest: digest of the network.
        source: its library.
        path: its directory, for the message.

    Raises:
        CheckpointError: it is not trusted.
    """
    if needs_trust(source) and digest not in os.environ.get(ALSO, "").split(",") and digest not in _noted():
        raise CheckpointError(
            f"the network in {path} {_REASONS[source]}, and this account did not adopt it: if you trust who made it, "
            f"set {ALSO}={digest}"
        )


def _noted() -> list[str]:
    try:
        return read_bytes(_folder() / TRUSTED, _BYTES).decode("ascii").split()
    except (OSError, ValueError, DataError):
        return []


def _folder() -> Path:
    return user_folder("data", FOLDER)
