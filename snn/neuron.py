"""Integrate-and-fire neurons over all timesteps at once: leak, integrate, fire, reset.

    u(t) = leak * v(t-1) + current(t)          membrane potential before the reset
    s(t) = 1 if u(t) - threshold >= 0 else 0
    v(t) = u(t) * (1 - s(t))                   hard reset        v(t) = u(t) - threshold * s(t)   soft reset

v(0) = 0 and leak = 1 is the IF neuron. The gradient runs through the spike in the reset too, unless `detach_reset`;
with soft reset the threshold's own part of the reset is never detached. Source: arXiv 2311.09266 eq. 1-3 and its code
(models/layers.py of RobustSNNConversion). Time axis first: T steps, B samples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hardspike.snn.errors import SettingsError
from hardspike.snn.surrogate import Surrogate, active_surrogate

Reset = Literal["hard", "soft"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronSettings:
    """What a neuron layer does at each timestep.

    leak: factor on the membrane potential per step, in (0, 1]; 1 is IF.
    reset: `hard` sets the potential to 0, `soft` subtracts the threshold.
    detach_reset: leave the spike in the reset out of the gradient.
    threshold_floor: a trainable threshold is kept at or above this value.
    """

    leak: float = 1.0
    reset: Reset = "hard"
    detach_reset: bool = False
    threshold_floor: float = 0.03

    def __post_init__(self) -> None:
        if not 0 < self.leak <= 1:
            raise SettingsError(f"neuron: leak = {self.leak} is not allowed; choose a value in (0, 1], 1 for IF")
        if self.reset not in ("hard", "soft"):
            raise SettingsError(f"neuron: reset = '{self.reset}' is not allowed; choose 'hard' or 'soft'")


class _MultiStep(torch.autograd.Function):
    """One autograd node for all steps: the plain loop costs several nodes a step (tests compare values and gradients)."""

    @staticmethod
    def forward(
        ctx: Any, current_TB: Tensor, threshold: Tensor, settings: NeuronSettings, surrogate: Surrogate
    ) -> Tensor:
        spikes = torch.empty(current_TB.shape, dtype=current_TB.dtype, device=current_TB.device)
        potentials = torch.empty_like(spikes)
        potential = torch.zeros_like(spikes[0])
        soft = settings.reset == "soft"
        for t, current in enumerate(current_TB):
            before = torch.add(current, potential, alpha=settings.leak, out=potentials[t])
            spike = torch.ge(before, threshold, out=spikes[t])
            potential = before - threshold * spike if soft else torch.addcmul(before, before, spike, value=-1)
        ctx.save_for_backward(potentials, spikes, threshold)
        ctx.settings, ctx.surrogate = settings, surrogate
        return spikes

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (grad_spikes_TB,) = grad_outputs
        potentials, spikes, threshold = ctx.saved_tensors
        settings: NeuronSettings = ctx.settings
        grad_current, grad_threshold = through_time(
            grad_spikes_TB,
            potentials,
            spikes,
            threshold,
            surrogate=ctx.surrogate,
            leak=settings.leak,
            soft=settings.reset == "soft",
            detach_reset=settings.detach_reset,
            need_threshold=ctx.needs_input_grad[1],
        )
        return grad_current, grad_threshold, None, None


_multi_step: Callable[..., Tensor] = _MultiStep.apply


def through_time(
    grad_spikes_TB: Tensor,
    potentials_TB: Tensor,
    spikes_TB: Tensor,
    threshold: Tensor,
    *,
    surrogate: Surrogate,
    leak: float,
    soft: bool,
    detach_reset: bool,
    need_threshold: bool = False,
    unit: float = 1.0,
) -> tuple[Tensor, Tensor | None]:
    """Backpropagation through time of one neuron layer, whatever arithmetic its forward pass used.

    Args:
        grad_spikes_TB: gradient with respect to the spikes, [T, B, ...].
        potentials_TB: membrane potentials before the reset, as `threshold` in units of 1 / `unit` of the float potential.
        spikes_TB: 0.0 or 1.0.
        threshold: scalar tensor.

    Returns:
        Gradient with respect to the input current in float units, [T, B, ...], and to the threshold (None unless needed).
    """
    grad_current = torch.empty_like(potentials_TB)
    grad_after = torch.zeros_like(potentials_TB[0])  # with respect to v(t), after the reset
    grad_threshold = torch.zeros_like(threshold) if need_threshold else None
    float_threshold = threshold / unit
    for t in range(len(potentials_TB) - 1, -1, -1):
        # Step by step rather than for all steps at once: slices of one step stay in the cache.
        potential = potentials_TB[t] if unit == 1 else potentials_TB[t] / unit
        grad_spike = grad_spikes_TB[t]
        if not detach_reset:
            grad_spike = torch.addcmul(grad_spike, float_threshold if soft else potential, grad_after, value=-1)
        through_spike = surrogate.derivative(potential - float_threshold).mul_(grad_spike)
        kept = grad_after if soft else torch.addcmul(grad_after, grad_after, spikes_TB[t], value=-1)
        torch.add(kept, through_spike, out=grad_current[t])
        if grad_threshold is not None:
            grad_threshold -= through_spike.sum()
            if soft:
                grad_threshold -= (grad_after * spikes_TB[t]).sum()
        grad_after = grad_current[t] * leak if leak != 1 else grad_current[t]
    return grad_current, grad_threshold


def fire(current_TB: Tensor, threshold: Tensor, settings: NeuronSettings) -> Tensor:
    """Spikes of one neuron layer.

    Args:
        current_TB: float input current, shape [T, B, ...].
        threshold: float scalar tensor, one for the layer.
        settings: leak and reset.

    Returns:
        Spikes 0.0 or 1.0, the shape and dtype of `current_TB`; their gradient uses the surrogate active now.
    """
    return _multi_step(current_TB, threshold, settings, active_surrogate())


class Neuron(nn.Module):
    """A neuron layer with one scalar threshold: ReLU as an ANN, `fire` as an SNN.

    The threshold is a parameter; it trains only after `threshold.requires_grad_(True)`, and is then kept at or above
    `settings.threshold_floor` by a clamp at every forward pass (as the authors' code does).
    """

    def __init__(self, settings: NeuronSettings, threshold: float = 1.0) -> None:
        super().__init__()
        self.settings = settings
        self.threshold = nn.Parameter(torch.tensor(float(threshold)), requires_grad=False)

    def forward(self, current_TB: Tensor) -> Tensor:
        # Only when needed: an in-place write would invalidate the graph of an earlier forward pass of the same batch.
        if self.threshold.requires_grad and float(self.threshold.detach()) < self.settings.threshold_floor:
            with torch.no_grad():
                self.threshold.clamp_(min=self.settings.threshold_floor)
        return fire(current_TB, self.threshold, self.settings)
