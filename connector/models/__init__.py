"""Networks: backbones, heads, hash codes, and checkpoints on the disk.

Importing any module of this package needs torch; what is missing is said in one sentence.
"""

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
