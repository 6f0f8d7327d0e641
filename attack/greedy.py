"""Greedy PGD: at each step and for each sample the surrogate gradient that helps most, because no single one is best for all."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hardspike.attack.gradient import cross_entropy, margin
from hardspike.attack.pgd import LossOfLabels
from hardspike.attack.problem import Problem
from hardspike.snn.surrogate import Surrogate


def greedy(
    problem: Problem,
    loss: LossOfLabels = cross_entropy,
    *,
    surrogates: Sequence[Surrogate],
    steps: int,
    step_size: float,
    start: Tensor,
) -> Tensor:
    """PGD that tries one step along each surrogate's gradient and keeps, per sample and step, the one with the largest margin.

    In the spirit of MDSE (Xu et al., arXiv 2209.03358 v4), whose own selection is not public. A step costs a gradient and a
    forward pass per surrogate. Samples leave with the first candidate that fools the model.
    """
    images = problem.ball.project(start)
    found = images.clone()
    standing = torch.arange(len(problem), device=images.device)
    rules = [replace(problem, surrogate=surrogate).fresh() for surrogate in surrogates]
    for _ in range(steps):
        best, best_margin = images, torch.full((len(images),), -float("inf"), device=images.device)
        for rule in rules:
            _, _, gradient = rule.value_and_gradient(images, loss(rule.labels))
            candidate = rule.ball.project(images + rule.ball.step(gradient, step_size))
            reached = margin(rule.judged(candidate), rule.labels)
            better = reached > best_margin
            best = torch.where(better.view(-1, *[1] * (images.ndim - 1)), candidate, best)
            best_margin = torch.where(better, reached, best_margin)
        images = best
        found[standing] = images
        keep = best_margin <= 0
        if not bool(keep.all()):
            rules = [rule.take(keep) for rule in rules]
            images, standing = images[keep], standing[keep]
            if not len(standing):
                break
    return found
