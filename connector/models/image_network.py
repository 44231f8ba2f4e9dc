"""The two kinds of network that encode images: one that semcut trained, and one that it adopted.

Both compute logits, outputs of the hash branch and features for pixels, and have `architecture`, `dim`, `binarisation`
and `probabilities`. Code that only encodes uses nothing else, so it need not know which kind it has.
"""

from __future__ import annotations

from typing import Any

from semcut.connector.data.model_file import ADOPTED, VERSION
from semcut.connector.models.adopted_network import AdoptedArchitecture, AdoptedNet
from semcut.connector.models.backbones import normalisation_of
from semcut.connector.models.heads import HEADS
from semcut.connector.models.network import Architecture, SemanticHashNet
from semcut.indexes.argument_checks import instance_given

ImageNetwork = SemanticHashNet | AdoptedNet
ImageArchitecture = Architecture | AdoptedArchitecture


def outline_of(architecture: ImageArchitecture) -> ImageNetwork:
    """Build a network whose tensors have shapes and no content; it takes no memory."""
    if isinstance(architecture, AdoptedArchitecture):
        return AdoptedNet.outline(architecture)
    return SemanticHashNet.outline(instance_given("architecture", architecture, Architecture))


def described_architecture(description: dict[str, Any]) -> ImageArchitecture:
    """Read the architecture in a description of a network, see `data.model_file`.

    Raises:
        InvalidParameterError, TypeError: it is none.
    """
    kind = AdoptedArchitecture if description["semcut_model"] == ADOPTED else Architecture
    return kind(**description["architecture"])


def description_version(architecture: ImageArchitecture) -> int:
    """Return the version of the description of a network."""
    return ADOPTED if isinstance(architecture, AdoptedArchitecture) else VERSION


def encoding_facts(architecture: ImageArchitecture) -> dict[str, Any]:
    """Describe what decides an encoding besides the architecture and the weights."""
    if isinstance(architecture, AdoptedArchitecture):
        mean, std, binarisation = architecture.mean, architecture.std, architecture.binarisation
    else:
        (mean, std), binarisation = normalisation_of(architecture.backbone), HEADS[architecture.head].binarisation
    return {"normalisation": {"mean": list(mean), "std": list(std)}, "binarisation": binarisation}
