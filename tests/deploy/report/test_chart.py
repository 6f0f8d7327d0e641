"""Charts refuse what a drawing, a table or a file could not say, in one line, when they are made."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from chart_examples import bars, demanding, floating, histogram, line, lines, matrix, pictures, plain

from hardspike.deploy.report.chart import KINDS, Bars, Chart, Line, Picture
from hardspike.snn.errors import SettingsError

NAN, INF = float("nan"), float("inf")
GREY = (((0.0, 0.2), (0.6, 1.0)),)
MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "tone": (lambda: line("a", "red", (0, 1)), "line 'a': tone 'red' is unknown; choose from ann"),
    "tone of bars": (lambda: Bars(name="b", tone="", values=(1.0,)), "bars 'b': tone '' is unknown"),
    "NaN": (lambda: line("a", "ann", (0, NAN)), "line 'a', y, value 0: nan is not a finite number or None"),
    "infinity in x": (
        lambda: line("a", "ann", (0, 1), (-INF, 1)),
        "line 'a', x, value 1: -inf is not a finite number;",
    ),
    "None in x": (lambda: Line(name="a", tone="ann", x=(None,), y=(1.0,)), "x, value 0: None is not a finite number;"),
    "bool": (lambda: line("a", "ann", (0, True)), "y, value 0: True is not"),
    "float32": (lambda: line("a", "ann", (0, np.float32(1))), "y, value 0: .*1.0.* is not"),
    "text": (lambda: Bars(name="b", tone="ann", values=("1",)), "bars 'b', value 0: '1' is not"),
    "ragged line": (lambda: Line(name="a", tone="ann", x=(1.0, 2.0), y=(1.0,)), "a', y: 1 values for 2 values of x"),
    "low alone": (lambda: line("a", "ann", (0, 1), low=(0.5,)), "line 'a', high: 0 values for 1"),
    "one end": (lambda: line("a", "ann", (0, 1), low=(0.5,), high=(None,)), "interval 0: one end is None"),
    "exchanged ends": (lambda: line("a", "ann", (0, 1), low=(2.0,), high=(1.0,)), "low 2.0 is above high 1.0"),
    "name": (lambda: replace(lines(), name="../a"), "chart name '../a' is no name of a file; use a-z, 0-9, - and _"),
    "empty name": (lambda: replace(bars(), name=""), "chart name '' is no"),
    "width": (
        lambda: replace(matrix(), width="huge"),
        "chart matrix: width 'huge' is unknown; choose from small, normal, wide",
    ),
    "logarithm": (lambda: replace(lines(), x_log=True), "chart lines: x 0.0 has no logarithm"),
    "y_top": (lambda: replace(lines(), y_top=NAN), "y_bottom and y_top, value 1: nan"),
    "x_names": (lambda: replace(lines(), x_names=((INF, "a"),)), "x_names, value 0: inf"),
    "too few bars": (lambda: replace(bars(), categories=("a",)), "bars 'clean': 3 values for 1 categories"),
    "too few spans": (lambda: replace(floating(), categories=("a",)), "bars 'clean', low: 2 values for 1"),
    "no bars": (lambda: replace(bars(), bars=(Bars(name="b", tone="ann"),)), "bars 'b': 0 values for 3 categories"),
    "edges": (lambda: replace(histogram(), edges=(0.0, 1.0, 1.0, 2.0)), "chart histogram: edges do not rise"),
    "one edge": (lambda: replace(histogram(), edges=(0.0,), bars=()), "1 edges enclose nothing"),
    "counts": (lambda: replace(histogram(), edges=(0.0, 1.0)), "bars 'clean': 3 values for 1 intervals"),
    "interval of counts": (
        lambda: replace(
            histogram(), edges=(0.0, 1.0), bars=(Bars(name="b", tone="ann", values=(1.0,), low=(1.0,), high=(1.0,)),)
        ),
        "bars 'b': counts of a histogram have no low and high",
    ),
    "rows": (lambda: replace(matrix(), rows=("a",)), "chart matrix: 2 values for 1 rows"),
    "columns": (lambda: replace(matrix(), columns=("a",)), "chart matrix, row 'ANN': 2 values for 1 columns"),
    "cell": (lambda: replace(matrix(), values=((1.0, 2.0), (1.0, INF))), "row 'SNN', value 1: inf"),
    "darkest": (lambda: replace(matrix(), darkest=0.0), "darkest 0.0 is no shade"),
    "picture rows": (lambda: replace(pictures(), rows=("a",)), "chart pictures: 2 values for 1 rows"),
    "picture columns": (lambda: replace(pictures(), columns=("a",)), "row 'clean': 2 values for 1 columns"),
    "channels": (lambda: Picture(values=GREY * 2), "picture: 2 channels or no pixels; give 1 or 3"),
    "heat of three": (lambda: Picture(values=GREY * 3, look="heat"), "3 channels or no pixels; give 1 and"),
    "no pixels": (lambda: Picture(values=((),)), "no pixels"),
    "no columns of pixels": (lambda: Picture(values=(((),),)), "no pixels"),
    "ragged picture": (lambda: Picture(values=(((0.1, 0.2), (0.1,)),)), "picture: 1 values for 2 columns"),
    "ragged channels": (lambda: Picture(values=(*GREY, *GREY, ((0.1, 0.2),))), "picture: 1 values for 2 rows"),
    "bright": (lambda: Picture(values=(((0.0, 1.1),),)), r"picture: 0.0 to 1.1 is not in \[0, 1\]"),
    "negative under": (lambda: Picture(values=GREY, look="heat", under=(((-0.1,),),)), "under of a picture: -0.1"),
    "NaN pixel": (lambda: Picture(values=(((NAN,),),)), "picture, value 0: nan is not a finite number"),
    "hidden under": (lambda: Picture(values=GREY, under=GREY), "an image hides what is under it"),
    "look": (lambda: Picture(values=GREY, look="x-ray"), "look 'x-ray' is unknown; choose from image, heat"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_refused_in_one_line(mistake: str) -> None:
    make, message = MISTAKES[mistake]
    with pytest.raises(SettingsError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_the_rounding_of_float32_pixels_is_forgiven() -> None:
    assert Picture(values=(((-1e-7, 1.0000001),),)).values[0][0][1] > 1


@pytest.mark.parametrize("chart", (*plain(), *demanding()), ids=lambda chart: chart.name)
def test_tables_are_rectangles_with_a_header(chart: Chart) -> None:
    header, rows = chart.table()
    assert all(len(row) == len(header) for row in rows) and all(header)
    assert KINDS[chart.kind] is type(chart)


def test_tables_hold_every_number() -> None:
    assert lines().table() == (
        ["series", "eps", "accuracy", "low", "high"],
        [
            ["ANN", 0, 0.9, 0.88, 0.92],
            ["ANN", 0.1, 0.5, 0.46, 0.54],
            ["ANN", 0.2, 0.25, 0.21, 0.29],
            ["deployed", 0, 0.8, None, None],
            ["deployed", 0.1, None, None, None],
            ["deployed", 0.2, 0.125, None, None],
        ],
    )
    assert floating().table()[1] == [["clean", "spike1", None, 1.0, 3.0], ["clean", "out", None, 2.0, 2.0]]
    assert histogram().table()[1][:2] == [["clean", 0.0, 10.0, 5.0], ["clean", 10.0, 20.0, 9.0]]
    assert matrix().table()[1][2] == ["SNN", "ANN", None]
    assert pictures().table()[1][:2] == [["clean", "image", 0, 0, 0, 0.0], ["clean", "image", 0, 0, 1, 0.2]]
    assert len(pictures().table()[1]) == 4 + 3 + 12
