"""Horizontal bars with intervals, and outlines of histograms."""

from collections.abc import Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element

from matplotlib.axes import Axes

from hardspike.deploy.report.axes_text import ROW, WIDTHS, Key, legend, number, ticks
from hardspike.deploy.report.chart import BarChart, Bars, Histogram
from hardspike.deploy.report.frame import Frame
from hardspike.deploy.report.svg import COLOURS, LINE, fitted, label, paragraph, plotted, text_width

# Of the whole, for the names of categories.
MOST_LEFT = {"small": 0.36, "normal": 0.4, "wide": 0.3}
MOST_TICKS = {"small": 3, "normal": 4, "wide": 8}
HISTOGRAM_HEIGHTS = {"small": 96.0, "normal": 190.0, "wide": 220.0}


def draw_bars(chart: BarChart, *, top: float, keyed: bool) -> tuple[float, float, list[Element]]:
    """Width, height and drawing. top: pixels left free above. keyed: with the names of the groups, where there are more than one."""
    unit, many = 100 if chart.percent else 1, len(chart.bars)
    around, above = _keys(chart, top, keyed=keyed)
    names = [fitted(name, MOST_LEFT[chart.width] * WIDTHS[chart.width], 2) for name in chart.categories]
    # Dense where there are many, but each category keeps a line of text.
    group = max(many * (15.0 if len(names) * many <= 60 else 8.0), 16.0, LINE * max(map(len, names), default=0))
    row, rows = group + 9, max(1, len(names))
    values = [v for bars in chart.bars for side in (bars.values, bars.low, bars.high) for v in side if v is not None]
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    high = high if high > low else 1.0
    # Where there is room, the numbers too.
    valued = many == 1 and bool(chart.bars[0].values) and chart.width != "small"
    texts = [number(value, percent=chart.percent) for value in values] if valued else []
    frame = Frame(
        width=WIDTHS[chart.width],
        height=above + rows * row + 4 + 2 * ROW,
        left=10 + max((text_width(text) for lines in names for text in lines), default=0),
        right=WIDTHS[chart.width] - 14 - max(map(text_width, texts), default=0),
        top=above,
        bottom=above + rows * row,
        x=(unit * (low - 0.03 * (high - low) * (low < 0)), unit * (high + 0.02 * (high - low))),
        y=(rows - 0.5, -0.5),
    )
    figure, axes = frame.make_axes()
    for index, bars in enumerate(chart.bars):
        offset = (index + 0.5 - many / 2) * group / many / row
        _plot_group(axes, bars, offset, group / many / row, unit)
        for at in range(len(names)):
            value, end = (None if not side else side[at] for side in (bars.values, bars.high))
            middle = frame.down(at + offset) + 4
            if value is None and (bars.values or end is None):
                around.append(label("–", frame.across(0.0) + 3, middle))
            elif valued and value is not None:
                last = frame.across(unit * max(0.0, value, value if end is None else end))
                around.append(label(number(value, percent=chart.percent), last + 5, middle))
    for at, lines in enumerate(names):
        first = frame.down(at) + 4 - LINE / 2 * (len(lines) - 1)
        around += paragraph(lines, frame.left - 7, first, tone="ink", anchor="end")
    places = ticks(*frame.x, MOST_TICKS[chart.width])
    around += _values_below(frame, chart.label, [(x, number(x / unit, percent=chart.percent)) for x in places])
    grid = [*frame.vertical(places, "grid"), *frame.vertical([0.0], "soft")]
    return frame.width, frame.height, [*grid, *plotted(figure, chart.name), *around]


def draw_histogram(chart: Histogram, *, top: float, keyed: bool) -> tuple[float, float, list[Element]]:
    around, above = _keys(chart, top, keyed=keyed)
    around.append(label("samples", 0, above + 0.65 * ROW))
    above += ROW + 6
    most = 1.06 * max((v for bars in chart.bars for v in bars.values if v is not None), default=0.0) or 1.0
    counts = ticks(0.0, most, 3 if chart.width == "small" else 4, whole=True)
    frame = Frame(
        width=WIDTHS[chart.width],
        height=above + HISTOGRAM_HEIGHTS[chart.width] + 4 + 2 * ROW,
        left=10 + max(text_width(number(count)) for count in counts),
        right=WIDTHS[chart.width] - 14,
        top=above,
        bottom=above + HISTOGRAM_HEIGHTS[chart.width],
        x=(chart.edges[0], chart.edges[-1]),
        y=(0.0, most),
    )
    figure, axes = frame.make_axes()
    x = [edge for pair in pairwise(chart.edges) for edge in pair]
    for index, bars in enumerate(chart.bars):
        y = [value or 0.0 for value in bars.values for _ in range(2)]
        axes.fill_between(x, y, color=COLOURS[bars.tone], alpha=0.14, linewidth=0, clip_on=False)
        # Dashes differ where the outlines of two lie on each other.
        style = "-" if index % 2 == 0 else (0, (5, 1.5))
        outline = [x[0], *x, x[-1]], [0.0, *y, 0.0]
        axes.plot(*outline, color=COLOURS[bars.tone], linewidth=1.7, linestyle=style, clip_on=False)
    around += [label(number(count), frame.left - 7, frame.down(count) + 4, anchor="end") for count in counts]
    places = ticks(*frame.x, max(2, int((frame.right - frame.left) / 70)))
    around += _values_below(frame, chart.label, [(x, number(x)) for x in places])
    grid = [*frame.horizontal(counts, "grid"), *frame.base(places)]
    return frame.width, frame.height, [*grid, *plotted(figure, chart.name), *around]


def _keys(chart: BarChart | Histogram, top: float, *, keyed: bool) -> tuple[list[Element], float]:
    """The legend, where there is something to tell apart, and where it ends."""
    if not keyed or len(chart.bars) < 2:
        return [], top
    made, used = legend([Key(bars.name, bars.tone) for bars in chart.bars], 0, top, WIDTHS[chart.width])
    return made, top + used + 6


def _values_below(frame: Frame, title: str, marks: Sequence[tuple[float, str]]) -> list[Element]:
    """Numbers under the frame, then what they are."""
    made = [label(text, frame.across(x), frame.bottom + 16, anchor="middle") for x, text in marks]
    left = frame.left if text_width(title) <= frame.width - frame.left else 0.0
    return made + paragraph(fitted(title, frame.width - left), left, frame.height - 6)


def _plot_group(axes: Axes, bars: Bars, offset: float, thick: float, unit: int) -> None:
    """One bar in each row of the axes, `offset` rows from its middle; none where there is no value."""
    tone = COLOURS[bars.tone]
    drawn = [(at + offset, unit * v) for at, v in enumerate(bars.values) if v is not None]
    axes.barh([y for y, _ in drawn], [v for _, v in drawn], height=0.86 * thick, color=tone)
    ends = zip(bars.low, bars.high, strict=True)
    spans = [(at + offset, unit * a, unit * b) for at, (a, b) in enumerate(ends) if a is not None and b is not None]
    y, low, high = ([span[side] for span in spans] for side in range(3))
    if bars.values:
        axes.hlines(y, low, high, color=COLOURS["ink"], linewidth=1.1, alpha=0.75)
    else:
        size = [b - a for a, b in zip(low, high, strict=True)]
        # The edge keeps a span of no width visible.
        axes.barh(y, size, left=low, height=0.7 * thick, color=tone, edgecolor=tone, linewidth=1.5)
