"""The fake-quantised network: the emulator's spikes where nothing rounds, a float loop's numbers with decay, and its gradients."""

import dataclasses

import numpy as np
import pytest
import small_networks
import torch
from random_graphs import CASES, NUMERICS, GraphCase, build
from torch.nn import functional as F

from hardspike.deploy.emulator import Emulator
from hardspike.deploy.fake_quantised import FakeQuantised
from hardspike.deploy.fold import fold_network
from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    NeuronGroup,
    ProcessGraph,
)
from hardspike.deploy.quantize import quantize_network
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import DataError
from hardspike.snn.surrogate import Activation, Triangular, parse_surrogate, surrogate_gradient

GRADED = [case for case in CASES if case.coding == "graded"]
STATELESS = [case for case in GRADED if not any(case.potential_decays) and set(case.current_decays) == {4096}]
# Slopes that jump where a current is 0 or a deviation is 0: rounding decides.
JUMPS = ("rate-gradient", "pdsg")
MEMORY = [case for case in GRADED if case not in STATELESS]


def _images(graph: ProcessGraph, count: int, seed: int = 5) -> torch.Tensor:
    """Float64, on the input's grid."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *graph.input.shape), generator=generator).double() / 255


@pytest.mark.parametrize("case", STATELESS, ids=lambda case: case.name)
def test_equals_the_emulator_where_nothing_rounds(case: GraphCase) -> None:
    graph = build(case)
    images = _images(graph, 8)
    expected = Emulator(graph)(images)
    assert len(set(expected[:, 0].tolist())) > 2, "logits that never change prove nothing"
    torch.testing.assert_close(FakeQuantised(graph)(images), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(FakeQuantised(graph)(images.float()), expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["soft", "soft strict", "initial", "fire-first", "soft initial fire-first"])
def test_equals_the_emulator_in_every_neuron_form(form: str) -> None:
    for case in STATELESS:
        graph = build(case)
        layers = []
        for layer in graph.layers:
            neurons = layer.neurons
            if neurons.spiking:
                neurons = dataclasses.replace(
                    neurons,
                    reset_by=(neurons.threshold + int("strict" not in form)) if "soft" in form else None,
                    initial=(neurons.threshold // 2) << 6 if "initial" in form else 0,
                    order="fire-first" if "fire-first" in form else "integrate-first",
                )
            layers.append(dataclasses.replace(layer, neurons=neurons))
        graph = dataclasses.replace(graph, layers=tuple(layers))
        images = _images(graph, 8)
        expected = Emulator(graph)(images)
        assert not torch.equal(expected, Emulator(build(case))(images)), "the form changes something"
        torch.testing.assert_close(FakeQuantised(graph)(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("bias", "exponent"), [(-3, 6), (7, 4), (1, 0)])
def test_fires_exactly_when_the_chip_does_on_every_grey_value(bias: int, exponent: int) -> None:
    """Every pixel value, thresholds that potentials hit exactly, a scale that no float divides evenly."""
    weights = np.array([[1], [3], [5], [14]], dtype=np.int32)
    synapse = DenseSynapse(source=INPUT, weight=weights)
    contract = InputContract(shape=(1, 1, 1), coding="graded", message_bits=8)
    images = torch.arange(256).double().reshape(-1, 1, 1, 1) / 255
    for threshold in (9, 20, 70, 255, 1400):
        mantissas = np.array([bias, 2 * bias, bias, 5], dtype=np.int32)
        neurons = NeuronGroup(threshold=threshold, bias=mantissas, bias_exponent=exponent)
        layer = GraphLayer(name="n", shape=(4,), synapses=(synapse,), neurons=neurons, scale=37.3)
        graph = ProcessGraph(input=contract, layers=(layer,), time_steps=7, numerics=NUMERICS, profile="loihi2")
        expected = Emulator(graph)(images)
        assert 0 < float(expected.mean()) < 1
        torch.testing.assert_close(FakeQuantised(graph)(images), expected, rtol=0, atol=1e-12)


def _messages(graph: ProcessGraph, images: torch.Tensor) -> torch.Tensor:
    return torch.cat([images, images.new_ones(len(images), graph.input.constant_channels, *images.shape[2:])], 1) * 255


def _arriving(layer: GraphLayer, sent: dict[str, torch.Tensor]) -> torch.Tensor:
    """Unit weight; layers of one synapse."""
    (synapse,) = layer.synapses
    weight = torch.from_numpy(synapse.weight).double()
    if isinstance(synapse, ConvSynapse):
        geometry = (synapse.stride, synapse.padding, synapse.dilation, synapse.groups)
        return F.conv2d(sent[synapse.source], weight, None, *geometry)
    return sent[synapse.source].flatten(1) @ weight.T


def _bias(layer: GraphLayer) -> torch.Tensor:
    return torch.from_numpy(layer.neurons.bias) * 2.0**layer.neurons.bias_exponent / 64


def _float_loop(graph: ProcessGraph, images: torch.Tensor) -> torch.Tensor:
    """One step after the other, from the formulas."""
    one = graph.numerics.decay_one
    u = {layer.name: torch.zeros(()) for layer in graph.layers}
    v = {layer.name: torch.zeros(()) for layer in graph.layers}
    for _ in range(graph.time_steps):
        sent = {INPUT: _messages(graph, images)}
        for layer in graph.layers:
            name, neurons = layer.name, layer.neurons
            u[name] = u[name] * (one - neurons.current_decay) / one + _arriving(layer, sent)
            potential = v[name] * (one - neurons.potential_decay) / one + u[name] + _bias(layer)
            fired = (potential >= neurons.threshold + 1 / 64) if neurons.spiking else torch.zeros_like(potential).bool()
            v[name], sent[name] = torch.where(fired, 0.0, potential), fired.double()
    output = graph.output
    return v[output.name] / output.scale / graph.time_steps


@pytest.mark.parametrize("case", MEMORY, ids=lambda case: case.name)
def test_decays_are_float_factors(case: GraphCase) -> None:
    """Equal to the loop; near the emulator, which loses less than a unit per step to truncation."""
    graph = build(case)
    forgetting = dataclasses.replace(graph.output.neurons, current_decay=3500, potential_decay=300)
    output = dataclasses.replace(graph.output, neurons=forgetting)
    graph = dataclasses.replace(graph, layers=(*graph.layers[:-1], output))
    images = _images(graph, 8)
    found = FakeQuantised(graph)(images)
    torch.testing.assert_close(found, _float_loop(graph, images), rtol=1e-9, atol=1e-9)
    deployed = Emulator(graph)(images)
    error = (found - deployed).square().mean() / (deployed - deployed.mean(0)).square().mean()
    assert error < 0.05


@pytest.mark.parametrize(
    ("text", "detach_reset"),
    [
        ("triangular:1", False),
        ("triangular:1", True),
        ("exponential:1,2", False),
        ("linear:1", True),
        ("spike-time", False),
        ("backward-rate", True),
        ("rate-gradient", True),
        ("hart:1", True),
        ("pdsg", False),
    ],
)
def test_gradient_is_the_emulators(text: str, detach_reset: bool) -> None:
    """As far as a threshold a thousandth of a unit lower allows."""
    for case in (STATELESS[0], STATELESS[-2], *MEMORY):
        graph = build(case)
        gradients = []
        for network in (
            Emulator(graph, detach_reset=detach_reset),
            FakeQuantised(graph, detach_reset=detach_reset),
        ):
            images = _images(graph, 6).requires_grad_(True)
            with surrogate_gradient(parse_surrogate(text)):
                logits = network(images)
            weights = torch.linspace(-1, 2, logits.numel(), dtype=torch.float64).reshape(logits.shape)
            gradients.append(torch.autograd.grad((logits * weights).sum(), images)[0])
        exact, found = gradients
        assert float(exact.norm()) > 0
        cosine = float((exact * found).sum() / exact.norm() / found.norm())
        if case in MEMORY:  # a few spikes differ
            assert cosine > 0.97
        elif text in JUMPS:
            assert cosine > 0.99
        else:
            torch.testing.assert_close(found, exact, rtol=3e-4, atol=3e-4 * float(exact.abs().max()))


def _loop_without_spikes(graph: ProcessGraph, images: torch.Tensor, kind: str) -> torch.Tensor:
    sent, steps = {INPUT: _messages(graph, images)}, graph.time_steps
    for layer in graph.layers:
        kept = 1 - layer.neurons.current_decay / graph.numerics.decay_one
        # What a constant input has become by step t, on average over the steps.
        gain = sum(kept**k for t in range(steps) for k in range(t + 1)) / steps
        current = _arriving(layer, sent) * gain + _bias(layer)
        above = 1 / 64 if kept or 0 < layer.neurons.potential_decay < graph.numerics.decay_one else 1
        levels = torch.floor(steps * current / (layer.neurons.threshold + above) + 1e-9).clamp(0, steps)
        sent[layer.name] = levels / steps if kind == "clip-floor" else current.relu() / layer.scale
    return current / layer.scale


@pytest.mark.parametrize("kind", ["relu", "clip-floor"])
@pytest.mark.parametrize("case", [STATELESS[0], STATELESS[-2], MEMORY[-1]], ids=lambda case: case.name)
def test_a_substitute_runs_without_spikes_on_the_emulator_too(case: GraphCase, kind: str) -> None:
    graph = build(case)
    images = _images(graph, 6)
    with surrogate_gradient(Activation(kind)):  # type: ignore[arg-type]
        found, deployed = FakeQuantised(graph)(images), Emulator(graph)(images)
    assert torch.equal(found, deployed)
    torch.testing.assert_close(found, _loop_without_spikes(graph, images, kind), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["relu", "clip-floor"])
def test_substitutes_and_their_gradients_are_near_the_float_networks(kind: str) -> None:
    """Up to the rounding of weights, which may move an activation of clip-floor by a level, a sixth here."""
    net = small_networks.build(small_networks.ARCHITECTURES["padded convolution, pool, dense"])
    graph, _ = quantize_network(fold_network(net), load_profile("loihi2"))
    images = small_networks.images(net.architecture, 12).requires_grad_(True)
    with surrogate_gradient(Activation(kind)):  # type: ignore[arg-type]
        expected, found = net(images), Emulator(graph)(images)
    error = ((found - expected).square().mean() / (expected - expected.mean(0)).square().mean()).sqrt().item()
    assert error < {"relu": 0.03, "clip-floor": 0.15}[kind]
    gradients = [torch.autograd.grad(logits[:, 0].sum(), images)[0].flatten() for logits in (expected, found)]
    assert float(F.cosine_similarity(*gradients, dim=0)) > 0.95


def test_images_are_checked() -> None:
    graph = build(STATELESS[0])
    with pytest.raises(DataError, match=r"shape \(1, 2, 5, 7\) does not fit this network"):
        FakeQuantised(graph)(torch.zeros(1, 2, 5, 7))
    with pytest.raises(DataError, match="coding 'binary' takes integers"):
        FakeQuantised(build(CASES[1]))(torch.zeros(1, 2, 7, 5))
    with surrogate_gradient(Triangular()), pytest.raises(DataError, match="NaN"):
        FakeQuantised(graph)(torch.full((1, 2, 7, 5), torch.nan))
