"""Factors per channel into the weights before or behind them."""

from dataclasses import replace

from torch import Tensor

from hardspike.deploy.passes.graph import Convolve, Graph, Multiply, Node, Scale, column


class ScaleAfterWeights:
    """a (W x) = (a W) x, and a (b x) = (a b) x"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, Scale) and isinstance(graph[node.source].op, Convolve | Multiply | Scale)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        inner = graph[node.source]
        assert isinstance(node.op, Scale)
        factor = node.op.factor
        op: Convolve | Multiply | Scale
        match inner.op:
            case Scale():
                op = Scale(factor=inner.op.factor * factor)
            case Multiply():
                op = Multiply(weight=inner.op.weight * column(factor, 2))
            case _:
                assert isinstance(inner.op, Convolve)
                op = replace(inner.op, weight=inner.op.weight * column(factor, 4))
        return (node.computing(op, inner.sources, inner.layer),)


class ScaleBeforeWeights:
    """W (a x) = (W a) x, a on the weights' input channels"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, Convolve | Multiply) and isinstance(graph[node.source].op, Scale)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        inner = graph[node.source]
        assert isinstance(inner.op, Scale)
        factor = inner.op.factor
        op: Convolve | Multiply
        if isinstance(node.op, Convolve):
            op = replace(node.op, weight=on_input_channels(node.op.weight, factor, node.op.groups))
        else:
            assert isinstance(node.op, Multiply)
            per_channel = node.op.weight.shape[1] // len(factor)
            op = Multiply(weight=node.op.weight * factor.repeat_interleave(per_channel))
        return (node.computing(op, inner.sources),)


def on_input_channels(weight: Tensor, factor: Tensor, groups: int) -> Tensor:
    """weight * factor[c] for every input channel c of every group; weight: (out, in / groups, kH, kW)."""
    per_group = factor.view(groups, -1).repeat_interleave(len(weight) // groups, 0)
    return weight * per_group[:, :, None, None]
