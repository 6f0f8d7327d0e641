"""Placement: PilotNet's printed table, limits that are never exceeded, and every number against slow lists of connections."""

from dataclasses import replace
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pilotnet import PRINTED, pilotnet
from placed_graphs import conv, dense, layered_graph
from slow_placement import check_placement

from hardspike.deploy.block_kernels import expand_block_kernel
from hardspike.deploy.placement import place
from hardspike.deploy.placement_demand import stored_weight_bits
from hardspike.deploy.placement_loihi1 import list_words
from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    NeuronGroup,
    ProcessGraph,
    Synapse,
)
from hardspike.hw_profiles.profile import Cores, Profile, load_profile
from hardspike.snn.architecture import INPUT, Shape
from hardspike.snn.errors import DoesNotFitError

LOIHI1, LOIHI2 = load_profile("loihi1"), load_profile("loihi2")
NUMERICS = LOIHI2.numerics


@pytest.mark.parametrize(("with_input_neurons", "cores"), [(False, 61), (True, 74)])
def test_pilotnet_takes_the_cores_that_lava_printed(with_input_neurons: bool, cores: int) -> None:
    made = place(pilotnet(with_input_neurons=with_input_neurons), LOIHI2)
    assert len(made.cores) == cores and made.chips == 1
    for layer in made.layers:
        neurons, words, count = PRINTED["input" if layer.name == "pixels" else layer.name]
        assert len(layer.cores) == count, layer.name
        mean = sum(core.demand.synapse_words for core in layer.cores) // count
        if layer.name == "fc1":
            assert mean == words and sum(core.demand.neurons for core in layer.cores) // count == neurons
        else:
            assert (layer.largest.neurons, mean) == (neurons, words), layer.name
    assert {layer.name: layer.binding for layer in made.layers}["conv1"] == "neurons"
    assert {layer.name: layer.binding for layer in made.layers}["fc1"] == "synapse_words"


def _axis(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@st.composite
def _graphs(draw: st.DrawFn) -> ProcessGraph:
    """Branches, strides, groups, dilation, two synapses from one source, convolutions and dense layers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes: dict[str, Shape] = {
        INPUT: (draw(st.sampled_from((1, 2, 4))), draw(st.integers(3, 7)), draw(st.integers(3, 7)))
    }
    layers: list[GraphLayer] = []
    bits = draw(st.sampled_from((8, 6, 4, 2)))

    def weight(*shape: int) -> np.ndarray:
        low, high = 1 - (1 << (bits - 1)), (1 << (bits - 1)) - 1
        return ((1 << (9 - bits)) * rng.integers(low, high + 1, shape)).astype(np.int32)

    def convolution(source: str) -> ConvSynapse | None:
        shape = shapes[source]
        kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        groups = draw(st.sampled_from([g for g in (1, 2) if shape[0] % g == 0]))
        stride, dilation = (draw(st.integers(1, 3)), draw(st.integers(1, 2))), (draw(st.integers(1, 2)), 1)
        padding = (draw(st.integers(0, 1)), draw(st.integers(0, 2)))
        sides = [_axis(*values) for values in zip(shape[1:], kernel, stride, padding, dilation, strict=True)]
        if min(sides) < 1:
            return None
        channels = groups * draw(st.integers(1, 4))
        made = weight(channels, shape[0] // groups, *kernel)
        if draw(st.booleans()) and min(shape[1:]) >= 2 * max(kernel):  # an average pool, folded
            twice = (2 * stride[0], 2 * stride[1])
            return ConvSynapse(source=source, weight=expand_block_kernel(made, (2, 2)), stride=twice, groups=groups)
        return ConvSynapse(source=source, weight=made, stride=stride, padding=padding, dilation=dilation, groups=groups)

    def add(name: str, *synapses: Synapse, spiking: bool = True) -> None:
        shapes[name] = synapses[0].output_shape(shapes[synapses[0].source])
        neurons = NeuronGroup(threshold=100, bias=np.zeros(1, np.int32), spiking=spiking)
        layers.append(GraphLayer(name=name, shape=shapes[name], synapses=synapses, neurons=neurons))

    source = INPUT
    for index in range(draw(st.integers(0, 2))):
        made = convolution(source)
        if made is None:
            break
        again = [replace(made, weight=weight(*made.weight.shape))] if draw(st.booleans()) else []
        add(f"conv{index}", made, *again)
        source = f"conv{index}"
    units = draw(st.integers(1, 12))
    extra = [DenseSynapse(source=INPUT, weight=weight(units, prod(shapes[INPUT])))] if draw(st.booleans()) else []
    add("hidden", DenseSynapse(source=source, weight=weight(units, prod(shapes[source]))), *extra)
    add("out", DenseSynapse(source="hidden", weight=weight(3, units)), spiking=False)
    contract = InputContract(shape=shapes[INPUT], coding="graded", message_bits=4)
    return ProcessGraph(
        input=contract, layers=tuple(layers), time_steps=2, numerics=NUMERICS, profile="loihi2", weight_bits=bits
    )


def _profile(base: Profile, draw: st.DrawFn) -> Profile:
    cores = Cores(
        packing=base.cores.packing if base.cores is not None else None,
        neurons_per_core=draw(st.integers(1, 60)),
        synapse_words=draw(st.sampled_from((30, 100, 400, 4000))),
        axons_in=draw(st.sampled_from((40, 100, 500, None))),
        axons_out=draw(st.sampled_from((60, 200, 2000, None))),
        cores_per_chip=draw(st.sampled_from((3, 8, 64))),
        cores_per_tile=draw(st.integers(1, 4)),
        tiles_high=draw(st.sampled_from((None, 2, 3))),
        chips_max=draw(st.sampled_from((2, 10**6))),
    )
    return replace(base, cores=cores)


PROFILES = st.composite(lambda draw: _profile(draw(st.sampled_from((LOIHI1, LOIHI2))), draw))


def test_no_limit_is_exceeded_and_every_number_is_true() -> None:
    outcomes = {"placed": 0, "refused": 0}

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(_graphs(), PROFILES())
    def check(graph: ProcessGraph, profile: Profile) -> None:
        try:
            made = place(graph, profile, check_messages=False)
        except DoesNotFitError as error:
            outcomes["refused"] += 1
            assert "\n" not in str(error) and "cores." in str(error)
            return
        outcomes["placed"] += 1
        check_placement(graph, profile, made)
        assert place(graph, profile, check_messages=False) == made

    check()
    assert min(outcomes.values()) >= 10


@pytest.mark.parametrize(("inputs", "units"), [(256, 454), (784, 142), (1024, 118), (4096, 30)])
def test_how_many_dense_neurons_a_loihi1_core_holds(inputs: int, units: int) -> None:
    def cores(size: int) -> int:
        graph = layered_graph((inputs,), ("out", None, dense(INPUT, size, inputs)))
        return len(place(graph, LOIHI1, check_messages=False).cores)

    assert (cores(units), cores(units + 1)) == (1, 2)


def test_words_of_a_list() -> None:
    for weights, bits in product(range(200), range(1, 21)):
        blocks = [min(64, weights - start) for start in range(0, weights, 64)]
        assert list_words(weights, bits) == sum(-(-(count * bits + 10) // 64) for count in blocks)


def test_a_core_of_many_positions_keeps_its_lists_more_than_once() -> None:
    graph = layered_graph(
        (2, 21, 23), ("conv", None, conv(INPUT, 2, 2, padding=(1, 1))), ("out", None, conv("conv", 1, 2))
    )
    made = place(graph, LOIHI1, check_messages=False)
    check_placement(graph, LOIHI1, made)
    assert made.layers[0].largest.neurons > 512
    few = layered_graph(
        (2, 12, 12), ("conv", None, conv(INPUT, 2, 2, padding=(1, 1))), ("out", None, conv("conv", 1, 2))
    )
    assert (
        made.layers[0].largest.synapse_words > place(few, LOIHI1, check_messages=False).layers[0].largest.synapse_words
    )


def test_long_messages_take_two_slots_of_the_senders_table() -> None:
    def slots(channels: int, side: int) -> int:
        graph = layered_graph(
            (1, side, side), ("a", None, conv(INPUT, channels, 1, 1)), ("b", None, conv("a", 1, channels, 1))
        )
        a, _ = place(graph, LOIHI1, check_messages=False).layers
        return sum(core.demand.axons_out for core in a.cores) // (side * side)

    assert (slots(32, 5), slots(33, 5), slots(1, 32), slots(1, 33)) == (1, 2, 1, 2)


def test_bits_as_stored() -> None:
    def bits(*values: int) -> int:
        return stored_weight_bits(np.array(values, np.int32), (8, 6, 5, 4, 3, 2), "x")

    assert bits(-256, 254) == 8 and bits(-256, 128) == 2 and bits(-256, 192) == 3
    assert bits(0, 255) == 8 and bits(-255, 0) == 8 and bits(0, 0) == 2 and bits(0, 192) == 2
    assert bits(-64, 62) == 6 and bits(-128, 126) == 8  # no 7 on Loihi 1
    for low, high in product(range(-16, 17), repeat=2):
        values = (min(low, high), max(low, high))
        step = max((s for s in (1, 2, 4, 8, 16) if all(value % s == 0 for value in values)), default=1)
        codes = [value // step for value in values]
        mixed = codes[0] < 0 < codes[1]
        largest = max(map(abs, codes))
        if mixed:
            holds = [b for b in (2, 3, 4, 5, 6, 8) if -(1 << b - 1) <= codes[0] and codes[1] < 1 << b - 1]
        else:
            holds = [b for b in (2, 3, 4, 5, 6, 8) if largest < 1 << b]
        assert bits(*values) == (holds[0] if any(values) else 2), values
    with pytest.raises(DoesNotFitError, match="layer 'x': weights -256..255 in steps of 1 need 9 bits"):
        bits(-256, 255)


def test_a_table_says_what_a_report_needs() -> None:
    made = place(pilotnet(with_input_neurons=False), LOIHI2)
    row = made.table()[0]
    assert (row["cores"], row["neurons"], row["synapse_words"], row["binding"]) == (
        25,
        (3072, 3168),
        (81, 12000),
        "neurons",
    )
    assert row["words_once"] == 81 and row["replicated_words"] == 24 * 81
    mean, most = made.utilisation()["neurons"]
    assert 0 < mean < most == 3072 / 3168


def test_pixels_that_share_an_entry_may_lie_on_two_cores() -> None:
    pooled = expand_block_kernel(conv("a", 3, 4, 1).weight, (2, 2))
    second = ConvSynapse(source="a", weight=pooled, stride=(2, 2))
    graph = layered_graph(
        (1, 6, 6), ("a", None, conv(INPUT, 4, 1, 1)), ("b", None, second), ("out", None, dense("b", 4, 27))
    )
    assert LOIHI1.cores is not None
    half = replace(LOIHI1, cores=replace(LOIHI1.cores, neurons_per_core=72))
    made = place(graph, half, check_messages=False)
    assert [core.box[2] for core in made.layers[0].cores] == [(0, 3), (3, 6)]
    assert [core.demand.axons_out for core in made.layers[0].cores] == [6, 6]  # three rows of two shared pixels
    check_placement(graph, half, made)
