"""How far the weights of a synapse reach, and how much of that reach its integers keep.

Rules for the scale, by name:

- `max`: nothing is clipped.
- `percentile:P`: the largest 100 - P percent of the nonzero weights are clipped, so that the others get finer steps.
- `search`: of scales up to CLIP_MOST times that of `max`, the one whose integers have the least squared error (weights only).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hardspike.snn.errors import SettingsError

CLIP_MOST, CANDIDATES = 4.0, 61
BLOCK = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightRange:
    """Float weights, the distance of legal integers, and the smallest and largest of them, at exponent 0."""

    values: NDArray[np.float64]
    step: int
    least: int
    most: int

    @property
    def mixed(self) -> bool:
        return self.least < 0 < self.most

    @property
    def key(self) -> str:
        """The profile's key of these limits."""
        return "mixed_weight" if self.mixed else "positive_weight" if self.most > 0 else "negative_weight"

    def scale_at(self, high: float, low: float) -> float:
        """The scale at which these weights reach the limits; low <= 0 <= high."""
        return min(self.most / high if high > 0 else np.inf, self.least / low if low < 0 else np.inf)

    @property
    def unclipped(self) -> float:
        return self.scale_at(float(self.values.max()), float(self.values.min()))

    def exponent(self, scale: float, rule: "ScaleRule") -> int:
        """The least for which the rule lets this synapse have the scale."""
        own, exponent = rule.scale_of(self), 0
        while scale > own * 2**exponent * (1 + 1e-9):
            exponent += 1
        return exponent

    def squared_error(self, scale: float) -> float:
        # Block by block in the cache, in place: a search asks for dozens of scales.
        total, low, high = 0.0, self.least / self.step, self.most / self.step
        values = self.values.reshape(-1)
        for start in range(0, values.size, BLOCK):
            exact = values[start : start + BLOCK] * (scale / self.step)
            steps = np.rint(exact)
            np.clip(steps, low, high, out=steps)
            steps -= exact
            total += float(np.dot(steps, steps))
        return total * (self.step / scale) ** 2


@dataclass(frozen=True, slots=True)
class ScaleRule:
    """kind: see the module. percentile: of `percentile` alone."""

    kind: Literal["max", "percentile", "search"]
    percentile: float = 100.0

    def scale_of(self, found: WeightRange) -> float:
        """Of a synapse alone."""
        if self.kind == "max":
            return found.unclipped
        if self.kind == "percentile":
            present = np.abs(found.values[found.values != 0])
            reach = float(np.percentile(present, self.percentile))
            return max(
                found.unclipped,
                found.scale_at(min(reach, float(found.values.max())), max(-reach, float(found.values.min()))),
            )
        scales = found.unclipped * np.geomspace(1, CLIP_MOST, CANDIDATES)
        return float(min(scales, key=found.squared_error))

    def largest_scale(self, ranges: Sequence[WeightRange], exponent_max: int) -> tuple[float, WeightRange]:
        """Of a layer: that of the synapse with the smallest weights, if exponents let the others follow; and whose it is."""
        scales = [self.scale_of(found) for found in ranges]
        reachable = min(scales) * 2**exponent_max
        scale = max(scales)
        if scale > reachable:
            return reachable, ranges[scales.index(min(scales))]
        return scale, ranges[scales.index(scale)]


def parse_scale_rule(text: str) -> ScaleRule:
    """`max`, `percentile:99.9` or `search`. Raises SettingsError."""
    kind, _, number = text.partition(":")
    if kind in ("max", "search") and not number:
        return ScaleRule("max" if kind == "max" else "search")
    try:
        percentile = float(number)
    except ValueError:
        percentile = 0.0
    if kind != "percentile" or not 50 <= percentile <= 100:
        raise SettingsError(
            f"deploy.scale = '{text}' is not allowed; use max, search, or percentile:P with P from 50 to 100"
        )
    return ScaleRule("percentile", percentile)
