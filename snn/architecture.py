"""The one description of a network: named nodes in topological order, each a layer applied to earlier nodes.

It holds no weights. `SpikingNetwork` builds modules from it, checkpoints carry it as JSON, the compiler walks it.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from hardspike.snn.errors import FileError, SettingsError, UnsupportedLayerError
from hardspike.snn.neuron import NeuronSettings

Shape = tuple[int, ...]
INPUT = "input"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """Images in [0, 1] of shape (C, H, W); (x - mean) / std per channel is the network's first operation."""

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != self.shape[0] or len(self.std) != self.shape[0]:
            raise SettingsError(
                f"input: {len(self.mean)} means and {len(self.std)} stds for {self.shape[0]} channels; give one of each per channel"
            )
        if min(self.std) <= 0:
            raise SettingsError(f"input: std = {min(self.std)} is not allowed; it must be positive")


def convolved(sides: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    """Height and width after a convolution."""
    return tuple(
        (side + 2 * pad - spread * (taps - 1) - 1) // step + 1
        for side, taps, step, pad, spread in zip(sides, kernel, stride, padding, dilation, strict=True)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    bias: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        sides = convolved(shape[1:], self.kernel_size, self.stride, self.padding, self.dilation)
        return (self.out_channels, *sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNorm:
    """Per channel, statistics over T, B, H, W together (tdBN without its threshold factor); eps 1e-5, momentum 0.1."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Spiking:
    """ReLU while the network is an ANN, integrate-and-fire neurons once it has timesteps."""

    neuron: NeuronSettings = field(default_factory=NeuronSettings)

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePool:
    """Mean over non-overlapping windows; rows and columns that fill no window are dropped."""

    kernel_size: tuple[int, int]

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], shape[1] // self.kernel_size[0], shape[2] // self.kernel_size[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Flatten:
    """(C, H, W) to (C*H*W,), C order."""

    def output_shape(self, shape: Shape) -> Shape:
        size = 1
        for side in shape:
            size *= side
        return (size,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    out_features: int
    bias: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        return (self.out_features,)


Layer = Convolution | BatchNorm | Spiking | AveragePool | Flatten | Dense
LAYERS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Convolution, BatchNorm, Spiking, AveragePool, Flatten, Dense)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """`layer` applied to the output of the node called `source` (`input` for the image)."""

    name: str
    layer: Layer
    source: str


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network without weights. Raises SettingsError when a name repeats, a source comes later or a shape shrinks to nothing."""

    input: ImageInput
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        _ = self.shapes

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Output shape of the input and of every node, without the batch axis."""
        shapes: dict[str, Shape] = {INPUT: self.input.shape}
        for node in self.nodes:
            if node.name in shapes:
                raise SettingsError(f"layer '{node.name}' appears twice; give every layer a name of its own")
            if node.source not in shapes:
                raise SettingsError(f"layer '{node.name}' reads '{node.source}', which is not an earlier layer")
            source = shapes[node.source]
            needed = {Convolution: 3, AveragePool: 3, Dense: 1}.get(type(node.layer))
            if needed is not None and len(source) != needed:
                raise SettingsError(
                    f"layer '{node.name}' ({type(node.layer).__name__}) needs {needed} axes, but '{node.source}' has shape {source}"
                )
            if isinstance(node.layer, Convolution) and (
                source[0] % node.layer.groups or node.layer.out_channels % node.layer.groups
            ):
                raise SettingsError(
                    f"layer '{node.name}': groups = {node.layer.groups} does not divide "
                    f"{source[0]} input and {node.layer.out_channels} output channels"
                )
            shapes[node.name] = node.layer.output_shape(source)
            if min(shapes[node.name]) < 1:
                raise SettingsError(
                    f"layer '{node.name}' would have output shape {shapes[node.name]}; its kernel does not fit on {source}"
                )
        return shapes

    @property
    def num_classes(self) -> int:
        return self.shapes[self.nodes[-1].name][0]

    @property
    def spiking(self) -> tuple[Node, ...]:
        """The neuron layers, in order."""
        return tuple(node for node in self.nodes if isinstance(node.layer, Spiking))

    def to_json(self) -> str:
        nodes = [
            {"name": node.name, "source": node.source, "kind": type(node.layer).__name__, "layer": asdict(node.layer)}
            for node in self.nodes
        ]
        return json.dumps({"input": asdict(self.input), "nodes": nodes})

    @staticmethod
    def from_json(text: str) -> "Architecture":
        """Inverse of `to_json`. Raises FileError for text that is not an architecture, UnsupportedLayerError for an unknown layer."""
        try:
            data = json.loads(text)
            image = ImageInput(**_tuples(data["input"]))
            nodes = tuple(
                Node(name=n["name"], source=n["source"], layer=_layer(n["kind"], n["layer"])) for n in data["nodes"]
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise FileError(
                f"architecture: not readable ({error}); the file is damaged or of another version"
            ) from None
        return Architecture(input=image, nodes=nodes)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _layer(kind: str, values: dict[str, Any]) -> Layer:
    if kind not in LAYERS:
        raise UnsupportedLayerError(f"layer kind '{kind}' is unknown; known: {', '.join(LAYERS)}")
    if kind == "Spiking":
        return Spiking(neuron=NeuronSettings(**values["neuron"]))
    expected = {field.name for field in fields(LAYERS[kind])}
    if set(values) != expected:
        raise FileError(
            f"layer kind '{kind}' has fields {sorted(values)}, expected {sorted(expected)}; the file is of another version"
        )
    layer: Layer = LAYERS[kind](**_tuples(values))
    return layer


def chain(input: ImageInput, layers: Iterable[tuple[str, Layer]]) -> Architecture:
    """An architecture in which each (name, layer) reads the one before it."""
    nodes = []
    source = INPUT
    for name, layer in layers:
        nodes.append(Node(name=name, layer=layer, source=source))
        source = name
    return Architecture(input=input, nodes=tuple(nodes))
