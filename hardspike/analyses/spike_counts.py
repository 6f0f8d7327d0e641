"""Coding efficiency (arXiv 2311.09266, 5.3): how many spikes the hidden neurons spend on each image, and how many neurons fire at all."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.deploy.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpikeCounts:
    """What the hidden neurons of one network did on one set of images.

    spikes: int64 [T, N] per layer. active: int64 [N] per layer, neurons that fired at least once. sizes: neurons per layer.
    """

    spikes: Mapping[str, Tensor]
    active: Mapping[str, Tensor]
    sizes: Mapping[str, int]

    @staticmethod
    def of_spikes(layers: Mapping[str, Tensor], sizes: Mapping[str, int]) -> "SpikeCounts":
        """layers: spikes 0 or 1, [T, N, ...]; only those in `sizes` are counted."""
        fired = {name: layers[name].bool().flatten(2) for name in sizes}
        return SpikeCounts(
            spikes={name: value.sum(2) for name, value in fired.items()},
            active={name: value.any(0).sum(1) for name, value in fired.items()},
            sizes=sizes,
        )

    @staticmethod
    def of_trace(trace: Trace, sizes: Mapping[str, int], count: int) -> "SpikeCounts":
        """The first `count` samples of a trace."""
        return SpikeCounts(
            spikes={name: trace.spikes[name][:, :count] for name in sizes},
            active={name: trace.active[name][:count] for name in sizes},
            sizes=sizes,
        )

    @staticmethod
    def joined(parts: Iterable["SpikeCounts"]) -> "SpikeCounts":
        """Consecutive images of one set."""
        parts = list(parts)
        sizes = parts[0].sizes
        return SpikeCounts(
            spikes={name: torch.cat([part.spikes[name] for part in parts], 1) for name in sizes},
            active={name: torch.cat([part.active[name] for part in parts]) for name in sizes},
            sizes=sizes,
        )

    def __len__(self) -> int:
        return int(next(iter(self.active.values())).shape[0])

    @property
    def steps(self) -> int:
        return len(next(iter(self.spikes.values())))

    @property
    def neurons(self) -> int:
        return sum(self.sizes.values())

    @property
    def totals(self) -> Tensor:
        """Spikes per image over all hidden neurons and steps, int64 [N]."""
        return torch.stack([value.sum(0) for value in self.spikes.values()]).sum(0)

    @property
    def shares(self) -> Tensor:
        """Of the spikes that could be, total / (neurons * T); float64 [N]. The paper's "% active"."""
        return self.totals.double() / (self.neurons * self.steps)

    @property
    def active_shares(self) -> Tensor:
        """Neurons that fired at least once, of all hidden ones; float64 [N]."""
        return torch.stack(list(self.active.values())).sum(0).double() / self.neurons

    def layer_shares(self, name: str) -> Tensor:
        """spikes / (neurons * T) of one layer; float64 [N]."""
        return self.spikes[name].sum(0).double() / (self.sizes[name] * self.steps)

    def step_shares(self) -> Tensor:
        """Share of hidden neurons that fire at each step, float64 [T, N]."""
        return torch.stack(list(self.spikes.values())).sum(0).double() / self.neurons


def class_means(totals: Tensor, labels: Tensor, num_classes: int) -> list[float | None]:
    """Mean of `totals` over the images of each class; None for a class without images."""
    found: list[float | None] = []
    for label in range(num_classes):
        own = totals[labels == label]
        found.append(float(own.double().mean()) if len(own) else None)
    return found


def histogram_edges(series: Iterable[Tensor], bins: int) -> tuple[float, ...]:
    """Equal bins from the smallest value of all series to the largest; half a unit to each side where there is one value only."""
    values = torch.cat([one.double() for one in series])
    low, high = float(values.min()), float(values.max())
    if low == high:
        return (low - 0.5, low + 0.5)
    return (*(low + (high - low) * index / bins for index in range(bins)), high)


def histogram_counts(values: Tensor, edges: tuple[float, ...]) -> tuple[float, ...]:
    """Values in each bin; a bin holds its lower edge, the last one both."""
    inner = torch.tensor(edges[1:-1], dtype=torch.float64)
    index = torch.bucketize(values.double(), inner, right=True)
    return tuple(float(count) for count in torch.bincount(index, minlength=len(edges) - 1))
