"""Other linear operators as convolutions and dense matrices, the only ones that a synapse can be."""

import torch

from hardspike.deploy.passes.graph import (
    Convolve,
    Fire,
    Flat,
    Graph,
    Multiply,
    Node,
    Pool,
    Scale,
    Shift,
    Sum,
    column,
)


class PoolIsConvolution:
    """mean over windows = depthwise convolution with equal weights, as far apart as they are wide"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, Pool)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        assert isinstance(node.op, Pool)
        rows, columns = node.op.kernel
        weight = torch.full((node.shape[0], 1, rows, columns), 1 / (rows * columns), dtype=torch.float64)
        op = Convolve(weight=weight, stride=node.op.kernel, groups=node.shape[0])
        return (node.computing(op, node.sources),)


class FlattenIsDense:
    """flatten(x) = I x; for what is left where nothing dense reads the flattened values"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, Flat)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        weight = torch.eye(node.shape[0], dtype=torch.float64)
        return (node.computing(Multiply(weight=weight), node.sources),)


class MessagesAreScaledByOne:
    """x = 1 x; where a sum, a shift or neurons take messages without a synapse"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, Sum | Shift | Fire) and any(graph[source].is_sender for source in node.sources)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        new = []
        sources = []
        for index, name in enumerate(node.sources):
            source = graph[name]
            if source.is_sender:
                one = Scale(factor=torch.ones(source.shape[0], dtype=torch.float64))
                source = graph.after(one, source, node, index)
                new.append(source)
            sources.append(source.name)
        return (*new, node.computing(node.op, tuple(sources)))


class ScaledMessagesAreSynapse:
    """a x = depthwise 1x1 convolution, or diagonal matrix, of messages x"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, Scale) and graph[node.source].is_sender

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        assert isinstance(node.op, Scale)
        factor = node.op.factor
        op = (
            Convolve(weight=column(factor, 4), groups=len(factor))
            if len(node.shape) == 3
            else Multiply(weight=factor.diag())
        )
        return (node.computing(op, node.sources),)
