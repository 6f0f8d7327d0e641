"""Two synapses without neurons between as one."""

import math
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.deploy.passes.graph import Convolve, Flat, Graph, Multiply, Node, Pair
from hardspike.deploy.passes.scales import on_input_channels
from hardspike.snn.architecture import Shape


class FlattenInDense:
    """W flatten(x) = W x: a dense layer reads its source in C order anyway"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, Multiply) and isinstance(graph[node.source].op, Flat)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        return (node.computing(node.op, graph[node.source].sources),)


class DenseOfSynapse:
    """W (K x) = (K^T W^T)^T x, with a matrix or a convolution K of any geometry"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, Multiply) and isinstance(graph[node.source].op, Multiply | Convolve)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        inner = graph[node.source]
        assert isinstance(node.op, Multiply)
        if isinstance(inner.op, Multiply):
            weight = node.op.weight @ inner.op.weight
        else:
            assert isinstance(inner.op, Convolve)
            rows = node.op.weight.view(-1, *inner.shape)
            weight = _adjoint(inner.op, rows, graph[inner.source].shape).flatten(1)
        return (node.computing(Multiply(weight=weight), inner.sources),)


class ConvolutionOfConvolution:
    """K (M x) as one convolution: taps at the sums of both's offsets, strides multiplied, where padding allows it.

    Zero padding of K stands for zeros, while one kernel would compute M there: it must find nothing but M's own padding.
    """

    def match(self, graph: Graph, node: Node) -> bool:
        inner = graph[node.source] if isinstance(node.op, Convolve) else node
        if not isinstance(node.op, Convolve) or not isinstance(inner.op, Convolve):
            return False
        return is_exact(node.op, inner.op, node.shape, inner.shape, graph[inner.source].shape)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        inner = graph[node.source]
        assert isinstance(node.op, Convolve) and isinstance(inner.op, Convolve)
        return (node.computing(_composed(node.op, inner.op), inner.sources),)


def is_exact(outer: Convolve, inner: Convolve, shape: Shape, between: Shape, source: Shape) -> bool:
    """Whether no tap of `outer` in its padding would find pixels; shapes: of outer's output, inner's output, inner's source."""
    for axis in range(2):
        taps = [tap * inner.dilation[axis] for tap in range(inner.weight.shape[2 + axis])]
        for place, tap in product(range(shape[1 + axis]), range(outer.weight.shape[2 + axis])):
            at = place * outer.stride[axis] - outer.padding[axis] + tap * outer.dilation[axis]
            if 0 <= at < between[1 + axis]:
                continue
            start = at * inner.stride[axis] - inner.padding[axis]
            if any(0 <= start + offset < source[1 + axis] for offset in taps):
                return False
    return True


def _composed(outer: Convolve, inner: Convolve) -> Convolve:
    outer_taps, inner_taps = tuple(outer.weight.shape[2:]), tuple(inner.weight.shape[2:])
    steps = _times(outer.dilation, inner.stride)  # between taps of `outer`, in pixels of the source
    dilation = (
        _spacing(outer_taps[0], steps[0], inner_taps[0], inner.dilation[0]),
        _spacing(outer_taps[1], steps[1], inner_taps[1], inner.dilation[1]),
    )
    sides = [
        ((outer_taps[axis] - 1) * steps[axis] + (inner_taps[axis] - 1) * inner.dilation[axis]) // dilation[axis] + 1
        for axis in range(2)
    ]
    groups = math.gcd(outer.groups, inner.groups)
    channels = inner.weight.shape[1] * inner.groups
    weight = outer.weight.new_zeros(len(outer.weight), channels // groups, *sides)
    for near in product(*map(range, inner_taps)):
        products = _through_channels(outer, inner, inner.weight[:, :, near[0], near[1]], groups)
        for far in product(*map(range, outer_taps)):
            row, col = (
                (far[axis] * steps[axis] + near[axis] * inner.dilation[axis]) // dilation[axis] for axis in range(2)
            )
            weight[:, :, row, col] += products[:, :, far[0], far[1]]
    own = _times(outer.padding, inner.stride)
    return Convolve(
        weight=weight,
        stride=_times(outer.stride, inner.stride),
        padding=(own[0] + inner.padding[0], own[1] + inner.padding[1]),
        dilation=dilation,
        groups=groups,
    )


def _through_channels(outer: Convolve, inner: Convolve, near: Tensor, groups: int) -> Tensor:
    """Every tap of `outer` times one tap of `inner`, near (mid, in / inner.groups): (out, in / groups, *outer's taps)."""
    if inner.groups == len(inner.weight) and near.shape[1] == 1:
        return on_input_channels(outer.weight, near[:, 0], outer.groups)
    blocks = _regrouped(near[:, :, None, None], inner.groups, groups).view(
        groups, -1, near.shape[1] * inner.groups // groups
    )
    own = _regrouped(outer.weight, outer.groups, groups)
    own = own.view(groups, len(own) // groups, *own.shape[1:])
    return torch.einsum("gomyx,gmi->goiyx", own, blocks).flatten(0, 1)


def _regrouped(weight: Tensor, groups: int, fewer: int) -> Tensor:
    """The same kernel written with fewer groups: zeros where an output channel did not see an input channel."""
    if groups == fewer:
        return weight
    outputs, inputs = weight.shape[:2]
    per_block = groups // fewer
    wide = weight.new_zeros(fewer, per_block, outputs // groups, per_block, inputs, *weight.shape[2:])
    narrow = weight.view(fewer, per_block, outputs // groups, inputs, *weight.shape[2:])
    for index in range(per_block):
        wide[:, index, :, index] = narrow[:, index]
    return wide.reshape(outputs, per_block * inputs, *weight.shape[2:])


def _spacing(outer_taps: int, outer_step: int, inner_taps: int, inner_step: int) -> int:
    """The largest dilation at which all taps of a composed kernel lie."""
    steps = [step for taps, step in ((outer_taps, outer_step), (inner_taps, inner_step)) if taps > 1]
    return math.gcd(*steps) if steps else 1


def _times(first: Pair, second: Pair) -> Pair:
    return first[0] * second[0], first[1] * second[1]


def _adjoint(op: Convolve, rows: Tensor, shape: Shape) -> Tensor:
    """K^T rows: what each row of weights on the convolution's output is on its source of that shape."""
    rest = [  # what the convolution's stride left over at the far side
        side + 2 * pad - spread * (taps - 1) - 1 - (out - 1) * step
        for side, pad, spread, taps, out, step in zip(
            shape[1:], op.padding, op.dilation, op.weight.shape[2:], rows.shape[2:], op.stride, strict=True
        )
    ]
    return F.conv_transpose2d(rows, op.weight, None, op.stride, op.padding, rest, op.groups, op.dilation)
