"""Reads a `.net` file into the integers that Lava would compute with; see netx_file.py for the format.

A file from which Lava would compute anything else than it says is refused.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hardspike.deploy.lava_limits import check_netx_holds
from hardspike.deploy.netx_layer import LayerGroup, attribute
from hardspike.deploy.process_graph import (
    Coding,
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    IntArray,
    NeuronGroup,
    ProcessGraph,
    Synapse,
)
from hardspike.hw_profiles.profile import Numerics, load_profile
from hardspike.snn.architecture import INPUT, Shape
from hardspike.snn.errors import DoesNotFitError, FileError, UnsupportedLayerError
from hardspike.snn.hdf5_file import read_dataset, reading_hdf5

SUPPORTED = "input (first), conv, flatten, dense"
# What a file may ask for beyond a ProcessGraph, with the value that asks for nothing. netx ignores all but the delay.
BEYOND = {
    "neuron/refDelay": 1,
    "neuron/wgtExp": 0,
    "neuron/weight_exp": 0,
    "neuron/gradedSpike": 0,
    "neuron/messageBits": 0,
    "delay": 0,
}


def read_netx(
    path: Path,
    *,
    time_steps: int | None = None,
    coding: Coding | None = None,
    message_bits: int | None = None,
    input_shape: Shape | None = None,
    profile: str = "loihi2",
) -> ProcessGraph:
    """The graph of a `.net` file, in the integers that Lava computes with.

    Args: what the file does not say itself.
        time_steps: per sample; else the file's `simulation/tSample`.
        coding, message_bits: of the input; else from the file, if we wrote it, or graded with 8 bits.
        input_shape: (C, H, W) or (N,), for a file without input layer.
        profile: the numerics that the graph is checked against.

    Raises:
        FileError: missing, truncated, no HDF5 file, or a group, dataset or value is not there or makes no sense.
        UnsupportedLayerError: layers or neurons that a `ProcessGraph` cannot express.
        DoesNotFitError: values that Lava would change, or that the profile does not allow.
    """
    with reading_hdf5(path, "a .net file") as file:
        return _Reader(path, file, load_profile(profile).numerics).read(
            time_steps, coding, message_bits, input_shape, profile
        )


class _Reader:
    """Walks the layers of one file; `shape` is what the layer before sends, `flat` whether a flatten stands between."""

    def __init__(self, path: Path, file: Any, numerics: Numerics) -> None:
        self.path, self.file, self.numerics = path, file, numerics
        self.shape: Shape | None = None
        self.flat = False
        self.layers: list[GraphLayer] = []

    def read(
        self,
        time_steps: int | None,
        coding: Coding | None,
        message_bits: int | None,
        input_shape: Shape | None,
        profile: str,
    ) -> ProcessGraph:
        self.shape = input_shape
        nodes = self._nodes()
        for node in nodes:
            self._add(node, is_last=node is nodes[-1])
        if not self.layers:
            raise UnsupportedLayerError(f"{self.path} holds no layer with neurons; supported: {SUPPORTED}")
        contract = self._contract(nodes[0], coding, message_bits, input_shape)
        steps = time_steps if time_steps is not None else self._steps()
        try:
            graph = ProcessGraph(
                input=contract,
                layers=tuple(self.layers),
                time_steps=steps,
                numerics=self.numerics,
                profile=profile,
                weight_bits=self._attribute("weight_bits", 8),
                provenance={"read from": self.path.name},
            )
            check_netx_holds(graph)
        except (DoesNotFitError, UnsupportedLayerError) as error:
            raise type(error)(f"{self.path}: {error}") from None
        return graph

    def _nodes(self) -> list[LayerGroup]:
        groups = self.file.get("layer")
        if not isinstance(groups, h5py.Group) or not len(groups):
            raise FileError(f"{self.path} has no group 'layer' with layers in it; it is no .net file")
        nodes = []
        for index in range(len(groups)):
            if not isinstance(groups.get(str(index)), h5py.Group):
                raise FileError(f"{self.path} has no group 'layer/{index}', but {len(groups)} layers; it is damaged")
            node = LayerGroup(self.path, index, groups[str(index)])
            node.kind = node.text("type")
            nodes.append(node)
        return nodes

    def _attribute(self, name: str, default: int) -> int:
        value = attribute(self.file, name, default)
        if not isinstance(value, int | np.integer):
            raise FileError(f"{self.path}: attribute '{name}' is {value!r}; it must be an integer")
        return int(value)

    def _steps(self) -> int:
        if "simulation/tSample" not in self.file:
            raise FileError(f"{self.path} does not say how many timesteps a sample takes; give time_steps")
        found = read_dataset(self.file, "simulation/tSample", str(self.path))
        if found.size != 1 or found.dtype.kind not in "iu":
            raise FileError(f"{self.path} does not say how many timesteps a sample takes; give time_steps")
        return int(found.item())

    def _contract(
        self, first: LayerGroup, coding: Coding | None, bits: int | None, input_shape: Shape | None
    ) -> InputContract:
        shape = first.shape() if first.kind == "input" else input_shape
        assert shape is not None, "every layer has checked it"
        found = "current" if not self.layers[0].synapses else coding or attribute(self.file, "coding", "graded")
        allowed = ("graded", "binary") if self.layers[0].synapses else ("current",)
        if found not in allowed or coding not in (None, found):
            raise FileError(
                f"{self.path}: input coding {coding or found!r} does not fit; its first layer takes {' or '.join(allowed)}"
            )
        constant = self._attribute("constant_channels", 0)
        if not 0 <= constant < shape[0]:
            raise FileError(
                f"{self.path}: {constant} constant channels of {shape[0]} make no sense; the file is damaged"
            )
        low, high, default = {
            "graded": (1, self.numerics.message_bits_max, 8),
            "binary": (1, 1, 1),
            "current": (0, 0, 0),
        }[found]
        bits = bits if bits is not None else self._attribute("message_bits", default)
        if not low <= bits <= high:
            raise FileError(
                f"{self.path}: {bits} message bits are not allowed for '{found}' input; allowed: {low}..{high}"
            )
        return InputContract(
            shape=(shape[0] - constant, *shape[1:]), coding=found, message_bits=bits, constant_channels=constant
        )

    def _add(self, node: LayerGroup, *, is_last: bool) -> None:
        if node.kind == "input" and node.index == 0:
            self.shape = node.shape()
            if "neuron" in node:
                self._add_layer(node, self.shape, (), is_last)
        elif node.kind == "flatten":
            self.flat = True
        elif node.kind in ("conv", "dense"):
            if self.shape is None:
                raise FileError(
                    f"{node.where} is the first layer, but the file does not say its input's shape; give input_shape"
                )
            source = self.layers[-1].name if self.layers else INPUT
            synapse = self._conv(node, source) if node.kind == "conv" else self._dense(node, source)
            shape = node.shape() if node.kind == "conv" else (int(np.prod(node.shape())),)
            self._add_layer(node, shape, (synapse,), is_last)
        else:
            remedy = "; write average pooling as a conv with groups" if node.kind in ("pool", "average") else ""
            raise UnsupportedLayerError(f"{node.where} is not supported here; supported: {SUPPORTED}{remedy}")

    def _conv(self, node: LayerGroup, source: str) -> Synapse:
        weight = node.integers("weight")
        if self.flat or len(self.shape or ()) != 3:
            raise UnsupportedLayerError(
                f"{node.where} reads a flat layer of shape {self.shape}; a conv takes (C, H, W)"
            )
        if weight.ndim not in (4, 5) or weight.shape[4:] not in ((), (1,)):
            raise FileError(
                f"{node.where}: weight has shape {weight.shape}; it must be (out, in / groups, height, width)"
            )
        groups, stride, dilation = node.one("groups"), node.pair("stride"), node.pair("dilation")
        if min(groups, *stride, *dilation) < 1 or min(padding := node.pair("padding")) < 0:
            raise FileError(f"{node.where}: groups, stride and dilation must be at least 1, padding at least 0")
        return ConvSynapse(
            source=source,
            weight=weight.reshape(weight.shape[:4]),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )

    def _dense(self, node: LayerGroup, source: str) -> Synapse:
        weight, outputs = node.integers("weight"), int(np.prod(node.shape()))
        if weight.ndim > 2 or weight.size % outputs:
            raise FileError(f"{node.where}: weight has shape {weight.shape}; it must be ({outputs}, inputs) or flat")
        if self.layers and len(self.shape or ()) == 3 and not self.flat:
            raise UnsupportedLayerError(
                f"{node.where} reads a layer of shape {self.shape}; netx needs a flatten layer before it"
            )
        return DenseSynapse(source=source, weight=weight.reshape(outputs, -1))

    def _add_layer(self, node: LayerGroup, shape: Shape, synapses: tuple[Synapse, ...], is_last: bool) -> None:
        for name, harmless in BEYOND.items():
            if name in node and np.any(node.integers(name) != harmless):
                raise UnsupportedLayerError(
                    f"{node.where}: {name} = {node.integers(name).max()} is not supported; supported: {harmless}"
                )
        name = attribute(node.group, "name", f"{node.kind}{node.index}")
        if not isinstance(name, str) or not name.isprintable() or not name:
            raise FileError(f"{node.where}: attribute 'name' is {name!r}; it must be a short string")
        scale = attribute(node.group, "scale", 1.0)
        if not isinstance(scale, float) or not 0 < scale < np.inf:
            raise FileError(f"{node.where}: attribute 'scale' is {scale!r}; it must be a positive number")
        neurons = self._neurons(node, self._bias(node, shape), is_last)
        self.layers.append(GraphLayer(name=name, shape=shape, synapses=synapses, neurons=neurons, scale=float(scale)))
        self.shape, self.flat = shape, False

    def _bias(self, node: LayerGroup, shape: Shape) -> IntArray:
        """Broadcastable to (C, H, W). Of an input layer it only tells a host how to make currents of an image."""
        channels = (shape[0], *[1] * (len(shape) - 1))
        if "bias" not in node or node.kind == "input":
            return np.zeros(channels, dtype=np.int32)
        bias = node.integers("bias")
        if bias.ndim == 3 and bias.shape == shape[::-1]:
            return np.ascontiguousarray(bias.T)
        if bias.size == shape[0] or (bias.size == 1 and len(shape) == 1):
            return np.broadcast_to(bias.ravel(), (shape[0],)).reshape(channels).copy()
        raise FileError(f"{node.where}: bias has shape {bias.shape}; it must be ({shape[0]},) or {shape[::-1]}")

    def _neurons(self, node: LayerGroup, bias: IntArray, is_last: bool) -> NeuronGroup:
        mark = self.numerics.threshold_mantissa_max
        if "neuron" not in node:
            if node.kind != "dense" or not is_last:
                raise FileError(f"{node.where} has no group 'neuron'; only the last dense layer may do without")
            # netx then puts an accumulator there: the current never decays and is the potential, which never fires.
            return NeuronGroup(threshold=mark, bias=bias, current_decay=0, potential_decay=4096, spiking=False)
        kind = node.text("neuron/type")
        if kind not in ("LOIHI", "CUBA"):
            raise UnsupportedLayerError(
                f"{node.where} has neurons of type '{kind}'; supported: CUBA, LOIHI (leaky integrate-and-fire)"
            )
        threshold = node.one("neuron/vThMant")
        fires = not (is_last and threshold >= mark)
        return NeuronGroup(
            threshold=threshold if fires else mark,
            bias=bias,
            current_decay=node.one("neuron/iDecay"),
            potential_decay=node.one("neuron/vDecay"),
            spiking=fires,
        )
