"""A spiking network as a NIR file, for other frameworks: one timestep is one step of dt seconds.

Every node means the same to any reader of NIR, batch norms are folded, and mean and std are a convolution in front; what
NIR leaves to the framework that reads it stands in metadata that only we read. So a framework must be told, where it is not
its own way: soft reset, fire first (a delay of one step per layer), a potential to start from, Poisson coding of the image.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hardspike.convert.layer_names import layer_name
from hardspike.convert.nir_file import Array, NirGraph, NirNode, write_nir_graph
from hardspike.convert.nir_neurons import nir_neuron
from hardspike.convert.nir_reader import NORMALISATION, SAID, SUM, normalisation
from hardspike.snn.architecture import (
    INPUT,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    Node,
    Shape,
    Spiking,
    WeightedSum,
)
from hardspike.snn.errors import SettingsError, UnsupportedLayerError
from hardspike.snn.network import ScalarWeights, SpikingNetwork


def write_nir(path: Path, network: SpikingNetwork, *, dt: float = 1e-4) -> None:
    """Write a spiking network as it is in evaluation mode, whole or not at all, in the precision of its weights.

    Its Input takes images in [0, 1] (their spikes under Poisson coding); its Output gives the last layer's output at every
    timestep, whose mean (or sum, as the metadata's `readout` says) are the logits.

    Args:
        dt: seconds per timestep that time constants are written for; snnTorch and SpikingJelly assume 1e-4.

    Raises UnsupportedLayerError for an ANN, a batch norm of its own per timestep, or a layer name with '/'.
    """
    if not 0 < dt < float("inf"):
        raise SettingsError(f"{path}: dt = {dt} is not allowed; use a positive number of seconds")
    write_nir_graph(path, nir_graph(network, dt))


def nir_graph(network: SpikingNetwork, dt: float) -> NirGraph:
    """The graph of `write_nir`."""
    if network.time_steps is None:
        raise UnsupportedLayerError(
            "network: an ANN (no timesteps) cannot be written as NIR, which has neurons only; convert it first, or write ONNX"
        )
    writer = _Writer(network, dt)
    writer.image()
    for node in network.architecture.nodes:
        writer.layer(node)
    writer.output()
    image = {key: value for key, value in asdict(network.architecture.input).items() if key != "shape"}
    said = {
        "dt": dt,
        "time_steps": network.time_steps,
        "readout": network.architecture.readout,
        "image": image,
        "nodes": writer.said,
    }
    return NirGraph(writer.nodes, writer.edges, {SAID: json.dumps(said)})


class _Writer:
    """Collects NIR nodes. `gives`: for each of our layers the NIR node with its output; `said`: our metadata, by node."""

    def __init__(self, network: SpikingNetwork, dt: float) -> None:
        self.network, self.dt = network, dt
        self.architecture = network.architecture
        self.nodes: dict[str, NirNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.gives: dict[str, str] = {}
        self.said: dict[str, dict[str, Any]] = {}
        self.taken = set(self.architecture.shapes)
        self.readers: dict[str, list[Node]] = {}
        for node in self.architecture.nodes:
            for source in node.sources:
                self.readers.setdefault(source, []).append(node)
        wide = any(p.dtype == torch.float64 for p in network.parameters())
        self.dtype = np.float64 if wide else np.float32

    def image(self) -> None:
        image = self.architecture.input
        self.add(INPUT, "Input", (), {"shape": np.array(image.shape, dtype=np.int64)})
        is_plain = set(image.mean) == {0.0} and set(image.std) == {1.0}
        if is_plain or image.coding == "poisson":  # what arrives is spikes of the normalised image
            return
        weight, bias = normalisation(image)
        self.gives[INPUT] = self.convolve("input_normalised", INPUT, weight, bias, {"role": NORMALISATION})

    def output(self) -> None:
        last = self.architecture.nodes[-1].name
        shape = np.array(self.architecture.shapes[last], dtype=np.int64)
        self.add(self.unique("output"), "Output", (self.gives[last],), {"shape": shape})

    def layer(self, node: Node) -> None:
        name, layer, module = node.name, node.layer, self.network.layers[node.name]
        source = self.gives[node.sources[0]]
        match layer:
            case Convolution():
                weight, bias, norm = self.weights(node)
                self.convolve(name, node.source, weight, bias, {"bias": layer.bias or norm}, layer)
            case Dense():
                weight, bias, norm = self.weights(node)
                values = {"weight": weight} | ({"bias": bias} if layer.bias or norm else {})
                self.add(name, "Affine" if len(values) == 2 else "Linear", (source,), self.cast(values))
            case BatchNorm(steps=None):
                if self.folded_into(node) is not None:
                    self.gives[name] = source
                    return
                factor, shift = _affine(module)
                if len(self.architecture.shapes[name]) == 3:
                    self.convolve(name, node.source, np.diag(factor)[:, :, None, None], shift, {"bias": True})
                else:
                    self.add(name, "Affine", (source,), self.cast({"weight": np.diag(factor), "bias": shift}))
            case BatchNorm():
                raise UnsupportedLayerError(
                    f"layer '{name}': a batch norm of its own for each of {layer.steps} timesteps cannot be written as NIR, "
                    "whose nodes are the same at all times; train with one norm for all steps"
                )
            case Spiking():
                self.neurons(name, layer, source)
            case AveragePool():
                kernel = np.array(layer.kernel_size, dtype=np.int64)
                values = {"kernel_size": kernel, "stride": kernel, "padding": np.zeros(2, dtype=np.int64)}
                self.add(name, "AvgPool2d", (source,), values)
            case Flatten():
                ends = {"start_dim": np.array(0), "end_dim": np.array(-1)}
                shape = np.array(self.architecture.shapes[node.source], dtype=np.int64)
                self.add(name, "Flatten", (source,), ends | {"input_type": shape})
            case Dropout():
                self.gives[name] = source
            case WeightedSum():
                assert isinstance(module, ScalarWeights)
                self.weighted_sum(node, layer, module.weight)

    def weights(self, node: Node) -> tuple[Array, Array, bool]:
        """Weight and bias with the batch norm behind folded in, and whether there is one."""
        module = self.network.layers[node.name]
        assert isinstance(module, nn.Conv2d | nn.Linear)
        weight = _numbers(module.weight)
        bias = np.zeros(len(weight)) if module.bias is None else _numbers(module.bias)
        (reader, *others) = self.readers.get(node.name, [None])
        if reader is None or others or self.folded_into(reader) is None:
            return weight, bias, False
        factor, shift = _affine(self.network.layers[reader.name])
        return weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), bias * factor + shift, True

    def folded_into(self, node: Node) -> str | None:
        """The layer whose weights take up this batch norm."""
        if not isinstance(node.layer, BatchNorm) or node.layer.steps is not None or len(self.readers[node.source]) > 1:
            return None
        before = {other.name: other.layer for other in self.architecture.nodes}.get(node.source)
        return node.source if isinstance(before, Convolution | Dense) else None

    def convolve(
        self,
        name: str,
        source: str,
        weight: Array,
        bias: Array,
        said: dict[str, Any],
        layer: Convolution | None = None,
    ) -> str:
        """A Conv2d, with the geometry of `layer` or 1 x 1."""
        layer = layer or Convolution(out_channels=len(weight), kernel_size=(1, 1))
        whole = {
            "input_shape": self.architecture.shapes[source][1:],
            "stride": layer.stride,
            "padding": layer.padding,
            "dilation": layer.dilation,
            "groups": layer.groups,
        }
        values = self.cast({"weight": weight, "bias": bias})
        values |= {key: np.array(value, dtype=np.int64) for key, value in whole.items()}
        unique = name if name in self.network.layers else self.unique(name)
        return self.add(unique, "Conv2d", (self.gives[source],), values, said)

    def neurons(self, name: str, layer: Spiking, source: str) -> None:
        neuron = self.network.neurons()[name]
        leak, threshold = float(neuron.leak.detach()), float(neuron.threshold.detach())
        shape: Shape = self.architecture.shapes[name]
        values = nir_neuron(leak, threshold, layer.neuron.strict, shape, self.dt, self.dtype)
        said = {"neuron": asdict(layer.neuron), "leak": leak}
        self.add(name, "LIF" if "tau" in values else "IF", (source,), values, said)

    def weighted_sum(self, node: Node, layer: WeightedSum, factors: Tensor) -> None:
        """Edges that meet add up; factors that differ are Scale nodes in front, one that all share the sum's own."""
        shape = self.architecture.shapes[node.name]
        numbers = _numbers(factors)
        sources = [self.gives[source] for source in node.sources]
        is_shared = len(set(numbers.tolist())) == 1 and len(set(sources)) == len(sources)
        common = float(numbers[0]) if is_shared else 1.0
        if not is_shared:
            sources = [
                self.add(
                    self.unique(f"{node.name}_term{index}"),
                    "Scale",
                    (source,),
                    self.cast({"scale": np.full(shape, number)}),
                )
                for index, (source, number) in enumerate(zip(sources, numbers, strict=True))
            ]
        said = {"role": SUM, "trainable": layer.trainable}
        self.add(node.name, "Scale", tuple(sources), self.cast({"scale": np.full(shape, common)}), said)

    def add(
        self,
        name: str,
        kind: str,
        sources: tuple[str, ...],
        values: dict[str, Array],
        said: dict[str, Any] | None = None,
    ) -> str:
        self.nodes[name] = NirNode(kind, values)
        self.said |= {name: said} if said else {}
        self.edges += [(source, name) for source in sources]
        self.gives.setdefault(name, name)
        return name

    def unique(self, name: str) -> str:
        found = layer_name(name, self.taken)
        self.taken.add(found)
        return found

    def cast(self, values: dict[str, Array]) -> dict[str, Array]:
        return {key: np.ascontiguousarray(value, dtype=self.dtype) for key, value in values.items()}


def _numbers(tensor: Tensor) -> Array:
    found: Array = tensor.detach().cpu().double().numpy()
    return found


def _affine(module: nn.Module) -> tuple[Array, Array]:
    """Factor and shift per channel of a batch norm in evaluation mode."""
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    assert module.running_mean is not None and module.running_var is not None
    factor = _numbers(module.weight) / np.sqrt(_numbers(module.running_var) + module.eps)
    return factor, _numbers(module.bias) - _numbers(module.running_mean) * factor
