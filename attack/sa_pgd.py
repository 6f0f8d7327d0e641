"""SA-PGD: PGD without the sign, with momenta and a step size that halves on a fixed schedule (Wang et al., CVPR 2026, arXiv
2512.22522). Made for gradients worth following, those of adaptive sharpness (`assg`), which go on improving for many steps.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from hardspike.attack.gradient import cross_entropy
from hardspike.attack.pgd import LossOfLabels
from hardspike.attack.problem import Problem

MOMENTUM, SECOND_MOMENTUM = 0.5, 0.8
TINY = 1e-12


def halvings(steps: int) -> Iterator[int]:
    """After how many steps the step size halves: 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    period = max(int(0.22 * steps), 1)
    done = period
    while done <= steps:
        yield done
        period = max(period - int(0.03 * steps), int(0.06 * steps), 1)
        done += period


def sa_pgd(
    problem: Problem, loss: LossOfLabels = cross_entropy, *, steps: int, uniform: Tensor, stop_early: bool = True
) -> Tensor:
    """L-infinity only. A sample is broken if any iterate fools the model; it leaves with the first one (`stop_early`), or the
    last such iterate is returned, as in the authors' code. Samples that are never fooled return their last iterate.

    uniform: in [0, 1), the shape of the images; the random start.
    """
    size = problem.ball.eps
    images = problem.ball.surface(uniform)
    found = images.clone()
    fooled_once = torch.zeros(len(problem), dtype=torch.bool, device=images.device)
    standing = torch.arange(len(problem), device=images.device)
    first: Tensor | None = None
    second: Tensor | None = None
    halve_after = set(halvings(steps))
    for step in range(1, steps + 1):
        output, _, gradient = problem.value_and_gradient(images, loss(problem.labels))
        fooled = output.argmax(1) != problem.labels
        found[standing[fooled]] = images[fooled]
        fooled_once[standing[fooled]] = True
        scaled = gradient / _mean(gradient.abs())
        squared = scaled**2 / _mean(scaled**2)  # gradient^2 / mean gradient^2, which alone may underflow
        first = scaled if first is None else MOMENTUM * first + scaled
        second = squared if second is None else SECOND_MOMENTUM * second + squared
        if stop_early and bool(fooled.any()):
            keep = ~fooled
            problem, standing = problem.take(keep), standing[keep]
            images, first, second = images[keep], first[keep], second[keep]
            if not len(standing):
                return found
        move = (size * first / (second.sqrt() + TINY)).clamp(-size, size)
        images = problem.ball.project(images + move)
        if step in halve_after:
            size /= 2
    last = torch.zeros_like(fooled_once)
    last[standing] = problem.fools(images)
    never = ~fooled_once[standing] | last[standing]
    found[standing[never]] = images[never]
    return found


def _mean(values: Tensor) -> Tensor:
    """Per sample, over channels and pixels; never 0, so that a sample without gradient stays where it is."""
    mean: Tensor = values.flatten(1).mean(1).clamp(min=torch.finfo(values.dtype).tiny)
    return mean.view(-1, *[1] * (values.ndim - 1))
