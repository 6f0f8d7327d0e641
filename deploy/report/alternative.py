"""What a chart shows in words and numbers, for readers who do not see it."""

from hardspike.deploy.report.axes_text import number
from hardspike.deploy.report.chart import BarChart, Bars, Chart, Histogram, Line, LineChart, Matrix, Value
from hardspike.deploy.report.svg import plain_text

LONGEST = 600


def alternative(chart: Chart) -> str:
    """The title, then the most important numbers, at most `LONGEST` letters."""
    if isinstance(chart, LineChart):
        kind, parts = "Line chart", [_line(chart, line) for line in chart.lines]
    elif isinstance(chart, BarChart):
        kind, parts = "Bar chart", [_category(chart, at) for at in range(len(chart.categories))]
    elif isinstance(chart, Histogram):
        kind, parts = "Histogram", [_outline(chart, bars) for bars in chart.bars]
    elif isinstance(chart, Matrix):
        kind, parts = "Table of shaded cells", _extremes(chart)
    else:
        kind, parts = "Pictures", [chart.alt]
    text = f"{kind}: {plain_text(chart.title, 200).rstrip('.')}. {'; '.join(parts) if any(parts) else 'No values'}"
    return plain_text(text.rstrip(".") + ".", LONGEST)


def _number(value: Value, *, percent: bool = False) -> str:
    return "none" if value is None else number(value, percent=percent)


def _line(chart: LineChart, line: Line) -> str:
    """All points of a short line; first, lowest, highest and last of a long one."""
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
    if not points:
        return f"{line.name}: no values"
    names = dict(chart.x_names)
    if len(points) > 8:
        chosen = {points[0], min(points, key=lambda p: p[1]), max(points, key=lambda p: p[1]), points[-1]}
        points = [point for point in points if point in chosen]
    told = (f"{_number(y, percent=chart.percent)} at {names.get(x, number(x))}" for x, y in points)
    return f"{plain_text(line.name, 40)}: {', '.join(told)}"


def _category(chart: BarChart, at: int) -> str:
    return f"{plain_text(chart.categories[at], 40)}: " + ", ".join(_bar(chart, bars, at) for bars in chart.bars)


def _bar(chart: BarChart, bars: Bars, at: int) -> str:
    name = f"{plain_text(bars.name, 40)} " if len(chart.bars) > 1 else ""
    if bars.values:
        return name + _number(bars.values[at], percent=chart.percent)
    low, high = (_number(side[at], percent=chart.percent) for side in (bars.low, bars.high))
    return f"{name}{low} to {high}"


def _outline(chart: Histogram, bars: Bars) -> str:
    counts = [value or 0.0 for value in bars.values]
    name = plain_text(bars.name, 40)
    if not any(counts):
        return f"{name}: no samples"
    most = counts.index(max(counts))
    span = f"{number(chart.edges[most])} to {number(chart.edges[most + 1])}"
    return f"{name}: {number(sum(counts))} samples, most from {span} ({chart.label})"


def _extremes(chart: Matrix) -> list[str]:
    """Every cell of a small matrix, row by row; the highest and the lowest of a large one."""
    cells = [(value, row, column) for row, column, value in chart.table()[1] if isinstance(value, float | int)]
    if not cells:
        return []
    if len(cells) > 16:
        named = (("highest", max(cells, key=lambda c: c[0])), ("lowest", min(cells, key=lambda c: c[0])))
        told = [
            f"{word} {_number(cell[0], percent=chart.percent)} ({chart.row_label} {cell[1]}, {chart.column_label} {cell[2]})"
            for word, cell in named
        ]
        return [f"{chart.value_label}: {told[0]}", told[1]]
    rows: dict[str, list[str]] = {}
    for value, row, column in cells:
        rows.setdefault(str(row), []).append(f"{column} {_number(value, percent=chart.percent)}")
    return [f"{row}: {', '.join(told)}" for row, told in rows.items()]
