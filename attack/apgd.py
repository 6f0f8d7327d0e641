"""APGD: gradient ascent with momentum whose step size halves where the loss stops rising (Croce & Hein 2020, arXiv 2003.01690).

Details that the paper leaves open are those of the authors' code, so that results are equal image by image. Two of them look
like slips and are kept: at the first check-point the first comparison is with a loss of 0, and a step that was never halved
counts as halved at the check-point before the first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from hardspike.attack.ball import Ball
from hardspike.attack.gradient import Loss, targeted_ratio
from hardspike.attack.pgd import LossOfLabels
from hardspike.attack.problem import Problem
from hardspike.attack.standing import Found, in_turn, other_classes

# The share of a step that is new; the rest repeats the step before.
NEW_SHARE = 0.75

# From the problem of the samples that are left, and their places among those the climb began with.
_LossOfRows = Callable[[Problem, Tensor], Loss]


def apgd(problem: Problem, loss: LossOfLabels, *, steps: int, rho: float = 0.75, stop_early: bool = True) -> Tensor:
    """Images (B, C, H, W) that fool the model where a climb of `steps` steps found one, the clean ones elsewhere.

    loss: `cross_entropy` (APGD-CE) or `logits_ratio` (APGD-DLR, three classes or more). rho: a step halves unless more than
    this share of them raised the loss. stop_early: a sample leaves with its first iterate that fools the model; otherwise its
    last such iterate is returned, as the authors' code does. Which samples are fooled is the same.
    """

    def climb(rest: Problem, _: Tensor) -> Found:
        start = rest.ball.surface(rest.draws.uniform(0, rest.clean))
        return _climb(rest, start, lambda left, _: loss(left.labels), steps, rho, stop_early)

    return in_turn(problem, [climb])


def apgd_targeted(
    problem: Problem, *, steps: int, targets: int = 9, rho: float = 0.75, stop_early: bool = True
) -> Tensor:
    """APGD towards each of the `targets` classes that the model ranks next after the label on the clean image, in turn (APGD-T).

    The loss is the targeted DLR; it compares four logits, so with two or three classes it is the target's logit minus the
    label's. With K classes there are at most K - 1 targets. The rest is as in `apgd`.
    """

    def climb(rank: int, rest: Problem, clean_logits: Tensor) -> Found:
        chosen = other_classes(clean_logits, rest.labels)
        if rank >= chosen.shape[1]:
            return rest.clean, torch.zeros_like(rest.labels, dtype=torch.bool)
        towards = targeted_ratio if clean_logits.shape[1] > 3 else target_margin
        start = rest.ball.surface(rest.draws.uniform(rank, rest.clean))
        return _climb(rest, start, lambda left, rows: towards(left.labels, chosen[rows, rank]), steps, rho, stop_early)

    return in_turn(problem, (partial(climb, rank) for rank in range(targets)))


def target_margin(labels: Tensor, targets: Tensor) -> Loss:
    """The target's logit minus the label's, per sample [B]; labels and targets int64 [B]."""
    return lambda logits: (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


@dataclass(slots=True, eq=False)
class _Iterate:
    """Where a climb is, per sample. history: loss after each step (B, steps), 0 where not there yet."""

    images: Tensor
    previous: Tensor
    gradient: Tensor
    best_images: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    step_size: Tensor
    best_at_check: Tensor
    was_halved: Tensor
    history: Tensor

    def take(self, which: Tensor) -> "_Iterate":
        return _Iterate(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    def move(self, ball: Ball, new_share: float) -> None:
        carried = (self.images - self.previous) * (1 - new_share)
        self.previous = self.images
        ahead = ball.project(self.images + self.step_size * ball.step(self.gradient, 1.0))
        self.images = ball.project(self.images + (ahead - self.images) * new_share + carried)

    def record(self, step: int, losses: Tensor, gradient: Tensor) -> None:
        better = losses > self.best_loss
        self.gradient = gradient
        self.best_images = _where(better, self.images, self.best_images)
        self.best_gradient = _where(better, gradient, self.best_gradient)
        self.best_loss = torch.where(better, losses, self.best_loss)
        self.history[:, step] = losses

    def check(self, step: int, window: int, rho: float) -> None:
        """Halve the step and go back to the best iterate where too few of the last `window` steps raised the loss."""
        rises = torch.zeros_like(self.best_loss)
        for at in range(step, step - window, -1):
            rises += self.history[:, at] > self.history[:, at - 1]  # index -1, not reached yet, holds 0: see the module
        stalled = ~self.was_halved & (self.best_at_check >= self.best_loss)
        halve = (rises <= rho * window) | stalled
        self.was_halved, self.best_at_check = halve, self.best_loss
        self.step_size = _where(halve, self.step_size / 2, self.step_size)
        self.images = _where(halve, self.best_images, self.images)
        self.gradient = _where(halve, self.best_gradient, self.gradient)


def _where(which: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(which.view(-1, *[1] * (yes.ndim - 1)), yes, no)


def check_points(steps: int) -> Iterator[tuple[int, int]]:
    """Steps, counted from 0, after which the step size is reconsidered, each with the number of steps since the last one."""
    window = max(int(0.22 * steps), 1)
    step = window - 1
    while step < steps:
        yield step, window
        window = max(window - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
        step += window


def _climb(problem: Problem, start: Tensor, loss: _LossOfRows, steps: int, rho: float, stop_early: bool) -> Found:
    found = start.clone()
    fooled = torch.zeros_like(problem.labels, dtype=torch.bool)
    rows = torch.arange(len(problem), device=start.device)
    windows = dict(check_points(steps))
    output, losses, gradient = problem.value_and_gradient(start, loss(problem, rows))
    now = _Iterate(
        images=start,
        previous=start,
        gradient=gradient,
        best_images=start,
        best_gradient=gradient,
        best_loss=losses,
        step_size=2 * problem.ball.eps * torch.ones_like(gradient[:, :1, :1, :1]),
        best_at_check=losses,
        was_halved=torch.ones_like(fooled),
        history=losses.new_zeros(len(losses), steps),
    )
    hit = output.argmax(1) != problem.labels
    fooled |= hit
    for step in range(steps):
        if stop_early and bool(hit.any()):
            keep = ~hit
            problem, now, rows = problem.take(keep), now.take(keep), rows[keep]
            if not len(rows):
                break
        now.move(problem.ball, NEW_SHARE if step else 1.0)
        if step == steps - 1:  # no step follows, so no gradient is needed
            hit = problem.fools(now.images)
        else:
            output, losses, gradient = problem.value_and_gradient(now.images, loss(problem, rows))
            hit = output.argmax(1) != problem.labels
        found[rows[hit]] = now.images[hit]
        fooled[rows[hit]] = True
        if step < steps - 1:
            now.record(step, losses, gradient)
            if step in windows:
                now.check(step, windows[step], rho)
    return found, fooled
