"""From images to an index: train a network, encode images with it, index and search them.

from semcut import Connector

connector = Connector.open("animals-index")
hits = connector.search(["cat.jpg"], k=5)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semcut.connector.data.sources import ImageSet
    from semcut.connector.models.checkpoint import Checkpoint
    from semcut.connector.models.network import Architecture, SemanticHashNet
    from semcut.connector.retrieval.encoder import Encoder
    from semcut.connector.retrieval.image_index import Connector, Hit
    from semcut.connector.training.loop import train
    from semcut.connector.training.train_config import TrainConfig

_HOMES = {
    "Architecture": "semcut.connector.models.network",
    "Checkpoint": "semcut.connector.models.checkpoint",
    "Connector": "semcut.connector.retrieval.image_index",
    "Encoder": "semcut.connector.retrieval.encoder",
    "Hit": "semcut.connector.retrieval.image_index",
    "ImageSet": "semcut.connector.data.sources",
    "SemanticHashNet": "semcut.connector.models.network",
    "TrainConfig": "semcut.connector.training.train_config",
    "train": "semcut.connector.training.loop",
}

__all__ = [
    "Architecture",
    "Checkpoint",
    "Connector",
    "Encoder",
    "Hit",
    "ImageSet",
    "SemanticHashNet",
    "TrainConfig",
    "train",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `semcut --help` need not wait for torch.

    All but `ImageSet` need a network, so a package that networks need and that is not installed is named first.
    """
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'semcut.connector' has no attribute {name!r}")
    if name != "ImageSet":
        import_module("semcut.connector.models")
    return getattr(import_module(_HOMES[name]), name)
