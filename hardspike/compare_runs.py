"""`hardspike compare`: finished runs side by side, with what differs from the first by more than the intervals."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hardspike.analyses.analyse_run import analyses_of
from hardspike.compared_run import compared_run
from hardspike.deploy.report.chart_file import write_chart
from hardspike.deploy.report.compare_page import comparison_charts, render_comparison
from hardspike.deploy.report.compared import ComparedRow, ComparedRun, compared_rows, notes_on
from hardspike.run_folder import RunFolder
from hardspike.show import table
from hardspike.snn.atomic import write_json, write_text
from hardspike.snn.errors import SettingsError
from hardspike.summary import Summary


def compare_runs(paths: Sequence[Path], out: Path) -> Summary:
    """Write the comparison to `out`. Raises SettingsError for fewer than two runs, FileError for one that is not finished."""
    if len(paths) < 2:
        raise SettingsError(f"compare: {len(paths)} run is not enough; name two or more run folders")
    if len(set(path.resolve() for path in paths)) < len(paths):
        raise SettingsError("compare: a run is named twice; name each once")
    folders = [RunFolder.open(path) for path in paths]
    runs = [compared_run(folder, name) for folder, name in zip(folders, _names(paths), strict=True)]
    rows, values = _write(folders, runs, out, out / "comparison.json")
    title = f"compared with {runs[0].name}: ▲ higher, ▼ lower by more than both 95 % intervals"
    shown = table(title, ["", *(run.name for run in runs)], [[row.name, *row.cells()] for row in rows])
    return Summary(values, [shown], [*values["notes"], f"report: {out / 'report.html'}"])


def _names(paths: Sequence[Path]) -> list[str]:
    """The folder's name; with as much of its path as tells it from the others."""
    names = [path.resolve().name for path in paths]
    return [
        name if names.count(name) == 1 else f"{path.resolve().parent.name}/{name}"
        for path, name in zip(paths, names, strict=True)
    ]


def report_of_float_run(folder: RunFolder) -> None:
    """The report of a run that is not deployed: its numbers, figures and analyses, on the page of a comparison with nothing else."""
    _write([folder], [compared_run(folder, folder.recipe.name)], folder.path, folder.report_json)


def _write(
    folders: Sequence[RunFolder], runs: Sequence[ComparedRun], out: Path, numbers: Path
) -> tuple[list[ComparedRow], dict[str, Any]]:
    """Page, figures and numbers."""
    rows, notes, charts = compared_rows(runs), notes_on(runs), comparison_charts(runs)
    for chart in charts:
        write_chart(out / "figures", chart)
    values = {"runs": [asdict(run) for run in runs], "rows": [asdict(row) for row in rows], "notes": notes}
    write_json(numbers, values)
    kept = [[one for one in analyses_of(folder) if one.current] for folder in folders]
    analyses = {run.name: [(one.analysis, one.commit) for one in found] for run, found in zip(runs, kept, strict=True)}
    write_text(out / "report.html", render_comparison(runs, rows, notes, charts, analyses))
    return rows, values
