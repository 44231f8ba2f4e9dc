"""Files of ONNX that someone forged are an error, soon and without much memory, when adopted and when stored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semcut.connector.adoption.named_network import Hints
from semcut.connector.adoption.onnx_outputs import network_in_file
from semcut.connector.models.adopted_network import AdoptedArchitecture, AdoptedNet
from semcut.connector.models.onnx_network import OnnxNetwork
from semcut.indexes.errors import CheckpointError, InvalidParameterError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
make = onnx.helper.make_node
FLOAT = onnx.TensorProto.FLOAT
FLAT = [make("Flatten", ["images"], ["flat"]), make("MatMul", ["flat", "w"], ["scores"])]


def model(nodes: list[Any], weights: list[Any] = [], shape: Any = ("n", 3, 8, 8), output: str = "scores") -> bytes:  # noqa: B006
    own = onnx.numpy_helper.from_array(np.ones((192, 7), np.float32), "w")
    inputs = [onnx.helper.make_tensor_value_info("images", FLOAT, shape)]
    outputs = [onnx.helper.make_tensor_value_info(output, FLOAT, None)]
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, [own, *weights])
    opset = [onnx.helper.make_opsetid("", 17)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def external(name: str, numbers: int, location: str) -> Any:
    tensor = onnx.TensorProto(name=name, data_type=FLOAT, dims=[numbers], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def adopted(place: Path, content: bytes, hints: Hints | None = None) -> Any:
    (place / "network.onnx").write_bytes(content)
    return network_in_file(place / "network.onnx", hints or Hints())


def test_values_that_lead_back_to_themselves_end(tmp_path: Path) -> None:
    nodes = [make("Add", ["b", "b"], ["scores"]), make("Add", ["scores", "scores"], ["b"])]
    with pytest.raises((CheckpointError, InvalidParameterError)):
        adopted(tmp_path, model(nodes))


@pytest.mark.parametrize("inputs", [1, 2])
def test_a_long_way_to_a_weight_is_followed_once(inputs: int, tmp_path: Path) -> None:
    way = [make("Identity", ["w"], ["v0"])]
    way += [make("Identity", [f"v{place}"] * inputs, [f"v{place + 1}"]) for place in range(1_100)]
    content = model([*way, FLAT[0], make("MatMul", ["flat", "v1100"], ["scores"])])
    if inputs == 2:  # which onnxruntime refuses
        with pytest.raises(CheckpointError, match="cannot open"):
            adopted(tmp_path, content)
    else:
        assert adopted(tmp_path, content).settings["features"] == "flat"


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [((10**7, 3, 8, 8), "takes 10,000,000 images at once"), (("n", 3, 10**6, 10**6), "takes images of 1,000,000")],
)
def test_a_batch_or_a_side_has_a_limit(shape: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        adopted(tmp_path, model(FLAT, shape=shape))
    if shape[0] == "n":  # which onnxruntime refuses
        return
    network = stored(model(FLAT, shape=shape), "scores")
    with pytest.raises(CheckpointError, match=sentence):
        network(torch.zeros(1, 3, 8, 8))


def stored(content: bytes, features: str) -> OnnxNetwork:
    network = OnnxNetwork({"bytes": len(content), "images": "images", "features": features})
    network.file = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return network


@pytest.mark.parametrize(
    "node",
    [
        make("Cast", ["scores"], ["z"], to=onnx.TensorProto.STRING),
        make("SequenceConstruct", ["scores"], ["z"]),
        make("ReduceSum", ["scores"], ["z"], keepdims=0),
    ],
)
def test_outputs_are_arrays_of_numbers_with_a_row_for_each_image(node: Any) -> None:
    nodes = [*FLAT, node]
    if node.op_type == "SequenceConstruct":
        value = onnx.helper.make_tensor_sequence_value_info("z", FLOAT, None)
    else:
        value = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.STRING if node.attribute else FLOAT, None)
    whole = onnx.load_from_string(model(nodes))
    del whole.graph.output[:]
    if node.op_type == "ReduceSum":
        value = onnx.helper.make_tensor_value_info("z", FLOAT, None)
    whole.graph.output.append(value)
    with pytest.raises(CheckpointError, match="expected an array of numbers with a row for each"):
        stored(whole.SerializeToString(), "z")(torch.zeros(2, 3, 8, 8))


def test_widths_are_those_of_the_description() -> None:
    content = model(FLAT)
    settings = {"bytes": len(content), "images": "images", "logits": "scores", "features": "scores"}
    for classes, width, sentence in (
        (7, 8, r"features of the shape \(1, 7\)"),
        (8, 7, r"logits of the shape \(1, 7\)"),
    ):
        architecture = AdoptedArchitecture(
            source="onnx", settings=settings, classes=[str(one) for one in range(classes)], image_size=8, width=width,
            mean=(0.5,) * 3, std=(0.5,) * 3,
        )  # fmt: skip
        net = AdoptedNet(architecture)
        net.source.file = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        with pytest.raises(CheckpointError, match=sentence):
            net(torch.zeros(1, 3, 8, 8))


def test_weights_in_other_files_are_regular_files_of_the_directory_within_the_limit(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"\0" * (1 << 20))
    with open(tmp_path / "hole", "wb") as stream:
        stream.truncate(1 << 30)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("small")
    for location, numbers, times, sentence in (
        ("small", 1 << 18, 2_100, "more than 2,147,483,647 bytes"),
        ("hole", 1 << 28, 1, "are holes"),
        ("fifo", 4, 1, "not a regular file"),
        ("link", 4, 1, "symbolic link"),
        ("../secret", 4, 1, "in its own directory"),
        ("/etc/passwd", 4, 1, "in its own directory"),
    ):
        weights = [external(f"e{place}", numbers, location) for place in range(times)]
        with pytest.raises(CheckpointError, match=sentence):
            adopted(tmp_path, model(FLAT, weights))
