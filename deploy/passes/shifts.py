"""Constants towards the neurons, until each neuron layer has one: its bias."""

from torch import Tensor

from hardspike.deploy.passes.graph import LINEAR, Convolve, Flat, Graph, LinearOperator, Multiply, Node, Shift, Sum


class ShiftOfShift:
    """(x + a) + b = x + (a + b)"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, Shift) and isinstance(graph[node.source].op, Shift)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        inner = graph[node.source]
        assert isinstance(node.op, Shift) and isinstance(inner.op, Shift)
        return (node.computing(Shift(bias=inner.op.bias + node.op.bias), inner.sources),)


class ShiftOutOfSum:
    """(x + a) + y = (x + y) + a"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, Sum) and any(isinstance(graph[source].op, Shift) for source in node.sources)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        terms, biases = [], []
        for name in node.sources:
            source = graph[name]
            if isinstance(source.op, Shift):
                biases.append(source.op.bias)
                name = source.source
            terms.append(name)
        bias = biases[0]
        for other in biases[1:]:
            bias = bias + other
        plain = graph.sum_of(tuple(terms), node)
        return plain, node.computing(Shift(bias=bias), (plain.name,))


class LinearOverShift:
    """L(x + a) = L(x) + L(a); behind zero padding L(a) differs at the border"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, LINEAR) and isinstance(graph[node.source].op, Shift)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        inner = graph[node.source]
        assert isinstance(node.op, LINEAR) and isinstance(inner.op, Shift)
        plain = graph.after(node.op, graph[inner.source], node, 0)
        bias = _response(node.op, inner.op.bias, inner.shape)
        return plain, node.computing(Shift(bias=bias), (plain.name,))


def _response(op: LinearOperator, bias: Tensor, shape: tuple[int, ...]) -> Tensor:
    """L(a), one number per channel where it is the same at all positions."""
    response = op(bias.expand(1, *shape))[0]
    same_everywhere = bias.shape[1:] == (1, 1) and not isinstance(op, Flat | Multiply)
    if same_everywhere and not (isinstance(op, Convolve) and any(op.padding)):
        return response[:, :1, :1]
    return response
