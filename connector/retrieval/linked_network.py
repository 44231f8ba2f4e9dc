"""Load the network that made a stored index, and no other: `connector.json` records its digest."""

from __future__ import annotations

import os
from pathlib import Path

from semcut.connector.data.model_file import MODEL
from semcut.connector.models.checkpoint import Checkpoint
from semcut.connector.retrieval.encoder import Encoder
from semcut.connector.retrieval.model_link import ModelLink, network_of
from semcut.indexes.errors import CheckpointError


def linked_encoder(
    index: str | os.PathLike[str], link: ModelLink, model: str | os.PathLike[str] | None, device: str
) -> Encoder:
    """Load the network of an index.

    Args:
        index: directory of the index.
        link: its link.
        model: run directory of the network; None looks for it, see `network_of`.
        device: device that the network encodes on.

    Raises:
        CheckpointError: the network is missing, or is not the one that made the index.
        DataError: the device cannot be used.
    """
    network = Path(model or network_of(index, link))
    if model is None and not (network / MODEL).exists():
        raise CheckpointError(
            f"{network} holds no model any more, which made the index {index}: give the directory that the network was "
            "moved to (model; on the command line --model), or record it with `semcut relocate`"
        )
    checkpoint = Checkpoint.load(network)
    if checkpoint.digest != link.sha256:
        raise CheckpointError(
            f"the index {index} was made by another network than that in {network}: give the right model, or index the "
            "images again, because codes of different networks cannot be compared"
        )
    return Encoder(checkpoint, device)
