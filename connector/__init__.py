"""From images to an index: train a network, encode images with it, index and search them.

from connector import Connector

connector = Connector.open("animals-index")
hits = connector.search(["cat.jpg"], k=5)
"""

from typing import TYPE_CHECKING

from indexes.errors import require as _require

_require(
    {
        "torch": "torch",
        "torchvision": "torchvision",
        "safetensors": "safetensors",
        "PIL": "pillow",
        "platformdirs": "platformdirs",
    },
    "train networks and encode images",
    "train",
)

if TYPE_CHECKING:
    from connector.checkpoint import Checkpoint
    from connector.connector import Connector, Hit
    from connector.data import ImageSet
    from connector.encode import Encoder
    from connector.errors import CheckpointError, DataError
    from connector.model import Architecture, SemanticHashNet
    from connector.training import TrainConfig, train

_HOMES = {
    "Architecture": "connector.model",
    "Checkpoint": "connector.checkpoint",
    "CheckpointError": "connector.errors",
    "Connector": "connector.connector",
    "DataError": "connector.errors",
    "Encoder": "connector.encode",
    "Hit": "connector.connector",
    "ImageSet": "connector.data",
    "SemanticHashNet": "connector.model",
    "TrainConfig": "connector.training",
    "train": "connector.training",
}

__all__ = [
    "Architecture",
    "Checkpoint",
    "CheckpointError",
    "Connector",
    "DataError",
    "Encoder",
    "Hit",
    "ImageSet",
    "SemanticHashNet",
    "TrainConfig",
    "train",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `semcut --help` need not wait for torch."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'connector' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
