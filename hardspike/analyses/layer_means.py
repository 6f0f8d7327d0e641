"""Means over images of what was measured on each layer's maps: as bars, as numbers, and whether two methods differ."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from hardspike.analyses.explanations import Method
from hardspike.analyses.mean_interval import mean_interval
from hardspike.deploy.report.chart import Bars

# One value per image [B], by method and layer.
Measured = Mapping[Method, Mapping[str, Tensor]]


def direction(differences: Tensor) -> int:
    """1 or -1 where the mean of paired differences [B] is beyond its 95 % interval above or below 0, else 0 (one image: 0)."""
    found = mean_interval(differences, low=-math.inf)
    if found["low"] is None or found["high"] is None:
        return 0
    return (found["low"] > 0) - (found["high"] < 0)


def layer_bars(measured: Measured, layers: Sequence[str]) -> tuple[Bars, ...]:
    """One group for each method, with a bar for each layer and its interval."""
    bars = []
    for method, by_layer in measured.items():
        means, lows, highs = zip(*(mean_interval(by_layer[name]).values() for name in layers), strict=True)
        bars.append(Bars(name=method.label, tone=method.tone, values=means, low=lows, high=highs))
    return tuple(bars)


def layer_values(measured: Measured) -> dict[str, dict[str, dict[str, float | None]]]:
    """mean, low and high by method's key and layer."""
    return {
        method.key: {name: mean_interval(values) for name, values in by_layer.items()}
        for method, by_layer in measured.items()
    }
