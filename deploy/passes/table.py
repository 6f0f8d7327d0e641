"""The passes in order, and the driver that applies them until none matches.

A pass says where it matches and what stands there instead. The driver takes the first pass of the table that matches
anywhere, then starts again from the top: a pass may count on all above it having done their work.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from hardspike.deploy.passes.compose import ConvolutionOfConvolution, DenseOfSynapse, FlattenInDense
from hardspike.deploy.passes.graph import Graph, Node
from hardspike.deploy.passes.scales import ScaleAfterWeights, ScaleBeforeWeights
from hardspike.deploy.passes.shifts import LinearOverShift, ShiftOfShift, ShiftOutOfSum
from hardspike.deploy.passes.single_synapse import (
    FlattenIsDense,
    MessagesAreScaledByOne,
    PoolIsConvolution,
    ScaledMessagesAreSynapse,
)
from hardspike.deploy.passes.sums import EqualTermsAreOne, LinearOverSum, SumOfSums


class Pass(Protocol):
    """One rewriting; the first line of its docstring is the equation behind it."""

    def match(self, graph: Graph, node: Node) -> bool:
        """Whether `node` can be rewritten."""

    def transform(self, graph: Graph, node: Node) -> tuple[Node, ...]:
        """What stands in the place of a node that matched, in topological order; the last one keeps its name and shape."""


PASSES: tuple[Pass, ...] = (
    PoolIsConvolution(),
    FlattenInDense(),
    SumOfSums(),
    LinearOverSum(),
    ShiftOfShift(),
    ShiftOutOfSum(),
    LinearOverShift(),
    ScaleAfterWeights(),
    ScaleBeforeWeights(),
    ConvolutionOfConvolution(),
    DenseOfSynapse(),
    FlattenIsDense(),
    MessagesAreScaledByOne(),
    ScaledMessagesAreSynapse(),
    EqualTermsAreOne(),
)

Watch = Callable[[Pass, Graph, Graph], None]


def rewrite(graph: Graph, passes: Sequence[Pass] = PASSES, watch: Watch | None = None) -> Graph:
    """Apply `passes` until none matches. watch: is told of each rewriting: the pass, the graph before and after it."""
    while (found := _first_match(graph, passes)) is not None:
        rule, node = found
        after = graph.replaced(node, rule.transform(graph, node))
        if watch is not None:
            watch(rule, graph, after)
        graph = after
    return graph


def _first_match(graph: Graph, passes: Sequence[Pass]) -> tuple[Pass, Node] | None:
    return next(((rule, node) for rule in passes for node in graph.nodes if rule.match(graph, node)), None)
