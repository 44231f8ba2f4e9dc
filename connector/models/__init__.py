"""Networks that compute class probabilities, a hash code and a feature for each image; their checkpoints on disk.

    network      `Architecture` and `SemanticHashNet`: one backbone, a softmax branch and a hash branch
    adopted_network     `AdoptedNet`: a network that semcut did not train, with codes and probabilities
    image_network       what both kinds of network have in common
    network_sources     build a network that semcut did not train: torchvision, timm, transformers, ONNX, a function
    classification_models    whole models of torchvision and EfficientNet-Lite, and how files of weights are read
    pooling      features by generalised means, in place of averages
    scales       run a network on images at several sizes
    backbones    build a backbone by its name; a new backbone goes here
    heads/       the loss of the hash branch and how its outputs become bits; a new head goes there
    hashing      turn the outputs of a head into packed codes (Eq. 3, or signs)
    checkpoint   save and load a trained network
    inference    run a trained network: numpy arrays of pixels in, the arrays that an index stores out
    device       find a device by its name; keep freed memory in the process, so that networks run faster

Other packages import from these modules directly. `training` trains a network; `retrieval` encodes images with one.
Importing this package checks that torch and the other packages below are installed, and raises an error that names the
missing packages. It loads none of them, so the command line can list the names of heads quickly, and can list a command
whose packages are missing as not available.
"""

from typing import Literal

from semcut.indexes.errors import require as _require

HeadName = Literal["paper", "csq", "orthohash", "dpn"]
"""Names of the heads; `heads` describes each."""

CodeName = Literal["itq", "rotation", "equation3", "paper", "csq", "orthohash", "dpn"]
"""How the features of an adopted network become codes: by the signs of a projection that ITQ fitted or that was drawn
at random; by Eq. 3 on the first of them; or by a head of the same name that was trained on features.
"""

MOST_EXPONENT = 100.0
"""The largest exponent of a generalised mean, see `pooling`; beyond it the mean hardly differs from the maximum."""

LEAST_SCALE, MOST_SCALES = 0.25, 8
"""The smallest share of its image size that a network sees an image at, and the most shares; see `scales`."""

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
