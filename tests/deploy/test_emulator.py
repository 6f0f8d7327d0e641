"""Equality 2: emulator = pure-Python-integer oracle, and what the emulator's gradients are."""

import dataclasses
import itertools

import numpy as np
import pytest
import small_networks
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import CASES, NUMERICS, GraphCase, build, random_messages

from hardspike.deploy.emulator import Emulator, EmulatorBackend
from hardspike.deploy.fold import FoldedLayer, FoldedNetwork, FoldedSynapse, fold_network
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.oracle import Oracle, decay, update
from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    NeuronGroup,
    ProcessGraph,
)
from hardspike.deploy.quantize import quantize_network
from hardspike.deploy.verify import compare_oracle, saturations
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import INPUT, ImageInput
from hardspike.snn.errors import DataError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.surrogate import parse_surrogate, surrogate_gradient


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equals_the_oracle_on_random_graphs(case: GraphCase) -> None:
    graph = build(case)
    messages = random_messages(case, graph, 4)
    trace = EmulatorBackend(batch_size=3).run(graph, messages, keep_states=True)
    row = compare_oracle(graph, messages, trace)
    assert row.compared > 500
    assert (row.differing, row.first) == (0, "")
    assert all(int(counts.sum()) for counts in trace.spikes.values()), "a silent layer proves nothing"


def test_comparison_with_the_oracle_finds_one_wrong_spike() -> None:
    graph = build(CASES[0])
    messages = random_messages(CASES[0], graph, 2)
    trace = EmulatorBackend().run(graph, messages, keep_states=True)
    assert trace.states is not None
    trace.states.spikes["conv1"][3, 1, 2, 4, 1] ^= True
    row = compare_oracle(graph, messages, trace)
    assert row.differing == 1
    assert row.first.startswith("spike of conv1 step 4, sample 0, neuron (2, 4, 1)")  # sample within its own comparison


def _one_neuron(neurons: NeuronGroup, weight: int, steps: int) -> ProcessGraph:
    synapse = DenseSynapse(source=INPUT, weight=np.array([[weight], [-weight]], dtype=np.int32))
    layer = GraphLayer(name="n", shape=(2,), synapses=(synapse,), neurons=neurons)
    contract = InputContract(shape=(1,), coding="graded", message_bits=16)
    return ProcessGraph(input=contract, layers=(layer,), time_steps=steps, numerics=NUMERICS, profile="loihi2")


@settings(max_examples=150, deadline=None)
@given(
    message=st.integers(0, 65535),
    weight=st.sampled_from([2, 64, 128]),
    threshold=st.sampled_from([0, 1, 5000, 131071]),
    current_decay=st.sampled_from([0, 1, 2048, 4095, 4096]),
    potential_decay=st.sampled_from([0, 1, 128, 4095, 4096]),
    bias=st.tuples(st.integers(-4096, 4095), st.integers(0, 7)),
    spiking=st.booleans(),
)
def test_extremes_wrap_saturate_and_round_as_the_oracle(
    message: int,
    weight: int,
    threshold: int,
    current_decay: int,
    potential_decay: int,
    bias: tuple[int, int],
    spiking: bool,
) -> None:
    neurons = NeuronGroup(
        threshold=threshold,
        bias=np.full(2, bias[0], dtype=np.int32),
        bias_exponent=bias[1],
        current_decay=current_decay,
        potential_decay=potential_decay,
        spiking=spiking,
    )
    graph = _one_neuron(neurons, weight, steps=7)
    trace = EmulatorBackend().run(graph, torch.tensor([[message]]), keep_states=True)
    assert trace.states is not None
    expected = Oracle(graph).run([[message]] * 7)
    for step in range(7):
        assert trace.states.currents["n"][step, 0].tolist() == expected.currents["n"][step]
        assert trace.states.potentials["n"][step, 0].tolist() == expected.potentials["n"][step]
        assert trace.states.spikes["n"][step, 0].tolist() == [bool(s) for s in expected.spikes["n"][step]]


def test_oracle_decay_rounds_towards_zero_exhaustively() -> None:
    """Against exact fractions: every state of a 6-bit chip with every 4-bit decay."""
    small = dataclasses.replace(NUMERICS, decay_bits=4, state_bits=6)
    for value, amount in itertools.product(range(-31, 32), range(17)):
        exact = value * (16 - amount) / 16
        assert decay(value, amount, small) == int(exact)


def test_oracle_wraps_once_at_the_edge() -> None:
    """+2^23 stays, one more wraps; -2^23 becomes +2^23 (lava-nc: u <= -2^23 wraps)."""
    neurons = NeuronGroup(threshold=131071, bias=np.zeros(1, dtype=np.int32))
    half = 1 << 23
    for accumulated, current in (
        (half >> 6, half),
        ((half >> 6) + 1, 64 - half),
        (-(half >> 6), half),
        (1 - (half >> 6), 64 - half),
    ):
        assert update(accumulated, 0, 0, 0, neurons, NUMERICS)[0] == current


def _deployed(name: str) -> tuple[ProcessGraph, torch.nn.Module]:
    net = small_networks.build(small_networks.ARCHITECTURES[name])
    graph, _ = quantize_network(fold_network(net), load_profile("loihi2"))
    return graph, net


@pytest.mark.parametrize(
    "text", ["triangular:1", "triangular:0.3", "exponential:1,2", "rectangular:0.7", "straight-through"]
)
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("form", ["plain", "soft", "fire-first", "soft, fire-first"])
def test_gradient_equals_the_float_network_with_the_same_numbers(text: str, detach_reset: bool, form: str) -> None:
    """Widths are float units. Scales are powers of two, so the float network holds exactly the integer one's numbers."""
    graph = build(CASES[0])
    graph = dataclasses.replace(
        graph,
        layers=tuple(_formed(layer, form, 2.0 ** (9 - 2 * index)) for index, layer in enumerate(graph.layers)),
    )
    messages = random_messages(CASES[0], graph, 6).double()
    found = (messages / 255).requires_grad_(True)
    floating = messages.clone().requires_grad_(True)
    emulator = Emulator(graph, detach_reset=detach_reset)
    with surrogate_gradient(parse_surrogate(text)):
        deployed, (_, logits) = emulator(found), _as_float(graph, detach_reset).run(floating)
    torch.testing.assert_close(deployed, logits, rtol=1e-12, atol=1e-12)
    upstream = torch.linspace(-1, 2, logits.numel(), dtype=torch.float64).reshape(logits.shape)
    (grad,) = torch.autograd.grad(deployed, found, upstream)
    (expected,) = torch.autograd.grad(logits, floating, upstream)
    assert float(expected.abs().max()) > 0
    torch.testing.assert_close(grad / 255, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


def _formed(layer: GraphLayer, form: str, scale: float) -> GraphLayer:
    neurons = layer.neurons
    if neurons.spiking and "soft" in form:
        neurons = dataclasses.replace(neurons, reset_by=neurons.threshold + 1)
    if neurons.spiking and "fire-first" in form:
        neurons = dataclasses.replace(neurons, order="fire-first")
    return dataclasses.replace(layer, neurons=neurons, scale=scale)


def _as_float(graph: ProcessGraph, detach_reset: bool) -> FoldedNetwork:
    """The graph's integers divided by its scales; the input is messages, not images."""
    layers = []
    for layer in graph.layers:
        (synapse,) = layer.synapses
        geometry = {"padding": synapse.padding} if isinstance(synapse, ConvSynapse) else {}
        bias = torch.from_numpy(layer.neurons.bias).double() / layer.scale
        layers.append(
            FoldedLayer(
                name=layer.name,
                shape=layer.shape,
                synapses=(
                    FoldedSynapse(
                        source=synapse.source,
                        weight=torch.from_numpy(synapse.weight).double() / layer.scale,
                        **geometry,
                    ),
                ),
                bias=bias,
                uniform_bias=bias.flatten(),
                neuron=_settings(layer.neurons, detach_reset) if layer.neurons.spiking else None,
                threshold=(layer.neurons.threshold + 1) / layer.scale,
            )
        )
    channels, height, width = graph.input.shape
    image = ImageInput(shape=(channels, height, width), mean=(0.0,) * channels, std=(1.0,) * channels)
    return FoldedNetwork(image.shape, tuple(layers), graph.time_steps, image)


def _settings(neurons: NeuronGroup, detach_reset: bool) -> NeuronSettings:
    reset = "hard" if neurons.reset_by is None else "soft"
    return NeuronSettings(detach_reset=detach_reset, reset=reset, order=neurons.order)


def test_saturation_is_counted_where_it_can_change_a_spike() -> None:
    """Neurons sink by 2^19 a step and reach the limit at the sixteenth: steady behind a graded input, of consequence behind spikes."""
    neurons = NeuronGroup(threshold=131071, bias=np.array([-4096, 0], dtype=np.int32), bias_exponent=7)
    graph = _one_neuron(neurons, 2, steps=20)
    (first,) = graph.layers
    second = GraphLayer(
        name="m",
        shape=(1,),
        synapses=(DenseSynapse(source="n", weight=np.ones((1, 2), dtype=np.int32)),),
        neurons=_bias(-4096),
    )
    trace = EmulatorBackend().run(
        dataclasses.replace(graph, layers=(first, second)), torch.tensor([[0]]), keep_states=True
    )
    assert trace.states is not None
    at_limit = trace.states.potentials["m"] == -NUMERICS.state_max
    assert saturations(trace.states, dataclasses.replace(graph, layers=(first, second))) == (int(at_limit.sum()), 20)
    assert int(at_limit.sum()) == 5 and int((trace.states.potentials["n"] == -NUMERICS.state_max).sum()) == 5


def _bias(mantissa: int) -> NeuronGroup:
    return NeuronGroup(threshold=131071, bias=np.array([mantissa], dtype=np.int32), bias_exponent=7)


def test_forward_gives_the_backends_output_as_logits() -> None:
    graph, _ = _deployed("padded convolution, pool, dense")
    images = small_networks.images(small_networks.ARCHITECTURES["padded convolution, pool, dense"], 5).float()
    emulator = Emulator(graph)
    trace = EmulatorBackend().run(graph, encode_images(images, graph))
    torch.testing.assert_close(emulator(images), (trace.output / emulator.logit_unit).float(), rtol=0, atol=0)


def test_block_kernels_change_nothing() -> None:
    """A pooled kernel is run as block sum and small kernel; an odd image with padding must not be."""
    rng = np.random.default_rng(3)
    small = 2 * rng.integers(-30, 30, size=(3, 2, 3, 3)).astype(np.int32)
    weight = np.repeat(np.repeat(small, 2, axis=2), 2, axis=3)
    for height, blocked in ((8, True), (9, False)):
        synapse = ConvSynapse(source=INPUT, weight=weight, stride=(2, 2), padding=(2, 2))
        shape = synapse.output_shape((2, height, 6))
        neurons = NeuronGroup(threshold=900, bias=np.zeros((3, 1, 1), dtype=np.int32))
        layer = GraphLayer(name="n", shape=shape, synapses=(synapse,), neurons=neurons)
        contract = InputContract(shape=(2, height, 6), coding="binary", message_bits=1)
        graph = ProcessGraph(input=contract, layers=(layer,), time_steps=5, numerics=NUMERICS, profile="loihi2")
        assert Emulator(graph).synapses["n"][0].block == (2 if blocked else 1, 2)  # type: ignore[index, union-attr]
        messages = torch.from_numpy(rng.integers(0, 2, size=(5, 2, 2, height, 6)))
        trace = EmulatorBackend().run(graph, messages, keep_states=True)
        assert compare_oracle(graph, messages, trace).differing == 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((1, 2, 8, 6), torch.nan), "96 values are NaN or infinite"),
        (torch.zeros(1, 2, 6, 8), r"shape \(1, 2, 6, 8\) does not fit this network; it takes \(batch, \(2, 8, 6\)\)"),
        (torch.full((1, 2, 8, 6), 1.5), "values 1.5..1.5 are not allowed; scale them"),
        (torch.zeros(2, 8, 6), r"use \(count, channels, height, width\)"),
    ],
)
def test_bad_images_are_one_line_errors(images: torch.Tensor, message: str) -> None:
    graph, _ = _deployed("padded convolution, pool, dense")
    with pytest.raises(DataError, match=message):
        Emulator(graph)(images)
    with pytest.raises(DataError, match=message):
        encode_images(images, graph)


def test_bad_messages_are_one_line_errors() -> None:
    graph = build(CASES[0])
    with pytest.raises(DataError, match="values 0..256 are outside 0..255"):
        EmulatorBackend().run(graph, torch.arange(70).reshape(1, 2, 7, 5) * 256 // 69)
    with pytest.raises(DataError, match="it takes .batch, 2, 7, 5"):
        EmulatorBackend().run(graph, torch.zeros(1, 2, 5, 7, dtype=torch.int64))
    with pytest.raises(DataError, match="dtype torch.float32 is not allowed"):
        EmulatorBackend().run(graph, torch.zeros(1, 2, 7, 5))
