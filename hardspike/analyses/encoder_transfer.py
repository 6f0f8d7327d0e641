"""What an input coding makes of a pixel value: mean output over T steps against the value (ECCV 2020, Fig. 3)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.analyses.one_neuron import float_rates
from hardspike.snn.encoding import NoiseSource, poisson_spikes
from hardspike.snn.membrane import NeuronSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """y: mean output for each x. low, high: where 95 % of single encodings lie; y itself where the coding draws nothing."""

    steps: int
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def poisson_transfer(values: Tensor, *, steps: int, rate: float, draws: int, seed: int) -> Transfer:
    """Mean over T of the signed spikes of normalised pixels [M], over `draws` encodings; in [-1, 1]."""
    like = values.double().expand(draws, -1)
    noise = NoiseSource(seed)
    total = torch.zeros_like(like)
    for _ in range(steps):
        total += poisson_spikes(like, noise.uniform((1, *like.shape), like), rate)[0]
    means = total / steps
    ends = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return Transfer(
        steps=steps,
        y=tuple(means.mean(0).tolist()),
        low=tuple(ends[0].tolist()),
        high=tuple(ends[1].tolist()),
    )


def poisson_ideal(values: Tensor, rate: float) -> Tensor:
    """What the mean tends to: clip(rate x, -1, 1)."""
    return (rate * values.double()).clamp(-1, 1)


def direct_transfer(values: Tensor, *, steps: int, settings: NeuronSettings, threshold: float) -> Transfer:
    """Rate of a first-layer neuron whose current is constant, for currents [M] given as shares of its threshold."""
    y = tuple(float_rates(values * threshold, settings, threshold=threshold, steps=steps).tolist())
    return Transfer(steps=steps, y=y, low=y, high=y)


def direct_ideal(values: Tensor) -> Tensor:
    """Of a neuron that loses nothing: clip(current / threshold, 0, 1)."""
    return values.double().clamp(0, 1)


def deviation(transfer: Transfer, ideal: Tensor) -> float:
    """Mean distance of the curve from the ideal line."""
    return float((torch.tensor(transfer.y, dtype=torch.float64) - ideal).abs().mean())
