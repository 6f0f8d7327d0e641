"""`hardspike analyse`: one analysis of a run, or all of them; each leaves numbers and pictures in the run's folder `analyses`."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from hardspike.analyses.options import AnalyseOptions
from hardspike.analyses.subject import Subject
from hardspike.analyses.table import ANALYSES, Entry
from hardspike.deploy.report.analysis import Analysis, analysis_from_json, analysis_to_json
from hardspike.deploy.report.chart_file import write_chart
from hardspike.run_folder import RunFolder, commit
from hardspike.snn.atomic import read_json, write_json
from hardspike.snn.errors import FileError, HardspikeError, SettingsError, unknown_name
from hardspike.snn.progress import Progress, Silent
from hardspike.summary import Summary

ALL = "all"
RESULT = "analysis.json"
RECORD = {"key", "networks", "commit", "seconds", "analysis"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One analysis in a run's folder. current: of the networks the run has now. seconds: processor time it took."""

    analysis: Analysis
    commit: str | None
    seconds: float
    current: bool
    folder: Path


def analyse_run(
    folder: RunFolder, name: str, options: AnalyseOptions, progress: Progress, *, redo: bool = False
) -> Summary:
    """Do the analysis `name`, or `all` that this run allows. One that was done on the same networks with the same options is kept.

    Raises SettingsError for an unknown name, FileError where stages are missing. With `all`, what a run does not allow is left
    out, and the summary says why.
    """
    if name not in (*ANALYSES, ALL):
        raise SettingsError(unknown_name("analysis", name, (*ANALYSES, ALL)))
    if name != ALL:
        _require_read(name, options)
    torch.set_num_threads(folder.recipe.threads)
    names = tuple(ANALYSES) if name == ALL else (name,)
    overall: Progress = progress if name == ALL else Silent()
    subject = Subject(folder, options, Silent() if name == ALL else progress)
    lines, found = [], {}
    overall.begin("analyse", len(names))
    for one in names:
        try:
            kept = _analysis(subject, one, ANALYSES[one], redo)
        except HardspikeError as refused:
            if name != ALL:
                raise
            lines.append(f"{one}: left out; {refused}")
            overall.advance(note=one)
            continue
        lines += _told(kept)
        found[one] = analysis_to_json(kept.analysis)
        overall.advance(note=one)
    values = (
        found[name] if name in found else {"analyses": found, "left_out": [s for s in lines if ": left out; " in s]}
    )
    return Summary(values, [], lines)


def _require_read(name: str, options: AnalyseOptions) -> None:
    """Raise SettingsError for an option that the analysis would ignore."""
    plain = AnalyseOptions(images=options.images, seed=options.seed)
    for field in fields(AnalyseOptions):
        value = getattr(options, field.name)
        if value != getattr(plain, field.name) and field.name not in ANALYSES[name].reads:
            readers = [other for other, entry in ANALYSES.items() if field.name in entry.reads]
            raise SettingsError(
                f"{field.name} = {value!r}: analysis '{name}' does not read it; leave it out ({', '.join(readers)} do)"
            )


def _analysis(subject: Subject, name: str, entry: Entry, redo: bool) -> Kept:
    for stage in entry.needs:
        subject.folder.require_finished(stage)
    path = subject.folder.path / "analyses" / name
    if not redo and (path / RESULT).is_file() and _record(path)["key"] == _key(subject, entry, name):
        return _kept(subject.folder, path)
    start = time.process_time()
    made = entry.make(subject)
    seconds = time.process_time() - start
    for chart in made.charts:
        write_chart(path, chart)
    record = {
        "key": _key(subject, entry, name),
        "networks": _networks_key(subject.folder, entry),
        "commit": commit(),
        "seconds": round(seconds, 2),
        "analysis": analysis_to_json(made),
    }
    write_json(path / RESULT, record)  # last: it says that the others are whole
    names = {chart.name for chart in made.charts}
    for left in path.glob("*.*"):  # of the same analysis with other options
        if left.stem not in names and left.name != RESULT:
            left.unlink()
    return _kept(subject.folder, path)


def _networks_key(folder: RunFolder, entry: Entry) -> list[str]:
    stages = {*entry.needs, *(stage for stage in ("convert", "deploy") if folder.finished(stage))}
    return [folder.key(stage) for stage in sorted(stages) if stage in folder.recipe.stages]


def _key(subject: Subject, entry: Entry, name: str) -> str:
    options = {field: getattr(subject.options, field) for field in ("images", "seed", *entry.reads)}
    text = json.dumps([name, options, _networks_key(subject.folder, entry)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _record(path: Path) -> dict[str, Any]:
    """Raises FileError for a file that `_analysis` does not write."""
    record = read_json(path / RESULT, f"the result of an analysis; make it again with --redo: {path.name}")
    if not isinstance(record, dict) or set(record) != RECORD:
        raise FileError(
            f"{path / RESULT}: not the result of an analysis; run hardspike analyse {path.name} with --redo"
        )
    return record


def _kept(folder: RunFolder, path: Path) -> Kept:
    record = _record(path)
    entry = ANALYSES[path.name]
    return Kept(
        analysis=analysis_from_json(record["analysis"], str(path / RESULT)),
        commit=record["commit"],
        seconds=record["seconds"],
        current=record["networks"] == _networks_key(folder, entry),
        folder=path,
    )


def analyses_of(folder: RunFolder) -> Iterator[Kept]:
    """Every analysis the run has, in the table's order."""
    for name in ANALYSES:
        if (folder.path / "analyses" / name / RESULT).is_file():
            yield _kept(folder, folder.path / "analyses" / name)


def _told(kept: Kept) -> Sequence[str]:
    made = kept.analysis
    conditions = ", ".join(f"{key} {value}" for key, value in made.conditions.items())
    return [
        f"{made.name}: {made.title} ({conditions})",
        *(f"  {sentence}" for sentence in made.found),
        *(f"  note: {note}" for note in made.notes),
        f"  charts: {kept.folder} ({', '.join(chart.name for chart in made.charts)}; .svg .csv .json)",
    ]
