"""Batch norm with factors of its own at each step (BNTT), as one with their means: the only rewriting that changes outputs."""

from dataclasses import dataclass

from torch import Tensor

from hardspike.deploy.passes.graph import Graph, Node, Scale, Shift, StepNorm, column


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNormSpread:
    """How far a layer's factors and shifts are from their means over the steps.

    layer: name of the batch norm. factor, shift: the largest distance from its mean over the steps, of any channel, over
    the largest magnitude among these means; 0 where the layer does the same at every step.
    """

    layer: str
    factor: float
    shift: float


class MeanOverSteps:
    """factor_t x + shift_t -> mean(factor) x + mean(shift)"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, StepNorm)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        assert isinstance(node.op, StepNorm)
        scaled = graph.after(Scale(factor=node.op.factor.mean(0)), graph[node.source], node, 0)
        shift = Shift(bias=column(node.op.shift.mean(0), len(node.shape)))
        return scaled, node.computing(shift, (scaled.name,))


def spreads(graph: Graph) -> tuple[StepNormSpread, ...]:
    """One for each batch norm per step of the graph, in order."""
    return tuple(
        StepNormSpread(layer=node.layer, factor=_spread(node.op.factor), shift=_spread(node.op.shift))
        for node in graph.nodes
        if isinstance(node.op, StepNorm)
    )


def _spread(values: Tensor) -> float:
    """values: [T, C]."""
    values = values.detach()
    mean = values.mean(0)
    largest = float(mean.abs().max())
    return float((values - mean).abs().max()) / largest if largest else 0.0
