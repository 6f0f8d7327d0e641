"""From the nodes of a NIR graph to the layers of an `Architecture`, with their weights: the walk behind `read_nir`.

Each NIR node gives a signal: the output of one of our layers times a factor that no layer has taken up yet. Where several
edges meet they add up, as NIR defines it.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from hardspike.convert.layer_names import layer_name
from hardspike.convert.nir_file import Array, NirGraph
from hardspike.convert.nir_neurons import Discretisation, fires_at, step_neuron
from hardspike.convert.nir_order import in_order
from hardspike.convert.nir_values import LARGEST, NUMBER, NodeValues, checked
from hardspike.snn.architecture import (
    INPUT,
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    ImageInput,
    Layer,
    Shape,
    Spiking,
    WeightedSum,
)
from hardspike.snn.errors import FileError, SettingsError, UnsupportedLayerError
from hardspike.snn.membrane import NeuronSettings

SUPPORTED = "Input, Output, Conv2d, Affine, Linear, Scale, SumPool2d, AvgPool2d, Flatten, IF, LIF, CubaLIF"
ADVICE = {
    "LI": "it integrates over time; end the network with the layer before it",
    "I": "it integrates over time; end the network with the layer before it",
    "CubaLI": "it integrates over time; end the network with the layer before it",
    "NIRGraph": "it is a graph in itself, such as a recurrent layer; write one flat graph without recurrence",
    "Conv1d": "images have two axes; write it as Conv2d",
    "Delay": "only the layers themselves take time here",
    "Threshold": "it has no potential; use IF",
}
# Our part of the graph's metadata, JSON: of the run, the image, and nodes by name.
SAID = "hardspike"
SAID_TYPES: dict[str, Any] = {"dt": NUMBER, "time_steps": int, "readout": str, "image": dict, "nodes": dict}
NODE_TYPES = {"role": str, "neuron": dict, "leak": NUMBER, "bias": bool, "trainable": bool}
NORMALISATION, SUM = "normalisation", "sum"
IMAGE_TYPES = {"mean": list, "std": list, "bits": (int, NoneType), "coding": str, "poisson_rate": NUMBER}
NEURON_TYPES = {
    key: NUMBER if isinstance(value, float) else type(value) for key, value in asdict(NeuronSettings()).items()
}


@dataclass(slots=True)
class Built:
    layer: Layer
    sources: tuple[str, ...]
    tensors: dict[str, Array]


@dataclass(frozen=True, slots=True)
class Signal:
    source: str
    factor: float = 1.0

    def scaled(self, weight: Array) -> Array:
        """The weight that acts on the layer's output itself. What overflows is found where weights are loaded."""
        with np.errstate(over="ignore", invalid="ignore"):
            scaled: Array = weight * self.factor
        return scaled


class NirReader:
    """Walks the graph; `built` are the layers found so far, in order, and `output` the name of the last."""

    def __init__(
        self,
        path: Path,
        graph: NirGraph,
        said: dict[str, Any],
        *,
        dt: float,
        discretisation: Discretisation,
        neuron: NeuronSettings,
        image_shape: tuple[int, int, int] | None,
    ) -> None:
        self.path, self.graph, self.said = path, graph, said
        self.dt, self.discretisation, self.neuron = dt, discretisation, neuron
        self.image_shape = image_shape
        self.built: dict[str, Built] = {}
        self.shapes: dict[str, Shape] = {}
        self.image: ImageInput | None = None
        self.described: ImageInput | None = None  # what our metadata say of the image
        self.output = INPUT

    def read(self) -> None:
        """Enter every node. Raises FileError or UnsupportedLayerError, naming file and node."""
        signals: dict[str, Signal] = {}
        for name, sources in in_order(self.path, self.graph):
            node = self.graph.nodes[name]
            where = f"{self.path}: node '{name}' ({node.kind})"
            values = NodeValues(where, node, checked(self._said(name), NODE_TYPES, f"{where}: our metadata"))
            if (node.kind == "Input") != (not sources):
                raise FileError(f"{values.where} has {len(sources)} inputs; all nodes but Input need one at least")
            signals[name] = self._signal(name, values, [signals[source] for source in sources])

    def _said(self, name: str) -> object:
        return self.said.get("nodes", {}).get(name, {})

    def _signal(self, name: str, values: NodeValues, incoming: list[Signal]) -> Signal:
        match values.node.kind:
            case "Input":
                return self._input(name, values)
            case "Output":
                self.output = self._source(name, self._joined(name, incoming))
                return Signal(self.output)
            case "Scale":
                return self._scale(name, values, incoming)
        signal = self._joined(name, incoming)
        match values.node.kind:
            case "Conv2d":
                return self._convolution(name, values, signal)
            case "Affine" | "Linear":
                return self._dense(name, values, signal)
            case "SumPool2d" | "AvgPool2d":
                return self._pool(name, values, signal)
            case "Flatten":
                return self._flatten(name, values, signal)
            case "IF" | "LIF" | "CubaLIF":
                return self._neuron(name, values, signal)
        advice = ADVICE.get(values.node.kind, "it is unknown")
        raise UnsupportedLayerError(f"{values.where} is not supported: {advice}; supported are {SUPPORTED}")

    def _joined(self, name: str, incoming: list[Signal]) -> Signal:
        """The sum of what arrives."""
        if len(incoming) == 1:
            return incoming[0]
        return self._sum(f"{name}_sum", incoming, 1.0, trainable=False)

    def _sum(self, name: str, incoming: list[Signal], factor: float, *, trainable: bool) -> Signal:
        shapes = [self.shapes[signal.source] for signal in incoming]
        if len(set(shapes)) > 1:
            raise FileError(f"{self.path}: node '{name}' adds outputs of shapes {shapes}; they must be equal")
        layer = WeightedSum(initial=tuple(signal.factor * factor for signal in incoming), trainable=trainable)
        return self._append(name, layer, *(signal.source for signal in incoming), weight=np.array(layer.initial))

    def _source(self, name: str, signal: Signal) -> str:
        """Name of the layer that gives this signal; a factor not taken up becomes a sum of one."""
        if signal.factor == 1.0:
            return signal.source
        return self._sum(f"{name}_scaled", [signal], 1.0, trainable=False).source

    def _append(self, name: str, layer: Layer, *sources: str, **tensors: Array) -> Signal:
        unique = layer_name(name, self.shapes)
        shape = layer.output_shape(self.shapes[sources[0]])
        if not min(shape) >= 1 or max(shape) > LARGEST:
            raise FileError(
                f"{self.path}: node '{name}' would have output shape {shape}; its kernel does not fit its input"
            )
        self.built[unique] = Built(layer, sources, tensors)
        self.shapes[unique] = shape
        return Signal(unique)

    def _input(self, name: str, values: NodeValues) -> Signal:
        if self.image is not None:
            raise UnsupportedLayerError(f"{values.where} is a second input; one is supported, the image")
        shape = tuple(values.integers("shape", least=1))
        if len(shape) in (2, 4) and shape[0] == 1:
            shape = shape[1:]  # the batch of one that the exporter traced
        if len(shape) not in (1, 3):
            raise UnsupportedLayerError(
                f"{values.where} has shape {shape}; (C, H, W) or (N,) is allowed, without the batch"
            )
        own = (shape[0], shape[1], shape[2]) if len(shape) == 3 else (1, 1, shape[0])
        image = self.image_shape or own
        if math.prod(image) != math.prod(own) or (len(shape) == 3 and image != own):
            raise FileError(
                f"{values.where} has shape {shape}, which images of shape {image} do not fit; give another image_shape"
            )
        plain = ImageInput(shape=image, mean=(0.0,) * image[0], std=(1.0,) * image[0])
        described = self._described(plain) if "image" in self.said else plain
        self.described = described
        is_alone = sum(source == name for source, _ in self.graph.edges) == 1
        is_normalised = is_alone and any(
            source == name and self._is_normalisation(target) for source, target in self.graph.edges
        )
        # Spikes of an image are of the normalised one; otherwise mean and std count where a node applies them.
        keeps = is_normalised or described.coding == "poisson"
        self.image = described if keeps else replace(described, mean=plain.mean, std=plain.std)
        self.shapes[INPUT] = image
        if len(shape) == 3:
            return Signal(INPUT)
        return self._append(f"{name}_flat", Flatten(), INPUT)

    def _described(self, plain: ImageInput) -> ImageInput:
        """What our metadata say of the image."""
        where = f"{self.path}: our metadata of the image"
        said = checked(self.said["image"], IMAGE_TYPES, where)
        try:
            mean, std = (tuple(float(value) for value in said.pop(key)) for key in ("mean", "std"))
            if not np.isfinite(mean + std).all():
                raise ValueError("mean or std is not finite")
            return replace(plain, mean=mean, std=std, **said)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FileError(f"{where} are not readable ({error}); it is damaged") from None

    def _convolution(self, name: str, values: NodeValues, signal: Signal) -> Signal:
        weight, bias = values.numbers("weight", 4), values.numbers("bias", 1)
        shape = self._image_shape(values, signal)
        groups = values.integer("groups", least=1)
        stride = values.pair("stride", least=1)
        dilation = values.pair("dilation", least=1)
        kernel = (int(weight.shape[2]), int(weight.shape[3]))
        padding = values.padding(kernel, stride, dilation)
        if weight.shape[1] * groups != shape[0] or len(weight) % groups or len(bias) != len(weight):
            raise FileError(
                f"{values.where}: weight {weight.shape}, bias {bias.shape} and {groups} groups do not fit an input of {shape}"
            )
        if "input_shape" in values.node.values and tuple(values.integers("input_shape", least=1)) != shape[1:]:
            raise FileError(f"{values.where}: its input_shape is not {shape[1:]}, what the node before gives")
        if signal.source == INPUT and self.image == self.described and self._is_normalisation(name):
            return signal
        has_bias = values.said.get("bias", bool(bias.any()))
        layer = Convolution(
            out_channels=len(weight),
            kernel_size=kernel,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=has_bias,
        )
        tensors = {"weight": signal.scaled(weight)} | ({"bias": bias} if has_bias else {})
        return self._append(name, layer, signal.source, **tensors)

    def _is_normalisation(self, name: str) -> bool:
        """Whether the node is the convolution that we write for mean and std, and still does what they say."""
        node, said = self.graph.nodes[name], self._said(name)
        is_called = isinstance(said, dict) and said.get("role") == NORMALISATION
        if node.kind != "Conv2d" or not is_called or self.described is None:
            return False
        expected = dict(zip(("weight", "bias"), normalisation(self.described), strict=True))
        found = {key: node.values.get(key) for key in expected}
        return all(
            array is not None
            and array.dtype.kind == "f"
            and array.shape == expected[key].shape
            and np.allclose(array, expected[key], rtol=1e-6, atol=1e-6)
            for key, array in found.items()
        )

    def _dense(self, name: str, values: NodeValues, signal: Signal) -> Signal:
        weight = values.numbers("weight", 2)
        shape = self.shapes[signal.source]
        if weight.shape[1:] != shape:
            raise FileError(f"{values.where}: weight has shape {weight.shape}, but its input has {shape}")
        tensors = {"weight": signal.scaled(weight)}
        if values.node.kind == "Affine":
            tensors["bias"] = values.numbers("bias", 1)
            if len(tensors["bias"]) != len(weight):
                raise FileError(f"{values.where}: bias has shape {tensors['bias'].shape}, weight {weight.shape}")
        layer = Dense(out_features=len(weight), bias=values.node.kind == "Affine")
        return self._append(name, layer, signal.source, **tensors)

    def _scale(self, name: str, values: NodeValues, incoming: list[Signal]) -> Signal:
        scale = values.numbers("scale")
        low, high = float(scale.min()), float(scale.max())
        if low != high:
            raise UnsupportedLayerError(
                f"{values.where}: scale is between {low:.6g} and {high:.6g}; one number is supported; scale the weights"
            )
        if len(incoming) > 1 or values.said.get("role") == SUM:
            return self._sum(name, incoming, low, trainable=values.said.get("trainable", False))
        return replace(incoming[0], factor=incoming[0].factor * low)

    def _pool(self, name: str, values: NodeValues, signal: Signal) -> Signal:
        self._image_shape(values, signal)
        kernel = values.pair("kernel_size", least=1)
        stride, padding = values.pair("stride", least=1), values.pair("padding", least=0)
        if stride != kernel or any(padding):
            raise UnsupportedLayerError(
                f"{values.where}: kernel {kernel}, stride {stride} and padding {padding}; windows side by side without "
                "padding are supported"
            )
        pooled = self._append(name, AveragePool(kernel_size=kernel), signal.source)
        return replace(pooled, factor=signal.factor * (kernel[0] * kernel[1] if values.node.kind == "SumPool2d" else 1))

    def _flatten(self, name: str, values: NodeValues, signal: Signal) -> Signal:
        shape = self.shapes[signal.source]
        start, end = (values.integer(key, least=-8) for key in ("start_dim", "end_dim"))
        if len(shape) == 1 and start in (0, -1) and end in (0, -1):
            return signal
        if start not in (0, -len(shape)) or end not in (-1, len(shape) - 1):
            raise UnsupportedLayerError(
                f"{values.where}: start_dim {start} and end_dim {end} leave axes of {shape}; 0 and -1 are supported"
            )
        return replace(self._append(name, Flatten(), signal.source), factor=signal.factor)

    def _neuron(self, name: str, values: NodeValues, signal: Signal) -> Signal:
        source, factor = (signal.source, signal.factor) if signal.factor > 0 else (self._source(name, signal), 1.0)
        shape = self.shapes[source]
        step = step_neuron(values.node.kind, values.node.values, shape, self.dt, self.discretisation, values.where)
        settings, leak, threshold = replace(self.neuron, leak=step.leak), step.leak, step.threshold
        if "neuron" in values.said and "leak" in values.said:
            settings = self._neuron_settings(values)
            threshold = threshold if settings.strict else fires_at(threshold, values.node.values["v_threshold"].dtype)
            exact = values.said["leak"]
            # Only what rounding hid: where somebody changed tau, tau counts.
            leak = exact if abs(exact - leak) <= 1e-6 else leak
            settings = settings if abs(settings.leak - leak) <= 1e-6 else replace(settings, leak=leak)
        tensors = {"leak": np.asarray(leak), "threshold": np.asarray(threshold / factor)}
        return self._append(name, Spiking(neuron=settings), source, **tensors)

    def _neuron_settings(self, values: NodeValues) -> NeuronSettings:
        where = f"{values.where}: our metadata of the neuron"
        try:
            return NeuronSettings(**checked(values.said["neuron"], NEURON_TYPES, where))
        except SettingsError as error:
            raise FileError(f"{where}: {error}") from None

    def _image_shape(self, values: NodeValues, signal: Signal) -> Shape:
        shape = self.shapes[signal.source]
        if len(shape) != 3:
            raise FileError(f"{values.where} takes (C, H, W), but the node before gives {shape}")
        return shape


def normalisation(image: ImageInput) -> tuple[Array, Array]:
    """Weight (C, C, 1, 1) and bias (C,) of the convolution that is (x - mean) / std, float64."""
    std, mean = np.array(image.std), np.array(image.mean)
    return np.diag(1 / std)[:, :, None, None], -mean / std
