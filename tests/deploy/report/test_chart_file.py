"""Files of a chart: the CSV and the JSON hold its numbers, the SVG stands alone, and damaged JSON is refused in one line."""

import csv
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from chart_examples import HOSTILE, bars, demanding, lines, matrix, pictures, plain

from hardspike.deploy.report.chart import Chart, to_json
from hardspike.deploy.report.chart_file import csv_text, from_json, standalone_svg, write_chart
from hardspike.deploy.report.theme import COLOURS
from hardspike.snn.errors import FileError

EVERY = (*plain(), *demanding())
SVG = "{http://www.w3.org/2000/svg}"


svg_text = cache(standalone_svg)


@pytest.mark.parametrize("chart", EVERY, ids=lambda chart: chart.name)
def test_json_gives_the_chart_back_and_csv_its_table(chart: Chart, tmp_path: Path) -> None:
    svg, table, values = write_chart(tmp_path, chart)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{chart.name}.{end}" for end in ("csv", "json", "svg")]
    assert from_json(json.loads(values.read_text())) == chart
    assert svg.read_text(encoding="utf-8") == svg_text(chart)
    header, *rows = csv.reader(StringIO(table.read_bytes().decode(), newline=""))
    wanted_header, wanted = chart.table()
    assert len(header) == len(wanted_header) and len(rows) == len(wanted)
    for row, cells in zip(rows, wanted, strict=True):
        for text, value in zip(row, cells, strict=True):
            if isinstance(value, str):
                assert text == "".join(c if c.isprintable() else " " for c in value)
            else:
                assert (None if text == "" else float(text)) == value


def test_csv_is_as_rfc_4180_asks() -> None:
    chart = replace(bars(), categories=('quoted "name"', "comma, name", "line\nbreak"), bars=bars().bars[:1])
    assert csv_text(chart) == (
        "series,category,spikes per image,low,high\r\n"
        'clean,"quoted ""name""",100.0,90.0,120.0\r\n'
        'clean,"comma, name",50.0,40.0,60.0\r\n'
        "clean,line break,,,\r\n"
    )


@pytest.mark.parametrize("chart", EVERY, ids=lambda chart: chart.name)
def test_the_svg_stands_alone(chart: Chart) -> None:
    text = svg_text(chart)
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg" and text.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    assert [child.tag.removeprefix(SVG) for child in root][:4] == ["title", "desc", "style", "rect"]
    style = root.findtext(f"{SVG}style") or ""
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w+);", part)) for part in style.split("@media"))
    assert (light, dark) == tuple({name: both[k] for name, both in COLOURS.items()} for k in (0, 1))
    for element in root.iter():
        for key, name in re.findall(r"([\w-]+): ?var\(--(\w+)\)", element.get("style", "")):
            assert element.get(key) == light[name]  # for programs without CSS variables
        assert not [key for key in element.attrib if key.startswith("on")] and not element.tag.endswith("script")
        assert element.get("href", "#").startswith(("#", "data:image/png"))
    assert text.count("http") == 1 and not re.search("[\0-\x08\x0b-\x1f]", text)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids)) and set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)


def test_the_svg_shows_title_caption_and_description() -> None:
    root = ElementTree.fromstring(standalone_svg(lines()))
    shown = [element.text for element in root.iter(f"{SVG}text")]
    assert shown[0] == "Accuracy falls with eps." and shown[-1] == "Whiskers are 95 % intervals."
    assert root.findtext(f"{SVG}title") == "Accuracy falls with eps."
    assert (root.findtext(f"{SVG}desc") or "").startswith("Line chart: Accuracy falls with eps. ANN: 90 %")
    small = ElementTree.fromstring(standalone_svg(replace(lines(), width="small")))
    assert [element.text for element in small.iter(f"{SVG}text")].count("Accuracy falls with eps.") == 1
    long = ElementTree.fromstring(standalone_svg(replace(lines(), caption="word " * 60)))
    assert float(long.get("height", "")) > float(root.get("height", "")) + 40


def changed(chart: Chart, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    given: dict[str, Any] = json.loads(json.dumps(to_json(chart)))
    change(given)
    return given


MISTAKES: dict[str, tuple[Any, str]] = {
    "no object": ([], r"chart: \[\] is no chart; expected an object with a kind"),
    "no kind": ({}, "chart: {} is no chart"),
    "kind": (changed(lines(), lambda c: c.update(kind="line")), "kind 'line' is unknown; did you mean 'lines'"),
    "kind of a list": (changed(lines(), lambda c: c.update(kind=[])), "is no chart"),
    "missing": (changed(lines(), lambda c: c.pop("percent")), "chart: percent is missing"),
    "extra": (changed(lines(), lambda c: c.update(colour="red")), "chart: field 'colour' is unknown"),
    "missing below": (changed(lines(), lambda c: c["lines"][1].pop("x")), r"chart.lines\[1\]: x is missing"),
    "number for text": (changed(lines(), lambda c: c.update(title=3)), "chart.title: 3 is not a text"),
    "text for number": (
        changed(lines(), lambda c: c["lines"][0]["y"].__setitem__(1, "0.5")),
        r"lines\[0\].y\[1\]: '0.5' is not a number",
    ),
    "true for number": (
        changed(lines(), lambda c: c["lines"][0]["x"].__setitem__(0, True)),
        r"x\[0\]: True is not a number",
    ),
    "number for true": (changed(lines(), lambda c: c.update(percent=1)), "chart.percent: 1 is not true or false"),
    "no list": (changed(bars(), lambda c: c.update(categories="abc")), "chart.categories: 'abc' is not a list"),
    "null": (changed(bars(), lambda c: c.update(bars=None)), "chart.bars: None is not a list"),
    "list for object": (
        changed(bars(), lambda c: c["bars"].__setitem__(0, [])),
        r"chart.bars\[0\]: \[\] is not an object",
    ),
    "pair": (changed(lines(), lambda c: c["x_names"][0].append(1)), r"chart.x_names\[0\]: .* is not a list of 2"),
    "width": (
        changed(matrix(), lambda c: c.update(width="huge")),
        "chart.width: 'huge' is not one of small, normal, wide",
    ),
    "unhashable width": (changed(matrix(), lambda c: c.update(width={})), "chart.width: {} is not one of"),
    "NaN": (
        changed(matrix(), lambda c: c["values"][0].__setitem__(0, float("nan"))),
        "chart: chart matrix, row 'ANN', value 0: nan",
    ),
    "too large": (
        changed(matrix(), lambda c: c["values"][0].__setitem__(0, 10**400)),
        r"values\[0\]\[0\]: 1000.* is not a finite number",
    ),
    "ragged": (changed(matrix(), lambda c: c["values"][0].pop()), "row 'ANN': 1 values for 2 columns"),
    "tone": (changed(bars(), lambda c: c["bars"][0].update(tone="red")), r"chart.bars\[0\]: bars 'clean': tone 'red'"),
    "path": (changed(bars(), lambda c: c.update(name="../../a")), "chart name '../../a' is no name of a file"),
    "pixel": (
        changed(pictures(), lambda c: c["pictures"][0][0]["values"][0][0].__setitem__(0, 7)),
        r"pictures\[0\]\[0\]: picture: 0.2 to 7.0",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_damaged_json_is_refused_with_the_place(mistake: str) -> None:
    given, message = MISTAKES[mistake]
    with pytest.raises(FileError, match=message) as caught:
        from_json(given)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container of a JSON value with each of its keys."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in list(keys) for place in ((value, key), *places(value[key]))]


def test_anything_in_place_of_anything_is_a_chart_or_a_file_error() -> None:
    draws = random.Random(7)
    junk = (None, True, -1, 1e308, float("inf"), "", "ann", HOSTILE, [], {}, [[]], [None], {"kind": "lines"}, 10**400)
    refused = 0
    for _ in range(300):
        given = changed(draws.choice(plain()), lambda _: None)
        holder, key = draws.choice(places(given))
        holder[key] = draws.choice(junk)
        try:
            chart = from_json(given)
        except FileError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert from_json(json.loads(json.dumps(to_json(chart)))) == chart
    assert 150 < refused < 300
