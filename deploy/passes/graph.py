"""The intermediate representation: a network as float64 operators on named values, in topological order, which can be run.

What a node computes at one timestep has shape `node.shape`; running it gives [T, B, *shape], or [1, B, *shape] while the
value is the same at every step. Between neurons all operators are affine, which is what the passes live on: `LINEAR` ones
distribute over a sum and turn an added constant into another one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.snn.architecture import INPUT, Shape, convolved
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.neuron import fire

Pair = tuple[int, int]
# Numbers of the new nodes of one rewriting are below it: a sum of more terms would not fit any network here.
RESERVED = 10_000


def column(values: Tensor, axes: int) -> Tensor:
    """One value per channel, shaped to broadcast over a tensor of so many axes whose first one is the channel."""
    return values.view(-1, *(1,) * (axes - 1))


@dataclass(frozen=True, slots=True)
class Source:
    """What the network is given: images in [0, 1], or spikes in {-1, 0, 1} under Poisson coding."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normalise:
    """(x - mean) / std per channel; mean and std: [C]. Zero padding behind it pads the normalised image."""

    mean: Tensor
    std: Tensor

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def __call__(self, value: Tensor) -> Tensor:
        return (value - column(self.mean, 3)) / column(self.std, 3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Convolve:
    """weight: (out, in / groups, kH, kW)."""

    weight: Tensor
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def output_shape(self, shape: Shape) -> Shape:
        kernel = tuple(self.weight.shape[2:])
        return (len(self.weight), *convolved(shape[1:], kernel, self.stride, self.padding, self.dilation))

    def __call__(self, value: Tensor) -> Tensor:
        return F.conv2d(value, self.weight, None, self.stride, self.padding, self.dilation, self.groups)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Multiply:
    """weight: (out, in); a source of shape (C, H, W) is read in C order."""

    weight: Tensor

    def output_shape(self, shape: Shape) -> Shape:
        return (len(self.weight),)

    def __call__(self, value: Tensor) -> Tensor:
        return F.linear(value.flatten(1), self.weight)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale:
    """factor: [C], one per channel or feature."""

    factor: Tensor

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def __call__(self, value: Tensor) -> Tensor:
        return value * column(self.factor, value.ndim - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Mean over non-overlapping windows; rows and columns that fill no window are dropped."""

    kernel: Pair

    def output_shape(self, shape: Shape) -> Shape:
        return (shape[0], shape[1] // self.kernel[0], shape[2] // self.kernel[1])

    def __call__(self, value: Tensor) -> Tensor:
        return F.avg_pool2d(value, self.kernel)


@dataclass(frozen=True, slots=True)
class Flat:
    """(C, H, W) to (C*H*W,), C order."""

    def output_shape(self, shape: Shape) -> Shape:
        return (math.prod(shape),)

    def __call__(self, value: Tensor) -> Tensor:
        return value.flatten(1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shift:
    """Adds a constant; bias: broadcasts to the shape, [N], [C, 1, 1] or [C, H, W]."""

    bias: Tensor

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def __call__(self, value: Tensor) -> Tensor:
        return value + self.bias


@dataclass(frozen=True, slots=True)
class Sum:
    """Adds its sources, one or more of equal shape."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepNorm:
    """factor_t x + shift_t at step t; both [T, C]."""

    factor: Tensor
    shift: Tensor

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def run(self, value_TB: Tensor) -> Tensor:
        over_batch = (*self.factor.shape[:1], 1, *self.factor.shape[1:], *(1,) * (value_TB.ndim - 3))
        return value_TB * self.factor.view(over_batch) + self.shift.view(over_batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """A layer of neurons; settings.leak is the trained leak."""

    settings: NeuronSettings
    threshold: float

    def output_shape(self, shape: Shape) -> Shape:
        return shape

    def run(self, current_TB: Tensor, steps: int) -> Tensor:
        """Spikes [T, B, ...] of currents [T or 1, B, ...]."""
        return fire(current_TB, torch.tensor(self.threshold, dtype=torch.float64), self.settings, steps=steps)


LinearOperator = Convolve | Multiply | Scale | Pool | Flat
LINEAR = (Convolve, Multiply, Scale, Pool, Flat)
Operator = Source | Normalise | LinearOperator | Shift | Sum | StepNorm | Fire


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """`op` applied to `sources`. layer: the network's own layer that it came from, which error messages name."""

    name: str
    op: Operator
    sources: tuple[str, ...]
    shape: Shape
    layer: str

    @property
    def source(self) -> str:
        (source,) = self.sources
        return source

    @property
    def is_sender(self) -> bool:
        """Whether a synapse can read it: messages, rather than an analog value."""
        return isinstance(self.op, Source | Normalise | Fire)

    def computing(self, op: Operator, sources: tuple[str, ...], layer: str = "") -> "Node":
        """The node of the same name and shape that applies `op` to `sources`; layer: where it is no longer this one's."""
        return replace(self, op=op, sources=sources, layer=layer or self.layer)


@dataclass(frozen=True)
class Graph:
    """nodes: in topological order, the input first. output: the node whose values are the logits of each step."""

    nodes: tuple[Node, ...]
    output: str
    time_steps: int

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    def __getitem__(self, name: str) -> Node:
        return self.by_name[name]

    def after(self, op: Operator, source: Node, like: Node, number: int = 0) -> Node:
        """A new node that applies `op` to `source`, for the rewriting of `like`; `number` tells such nodes apart."""
        shape = op.output_shape(source.shape)
        return Node(name=self._free_name(like, number), op=op, sources=(source.name,), shape=shape, layer=like.layer)

    def sum_of(self, sources: tuple[str, ...], like: Node) -> Node:
        """A new node that adds `sources`, for the rewriting of `like`."""
        return Node(name=self._free_name(like, 0), op=Sum(), sources=sources, shape=like.shape, layer=like.layer)

    def _free_name(self, like: Node, number: int) -> str:
        """No layer of a network has a dot in its name, so it cannot be one of theirs."""
        while (name := f"{like.layer}.{number}") in self.by_name:
            number += RESERVED
        return name

    def replaced(self, node: Node, by: tuple[Node, ...]) -> "Graph":
        """`by` in the place of `node`, whose name the last of them carries; what nothing reads any more is gone."""
        index = self.nodes.index(node)
        return Graph((*self.nodes[:index], *by, *self.nodes[index + 1 :]), self.output, self.time_steps).swept()

    def swept(self) -> "Graph":
        """Without nodes that neither neurons nor the output need."""
        needed = {self.output}
        kept = []
        for node in reversed(self.nodes):
            if node.name in needed or isinstance(node.op, Fire | Source):
                kept.append(node)
                needed.update(node.sources)
        return Graph(tuple(reversed(kept)), self.output, self.time_steps)

    def run(self, messages_TB: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Input currents of every neuron layer [T, B, *shape] and the output node's values [T, B, *shape].

        messages_TB: what the input sends, float64, [T, B, C, H, W], or [1, B, C, H, W] for the same at every step.
        """
        values: dict[str, Tensor] = {INPUT: messages_TB}
        currents = {}
        for node in self.nodes:
            match node.op:
                case Source():
                    continue
                case Sum():
                    value = values[node.sources[0]]
                    for source in node.sources[1:]:
                        value = value + values[source]
                case StepNorm():
                    value = node.op.run(values[node.source])
                case Fire():
                    current = values[node.source]
                    currents[node.name] = current.expand(self.time_steps, *current.shape[1:])
                    value = node.op.run(current, self.time_steps)
                case _:
                    before = values[node.source]
                    value = node.op(before.flatten(0, 1)).unflatten(0, before.shape[:2])
            values[node.name] = value
        output = values[self.output]
        return currents, output.expand(self.time_steps, *output.shape[1:])
