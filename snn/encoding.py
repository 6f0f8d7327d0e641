"""From normalised images to what the first layer receives at each timestep.

Poisson coding as the published codes have it (hybrid conversion, the attack code of ECCV 2020, BNTT, SAM): a pixel x of the
normalised image sends sign(x) with probability min(1, rate |x|) at each step. The papers print N(0, 1) numbers or the
comparison reversed; the codes draw from U[0, 1). On images that are not centred (mean 0, std 1) spikes are never negative.
"""

from typing import Any

import torch
from torch import Tensor


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, bits: int) -> Tensor:
        top = (1 << bits) - 1
        return torch.round(images * top) / top

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def quantised(images: Tensor, bits: int) -> Tensor:
    """Images in [0, 1] rounded to k / (2^bits - 1), straight-through (the natural reading of ECCV 2020, Fig. 2; unconfirmed)."""
    result: Tensor = _Round.apply(images, bits)  # type: ignore[no-untyped-call]
    return result


class _Poisson(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, uniform_TB: Tensor, rate: float) -> Tensor:
        return (uniform_TB <= rate * values.abs()).to(values.dtype) * values.sign()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].sum(0), None, None


def poisson_spikes(values: Tensor, uniform_TB: Tensor, rate: float) -> Tensor:
    """Spikes -1, 0 or 1, shape [T, B, ...], of normalised pixels [B, ...].

    uniform_TB: uniform in [0, 1), [T, B, ...]. The gradient is straight-through, d spike / d value = 1 at each step: with it,
    backpropagation through time is exactly the SNN-crafted attack of ECCV 2020 (Alg. 1).
    """
    result: Tensor = _Poisson.apply(values, uniform_TB, rate)  # type: ignore[no-untyped-call]
    return result


class NoiseSource:
    """The random numbers of a network's own noise (Poisson spikes, dropout), drawn on the CPU so that all devices agree.

    A copy of the network continues from the same state, on its own.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __deepcopy__(self, memo: dict[int, Any]) -> "NoiseSource":
        twin = NoiseSource(0)
        twin.generator.set_state(self.generator.get_state())
        return twin

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=like.dtype).to(like.device)
