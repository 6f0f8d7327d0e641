"""Line charts: gaps where there is no value, whiskers or bands for intervals, names at the ends of the lines where there is room."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from xml.etree.ElementTree import Element

from matplotlib.axes import Axes

from hardspike.deploy.report.axes_text import (
    MARKERS,
    ROW,
    SLOPE,
    WIDTHS,
    Key,
    decades,
    end_names,
    every,
    legend,
    number,
    ticks,
)
from hardspike.deploy.report.chart import Line, LineChart, Value
from hardspike.deploy.report.svg import COLOURS, label, make_axes, plain_text, plotted, text_width

PLOT_HEIGHTS = {"small": 104.0, "normal": 220.0, "wide": 260.0}
# Up to so many points a line has whiskers, beyond a band.
MOST_WHISKERS = 12
LONGEST_TICK = 18
LONGEST_NAMES = {"small": 20, "normal": 24, "wide": 40}


def draw_lines(chart: LineChart, *, top: float, keyed: bool) -> tuple[float, float, list[Element]]:
    """Width, height and drawing. top: pixels left free above. keyed: with the names of the lines, where there are more than one."""
    width, unit = WIDTHS[chart.width], 100 if chart.percent else 1
    marked = chart.markers and max((len(line.x) for line in chart.lines), default=0) * 9 < width
    keys = (
        [_key(line, LONGEST_NAMES[chart.width], marked=marked) for line in chart.lines]
        if keyed and len(chart.lines) > 1
        else []
    )
    x_low, x_high = _x_range(chart)
    y_low, y_high = _y_range(chart)
    y_ticks = ticks(unit * y_low, unit * y_high, 3 if chart.width == "small" else 5)
    y_texts = [number(tick / unit, percent=chart.percent) for tick in y_ticks]
    left = 10 + max(map(text_width, y_texts), default=0)
    names = 22 + max((text_width(key.name) for key in keys), default=0)
    at_ends = _may_stand_at_ends(chart, keys, names, width)
    for direct in (True, False) if at_ends else (False,):
        right = names if direct else 10.0
        made: list[Element] = []
        above = top
        if keys and not direct:
            made, used = legend(keys, 0, top, width)
            above += used
        if chart.y_label:
            made.append(label(plain_text(chart.y_label, int(width / text_width("x"))), 0, above + 0.65 * ROW))
            above += ROW
        above += 6
        plot_bottom = above + PLOT_HEIGHTS[chart.width]
        x_ticks, x_texts = _x_ticks(chart, x_low, x_high, width - left - right)
        position = _scale(x_low, x_high, left, width - right, log=chart.x_log)
        height_of = _scale(unit * y_low, unit * y_high, plot_bottom, above)
        texts, depth, left_over = _x_texts(x_ticks, x_texts, [position(x) for x in x_ticks], plot_bottom, left)
        if left_over > 0:
            left += left_over
            position = _scale(x_low, x_high, left, width - right, log=chart.x_log)
            texts, depth, _ = _x_texts(x_ticks, x_texts, [position(x) for x in x_ticks], plot_bottom, left)
        if direct:
            ends = [(height_of(unit * _last(line)[1]), key) for line, key in zip(chart.lines, keys, strict=True)]
            placed = end_names(
                ends, position(max(_last(line)[0] for line in chart.lines)), width - right + 18, above, plot_bottom
            )
            if placed is None:
                continue
            made += placed
        break
    made += [
        label(text, left - 7, height_of(tick) + 4, anchor="end") for tick, text in zip(y_ticks, y_texts, strict=True)
    ]
    made += texts
    if not any(map(_has_values, chart.lines)):
        made.append(label("no values", (left + width - right) / 2, (above + plot_bottom) / 2, anchor="middle"))
    bottom = depth + (ROW if chart.x_label else 0) + 2
    height = plot_bottom + bottom
    if chart.x_label:
        longest = int((width - left) / text_width("x"))
        made.append(label(plain_text(chart.x_label, longest), left, height - 6))
    figure, axes = make_axes(width, height, left=left, right=right, top=above, bottom=bottom)
    if chart.x_log:
        axes.set_xscale("log")
    axes.set_xlim(x_low, x_high)
    axes.set_ylim(unit * y_low, unit * y_high)
    axes.minorticks_off()
    axes.set_xticks(x_ticks, [""] * len(x_ticks))
    axes.set_yticks(y_ticks, [""] * len(y_ticks))
    axes.grid(axis="y", color=COLOURS["grid"])
    if y_low < 0:
        axes.axhline(0, color=COLOURS["soft"], linewidth=0.8, clip_on=False)
    _plot(axes, chart, unit, marked=marked, pixel=(x_high - x_low) / (width - left - right))
    return width, height, plotted(figure, chart.name) + made


def _key(line: Line, longest: int, *, marked: bool) -> Key:
    return Key(plain_text(line.name, longest), line.tone, line=True, dashed=line.dashed, marker=marked)


def _may_stand_at_ends(chart: LineChart, keys: Sequence[Key], names: float, width: float) -> bool:
    """Where every line ends at the right, and the names leave the lines at least two thirds of the width."""
    if not keys or len(keys) > 8 or chart.width == "small" or names > width / 3:
        return False
    if not all(_has_values(line) for line in chart.lines):
        return False
    return len({_last(line)[0] for line in chart.lines}) == 1


def _has_values(line: Line) -> bool:
    return any(y is not None for y in line.y)


def _last(line: Line) -> tuple[float, float]:
    return max((x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None)


def _x_range(chart: LineChart) -> tuple[float, float]:
    values = [x for line in chart.lines for x in line.x] + [x for x, _ in chart.x_names]
    low, high = (min(values), max(values)) if values else (1.0, 1.0)
    if chart.x_log:
        room = (high / low) ** 0.04 if high > low else 2.0
        return low / room, high * room
    room = 0.04 * (high - low) if high > low else 0.5 * max(abs(high), 1.0)
    return low - room, high + room


def _y_range(chart: LineChart) -> tuple[float, float]:
    """From y_bottom to y_top, wider where a value lies outside; whichever is None follows the values."""
    values = [y for line in chart.lines for side in (line.y, line.low, line.high) for y in side if y is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    span = high - min(low, low if chart.y_bottom is None else chart.y_bottom) or abs(high) or 1.0
    if low == high == chart.y_bottom == 0:
        high = 1.0
    bottom = low - 0.06 * span if chart.y_bottom is None or low < chart.y_bottom else chart.y_bottom
    top = high + 0.06 * span if chart.y_top is None or high > chart.y_top else chart.y_top
    if chart.percent and high <= 1 < top:
        # Room for a marker on the line of 100 %.
        top = 1.03
    return bottom, top if top > bottom else bottom + 1.0


def _x_ticks(chart: LineChart, low: float, high: float, pixels: float) -> tuple[list[float], list[str]]:
    if chart.x_names:
        return [x for x, _ in chart.x_names], [plain_text(name, LONGEST_TICK) for _, name in chart.x_names]
    values = sorted({x for line in chart.lines for x in line.x})
    if not values:
        return [], []
    whole = all(x == int(x) for x in values)
    chosen = values
    if len(values) > 9:
        chosen = decades(low, high) if chart.x_log else ticks(low, high, max(2, int(pixels / 55)), whole=whole)
    texts = [number(x) for x in chosen]
    if chosen is values and not _fit([_scale(low, high, 0, pixels, log=chart.x_log)(x) for x in values], texts):
        chosen = decades(low, high) if chart.x_log else ticks(low, high, max(2, int(pixels / 55)), whole=whole)
        texts = [number(x) for x in chosen]
    return chosen, texts


def _fit(places: Sequence[float], texts: Sequence[str]) -> bool:
    """Whether texts centred at these places stay apart."""
    spans = sorted((x - text_width(t) / 2, x + text_width(t) / 2) for x, t in zip(places, texts, strict=True))
    return all(first[1] + 3 <= second[0] for first, second in pairwise(spans))


def _x_texts(
    x_ticks: Sequence[float], texts: Sequence[str], places: Sequence[float], y: float, left: float
) -> tuple[list[Element], float, float]:
    """Texts under the axis, aslant where they would touch; their depth, and by how much the first one passes the left edge."""
    if _fit(places, texts):
        made = [label(text, x, y + 17, anchor="middle") for x, text in zip(places, texts, strict=True)]
        over = max((text_width(t) / 2 - x for x, t in zip(places, texts, strict=True)), default=0.0)
        return made, ROW + 4, over
    order = sorted(zip(places, texts, strict=True))
    step = min((b[0] - a[0] for a, b in pairwise(order)), default=99.0)
    kept = order[:: every(step)]
    made = [label(text, x + 3, y + 14, anchor="end", rotate=-math.degrees(SLOPE)) for x, text in kept]
    depth = 14 + max(math.sin(SLOPE) * text_width(text) for _, text in kept)
    return made, depth, max(math.cos(SLOPE) * text_width(text) - x for x, text in kept)


def _scale(low: float, high: float, first: float, last: float, *, log: bool = False) -> Any:
    """From values to pixels."""
    if log:
        return lambda x: first + (last - first) * math.log(x / low) / math.log(high / low)
    return lambda x: first + (last - first) * (x - low) / (high - low)


def _plot(axes: Axes, chart: LineChart, unit: int, *, marked: bool, pixel: float) -> None:
    """pixel: width of one on a linear axis."""
    whiskers = [line for line in chart.lines if line.low and len(line.x) <= MOST_WHISKERS]
    shift = 0.0 if chart.x_log or len(whiskers) < 2 else _shift(chart, len(whiskers), pixel)
    hidden = _hidden(chart)
    for index, line in enumerate(chart.lines):
        colour = COLOURS[line.tone]
        x = list(line.x)
        y, low, high = (_nan(side, unit) for side in (line.y, line.low, line.high))
        if line in whiskers:
            x = [value + shift * (whiskers.index(line) - (len(whiskers) - 1) / 2) for value in line.x]
            at, start, end = _existing(x, low, high)
            axes.vlines(at, start, end, color=colour, alpha=0.5, linewidth=1.6, clip_on=False)
        elif line.low:
            axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0, clip_on=False)
        alone = [i for i in range(len(y)) if _alone(line.y, i)]
        axes.plot(
            x,
            y,
            color=colour,
            marker=MARKERS[line.tone],
            markevery=None if marked else alone,
            markersize=(4.5 if chart.width != "small" else 3) + (1.5 if hidden[index] else 0),
            # Wide and pale below narrow and strong: both stay visible where they coincide.
            linewidth=4.5 if hidden[index] else 1.7,
            alpha=0.5 if hidden[index] else 1.0,
            linestyle=(0, (4, 2)) if line.dashed else "-",
            clip_on=False,
        )


def _shift(chart: LineChart, count: int, pixel: float) -> float:
    """Between whiskers at the same x, so that they can be told apart; never further than a third of the way to the next x."""
    values = sorted({x for line in chart.lines for x in line.x})
    gap = min((b - a for a, b in pairwise(values)), default=math.inf)
    return min(5 * pixel, gap / (3 * count))


def _hidden(chart: LineChart) -> list[bool]:
    """Whether a later line lies on this one in at least half of its points."""
    points = [{(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None} for line in chart.lines]
    return [
        any(2 * len(mine & other) >= len(mine) > 0 for other in points[index + 1 :])
        for index, mine in enumerate(points)
    ]


def _alone(y: Sequence[Value], index: int) -> bool:
    """A point without neighbours, which no line would show."""
    if y[index] is None:
        return False
    return all(y[i] is None for i in (index - 1, index + 1) if 0 <= i < len(y))


def _nan(values: Sequence[Value], unit: int) -> list[float]:
    return [math.nan if value is None else unit * value for value in values]


def _existing(*sides: Sequence[float]) -> list[list[float]]:
    """Without the intervals that do not exist."""
    kept = [point for point in zip(*sides, strict=True) if not any(map(math.isnan, point))]
    return [[point[side] for point in kept] for side in range(len(sides))]
