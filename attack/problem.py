"""What one attack on one batch is given, and where its random numbers come from.

Random numbers belong to samples, not to batches: sample i of a set gets the same numbers in whatever batch, process or
company it is attacked, so neither batch size nor early leavers nor torchrun change a result.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hardspike.attack.ball import Ball
from hardspike.attack.gradient import Logits, Loss, value_and_gradient
from hardspike.snn.adaptive_surrogate import AdaptiveSharpness, SharpnessRun
from hardspike.snn.surrogate import Activation, Surrogate, active_surrogate, surrogate_gradient


class Draws(Protocol):
    """Random numbers of a batch. `purpose` numbers the uses of one attack: the same purpose, the same numbers."""

    def uniform(self, purpose: int, like: Tensor) -> Tensor:
        """Uniform in [0, 1), in shape, dtype and device of `like`, one row per sample."""
        ...

    def take(self, which: Tensor) -> "Draws":
        """For some of the samples."""
        ...

    def restarted(self, restart: int) -> "Draws":
        """Other numbers for another attempt of the same attack."""
        ...

    def shared(self, purpose: int) -> np.random.Generator:
        """A generator that all samples share; draws must not depend on the batch."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SampleDraws:
    """Counter-based: keyed by seed, attempt, sample and purpose. samples: index of each row in the evaluated set, int64."""

    seed: int
    samples: Tensor
    restart: int = 0

    def uniform(self, purpose: int, like: Tensor) -> Tensor:
        shape = tuple(like.shape[1:])
        rows = [self.generator(purpose, row).random(shape, np.float32) for row in range(len(self.samples))]
        stacked = np.stack(rows) if rows else np.empty((0, *shape), np.float32)
        return torch.from_numpy(stacked).to(like)

    def generator(self, purpose: int, row: int) -> np.random.Generator:
        """The generator of one sample of the batch."""
        return self._generator(1 + int(self.samples[row]), purpose)

    def take(self, which: Tensor) -> "SampleDraws":
        return replace(self, samples=self.samples[which.to(self.samples.device)])

    def restarted(self, restart: int) -> "SampleDraws":
        return replace(self, restart=restart)

    def shared(self, purpose: int) -> np.random.Generator:
        return self._generator(0, purpose)

    def _generator(self, sample: int, purpose: int) -> np.random.Generator:
        # Philox's counter advances within its lowest words; sample and purpose are in the words above them.
        key = np.array([self.seed, self.restart], np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, sample, purpose]))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Problem:
    """One batch to attack. Attacks ask for gradients here, so that they need not know how spikes are differentiated.

    model: images (B, C, H, W) in [0, 1] to logits (B, K), in evaluation mode; differentiable for white-box attacks.
    labels: int64 [B]. surrogate: of the gradients; None for whichever is active. detach_reset: see `surrogate_gradient`.
    passes: forward passes whose gradients are averaged, for models with noise of their own (EOT, Athalye et al. 2018).
    """

    model: Logits
    labels: Tensor
    ball: Ball
    draws: Draws
    surrogate: Surrogate | None = None
    detach_reset: bool | None = None
    passes: int = 1

    @property
    def clean(self) -> Tensor:
        return self.ball.clean

    def __len__(self) -> int:
        return len(self.labels)

    def logits(self, images: Tensor) -> Tensor:
        """The model under this problem's surrogate; a substitute for spikes (`Activation`) changes the numbers themselves."""
        if self.surrogate is None and self.detach_reset is None:
            return self.model(images)
        with surrogate_gradient(self.surrogate or active_surrogate(), self.detach_reset):
            return self.model(images)

    def judged(self, images: Tensor) -> Tensor:
        """Logits of the model as it is, without gradient."""
        with torch.no_grad():
            return self.model(images)

    def fools(self, images: Tensor) -> Tensor:
        """Whether the model as it is puts each image into a wrong class, bool [B]."""
        return self.judged(images).argmax(1) != self.labels

    def value_and_gradient(self, images: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the model as it is (B, K), losses [B] and the gradient of their sum; over `passes` their means."""
        output, losses, gradient = value_and_gradient(self.logits, images, loss)
        if self.passes > 1:
            rest = replace(self, surrogate=self.surrogate.held()) if isinstance(self.surrogate, SharpnessRun) else self
            for _ in range(self.passes - 1):
                more = value_and_gradient(rest.logits, images, loss)
                output, losses, gradient = output + more[0], losses + more[1], gradient + more[2]
            output, losses, gradient = output / self.passes, losses / self.passes, gradient / self.passes
        if isinstance(self.surrogate, Activation):
            output = self.judged(images)
        return output, losses, gradient

    def take(self, which: Tensor) -> "Problem":
        """Some of the samples; which: bool mask or indices."""
        surrogate = self.surrogate.take(which) if isinstance(self.surrogate, SharpnessRun) else self.surrogate
        return replace(
            self,
            labels=self.labels[which],
            ball=self.ball.take(which),
            draws=self.draws.take(which),
            surrogate=surrogate,
        )

    def fresh(self) -> "Problem":
        """The same at the beginning of a run: a surrogate that learns along an attack has learnt nothing yet."""
        if isinstance(self.surrogate, AdaptiveSharpness | SharpnessRun):
            return replace(self, surrogate=self.surrogate.begin())
        return self
