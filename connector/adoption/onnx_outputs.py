"""Find out which outputs of a file of ONNX are logits and features, and make it a file that has exactly these.

Most files that classifiers are exported to have one output, the logits. The feature is then the input of the last
matrix product before them, which becomes a second output. An output is taken for logits if a matrix product leads to it
through nothing but additions, casts, reshapes and a softmax, which is left out. Where several outputs could be logits,
or none could, the user says which.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from semcut.connector.adoption.named_network import Hints, NamedNetwork, named_classes
from semcut.connector.adoption.onnx_files import read_onnx
from semcut.connector.models.onnx_network import MOST_BYTES, OnnxNetwork, check_input
from semcut.indexes.errors import CheckpointError, InvalidParameterError

_THROUGH = ("Add", "Cast", "Flatten", "Identity", "Reshape", "Softmax", "LogSoftmax", "Dropout", "Squeeze")
"""Operations between the last matrix product and the output."""
_PRODUCTS = ("Gemm", "MatMul")
_SIDE, _MOST_OUTPUTS = 224, 100


def network_in_file(path: Path, hints: Hints) -> NamedNetwork:
    """Read a network from a file of ONNX; weights in other files of the same directory become part of it.

    Raises:
        CheckpointError: the file cannot be read or run.
        InvalidParameterError: the outputs cannot be distinguished, or it has no output of this name.
        MissingDependencyError: onnx or onnxruntime is not installed.
    """
    if hints.weights is not None:
        raise InvalidParameterError(f"network = {path}: a file of ONNX has its own weights, give none")
    model = read_onnx(path)
    inputs = [one for one in model.graph.input if one.name not in {weight.name for weight in model.graph.initializer}]
    if len(inputs) != 1:
        raise InvalidParameterError(f"{path} has {len(inputs)} inputs, expected one: a batch of images")
    layout, size = _layout(path, inputs[0])
    size = hints.image_size or size or _SIDE
    logits, features = _outputs(path, model, hints)
    del model.graph.output[:]
    for name in (logits, features):
        if name:
            model.graph.output.add().name = name
    content = model.SerializeToString()
    if len(content) > MOST_BYTES:
        raise CheckpointError(f"{path} has {len(content):,} bytes with its weights, expected at most {MOST_BYTES:,}")
    settings = {
        "bytes": len(content), "images": inputs[0].name, "logits": logits, "features": features, "layout": layout,
    }  # fmt: skip
    network = OnnxNetwork(settings)
    network.file = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    with torch.inference_mode():
        count = network(torch.zeros(1, 3, size, size))[0].shape[1]
    classes, assumed = named_classes(count)
    assumed += ("its pixels are taken to be normalised as for ImageNet",)
    return NamedNetwork("onnx", "", settings, network.eval(), classes, size, assumed=assumed)


def _layout(path: Path, value: Any) -> tuple[str, int | None]:
    """Return the order of the axes of an input, and its pixels per side where the file fixes them."""
    shape = [axis.dim_value or None for axis in value.type.tensor_type.shape.dim]
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise InvalidParameterError(
            f"{path}: its input {value.name} has the shape {shape}, expected (n, 3, size, size) or (n, size, size, 3)"
        )
    layout, sides = ("channels first", shape[2:]) if shape[1] == 3 else ("channels last", shape[1:3])
    if sides[0] != sides[1]:
        raise InvalidParameterError(f"{path}: its images have {sides[0]} x {sides[1]} pixels, expected squares")
    check_input(shape)
    return layout, sides[0]


def _outputs(path: Path, model: Any, hints: Hints) -> tuple[str, str]:
    """Return the names of logits (empty if it has none) and features."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    names = [output.name for output in model.graph.output]
    if len(names) > _MOST_OUTPUTS:
        raise InvalidParameterError(f"{path} returns {len(names):,} values, expected at most {_MOST_OUTPUTS}")
    weights = {one.name for one in model.graph.initializer}
    for what, name in (("logits", hints.logits), ("features", hints.features)):
        if name and name not in made_by:
            raise InvalidParameterError(f"{what} = {name}: {path} computes nothing of this name, it returns {names}")
    if hints.features and not hints.has_logits:
        return "", hints.features
    candidates = {name: found for name in names if (found := _product_before(weights, made_by, name)) is not None}
    if hints.logits:
        found = _product_before(weights, made_by, hints.logits)
        chosen = hints.logits if found is None else found[0]
        features = hints.features or (None if found is None else found[1])
    elif not hints.has_logits:
        chosen, features = "", names[0] if len(names) == 1 else None
    elif len(candidates) == 1:
        chosen, source = next(iter(candidates.values()))
        others = [name for name in names if name not in candidates]
        features = hints.features or (others[0] if others == [source] else source)
    else:
        kind = "several could be logits" if candidates else "none could be logits"
        raise InvalidParameterError(
            f"{path} returns {', '.join(names)}, of which {kind}: say which are logits and features (--logits and "
            "--features), or give vectors of classes for a network that has no logits (--vectors)"
        )
    if not features:
        raise InvalidParameterError(f"{path} returns {', '.join(names)}: say which are the features (--features)")
    return chosen, features


def _product_before(weights: set[str], made_by: dict[str, Any], name: str) -> tuple[str, str] | None:
    """Follow an output back to the matrix product that computes it.

    Returns:
        The name of the logits, before a softmax, and that of the product's input; None if there is no such product.
    """
    logits, seen = name, set[str]()
    while (node := made_by.get(name)) is not None and name not in seen:
        seen.add(name)
        if node.op_type in _PRODUCTS and len(node.input) > 1:
            return (logits, node.input[0]) if _is_weight(node.input[1], weights, made_by) else None
        if node.op_type not in _THROUGH:
            return None
        inputs = [one for one in node.input if one and one not in weights and made_by.get(one) is not None]
        name = inputs[0] if inputs else ""
        if node.op_type in ("Softmax", "LogSoftmax"):
            logits = name
    return None


def _is_weight(name: str, weights: set[str], made_by: dict[str, Any]) -> bool:
    """Return whether a value is a weight, as it is or transposed, not something computed from the images."""
    left, seen = [name], set[str]()
    while left:
        one = left.pop()
        if one in weights or one in seen:
            continue
        node = made_by.get(one)
        if node is None or node.op_type not in ("Constant", "Transpose", "Identity"):
            return False
        seen.add(one)
        left += node.input
    return True
