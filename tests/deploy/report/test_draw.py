"""Drawings say the numbers: lengths and places are read back from the SVG through the tick texts beside them."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import matplotlib
import pytest
from chart_examples import bars, demanding, floating, histogram, line, lines, matrix, pictures, plain
from report_example import read_png

from hardspike.deploy.report.alternative import alternative
from hardspike.deploy.report.axes_text import number
from hardspike.deploy.report.chart import TONES, Bars, Chart, LineChart, Picture
from hardspike.deploy.report.draw import _text, draw
from hardspike.deploy.report.png import heat_uri, image_uri
from hardspike.deploy.report.svg import COLOURS, text_width
from hardspike.deploy.report.theme import COLOURS as THEME

EVERY = (*plain(), *demanding())


def drawn(chart: Chart, *, keyed: bool = True) -> Element:
    return ElementTree.fromstring(draw(chart, keyed=keyed))


def texts(svg: Element, anchor: str = "") -> dict[str, tuple[float, float]]:
    """The place of each level text; of texts that are there twice, the last. Those below an axis have anchor middle, left of it end."""
    level = [
        e for e in svg.iter("text") if not e.get("transform") and e.get("text-anchor", "")[: len(anchor)] == anchor
    ]
    return {e.text or "": (float(e.get("x", "")), float(e.get("y", ""))) for e in level}


def across(svg: Element, *marks: tuple[str, float]) -> Callable[[float], float]:
    """From pixels to values of the horizontal axis, from two tick texts."""
    place = texts(svg, "middle")
    return scale(*((place[text][0], value) for text, value in marks))


def up(svg: Element, *marks: tuple[str, float]) -> Callable[[float], float]:
    """The same for the vertical axis, whose texts have their base line 4 pixels below what they mark."""
    place = texts(svg, "end")
    return scale(*((place[text][1] - 4, value) for text, value in marks))


def paths(svg: Element, tone: str, kind: str = "stroke") -> list[list[list[tuple[float, float]]]]:
    """Of each path in a tone its pieces, as corners."""
    found = [e for e in svg.iter("path") if f"{kind}: var(--{tone})" in e.get("style", "") and " L" in e.get("d", "")]
    return [
        [
            [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", piece)]
            for piece in e.get("d", "").split("M")[1:]
        ]
        for e in found
    ]


def scale(first: tuple[float, float], last: tuple[float, float]) -> Callable[[float], float]:
    """From pixels to values, from two ticks (pixel, value)."""
    return lambda pixel: first[1] + (pixel - first[0]) * (last[1] - first[1]) / (last[0] - first[0])


def bar_spans(svg: Element, tone: str) -> list[tuple[float, float]]:
    """Left and right end of every bar."""
    return [(min(x for x, _ in p[0]), max(x for x, _ in p[0])) for p in paths(svg, tone, "fill") if len(p[0]) >= 4]


def test_lines_go_through_their_points_and_have_gaps() -> None:
    svg = drawn(lines())
    x, y = across(svg, ("clean", 0), ("0.2", 0.2)), up(svg, ("0 %", 0), ("100 %", 100))
    (ann,) = [p for p in paths(svg, "ann") if len(p[0]) == 3]
    assert [y(v) for _, v in ann[0]] == pytest.approx([90, 50, 25], abs=0.05)
    assert [x(v) for v, _ in ann[0]] == pytest.approx([0, 0.1, 0.2], abs=0.001)
    marks = [e for e in svg.iter("use") if "var(--deployed)" in e.get("style", "")]
    assert [y(float(e.get("y", ""))) for e in marks] == pytest.approx([80, 12.5], abs=0.05)
    # The gap: nothing leads from the first point to the last.
    reach = [max(x for x, _ in piece) - min(x for x, _ in piece) for p in paths(svg, "deployed") for piece in p]
    assert max(reach) < 10


def test_whiskers_and_bands_reach_from_low_to_high() -> None:
    svg = drawn(lines())
    y = up(svg, ("0 %", 0), ("100 %", 100))
    whiskers = [p[0] for p in paths(svg, "ann") if len(p[0]) == 2 and p[0][0][0] == p[0][1][0]]
    spans = sorted(tuple(sorted(round(y(v)) for _, v in corners)) for corners in whiskers)
    assert spans == [(21, 29), (46, 54), (88, 92)]
    many = tuple((float(x), 0.5) for x in range(20))
    band = line("a", "first", *many, low=(0.25,) * 20, high=(0.75,) * 20)
    svg = drawn(LineChart(name="band", title="t", x_label="x", y_label="y", lines=(band,), y_top=1.0))
    y = up(svg, ("0", 0), ("1", 1))
    (use,) = (e for e in svg.iter("use") if "fill-opacity: 0.16" in e.get("style", ""))
    (area,) = (e for e in svg.iter("path") if e.get("id") == use.get("href", "")[1:])
    corners = re.findall(r"[-\d.]+ ([-\d.]+)", area.get("d", ""))
    assert {round(y(float(v) + float(use.get("y", ""))), 2) for v in corners} == {0.25, 0.75}


def test_points_at_the_same_x_are_set_apart_only_for_whiskers() -> None:
    def marks(low: tuple[float, ...], high: tuple[float, ...]) -> list[float]:
        both = tuple(line(tone, tone, (0, 0.5), (1, 0.6), low=low, high=high) for tone in ("ann", "snn"))
        svg = drawn(LineChart(name="two", title="t", x_label="x", y_label="y", lines=both))
        return [float(e.get("x", "")) for e in svg.iter("use")]

    together, apart = marks((), ()), marks((0.4, 0.5), (0.6, 0.7))
    assert together[:2] == together[2:]
    assert 2 < apart[2] - apart[0] < 12 and 2 < apart[3] - apart[1] < 12


def test_a_logarithmic_axis_gives_every_decade_the_same_width() -> None:
    one = line("a", "first", (1, 1), (10, 2), (1000, 3))
    svg = drawn(LineChart(name="log", title="t", x_label="x", y_label="y", lines=(one,), x_log=True))
    (corners,) = (p[0] for p in paths(svg, "first") if len(p[0]) == 3)
    x = [corner[0] for corner in corners]
    assert (x[2] - x[0]) / (x[1] - x[0]) == pytest.approx(3, abs=0.01)
    place = texts(svg)
    assert [place[text][0] for text in ("1", "10", "1,000")] == pytest.approx(x, abs=0.02)


def test_bars_are_as_long_as_their_values() -> None:
    svg = drawn(bars())
    value = across(svg, ("0", 0), ("100", 100))
    for tone, expected in (("clean", [100, 50]), ("attack", [200, 75, 0])):
        ends = bar_spans(svg, tone)
        assert [value(start) for start, _ in ends] == pytest.approx([0] * len(ends), abs=0.1)
        assert [value(end) for _, end in ends] == pytest.approx(expected, abs=0.3)
    whiskers = [[value(x) for x, _ in p[0]] for p in paths(svg, "ink")]
    assert [round(v) for pair in whiskers for v in pair] == [90, 120, 40, 60]
    assert "–" in texts(svg)  # for the value that does not exist
    svg = drawn(replace(bars(), bars=(Bars(name="a", tone="first", values=(-100.0, 50.0, None)),)))
    value = across(svg, ("0", 0), ("50", 50))
    assert [[round(value(x)) for x in span] for span in bar_spans(svg, "first")] == [[-100, 0], [0, 50]]
    assert {"−100", "50", "–"} <= texts(svg, "").keys()  # one group: the numbers too


def test_floating_bars_lie_between_low_and_high_and_stay_visible() -> None:
    svg = drawn(floating())
    value = across(svg, ("0", 0), ("2", 2))
    spans = bar_spans(svg, "clean")
    assert [value(x) for span in spans for x in span] == pytest.approx([1, 3, 2, 2], abs=0.02)
    styles = [e.get("style", "") for e in svg.iter("path") if "fill: var(--clean)" in e.get("style", "")]
    assert all("stroke-width: 1.5" in style and "stroke: var(--clean)" in style for style in styles)


def test_outlines_of_a_histogram_are_steps_of_its_counts() -> None:
    svg = drawn(histogram())
    x, y = across(svg, ("0", 0), ("20", 20)), up(svg, ("0", 0), ("10", 10))
    for tone, counts in (("clean", [5, 9, 2]), ("attack", [1, 4, 11])):
        (outline,) = (p[0] for p in paths(svg, tone) if len(p[0]) >= 6)
        corners = [(round(x(a)), round(y(b), 1)) for a, b in outline]
        expected = [(0, 0), *((10 * (at + side), count) for at, count in enumerate(counts) for side in (0, 1)), (30, 0)]
        assert [corner for corner in expected if corner not in corners] == []


def test_cells_show_and_shade_their_values() -> None:
    svg = drawn(matrix())
    place = texts(svg)
    assert {"12.5", "50.0", "25.0", "–"} <= place.keys()
    assert place["12.5"][1] == place["50.0"][1] < place["–"][1] == place["25.0"][1]
    assert place["12.5"][0] == place["–"][0] == texts(svg, "middle")["ANN"][0] < place["50.0"][0]
    cells = [e.get("style", "") for e in svg.iter("rect")][:4]
    assert "fill: none" in cells[2]
    shade = [float(re.findall(r"fill-opacity: ([\d.]+)", cells[at])[0]) for at in (0, 3, 1)]
    assert shade == pytest.approx([0.04 + 0.51 * share for share in (0.125, 0.25, 0.5)], abs=0.001)
    for darkest in (0.5, None):  # None: the largest value has the full shade
        cells = [e.get("style", "") for e in drawn(replace(matrix(), darkest=darkest)).iter("rect")]
        assert "fill-opacity: 0.550" in cells[1] and "fill-opacity: 0.295" in cells[3]
    signed = drawn(replace(matrix(), values=((-1.0, 0.5), (-0.0, 1.0)), percent=False))
    styles = [e.get("style", "") for e in signed.iter("rect")][:4]
    assert ["deployed" in style for style in styles] == [True, False, False, False]
    assert {"−1.00", "0.50", "0.00", "1.00"} <= texts(signed).keys()


def test_pictures_are_their_pixels_and_maps_grow_lighter() -> None:
    svg = drawn(pictures())
    grey, under, heat, colour, _ = [e.get("href", "") for e in svg.iter("image")]
    assert grey == under == image_uri([[[0.0, 0.2], [0.6, 1.0]]])
    assert read_png(grey)[3] == bytes([0, 51, 153, 255]) and read_png(colour)[:3] == (2, 2, 3)
    assert heat == heat_uri([[1.0, 0.5, 0.0]])
    ramp = read_png(heat_uri([[step / 20 for step in range(21)]]))[3]
    light = [0.2126 * ramp[k] + 0.7152 * ramp[k + 1] + 0.0722 * ramp[k + 2] for k in range(0, len(ramp), 3)]
    assert light == sorted(light) and light[-1] - light[0] > 150
    opacity = [e.get("style", "") for e in svg.iter("image")][2]
    assert "opacity: 0.6" in opacity and "pixelated" in opacity
    assert {"image", "spike1", "clean", "attacked", "variance 0.17", "–"} <= texts(svg).keys()
    wide = replace(pictures(), pictures=((Picture(values=(((0.0,) * 8,) * 2,)), None), (None, None)))
    image = next(drawn(wide).iter("image"))
    assert float(image.get("width", "")) == pytest.approx(4 * float(image.get("height", "")), rel=0.01)


@pytest.mark.parametrize("chart", EVERY, ids=lambda chart: chart.name)
def test_every_drawing_is_legible_and_stands_alone(chart: Chart) -> None:
    text = str(draw(chart))
    svg = ElementTree.fromstring(text)
    box = [float(side) for side in svg.get("viewBox", "").split()]
    assert box[:2] == [0, 0] and box[2] == {"small": 210, "normal": 420, "wide": 860}[chart.width] and box[3] > 0
    assert not re.search(r"\b(nan|inf|None)\b", " ".join(e.get("d", "") for e in svg.iter()))
    assert set(re.findall(r"var\(--([\w-]+)\)", text)) <= THEME.keys()
    assert not [colour for colour in COLOURS.values() if colour in text] and not re.search(r"#[0-9a-f]{6}\b", text)
    assert all(e.get("href", "#")[:1] == "#" or e.get("href", "").startswith("data:image/png") for e in svg.iter())
    assert all(value.startswith(chart.name) for value in [e.get("id", chart.name) for e in svg.iter()])
    for element in svg.iter("text"):
        assert float(re.findall(r"font-size: ([\d.]+)px", element.get("style", ""))[0]) >= 11
        assert re.search(r"fill: var\(--(ink|soft)\)", element.get("style", ""))
    check_texts(svg, box[2], box[3])


def check_texts(svg: Element, width: float, height: float) -> None:
    """Level texts lie inside the drawing and do not cover one another; letters are as wide as those of DejaVu Sans."""
    spans = []
    for element in svg.iter("text"):
        if not element.get("transform") and (element.text or "").strip():
            size = 0.85 * text_width(element.text or "")
            x = (
                float(element.get("x", ""))
                - {"start": 0, "middle": size / 2, "end": size}[element.get("text-anchor", "start")]
            )
            y = float(element.get("y", ""))
            assert x >= -2 and x + size <= width + 8 and 0 < y <= height, element.text
            spans.append((x, y, size, element.text))
    for (x, y, size, one), (left, line_y, other_size, other) in combinations(spans, 2):
        assert abs(y - line_y) >= 10 or x + size <= left + 1 or left + other_size <= x + 1, (one, other)


def test_more_than_one_series_is_named_beside_the_drawing_or_at_the_ends() -> None:
    for chart, names in (
        (lines(), ("ANN", "deployed")),
        (bars(), ("clean", "attack")),
        (histogram(), ("clean", "attack")),
    ):
        assert set(names) <= texts(drawn(chart)).keys()
        assert not set(names) & texts(drawn(chart, keyed=False)).keys()
    crowded = replace(
        lines(), lines=tuple(line(f"series {k}", TONES[k], (0, 0.5), (1, 0.5)) for k in range(12)), x_names=()
    )
    place = texts(drawn(crowded))
    assert [place[f"series {k}"][1] for k in (0, 11)] == sorted(place[f"series {k}"][1] for k in (0, 11))
    ends = texts(drawn(lines()))
    assert ends["ANN"][0] == ends["deployed"][0] > 300 and ends["ANN"][1] < ends["deployed"][1]


def test_of_lines_that_coincide_the_lower_one_is_wider() -> None:
    def widths(second: float) -> list[str]:
        both = (line("a", "ann", (0, 1), (1, 2)), line("b", "snn", (0, 1), (1, second)))
        svg = drawn(LineChart(name="two", title="t", x_label="x", y_label="y", lines=both, markers=False, y_top=4.0))
        styles = [e.get("style", "") for e in svg.iter("path") if " L" in e.get("d", "")]
        return [re.findall(r"stroke-width: ([\d.]+)", style)[0] for style in styles]

    assert widths(2) == ["4.5", "1.7"]
    assert widths(2.02) == ["4.5", "1.7"]  # a pixel apart
    assert widths(3) == ["1.7", "1.7"]


def test_small_charts_carry_their_title_and_long_names_are_cut() -> None:
    assert "Accuracy falls with eps." in texts(drawn(replace(lines(), width="small")))
    assert "Accuracy falls with eps." not in texts(drawn(lines()))
    named = replace(bars(), categories=("a" * 60, "b", "c"))
    (cut,) = [text for text in texts(drawn(named)) if "aaa" in text]
    assert cut == "a" * (len(cut) - 1) + "…" and 18 < len(cut) < 30
    named = replace(bars(), categories=("LIF, Poisson input, 300 steps", "b", "c"))
    assert {"LIF, Poisson input, 300", "steps"} <= texts(drawn(named)).keys()


@pytest.mark.parametrize("chart", EVERY, ids=lambda chart: chart.name)
def test_the_alternative_text_has_the_title_and_numbers(chart: Chart) -> None:
    text = alternative(chart)
    assert 10 <= len(text) <= 600 and text.isprintable()


def test_the_alternative_text_tells_the_most_important_numbers() -> None:
    assert drawn(lines()).get("aria-label") == alternative(lines())
    told = {chart.kind: alternative(chart) for chart in plain() if chart.name != "floating"}
    assert told == {
        "lines": "Line chart: Accuracy falls with eps. ANN: 90 % at clean, 50 % at 0.1, 25 % at 0.2; "
        "deployed: 80 % at clean, 12.5 % at 0.2.",
        "bars": "Bar chart: Spikes. spike1: clean 100, attack 200; spike2: clean 50, attack 75; out: clean none, attack 0.",
        "histogram": "Histogram: Spikes of images. clean: 16 samples, most from 10 to 20 (spikes); "
        "attack: 16 samples, most from 20 to 30 (spikes).",
        "matrix": "Table of shaded cells: Who fools whom. ANN: ANN 12.5 %, SNN 50 %; SNN: SNN 25 %.",
        "pictures": "Pictures: What the layers look at. The map of the first layer covers the digit.",
    }
    long = tuple((float(x), (x - 30.0) ** 2) for x in range(50))
    chart = LineChart(name="long", title="Long", x_label="x", y_label="y", lines=(line("a", "first", *long),))
    assert alternative(chart) == "Line chart: Long. a: 900 at 0, 0 at 30, 361 at 49."
    cells = next(chart for chart in demanding() if chart.name == "many-cells")
    assert re.search(r"v: highest 1 \(r block.*lowest −1 \(r block", alternative(cells))
    assert "1 to 3" in alternative(floating())


def test_the_same_chart_gives_the_same_drawing_and_leaves_matplotlib_alone() -> None:
    before = dict(matplotlib.rcParams)
    for chart in plain():
        first = draw(chart)
        _text.cache_clear()
        assert draw(chart) == first
    assert dict(matplotlib.rcParams) == before


def test_slanting_names_stay_apart_and_inside() -> None:
    named = tuple((float(at), f"a_long_name_{at}") for at in range(30))
    slope = math.radians(40)
    for width in ("small", "normal", "wide"):
        one = line("a", "snn", *((float(at), 1.0) for at in range(30)))
        svg = drawn(LineChart(name="n", title="t", x_label="x", y_label="y", lines=(one,), x_names=named, width=width))
        slanting = [e for e in svg.iter("text") if e.get("transform")]
        x = [float(e.get("x", "")) for e in slanting]
        assert len(x) > 3 and min(b - a for a, b in pairwise(x)) * math.sin(slope) >= 12
        reach = [a - math.cos(slope) * 0.9 * text_width(e.text or "") for a, e in zip(x, slanting, strict=True)]
        assert min(reach) >= 0 and all(e.get("transform", "").startswith("rotate(-40 ") for e in slanting)


def test_names_of_lines_that_end_at_the_bottom_stay_above_it() -> None:
    ends = tuple(line(f"line {k}", TONES[k], (0, 1), (1, 0)) for k in range(3))
    svg = drawn(LineChart(name="n", title="t", x_label="x", y_label="y", lines=ends))
    heights = [texts(svg)[f"line {k}"][1] for k in range(3)]
    assert max(heights) <= texts(svg, "end")["0"][1] and min(b - a for a, b in pairwise(sorted(heights))) >= 12


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.25, "0.25"),
        (12_300, "12,300"),
        (999_999, "999,999"),
        (2.5e6, "2.5 M"),
        (1e7, "10 M"),
        (-3e9, "−3 G"),
        (0, "0"),
    ],
)
def test_numbers_on_axes_are_never_powers(value: float, text: str) -> None:
    assert number(value) == text
