"""How far two networks' neurons are apart, batch by batch: correlation of rates, equal spikes, and the first step that differs."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

ROUNDING = 1e-12


@dataclass(slots=True)
class RunningCorrelation:
    """Pearson's correlation of pairs that arrive in batches (Chan, Golub and LeVeque's update of means and squares)."""

    count: int = 0
    means: tuple[float, float] = (0.0, 0.0)
    squares: tuple[float, float] = (0.0, 0.0)
    products: float = 0.0
    low: tuple[float, float] = (math.inf, math.inf)
    high: tuple[float, float] = (-math.inf, -math.inf)

    def add(self, first: Tensor, second: Tensor) -> None:
        """Two tensors of the same size; their elements in order are the pairs."""
        pair = first.double().flatten(), second.double().flatten()
        new = len(pair[0])
        if not new:
            return
        means = float(pair[0].mean()), float(pair[1].mean())
        centred = pair[0] - means[0], pair[1] - means[1]
        shift = means[0] - self.means[0], means[1] - self.means[1]
        share = self.count * new / (self.count + new)
        self.squares = (
            self.squares[0] + float(centred[0] @ centred[0]) + share * shift[0] ** 2,
            self.squares[1] + float(centred[1] @ centred[1]) + share * shift[1] ** 2,
        )
        self.products += float(centred[0] @ centred[1]) + share * shift[0] * shift[1]
        part = new / (self.count + new)
        self.means = self.means[0] + part * shift[0], self.means[1] + part * shift[1]
        self.low = min(self.low[0], float(pair[0].min())), min(self.low[1], float(pair[1].min()))
        self.high = max(self.high[0], float(pair[0].max())), max(self.high[1], float(pair[1].max()))
        self.count += new

    @property
    def value(self) -> float | None:
        """In [-1, 1]; None where one side is constant, which correlates with nothing."""
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            return None
        norm = math.sqrt(self.squares[0]) * math.sqrt(self.squares[1])
        return max(-1.0, min(1.0, self.products / norm)) if norm > 0 else None


def first_difference(first_TB: Tensor, second_TB: Tensor) -> Tensor:
    """The first step, counted from 1, at which any spike of a sample differs; 0 where none does. [T, B, ...] twice; int64 [B]."""
    differs_TB = (first_TB != second_TB).flatten(2).any(2)
    first = differs_TB.to(torch.uint8).argmax(0) + 1
    return torch.where(differs_TB.any(0), first, 0)


def equal_share(first_TB: Tensor, second_TB: Tensor) -> Tensor:
    """Share of the spikes and silences of each sample that are the same in both; float64 [B]."""
    return (first_TB == second_TB).flatten(2).double().mean((0, 2))


def diverged_by(first_steps: Tensor, steps: int) -> list[int]:
    """Samples that differ by the end of step 1..steps, from what `first_difference` gives."""
    return [int(((first_steps > 0) & (first_steps <= t)).sum()) for t in range(1, steps + 1)]


@dataclass(slots=True)
class LayerPair:
    """One layer of two networks. Spikes are only compared between networks that have timesteps."""

    correlation: RunningCorrelation = field(default_factory=RunningCorrelation)
    equal: list[Tensor] = field(default_factory=list)
    first_steps: list[Tensor] = field(default_factory=list)

    def add(self, first_TB: Tensor, second_TB: Tensor, *, spikes: bool) -> None:
        """[T, B, ...]; activations of an ANN have T = 1 and stand for a rate."""
        self.correlation.add(first_TB.double().mean(0), second_TB.double().mean(0))
        if spikes:
            first_TB, second_TB = first_TB.bool(), second_TB.bool()
            self.equal.append(equal_share(first_TB, second_TB))
            self.first_steps.append(first_difference(first_TB, second_TB))


def largest_drop(correlations: list[float | None]) -> tuple[int, float, float] | None:
    """Index of the layer behind which the correlation has fallen most, from and to what; None where it never falls.

    In front of the first layer both networks see the same image: there it is 1. Undefined values are passed over, and so is a
    fall within float rounding.
    """
    before, worst = 1.0, None
    for index, value in enumerate(correlations):
        if value is None:
            continue
        if before - value > ROUNDING and (worst is None or before - value > worst[1] - worst[2]):
            worst = index, before, value
        before = value
    return worst
