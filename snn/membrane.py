"""Integrate-and-fire dynamics over all timesteps, and backpropagation through them, in plain torch operations.

With u the membrane potential that is compared with the threshold, I the input current, x(0) the initial potential:

    integrate first:   u(t) = leak x(t) + I(t)        s(t) = [u(t) >= threshold]    x(t+1) = reset(u(t), s(t))
    fire first:        u(t) = x(t)                    s(t) = [u(t) >= threshold]    x(t+1) = leak u(t) - threshold s(t) + I(t)

reset: u (1 - s) when hard, u - threshold s when soft. Fire first with a hard reset is x(t+1) = leak u(t) (1 - s(t)) + I(t).
Integrate first is arXiv 2311.09266 eq. 1-3 (and SNN-RAT, DIET-SNN, BNTT); fire first is hybrid conversion (ICLR 2020),
ECCV 2020 and the SAM code, where each layer delays its input by one step. Time axis first: T steps, B samples.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from hardspike.snn.adaptive_surrogate import AdaptiveSharpness, LayerSharpness, PotentialDependent
from hardspike.snn.errors import SettingsError
from hardspike.snn.surrogate import (
    Activation,
    BackwardRate,
    LayerSurrogate,
    Pointwise,
    RateGradient,
    SpikeTime,
    TimeAveraged,
    WithoutTime,
)

Reset = Literal["hard", "soft"]
Order = Literal["integrate-first", "fire-first"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronSettings:
    """What a neuron layer does at each timestep.

    leak: factor on the membrane potential per step, in (0, 1]; 1 is IF. Where the leak trains, its first value.
    reset: `hard` sets the potential to 0, `soft` subtracts the threshold.
    order: see the module.
    strict: fire only above the threshold, not at it (hybrid conversion, DIET-SNN, the backward-rate form of SNN-RAT).
    detach_reset: leave the spike in the reset out of the gradient (with soft reset, the threshold's own part stays).
    initial_potential: potential before the first step, as a share of the threshold, in [0, 1).
    threshold_floor: a trainable threshold is kept at or above this value.
    activation, levels: of the neuron's ANN form, ReLU or the clip-floor function with that many levels (QCFS).
    """

    leak: float = 1.0
    reset: Reset = "hard"
    order: Order = "integrate-first"
    strict: bool = False
    detach_reset: bool = False
    initial_potential: float = 0.0
    threshold_floor: float = 0.03
    activation: Literal["relu", "clip-floor"] = "relu"
    levels: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.leak <= 1:
            raise SettingsError(f"neuron: leak = {self.leak} is not allowed; choose a value in (0, 1], 1 for IF")
        if not 0 <= self.initial_potential < 1:
            raise SettingsError(
                f"neuron: initial_potential = {self.initial_potential} is not allowed; choose a share of the threshold in [0, 1)"
            )
        if not self.threshold_floor > 0:
            raise SettingsError(
                f"neuron: threshold_floor = {self.threshold_floor} is not allowed; choose a positive value, 0.03 in arXiv 2311.09266"
            )
        if self.levels < 1:
            raise SettingsError(f"neuron: levels = {self.levels} is not allowed; use 1 or more")
        for field, allowed in (
            ("reset", ("hard", "soft")),
            ("order", ("integrate-first", "fire-first")),
            ("activation", ("relu", "clip-floor")),
        ):
            if getattr(self, field) not in allowed:
                raise SettingsError(
                    f"neuron: {field} = '{getattr(self, field)}' is not allowed; choose {' or '.join(map(repr, allowed))}"
                )


class MultiStep(torch.autograd.Function):
    """One autograd node for all steps: the plain loop costs several nodes a step (tests compare values and gradients).

    Takes current [T or 1, B, ...], threshold, leak, initial potential or None; returns spikes [T, B, ...] and the potential
    left for a next step, which carries no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        current_TB: Tensor,
        threshold: Tensor,
        leak: Tensor,
        initial: Tensor | None,
        steps: int,
        settings: NeuronSettings,
        surrogate: LayerSurrogate,
    ) -> tuple[Tensor, Tensor]:
        spikes = current_TB.new_empty((steps, *current_TB.shape[1:]))
        potentials = torch.empty_like(spikes)
        ctx.share = settings.initial_potential if initial is None else 0.0
        if initial is None:
            initial = (settings.initial_potential * threshold).expand_as(current_TB[0])
        soft, fire_first = settings.reset == "soft", settings.order == "fire-first"
        state = initial
        for t in range(steps):
            current = current_TB[t if len(current_TB) > 1 else 0]
            # A product, then a sum: two roundings, as the fused kernel does (addcmul and alpha= may round once).
            before = state if fire_first else leak * state + current
            potentials[t] = before
            spike = spikes[t]
            torch.gt(before, threshold, out=spike) if settings.strict else torch.ge(before, threshold, out=spike)
            if fire_first:
                kept = before if soft else before * (1 - spike)
                state = leak * kept + current
                state = state - threshold * spike if soft else state
            else:
                state = before - threshold * spike if soft else before * (1 - spike)
        ctx.save_for_backward(potentials, spikes, threshold, leak)
        ctx.initial, ctx.settings, ctx.surrogate, ctx.is_static = initial, settings, surrogate, len(current_TB) < steps
        ctx.mean_current = current_TB.mean(0) if isinstance(surrogate, RateGradient) else None
        ctx.mark_non_differentiable(state)
        return spikes, state

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        potentials, spikes, threshold, leak = ctx.saved_tensors
        grad_current, grad_threshold, grad_leak = through_time(
            grad_outputs[0],
            potentials,
            spikes,
            threshold,
            leak,
            replace(ctx.settings, initial_potential=ctx.share),
            ctx.surrogate,
            need_threshold=ctx.needs_input_grad[1],
            need_leak=ctx.needs_input_grad[2],
            initial=ctx.initial,
            mean_current=ctx.mean_current,
        )
        if ctx.is_static:
            grad_current = grad_current.sum(0, keepdim=True)
        return grad_current, grad_threshold, grad_leak, None, None, None, None


def refuse_second_derivative() -> None:
    """Call it in a backward pass, where gradients are only on if the gradient itself is to be differentiated."""
    if torch.is_grad_enabled():
        raise SettingsError("neuron: a surrogate gradient has no derivative of its own; leave out create_graph")


def steps_since_spike(spikes_TB: Tensor) -> Tensor:
    """Steps since the neuron's last spike before step t, infinite where there was none; [T, B, ...]."""
    since = torch.empty_like(spikes_TB)
    now = torch.full_like(spikes_TB[0], float("inf"))
    for t, spike in enumerate(spikes_TB):
        since[t] = now = now + 1
        now = torch.where(spike > 0, 0.0, now)
    return since


def through_time(
    grad_spikes_TB: Tensor,
    potentials_TB: Tensor,
    spikes_TB: Tensor,
    threshold: Tensor,
    leak: Tensor | float,
    settings: NeuronSettings,
    surrogate: LayerSurrogate,
    *,
    need_threshold: bool = False,
    need_leak: bool = False,
    initial: Tensor | None = None,
    mean_current: Tensor | None = None,
    unit: float = 1.0,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Backpropagation through time of one neuron layer, whatever arithmetic its forward pass used.

    Args:
        grad_spikes_TB: gradient with respect to the spikes, [T, B, ...].
        potentials_TB: membrane potentials before the reset, as `threshold` in units of 1 / `unit` of the float potential.
        spikes_TB: 0.0 or 1.0.
        threshold: scalar tensor.
        leak: factor per step; `settings.leak` is not read.
        initial: potential before the first step; only needed for the gradient of the leak.
        mean_current: input current's mean over time, [B, ...], in the potentials' units; only needed for `RateGradient`.

    Returns:
        Gradients with respect to the input current in float units, [T, B, ...], to the threshold and to the leak (None
        unless needed; always None for surrogates without time, which have neither).
    """
    if isinstance(surrogate, WithoutTime):
        arguments = (grad_spikes_TB, potentials_TB, spikes_TB, threshold, leak, surrogate, mean_current, unit)
        return _without_time(*arguments), None, None
    if isinstance(surrogate, Activation):
        raise SettingsError(
            f"surrogate '{surrogate.kind}': replaces the spiking forward of a float network; it is no backward pass"
        )
    float_threshold = threshold / unit
    slope_at, normalised = _slopes(surrogate, potentials_TB, spikes_TB, float_threshold, unit)
    soft, fire_first = settings.reset == "soft", settings.order == "fire-first"
    grad_current = torch.empty_like(potentials_TB)
    grad_state = torch.zeros_like(potentials_TB[0])  # with respect to x(t + 1)
    grad_threshold = torch.zeros_like(threshold) if need_threshold else None
    grad_leak = torch.zeros_like(threshold) if need_leak else None
    for t in range(len(potentials_TB) - 1, -1, -1):
        # Step by step rather than for all steps at once: slices of one step stay in the cache.
        potential = potentials_TB[t] if unit == 1 else potentials_TB[t] / unit
        spike = spikes_TB[t]
        grad_spike = grad_spikes_TB[t]
        if fire_first:
            grad_current[t] = grad_state
            # The leak acts after the reset here, except on the subtracted threshold.
            grad_kept, grad_subtracted = grad_state * leak, grad_state
        else:
            grad_kept = grad_subtracted = grad_state
        if not settings.detach_reset:
            through_reset = (float_threshold, grad_subtracted) if soft else (potential, grad_kept)
            grad_spike = torch.addcmul(grad_spike, *through_reset, value=-1)
        through_spike = slope_at(t, potential).mul_(grad_spike)
        if normalised:
            through_spike = through_spike / float_threshold
        grad_potential = through_spike + (grad_kept if soft else torch.addcmul(grad_kept, grad_kept, spike, value=-1))
        if grad_threshold is not None:
            grad_threshold -= (through_spike * potential / float_threshold if normalised else through_spike).sum()
            if soft:
                grad_threshold -= (grad_subtracted * spike).sum()
        if fire_first:
            if grad_leak is not None:
                grad_leak += (grad_state * (potential if soft else potential * (1 - spike))).sum()
            grad_state = grad_potential
        else:
            grad_current[t] = grad_potential
            if grad_leak is not None:
                grad_leak += (
                    grad_potential * _state_before(t, potentials_TB, spikes_TB, threshold, soft, initial)
                ).sum()
            grad_state = grad_potential * leak if not isinstance(leak, float) or leak != 1 else grad_potential
    if grad_threshold is not None and settings.initial_potential:
        grad_threshold += settings.initial_potential * grad_state.sum()
    return grad_current, grad_threshold, grad_leak


def _slopes(
    surrogate: Pointwise | AdaptiveSharpness | LayerSharpness | PotentialDependent | SpikeTime,
    potentials_TB: Tensor,
    spikes_TB: Tensor,
    threshold: Tensor,
    unit: float,
) -> tuple[Callable[[int, Tensor], Tensor], bool]:
    """Step t's ds/dz (a new tensor) from t and its potential in float units; and whether it is ds/dm, see surrogate.py.

    threshold: in float units; the rest as for `through_time`.
    """
    match surrogate:
        case SpikeTime():
            since_TB = steps_since_spike(spikes_TB)
            return lambda t, _: surrogate.derivative(since_TB[t]), True
        case PotentialDependent():
            sigma_TB = surrogate.deviations(potentials_TB) / unit
            return lambda t, potential: surrogate.derivative(potential - threshold, sigma_TB[t]), False
        case LayerSharpness():
            return lambda t, potential: surrogate.derivative(potential - threshold, t), False
        case AdaptiveSharpness():
            return lambda _, potential: surrogate.derivative(potential - threshold), False
    if surrogate.normalised:
        return lambda _, potential: surrogate.derivative(potential / threshold - 1), True
    return lambda _, potential: surrogate.derivative(potential - threshold), False


def _without_time(
    grad_spikes_TB: Tensor,
    potentials_TB: Tensor,
    spikes_TB: Tensor,
    threshold: Tensor,
    leak: Tensor | float,
    surrogate: WithoutTime,
    mean_current: Tensor | None,
    unit: float,
) -> Tensor:
    """Gradient with respect to the input current; arguments as for `through_time`."""
    match surrogate:
        case BackwardRate():
            return grad_spikes_TB * spikes_TB.amax(0)
        case RateGradient():
            assert mean_current is not None, "the gradient of the rate needs the mean input current"
            factor: Tensor = surrogate.derivative(mean_current / threshold, leak) * unit / threshold
            return grad_spikes_TB * factor
        case TimeAveraged():
            mean = torch.zeros_like(potentials_TB[0])
            for grad_spike, potential in zip(grad_spikes_TB, potentials_TB, strict=True):
                mean += surrogate.derivative((potential - threshold) / unit).mul_(grad_spike)
            return (mean / len(potentials_TB)).expand_as(potentials_TB).contiguous()


def _state_before(
    t: int, potentials_TB: Tensor, spikes_TB: Tensor, threshold: Tensor, soft: bool, initial: Tensor | None
) -> Tensor:
    """x(t) of the order that integrates first."""
    if t == 0:
        assert initial is not None, "the gradient of the leak needs the initial potential"
        return initial
    potential, spike = potentials_TB[t - 1], spikes_TB[t - 1]
    return potential - threshold * spike if soft else potential * (1 - spike)
