"""Adaptive and time-free surrogates against sums over paths, step by step and forward in time, where ours run backward."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import small_networks
import torch
from numpy.typing import NDArray
from random_graphs import NUMERICS
from torch import Tensor

from hardspike.deploy.emulator import Emulator, EmulatorBackend
from hardspike.deploy.process_graph import DenseSynapse, GraphLayer, InputContract, NeuronGroup, ProcessGraph
from hardspike.snn.adaptive_surrogate import AdaptiveSharpness, PotentialDependent, Shape, SharpnessRun
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import DataError, SettingsError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.neuron import Neuron, fire, plain_torch
from hardspike.snn.surrogate import Surrogate, Triangular, parse_surrogate, surrogate_gradient

Array = NDArray[np.float64]
THRESHOLD = 0.5
SPEC = AdaptiveSharpness(0.41)


def potentials_and_spikes(current: Array, neuron: NeuronSettings) -> tuple[Array, Array]:
    state, potentials, spikes = np.full(current.shape[1:], neuron.initial_potential * THRESHOLD), [], []
    for now in current:
        u = state if neuron.order == "fire-first" else neuron.leak * state + now
        s = (u > THRESHOLD if neuron.strict else u >= THRESHOLD).astype(float)
        soft = neuron.reset == "soft"
        if neuron.order == "fire-first":
            state = neuron.leak * u + now - THRESHOLD * s if soft else neuron.leak * (u * (1 - s)) + now
        else:
            state = u - THRESHOLD * s if soft else u * (1 - s)
        potentials.append(u)
        spikes.append(s)
    return np.stack(potentials), np.stack(spikes)


def along_paths(
    upstream: Array, slope: Array, u: Array, s: Array, threshold: float, neuron: NeuronSettings, leak: float
) -> Array:
    """d sum(upstream * spikes) / d current of one step: its effect on all later potentials, forward in time."""
    gradient = np.zeros_like(u)
    for step in range(len(u)):
        effect = np.zeros_like(u[0])  # d x(t) / d current(step)
        for t in range(len(u)):
            injected = float(t == step)
            by_current = effect if neuron.order == "fire-first" else leak * effect + injected
            by_spike = slope[t] * by_current
            gradient[step] += upstream[t] * by_spike
            reset = 0.0 if neuron.detach_reset else by_spike
            if neuron.order == "integrate-first":
                effect = (
                    by_current - threshold * reset if neuron.reset == "soft" else by_current * (1 - s[t]) - u[t] * reset
                )
            elif neuron.reset == "soft":
                effect = leak * by_current - threshold * reset + injected
            else:
                effect = leak * (by_current * (1 - s[t]) - u[t] * reset) + injected
    return gradient


def pdsg_slope(u: Array, threshold: float) -> Array:
    slope = np.zeros_like(u)
    for t, b in product(range(u.shape[0]), range(u.shape[1])):
        for group in range(u.shape[2]) if u.ndim == 5 else [slice(None)]:
            past = u[: t + 1, b, group]
            sigma = float(np.std(past, ddof=1)) if np.ptp(past) else 0.0
            sigma = sigma if sigma > 0 else 1.0
            z = u[t, b, group] - threshold
            slope[t, b, group] = np.exp(-((z - sigma / 2) ** 2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
    return slope


def rate_factor(current: Array, threshold: float, leak: float) -> Array:
    factor = np.zeros_like(current[0])
    for index in np.ndindex(*factor.shape):
        x = float(np.mean(current[(slice(None), *index)])) / threshold
        if 0 <= x < 1 - leak:
            factor[index] = 0.2 / threshold
        elif 1 - leak <= x <= 2:
            factor[index] = (0.8 + 0.2 * leak) / (1 + leak) / threshold
    return factor


class Moments:
    """M and D, one number at a time."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean, self.spread = np.ones(shape), np.zeros(shape)

    def alpha(self, u: Array, w: float) -> Array:
        alpha = np.zeros_like(u)
        for index in np.ndindex(*u.shape):
            distance = abs(u[index])
            self.mean[index] = 0.9 * self.mean[index] + 0.1 * distance
            self.spread[index] = 0.9 * self.spread[index] + 0.1 * abs(distance - self.mean[index])
            alpha[index] = w / (self.mean[index] + 1.5 * self.spread[index] + 1e-4)
        return alpha


def atan_slope(u: Array, alpha: Array) -> Array:
    return np.asarray(alpha / (2 * (1 + (math.pi / 2 * alpha * u) ** 2)))


DENSITIES: dict[Shape, Callable[[Array, Array], Array]] = {
    "atan": atan_slope,
    "triangular": lambda u, alpha: alpha * np.maximum(0, 1 - alpha * abs(u)),
    "rectangular": lambda u, alpha: alpha / 2 * (abs(u) < 1 / alpha),
    "gaussian": lambda u, alpha: alpha / math.sqrt(2 * math.pi) * np.exp(-((alpha * u) ** 2) / 2),
    "sigmoid": lambda u, alpha: alpha * np.exp(-alpha * u) / (1 + np.exp(-alpha * u)) ** 2,
}


def reference(
    name: str,
    upstream: Array,
    current: Array,
    u: Array,
    s: Array,
    threshold: float,
    neuron: NeuronSettings,
    leak: float,
) -> Array:
    """Gradient with respect to the current, everything in float units; `assg` is the first iteration of a run."""
    if name == "rate-gradient":
        return upstream * rate_factor(current, threshold, leak)
    if name == "hart:0.8":
        total = sum(upstream[t] * np.maximum(0, 0.8 - abs(u[t] - threshold)) / 0.64 for t in range(len(u)))
        return np.stack([np.asarray(total / len(u))] * len(u))
    if name == "pdsg":
        slope = pdsg_slope(u, threshold)
    else:
        w = 2 / math.pi * math.tan(math.pi * 0.41)
        slope = atan_slope(u - threshold, Moments(u.shape).alpha(u - threshold, w))
    return along_paths(upstream, slope, u, s, threshold, neuron, leak)


NAMES = ("assg:0.41", "pdsg", "rate-gradient", "hart:0.8")
VARIANTS = [
    NeuronSettings(order=order, reset=reset, detach_reset=detach, leak=leak, strict=strict, initial_potential=start)
    for (strict, start), order, reset, detach, leak in product(
        ((False, 0.0), (True, 0.5)), ("integrate-first", "fire-first"), ("hard", "soft"), (False, True), (1.0, 0.8)
    )
]


def currents(shape: tuple[int, ...], seed: int = 1) -> Array:
    """Random; sample 0 gets none at all, which leaves no spread and the edge of the rate, and sample 1 means beyond its end."""
    values = np.random.default_rng(seed).normal(0.2, 0.6, shape)
    values[:, 0] = 0
    values[:, 1] += 0.7
    return values


def gradient_of(spikes: Tensor, upstream: Array, leaf: Tensor) -> Array:
    (gradient,) = torch.autograd.grad((torch.from_numpy(upstream) * spikes).sum(), leaf)
    return np.asarray(gradient)


def fired(
    current: Tensor, neuron: NeuronSettings, surrogate: Surrogate, layer: object = "n", detach: bool | None = None
) -> Tensor:
    with surrogate_gradient(surrogate, detach):
        return fire(current, torch.tensor(THRESHOLD, dtype=torch.float64), neuron, layer=layer)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 4, 3), (6, 4, 3), (6, 3, 2, 2, 3)], ids=str)
def test_gradient_equals_the_sum_over_paths(name: str, shape: tuple[int, ...]) -> None:
    current = currents(shape)
    upstream = np.random.default_rng(2).normal(size=shape)
    biggest = 0.0
    for neuron in VARIANTS:
        leaf = torch.from_numpy(current).requires_grad_(True)
        spikes = fired(leaf, neuron, parse_surrogate(name))
        u, s = potentials_and_spikes(current, neuron)
        assert np.array_equal(spikes.detach(), s)
        expected = reference(name, upstream, current, u, s, THRESHOLD, neuron, neuron.leak)
        np.testing.assert_allclose(gradient_of(spikes, upstream, leaf), expected, rtol=1e-10, atol=1e-12)
        biggest = max(biggest, float(abs(expected).max()))
    assert biggest > 0


def test_a_static_current_gets_the_sum_over_steps() -> None:
    for name in NAMES:
        leaf = torch.from_numpy(currents((1, 4, 3))).requires_grad_(True)
        threshold = torch.tensor(THRESHOLD, dtype=torch.float64)
        with surrogate_gradient(parse_surrogate(name)):
            static = fire(leaf, threshold, NeuronSettings(), steps=5)
            repeated = fire(leaf.repeat(5, 1, 1), threshold, NeuronSettings())
        upstream = np.random.default_rng(2).normal(size=(5, 4, 3))
        np.testing.assert_allclose(gradient_of(static, upstream, leaf), gradient_of(repeated, upstream, leaf), 1e-10)


@pytest.mark.parametrize("shape", DENSITIES)
def test_a_run_equals_the_moving_averages_written_as_loops(shape: Shape) -> None:
    """Two layers, three iterations with judges in between, then two more for some samples only, and a restart."""
    neuron = NeuronSettings(reset="soft", leak=0.9)
    sharpness = AdaptiveSharpness(0.41, shape)
    run: SharpnessRun = sharpness.begin()
    moments = [Moments((4, 5, 3)), Moments((4, 5, 3))]
    kept = np.array([True, False, True, True, False])

    def iterate(iteration: int, run: SharpnessRun, updated: bool = True) -> None:
        for layer, moment in enumerate(moments):
            current = currents(moment.mean.shape, 10 * iteration + layer)
            leaf = torch.from_numpy(current).requires_grad_(True)
            spikes = fired(leaf, neuron, run, layer)
            with torch.no_grad():
                fired(torch.from_numpy(current + 1), neuron, run, layer)
            fired(torch.from_numpy(current - 1).requires_grad_(True), neuron, run, layer)  # its backward never runs
            u, s = potentials_and_spikes(current, neuron)
            if not updated:
                mean, spread = moment.mean, moment.spread
                alpha = sharpness.mass_width / (mean + 1.5 * spread + 1e-4)
            else:
                alpha = moment.alpha(u - THRESHOLD, sharpness.mass_width)
            slope = DENSITIES[shape](u - THRESHOLD, alpha)
            expected = along_paths(np.ones_like(u), slope, u, s, THRESHOLD, neuron, 0.9)
            np.testing.assert_allclose(gradient_of(spikes, np.ones_like(u), leaf), expected, rtol=1e-9, atol=1e-12)

    iterate(0, run.held(), updated=False)  # the start values
    for iteration in range(3):
        iterate(iteration, run)
    iterate(3, run.held(), updated=False)
    part = run.take(torch.from_numpy(kept))
    whole = [(moment.mean.copy(), moment.spread.copy()) for moment in moments]
    for moment in moments:
        moment.mean, moment.spread = moment.mean[:, kept], moment.spread[:, kept]
    iterate(4, part)
    for moment in moments:
        moment.mean, moment.spread = moment.mean[:, ::-1].copy(), moment.spread[:, ::-1].copy()
    iterate(5, part.take(torch.tensor([2, 1, 0])))  # indices
    for moment, (mean, spread) in zip(moments, whole, strict=True):
        moment.mean, moment.spread = mean, spread
    iterate(6, run)  # unchanged by what was taken from it
    moments[:] = [Moments((4, 2, 3)), Moments((4, 2, 3))]
    iterate(7, run.begin())


@pytest.mark.parametrize("shape", DENSITIES)
def test_the_width_holds_the_mass_that_was_asked_for(shape: Shape) -> None:
    """With M = 1 and D = 0 held, alpha is w / 1.0001: mass 2 a within 1.0001 of the threshold, 1 in all."""
    sharpness = AdaptiveSharpness(0.4, shape)
    for reach, mass in ((1.0001, 0.8), (2e4 if shape == "atan" else 40.0, 1.0)):
        u = reach * torch.linspace(-1, 1, 100_001, dtype=torch.float64) ** 3  # dense where the slope is steep
        slope = sharpness.begin().held().of("n").derivative(u, 0)
        assert float(torch.trapezoid(slope, u)) == pytest.approx(mass, rel=1e-4)


def _gradients(model: Callable[[Tensor], Tensor], images: Tensor, surrogate: Surrogate) -> Tensor:
    leaf = images.clone().requires_grad_(True)
    with surrogate_gradient(surrogate):
        losses = model(leaf).logsumexp(1)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    return gradient


@cache
def _network() -> tuple[SpikingNetwork, Tensor]:
    architecture = small_networks.ARCHITECTURES["padded convolution, pool, dense"]
    network = small_networks.build(architecture)
    return network.double(), small_networks.images(architecture, 4).double()


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_of_a_network_has_its_own_gradient_whatever_its_company(name: str) -> None:
    """Also along a run that some samples leave, and with every layer in it."""
    network, images = _network()
    steps = [images, (images * 0.9 + 0.05), images.flip(3)]
    surrogate = parse_surrogate(name)
    company = surrogate.begin() if isinstance(surrogate, AdaptiveSharpness) else surrogate
    alone = surrogate.begin() if isinstance(surrogate, AdaptiveSharpness) else surrogate
    stays = torch.tensor([False, True, False, True])
    for step, batch in enumerate(steps):
        if step == 2:
            batch = batch[stays]
            company = company.take(stays) if isinstance(company, SharpnessRun) else company
        together = _gradients(network, batch, company)
        single = _gradients(network, batch[-1:], alone)
        with torch.no_grad(), surrogate_gradient(company):
            network(images)  # a judge, of another batch size
        assert float(single.abs().max()) > 0
        torch.testing.assert_close(together[-1:], single, rtol=1e-9, atol=1e-12)


def test_potential_dependent_keeps_its_digits_where_potentials_are_large() -> None:
    values = np.random.default_rng(0).normal(size=(5, 2, 3, 4, 4))
    deviations = PotentialDependent().deviations(torch.from_numpy(values + 3e7))
    for t in range(5):
        np.testing.assert_allclose(deviations[t, ..., 0, 0], np.std(values[: t + 1], axis=(0, 3, 4), ddof=1), rtol=1e-6)


def _deployed(neurons: dict[str, Any], steps: int = 5) -> ProcessGraph:
    """Two dense layers of spikes; scales are no powers of two."""
    rng = np.random.default_rng(3)
    layers = []
    for name, source, shape, threshold, scale in (("a", INPUT, (6, 4), 9000, 1.7e4), ("b", "a", (5, 6), 60, 90.0)):
        weight = 2 * rng.integers(-30, 50, size=shape).astype(np.int32)
        group = NeuronGroup(threshold=threshold, bias=np.full(shape[:1], threshold // 8, dtype=np.int32), **neurons)
        synapse = DenseSynapse(source=source, weight=weight)
        layers.append(GraphLayer(name=name, shape=shape[:1], synapses=(synapse,), neurons=group, scale=scale))
    contract = InputContract(shape=(4, 1, 1), coding="graded", message_bits=8)
    return ProcessGraph(input=contract, layers=tuple(layers), time_steps=steps, numerics=NUMERICS, profile="loihi2")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(
    "neurons", [{}, {"potential_decay": 700}, {"potential_decay": 300, "current_decay": 1500}], ids=str
)
def test_gradient_through_the_emulator(name: str, detach: bool, neurons: dict[str, Any]) -> None:
    """The reference on the chip's own potentials in float units; the second of two iterations where there are runs."""
    graph = _deployed(neurons)
    messages = torch.from_numpy(np.random.default_rng(4).integers(0, 256, size=(3, 4, 1, 1)))
    leaf = (messages.double() / 255).requires_grad_(True)
    with surrogate_gradient(parse_surrogate(name), detach):
        logits = Emulator(graph)(leaf)
    weights = torch.linspace(-1, 2, logits.numel(), dtype=torch.float64).view_as(logits)
    (found,) = torch.autograd.grad(logits, leaf, weights)

    states = EmulatorBackend().run(graph, messages, keep_states=True).states
    assert states is not None
    arriving = np.stack([weights.numpy() / 5] * 5)
    for layer in reversed(graph.layers):
        unit = layer.scale * (1 << NUMERICS.state_shift)
        leak = 1 - layer.neurons.potential_decay / 4096
        u, current = (np.asarray(kept[layer.name]) / unit for kept in (states.potentials, states.currents))
        current = current + layer.neurons.bias * 2**layer.neurons.bias_exponent / unit
        s = np.asarray(states.spikes[layer.name]).astype(float)
        threshold = ((layer.neurons.threshold + 1) << NUMERICS.state_shift) / unit
        assert 0 < s.mean() < 1
        neuron = NeuronSettings(detach_reset=detach)
        by_current = reference(name, arriving, current, u, s, threshold, neuron, leak)
        kept = 1 - layer.neurons.current_decay / 4096
        filtered = np.stack(
            [sum(kept ** (t - step) * by_current[t] for t in range(step, 5)) for step in range(5)]  # type: ignore[misc]
        )
        arriving = filtered @ layer.synapses[0].weight / layer.scale
    expected = 255 * arriving.sum(0)
    assert abs(expected).max() > 0
    np.testing.assert_allclose(found[..., 0, 0], expected, rtol=1e-5, atol=1e-5 * abs(expected).max())


def test_the_emulators_layers_have_runs_of_their_own() -> None:
    graph = _deployed({})
    images = torch.rand(3, 4, 1, 1, generator=torch.Generator().manual_seed(0))
    emulator, run = Emulator(graph), SPEC.begin()
    first = _gradients(emulator, images, run)
    torch.testing.assert_close(first, _gradients(emulator, images, SPEC))
    second = _gradients(emulator, images, run)
    assert not torch.allclose(first, second)
    part = run.take(torch.tensor([2]))
    torch.testing.assert_close(_gradients(emulator, images[2:], part), _gradients(emulator, images, run)[2:])


IMPLEMENTATIONS: dict[str, Callable[[], AbstractContextManager[None]]] = {"fused": nullcontext, "plain": plain_torch}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("carries_on", [False, True])
def test_the_block_says_whether_the_reset_is_differentiated(implementation: str, carries_on: bool) -> None:
    current = torch.from_numpy(currents((5, 4, 3)))
    upstream = np.random.default_rng(2).normal(size=(5, 4, 3))
    found: dict[tuple[bool, bool | None], Array] = {}
    for own, said in product((False, True), (None, False, True)):
        leaf = current.clone().requires_grad_(True)
        neuron = Neuron(NeuronSettings(detach_reset=own), THRESHOLD).double()
        with surrogate_gradient(Triangular(1.0), said), IMPLEMENTATIONS[implementation]():
            spikes = neuron.continued(leaf, 5) if carries_on else neuron(leaf, 5)
        found[own, said] = gradient_of(spikes, upstream, leaf)  # outside of the block
    for own in (False, True):
        np.testing.assert_array_equal(found[own, None], found[own, own])
        np.testing.assert_array_equal(found[own, not own], found[not own, None])
    assert abs(found[False, False] - found[True, True]).max() > 0.01


def test_an_inner_block_replaces_what_the_outer_says_of_the_reset() -> None:
    leaf = torch.from_numpy(currents((5, 4, 3))).requires_grad_(True)
    attached = gradient_of(fired(leaf, NeuronSettings(), Triangular(1.0)), np.ones((5, 4, 3)), leaf)
    with surrogate_gradient(Triangular(1.0), True):
        inner = gradient_of(fired(leaf, NeuronSettings(), Triangular(1.0)), np.ones((5, 4, 3)), leaf)
    np.testing.assert_array_equal(inner, attached)


@pytest.mark.parametrize("own", [False, True])
def test_the_block_says_it_to_the_emulator_as_well(own: bool) -> None:
    graph = _deployed({})
    images = torch.rand(3, 4, 1, 1, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    gradients = {}
    for built, said in ((own, None), (own, not own), (not own, None)):
        with surrogate_gradient(Triangular(1.0), said):
            logits = Emulator(graph, detach_reset=built)(images)
        (gradients[built, said],) = torch.autograd.grad(logits.square().sum(), images)
    assert torch.equal(gradients[own, not own], gradients[not own, None])
    assert not torch.allclose(gradients[own, None], gradients[own, not own])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("assg:0.5", r"AdaptiveSharpness: a = 0.5 is not allowed; choose a value in \(0, 0.5\)"),
        ("assg:0", "a = 0.0 is not allowed"),
        ("assg:0.4,1", "2 parameters, more than 'assg' takes"),
        ("hart:0", "TimeAveraged: width = 0.0 is not allowed"),
        ("pdsg:1", "1 parameters, more than 'pdsg' takes"),
    ],
)
def test_bad_surrogates_are_one_line_errors(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_surrogate(text)


def test_names() -> None:
    assert parse_surrogate("assg") == AdaptiveSharpness(0.425, "atan")
    assert [parse_surrogate(f"assg-{shape}:0.3") for shape in DENSITIES if shape != "atan"] == [
        AdaptiveSharpness(0.3, shape) for shape in DENSITIES if shape != "atan"
    ]
    with pytest.raises(SettingsError, match="shape = 'round' is not allowed"):
        AdaptiveSharpness(shape="round")  # type: ignore[arg-type]


def test_a_run_refuses_another_batch_and_layers_without_a_name() -> None:
    run = SPEC.begin()
    for count in (4, 2):
        leaf = torch.from_numpy(currents((5, count, 3))).requires_grad_(True)
        spikes = fired(leaf, NeuronSettings(), run)
        if count == 4:
            spikes.sum().backward()
    with pytest.raises(DataError, match=r"a run on \(4, 3\) .batch, neurons. does not fit \(2, 3\); use take"):
        spikes.sum().backward()
    with pytest.raises(SettingsError, match="layer = None is not allowed in a run"):
        fired(leaf, NeuronSettings(), run, layer=None)
