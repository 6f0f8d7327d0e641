"""The mean over images with its interval: for shares of neurons or spikes, whose counts within one image are no independent draws."""

import math

from torch import Tensor

NORMAL_95 = 1.959964


def mean_interval(values: Tensor, *, low: float = 0.0, high: float = math.inf) -> dict[str, float | None]:
    """Mean and the 95 % interval of the mean, 1.96 standard errors to each side, cut to [low, high].

    values: one for each image, [N], N >= 1. A single image has no interval: both ends are None.
    """
    values = values.double()
    mean = float(values.mean())
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    half = NORMAL_95 * float(values.std(correction=1)) / math.sqrt(len(values))
    return {"mean": mean, "low": max(low, mean - half), "high": min(high, mean + half)}
