"""Charts as files: the drawing as SVG, its numbers as CSV and JSON, all from one object; and back from JSON."""

import csv
import re
import types
from dataclasses import fields, is_dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from hardspike.deploy.report.chart import KINDS, Chart, to_json
from hardspike.deploy.report.draw import drawing
from hardspike.deploy.report.svg import LINE, fitted, label, paragraph, plain_text, shape
from hardspike.deploy.report.theme import COLOURS, SANS, css_variables
from hardspike.snn.atomic import write_json, write_text
from hardspike.snn.errors import FileError, SettingsError, unknown_name

MARGIN = 16.0
NAMESPACE = "http://www.w3.org/2000/svg"


def write_chart(folder: Path, chart: Chart) -> tuple[Path, Path, Path]:
    """Write NAME.svg, NAME.csv and NAME.json; each appears whole or not at all. Returns their paths in this order."""
    paths = [folder / f"{chart.name}.{suffix}" for suffix in ("svg", "csv", "json")]
    write_text(paths[0], standalone_svg(chart))
    write_text(paths[1], csv_text(chart))
    write_json(paths[2], to_json(chart))
    return paths[0], paths[1], paths[2]


def csv_text(chart: Chart) -> str:
    """The chart's table as RFC 4180 asks: a header, CRLF, quotes where needed. None is an empty cell, shares are in [0, 1].

    Control characters of names become spaces, as in the drawing.
    """
    header, rows = chart.table()
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow([plain_text(name, len(name)) for name in header])
    for row in rows:
        writer.writerow([plain_text(cell, len(cell)) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def standalone_svg(chart: Chart) -> str:
    """The drawing as a file of its own, with title, caption and the colours of both schemes."""
    drawn = drawing(chart)
    alternative, view = drawn.get("aria-label", ""), drawn.get("viewBox", "").split()
    width, height = (float(side) for side in view[2:])
    made: list[Element] = []
    # Small charts carry their title.
    titles = [] if chart.width == "small" else fitted(chart.title, 0.94 * width, 4)
    captions = fitted(chart.caption, width, 12)
    y = MARGIN + LINE * len(titles) + (6 if titles else 0)
    made += [label(text, MARGIN, MARGIN + 12 + LINE * at, tone="ink", bold=True) for at, text in enumerate(titles)]
    made.append(shape("g", *drawn, transform=f"translate({MARGIN:g} {y:g})"))
    y += height
    made += paragraph(captions, MARGIN, y + 20)
    y += MARGIN + (LINE * len(captions) + 8 if captions else 0)
    whole = (f"{width + 2 * MARGIN:g}", f"{y:g}")
    svg = shape("svg", xmlns=NAMESPACE, width=whole[0], height=whole[1], viewBox=f"0 0 {whole[0]} {whole[1]}")
    svg.set("role", "img")
    paper = shape("rect", width="100%", height="100%", style="fill: var(--paper)")
    svg.extend([_text("title", chart.title), _text("desc", alternative), _text("style", _style()), paper, *made])
    for element in svg.iter():
        _add_plain_colours(element)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def from_json(given: Any) -> Chart:
    """The chart that `to_json` described. Raises FileError in one line that names the place of the first mistake."""
    if not isinstance(given, dict) or not isinstance(given.get("kind"), str):
        raise FileError(f"chart: {_found(given)} is no chart; expected an object with a kind")
    if given["kind"] not in KINDS:
        raise FileError(unknown_name("chart: kind", given["kind"], KINDS))
    chart: Chart = _read(KINDS[given["kind"]], {k: v for k, v in given.items() if k != "kind"}, "chart")
    return chart


def _text(tag: str, text: str) -> Element:
    element = shape(tag)
    element.text = text if tag == "style" else plain_text(text, 10_000)
    return element


def _style() -> str:
    dark = f"@media (prefers-color-scheme: dark) {{ svg {{ {css_variables(dark=True)} }} }}"
    return f"svg {{ {css_variables(dark=False)} color-scheme: light dark; }} {dark} text {{ font-family: {SANS}; }}"


def _add_plain_colours(element: Element) -> None:
    """The light colours as attributes, which programs that know no CSS variables fall back to."""
    for key, name in re.findall(r"([\w-]+): ?var\(--(\w+)\)", element.get("style", "")):
        element.set(key, COLOURS[name][0])
    if element.tag == "text":
        element.set("font-family", "sans-serif")


def _read(hint: Any, value: Any, where: str) -> Any:
    """A value of JSON as the type that a field has."""
    if is_dataclass(hint):
        return _read_object(hint, value, where)
    origin, inside = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, value, "a list")
        if inside[-1] is Ellipsis:
            return tuple(_read(inside[0], one, f"{where}[{at}]") for at, one in enumerate(value))
        if len(value) != len(inside):
            raise _wrong(where, value, f"a list of {len(inside)}")
        return tuple(_read(one, v, f"{where}[{at}]") for at, (one, v) in enumerate(zip(inside, value, strict=True)))
    if origin in (Union, types.UnionType):
        return None if value is None else _read(inside[0], value, where)
    if origin is Literal:
        if value not in inside:
            raise _wrong(where, value, f"one of {', '.join(inside)}")
        return value
    if hint is float:
        return _read_number(value, where)
    if type(value) is not hint:
        raise _wrong(where, value, {str: "a text", bool: "true or false"}[hint])
    return value


def _read_number(value: Any, where: str) -> float:
    if type(value) not in (int, float):
        raise _wrong(where, value, "a number")
    try:
        return float(value)
    except OverflowError:
        raise _wrong(where, value, "a finite number") from None


def _read_object(hint: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, value, "an object")
    known = [field.name for field in fields(hint)]
    extra = next((key for key in value if key not in known), None)
    if extra is not None:
        raise FileError(unknown_name(f"{where}: field", str(extra), known))
    missing = next((name for name in known if name not in value), None)
    if missing is not None:
        raise FileError(f"{where}: {missing} is missing; write the chart again")
    hints = get_type_hints(hint)
    made = {name: _read(hints[name], one, f"{where}.{name}") for name, one in value.items()}
    try:
        return hint(**made)
    except SettingsError as error:
        raise FileError(f"{where}: {error}") from None


def _wrong(where: str, value: Any, expected: str) -> FileError:
    return FileError(f"{where}: {_found(value)} is not {expected}; the file is damaged or of another version")


def _found(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
