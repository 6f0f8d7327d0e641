"""The random numbers of one training batch, drawn for the whole batch even where a process computes only a part of it.

So a batch that is divided among processes meets the same noise, mixes and augmentations as on one process.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Draws:
    """generator: on the CPU. batch: size of the whole batch; rows: those of this process, in order."""

    generator: torch.Generator
    batch: int
    rows: slice

    def uniform(self, like: Tensor) -> Tensor:
        """In [0, 1), the shape of `like`, whose rows are this process's."""
        whole = torch.rand((self.batch, *like.shape[1:]), generator=self.generator)
        return whole[self.rows].to(like)

    def normal(self, like: Tensor) -> Tensor:
        whole = torch.randn((self.batch, *like.shape[1:]), generator=self.generator)
        return whole[self.rows].to(like)

    def index(self, count: int) -> int:
        """One of 0 .. count - 1, uniformly."""
        return int(torch.randint(count, (), generator=self.generator)) if count > 1 else 0


def whole(generator: torch.Generator, batch: int) -> Draws:
    """For one process that has the whole batch."""
    return Draws(generator, batch, slice(0, batch))
