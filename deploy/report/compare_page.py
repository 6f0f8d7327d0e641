"""The page of a comparison: one table of all runs, figures over it, and the analyses that all of them have."""

from collections.abc import Mapping, Sequence

from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart, Bars, Chart, Line, LineChart
from hardspike.deploy.report.compared import MARKS, ComparedRow, ComparedRun, Quantity
from hardspike.deploy.report.drawn import drawn, shown_analysis, side_by_side
from hardspike.deploy.report.page import environment

RUN_TONES = ("first", "second", "third", "fourth", "ann", "snn", "deployed", "attack")
ATTACKED = "attacked, eps "


def comparison_charts(runs: Sequence[ComparedRun]) -> list[Chart]:
    """Accuracy against eps for each form of the network, and cost per image, each with the intervals of the table."""
    forms = dict.fromkeys(name.split(", ", 2)[2] for run in runs for name in run.values if name.startswith(ATTACKED))
    charts: list[Chart] = []
    for form in forms:
        lines = [_line(run, form, RUN_TONES[i % len(RUN_TONES)]) for i, run in enumerate(runs)]
        charts.append(
            LineChart(
                name=f"accuracy-{form}".replace(", ", "-").replace(" ", "-").lower(),
                title=f"Accuracy against eps: {form}",
                x_label="eps: largest change of a pixel, full range = 1",
                y_label="images classified right",
                lines=tuple(line for line in lines if line.x),
                percent=True,
                y_top=1.0,
                caption="One line for each run; bars are 95 % intervals. Lines whose bars do not touch are apart.",
            )
        )
    for what in ("spikes", "synaptic operations"):
        names = [name for name in dict.fromkeys(n for run in runs for n in run.values) if name.startswith(f"{what}, ")]
        if names:
            charts.append(_cost_chart(what, names, runs))
    return charts


def _line(run: ComparedRun, form: str, tone: str) -> Line:
    clean = run.values.get(f"clean, {form.removesuffix(', all attacks')}")
    points = [] if clean is None else [(0.0, clean)]
    for name, value in run.values.items():
        if name.startswith(ATTACKED) and name.split(", ", 2)[2] == form:
            points.append((float(name.removeprefix(ATTACKED).split(",")[0]), value))
    points.sort(key=lambda point: point[0])
    return Line(
        name=run.name,
        tone=tone,
        x=tuple(eps for eps, _ in points),
        y=tuple(value.value for _, value in points),
        low=tuple(value.low for _, value in points),
        high=tuple(value.high for _, value in points),
    )


def _cost_chart(what: str, names: Sequence[str], runs: Sequence[ComparedRun]) -> BarChart:
    def side(run: ComparedRun, field: str) -> tuple[float | None, ...]:
        return tuple(getattr(run.values[name], field) if name in run.values else None for name in names)

    return BarChart(
        name=what.replace(" ", "-"),
        title=f"{what.capitalize()} per image of the deployed network",
        label=f"{what}, mean over images",
        categories=tuple(name.removeprefix(f"{what}, ") for name in names),
        bars=tuple(
            Bars(
                name=run.name,
                tone=RUN_TONES[i % len(RUN_TONES)],
                values=side(run, "value"),
                low=side(run, "low"),
                high=side(run, "high"),
            )
            for i, run in enumerate(runs)
        ),
        caption="Exact counts, summed over layers and timesteps; thin lines are 95 % intervals of the mean.",
    )


def render_comparison(
    runs: Sequence[ComparedRun],
    rows: Sequence[ComparedRow],
    notes: Sequence[str],
    charts: Sequence[Chart],
    analyses: Mapping[str, Sequence[tuple[Analysis, str | None]]],
) -> str:
    """The whole page, of one run or several; all text is escaped. analyses: of each run, by its name, with their commits."""
    shared = side_by_side([[analysis for analysis, _ in analyses[run.name]] for run in runs])
    beside = []
    for name in shared:
        found = [next(one for one in analyses[run.name] if one[0].name == name) for run in runs]
        beside.append([shown_analysis(*one, f"r{index}-") for index, one in enumerate(found)])
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            runs=runs,
            rows=rows,
            notes=notes,
            charts=[drawn(chart, "figures") for chart in charts],
            shared=beside,
            marks=MARKS,
            facts=list(dict.fromkeys(name for run in runs for name in run.facts)),
            marked=[row for row in rows if any(row.marks)],
            headline=_headline(runs, rows),
        )
    )


def _headline(runs: Sequence[ComparedRun], rows: Sequence[ComparedRow]) -> list[str]:
    """What a reader in a hurry needs: clean and worst accuracy of the last form, and whether they are apart."""
    wanted = [row for row in rows if row.name.startswith(("clean, ", ATTACKED)) and all(row.values)]
    if not wanted:
        return []
    form = wanted[-1].name.split(", ")[1 if wanted[-1].name.startswith("clean") else 2]
    chosen = [row for row in wanted if row.name in (f"clean, {form}", wanted[-1].name)]
    sentences = []
    for row in chosen:
        parts = [
            f"{run.name} {value.text()}" + (f" ({mark})" if mark else "")
            for run, value, mark in zip(runs, row.values, row.marks, strict=True)
            if isinstance(value, Quantity)
        ]
        sentences.append(f"{row.name}: {', '.join(parts)}")
    return sentences
