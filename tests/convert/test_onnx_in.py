"""ONNX graphs of other writers, made by hand: each way to say a layer is understood, everything else refused in one line."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_files import assert_same, runtime

from hardspike.convert.onnx_in import load_onnx
from hardspike.snn.architecture import Node, Spiking, WeightedSum
from hardspike.snn.errors import FileError, SettingsError, UnsupportedLayerError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork

CONSTANTS: dict[str, Any] = {
    "k2": np.float32(2.0),
    "mean": np.array([0.1, 0.2], np.float32).reshape(2, 1, 1),
    "scale": np.array([4, 5], np.float32).reshape(1, 2, 1, 1),
    "map": np.zeros((2, 4, 4), np.float32),
    "kernel": (np.arange(2 * 2 * 9, dtype=np.float32) / 30 - 0.5).reshape(2, 2, 3, 3),
    "matrix": np.arange(32 * 3, dtype=np.float32).reshape(32, 3) / 50 - 1,
    "row": np.array([[0.5, -0.5, 0.25]], np.float32),
    "number": np.array([3.0], np.float32),
    "ones": np.ones(2, np.float32),
    "top": np.float32(15),
    "last": np.array([2, 3]),
    "first": np.array([1]),
    "flat": np.array([-1, 32]),
    "zero": np.array(0),
    "minus": np.array([-1]),
    "start": np.array([0]),
}


def op(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    names = inputs.split(", ") if inputs else []
    return helper.make_node(operator, names, [output], f"{output}/node", **attributes)


def handmade(
    nodes: list[onnx.NodeProto], *, shape: tuple[int | str, ...] = ("n", 2, 4, 4), opset: int = 17
) -> onnx.ModelProto:
    """A graph from `image` to the last node's output, with the constants it uses."""
    used = {name for entry in nodes for name in entry.input}
    graph = helper.make_graph(
        nodes,
        "handmade",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_value_info(nodes[-1].output[0], onnx.TypeProto())],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in CONSTANTS.items() if name in used],
    )
    opsets = [
        helper.make_opsetid("", opset),
        *[helper.make_opsetid(domain, 1) for domain in {n.domain for n in nodes} - {""}],
    ]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    output = model.graph.output[0]
    if not output.type.tensor_type.HasField("shape"):
        output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, [None] * 4))
    return model


def load(model: onnx.ModelProto, **arguments: Any) -> SpikingNetwork:

    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(model.SerializeToString())
        return load_onnx(path, **arguments)


GRAPHS: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "normalisation by factor and shift": (
        [op("Mul", "scale, image", "a"), op("Add", "a, mean", "b"), op("Relu", "b", "c")],
        "Spiking",
    ),
    "convolution and its bias apart": (
        [op("Conv", "image, kernel", "a", pads=[1, 1, 1, 1]), op("Add", "a, mean", "b"), op("Relu", "b", "c")],
        "Convolution, Spiking",
    ),
    "product and its bias apart": (
        [op("Flatten", "image", "a"), op("MatMul", "a, matrix", "b"), op("Add", "row, b", "c"), op("Relu", "c", "d")],
        "Flatten, Dense, Spiking",
    ),
    "product scaled": (
        [op("Reshape", "image, flat", "a"), op("Gemm", "a, matrix, row", "b", alpha=0.5, beta=2.0)],
        "Flatten, Dense",
    ),
    "product with one bias for all": (
        [op("Flatten", "image", "a", axis=-3), op("Gemm", "a, matrix, number", "b"), op("Identity", "b", "c")],
        "Flatten, Dense",
    ),
    "pooling with stride one over everything": (
        [op("AveragePool", "image", "a", kernel_shape=[4, 4]), op("Flatten", "a", "b")],
        "AveragePool, Flatten",
    ),
    "mean without its axes, twice flat": (
        [op("ReduceMean", "image", "a", axes=[-1, -2], keepdims=0), op("Flatten", "a", "b")],
        "AveragePool, Flatten",
    ),
    "squeezed": (
        [op("GlobalAveragePool", "image", "a"), op("Squeeze", "a, last", "b")],
        "AveragePool, Flatten",
    ),
    "batch axis from the shape": (
        [
            op("Shape", "image", "a"),
            op("Gather", "a, zero", "b"),
            op("Unsqueeze", "b, start", "c"),
            op("Concat", "c, minus", "d", axis=0),
            op("Reshape", "image, d", "e"),
        ],
        "Flatten",
    ),
    "factors through layers": (
        [op("Mul", "image, k2", "a"), op("Relu", "a", "b"), op("Div", "b, k2", "c"), op("Conv", "c, kernel", "d")],
        "Spiking, WeightedSum, Convolution",
    ),
    "a side branch not read": (
        [op("Relu", "image", "a"), op("Conv", "a, kernel", "b"), op("Flatten", "a", "c")],
        "Spiking, Flatten",
    ),
    "dropout with a mask, constants computed": (
        [
            op("Relu", "image", "a"),
            helper.make_node("Dropout", ["a"], ["b", "mask"], "drop"),
            helper.make_node("Constant", [], ["k"], "", value_float=0.5),
            op("Mul", "k, k2", "one"),
            op("Mul", "b, one", "c"),
            op("Flatten", "c", "d"),
        ],
        "Spiking, Flatten",
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_of_other_writers(name: str) -> None:
    nodes, layers = GRAPHS[name]
    model = handmade(nodes)
    network = load(model)
    batch = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(2)) - 0.3
    with torch.no_grad():
        assert_same(network(batch), runtime(model, batch))
    assert ", ".join(type(entry.layer).__name__ for entry in network.architecture.nodes) == layers


def test_a_sum_takes_up_the_factors_of_its_sources() -> None:
    model = handmade([op("Relu", "image", "a"), op("Mul", "a, k2", "b"), op("Add", "a, b", "c"), op("Relu", "c", "d")])
    network = load(model)
    assert [type(entry.layer).__name__ for entry in network.architecture.nodes] == ["Spiking", "WeightedSum", "Spiking"]
    assert network.architecture.nodes[1] == Node(
        name="c_node", layer=WeightedSum(initial=(1.0, 2.0)), sources=("a_node", "a_node")
    )


def test_means_and_stds_given() -> None:
    model = handmade([op("Conv", "image, kernel", "a")])
    batch = torch.rand(3, 2, 4, 4)
    mean, std = torch.tensor([0.4, 0.5]).view(2, 1, 1), torch.tensor([0.2, 0.3]).view(2, 1, 1)
    with torch.no_grad():
        assert_same(load(model, mean=(0.4, 0.5), std=[0.2, 0.3])(batch), runtime(model, (batch - mean) / std))
        assert_same(load(model, std=[0.2, 0.3])(batch), runtime(model, batch / std))
    with pytest.raises(SettingsError, match="normalises its image itself; leave them out"):
        load(handmade([op("Sub", "image, mean", "a"), op("Relu", "a", "b")]), mean=(0.4, 0.5))


def test_neuron_settings_reach_every_activation() -> None:
    model = handmade([op("Relu", "image", "a"), op("Relu", "a", "b")])
    network = load(model, neuron=NeuronSettings(leak=0.9, activation="clip-floor"))
    assert {entry.layer for entry in network.architecture.nodes} == {Spiking(neuron=NeuronSettings(leak=0.9))}


def test_names_are_ones_a_network_can_have() -> None:
    names = ["/features/0/Relu", "features.0.Relu", "type", "input", "", "", "Größe"]
    nodes = [helper.make_node("Relu", ["image" if i == 0 else f"t{i}"], [f"t{i + 1}"], n) for i, n in enumerate(names)]
    found = [entry.name for entry in load(handmade(nodes)).architecture.nodes]
    assert found == ["features_0_Relu", "features_0_Relu_2", "type_layer", "input_2", "relu", "relu_2", "Gr_e"]


REFUSED: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "maximum": ([op("MaxPool", "image", "a", kernel_shape=[2, 2])], "MaxPool of node 'a/node'.*use average pooling"),
    "softmax": ([op("Softmax", "image", "a")], "Softmax.*the logits before it"),
    "sigmoid": ([op("Sigmoid", "image", "a")], "Sigmoid of node 'a/node'.*supported are Conv, BatchNormalization"),
    "foreign": ([helper.make_node("Relu", ["image"], ["a"], "x", domain="else")], "domain 'else' is unknown"),
    "one-sided pads": ([op("Conv", "image, kernel", "a", pads=[0, 0, 1, 1])], "Conv of node 'a/node'.*pads"),
    "automatic pads": ([op("Conv", "image, kernel", "a", auto_pad="SAME_UPPER")], "auto_pad is SAME_UPPER"),
    "computed kernel": ([op("Relu", "image", "a"), op("Conv", "image, a", "b")], "no constants"),
    "overlapping windows": ([op("AveragePool", "image", "a", kernel_shape=[2, 2])], "windows that do not overlap"),
    "padded windows": (
        [op("AveragePool", "image", "a", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1])],
        "pad nothing",
    ),
    "windows rounded up": (
        [op("AveragePool", "image", "a", kernel_shape=[3, 3], strides=[3, 3], ceil_mode=1)],
        "ceil_mode",
    ),
    "mean of one axis": ([op("ReduceMean", "image", "a", axes=[2])], "no mean over height and width"),
    "flat from the second axis": ([op("Flatten", "image", "a", axis=2)], "flatten from axis 1"),
    "squeezed channel": ([op("GlobalAveragePool", "image", "a"), op("Squeeze", "a", "b")], "flatten from axis 1"),
    "product of images": ([op("Relu", "image", "a"), op("Mul", "a, image", "b")], "only the sum"),
    "sum of different shapes": (
        [op("GlobalAveragePool", "image", "a"), op("Add", "a, image", "b")],
        "of equal shapes",
    ),
    "negative picture": ([op("Sub", "k2, image", "a")], "a constant stands before it"),
    "mean image": ([op("Sub", "image, map", "a"), op("Relu", "a", "b")], "one number per channel"),
    "shift of an activation": ([op("Relu", "image", "a"), op("Add", "a, mean", "b")], "bias of a layer"),
    "bias of a layer with other readers": (
        [op("Conv", "image, kernel", "a"), op("Add", "a, mean", "b"), op("Add", "a, b", "c")],
        "bias of a layer",
    ),
    "rounded activation": ([op("Relu", "image", "a"), op("Round", "a", "b")], "rounds something other"),
    "rounded to tenths": ([op("Mul", "image, k2", "a"), op("Round", "a", "b")], "rounds something other"),
    "normalised, then rounded": (
        [op("Sub", "image, mean", "a"), op("Mul", "a, top", "b"), op("Round", "b", "c")],
        "round first",
    ),
    "two normalisations": (
        [op("Sub", "image, mean", "a"), op("Relu", "a", "b"), op("Relu", "image", "c"), op("Add", "b, c", "d")],
        "another normalisation",
    ),
    "training": (
        [helper.make_node("BatchNormalization", ["image", *["ones"] * 4], ["a", "b", "c"], "x", training_mode=1)],
        "export in evaluation mode",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_layer_does_is_refused_in_one_line(name: str) -> None:
    nodes, message = REFUSED[name]
    model = handmade(nodes)
    with pytest.raises(UnsupportedLayerError, match=message) as caught:
        load(model)
    assert "\n" not in str(caught.value)


def damaged(tmp_path: Path, name: str) -> Path:
    path = tmp_path / "net.onnx"
    good = handmade([op("Relu", "image", "a")])
    match name:
        case "no such file":
            return path
        case "not a readable ONNX file":
            path.write_bytes(good.SerializeToString()[:-40])
        case "it is damaged or of another format":
            path.write_bytes(b"")
        case "only N may be open; give static C, H, W":
            good = handmade([op("Relu", "image", "a")], shape=("n", 3, "h", "w"))
        case "4 are allowed":
            good = handmade([op("Relu", "image", "a")], shape=("n", 3))
        case "9 or newer":
            good = handmade([op("Relu", "image", "a")], opset=8)
        case "2 inputs found":
            good.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
        case "2 outputs found":
            good.graph.output.append(good.graph.output[0])
            good.graph.output[1].name = "image"
        case "no layers between":
            good = handmade([op("Identity", "image", "a")])
        case "does not depend on the image":
            good = handmade([op("Identity", "map", "a")])
        case "is not finite":
            good = handmade([op("Conv", "image, kernel", "a")])
            good.graph.initializer[0].CopyFrom(
                numpy_helper.from_array(np.full((2, 2, 3, 3), np.nan, np.float32), "kernel")
            )
    if not path.exists():
        path.write_bytes(good.SerializeToString())
    return path


@pytest.mark.parametrize(
    "message",
    [
        "no such file",
        "not a readable ONNX file",
        "it is damaged or of another format",
        "only N may be open; give static C, H, W",
        "4 are allowed",
        "9 or newer",
        "2 inputs found",
        "2 outputs found",
        "no layers between",
        "does not depend on the image",
        "is not finite",
    ],
)
def test_files_without_a_network_are_refused_in_one_line(message: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=message) as caught:
        load_onnx(damaged(tmp_path, message))
    assert "\n" not in str(caught.value)
