"""The images an attack may show: within eps of the clean image and within [0, 1], and where asked only what a sensor can carry.

`linf`: every pixel moves by at most eps. `l2`: the Euclidean norm of the whole move is at most eps.

With a `grid` of n, pixels are k / n. The box of an `linf` ball then ends on grid values inside the ball, so that rounding any
image of the box to its nearest grid value stays in the box: an attack in it searches among images that can be sent.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hardspike.snn.errors import SettingsError

Norm = Literal["linf", "l2"]
# float32 rounding of clean + eps, not a wider budget.
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Ball:
    """A batch of balls around `clean`, float images (B, C, H, W) in [0, 1]; eps >= 0 in units of [0, 1].

    low, high: bounds of every pixel, inside [0, 1]; for `l2` they are 0 and 1.
    """

    clean: Tensor
    eps: float
    norm: Norm
    low: Tensor
    high: Tensor
    grid: int | None = None

    @staticmethod
    def around(clean: Tensor, eps: float, norm: Norm = "linf", grid: int | None = None) -> "Ball":
        """Raises SettingsError for a grid with `l2`, whose ball has no box of grid values."""
        if norm == "l2":
            if grid is not None:
                raise SettingsError("attack: norm = 'l2' has no grid; use linf, or attack without the grid")
            return Ball(clean, eps, norm, torch.zeros_like(clean), torch.ones_like(clean))
        low, high = (clean - eps).clamp(0, 1), (clean + eps).clamp(0, 1)
        if grid is not None:
            low, high = _on_grid(clean, eps, grid)
        return Ball(clean, eps, norm, low, high, grid)

    def __len__(self) -> int:
        return len(self.clean)

    def take(self, which: Tensor) -> "Ball":
        """The balls of some samples; which: bool mask or indices."""
        return Ball(self.clean[which], self.eps, self.norm, self.low[which], self.high[which], self.grid)

    def project(self, images: Tensor) -> Tensor:
        """Nearest image of the ball (`linf`); for `l2` scaled back to the sphere, then cut to [0, 1]."""
        if self.norm == "linf":
            return torch.maximum(torch.minimum(images, self.high), self.low)
        move = images - self.clean
        length = norms(move)
        # Nudged inwards: a float32 product may round to just outside.
        scale = (self.eps * (1 - ROUNDING) / length.clamp(min=1e-12)).clamp(max=1)
        inside: Tensor = (self.clean + move * scale).clamp(0, 1)
        return inside

    def step(self, gradient: Tensor, size: float) -> Tensor:
        """The steepest move of length `size` under the ball's norm: its sign, or the gradient itself scaled (0 where it is 0)."""
        if self.norm == "linf":
            return size * gradient.sign()
        unit: Tensor = gradient / norms(gradient).clamp(min=1e-12)
        return size * unit

    def scattered(self, uniform: Tensor) -> Tensor:
        """A random image of the ball from numbers uniform in [0, 1): each pixel uniform (`linf`), or uniform in the ball's volume."""
        signed = 2 * uniform - 1
        if self.norm == "linf":
            return self.project(self.clean + self.eps * signed)
        # The radius uses one of the direction's numbers again.
        radius = uniform.flatten(1)[:, 0] ** (1 / self.clean[0].numel())
        scaled = _direction(uniform) * radius.view(-1, *[1] * (self.clean.ndim - 1))
        return self.project(self.clean + self.eps * scaled)

    def surface(self, uniform: Tensor) -> Tensor:
        """A random image whose furthest pixel (`linf`), or whose whole move (`l2`), is eps away, cut to the ball (APGD's start)."""
        if self.norm == "l2":
            return self.project(self.clean + self.eps * _direction(uniform))
        signed = 2 * uniform - 1
        longest = signed.abs().flatten(1).amax(1).clamp(min=1e-12).view(-1, *[1] * (signed.ndim - 1))
        return self.project(self.clean + self.eps * signed / longest)

    def corner(self, uniform: Tensor) -> Tensor:
        """A random image as far away as the budget allows: each pixel up or down (the control: noise instead of an attack)."""
        return self.project(self.clean + self.step((2 * uniform - 1).sign(), self.eps))

    def rounded(self, images: Tensor) -> Tensor:
        """Nearest grid value of each pixel; the images themselves without a grid."""
        if self.grid is None:
            return images
        nearest = (torch.floor(images.double() * self.grid + 0.5) / self.grid).to(images.dtype)
        return self.project(nearest)


def norms(images: Tensor) -> Tensor:
    """Euclidean norm per sample, shape (B, 1, 1, 1)."""
    lengths: Tensor = images.flatten(1).norm(dim=1)
    return lengths.view(-1, *[1] * (images.ndim - 1))


def _direction(uniform: Tensor) -> Tensor:
    """A random direction, of Euclidean norm 1: a normal vector's, which erfinv makes of uniform numbers."""
    normal = torch.erfinv((2 * uniform - 1).clamp(-1 + 1e-6, 1 - 1e-6))
    unit: Tensor = normal / norms(normal).clamp(min=1e-12)
    return unit


def _on_grid(clean: Tensor, eps: float, grid: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest grid value within eps of `clean`; its own grid value twice where the ball holds none."""
    center = clean.double()
    slack = ROUNDING * grid  # a bound that lies on the grid must not be lost to the images' float32
    low = torch.ceil((center - eps).clamp(0, 1) * grid - slack)
    high = torch.floor((center + eps).clamp(0, 1) * grid + slack)
    own = torch.floor(center * grid + 0.5)
    empty = low > high
    low, high = torch.where(empty, own, low), torch.where(empty, own, high)
    return (low / grid).to(clean.dtype), (high / grid).to(clean.dtype)


def overshoot(images: Tensor, ball: Ball) -> float:
    """How far the worst image is outside: of its budget or of [0, 1]; 0 or less inside. Independent of `project`."""
    if not len(images):
        return 0.0
    move = (images.double() - ball.clean.double()).abs()
    used = move.max() if ball.norm == "linf" else move.flatten(1).norm(dim=1).max()
    budget = ball.eps
    if ball.grid is not None:  # a clean pixel off the grid may only reach its own grid value
        budget = max(budget, 0.5 / ball.grid)
    outside = torch.maximum(-images.min(), images.max() - 1)
    return max(float(used) - budget, float(outside))
