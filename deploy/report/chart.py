"""Figures as data: what a chart shows, before anything is drawn.

One object gives the drawing (`draw.py`), the table of its numbers (CSV) and its JSON, so that they cannot differ. None stands for
a value that does not exist; NaN and infinity are refused, because a chart must say what it means.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Union

Value = float | None
Cell = str | float | None
# Networks, kinds of images, and further series without a meaning of their own; each is a colour of the page.
TONES = (
    "ann",
    "snn",
    "quantised",
    "deployed",
    "clean",
    "noise",
    "attack",
    "energy",
    "first",
    "second",
    "third",
    "fourth",
)
Width = Literal["small", "normal", "wide"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series. tone: of `TONES`. low, high: ends of an interval at each x; empty without. dashed: the lesser of two kinds."""

    name: str
    tone: str
    x: tuple[float, ...]
    y: tuple[Value, ...]
    low: tuple[Value, ...] = ()
    high: tuple[Value, ...] = ()
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """x_names: tick texts by value of x, in place of numbers. percent: y is a share, shown in per cent. markers: at every point."""

    kind: ClassVar[str] = "lines"
    name: str
    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    caption: str = ""
    x_log: bool = False
    percent: bool = False
    markers: bool = True
    x_names: tuple[tuple[float, str], ...] = ()
    y_bottom: Value = 0.0
    y_top: Value = None
    width: Width = "normal"

    def table(self) -> tuple[list[str], list[list[Cell]]]:
        """Columns and rows: one row for each point."""
        rows: list[list[Cell]] = []
        for line in self.lines:
            low, high = (end or (None,) * len(line.x) for end in (line.low, line.high))
            rows += [[line.name, *point] for point in zip(line.x, line.y, low, high, strict=True)]
        return ["series", self.x_label, self.y_label, "low", "high"], rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """One group of bars, one for each category. values empty: the bars float from low to high. Else low, high: an interval."""

    name: str
    tone: str
    values: tuple[Value, ...] = ()
    low: tuple[Value, ...] = ()
    high: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BarChart:
    """Horizontal bars. label: what is counted, with its unit. percent: values are shares."""

    kind: ClassVar[str] = "bars"
    name: str
    title: str
    label: str
    categories: tuple[str, ...]
    bars: tuple[Bars, ...]
    caption: str = ""
    percent: bool = False
    width: Width = "normal"

    def table(self) -> tuple[list[str], list[list[Cell]]]:
        rows: list[list[Cell]] = []
        for bars in self.bars:
            sides = [side or (None,) * len(self.categories) for side in (bars.values, bars.low, bars.high)]
            rows += [[bars.name, *bar] for bar in zip(self.categories, *sides, strict=True)]
        return ["series", "category", self.label, "low", "high"], rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of samples between edges, one outline per series. label: of the axis of values, with its unit. marks: e.g. p95, by series."""

    kind: ClassVar[str] = "histogram"
    name: str
    title: str
    label: str
    edges: tuple[float, ...]
    bars: tuple[Bars, ...]
    caption: str = ""
    width: Width = "normal"

    def table(self) -> tuple[list[str], list[list[Cell]]]:
        rows: list[list[Cell]] = [
            [bars.name, self.edges[i], self.edges[i + 1], count]
            for bars in self.bars
            for i, count in enumerate(bars.values)
        ]
        return ["series", f"{self.label}, from", "to", "samples"], rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Numbers in a grid, shaded. values: by row, then column. percent: values are shares. darkest: value of the full shade."""

    kind: ClassVar[str] = "matrix"
    name: str
    title: str
    row_label: str
    column_label: str
    value_label: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]
    caption: str = ""
    percent: bool = False
    darkest: Value = None
    width: Width = "normal"

    def table(self) -> tuple[list[str], list[list[Cell]]]:
        cells: list[list[Cell]] = [
            [row, column, value]
            for row, values in zip(self.rows, self.values, strict=True)
            for column, value in zip(self.columns, values, strict=True)
        ]
        return [self.row_label, self.column_label, self.value_label], cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One small image or map. values: by channel (1 or 3), row, column, in [0, 1]; `heat` has one channel, shown in a colour scale,
    and may lie over a grey `under` of any size."""

    values: tuple[tuple[tuple[float, ...], ...], ...]
    look: Literal["image", "heat"] = "image"
    under: tuple[tuple[tuple[float, ...], ...], ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """A grid of pictures; alt: what one sees, in a sentence."""

    kind: ClassVar[str] = "pictures"
    name: str
    title: str
    alt: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    pictures: tuple[tuple[Picture | None, ...], ...]
    caption: str = ""
    width: Width = "wide"

    def table(self) -> tuple[list[str], list[list[Cell]]]:
        cells: list[list[Cell]] = [
            [row, column, c, y, x, value]
            for row, pictures in zip(self.rows, self.pictures, strict=True)
            for column, picture in zip(self.columns, pictures, strict=True)
            if picture is not None
            for c, plane in enumerate(picture.values)
            for y, line in enumerate(plane)
            for x, value in enumerate(line)
        ]
        return ["row", "column", "channel", "y", "x", "value"], cells


Chart = Union[LineChart, BarChart, Histogram, Matrix, Pictures]  # noqa: UP007 - get_args at run time on 3.10
KINDS: dict[str, type[Any]] = {chart.kind: chart for chart in (LineChart, BarChart, Histogram, Matrix, Pictures)}


def to_json(chart: Chart) -> dict[str, Any]:
    return {"kind": chart.kind, **asdict(chart)}
