"""The neuron alone: the authors' vectors, and a ten-line reference loop through autograd for every variant."""

from typing import Any

import golden_rsc as rsc
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hardspike.snn.errors import SettingsError
from hardspike.snn.neuron import Neuron, NeuronSettings, fire
from hardspike.snn.surrogate import (
    StraightThrough,
    Surrogate,
    Triangular,
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
    assert torch.equal(neuron(GOLDEN["in_current"]), GOLDEN["clamp_spikes"])
    rsc.assert_golden(neuron.threshold, "clamp_vth_after", FILE, relative=1e-6)  # stored from single precision 0.03


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, surrogate: Surrogate) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(z)
        ctx.surrogate = surrogate
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.surrogate.derivative(ctx.saved_tensors[0]), None


def reference(current_TB: Tensor, threshold: Tensor, neuron: NeuronSettings, surrogate: Surrogate) -> Tensor:
    """The definition, one autograd node per operation."""
    potential, spikes = torch.zeros_like(current_TB[0]), []
    for current in current_TB:
        potential = neuron.leak * potential + current
        spike: Tensor = _Spike.apply(potential - threshold, surrogate)
        reset = spike.detach() if neuron.detach_reset else spike
        potential = potential * (1 - reset) if neuron.reset == "hard" else potential - threshold * reset
        spikes.append(spike)
    return torch.stack(spikes)


@settings(max_examples=60, deadline=None)
@given(
    leak=st.sampled_from([1.0, 0.9, 0.5]),
    reset=st.sampled_from(["hard", "soft"]),
    detach=st.booleans(),
    surrogate=st.sampled_from(
        [Triangular(1.0), Triangular(0.4), StraightThrough(), parse_surrogate("exponential:1,2")]
    ),
    shape=st.tuples(st.integers(1, 7), st.integers(1, 3), st.integers(1, 5)),
    seed=st.integers(0, 10_000),
)
def test_equals_the_reference_loop_in_values_and_gradients(
    leak: float, reset: Any, detach: bool, surrogate: Surrogate, shape: tuple[int, ...], seed: int
) -> None:
    neuron = NeuronSettings(leak=leak, reset=reset, detach_reset=detach)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    upstream = torch.randn(shape, generator=generator, dtype=torch.float64)
    results = []
    for run in ("ours", "reference"):
        current = values.clone().requires_grad_(True)
        threshold = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        with surrogate_gradient(surrogate):
            spikes = (
                fire(current, threshold, neuron) if run == "ours" else reference(current, threshold, neuron, surrogate)
            )
        (upstream * spikes).sum().backward()
        results.append((spikes.detach(), current.grad, threshold.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(results[0][2], results[1][2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("current", [0.3, 0.5, 0.7, 1.0, 1.5])
def test_constant_input_spike_counts(current: float) -> None:
    """Soft reset fires floor(T c / theta) times for c <= theta; hard reset floor(T / ceil(theta / c))."""
    steps, threshold = 12, torch.tensor(1.0, dtype=torch.float64)
    drive = torch.full((steps, 1), current, dtype=torch.float64)
    hard = int(fire(drive, threshold, NeuronSettings()).sum())
    assert hard == steps // -(-1 // current)
    if current in (0.5, 1.0):  # exact in binary
        assert int(fire(drive, threshold, NeuronSettings(reset="soft")).sum()) == int(steps * current)


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


@pytest.mark.parametrize("text", ["triangular:0.5", "triangular:3", "rectangular:2", "exponential:0.3,2"])
def test_surrogate_integrals(text: str) -> None:
    """Triangular and rectangular integrate to 1, exponential to 2 * dampening / sharpness."""
    z = torch.linspace(-40, 40, 800_001, dtype=torch.float64)
    area = float(torch.trapezoid(parse_surrogate(text).derivative(z), z))
    assert area == pytest.approx(0.3 if text.startswith("exponential") else 1.0, rel=1e-4)


def test_surrogate_block_is_left_after_an_error() -> None:
    before = active_surrogate()
    with pytest.raises(RuntimeError), surrogate_gradient(StraightThrough()):
        raise RuntimeError
    assert active_surrogate() is before
