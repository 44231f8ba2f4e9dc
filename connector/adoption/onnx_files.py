"""Read a file of ONNX that may come from someone else, with its weights in other files of the same directory.

Such a file names the other files, and can name the same bytes any number of times: each is opened as a regular file of
that directory, and the sum of what is named is checked before anything is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from semcut.connector.models.onnx_network import MOST_BYTES
from semcut.indexes.errors import CheckpointError, require, shown
from semcut.indexes.regular_files import open_binary


def read_onnx(path: Path) -> Any:
    """Read a file of ONNX with all its weights.

    Returns:
        An `onnx.ModelProto`.

    Raises:
        CheckpointError: the file, or one of its weights, cannot be read.
        MissingDependencyError: onnx or onnxruntime is not installed.
    """
    require({"onnx": "onnx", "onnxruntime": "onnxruntime"}, "adopt a network of ONNX", "onnx")
    import onnx

    try:
        with open_binary(path, max_bytes=MOST_BYTES, follow=True) as stream:
            model = onnx.load_from_string(stream.read())
        _read_weights(model, path.absolute().parent)
    except FileNotFoundError:
        raise CheckpointError(f"network = {path}: there is no such file, or one of its weights") from None
    except Exception as error:  # protobuf and onnx raise errors of many types
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise CheckpointError(f"{path} cannot be read as a file of ONNX: {reason}") from None
    return model


def _read_weights(model: Any, folder: Path) -> None:
    """Put the weights that are in other files into the model."""
    places, sizes = [], dict[Path, int]()
    for tensor in _tensors(model.graph):
        if tensor.data_location != tensor.EXTERNAL:
            continue
        said = {entry.key: entry.value for entry in tensor.external_data}
        file = _inside(folder, said.get("location", ""))
        if file not in sizes:
            with open_binary(file, max_bytes=MOST_BYTES) as stream:
                sizes[file] = os.fstat(stream.fileno()).st_size
        start = int(said.get("offset", 0))
        length = int(said.get("length", sizes[file] - start))
        if start < 0 or length < 0 or start + length > sizes[file]:
            raise ValueError(f"the weights of {shown(tensor.name)} are not within {file.name}")
        places.append((tensor, file, start, length))
    if sum(length for *_, length in places) > MOST_BYTES:
        raise ValueError(f"its weights have more than {MOST_BYTES:,} bytes")
    for tensor, file, start, length in places:
        with open_binary(file, max_bytes=MOST_BYTES) as stream:
            stream.seek(start)
            tensor.raw_data = stream.read(length)
        tensor.data_location = tensor.DEFAULT
        del tensor.external_data[:]


def _tensors(graph: Any) -> Iterator[Any]:
    """List the weights of a graph, and of the graphs in its nodes; how deep these are, protobuf limits."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _tensors(inner)


def _inside(folder: Path, name: str) -> Path:
    """Return the file of this name in a folder or a folder in it."""
    file = folder / name
    if not name or not Path(os.path.realpath(file.parent)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"its weights are in {shown(name)}, expected a file in its own directory")
    return file
