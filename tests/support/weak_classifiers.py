"""Classifiers whose robustness is known without an attack, and small smooth ones whose arithmetic is a sample's own."""

import torch
from torch import Tensor, nn

from hardspike.attack.ball import Ball, Norm
from hardspike.attack.gradient import Logits
from hardspike.attack.problem import Problem, SampleDraws

BANDS = 5


def band_logits(images: Tensor, bands: int = BANDS) -> Tensor:
    """Class k where the mean is nearest to (k + 1/2) / bands: the border between two classes is half way, at k / bands."""
    centers = (torch.arange(bands, dtype=images.dtype) + 0.5) / bands
    return -20 * (images.mean((1, 2, 3))[:, None] - centers) ** 2


def grey(levels: list[float], dtype: torch.dtype = torch.float64) -> Tensor:
    """Images 1 x 4 x 6 of one value each: a move of mean m has `linf` length m at least, and `l2` length m sqrt(24)."""
    return torch.tensor(levels, dtype=dtype).view(-1, 1, 1, 1).expand(-1, 1, 4, 6).clone()


def constant_logits(images: Tensor) -> Tensor:
    """Always class 0, with a gradient that is 0."""
    return torch.tensor([3.0, 2.0, 1.0, 0.0], dtype=images.dtype) + 0 * images.mean((1, 2, 3))[:, None]


def last_class_falls(images: Tensor) -> Tensor:
    """Five classes ranked in order on a grey image of 0.5. Within 0.1 of it, only the last can pass the first: if the right half
    gets brighter, to which the others do not answer."""
    half = images.shape[3] // 2
    left, right = images[..., :half].mean((1, 2, 3)), images[..., half:].mean((1, 2, 3))
    return torch.stack([*(1 - 0.1 * k + 0.01 * k * left for k in range(4)), 10 * (right - 0.45)], 1)


class Smooth(nn.Module):
    """Two layers with tanh, random weights. Products are summed per sample, so a result is the same in any batch."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int = 5,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        sharpness: float = 3.0,
    ):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = shape[0] * shape[1] * shape[2]
        self.first = nn.Parameter(torch.randn(8, size, generator=generator, dtype=dtype) * sharpness / size**0.5)
        self.second = nn.Parameter(torch.randn(classes, 8, generator=generator, dtype=dtype))

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.tanh((self.first * (images.flatten(1) - 0.5)[:, None]).sum(2))
        return (self.second * hidden[:, None]).sum(2)


def random_images(shape: tuple[int, int, int], count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def problem(
    model: Logits,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    eps: float,
    norm: Norm = "linf",
    grid: int | None = None,
    seed: int = 0,
) -> Problem:
    """labels: the model's own where not given."""
    if labels is None:
        with torch.no_grad():
            labels = model(images).argmax(1)
    ball, draws = Ball.around(images, eps, norm, grid), SampleDraws(seed, torch.arange(len(images)))
    return Problem(model=model, labels=labels, ball=ball, draws=draws)
