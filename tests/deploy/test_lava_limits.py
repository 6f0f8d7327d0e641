"""What Lava and netx would compute wrongly is refused in one line that names the backend to use instead."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_graphs import CASES, NUMERICS, build, random_messages

from hardspike.deploy.lava_backend import Loihi2Backend
from hardspike.deploy.lava_limits import check_lava_computes, check_loihi2_resets, check_netx_holds
from hardspike.deploy.process_graph import ConvSynapse, GraphLayer, InputContract, NeuronGroup, ProcessGraph
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import DoesNotFitError, HardspikeError, UnsupportedLayerError


def chain(
    *,
    groups: int = 1,
    weight: int = 8,
    exponent: int = 0,
    coding: str = "binary",
    sources: tuple[str, ...] = ("a",),
    **neurons: object,
) -> ProcessGraph:
    """Layer a, then b with the given forms."""
    shape = (groups, 2, 2)
    plain = NeuronGroup(threshold=10, bias=np.zeros((1, 1, 1), dtype=np.int32))
    first = ConvSynapse(source=INPUT, weight=np.full((groups, 1, 1, 1), 8, dtype=np.int32), groups=min(groups, 100))
    if groups > 100:
        first = ConvSynapse(source=INPUT, weight=np.full((groups, groups, 1, 1), 8, dtype=np.int32))
    second = ConvSynapse(
        source="a", weight=np.full((groups, 1, 1, 1), weight, dtype=np.int32), groups=groups, exponent=exponent
    )
    synapses = tuple(replace(second, source=source) for source in sources)
    layers = (
        GraphLayer(name="a", shape=shape, synapses=(first,), neurons=plain),
        GraphLayer(name="b", shape=shape, synapses=synapses, neurons=replace(plain, **neurons)),  # type: ignore[arg-type]
    )
    return ProcessGraph(
        input=InputContract(shape=shape, coding=coding, message_bits=1),  # type: ignore[arg-type]
        layers=layers,
        time_steps=3,
        numerics=NUMERICS,
        profile="loihi2",
    )


@pytest.mark.parametrize(
    ("graph", "kind", "message"),
    [
        (lambda: chain(sources=("a", "a")), UnsupportedLayerError, "'b' does not read just the layer before it"),
        (lambda: chain(sources=(INPUT,)), UnsupportedLayerError, "'b' does not read just the layer before it"),
        (lambda: chain(coding="signed"), UnsupportedLayerError, "layer 'input': signed spikes"),
        (lambda: chain(reset_by=10), UnsupportedLayerError, "'b': a soft reset, which netx's neurons do not know"),
        (lambda: chain(initial=5), UnsupportedLayerError, "'b': an initial potential, which"),
        (lambda: chain(order="fire-first"), UnsupportedLayerError, "'b': firing before integrating, which"),
        (lambda: chain(weight=16, exponent=1), UnsupportedLayerError, "'b': weight exponent 1, which netx ignores"),
        (lambda: chain(groups=128), DoesNotFitError, "'b': 128 groups exceed netx's 127"),
    ],
)
def test_netx_refuses_what_lavas_processes_compute(
    graph: Callable[[], ProcessGraph], kind: type[HardspikeError], message: str
) -> None:
    check_lava_computes(graph())
    with pytest.raises(kind, match=message) as caught:
        check_netx_holds(graph())
    assert "on the backend 'lava'" in str(caught.value) and "\n" not in str(caught.value)


def test_netx_takes_the_plain_chain() -> None:
    check_netx_holds(chain())
    check_netx_holds(chain(groups=100))


def test_the_sum_of_all_synapses_stays_within_32_bits() -> None:
    """Each within the accumulator's 24 bits by itself. The current and the bias, which Lava adds too, count."""

    def graph(codes: list[tuple[int, int]], bias: int = 0) -> ProcessGraph:
        """One neuron; codes: (code, exponent) of each synapse from a pixel that sends up to 127."""
        neurons = NeuronGroup(threshold=10, bias=np.full((1, 1, 1), bias, dtype=np.int32), bias_exponent=7)
        synapses = tuple(
            ConvSynapse(source=INPUT, weight=np.full((1, 1, 1, 1), code << exponent, dtype=np.int32), exponent=exponent)
            for code, exponent in codes
        )
        layer = GraphLayer(name="sum", shape=(1, 1, 1), synapses=synapses, neurons=neurons)
        contract = InputContract(shape=(1, 1, 1), coding="graded", message_bits=7)
        return ProcessGraph(input=contract, layers=(layer,), time_steps=1, numerics=NUMERICS, profile="loihi2")

    most = ((1 << 31) - 1 - 2 * (1 << 23)) >> 6
    assert most + 1 == 127 * (8 * (255 << 7) + 1024)
    with pytest.raises(
        DoesNotFitError, match=f"'sum': its synapses together could reach {most + 1}, beyond the {most} that Lava"
    ):
        check_lava_computes(graph([(255, 7)] * 8 + [(128, 3)]))
    just = [(255, 7)] * 8 + [(127, 3), (7, 0)]  # 127 less
    check_lava_computes(graph(just, bias=126 * 64 >> 7))
    with pytest.raises(DoesNotFitError, match="together could reach"):
        check_lava_computes(graph(just, bias=-(126 * 64 >> 7) - 1))


@pytest.mark.parametrize(("steps", "allowed"), [(1, True), (2, True), (6, False), (7, False), (8, True)])
def test_a_chip_resets_at_powers_of_two(steps: int, allowed: bool) -> None:
    graph = replace(build(CASES[0]), time_steps=steps)
    if allowed:
        check_loihi2_resets(graph)
        return
    with pytest.raises(DoesNotFitError, match=rf"^graph: {steps} timesteps, .* convert to 4 or 8, or use .* --bundle"):
        check_loihi2_resets(graph)
    with pytest.raises(DoesNotFitError, match="resets every 2"):
        Loihi2Backend(Path("a.net")).run(graph, random_messages(CASES[0], graph, 1))
