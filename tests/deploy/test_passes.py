"""Each rewriting keeps what a network computes: on a graph made for it alone, and at every place in random networks."""

import math
from collections import Counter
from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from random_architectures import architectures
from settled_networks import pictures, settled
from torch import Tensor

from hardspike.deploy.compare import Counter as Differences
from hardspike.deploy.passes.build import build_graph
from hardspike.deploy.passes.compose import ConvolutionOfConvolution
from hardspike.deploy.passes.graph import (
    Convolve,
    Fire,
    Flat,
    Graph,
    Multiply,
    Node,
    Operator,
    Pool,
    Scale,
    Shift,
    Source,
    StepNorm,
    Sum,
)
from hardspike.deploy.passes.step_norms import MeanOverSteps
from hardspike.deploy.passes.table import PASSES, Pass, rewrite
from hardspike.deploy.verify import compare_folded
from hardspike.snn.architecture import INPUT, Architecture
from hardspike.snn.errors import UnsupportedLayerError
from hardspike.snn.membrane import NeuronSettings

TOLERANCE = 1e-9
STEPS = 3
SHAPE = (4, 6, 5)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graph_of(*layers: tuple[str, Operator, tuple[str, ...]], shape: tuple[int, ...] = SHAPE) -> Graph:
    """The last layer is the output."""
    nodes = {INPUT: Node(name=INPUT, op=Source(), sources=(), shape=shape, layer=INPUT)}
    for name, op, sources in layers:
        found = op.output_shape(nodes[sources[0]].shape)
        nodes[name] = Node(name=name, op=op, sources=sources, shape=found, layer=name)
    return Graph(tuple(nodes.values()), layers[-1][0], STEPS)


def line(*ops: Operator) -> Graph:
    names = [INPUT, *(f"n{index}" for index in range(len(ops)))]
    return graph_of(*((name, op, (before,)) for before, name, op in zip(names, names[1:], ops, strict=False)))


def differences(found: Graph, expected: Graph) -> Differences:
    """All currents and the output, on random messages that change with time."""
    messages = random(STEPS, 2, *expected[INPUT].shape, seed=5)
    counted = Differences()
    (currents, output), (wanted, wanted_output) = found.run(messages), expected.run(messages)
    assert currents.keys() == wanted.keys()
    counted.add_all("current", currents, wanted, TOLERANCE)
    counted.add("output", output, wanted_output, TOLERANCE)
    return counted


CONV = Convolve(weight=random(6, 2, 3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
PLAIN = Convolve(weight=random(4, 4, 2, 2, seed=1))
DENSE = Multiply(weight=random(3, 120))
FIRE = Fire(settings=NeuronSettings(leak=0.9), threshold=0.7)
SCALE = Scale(factor=random(4, seed=2))
SHIFT = Shift(bias=random(4, 1, 1, seed=3))
TWO: tuple[tuple[str, Operator, tuple[str, ...]], ...] = (("a", SCALE, (INPUT,)), ("b", SHIFT, (INPUT,)))

# Name of the pass, a graph it matches, the operators it must leave.
ALONE: dict[str, tuple[Graph, list[type]]] = {
    "PoolIsConvolution": (line(Pool(kernel=(2, 3))), [Convolve]),
    "FlattenInDense": (line(Flat(), DENSE), [Multiply]),
    "SumOfSums": (
        graph_of(*TWO, ("s", Sum(), ("a", "b", "a")), ("t", Sum(), ("s", "b", "s"))),
        [Scale, Shift, Sum],
    ),
    "LinearOverSum": (
        graph_of(*TWO, ("s", Sum(), ("a", "b")), ("c", CONV, ("s",))),
        [Scale, Shift, Convolve, Convolve, Sum],
    ),
    "ShiftOfShift": (line(SHIFT, Shift(bias=random(*SHAPE))), [Shift]),
    "ShiftOutOfSum": (graph_of(*TWO, ("s", Sum(), ("a", "b", "b"))), [Scale, Sum, Shift]),
    "LinearOverShift": (line(SHIFT, CONV), [Convolve, Shift]),
    "ScaleAfterWeights": (line(CONV, Scale(factor=random(6))), [Convolve]),
    "ScaleBeforeWeights": (line(SCALE, CONV), [Convolve]),
    "ConvolutionOfConvolution": (line(CONV, Convolve(weight=random(4, 3, 2, 3), stride=(1, 2), groups=2)), [Convolve]),
    "DenseOfSynapse": (line(CONV, Multiply(weight=random(3, 126))), [Multiply]),
    "FlattenIsDense": (line(PLAIN, Flat()), [Convolve, Multiply]),
    "MessagesAreScaledByOne": (
        graph_of(("f", FIRE, (INPUT,)), ("s", Sum(), ("f", INPUT, "f")), ("c", PLAIN, ("s",))),
        [Scale, Fire, Scale, Scale, Scale, Sum, Convolve],
    ),
    "ScaledMessagesAreSynapse": (line(SCALE, FIRE, Scale(factor=random(4))), [Convolve, Fire, Convolve]),
    "EqualTermsAreOne": (
        graph_of(
            ("a", PLAIN, (INPUT,)),
            ("b", Convolve(weight=random(4, 4, 2, 2, seed=8)), (INPUT,)),
            ("c", Convolve(weight=random(4, 1, 2, 2, seed=8), groups=4), (INPUT,)),
            ("s", Sum(), ("a", "c", "b", "b")),
        ),
        [Convolve, Convolve, Sum],
    ),
}
# The same passes where another branch of theirs is taken.
MORE: dict[str, list[Graph]] = {
    "LinearOverSum": [
        graph_of(*TWO, ("s", Sum(), ("b", "a", "a")), ("c", op, ("s",)))
        for op in (DENSE, SCALE, Pool(kernel=(3, 2)), Flat())
    ],
    "LinearOverShift": [line(SHIFT, op) for op in (DENSE, SCALE, PLAIN, Pool(kernel=(3, 2)), Flat())]
    + [line(Shift(bias=random(*SHAPE)), op) for op in (CONV, DENSE, SCALE, PLAIN, Pool(kernel=(4, 3)), Flat())],
    "ScaleAfterWeights": [line(DENSE, Scale(factor=random(3))), line(SCALE, Scale(factor=random(4, seed=4)))],
    "ScaleBeforeWeights": [line(SCALE, DENSE), line(DENSE, Scale(factor=random(3)), Multiply(weight=random(2, 3)))],
    "DenseOfSynapse": [line(DENSE, Multiply(weight=random(2, 3)))],
    "ScaledMessagesAreSynapse": [line(Flat(), FIRE, Scale(factor=random(120)))],
    "MessagesAreScaledByOne": [line(SHIFT), line(FIRE, FIRE)],
    "EqualTermsAreOne": [
        graph_of(
            ("a", DENSE, (INPUT,)), ("b", Multiply(weight=random(3, 120, seed=8)), (INPUT,)), ("s", Sum(), ("a", "b"))
        )
    ],
}
BY_NAME = {type(rule).__name__: rule for rule in PASSES}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_pass_alone_keeps_the_outputs_and_leaves_the_operators_it_should(name: str) -> None:
    graph, expected = ALONE[name]
    found = rewrite(graph, (BY_NAME[name],))
    counted = differences(found, graph)
    assert counted.compared and not counted.differing, counted.first
    assert [type(node.op) for node in found.nodes[1:]] == expected
    assert found[found.output].shape == graph[graph.output].shape


@pytest.mark.parametrize("name", MORE)
def test_other_branches_of_a_pass(name: str) -> None:
    for graph in MORE[name]:
        found = rewrite(graph, (BY_NAME[name],))
        counted = differences(found, graph)
        assert found is not graph and not counted.differing, counted.first


def test_random_networks_keep_what_they_compute_at_every_rewriting_and_as_a_whole() -> None:
    """Each pass must have been seen often; a network may only be refused for padding around what has no neurons before it."""
    seen: Counter[str] = Counter()

    def watch(rule: Pass, before: Graph, after: Graph) -> None:
        seen[type(rule).__name__] += 1
        counted = differences(after, before)
        assert not counted.differing, f"{type(rule).__name__}: {counted.first}"

    @settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(architectures())
    def check(architecture: Architecture) -> None:
        net = settled(architecture, STEPS)
        rewrite(build_graph(net), watch=watch)
        try:
            row = compare_folded(net, pictures(architecture, 2))
        except UnsupportedLayerError as refused:
            assert "cannot be one kernel" in str(refused)
            return
        seen["folded"] += 1
        assert row.compared and not row.differing, row.first

    check()
    assert {name: seen[name] for name in BY_NAME if seen[name] < 3} == {}
    assert seen["folded"] >= 15


def test_two_convolutions_are_one_kernel_exactly_where_the_pass_says_so() -> None:
    """All small geometries of one axis. Weights are random: a wrong kernel cannot agree by chance, so nothing else is refused."""
    rule = ConvolutionOfConvolution()
    matched: Counter[bool] = Counter()
    side = 5
    for inner, outer in product(GEOMETRIES, GEOMETRIES):
        graph = graph_of(("a", _along_rows(inner), (INPUT,)), ("b", _along_rows(outer), ("a",)), shape=(1, side, 2))
        node = graph["b"]
        if min(graph["a"].shape[1], node.shape[1]) < 1:
            continue
        is_one = rule.match(graph, node)
        matched[is_one] += 1
        messages = random(1, 1, 1, side, 2, seed=5)
        found = graph.replaced(node, rule.transform(graph, node)).run(messages)[1]
        assert torch.allclose(found, graph.run(messages)[1], rtol=0, atol=1e-12) == is_one, (inner, outer)
    assert min(matched.values()) >= 200, matched


GEOMETRIES = [
    (taps, step, pad, spread)
    for taps, step, pad, spread in product((1, 2, 3), (1, 2), (0, 1, 2), (1, 2))
    if taps > 1 or spread == 1
]


def _along_rows(geometry: tuple[int, int, int, int]) -> Convolve:
    taps, step, pad, spread = geometry
    return Convolve(weight=random(1, 1, taps, 1, seed=taps), stride=(step, 1), padding=(pad, 0), dilation=(spread, 1))


@pytest.mark.parametrize("groups", list(product((1, 2, 3, 4, 6, 12), repeat=2)))
def test_two_grouped_convolutions_are_one(groups: tuple[int, int]) -> None:
    """Channels 12 -> 24 or 12 -> 12 or 24; a depthwise one on either side, and groups that do not nest."""
    for between, out in product((12, 24), repeat=2):
        inner = Convolve(weight=random(between, 12 // groups[0], 2, 1), groups=groups[0])
        outer = Convolve(weight=random(out, between // groups[1], 1, 2, seed=1), groups=groups[1])
        graph = graph_of(("a", inner, (INPUT,)), ("b", outer, ("a",)), shape=(12, 3, 3))
        found = rewrite(graph, (ConvolutionOfConvolution(),))
        assert not differences(found, graph).differing
        op = found["b"].op
        assert isinstance(op, Convolve) and op.groups == math.gcd(*groups)


def test_terms_of_the_same_shape_but_other_geometry_stay_apart() -> None:
    """On 3x3, a 1x1 kernel gives 3x3 with stride 1 and with stride 2 in padding 1."""
    ops = [
        Convolve(weight=random(4, 4, 1, 1)),
        Convolve(weight=random(4, 4, 1, 1), stride=(2, 1), padding=(1, 0)),
        Convolve(weight=random(4, 4, 1, 1), stride=(1, 2), padding=(0, 1)),
    ]
    terms = [(name, op, (INPUT,)) for name, op in zip("abc", ops, strict=True)]
    graph = graph_of(*terms, ("s", Sum(), ("a", "b", "c")), shape=(4, 3, 3))
    assert rewrite(graph, (BY_NAME["EqualTermsAreOne"],)) is graph


def test_a_norm_per_step_becomes_its_mean() -> None:
    """The only pass that changes outputs does not where the steps agree, and is the mean where they do not."""
    factor, shift = random(1, 4), random(1, 4, seed=1)
    same = line(PLAIN, StepNorm(factor=factor.repeat(STEPS, 1), shift=shift.repeat(STEPS, 1)))
    found = rewrite(same, (MeanOverSteps(),))
    assert [type(node.op) for node in found.nodes[1:]] == [Convolve, Scale, Shift]
    assert not differences(found, same).differing
    factors, shifts = random(STEPS, 4), random(STEPS, 4, seed=1)
    mixed = rewrite(line(PLAIN, StepNorm(factor=factors, shift=shifts)), (MeanOverSteps(),))
    messages = random(1, 2, *SHAPE)
    expected = PLAIN(messages[0]) * factors.mean(0).view(4, 1, 1) + shifts.mean(0).view(4, 1, 1)
    torch.testing.assert_close(mixed.run(messages)[1], expected.expand(STEPS, *expected.shape))


def test_what_nothing_reads_is_dropped_but_neurons_stay() -> None:
    graph = graph_of(("a", PLAIN, (INPUT,)), ("f", FIRE, ("a",)), ("dead", SCALE, (INPUT,)), ("b", PLAIN, (INPUT,)))
    assert [node.name for node in graph.swept().nodes] == [INPUT, "a", "f", "b"]
