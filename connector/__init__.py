"""Everything that works on images: train or adopt a network, encode images, index the encodings, search by image.

For example, find the images of an index that are most similar to a file:

    from semcut import Connector

    connector = Connector.open("animals-index")
    hits = connector.search(["cat.jpg"], k=5)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semcut.connector.adoption.adopt import AdoptionChoices, adopt
    from semcut.connector.data.sources import ImageSet
    from semcut.connector.models.checkpoint import Checkpoint
    from semcut.connector.models.network import Architecture, SemanticHashNet
    from semcut.connector.retrieval.encoder import Encoder
    from semcut.connector.retrieval.hits import Hit
    from semcut.connector.retrieval.image_index import Connector
    from semcut.connector.training.loop import train
    from semcut.connector.training.train_config import TrainConfig

_MODULES = {
    "AdoptionChoices": "semcut.connector.adoption.adopt",
    "Architecture": "semcut.connector.models.network",
    "Checkpoint": "semcut.connector.models.checkpoint",
    "Connector": "semcut.connector.retrieval.image_index",
    "Encoder": "semcut.connector.retrieval.encoder",
    "Hit": "semcut.connector.retrieval.hits",
    "ImageSet": "semcut.connector.data.sources",
    "SemanticHashNet": "semcut.connector.models.network",
    "TrainConfig": "semcut.connector.training.train_config",
    "adopt": "semcut.connector.adoption.adopt",
    "train": "semcut.connector.training.loop",
}

__all__ = [
    "AdoptionChoices",
    "Architecture",
    "Checkpoint",
    "Connector",
    "Encoder",
    "Hit",
    "ImageSet",
    "SemanticHashNet",
    "TrainConfig",
    "adopt",
    "train",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `semcut --help` need not wait for torch.

    All names but `ImageSet` need the packages that networks need. `semcut.connector.models` is therefore imported
    first: it raises an error that names the packages that are not installed.
    """
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module 'semcut.connector' has no attribute {name!r}")
    if name != "ImageSet":
        import_module("semcut.connector.models")
    return getattr(import_module(_MODULES[name]), name)
