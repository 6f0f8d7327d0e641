"""The one description of a network: named nodes in topological order, each a layer applied to earlier nodes (a DAG).

It holds no weights. `SpikingNetwork` builds modules from it, checkpoints carry it as JSON, the compiler walks it.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

from torch import nn

from hardspike.snn.errors import FileError, SettingsError, UnsupportedLayerError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.ranges import require

Shape = tuple[int, ...]
INPUT = "input"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInput:
    """Images in [0, 1] of shape (C, H, W); (x - mean) / std per channel is the network's first operation.

    bits: images are rounded to k / (2^bits - 1) before it (straight-through gradient); None leaves them as they are.
    coding: `direct`, the normalised image is the same input at every step, or `poisson`, signed spikes (see `encoding`).
    poisson_rate: probability of a spike per unit of the normalised pixel; 1 in hybrid conversion, 0.9 in its ResNet, 0.5 in BNTT.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bits: int | None = None
    coding: Literal["direct", "poisson"] = "direct"
    poisson_rate: float = 1.0

    def __post_init__(self) -> None:
        require("input.bits", self.bits, self.bits is None or 1 <= self.bits <= 16, "use 1 to 16, or none")
        require("input.coding", self.coding, self.coding in ("direct", "poisson"), "use direct or poisson")
        require("input.poisson_rate", self.poisson_rate, self.poisson_rate > 0, "use a positive value")
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

    def __post_init__(self) -> None:
        counted = (self.out_channels, *self.kernel_size, *self.stride, *self.dilation, self.groups)
        require(
            "convolution",
            self,
            min(counted) >= 1 and min(self.padding) >= 0,
            "use sizes of at least 1, padding of at least 0",
        )

    def output_shape(self, shape: Shape) -> Shape:
        sides = convolved(shape[1:], self.kernel_size, self.stride, self.padding, self.dilation)
        return (self.out_channels, *sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchNorm:
    """Per channel, momentum 0.1.

    steps: None for one norm with statistics over T, B, H, W together (tdBN without its threshold factor); a number of
    timesteps for a norm of its own at each (BNTT), which fixes the network's timesteps to that number.
    eps: added to the variance (1e-4 in BNTT). shift: a trainable additive term (none in BNTT).
    """

    steps: int | None = None
    eps: float = 1e-5
    shift: bool = True

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

    def __post_init__(self) -> None:
        require("average pool", self.kernel_size, min(self.kernel_size) >= 1, "use windows of at least 1 x 1")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout:
    """In training, each value is 0 with probability `share`, else scaled by 1 / (1 - share).

    per_step: draw a new mask at every timestep; otherwise one mask per sample serves all of them.
    """

    share: float
    per_step: bool = False

    def __post_init__(self) -> None:
        require("dropout", self.share, 0 <= self.share < 1, "use a share in [0, 1)")

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedSum:
    """Sum of the sources, each times a scalar of its own.

    initial: the scalars, one per source. trainable: they are parameters (1/2 each in SNN-RAT and robust conversion).
    """

    initial: tuple[float, ...]
    trainable: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        return shape


Layer = Convolution | BatchNorm | Spiking | AveragePool | Flatten | Dense | Dropout | WeightedSum
LAYERS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Convolution, BatchNorm, Spiking, AveragePool, Flatten, Dense, Dropout, WeightedSum)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """`layer` applied to the outputs of the nodes called `sources` (`input` for the image); all but `WeightedSum` take one."""

    name: str
    layer: Layer
    sources: tuple[str, ...]

    @property
    def source(self) -> str:
        """The one source of a layer that takes one."""
        (source,) = self.sources
        return source


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network without weights; the last node gives the logits of each timestep.

    readout: logits are the `mean` over timesteps of the last node's output, or their `sum` (hybrid conversion, DIET-SNN).

    Raises SettingsError when a name repeats, a source comes later or a shape shrinks to nothing.
    """

    input: ImageInput
    nodes: tuple[Node, ...]
    readout: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        _ = self.shapes
        require("readout", self.readout, self.readout in ("mean", "sum"), "use mean or sum")

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Output shape of the input and of every node, without the batch axis."""
        shapes: dict[str, Shape] = {INPUT: self.input.shape}
        for node in self.nodes:
            if "." in node.name or hasattr(nn.ModuleDict, node.name):
                raise SettingsError(
                    f"layer '{node.name}': PyTorch has another use for this name; choose one without '.'"
                )
            if node.name in shapes:
                raise SettingsError(f"layer '{node.name}' appears twice; give every layer a name of its own")
            for source in node.sources:
                if source not in shapes:
                    raise SettingsError(f"layer '{node.name}' reads '{source}', which is not an earlier layer")
            _check_sources(node, [shapes[source] for source in node.sources])
            shapes[node.name] = node.layer.output_shape(shapes[node.sources[0]])
            if min(shapes[node.name]) < 1:
                raise SettingsError(
                    f"layer '{node.name}' would have output shape {shapes[node.name]}; "
                    f"its kernel does not fit on {shapes[node.sources[0]]}"
                )
        return shapes

    @property
    def num_classes(self) -> int:
        return self.shapes[self.nodes[-1].name][0]

    @property
    def spiking(self) -> tuple[Node, ...]:
        """The neuron layers, in order."""
        return tuple(node for node in self.nodes if isinstance(node.layer, Spiking))

    @property
    def fixed_time_steps(self) -> int | None:
        """The number of timesteps that batch norms of their own per step prescribe; None where any number will do."""
        steps = {node.layer.steps for node in self.nodes if isinstance(node.layer, BatchNorm)} - {None}
        return steps.pop() if steps else None

    def to_json(self) -> str:
        nodes = [
            {"name": node.name, "sources": node.sources, "kind": type(node.layer).__name__, "layer": asdict(node.layer)}
            for node in self.nodes
        ]
        return json.dumps({"input": asdict(self.input), "nodes": nodes, "readout": self.readout})

    @staticmethod
    def from_json(text: str) -> "Architecture":
        """Inverse of `to_json`. Raises FileError for text that is not an architecture, UnsupportedLayerError for an unknown layer."""
        try:
            data = json.loads(text)
            image = ImageInput(**_tuples(data["input"]))
            nodes = tuple(
                Node(name=n["name"], sources=tuple(n["sources"]), layer=_layer(n["kind"], n["layer"]))
                for n in data["nodes"]
            )
            readout = data["readout"]
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise FileError(
                f"architecture: not readable ({error}); the file is damaged or of another version"
            ) from None
        return Architecture(input=image, nodes=nodes, readout=readout)


def _check_sources(node: Node, shapes: list[Shape]) -> None:
    """Raise SettingsError unless the layer can take sources of these shapes."""
    wanted = len(node.layer.initial) if isinstance(node.layer, WeightedSum) else 1
    if len(shapes) != wanted or not shapes:
        raise SettingsError(
            f"layer '{node.name}' has {len(shapes)} sources; a {type(node.layer).__name__} takes {wanted}"
        )
    if len(set(shapes)) > 1:
        raise SettingsError(f"layer '{node.name}' adds outputs of shapes {shapes}; they must be equal")
    shape = shapes[0]
    needed = {Convolution: 3, AveragePool: 3, Dense: 1}.get(type(node.layer))
    if needed is not None and len(shape) != needed:
        raise SettingsError(
            f"layer '{node.name}' ({type(node.layer).__name__}) needs {needed} axes, but '{node.sources[0]}' has shape {shape}"
        )
    if isinstance(node.layer, Convolution) and (
        shape[0] % node.layer.groups or node.layer.out_channels % node.layer.groups
    ):
        raise SettingsError(
            f"layer '{node.name}': groups = {node.layer.groups} does not divide "
            f"{shape[0]} input and {node.layer.out_channels} output channels"
        )


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


def chain(
    input: ImageInput, layers: Iterable[tuple[str, Layer]], *, readout: Literal["mean", "sum"] = "mean"
) -> Architecture:
    """An architecture in which each (name, layer) reads the one before it."""
    nodes = []
    source = INPUT
    for name, layer in layers:
        nodes.append(Node(name=name, layer=layer, sources=(source,)))
        source = name
    return Architecture(input=input, nodes=tuple(nodes), readout=readout)
