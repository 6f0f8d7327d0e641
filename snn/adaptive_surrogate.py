"""Surrogate gradients whose width follows the membrane potentials, of which fixed widths miss what lies far from the threshold.

`AdaptiveSharpness` learns a width per neuron, timestep and sample along an attack (ASSG, arXiv 2512.22522);
`PotentialDependent` takes it from the spread of the potentials of one forward pass (PDSG, CVPR 2025).
u is the membrane potential before the reset minus the threshold, in float units; it is a constant here.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal, get_args

import torch
from torch import Tensor

from hardspike.snn.errors import DataError
from hardspike.snn.ranges import require

Shape = Literal["atan", "triangular", "rectangular", "gaussian", "sigmoid"]

KEPT = 0.9  # of both moving averages, per iteration
SPREAD_FACTOR = 1.5  # of D in the width
SMALLEST_WIDTH = 1e-4


def _atan(u: Tensor, alpha: Tensor) -> Tensor:
    return (u * alpha).square_().mul_(math.pi**2 / 2).add_(2).reciprocal_().mul_(alpha)


def _triangular(u: Tensor, alpha: Tensor) -> Tensor:
    return (u * alpha).abs_().neg_().add_(1).clamp_(min=0).mul_(alpha)


def _rectangular(u: Tensor, alpha: Tensor) -> Tensor:
    return ((u * alpha).abs_() < 1).to(u.dtype).mul_(alpha).div_(2)


def _gaussian(u: Tensor, alpha: Tensor) -> Tensor:
    return (u * alpha).square_().div_(-2).exp_().mul_(alpha).div_(math.sqrt(2 * math.pi))


def _sigmoid(u: Tensor, alpha: Tensor) -> Tensor:
    rising = (u * alpha).sigmoid_()
    return rising.mul_(1 - rising).mul_(alpha)


# ds/du at sharpness alpha: alpha k(alpha u) with an even density k.
_SLOPES: dict[Shape, Callable[[Tensor, Tensor], Tensor]] = {
    "atan": _atan,
    "triangular": _triangular,
    "rectangular": _rectangular,
    "gaussian": _gaussian,
    "sigmoid": _sigmoid,
}


@dataclass(frozen=True, slots=True)
class AdaptiveSharpness:
    """ds/du = alpha k(alpha u), with alpha = w / (M + 1.5 D + 1e-4) of its own for each neuron, timestep and sample (ASSG).

    At each iteration of an attack, before alpha is computed, M <- 0.9 M + 0.1 |u| and D <- 0.9 D + 0.1 | |u| - M |, from
    M = 1 and D = 0 at the start of a run. w is where k's mass on [-w, w] is A = 2 a, so that on average no more than A of the
    gradient vanishes. For `atan`, k(x) = 1 / (2 (1 + (pi x / 2)^2)) and w = 2 / pi tan(pi a), as in the authors' code. For
    the other shapes w is derived from the same condition; the authors' code sets w = a there and searches a.

    `begin` starts a run. The specification itself, used as the active surrogate, has no memory: each backward pass is then
    the first iteration of a run.

    a: half the vanishing degree A, in (0, 0.5). The paper searches 0.35 to 0.49 per model; 0.425 is its default.
    """

    a: float = 0.425
    shape: Shape = "atan"

    def __post_init__(self) -> None:
        require(
            "AdaptiveSharpness: a", self.a, 0 < self.a < 0.5, "choose a value in (0, 0.5), 0.425 in arXiv 2512.22522"
        )
        require("AdaptiveSharpness: shape", self.shape, self.shape in _SLOPES, f"choose one of {get_args(Shape)}")

    @property
    def mass_width(self) -> float:
        """w, in units of 1 / alpha."""
        mass = 2 * self.a
        match self.shape:
            case "atan":
                return 2 / math.pi * math.tan(math.pi * self.a)
            case "triangular":
                return 1 - math.sqrt(1 - mass)
            case "rectangular":
                return mass
            case "gaussian":
                return NormalDist().inv_cdf((1 + mass) / 2)
            case "sigmoid":
                return math.log((1 + mass) / (1 - mass))

    def begin(self) -> "SharpnessRun":
        """The state of one attack run, to be the active surrogate of its gradients."""
        return SharpnessRun(self)

    def derivative(self, u: Tensor) -> Tensor:
        """Of a first iteration."""
        return self.begin().of(None).derivative(u, 0)


@dataclass(frozen=True, slots=True, eq=False)
class SharpnessRun:
    """M and D of one attack run on a fixed batch, from `AdaptiveSharpness.begin`; use it as the active surrogate.

    Each backward pass moves them on by one iteration; forward passes, with or without gradients, do not. The state belongs
    to samples in their order: a restart begins another run, and `take` leaves samples out.
    """

    sharpness: AdaptiveSharpness
    updates: bool = True
    _moments: dict[Hashable, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)  # of layers, [T, B, ...]

    def begin(self) -> "SharpnessRun":
        """Another run, from the start."""
        return self.sharpness.begin()

    def take(self, which: Tensor) -> "SharpnessRun":
        """The run as it goes on for some of the samples, independent of this one; which: bool mask or indices."""
        taken = {
            layer: (mean_TB[:, which], spread_TB[:, which]) for layer, (mean_TB, spread_TB) in self._moments.items()
        }
        return SharpnessRun(self.sharpness, self.updates, taken)

    def held(self) -> "SharpnessRun":
        """The same run, whose M and D backward passes only read: for the second and later passes of one iteration (EOT)."""
        return SharpnessRun(self.sharpness, False, self._moments)

    def of(self, layer: Hashable) -> "LayerSharpness":
        """Of one neuron layer, which `layer` names in the whole run."""
        return LayerSharpness(self, layer)


def _laid_out(kept_TB: Tensor | None, start: float, steps: int, like: Tensor, memory: torch.memory_format) -> Tensor:
    """What is kept, in that memory order and for `steps` steps at least, of which new ones begin at `start`."""
    known = 0 if kept_TB is None else len(kept_TB)
    if kept_TB is not None and known >= steps and kept_TB.flatten(0, 1).is_contiguous(memory_format=memory):
        return kept_TB
    shape_TB = (max(known, steps), len(like))
    merged = torch.empty(
        (shape_TB[0] * shape_TB[1], *like.shape[1:]), dtype=like.dtype, device=like.device, memory_format=memory
    )
    laid_TB: Tensor = merged.unflatten(0, shape_TB)
    laid_TB[known:] = start
    if kept_TB is not None:
        laid_TB[:known] = kept_TB
    return laid_TB


@dataclass(frozen=True, slots=True, eq=False)
class LayerSharpness:
    """A run as one neuron layer sees it."""

    run: SharpnessRun
    layer: Hashable

    def moments(
        self, steps: int, like: Tensor, memory: torch.memory_format = torch.contiguous_format
    ) -> tuple[Tensor, Tensor]:
        """M and D for `steps` timesteps or more, [T, B, ...], for the caller to move on in place if the run `updates`.

        like: any tensor of the layer's shape [B, ...], dtype and device; memory: order of the merged [T B, ...].
        """
        mean_TB, spread_TB = self.run._moments.get(self.layer, (None, None))
        if mean_TB is not None and mean_TB.shape[1:] != like.shape:
            raise DataError(
                f"adaptive sharpness: a run on {tuple(mean_TB.shape[1:])} (batch, neurons) does not fit {tuple(like.shape)};"
                " use take() for part of the batch, begin() for another"
            )
        moments = _laid_out(mean_TB, 1.0, steps, like, memory), _laid_out(spread_TB, 0.0, steps, like, memory)
        if self.run.updates:
            self.run._moments[self.layer] = moments
        return moments

    def derivative(self, u: Tensor, step: int) -> Tensor:
        """ds/du of one timestep, [B, ...]; moves the run on at this layer and timestep."""
        mean, spread = (kept_TB[step] for kept_TB in self.moments(step + 1, u))
        if self.run.updates:
            distance = u.abs()
            mean.lerp_(distance, 1 - KEPT)
            spread.lerp_((distance - mean).abs_(), 1 - KEPT)
        width = torch.add(mean, spread, alpha=SPREAD_FACTOR).add_(SMALLEST_WIDTH)
        sharpness = self.run.sharpness
        return _SLOPES[sharpness.shape](u, width.reciprocal_().mul_(sharpness.mass_width))


@dataclass(frozen=True, slots=True)
class PotentialDependent:
    """ds/du = the normal density of mean sigma / 2 and standard deviation sigma at u (PDSG, Lun et al., CVPR 2025).

    sigma at step t is the (unbiased) standard deviation of the potentials before the reset over steps 1..t, of each sample:
    per channel over its pixels, or over all features of a dense layer; 1 where it is 0. The paper pools the samples of the
    batch as well (and keeps dense features apart), which makes a sample's gradient depend on its neighbours.
    """

    def deviations(self, potentials_TB: Tensor) -> Tensor:
        """sigma before 0 is replaced, [T, B, C, 1, 1] of [T, B, C, H, W], else [T, B, 1]."""
        axes = (3, 4) if potentials_TB.ndim == 5 else tuple(range(2, potentials_TB.ndim))
        variance, mean = torch.var_mean(potentials_TB, axes, correction=0, keepdim=True)
        steps = torch.arange(1, len(mean) + 1, device=mean.device).view(-1, *[1] * (mean.ndim - 1)).double()
        # Around the first step's mean, because large equal means would cancel.
        offset = (mean - mean[0]).double()
        between = offset.square().cumsum(0) - offset.cumsum(0).square() / steps
        count = math.prod(potentials_TB.shape[axis] for axis in axes)
        squares = count * (variance.double().cumsum(0) + between.clamp_(min=0))
        return (squares / (steps * count - 1).clamp_(min=1)).sqrt_().to(potentials_TB.dtype)

    def derivative(self, u: Tensor, sigma: Tensor) -> Tensor:
        """sigma: broadcast to u, in its units."""
        sigma = torch.where(sigma == 0, 1.0, sigma)
        return (u / sigma).sub_(0.5).square_().div_(-2).exp_().div_(math.sqrt(2 * math.pi) * sigma)
