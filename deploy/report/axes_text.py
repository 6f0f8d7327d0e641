"""What stands around the axes of a chart: tick positions and their texts, the legend, names at the ends of lines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from matplotlib.ticker import MaxNLocator

from hardspike.deploy.report.chart import TONES
from hardspike.deploy.report.svg import FONT_SIZE, box, fitted, label, shape, text_width
from hardspike.deploy.si_prefix import PREFIXES

# Of texts that would touch if they stood level.
SLOPE = math.radians(40)
WIDTHS = {"small": 210.0, "normal": 420.0, "wide": 860.0}
ROW = 18.0
# Matplotlib's letters; tones that meet in one chart differ in their markers too.
MARKERS = dict(zip(TONES, "os^Dos^Dos^D", strict=True))
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend. line: drawn as a line with its marker, else as a filled square."""

    name: str
    tone: str
    line: bool = False
    dashed: bool = False
    marker: bool = False


def number(value: float, *, percent: bool = False) -> str:
    """At most four digits for small values, whole numbers from 1,000, prefixes from a million: `0.25`, `12,300`, `2.5 M`, `61.2 %`."""
    value = 100 * value if percent else value
    if abs(value) >= 1e6:
        size, prefix = next(one for one in PREFIXES if abs(value) >= one[0])
        text = f"{value / size:,.4g} {prefix}"
    elif abs(value) >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.4g}" if not percent else f"{value:.3g}"
    return text.replace("-", MINUS) + (" %" if percent else "")


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """Round values from low to high, at most `count` + 1 of them."""
    tolerance = 1e-9 * (high - low)
    found = MaxNLocator(count, integer=whole, steps=[1, 2, 5, 10] if whole else [1, 2, 2.5, 5, 10]).tick_values(
        low, high
    )
    # 0.0 is added so that no tick is -0.
    return [float(tick) + 0.0 for tick in found if low - tolerance <= tick <= high + tolerance]


def decades(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, or 1, 2 and 5 times them where those are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 2, 5), range(1, 10)):
        found = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 8)]
    return [low, high]


def every(step: float) -> int:
    """Which of the slanting texts that stand `step` pixels apart can be shown: every first, every second, ..."""
    return max(1, math.ceil((FONT_SIZE + 1) / (math.sin(SLOPE) * max(step, 0.1))))


def legend(keys: Sequence[Key], left: float, top: float, right: float) -> tuple[list[Element], float]:
    """Entries side by side, in as many rows as they need; gives the drawing and the height of the rows."""
    made: list[Element] = []
    x, y = left, top + 0.65 * ROW
    for key in keys:
        name = " ".join(fitted(key.name, right - left - 30))
        width = (30 if key.line else 18) + text_width(name) + 12
        if x > left and x + width - 12 > right:
            x, y = left, y + ROW
        made += [*_sample(key, x, y - 4), label(name, x + (30 if key.line else 18), y, tone="ink")]
        x += width
    return made, y + 0.45 * ROW - top


def end_names(
    ends: Sequence[tuple[float, Key]], from_x: float, x: float, top: float, bottom: float
) -> list[Element] | None:
    """Names beside the ends of lines, moved apart where they would touch; None where there is no room for them.

    ends: height of each line's last point with its name. from_x: of the last points. x: where the names begin.
    """
    least, moved = FONT_SIZE + 2.5, 0.0
    heights: list[float] = []
    for height, _ in sorted(ends, key=lambda end: end[0]):
        heights.append(max(height, heights[-1] + least) if heights else height)
    # What was pushed down too far is pushed up again, from the lowest.
    limit = bottom
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], limit)
        limit = heights[index] - least
    made: list[Element] = []
    for height, (end, key) in zip(heights, sorted(ends, key=lambda end: end[0]), strict=True):
        moved = max(moved, abs(height - end))
        dashes = "; stroke-dasharray: 4 2" if key.dashed else ""
        style = f"fill: none; stroke: var(--{key.tone}); stroke-width: 1.2{dashes}"
        made.append(shape("path", d=f"M{from_x + 5:.1f} {end:.1f}L{x - 12:.1f} {height:.1f}H{x - 4:.1f}", style=style))
        made.append(label(key.name, x, height + 4, tone="ink"))
    return None if heights and (heights[0] < top - 8 or moved > 40) else made


def _sample(key: Key, x: float, y: float) -> list[Element]:
    if not key.line:
        return [box(x, y - 5, 12, 10, f"fill: var(--{key.tone})")]
    dashes = "; stroke-dasharray: 5 3" if key.dashed else ""
    made = [shape("path", d=f"M{x:.1f} {y:.1f}h24", style=f"stroke: var(--{key.tone}); stroke-width: 2{dashes}")]
    return made + ([_marker(key.tone, x + 12, y)] if key.marker else [])


def _marker(tone: str, x: float, y: float) -> Element:
    fill = f"fill: var(--{tone})"
    kind = MARKERS[tone]
    if kind == "o":
        return shape("circle", cx=x, cy=y, r=3.2, style=fill)
    paths = {"s": "m-3-3h6v6h-6z", "^": "m0-3.6l3.6 6.6h-7.2z", "D": "m0-4l4 4-4 4-4-4z"}
    return shape("path", d=f"M{x:.1f} {y:.1f}{paths[kind]}", style=fill)
