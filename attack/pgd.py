"""FGSM, RFGSM and PGD: signed gradient steps (their L2 forms: normalised ones), projected to the ball."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hardspike.attack.gradient import Loss, cross_entropy
from hardspike.attack.problem import Problem
from hardspike.snn.surrogate import Surrogate

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
    surrogates: Sequence[Surrogate] = (),
) -> Tensor:
    """`steps` signed gradient steps from `start`, each projected (Madry et al. 2018).

    stop_early: a sample leaves with its first iterate that fools the model; the forward pass that the gradient needs shows it.
    Otherwise, and where none does, the last iterate.
    surrogates: follow the mean of their gradients, as they are, rather than the problem's own (MIXPGD, ICLR 2024).
    """
    rules = [replace(problem, surrogate=surrogate).fresh() for surrogate in surrogates] or [problem]
    ball, labels = problem.ball, problem.labels
    images = ball.project(start)
    found = images.clone()
    standing = torch.arange(len(problem), device=images.device)
    for _ in range(steps):
        results = [rule.value_and_gradient(images, loss(labels)) for rule in rules]
        gradient = results[0][2] if len(rules) == 1 else torch.stack([result[2] for result in results]).mean(0)
        moved = ball.project(images + ball.step(gradient, step_size))
        keep = results[0][0].argmax(1) == labels
        if stop_early and not bool(keep.all()):
            found[standing[~keep]] = images[~keep]
            rules = [rule.take(keep) for rule in rules]
            ball, labels = rules[0].ball, rules[0].labels
            moved, standing = moved[keep], standing[keep]
            if not len(standing):
                return found
        images = moved
    found[standing] = images
    return found
