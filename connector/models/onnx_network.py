"""`OnnxNetwork`: a network in a file of ONNX, run by onnxruntime.

The bytes of the file are a tensor of the checkpoint, so the digest of the network covers them, and nothing else is
read: a file whose weights are in other files is refused. Which of its outputs are logits and features stands in the
description, see `connector.adoption.onnx_outputs`.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError

from semcut.connector.models.source import Source
from semcut.indexes.config import Settings
from semcut.indexes.errors import CheckpointError, require

MOST_BYTES = (1 << 31) - 1
"""The largest file of ONNX, by its format."""
_MOST_IMAGES, _SIDES = 64, (8, 1024)
"""The largest batch that a file may fix, and the pixels per side."""
_FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"
_NUMBERS = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
"""The kinds of numbers that an input may have."""


class OnnxSettings(Settings):
    """How a file is run.

    Attributes:
        bytes: its size.
        images: name of the input.
        logits: name of the output with the logits; empty if there are none.
        features: name of the output with the features.
        layout: "channels first" for (n, 3, size, size), "channels last" for (n, size, size, 3).
    """

    bytes: int = Field(ge=1, le=MOST_BYTES)
    images: str
    logits: str = ""
    features: str
    layout: Literal["channels first", "channels last"] = "channels first"


class OnnxNetwork(Source):
    """A file of ONNX as a network.

    Args:
        settings: values of `OnnxSettings`.

    Raises:
        CheckpointError: they are something else.
        MissingDependencyError: onnxruntime is not installed.
    """

    file: torch.Tensor

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        require({"onnxruntime": "onnxruntime"}, "run a network of ONNX", "onnx")
        try:
            self.settings = OnnxSettings(**settings)
        except (ValidationError, TypeError, ValueError) as error:
            raise CheckpointError(f"the network's description names no file of ONNX: {error}") from None
        self.register_buffer("file", torch.empty(self.settings.bytes, dtype=torch.uint8))
        self._session: Any = None
        self._lock = threading.Lock()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the file on normalised images.

        Raises:
            CheckpointError: the file cannot be run.
        """
        with self._lock:
            if self._session is None:
                self._session = open_session(self.file.cpu().numpy().tobytes(), images.device.type)
        place = next((one for one in self._session.get_inputs() if one.name == self.settings.images), None)
        if place is None:
            raise CheckpointError(f"the file of ONNX has no input {self.settings.images}")
        check_input(place.shape)
        wanted = [name for name in (self.settings.logits, self.settings.features) if name]
        pixels = images.detach().cpu().numpy().astype(_NUMBERS.get(place.type, np.float32))
        if self.settings.layout == "channels last":
            pixels = pixels.transpose(0, 2, 3, 1)
        step = place.shape[0] if isinstance(place.shape[0], int) and place.shape[0] > 0 else max(1, len(pixels))
        parts = []
        for start in range(0, len(pixels), step):
            part = pixels[start : start + step]
            missing = step - len(part) if isinstance(place.shape[0], int) else 0
            full = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            found = run_session(self._session, wanted, {place.name: np.ascontiguousarray(full)})
            parts.append([_rows(values, len(full))[: len(part)] for values in found])
        arrays = [np.concatenate(one).astype(np.float32) for one in zip(*parts, strict=True)]
        if not self.settings.logits:
            arrays.insert(0, np.empty((len(pixels), 0), np.float32))
        logits, features = (torch.from_numpy(array).to(images.device) for array in arrays)
        return logits, features


def check_input(shape: Sequence[Any]) -> None:
    """Raise `CheckpointError` if a file of ONNX fixes a batch or a side of its images that no network needs.

    Args:
        shape: the lengths of its input; those that are no int are not fixed.
    """
    batch, *sides = [one if isinstance(one, int) and one > 0 else None for one in shape] or [None]
    if batch is not None and batch > _MOST_IMAGES:
        raise CheckpointError(f"the file of ONNX takes {batch:,} images at once, expected at most {_MOST_IMAGES}")
    for side in sides:
        if side not in (None, 3) and not _SIDES[0] <= side <= _SIDES[1]:
            raise CheckpointError(
                f"the file of ONNX takes images of {side:,} pixels, expected {_SIDES[0]} to {_SIDES[1]:,} per side"
            )


def _rows(values: Any, count: int) -> Any:
    """Return what a file of ONNX computed as an array with a row for each image."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or values.shape[:1] != (count,):
        kind = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise CheckpointError(
            f"the file of ONNX returns {kind} for {count} images, expected an array of numbers with a row for each"
        )
    return values.reshape(count, math.prod(values.shape[1:]))


def open_session(content: bytes, device: str = "cpu") -> Any:
    """Open a file of ONNX from its bytes.

    Raises:
        CheckpointError: it is no such file, or has its weights in other files.
        MissingDependencyError: onnxruntime is not installed.
    """
    require({"onnxruntime": "onnxruntime"}, "run a network of ONNX", "onnx")
    import onnxruntime

    provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise CheckpointError("onnxruntime runs on no GPU here: install onnxruntime-gpu, or use the device cpu")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its messages go to the terminal, and the errors are raised
    with tempfile.TemporaryDirectory() as nothing:  # a file may name other files, which are looked for only there
        options.add_session_config_entry(_FOLDER_OF_WEIGHTS, nothing)
        try:
            return onnxruntime.InferenceSession(content, options, providers=[provider])
        except Exception as error:  # it raises errors of many types
            raise CheckpointError(f"onnxruntime cannot open the file of ONNX: {_reason(error)}") from None


def run_session(session: Any, outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
    """Run a file of ONNX, and return the arrays of these outputs.

    Raises:
        CheckpointError: it cannot be run on these inputs.
    """
    try:
        found: list[Any] = session.run(outputs, inputs)
    except Exception as error:
        raise CheckpointError(f"onnxruntime cannot run the file of ONNX: {_reason(error)}") from None
    return found


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
