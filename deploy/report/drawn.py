"""A chart as a page shows it: the drawing, what it depends on, and its files."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import Chart, to_json
from hardspike.deploy.report.chart_file import csv_text, standalone_svg
from hardspike.deploy.report.draw import draw

# Larger files are named only: they stay beside the page.
LARGEST_LINK = 40_000


@dataclass(frozen=True, slots=True)
class Drawn:
    """links: (what, address): the file itself as a data address, or where a large one lies from the page's folder."""

    chart: Chart
    svg: Markup
    links: tuple[tuple[str, str], ...]


def drawn(chart: Chart, folder: str, prefix: str = "", *, keyed: bool = True) -> Drawn:
    """folder: where the chart's files lie, from the page. prefix: makes the name unique on a page with several runs.

    keyed: with names of the series in the drawing; without, the page names them.
    """
    files = (
        ("CSV", "csv", "text/csv", csv_text(chart)),
        ("JSON", "json", "application/json", json.dumps(to_json(chart))),
        ("SVG", "svg", "image/svg+xml", standalone_svg(chart)),
    )
    links = []
    for label, suffix, kind, text in files:
        place = f"{folder}/{chart.name}.{suffix}"
        data = base64.b64encode(text.encode()).decode("ascii")
        links.append((label, place if len(data) > LARGEST_LINK else f"data:{kind};base64,{data}"))
    return Drawn(chart, draw(replace(chart, name=f"{prefix}{chart.name}"), keyed=keyed), tuple(links))


@dataclass(frozen=True, slots=True)
class ShownAnalysis:
    """conditions: as one line. commit: of the code that did it."""

    analysis: Analysis
    charts: tuple[Drawn, ...]
    conditions: str


def shown_analysis(analysis: Analysis, commit: str | None, prefix: str = "") -> ShownAnalysis:
    conditions = [f"{name} {value}" for name, value in analysis.conditions.items()]
    charts = tuple(drawn(chart, f"analyses/{analysis.name}", f"{prefix}{analysis.name}-") for chart in analysis.charts)
    return ShownAnalysis(analysis, charts, " · ".join([*conditions, *([f"commit {commit}"] if commit else [])]))


def side_by_side(analyses: Sequence[Sequence[Analysis]]) -> list[str]:
    """Names of the analyses that every run has, in the first one's order."""
    others = [{analysis.name for analysis in one} for one in analyses[1:]]
    return [analysis.name for analysis in analyses[0] if all(analysis.name in names for names in others)]
