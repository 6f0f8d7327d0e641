"""Charts of every kind: plain ones, and those that ask most of a drawing (many layers, one point, nothing at all)."""

import math

from hardspike.deploy.report.chart import (
    BarChart,
    Bars,
    Chart,
    Histogram,
    Line,
    LineChart,
    Matrix,
    Picture,
    Pictures,
)

HOSTILE = "$x_1$ <b>&\"'\0\ud800 \N{HEAVY BLACK HEART}"
LAYERS = tuple(f"block{index // 3}.conv{index % 3}" for index in range(50))


def line(name: str, tone: str, *points: tuple[float, float | None], **rest: object) -> Line:
    return Line(name=name, tone=tone, x=tuple(x for x, _ in points), y=tuple(y for _, y in points), **rest)  # type: ignore[arg-type]


def lines() -> LineChart:
    first = line("ANN", "ann", (0, 0.9), (0.1, 0.5), (0.2, 0.25), low=(0.88, 0.46, 0.21), high=(0.92, 0.54, 0.29))
    second = line("deployed", "deployed", (0, 0.8), (0.1, None), (0.2, 0.125), dashed=True)
    return LineChart(
        name="lines",
        title="Accuracy falls with eps.",
        x_label="eps",
        y_label="accuracy",
        lines=(first, second),
        caption="Whiskers are 95 % intervals.",
        percent=True,
        x_names=((0.0, "clean"), (0.1, "0.1"), (0.2, "0.2")),
        y_top=1.0,
    )


def bars() -> BarChart:
    groups = (
        Bars(name="clean", tone="clean", values=(100.0, 50.0, None), low=(90.0, 40.0, None), high=(120.0, 60.0, None)),
        Bars(name="attack", tone="attack", values=(200.0, 75.0, 0.0)),
    )
    return BarChart(
        name="bars", title="Spikes", label="spikes per image", categories=("spike1", "spike2", "out"), bars=groups
    )


def floating() -> BarChart:
    span = Bars(name="clean", tone="clean", low=(1.0, 2.0), high=(3.0, 2.0))
    return BarChart(name="floating", title="Energy", label="µJ per image", categories=("spike1", "out"), bars=(span,))


def histogram() -> Histogram:
    groups = (
        Bars(name="clean", tone="clean", values=(5.0, 9.0, 2.0)),
        Bars(name="attack", tone="attack", values=(1.0, 4.0, 11.0)),
    )
    return Histogram(
        name="histogram", title="Spikes of images", label="spikes", edges=(0.0, 10.0, 20.0, 30.0), bars=groups
    )


def matrix() -> Matrix:
    return Matrix(
        name="matrix",
        title="Who fools whom",
        row_label="made on",
        column_label="tested on",
        value_label="accuracy left",
        rows=("ANN", "SNN"),
        columns=("ANN", "SNN"),
        values=((0.125, 0.5), (None, 0.25)),
        percent=True,
        darkest=1.0,
    )


def pictures() -> Pictures:
    grey = (((0.0, 0.2), (0.6, 1.0)),)
    return Pictures(
        name="pictures",
        title="What the layers look at",
        alt="The map of the first layer covers the digit.",
        rows=("clean", "attacked"),
        columns=("image", "spike1"),
        pictures=(
            (
                Picture(values=grey),
                Picture(values=(((1.0, 0.5, 0.0),),), look="heat", under=grey, note="variance 0.17"),
            ),
            (Picture(values=grey * 3), None),
        ),
    )


def plain() -> tuple[Chart, ...]:
    return lines(), bars(), floating(), histogram(), matrix(), pictures()


def wave(index: int) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), index + math.sin(x / 9)) for x in range(60))


def demanding() -> tuple[Chart, ...]:
    """Each must be drawn without a warning."""
    many = tuple((float(at), at / 50 - 0.2) for at in range(50))
    named = tuple((float(at), name) for at, name in enumerate(LAYERS))
    empty = {"x_label": "x", "y_label": "y"}
    none = Bars(name="none", tone="first", values=(None, None))
    nothing = Bars(name="nothing", tone="second", values=(0.0, 0.0))
    return (
        LineChart(name="many", title="t", lines=(line("a", "snn", *many),), x_names=named, width="wide", **empty),
        LineChart(name="one", title="t", lines=(line("a", "first", (3.0, 2.0)),), **empty),
        LineChart(name="one-log", title="t", lines=(line("a", "first", (3.0, 2.0)),), x_log=True, **empty),
        LineChart(name="no-lines", title="t", lines=(), **empty),
        LineChart(name="no-points", title="t", lines=(Line(name="a", tone="first", x=(), y=()),) * 2, **empty),
        LineChart(
            name="no-values",
            title="t",
            lines=(
                line("a", "first", (1, None), (2, None), low=(None, None), high=(None, None)),
                line("b", "second", (1, None), (2, None)),
            ),
            **empty,
        ),
        LineChart(name="zeros", title="t", lines=(line("a", "first", (1, 0), (2, 0)),), percent=True, **empty),
        LineChart(name="flat", title="t", lines=(line("a", "first", (1, -7), (2, -7)),), y_bottom=None, **empty),
        LineChart(
            name="bands",
            title="t",
            lines=tuple(
                line(
                    f"{i}", tone, *wave(i), low=tuple(y - 1 for _, y in wave(i)), high=tuple(y + 1 for _, y in wave(i))
                )
                for i, tone in enumerate(("first", "second", "third", "fourth"))
            ),
            markers=False,
            **empty,
        ),
        LineChart(
            name="log",
            title="t",
            lines=(line("a" * 60, "energy", (1, 1), (10, 1e-9)), line("b", "noise", (10, 3), (1e6, 1e12))),
            x_log=True,
            width="small",
            **empty,
        ),
        LineChart(
            name="hostile",
            title=HOSTILE,
            x_label=HOSTILE,
            y_label=HOSTILE,
            caption=HOSTILE,
            x_names=((1.0, HOSTILE),),
            lines=(line(HOSTILE, "first", (1, 2)), line(HOSTILE + "2", "second", (1, 3))),
        ),
        BarChart(name="no-categories", title="t", label="l", categories=(), bars=()),
        BarChart(name="no-bars", title="t", label="l", categories=("a",), bars=()),
        BarChart(name="empty-bars", title="t", label="l", categories=("a", "b"), bars=(none, nothing)),
        BarChart(
            name="many-bars",
            title="t",
            label="l",
            categories=LAYERS,
            bars=tuple(
                Bars(name=tone, tone=tone, values=tuple(at - 20.0 for at in range(50))) for tone in ("clean", "noise")
            ),
            width="wide",
        ),
        BarChart(
            name="hostile-bars",
            title=HOSTILE,
            label=HOSTILE,
            categories=(HOSTILE,),
            bars=(
                Bars(name=HOSTILE, tone="ann", values=(1.0,)),
                Bars(name=HOSTILE, tone="snn", low=(0.5,), high=(0.6,)),
            ),
            width="small",
        ),
        Histogram(
            name="no-samples", title="t", label="l", edges=(0.0, 1.0), bars=(Bars(name="a", tone="ann", values=(0.0,)),)
        ),
        Histogram(name="no-outlines", title=HOSTILE, label=HOSTILE, edges=(-1e9, 1e-9), bars=(), width="small"),
        Matrix(
            name="many-cells",
            title="t",
            row_label="r",
            column_label="c",
            value_label="v",
            rows=LAYERS,
            columns=LAYERS,
            values=tuple(tuple(math.sin(i * j) for j in range(50)) for i in range(50)),
            width="wide",
        ),
        Matrix(
            name="no-cells", title="t", row_label="r", column_label="c", value_label="v", rows=(), columns=(), values=()
        ),
        Matrix(
            name="empty-cells",
            title=HOSTILE,
            row_label=HOSTILE,
            column_label=HOSTILE,
            value_label=HOSTILE,
            rows=(HOSTILE,),
            columns=(HOSTILE, HOSTILE),
            values=((None, 0.0),),
            width="small",
        ),
        Pictures(name="no-pictures", title="t", alt="", rows=(), columns=(), pictures=()),
        Pictures(
            name="hostile-pictures",
            title=HOSTILE,
            alt=HOSTILE,
            rows=(HOSTILE,),
            columns=(HOSTILE * 9, ""),
            width="small",
            pictures=((Picture(values=(((0.5,),),), note=HOSTILE * 20), None),),
        ),
    )
