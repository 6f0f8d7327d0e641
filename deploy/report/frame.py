"""The rectangle that the axes of a chart span: from values to pixels, grid lines, and Matplotlib's axes in the same place."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hardspike.deploy.report.svg import shape

POINTS_PER_INCH = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """width, height: of the whole drawing. left, right, top, bottom: of the rectangle, pixels from the left and from the top.

    x, y: values at its left and right, and at its bottom and top. x_log: x is spaced by its logarithm.
    """

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]
    x_log: bool = False

    def across(self, x: float) -> float:
        low, high = self.x
        share = math.log(x / low) / math.log(high / low) if self.x_log else (x - low) / (high - low)
        return self.left + (self.right - self.left) * share

    def down(self, y: float) -> float:
        return self.bottom - (self.bottom - self.top) * (y - self.y[0]) / (self.y[1] - self.y[0])

    def horizontal(self, at: Iterable[float], tone: str) -> list[Element]:
        return [_rule(f"M{self.left:g} {self.down(y):.2f}H{self.right:g}", tone) for y in at]

    def vertical(self, at: Iterable[float], tone: str) -> list[Element]:
        return [_rule(f"M{self.across(x):.2f} {self.top:g}V{self.bottom:g}", tone) for x in at]

    def base(self, marks: Iterable[float]) -> list[Element]:
        """The line below, with a short mark at each of these x."""
        line = f"M{self.left:g} {self.bottom:g}H{self.right:g}"
        return [_rule(line + "".join(f"M{self.across(x):.2f} {self.bottom:g}v4" for x in marks), "soft")]

    def make_axes(self) -> tuple[Figure, Axes]:
        """Axes that show nothing of themselves. Letting Matplotlib measure margins and draw ticks would cost most of the time."""
        figure = Figure(figsize=(self.width / POINTS_PER_INCH, self.height / POINTS_PER_INCH))
        figure.patch.set_alpha(0)
        place = (self.left, self.height - self.bottom, self.right - self.left, self.bottom - self.top)
        sides = (self.width, self.height, self.width, self.height)
        left, bottom, width, height = (pixels / side for pixels, side in zip(place, sides, strict=True))
        axes = figure.add_axes((left, bottom, width, height))
        axes.set_axis_off()
        if self.x_log:
            axes.set_xscale("log")
        axes.set_xlim(*self.x)
        axes.set_ylim(*self.y)
        axes.set_autoscale_on(False)
        return figure, axes


def _rule(path: str, tone: str) -> Element:
    return shape("path", d=path, style=f"fill: none; stroke: var(--{tone}); stroke-width: 0.8")
