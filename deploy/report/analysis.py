"""The result of one analysis: what was asked, what was found, on what, and the charts that show it."""

from dataclasses import dataclass, field
from typing import Any

from hardspike.deploy.report.chart import Chart


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
