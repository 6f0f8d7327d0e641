"""Sums outwards, until each is a plain list of terms in front of its neurons."""

from hardspike.deploy.passes.graph import LINEAR, Convolve, Graph, LinearOperator, Multiply, Node, Sum


class SumOfSums:
    """(a + b) + c = a + b + c"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, Sum) and any(isinstance(graph[source].op, Sum) for source in node.sources)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        sources: list[str] = []
        for name in node.sources:
            source = graph[name]
            sources += source.sources if isinstance(source.op, Sum) else [name]
        return (node.computing(node.op, tuple(sources)),)


class LinearOverSum:
    """L(a + b) = L(a) + L(b): every reader of a sum gets all of its terms, so that the sum itself need not be sent"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, LINEAR) and isinstance(graph[node.source].op, Sum)

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        assert isinstance(node.op, LINEAR)
        op: LinearOperator = node.op
        terms = [graph.after(op, graph[source], node, index) for index, source in enumerate(graph[node.source].sources)]
        return (*terms, node.computing(Sum(), tuple(term.name for term in terms)))


class EqualTermsAreOne:
    """W x + V x = (W + V) x, for synapses of equal geometry from the same source"""

    def match(self, graph: Graph, node: Node) -> bool:
        return isinstance(node.op, Sum) and self._pair(graph, node) is not None

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        pair = self._pair(graph, node)
        assert pair is not None
        first, second = (graph[node.sources[index]] for index in pair)
        merged = graph.after(_added(first.op, second.op), graph[first.source], node, 0)
        sources = [source for index, source in enumerate(node.sources) if index not in pair]
        sources.insert(pair[0], merged.name)
        return merged, node.computing(node.op, tuple(sources))

    def _pair(self, graph: Graph, node: Node) -> tuple[int, int] | None:
        """The first two terms that can be one."""
        seen: dict[object, int] = {}
        for index, name in enumerate(node.sources):
            term = graph[name]
            if isinstance(term.op, Convolve | Multiply):
                key = (term.source, _geometry(term.op))
                if key in seen:
                    return seen[key], index
                seen[key] = index
        return None


def _geometry(op: Convolve | Multiply) -> tuple[object, ...]:
    if isinstance(op, Multiply):
        return ("dense",)
    return (tuple(op.weight.shape), op.stride, op.padding, op.dilation, op.groups)


def _added(first: object, second: object) -> Convolve | Multiply:
    if isinstance(first, Multiply) and isinstance(second, Multiply):
        return Multiply(weight=first.weight + second.weight)
    assert isinstance(first, Convolve) and isinstance(second, Convolve)
    return Convolve(
        weight=first.weight + second.weight,
        stride=first.stride,
        padding=first.padding,
        dilation=first.dilation,
        groups=first.groups,
    )
