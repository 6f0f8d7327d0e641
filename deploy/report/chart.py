"""Figures as data: what a chart shows, before anything is drawn.

One object gives the drawing (`draw.py`), the table of its numbers (CSV) and its JSON, so that they cannot differ. None stands for
a value that does not exist; NaN and infinity are refused, because a chart must say what it means.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Union, get_args

from hardspike.deploy.report.chart_checks import (
    check_choice,
    check_interval,
    check_length,
    check_name,
    check_rising,
    check_values,
)
from hardspike.snn.errors import SettingsError

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
# Of float32 pixels, where they should be in [0, 1].
ROUNDING = 1e-6


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

    def __post_init__(self) -> None:
        where = f"line '{self.name}'"
        check_choice(f"{where}: tone", self.tone, TONES)
        check_values(f"{where}, x", self.x, gaps=False)
        check_values(f"{where}, y", self.y)
        check_length(f"{where}, y", len(self.y), len(self.x), "values of x")
        check_interval(where, self.low, self.high, len(self.x), "values of x")


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

    def __post_init__(self) -> None:
        _check_chart(self.name, self.width)
        positions = [x for x, _ in self.x_names]
        check_values(f"chart {self.name}: x_names", positions, gaps=False)
        check_values(f"chart {self.name}: y_bottom and y_top", (self.y_bottom, self.y_top))
        lowest = min([*positions, *(x for line in self.lines for x in line.x)], default=1.0)
        if self.x_log and lowest <= 0:
            raise SettingsError(f"chart {self.name}: x {lowest!r} has no logarithm; give positive x or no x_log")

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

    def __post_init__(self) -> None:
        check_choice(f"bars '{self.name}': tone", self.tone, TONES)
        check_values(f"bars '{self.name}'", self.values)


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

    def __post_init__(self) -> None:
        _check_chart(self.name, self.width)
        for bars in self.bars:
            if bars.values or not bars.low:
                check_length(f"bars '{bars.name}'", len(bars.values), len(self.categories), "categories")
            check_interval(f"bars '{bars.name}'", bars.low, bars.high, len(self.categories), "categories")

    def table(self) -> tuple[list[str], list[list[Cell]]]:
        rows: list[list[Cell]] = []
        for bars in self.bars:
            sides = [side or (None,) * len(self.categories) for side in (bars.values, bars.low, bars.high)]
            rows += [[bars.name, *bar] for bar in zip(self.categories, *sides, strict=True)]
        return ["series", "category", self.label, "low", "high"], rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of samples between rising edges, one outline per series. label: of the axis of values, with its unit."""

    kind: ClassVar[str] = "histogram"
    name: str
    title: str
    label: str
    edges: tuple[float, ...]
    bars: tuple[Bars, ...]
    caption: str = ""
    width: Width = "normal"

    def __post_init__(self) -> None:
        _check_chart(self.name, self.width)
        check_values(f"chart {self.name}: edges", self.edges, gaps=False)
        check_rising(f"chart {self.name}: edges", self.edges)
        if len(self.edges) < 2:
            raise SettingsError(f"chart {self.name}: {len(self.edges)} edges enclose nothing; give 2 or more")
        for bars in self.bars:
            check_length(f"bars '{bars.name}'", len(bars.values), len(self.edges) - 1, "intervals")
            if bars.low or bars.high:
                raise SettingsError(f"bars '{bars.name}': counts of a histogram have no low and high; leave them out")

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

    def __post_init__(self) -> None:
        _check_chart(self.name, self.width)
        check_length(f"chart {self.name}", len(self.values), len(self.rows), "rows")
        for name, values in zip(self.rows, self.values, strict=True):
            check_length(f"chart {self.name}, row '{name}'", len(values), len(self.columns), "columns")
            check_values(f"chart {self.name}, row '{name}'", values)
        check_values(f"chart {self.name}: darkest", (self.darkest,))
        if self.darkest is not None and self.darkest <= 0:
            raise SettingsError(
                f"chart {self.name}: darkest {self.darkest!r} is no shade; give a positive value or None"
            )

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

    def __post_init__(self) -> None:
        check_choice("picture: look", self.look, ("image", "heat"))
        _check_planes("picture", self.values, (1,) if self.look == "heat" else (1, 3))
        if self.under:
            _check_planes("under of a picture", self.under, (1,))
            if self.look != "heat":
                raise SettingsError("picture: an image hides what is under it; give look 'heat' or no under")


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

    def __post_init__(self) -> None:
        _check_chart(self.name, self.width)
        check_length(f"chart {self.name}", len(self.pictures), len(self.rows), "rows")
        for name, pictures in zip(self.rows, self.pictures, strict=True):
            check_length(f"chart {self.name}, row '{name}'", len(pictures), len(self.columns), "columns")

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


def _check_chart(name: str, width: str) -> None:
    check_name(name)
    check_choice(f"chart {name}: width", width, get_args(Width))


def _check_planes(where: str, planes: tuple[tuple[tuple[float, ...], ...], ...], channels: tuple[int, ...]) -> None:
    if len(planes) not in channels or not planes[0] or not planes[0][0]:
        allowed = " or ".join(map(str, channels))
        raise SettingsError(f"{where}: {len(planes)} channels or no pixels; give {allowed} and at least one pixel")
    for plane in planes:
        check_length(where, len(plane), len(planes[0]), "rows")
        for line in plane:
            check_length(where, len(line), len(planes[0][0]), "columns")
            check_values(where, line, gaps=False)
            if min(line) < -ROUNDING or max(line) > 1 + ROUNDING:
                raise SettingsError(f"{where}: {min(line)!r} to {max(line)!r} is not in [0, 1]; scale it")
