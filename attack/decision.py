"""HopSkipJump (Chen et al. 2020), a decision-based attack: it sees classes alone, so there is nothing to mask. Slow.

The attack is foolbox's (the extra `decision`); here it is given a budget of queries, watched from outside, and made to depend on
nothing but the sample.
"""

import warnings
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from hardspike.attack.ball import overshoot
from hardspike.attack.gradient import Logits
from hardspike.attack.problem import Problem
from hardspike.snn.errors import SettingsError

# More than any budget of queries reaches; the budget ends the attack.
STEPS = 10_000


def boundary_attack(problem: Problem, *, queries: int) -> Tensor:
    """Per sample the first image of the ball that fooled the model within `queries` forward passes, else the clean image.

    Raises SettingsError where foolbox is not installed.
    """
    foolbox = _foolbox()
    found = problem.clean.clone()
    for row in range(len(problem)):
        sample = problem.take(torch.tensor([row]))
        watched = _Watched(problem.model, sample, queries)
        seed = int(problem.draws.take(torch.tensor([row])).uniform(0, sample.clean).flatten()[0] * 2**24)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            with suppress(_DoneError):
                _run(foolbox, watched, sample)
        if watched.found is not None:
            found[row] = watched.found
    return found


def _run(foolbox: Any, watched: "_Watched", sample: Problem) -> None:
    model = foolbox.PyTorchModel(watched.eval(), bounds=(0, 1), device=sample.clean.device)
    start = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(distance=None, steps=20)
    constraint = sample.ball.norm
    attack = foolbox.attacks.HopSkipJumpAttack(init_attack=start, steps=STEPS, constraint=constraint)
    attack.run(model, sample.clean, foolbox.criteria.Misclassification(sample.labels))


class _DoneError(Exception):
    """The sample is broken within the ball, or the budget is spent."""


class _Watched(nn.Module):
    """The model, counting queries and keeping the first wrong image inside the ball."""

    def __init__(self, model: Logits, sample: Problem, queries: int) -> None:
        super().__init__()
        self._model, self._label, self._ball, self._left = model, int(sample.labels[0]), sample.ball, queries
        self.found: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        if self._left < len(images):
            raise _DoneError
        self._left -= len(images)
        with torch.no_grad():
            output = self._model(images)
        wrong = output.argmax(1) != self._label
        for image in images[wrong]:
            if overshoot(image[None], self._ball) <= 0:
                self.found = image
                raise _DoneError
        return output


def _foolbox() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # foolbox 3.3.4 imports scipy by old names
            import foolbox
    except ImportError:
        raise SettingsError(
            "attack 'hop-skip-jump': needs foolbox, which is not installed; install hardspike[decision], or leave it out"
        ) from None
    return foolbox
