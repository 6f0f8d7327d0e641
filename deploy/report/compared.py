"""Several runs' numbers beside each other, and which differ from the first run's by more than chance would."""

from collections.abc import Sequence
from dataclasses import dataclass

from hardspike.deploy.si_prefix import si

MARKS = {"higher": "▲", "lower": "▼", "": ""}
# What must agree for robust accuracies to be of the same thing.
CONDITIONS = ("dataset", "test images", "attacks", "seed of the attacks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One number of one run. low, high: its 95 % interval over the n test images, None where there is none. unit: %, J, or a count."""

    value: float
    low: float | None
    high: float | None
    n: int
    unit: str

    def text(self) -> str:
        return self._shown(self.value)

    def between(self) -> str:
        """Its interval."""
        assert self.low is not None and self.high is not None
        return f"{self._shown(self.low)} to {self._shown(self.high)}"

    def _shown(self, value: float) -> str:
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        return si(value, self.unit) if self.unit else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """facts: settings and provenance, by name. values: numbers by name. fired: masking checks. recipe: as resolved."""

    name: str
    training: str
    facts: dict[str, str | int]
    values: dict[str, Quantity]
    fired: tuple[str, ...]
    recipe: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRow:
    """One number of every run, None where a run has none. marks: `higher` or `lower` where a run's interval and the first run's are
    apart, else empty."""

    name: str
    values: tuple[Quantity | None, ...]
    marks: tuple[str, ...]

    def cells(self) -> list[str]:
        return [
            "-" if value is None else f"{value.text()} {MARKS[mark]}".rstrip()
            for value, mark in zip(self.values, self.marks, strict=True)
        ]


def mark(value: Quantity | None, first: Quantity | None) -> str:
    """Intervals that do not touch: a difference that is larger than both say. Weaker differences may be real and are not marked."""
    if value is None or first is None or None in (value.low, value.high, first.low, first.high):
        return ""
    assert value.low is not None and value.high is not None and first.low is not None and first.high is not None
    return "higher" if value.low > first.high else "lower" if value.high < first.low else ""


def compared_rows(runs: Sequence[ComparedRun]) -> list[ComparedRow]:
    """A row for each number that any run has, in the order of the first run that has it."""
    names = list(dict.fromkeys(name for run in runs for name in run.values))
    rows = []
    for name in names:
        values = tuple(run.values.get(name) for run in runs)
        rows.append(ComparedRow(name=name, values=values, marks=tuple(mark(value, values[0]) for value in values)))
    return rows


def notes_on(runs: Sequence[ComparedRun]) -> list[str]:
    """What stands in the way of comparing: other images, other attacks, masking checks that fired."""
    first = runs[0]
    notes = [
        f"{run.name}: {name} is '{run.facts[name]}', in {first.name} '{first.facts[name]}'; compare with care"
        for run in runs[1:]
        for name in CONDITIONS
        if run.facts[name] != first.facts[name]
    ]
    notes += [
        f"{run.name}: {len(run.fired)} check{'s' if len(run.fired) > 1 else ''} for gradient masking fired ({'; '.join(run.fired)}); "
        "read its robust accuracies as upper bounds"
        for run in runs
        if run.fired
    ]
    return notes
