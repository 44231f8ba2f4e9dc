"""From images to an index: train a network, encode images with it, index and search them.

from semcut import Connector

connector = Connector.open("animals-index")
hits = connector.search(["cat.jpg"], k=5)
"""

from typing import TYPE_CHECKING

from semcut.indexes.errors import require as _require

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
    from semcut.connector.checkpoint import Checkpoint
    from semcut.connector.connector import Connector, Hit
    from semcut.connector.data import ImageSet
    from semcut.connector.encode import Encoder
    from semcut.connector.errors import CheckpointError, DataError
    from semcut.connector.model import Architecture, SemanticHashNet
    from semcut.connector.training import TrainConfig, train

_HOMES = {
    "Architecture": "semcut.connector.model",
    "Checkpoint": "semcut.connector.checkpoint",
    "CheckpointError": "semcut.connector.errors",
    "Connector": "semcut.connector.connector",
    "DataError": "semcut.connector.errors",
    "Encoder": "semcut.connector.encode",
    "Hit": "semcut.connector.connector",
    "ImageSet": "semcut.connector.data",
    "SemanticHashNet": "semcut.connector.model",
    "TrainConfig": "semcut.connector.training",
    "train": "semcut.connector.training",
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
        raise AttributeError(f"module 'semcut.connector' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
