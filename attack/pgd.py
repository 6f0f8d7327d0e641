"""FGSM, RFGSM and PGD: signed gradient steps (their L2 forms: normalised ones), projected to the ball."""

from collections.abc import Callable

import torch
from torch import Tensor

from hardspike.attack.gradient import Loss, cross_entropy
from hardspike.attack.problem import Problem

# From labels to a loss of logits; of the samples that still stand.
LossOfLabels = Callable[[Tensor], Loss]


def fgsm(problem: Problem, loss: LossOfLabels = cross_entropy) -> Tensor:
    """One step of size eps (Goodfellow et al. 2015)."""
    ball = problem.ball
    _, _, gradient = problem.value_and_gradient(ball.clean, loss(problem.labels))
    return ball.project(ball.clean + ball.step(gradient, ball.eps))


def rfgsm(problem: Problem, loss: LossOfLabels = cross_entropy, *, alpha: float, noise: Tensor) -> Tensor:
    """A random step of size alpha, then a gradient step of size eps - alpha (Tramer et al. 2018; arXiv 2311.09266 eq. 12).

    noise: symmetric around 0, the shape of the images; only its direction is used. alpha in (0, eps).
    """
    ball = problem.ball
    start = (ball.clean + ball.step(noise, alpha)).clamp(0, 1)
    _, _, gradient = problem.value_and_gradient(start, loss(problem.labels))
    return ball.project(start + ball.step(gradient, ball.eps - alpha))


def pgd(
    problem: Problem,
    loss: LossOfLabels = cross_entropy,
    *,
    steps: int,
    step_size: float,
    start: Tensor,
    stop_early: bool = True,
) -> Tensor:
    """`steps` signed gradient steps from `start`, each projected (Madry et al. 2018).

    stop_early: a sample leaves with its first iterate that fools the model; the forward pass that the gradient needs shows it.
    Otherwise, and where none does, the last iterate.
    """
    return ascend(problem, loss, steps=steps, start=start, stop_early=stop_early, move=_fixed_step(step_size))


Move = Callable[[Problem, Tensor, Tensor], Tensor]


def _fixed_step(size: float) -> Move:
    return lambda problem, images, gradient: problem.ball.project(images + problem.ball.step(gradient, size))


def ascend(problem: Problem, loss: LossOfLabels, *, steps: int, start: Tensor, stop_early: bool, move: Move) -> Tensor:
    """The loop of PGD: `move` makes the next iterate from (problem, iterate, gradient)."""
    images = problem.ball.project(start)
    found = images.clone()
    standing = torch.arange(len(problem), device=images.device)
    for _ in range(steps):
        output, _, gradient = problem.value_and_gradient(images, loss(problem.labels))
        moved = move(problem, images, gradient)
        if stop_early:
            fooled = output.argmax(1) != problem.labels
            if bool(fooled.any()):
                found[standing[fooled]] = images[fooled]
                keep = ~fooled
                problem, moved, standing = problem.take(keep), moved[keep], standing[keep]
                if not len(standing):
                    return found
        images = moved
    found[standing] = images
    return found
