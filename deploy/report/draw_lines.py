"""Line charts: gaps where there is no value, whiskers or bands for intervals, names at the ends of the lines where there is room."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
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
from hardspike.deploy.report.frame import Frame
from hardspike.deploy.report.svg import COLOURS, LINE, fitted, label, paragraph, plain_text, plotted, text_width

PLOT_HEIGHTS = {"small": 104.0, "normal": 220.0, "wide": 260.0}
# Up to so many points a line has whiskers, beyond a band.
MOST_WHISKERS = 12
LONGEST_TICK = 18


def draw_lines(chart: LineChart, *, top: float, keyed: bool) -> tuple[float, float, list[Element]]:
    """Width, height and drawing. top: pixels left free above. keyed: with the names of the lines, where there are more than one."""
    marked = chart.markers and max((len(line.x) for line in chart.lines), default=0) * 9 < WIDTHS[chart.width]
    keys = [_key(line, marked=marked) for line in chart.lines]
    if not keyed or len(keys) < 2:
        keys = []
    frame, around = _named_at_ends(chart, keys, top) or _arranged(chart, keys, top, right=10)
    figure, axes = frame.make_axes()
    _plot(axes, chart, frame, marked=marked)
    return frame.width, frame.height, around + plotted(figure, chart.name)


def _named_at_ends(chart: LineChart, keys: Sequence[Key], top: float) -> tuple[Frame, list[Element]] | None:
    """Names beside the ends of the lines: where every line ends at the right and two thirds of the width are left for them."""
    names = 22 + max((text_width(key.name) for key in keys), default=0)
    if not 2 <= len(keys) <= 8 or chart.width == "small" or names > WIDTHS[chart.width] / 3:
        return None
    if not all(map(_has_values, chart.lines)) or len({_last(line)[0] for line in chart.lines}) > 1:
        return None
    frame, around = _arranged(chart, (), top, right=names)
    ends = [(frame.down(_unit(chart) * _last(line)[1]), key) for line, key in zip(chart.lines, keys, strict=True)]
    placed = end_names(ends, frame.across(_last(chart.lines[0])[0]), frame.right + 18, frame.top, frame.bottom)
    return None if placed is None else (frame, around + placed)


def _arranged(chart: LineChart, keys: Sequence[Key], top: float, *, right: float) -> tuple[Frame, list[Element]]:
    """Everything but the lines. keys: of a legend above. right: pixels left free there."""
    width, unit = WIDTHS[chart.width], _unit(chart)
    around, used = legend(keys, 0, top, width) if keys else ([], 0.0)
    above = top + used
    if chart.y_label:
        lines = fitted(chart.y_label, width, 2)
        around += paragraph(lines, 0, above + 0.65 * ROW)
        above += ROW + LINE * (len(lines) - 1)
    x_range, (y_low, y_high) = _x_range(chart), _y_range(chart)
    y_ticks = ticks(unit * y_low, unit * y_high, 4 if chart.width == "small" else 5)
    y_texts = [number(tick / unit, percent=chart.percent) for tick in y_ticks]
    frame = Frame(
        width=width,
        height=above + 6 + PLOT_HEIGHTS[chart.width],
        left=10 + max(map(text_width, y_texts), default=0),
        right=width - right,
        top=above + 6,
        bottom=above + 6 + PLOT_HEIGHTS[chart.width],
        x=x_range,
        y=(unit * y_low, unit * y_high),
        x_log=chart.x_log,
    )
    x_ticks, x_texts = _x_ticks(chart, frame)
    _, _, (first, last) = _below(frame, x_ticks, x_texts)
    # So that no text is cut at a side.
    frame = replace(frame, left=frame.left + max(0.0, -first), right=frame.right - max(0.0, last - width))
    below, depth, _ = _below(frame, x_ticks, x_texts)
    height = frame.bottom + depth + 2
    if chart.x_label:
        left = 0 if chart.width == "small" else frame.left
        lines = fitted(chart.x_label, width - left, 2)
        around += paragraph(lines, left, height + 12)
        height += ROW + LINE * (len(lines) - 1)
    around += [
        label(text, frame.left - 7, frame.down(tick) + 4, anchor="end")
        for tick, text in zip(y_ticks, y_texts, strict=True)
    ]
    if not any(map(_has_values, chart.lines)):
        middle = (frame.left + frame.right) / 2
        around.append(label("no values", middle, (frame.top + frame.bottom) / 2, anchor="middle"))
    zero = frame.horizontal([0.0], "soft") if y_low < 0 < y_high else []
    grid = [*frame.horizontal(y_ticks, "grid"), *zero, *frame.base(x_ticks)]
    return replace(frame, height=height), [*grid, *around, *below]


def _unit(chart: LineChart) -> int:
    return 100 if chart.percent else 1


def _key(line: Line, *, marked: bool) -> Key:
    return Key(plain_text(line.name, 200), line.tone, line=True, dashed=line.dashed, marker=marked)


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


def _x_ticks(chart: LineChart, frame: Frame) -> tuple[list[float], list[str]]:
    """At the names or at the values of x, where few; else at round numbers."""
    if chart.x_names:
        return [x for x, _ in chart.x_names], [plain_text(name, LONGEST_TICK) for _, name in chart.x_names]
    values = sorted({x for line in chart.lines for x in line.x})
    if len(values) > 9 or not _fit([frame.across(x) for x in values], [number(x) for x in values]):
        count = max(2, int((frame.right - frame.left) / 55))
        whole = all(x == int(x) for x in values)
        values = decades(*frame.x) if chart.x_log else ticks(*frame.x, count, whole=whole)
    return values, [number(x) for x in values]


def _fit(places: Sequence[float], texts: Sequence[str]) -> bool:
    """Whether texts centred at these places stay apart."""
    spans = sorted((x - text_width(t) / 2, x + text_width(t) / 2) for x, t in zip(places, texts, strict=True))
    return all(first[1] + 3 <= second[0] for first, second in pairwise(spans))


def _below(
    frame: Frame, x_ticks: Sequence[float], texts: Sequence[str]
) -> tuple[list[Element], float, tuple[float, float]]:
    """Texts under the axis, aslant where they would touch; their depth, and from where to where they reach."""
    order = sorted(zip(map(frame.across, x_ticks), texts, strict=True))
    if _fit([x for x, _ in order], [text for _, text in order]):
        made = [label(text, x, frame.bottom + 17, anchor="middle") for x, text in order]
        first = min((x - text_width(text) / 2 for x, text in order), default=0.0)
        return made, ROW + 4, (first, max((x + text_width(text) / 2 for x, text in order), default=0.0))
    kept = order[:: every(min(b[0] - a[0] for a, b in pairwise(order)))]
    slope = -math.degrees(SLOPE)
    made = [label(text, x + 3, frame.bottom + 14, anchor="end", rotate=slope) for x, text in kept]
    depth = 14 + max(math.sin(SLOPE) * text_width(text) for _, text in kept)
    return made, depth, (min(x - math.cos(SLOPE) * text_width(text) for x, text in kept), kept[-1][0])


def _plot(axes: Axes, chart: LineChart, frame: Frame, *, marked: bool) -> None:
    unit, pixel = _unit(chart), (frame.x[1] - frame.x[0]) / (frame.right - frame.left)
    whiskers = [line for line in chart.lines if line.low and len(line.x) <= MOST_WHISKERS]
    shift = 0.0 if chart.x_log or len(whiskers) < 2 else _shift(chart, len(whiskers), pixel)
    # Lines that are set apart do not hide each other.
    hidden = [False] * len(chart.lines) if shift else _hidden(chart, frame)
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
    return min(5 * pixel, 12 * pixel / (count - 1), gap / (3 * count))


def _hidden(chart: LineChart, frame: Frame) -> list[bool]:
    """Whether a later line lies on this one, within the width of a line, in nearly all of its points."""
    lines = [
        {x: frame.down(_unit(chart) * y) for x, y in zip(line.x, line.y, strict=True) if y is not None}
        for line in chart.lines
    ]
    return [any(_covers(later, line) for later in lines[index + 1 :]) for index, line in enumerate(lines)]


def _covers(later: dict[float, float], line: dict[float, float]) -> bool:
    near = sum(abs(later.get(x, math.inf) - y) < 2 for x, y in line.items())
    return near >= 0.8 * len(line) > 0


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
