"""Horizontal bars with intervals, and outlines of histograms."""

from collections.abc import Sequence
from itertools import pairwise
from xml.etree.ElementTree import Element

from matplotlib.axes import Axes

from hardspike.deploy.report.axes_text import ROW, WIDTHS, Key, legend, number, ticks
from hardspike.deploy.report.chart import BarChart, Bars, Histogram
from hardspike.deploy.report.svg import COLOURS, label, make_axes, plain_text, plotted, text_width

LONGEST_CATEGORY = {"small": 10, "normal": 20, "wide": 40}
HISTOGRAM_HEIGHTS = {"small": 96.0, "normal": 190.0, "wide": 220.0}


def draw_bars(chart: BarChart, *, top: float, keyed: bool) -> tuple[float, float, list[Element]]:
    """Width, height and drawing. top: pixels left free above. keyed: with the names of the groups, where there are more than one."""
    width, unit = WIDTHS[chart.width], 100 if chart.percent else 1
    made, used = (
        legend([Key(b.name, b.tone) for b in chart.bars], 0, top, width) if _many(chart.bars, keyed) else ([], 0.0)
    )
    above = top + used + (6 if used else 0)
    categories = [plain_text(name, LONGEST_CATEGORY[chart.width]) for name in chart.categories]
    left = 10 + max(map(text_width, categories), default=0)
    # Dense where there are many, but each category keeps a line of text.
    bar = 15.0 if len(chart.categories) * len(chart.bars) <= 60 else 8.0
    group = max(bar * len(chart.bars), 16.0)
    bottom = ROW + 4 + ROW
    height = above + max(1, len(categories)) * (group + 9) + bottom
    values = [v for b in chart.bars for side in (b.values, b.low, b.high) for v in side if v is not None]
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    high = high if high > low else 1.0
    valued = len(chart.bars) == 1 and bool(chart.bars[0].values) and chart.width != "small"
    right = 12 + (max((text_width(number(v, percent=chart.percent)) for v in values), default=0) if valued else 0)
    figure, axes = make_axes(width, height, left=left, right=right, top=above, bottom=bottom)
    axes.spines["bottom"].set_visible(False)
    span = high - low
    low, high = low - (0.03 * span if low < 0 else 0), high + 0.02 * span
    axes.set_xlim(unit * low, unit * high)
    axes.set_ylim(max(1, len(categories)) - 0.5, -0.5)
    places = ticks(unit * low, unit * high, 3 if chart.width == "small" else 4 if chart.width == "normal" else 8)
    axes.set_xticks(places, [""] * len(places))
    axes.set_yticks([])
    axes.grid(axis="x", color=COLOURS["grid"])
    axes.tick_params(axis="x", length=0)
    axes.axvline(0, color=COLOURS["soft"], linewidth=0.8)
    pixels, row = (width - left - right) / (unit * (high - low)), group + 9
    thick = group / len(chart.bars) / row if chart.bars else 1.0
    for index, bars in enumerate(chart.bars):
        offset = (index + 0.5 - len(chart.bars) / 2) * thick
        _plot_group(axes, bars, offset, thick, unit)
        for at in range(len(categories)):
            middle = above + (at + offset + 0.5) * row + 4
            value, end = (None if not side else side[at] for side in (bars.values, bars.high))
            last = left + pixels * unit * (max(0.0, value or 0.0, end or 0.0) - low)
            if value is None and (bars.values or end is None):
                made.append(label("–", left + pixels * unit * (0 - low) + 3, middle))
            elif valued and value is not None:
                made.append(label(number(value, percent=chart.percent), last + 5, middle))
    made += [
        label(name, left - 7, above + (i + 0.5) * row + 4, tone="ink", anchor="end")
        for i, name in enumerate(categories)
    ]
    y = height - bottom + 15
    made += [
        label(number(t / unit, percent=chart.percent), left + pixels * (t - unit * low), y, anchor="middle")
        for t in places
    ]
    made.append(label(plain_text(chart.label, int((width - left) / text_width("x"))), left, height - 6))
    return width, height, plotted(figure, chart.name) + made


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


def draw_histogram(chart: Histogram, *, top: float, keyed: bool) -> tuple[float, float, list[Element]]:
    width = WIDTHS[chart.width]
    made, used = (
        legend([Key(b.name, b.tone) for b in chart.bars], 0, top, width) if _many(chart.bars, keyed) else ([], 0.0)
    )
    above = top + used + ROW + 6
    made.append(label("samples", 0, top + used + 0.65 * ROW))
    most = max((v for bars in chart.bars for v in bars.values if v is not None), default=0.0)
    most = 1.06 * most if most > 0 else 1.0
    heights = ticks(0.0, most, 3 if chart.width == "small" else 4, whole=True)
    left = 10 + max(map(text_width, map(number, heights)), default=0)
    bottom, right = ROW + 4 + ROW, 14.0
    height = above + HISTOGRAM_HEIGHTS[chart.width] + bottom
    first, last = (chart.edges[0], chart.edges[-1]) if chart.edges else (0.0, 1.0)
    figure, axes = make_axes(width, height, left=left, right=right, top=above, bottom=bottom)
    axes.set_xlim(first, last)
    axes.set_ylim(0, most)
    places = ticks(first, last, max(2, int((width - left) / 70)))
    axes.set_xticks(places, [""] * len(places))
    axes.set_yticks(heights, [""] * len(heights))
    axes.grid(axis="y", color=COLOURS["grid"])
    for index, bars in enumerate(chart.bars):
        x = [edge for pair in pairwise(chart.edges) for edge in pair]
        y = [0.0 if value is None else value for value in bars.values for _ in range(2)]
        tone = COLOURS[bars.tone]
        axes.fill_between(x, y, color=tone, alpha=0.14, linewidth=0)
        style = "-" if index % 2 == 0 else (0, (5, 1.5))
        axes.plot([first, *x, last], [0.0, *y, 0.0], color=tone, linewidth=1.7, linestyle=style, clip_on=False)
    span, pixels = last - first, width - left - right
    made += [
        label(number(t), left - 7, above + (1 - t / most) * HISTOGRAM_HEIGHTS[chart.width] + 4, anchor="end")
        for t in heights
    ]
    made += [
        label(number(t), left + pixels * (t - first) / span, height - bottom + 16, anchor="middle") for t in places
    ]
    made.append(label(plain_text(chart.label, int((width - left) / text_width("x"))), left, height - 6))
    return width, height, plotted(figure, chart.name) + made


def _many(bars: Sequence[Bars], keyed: bool) -> bool:
    return keyed and len(bars) > 1
