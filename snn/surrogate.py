"""Surrogate gradients: what stands for the derivative of the Heaviside spike in the backward pass.

All are functions of z = v - threshold, in the float units of the membrane potential (never divided by the threshold).
They are chosen per call with `surrogate_gradient`, not baked into a model, so that an attack can try many on one network.
Formulas: Ozdenizci & Legenstein 2023 (arXiv 2311.09266) eq. 15-18.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

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

    def __post_init__(self) -> None:
        _positive(self, dampening=self.dampening, sharpness=self.sharpness)

    def derivative(self, z: Tensor) -> Tensor:
        return z.abs().mul_(-self.sharpness).exp_().mul_(self.dampening)


@dataclass(frozen=True, slots=True)
class Rectangular:
    """ds/dz = 1/width where |z| < width/2, else 0 (integrates to 1)."""

    width: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, width=self.width)

    def derivative(self, z: Tensor) -> Tensor:
        return (z.abs() < self.width / 2).to(z.dtype).mul_(1.0 / self.width)


@dataclass(frozen=True, slots=True)
class StraightThrough:
    """ds/dz = 1 everywhere; the spiking forward is kept."""

    def derivative(self, z: Tensor) -> Tensor:
        return torch.ones_like(z)


Surrogate = Triangular | Exponential | Rectangular | StraightThrough

_KINDS: dict[str, Callable[..., Surrogate]] = {
    "triangular": Triangular,
    "exponential": Exponential,
    "rectangular": Rectangular,
    "straight-through": StraightThrough,
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


_active: ContextVar[Surrogate] = ContextVar("surrogate", default=Triangular(1.0))  # noqa: B039 - frozen


def active_surrogate() -> Surrogate:
    """The surrogate in force; the triangular one of width 1 unless a `surrogate_gradient` block says otherwise."""
    return _active.get()


@contextmanager
def surrogate_gradient(surrogate: Surrogate) -> Iterator[None]:
    """Use `surrogate` in every neuron whose *forward* runs inside this block (its backward may run later)."""
    token = _active.set(surrogate)
    try:
        yield
    finally:
        _active.reset(token)
