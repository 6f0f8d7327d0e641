"""One neuron layer of SNN-RAT against its authors' code: surrogate gradients (BPTT) and backward pass through rate (BPTR)."""

from contextlib import nullcontext

import golden_rsc as golden
import pytest
import torch

from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.neuron import fire, plain_torch
from hardspike.snn.surrogate import BackwardRate, Surrogate, Triangular, surrogate_gradient

FILE = "rat_retraction_and_neuron"


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize(
    ("name", "surrogate", "strict"), [("bptt", Triangular(1.0), False), ("bptr", BackwardRate(), True)]
)
def test_spikes_and_gradient(name: str, surrogate: Surrogate, strict: bool, is_fused: bool) -> None:
    arrays = golden.arrays(FILE)
    current = arrays["in_neuron_current"].clone().requires_grad_(True)
    threshold = torch.tensor(1.0, dtype=torch.float64)
    with surrogate_gradient(surrogate), nullcontext() if is_fused else plain_torch():
        spikes = fire(current, threshold, NeuronSettings(reset="hard", strict=strict))
    (arrays["in_neuron_upstream"] * spikes).sum().backward()
    assert torch.equal(spikes, arrays[f"neuron_{name}_spikes"])
    assert current.grad is not None
    golden.assert_golden(current.grad, f"neuron_{name}_grad_current", FILE)


def test_a_neuron_that_never_fires_has_no_gradient_through_rate() -> None:
    arrays = golden.arrays(FILE)
    current = (arrays["in_neuron_current"] - 10).requires_grad_(True)
    with surrogate_gradient(BackwardRate()):
        spikes = fire(current, torch.tensor(1.0, dtype=torch.float64), NeuronSettings(strict=True))
    spikes.sum().backward()
    assert current.grad is not None
    assert not spikes.any() and not current.grad.any()
