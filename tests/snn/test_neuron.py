"""The neuron alone: the authors' vectors, and a ten-line reference loop through autograd for every variant."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from typing import Any

import golden_rsc as rsc
import pytest
import torch
from torch import Tensor

from hardspike.snn.errors import DataError, SettingsError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.neuron import Neuron, fire, plain_torch
from hardspike.snn.surrogate import (
    BackwardRate,
    Pointwise,
    StraightThrough,
    Surrogate,
    active_surrogate,
    parse_surrogate,
    surrogate_gradient,
)

FILE = "rsc_neuron_hard_if_T4"
GOLDEN = rsc.arrays(FILE)
NAMES = [key.removeprefix("grad_vth_") for key in GOLDEN if key.startswith("grad_vth_")]


def _surrogate(golden: str) -> Surrogate:
    kind, _, rest = golden.partition("_")
    names = {"pcw": "triangular", "exp": "exponential", "rect": "rectangular", "ste": "straight-through"}
    return parse_surrogate(names[kind] + (":" + rest.replace("_", ",") if rest else ""))


@pytest.mark.parametrize("golden", NAMES)
def test_golden_spikes_and_gradients(golden: str) -> None:
    current = GOLDEN["in_current"].clone().requires_grad_(True)
    threshold = GOLDEN["in_vth"].clone().requires_grad_(True)
    with surrogate_gradient(_surrogate(golden)):
        spikes = fire(current, threshold, NeuronSettings())
    assert torch.equal(spikes, GOLDEN["spikes"])
    (GOLDEN["in_upstream"] * spikes).sum().backward()
    assert current.grad is not None and threshold.grad is not None
    rsc.assert_golden(current.grad, f"grad_cur_{golden}", FILE)
    rsc.assert_golden(threshold.grad, f"grad_vth_{golden}", FILE)


def test_trainable_threshold_is_kept_above_its_floor() -> None:
    neuron = Neuron(NeuronSettings(), threshold=0.01).double()
    neuron.threshold.requires_grad_(True)
    assert torch.equal(neuron(GOLDEN["in_current"], 4), GOLDEN["clamp_spikes"])
    rsc.assert_golden(neuron.threshold, "clamp_vth_after", FILE, relative=1e-6)  # stored from single precision 0.03


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, fired: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return fired.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] * ctx.saved_tensors[0], None, None


# Derivative of the spike by z = u - threshold, by m = u / threshold - 1, or from the steps since the last spike.
BY_Z: dict[str, Callable[[Tensor], Tensor]] = {
    "triangular:0.8": lambda z: torch.relu(0.8 - z.abs()) / 0.64,
    "exponential:1,2": lambda z: torch.exp(-2 * z.abs()),
    "rectangular:0.6": lambda z: (z.abs() < 0.3).to(z.dtype) / 0.6,
    "straight-through": torch.ones_like,
}
BY_M: dict[str, Callable[[Tensor], Tensor]] = {
    "linear:0.4": lambda m: 0.4 * torch.relu(1 - m.abs()),
    "normalised-exponential:0.5,3": lambda m: 0.5 * torch.exp(-3 * m.abs()),
}
BY_TIME: dict[str, Callable[[Tensor], Tensor]] = {"spike-time:0.3,0.1": lambda steps: 0.3 * torch.exp(-0.1 * steps)}
SLOPES = BY_Z | BY_M | BY_TIME


def reference(current_TB: Tensor, threshold: Tensor, leak: Tensor, neuron: NeuronSettings, surrogate: str) -> Tensor:
    """The definition, one autograd node per operation."""
    state, spikes = neuron.initial_potential * threshold * torch.ones_like(current_TB[0]), []
    since = torch.full_like(current_TB[0], float("inf"))
    for current in current_TB:
        u = state if neuron.order == "fire-first" else leak * state + current
        fired = (u > threshold if neuron.strict else u >= threshold).to(u.dtype)
        z, since = u - threshold if surrogate in BY_Z else u / threshold - 1, since + 1
        spike: Tensor = _Spike.apply(z, fired, SLOPES[surrogate](since if surrogate in BY_TIME else z.detach()))
        reset, since = spike.detach() if neuron.detach_reset else spike, torch.where(fired > 0, 0.0, since)
        if neuron.order == "fire-first":
            state = (
                leak * u + current - threshold * reset if neuron.reset == "soft" else leak * (u * (1 - reset)) + current
            )
        else:
            state = u - threshold * reset if neuron.reset == "soft" else u * (1 - reset)
        spikes.append(spike)
    return torch.stack(spikes)


IMPLEMENTATIONS: dict[str, Callable[[], AbstractContextManager[None]]] = {"fused": nullcontext, "plain": plain_torch}
VARIANTS = [
    NeuronSettings(order=order, reset=reset, strict=strict, detach_reset=detach, leak=leak, initial_potential=start)
    for order, reset, strict, detach, leak, start in product(
        ("integrate-first", "fire-first"), ("hard", "soft"), (False, True), (False, True), (1.0, 0.9), (0.0, 0.5)
    )
]


def _currents(shape: tuple[int, ...]) -> Tensor:
    """Random; the first two columns are multiples of the threshold 0.5 and of its half, which reach it exactly."""
    current = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    current[..., 0] = 0.5
    current[..., 1] = 0.25
    return current


def _results(spikes: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    upstream = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(2), dtype=spikes.dtype)
    return [spikes.detach(), *torch.autograd.grad((upstream * spikes).sum(), leaves)]


def _leaves(current: Tensor, neuron: NeuronSettings) -> list[Tensor]:
    scalars = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.5, neuron.leak)]
    return [current.clone().requires_grad_(True), *scalars]


@pytest.mark.parametrize("surrogate", SLOPES)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_variant_equals_the_reference_loop(surrogate: str, implementation: str) -> None:
    steps = 7
    for neuron, is_static in product(VARIANTS, (False, True)):
        values = _currents((1 if is_static else steps, 3, 6))
        leaves = _leaves(values, neuron)
        wanted = _results(reference(leaves[0].expand(steps, -1, -1), leaves[1], leaves[2], neuron, surrogate), leaves)
        leaves = _leaves(values, neuron)
        with surrogate_gradient(parse_surrogate(surrogate)), IMPLEMENTATIONS[implementation]():
            spikes = fire(leaves[0], leaves[1], neuron, leak=leaves[2], steps=steps)
        found = _results(spikes, leaves)
        assert torch.equal(found[0], wanted[0]), neuron
        for name, ours, theirs in zip(("current", "threshold", "leak"), found[1:], wanted[1:], strict=True):
            scale = max(1.0, float(theirs.abs().max()))
            assert float((ours - theirs).abs().max()) <= 1e-10 * scale, (name, neuron, is_static)


def test_variants_differ_where_they_should() -> None:
    """The test above would not see a setting that the reference and ours both ignore."""
    spikes = set()
    # With a leak, few potentials reach the threshold exactly.
    variants = [neuron for neuron in VARIANTS if not neuron.detach_reset and (neuron.leak == 1 or not neuron.strict)]
    for neuron in variants:
        found = fire(_currents((7, 3, 6)), torch.tensor(0.5, dtype=torch.float64), neuron)
        spikes.add(tuple(found.flatten().tolist()))
    assert len(spikes) == len(variants)


def test_backward_rate_passes_the_gradient_where_a_neuron_fired() -> None:
    current = torch.tensor([[[0.6, 0.2, -1.0]], [[0.0, 0.2, 0.4]]], dtype=torch.float64, requires_grad=True)
    threshold = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    with surrogate_gradient(BackwardRate()):
        spikes = fire(current, threshold, NeuronSettings())
    upstream = torch.tensor([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]], dtype=torch.float64)
    by_current, by_threshold = torch.autograd.grad((upstream * spikes).sum(), [current, threshold], allow_unused=True)
    assert by_current.tolist() == [[[1.0, 0.0, 0.0]], [[4.0, 0.0, 0.0]]] and by_threshold is None


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("current", [0.125, 0.1875, 0.25, 0.375, 0.625, 0.75, 1.0])
def test_constant_input_spike_counts(current: float, implementation: str) -> None:
    """T steps of c <= threshold: floor(T c / threshold) with soft reset, floor(T / ceil(threshold / c)) with hard."""
    threshold = torch.tensor(1.0, dtype=torch.float64)
    for steps in (1, 4, 16, 37):
        drive = torch.full((1, 1), current, dtype=torch.float64)[None]
        with IMPLEMENTATIONS[implementation]():
            soft = int(fire(drive, threshold, NeuronSettings(reset="soft"), steps=steps).sum())
            hard = int(fire(drive, threshold, NeuronSettings(reset="hard"), steps=steps).sum())
        assert (soft, hard) == (math.floor(steps * current), steps // math.ceil(1 / current))


@pytest.mark.parametrize("leak", [0.99, 0.95, 0.9, 0.75])
@pytest.mark.parametrize("ratio", [2.0, 3.0, 5.0])  # threshold over constant input
def test_constant_input_of_a_leaky_neuron_fires_as_the_closed_formula_says(leak: float, ratio: float) -> None:
    """rate = log(leak) / log(ratio leak - (ratio - 1)) is 1 / n with V_n = threshold (ECCV 2020, eq. 7); never below its range."""
    spikes = fire(
        torch.ones(200, 1, dtype=torch.float64), torch.tensor(ratio, dtype=torch.float64), NeuronSettings(leak=leak)
    )
    fired = spikes.flatten().nonzero().flatten()
    if ratio * leak <= ratio - 1:
        assert not len(fired)
        return
    steps = math.ceil(math.log(ratio * leak - (ratio - 1)) / math.log(leak))
    assert int(fired[0]) + 1 == steps
    assert set(fired.diff().tolist()) == {steps}  # hard reset: every period is the first one again


def test_carrying_on_equals_one_long_run() -> None:
    """Two passes of 3 and 4 steps leave the spikes of one pass of 7; the carried potential is no share of the threshold."""
    current = _currents((7, 3, 6))
    neuron = Neuron(NeuronSettings(leak=0.9, reset="soft", initial_potential=0.5), threshold=0.5).double()
    whole = neuron(current, 7)
    parts = [neuron.continued(current[:3], 3), neuron.continued(current[3:], 4)]
    assert torch.equal(torch.cat(parts), whole)

    neuron.threshold.requires_grad_(True)
    carried = neuron.carried
    assert carried is not None
    spikes = neuron.continued(current, 7)
    (by_threshold,) = torch.autograd.grad(spikes.sum(), [neuron.threshold])
    step = current.clone()
    step[0] += neuron.leak * carried  # the same run from rest
    rest = Neuron(NeuronSettings(leak=0.9, reset="soft"), threshold=0.5).double()
    rest.threshold.requires_grad_(True)
    assert torch.equal(rest(step, 7), spikes)
    (wanted,) = torch.autograd.grad(rest(step, 7).sum(), [rest.threshold])
    assert float(by_threshold) == pytest.approx(float(wanted), rel=1e-10)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_misuse_is_refused_in_one_line(implementation: str) -> None:
    current = _currents((3, 2, 4)).requires_grad_(True)
    threshold = torch.tensor(0.5, dtype=torch.float64)
    with IMPLEMENTATIONS[implementation]():
        with pytest.raises(DataError, match="3 steps of input current do not fit 8 timesteps"):
            fire(current, threshold, NeuronSettings(), steps=8)
        spikes = fire(current, threshold, NeuronSettings())
        with pytest.raises(SettingsError, match="no derivative of its own"):
            torch.autograd.grad(spikes.sum(), current, create_graph=True)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"leak = 0 is not allowed; choose a value in \(0, 1\]"):
        NeuronSettings(leak=0)
    with pytest.raises(SettingsError, match="reset = 'sideways' is not allowed"):
        NeuronSettings(reset="sideways")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("triangle", "surrogate 'triangle' is unknown; did you mean 'triangular'"),
        ("triangular:x", "'x' is not a list of numbers"),
        ("triangular:1,2", "more than 'triangular' takes"),
        ("rectangular:-1", "width = -1.0 is not allowed"),
    ],
)
def test_bad_surrogates_are_one_line_errors(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_surrogate(text)


@pytest.mark.parametrize(
    ("text", "area"),
    [
        ("triangular:0.5", 1.0),
        ("triangular:3", 1.0),
        ("rectangular:2", 1.0),
        ("exponential:0.3,2", 0.3),  # 2 dampening / sharpness
        ("linear:0.3", 0.3),
        ("normalised-exponential:0.6,2", 0.6),
    ],
)
def test_surrogate_integrals(text: str, area: float) -> None:
    surrogate = parse_surrogate(text)
    assert isinstance(surrogate, Pointwise)
    z = torch.linspace(-40, 40, 800_001, dtype=torch.float64)
    assert float(torch.trapezoid(surrogate.derivative(z), z)) == pytest.approx(area, rel=1e-4)


def test_surrogate_block_is_left_after_an_error() -> None:
    before = active_surrogate()
    with pytest.raises(RuntimeError), surrogate_gradient(StraightThrough()):
        raise RuntimeError
    assert active_surrogate() is before
