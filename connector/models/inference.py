"""Run a trained network on batches of pixels: numpy arrays go in, the arrays that an index stores come out.

Callers need no tensors, so the code that encodes images works with numpy arrays. On the CPU, an array and the tensor
made from it share their memory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from semcut.connector.models.adopted_network import AdoptedArchitecture
from semcut.connector.models.device import device_named
from semcut.connector.models.hashing import binarise, pack
from semcut.connector.models.image_network import ImageNetwork, outline_of
from semcut.connector.models.layer_shapes import outputs_of
from semcut.connector.models.network import Output, SemanticHashNet
from semcut.connector.models.network_sources import DESCRIBED, Classifier
from semcut.indexes.errors import CheckpointError

# The threads that torch has used do not exist in a forked child, which would wait for them for ever.
os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


_BYTES_PER_PIXEL = 256
"""Memory of a network whose layers cannot be seen; resnet18 and efficientnet_lite0 take 150 and 230 bytes."""


class NetworkOutputs(NamedTuple):
    """The arrays that an index stores for n images.

    probabilities (n, C) float32; codes (n, bits / 8) uint8, packed; features (n, D) float32, L2-normalised.
    """

    probabilities: NDArray[np.float32]
    codes: NDArray[np.uint8]
    features: NDArray[np.float32]


class NetworkRunner:
    """A network on a device, ready to encode.

    The network itself is moved to the device; it is not copied.

    Args:
        net: the network, in evaluation mode.
        device: "cpu", "cuda", "cuda:0".

    Attributes:
        net, device: the network, and the device that it is on.

    Raises:
        DataError: the device cannot be used on this machine.
    """

    def __init__(self, net: ImageNetwork, device: str = "cpu") -> None:
        self.device = device_named(device)
        self.net = net.to(self.device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def bytes_per_image(self) -> int:
        """Estimate the memory that the encoding of one image takes, without the weights, from an outline.

        A layer needs its input and its output at once. The library of the convolutions, and memory that was freed in
        other sizes, about double that: measured with the backbones small, resnet18 and efficientnet_lite0 on a CPU.
        The layers of a file of ONNX and of a function cannot be seen; for these it is a number for each pixel. A
        network of timm or transformers is not run for this, see `forward_cost`.

        Raises:
            CheckpointError: an image takes more than any network needs, or the network cannot take its images.
        """
        largest = 0

        def look(layer: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            nonlocal largest
            arrays = [value for value in (*inputs, output) if isinstance(value, torch.Tensor)]
            largest = max(largest, sum(array.shape[1:].numel() * array.itemsize for array in arrays))

        size = self.net.architecture.image_size
        part = _measured_part(self.net)
        if part is None:
            return _BYTES_PER_PIXEL * size * size
        outline = part.to("meta").eval()
        architecture = self.net.architecture
        if isinstance(architecture, AdoptedArchitecture) and architecture.source in DESCRIBED:
            from semcut.connector.models.forward_cost import image_bytes  # loads parts of torch that others do not need

            return 2 * image_bytes(outline, size)
        for layer in outline.modules():
            if not list(layer.children()):
                layer.register_forward_hook(look)
        outputs_of(outline, (3, size, size))
        return 2 * largest

    @torch.inference_mode()
    def run(self, pixels: NDArray[np.uint8]) -> NetworkOutputs:
        """Run the whole network.

        Args:
            pixels: (n, 3, size, size) uint8, RGB; n may be 0.

        Raises:
            CheckpointError: the network cannot be run, for example because it takes more memory than there is.
        """
        if not len(pixels):
            return self._empty()
        try:
            images = torch.from_numpy(pixels).to(self.device)
            return self._outputs(self.net(images.contiguous(memory_format=torch.channels_last)))
        except (RuntimeError, MemoryError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise CheckpointError(
                f"the network cannot be run on {len(pixels):,} images of {pixels.shape[-1]} pixels ({reason}): free "
                "memory, or adopt the network again with a smaller image size"
            ) from None

    @torch.inference_mode()
    def run_branches(self, layers: Sequence[NDArray[np.float32]]) -> NetworkOutputs:
        """Run only the two branches, on outputs of the backbone that were computed before.

        Args:
            layers: the backbone's mid-level outputs, (n, width) each.
        """
        assert isinstance(self.net, SemanticHashNet)
        return self._outputs(self.net.branch_outputs(tuple(torch.from_numpy(one).to(self.device) for one in layers)))

    def _outputs(self, output: Output) -> NetworkOutputs:
        if not all(bool(torch.isfinite(values).all()) for values in output):
            raise CheckpointError(
                "the network computes numbers that are not finite, so its encodings would mean nothing: its weights "
                "are damaged or too large; train or adopt it again"
            )
        features = functional.normalize(output.features.double(), dim=1)
        without_direction = features.norm(dim=1) < 0.5  # features of zeros, for which any unit vector will do
        features[without_direction] = features.shape[1] ** -0.5
        return NetworkOutputs(
            probabilities=self.net.probabilities(output.logits).float().cpu().numpy(),
            codes=pack(binarise(output.hash, self.net.binarisation)),
            features=features.float().cpu().numpy(),
        )

    def _empty(self) -> NetworkOutputs:
        architecture = self.net.architecture
        return NetworkOutputs(
            probabilities=np.empty((0, len(architecture.classes)), np.float32),
            codes=np.empty((0, architecture.bits // 8), np.uint8),
            features=np.empty((0, self.net.dim), np.float32),
        )


def _measured_part(net: ImageNetwork) -> torch.nn.Module | None:
    """Build an outline of the layers of a network; None if they cannot be seen."""
    outline = outline_of(net.architecture)
    if isinstance(outline, SemanticHashNet):
        return outline.backbone
    return outline.source if isinstance(outline.source, Classifier) else None
