"""An ANN as an ONNX file: image in [0, 1] to logits, the input's rounding and normalisation included, as in evaluation mode.

Written from the `Architecture` with onnx.helper; one ONNX node, or a short chain ending in one, per node and of its name.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from hardspike.snn.architecture import (
    INPUT,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    Node,
    Spiking,
    WeightedSum,
)
from hardspike.snn.atomic import replacing
from hardspike.snn.errors import UnsupportedLayerError
from hardspike.snn.network import ScalarWeights, SpikingNetwork

OPSET = 17
IR_VERSION = 8  # the oldest that opset 17 goes with, so that older runtimes read the file
IMAGE, LOGITS = "image", "logits"


def save_onnx(path: Path, network: SpikingNetwork) -> None:
    """Write input `image`, float32 (N, C, H, W), N free, to output `logits`, float32 (N, num_classes); whole or not at all.

    Raises UnsupportedLayerError for an SNN: ONNX has no neurons with a membrane potential.
    """
    replacement = onnx_model(network).SerializeToString()
    with replacing(path) as temporary:
        temporary.write_bytes(replacement)


def onnx_model(network: SpikingNetwork) -> onnx.ModelProto:
    """The checked ONNX model of `save_onnx`."""
    _check_is_ann(network)
    architecture = network.architecture
    writer = _Writer(network)
    writer.image()
    for node in architecture.nodes:
        writer.layer(node)
    last = architecture.nodes[-1].name
    writer.nodes[-1].output[0] = LOGITS
    graph = helper.make_graph(
        writer.nodes,
        "hardspike",
        [helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, ["batch", *architecture.input.shape])],
        [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", *architecture.shapes[last]])],
        writer.constants,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="hardspike",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _check_is_ann(network: SpikingNetwork) -> None:
    for node in network.architecture.nodes:
        if isinstance(node.layer, BatchNorm) and node.layer.steps is not None:
            raise UnsupportedLayerError(
                f"layer '{node.name}': a batch norm of its own for each of {node.layer.steps} timesteps cannot be written as "
                "ONNX; only ANNs can, with one norm per layer"
            )
    if network.time_steps is not None:
        raise UnsupportedLayerError(
            f"network: {network.time_steps} timesteps cannot be written as ONNX; only ANNs (time_steps none) can; "
            "give the network before its conversion"
        )


class _Writer:
    """Collects ONNX nodes and constants; the output of our node `x` is the ONNX tensor `x.out`."""

    def __init__(self, network: SpikingNetwork) -> None:
        self.network = network
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: float | Tensor | NDArray[np.float64]) -> str:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype=np.float32), name))
        return name

    def add(self, operator: str, name: str, *sources: str, **attributes: Any) -> str:
        output = f"{name}.out"
        self.nodes.append(helper.make_node(operator, list(sources), [output], name, **attributes))
        return output

    def image(self) -> None:
        """Rounding and normalisation, ending in the tensor `input.out`."""
        image, value = self.network.architecture.input, IMAGE
        if image.bits is not None:
            top = self.constant("input.top", float((1 << image.bits) - 1))
            value = self.add("Mul", "input.scaled", value, top)
            value = self.add("Round", "input.rounded", value)
            value = self.add("Div", "input.quantised", value, top)
        # In this order the network computes it; (1, C, 1, 1) broadcasts over the image.
        value = self.add("Sub", "input.centred", value, self.constant("input.mean", self.network.mean))
        self.add("Div", INPUT, value, self.constant("input.std", self.network.std))

    def layer(self, node: Node) -> None:
        name, layer, module = node.name, node.layer, self.network.layers[node.name]
        sources = [f"{source}.out" for source in node.sources]
        match layer:
            case Convolution():
                self.add(
                    "Conv",
                    name,
                    *sources,
                    *self.weight_and_bias(name, module),
                    kernel_shape=layer.kernel_size,
                    strides=layer.stride,
                    pads=layer.padding * 2,
                    dilations=layer.dilation,
                    group=layer.groups,
                )
            case Dense():
                self.add("Gemm", name, *sources, *self.weight_and_bias(name, module), transB=1)
            case BatchNorm():
                statistics = [
                    self.constant(f"{name}.{key}", module.get_buffer(key)) for key in ("running_mean", "running_var")
                ]
                inputs = [*sources, *self.weight_and_bias(name, module), *statistics]
                self.add("BatchNormalization", name, *inputs, epsilon=layer.eps)
            case Spiking():
                self.activation(name, layer, sources[0])
            case AveragePool():
                self.add("AveragePool", name, *sources, kernel_shape=layer.kernel_size, strides=layer.kernel_size)
            case Flatten():
                self.add("Flatten", name, *sources, axis=1)
            case Dropout():
                self.add("Identity", name, *sources)
            case WeightedSum():
                assert isinstance(module, ScalarWeights)
                self.weighted_sum(name, sources, module.weight)

    def weight_and_bias(self, name: str, module: nn.Module) -> list[str]:
        return [self.constant(f"{name}.{key}", value) for key, value in module.named_parameters()]

    def activation(self, name: str, layer: Spiking, source: str) -> None:
        """ReLU, or threshold * clip(floor(levels * x / threshold + 1/2) / levels, 0, 1)."""
        if layer.neuron.activation == "relu":
            self.add("Relu", name, source)
            return
        threshold = self.constant(f"{name}.threshold", self.network.neurons()[name].threshold)
        levels = self.constant(f"{name}.levels", float(layer.neuron.levels))
        value = self.add("Div", f"{name}.share", source, threshold)
        value = self.add("Mul", f"{name}.in_levels", value, levels)
        value = self.add("Add", f"{name}.shifted", value, self.constant(f"{name}.half", 0.5))
        value = self.add("Floor", f"{name}.floor", value)
        value = self.add("Div", f"{name}.rate", value, levels)
        zero, one = self.constant(f"{name}.zero", 0.0), self.constant(f"{name}.one", 1.0)
        value = self.add("Clip", f"{name}.clipped", value, zero, one)
        self.add("Mul", name, value, threshold)

    def weighted_sum(self, name: str, sources: list[str], factors: Tensor) -> None:
        terms = [
            self.add("Mul", f"{name}.term{index}", source, self.constant(f"{name}.factor{index}", factor))
            for index, (source, factor) in enumerate(zip(sources, factors, strict=True))
        ]
        total = terms[0]
        for index, term in enumerate(terms[1:-1], start=1):
            total = self.add("Add", f"{name}.partial{index}", total, term)
        if len(terms) > 1:
            self.add("Add", name, total, terms[-1])
        else:
            self.add("Identity", name, total)
