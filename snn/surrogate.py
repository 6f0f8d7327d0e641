"""Surrogate gradients: what stands for the derivative of the Heaviside spike in the backward pass.

They are chosen per call with `surrogate_gradient`, not baked into a model, so that an attack can try many on one network.
Five kinds:

- pointwise: a function of z = v - threshold in float units of the membrane potential (arXiv 2311.09266 eq. 15-18), or,
  for the `normalised` ones, of m = v / threshold - 1, which brings a factor 1 / threshold (DIET-SNN, hybrid conversion);
- adaptive: of widths that follow the potentials (`AdaptiveSharpness`, `PotentialDependent`, see adaptive_surrogate.py);
- of spike times: `SpikeTime` (hybrid conversion, ECCV 2020 eq. 4);
- without time: no gradient runs from step to step (`BackwardRate`, `RateGradient`, `TimeAveraged`);
- substitutes: the forward pass itself runs without spikes (`Activation`: conversion-based attack of arXiv 2311.09266).
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hardspike.snn.adaptive_surrogate import AdaptiveSharpness, LayerSharpness, PotentialDependent, SharpnessRun
from hardspike.snn.errors import SettingsError, unknown_name


def _positive(owner: object, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise SettingsError(
                f"{type(owner).__name__}: {name} = {value} is not allowed; it must be positive and finite"
            )


@dataclass(frozen=True, slots=True)
class Triangular:
    """ds/dz = max(0, width - |z|) / width^2 (piecewise linear; integrates to 1)."""

    width: float = 1.0
    normalised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _positive(self, width=self.width)

    def derivative(self, z: Tensor) -> Tensor:
        height: Tensor = self.width - z.abs()
        return height.clamp_(min=0).mul_(1.0 / (self.width * self.width))


@dataclass(frozen=True, slots=True)
class Exponential:
    """ds/dz = dampening * exp(-sharpness * |z|)."""

    dampening: float = 0.3
    sharpness: float = 1.0
    normalised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _positive(self, dampening=self.dampening, sharpness=self.sharpness)

    def derivative(self, z: Tensor) -> Tensor:
        return z.abs().mul_(-self.sharpness).exp_().mul_(self.dampening)


@dataclass(frozen=True, slots=True)
class Rectangular:
    """ds/dz = 1/width where |z| < width/2, else 0 (integrates to 1)."""

    width: float = 1.0
    normalised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _positive(self, width=self.width)

    def derivative(self, z: Tensor) -> Tensor:
        return (z.abs() < self.width / 2).to(z.dtype).mul_(1.0 / self.width)


@dataclass(frozen=True, slots=True)
class StraightThrough:
    """ds/dz = 1 everywhere; the spiking forward is kept."""

    normalised: ClassVar[bool] = False

    def derivative(self, z: Tensor) -> Tensor:
        return torch.ones_like(z)


@dataclass(frozen=True, slots=True)
class Linear:
    """ds/dm = dampening * max(0, 1 - |m|), m = v / threshold - 1 (Bellec et al. 2018, as in DIET-SNN, BNTT and hybrid conversion)."""

    dampening: float = 0.3
    normalised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _positive(self, dampening=self.dampening)

    def derivative(self, z: Tensor) -> Tensor:
        """Here z is m."""
        height: Tensor = 1 - z.abs()
        return height.clamp_(min=0).mul_(self.dampening)


@dataclass(frozen=True, slots=True)
class NormalisedExponential:
    """ds/dm = dampening * exp(-sharpness * |m|), m = v / threshold - 1 (the attack code of ECCV 2020)."""

    dampening: float = 0.3
    sharpness: float = 1.0
    normalised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _positive(self, dampening=self.dampening, sharpness=self.sharpness)

    def derivative(self, z: Tensor) -> Tensor:
        """Here z is m."""
        return z.abs().mul_(-self.sharpness).exp_().mul_(self.dampening)


@dataclass(frozen=True, slots=True)
class SpikeTime:
    """ds/dm = alpha * exp(-beta * steps since the neuron's last spike); 0 before its first (STDB, ECCV 2020 eq. 4).

    The authors' code writes exp(-steps) ** beta, which float32 makes 0 beyond 103 steps; here it is the printed formula.
    """

    alpha: float = 0.3
    beta: float = 0.01

    def __post_init__(self) -> None:
        _positive(self, alpha=self.alpha, beta=self.beta)

    def derivative(self, steps_since: Tensor) -> Tensor:
        """steps_since: infinite for a neuron that has not fired yet."""
        return torch.exp(-self.beta * steps_since).mul_(self.alpha)


@dataclass(frozen=True, slots=True)
class BackwardRate:
    """Backward pass through rate (SNN-RAT): a step's gradient passes unchanged where the neuron fired at least once, else 0.

    No temporal term, no threshold gradient.
    """


@dataclass(frozen=True, slots=True)
class RateGradient:
    """Backward pass through the firing rate as a function of the input's mean over time (RGA, Bu et al., CVPR 2023).

    A step's gradient passes times d rate / d mean input, the same at every step. With x = mean input / threshold that is
    1 / threshold times 0.2 on [0, 1 - leak), (1 - 0.2 (1 - leak)) / (1 + leak) on [1 - leak, 2] and 0 elsewhere.
    No temporal term, no threshold gradient. (At x = 1 - leak itself the authors' code adds both pieces.)
    """

    def derivative(self, share: Tensor, leak: Tensor | float) -> Tensor:
        """d rate / dx; share: x."""
        low = ((share >= 0) & (share < 1 - leak)).to(share.dtype)
        high = ((share >= 1 - leak) & (share <= 2)).to(share.dtype)
        return 0.2 * low + (1 - 0.2 * (1 - leak)) / (1 + leak) * high


@dataclass(frozen=True, slots=True)
class TimeAveraged:
    """Every step gets the mean over steps of gradient times max(0, width - |u|) / width^2 (HART, Hao et al., ICLR 2024).

    No temporal term, no threshold gradient. The authors tune the width per model from 0.10 to 2.45, on the attack's success
    on test images; tune it on others.
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, width=self.width)

    def derivative(self, u: Tensor) -> Tensor:
        return Triangular(self.width).derivative(u)


@dataclass(frozen=True, slots=True)
class Activation:
    """The forward pass runs without spikes on the same weights and batch-norm statistics, with neurons replaced by

    `relu` (thresholds ignored: conversion-based approximation of arXiv 2311.09266), or `clip-floor`, the rate
    clip(floor(T z / threshold + v0 / threshold) / T, 0, 1) with a straight-through floor, which is what a converted
    network's neurons compute under constant input (QCFS, ICLR 2022).
    """

    kind: Literal["relu", "clip-floor"]


Pointwise = Triangular | Exponential | Rectangular | StraightThrough | Linear | NormalisedExponential
WithoutTime = BackwardRate | RateGradient | TimeAveraged
# What one neuron layer differentiates its spikes with, and what may be asked of all of them.
LayerSurrogate = (
    Pointwise | AdaptiveSharpness | LayerSharpness | PotentialDependent | SpikeTime | WithoutTime | Activation
)
Surrogate = LayerSurrogate | SharpnessRun

_KINDS: dict[str, Callable[..., Surrogate]] = {
    "triangular": Triangular,
    "exponential": Exponential,
    "rectangular": Rectangular,
    "straight-through": StraightThrough,
    "linear": Linear,
    "normalised-exponential": NormalisedExponential,
    "spike-time": SpikeTime,
    "backward-rate": BackwardRate,
    "rate-gradient": RateGradient,
    "hart": TimeAveraged,
    "pdsg": PotentialDependent,
    "assg": partial(AdaptiveSharpness, shape="atan"),
    "assg-triangular": partial(AdaptiveSharpness, shape="triangular"),
    "assg-rectangular": partial(AdaptiveSharpness, shape="rectangular"),
    "assg-gaussian": partial(AdaptiveSharpness, shape="gaussian"),
    "assg-sigmoid": partial(AdaptiveSharpness, shape="sigmoid"),
    "relu": lambda: Activation("relu"),
    "clip-floor": lambda: Activation("clip-floor"),
}


def parse_surrogate(text: str) -> Surrogate:
    """Read `kind` or `kind:number` or `kind:number,number`, e.g. `triangular:0.5`, `exponential:0.3,2`.

    Raises:
        SettingsError: unknown kind, a parameter that is no number, too many parameters or one out of range.
    """
    kind, _, rest = text.partition(":")
    if kind not in _KINDS:
        raise SettingsError(unknown_name("surrogate", kind, _KINDS))
    try:
        parameters = [float(part) for part in rest.split(",")] if rest else []
        return _KINDS[kind](*parameters)
    except TypeError:
        raise SettingsError(f"surrogate '{text}' has {len(parameters)} parameters, more than '{kind}' takes") from None
    except ValueError as error:
        if isinstance(error, SettingsError):
            raise
        raise SettingsError(f"surrogate '{text}': '{rest}' is not a list of numbers; write e.g. '{kind}:0.5'") from None


@dataclass(frozen=True, slots=True)
class _Block:
    surrogate: Surrogate
    detach_reset: bool | None


_active: ContextVar[_Block] = ContextVar("surrogate", default=_Block(Triangular(1.0), None))  # noqa: B039 - frozen


def active_surrogate() -> Surrogate:
    """The surrogate in force; the triangular one of width 1 unless a `surrogate_gradient` block says otherwise."""
    return _active.get().surrogate


def surrogate_of(layer: Hashable) -> LayerSurrogate:
    """The surrogate in force for one neuron layer, which `layer` tells from all others; to be asked in its forward pass.

    Raises:
        SettingsError: the surrogate keeps a state of each layer, and `layer` is None.
    """
    surrogate = active_surrogate()
    if not isinstance(surrogate, SharpnessRun):
        return surrogate
    if layer is None:
        raise SettingsError(
            "neuron: layer = None is not allowed in a run of adaptive sharpness; give each layer its own"
        )
    return surrogate.of(layer)


def detaches_reset(own: bool) -> bool:
    """Whether the reset is left out of the gradient: as the `surrogate_gradient` block says, else `own`."""
    said = _active.get().detach_reset
    return own if said is None else said


@contextmanager
def surrogate_gradient(surrogate: Surrogate, detach_reset: bool | None = None) -> Iterator[None]:
    """Use `surrogate` in every neuron whose *forward* runs inside this block (its backward may run later).

    detach_reset: leave the spike in the reset out of the gradient, or do not; None for what each network's neurons say. An
    inner block replaces both.
    """
    token = _active.set(_Block(surrogate, detach_reset))
    try:
        yield
    finally:
        _active.reset(token)
