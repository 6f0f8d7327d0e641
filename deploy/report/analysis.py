"""The result of one analysis: what was asked, what was found, on what, and the charts that show it."""

import json
from dataclasses import dataclass, field, fields
from typing import Any

from hardspike.deploy.report.chart import Chart, to_json
from hardspike.deploy.report.chart_file import from_json
from hardspike.snn.errors import FileError


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """name: as `hardspike analyse` takes it. question: one or two sentences, with the source (paper, equation).

    found: sentences made from the numbers, the most important first. notes: of degenerate inputs, and of what was left out.
    conditions: what the numbers depend on (n, seed, eps, T, ...), shown under every chart. values: every number, without NaN.
    """

    name: str
    title: str
    question: str
    found: tuple[str, ...]
    conditions: dict[str, str | int | float]
    charts: tuple[Chart, ...]
    notes: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)


def analysis_to_json(made: Analysis) -> dict[str, Any]:
    """As a file gives it back: lists in place of tuples. Raises ValueError for NaN and infinity."""
    plain = {field.name: getattr(made, field.name) for field in fields(made)}
    text = json.dumps(plain | {"charts": [to_json(chart) for chart in made.charts]}, allow_nan=False)
    return dict(json.loads(text))


def analysis_from_json(values: Any, place: str) -> Analysis:
    """place: the file, for errors. Raises FileError for anything that `analysis_to_json` does not make."""
    texts, lists = ("name", "title", "question"), ("found", "notes", "charts")
    if (
        not isinstance(values, dict)
        or set(values) != {field.name for field in fields(Analysis)}
        or not all(isinstance(values[key], list) for key in lists)
        or not all(
            isinstance(text, str) for text in [*(values[key] for key in texts), *values["found"], *values["notes"]]
        )
        or not isinstance(values["conditions"], dict)
    ):
        raise FileError(f"{place}: not an analysis; run hardspike analyse with --redo")
    return Analysis(
        **values
        | {
            "found": tuple(values["found"]),
            "notes": tuple(values["notes"]),
            "charts": tuple(from_json(chart) for chart in values["charts"]),
        }
    )
