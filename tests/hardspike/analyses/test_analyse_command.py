"""`hardspike analyse` as a person runs it: files, the report, what is kept, and what is refused in one line."""

import json
from pathlib import Path

import pytest
from tiny_run import Invoke

from hardspike.analyses.analyse_run import analyses_of
from hardspike.analyses.table import ANALYSES
from hardspike.deploy.report.chart_file import csv_text
from hardspike.run_folder import RunFolder


def written(run: Path, name: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (run / "analyses" / name).iterdir()}


def test_an_analysis_leaves_its_files_and_is_shown_in_the_report(hardspike: Invoke, run: Path) -> None:
    code, out, err = hardspike("analyse", "energy", run, "--images", 6, "--quiet")
    assert (code, err) == (0, ""), err
    (kept,) = analyses_of(RunFolder.open(run))
    assert all(sentence in out for sentence in kept.analysis.found) and kept.current
    files = written(run, "energy")
    assert set(files) == {"analysis.json"} | {
        f"{c.name}.{s}" for c in kept.analysis.charts for s in ("svg", "csv", "json")
    }
    chart = kept.analysis.charts[0]
    assert (run / "analyses" / "energy" / f"{chart.name}.csv").read_bytes().decode() == csv_text(chart)
    page = (run / "report.html").read_text()
    assert kept.analysis.title in page and f'download="{chart.name}.csv"' in page
    assert json.loads((run / "report.json").read_text())["analyses"][0]["analysis"]["name"] == "energy"

    assert hardspike("analyse", "energy", run, "--images", 6, "--quiet")[0] == 0
    assert written(run, "energy") == files  # not done again
    assert hardspike("analyse", "energy", run, "--images", 6, "--seed", 1, "--quiet")[0] == 0
    assert written(run, "energy")["analysis.json"] != files["analysis.json"]


def test_an_analysis_of_other_networks_is_not_shown(hardspike: Invoke, run: Path) -> None:
    assert hardspike("analyse", "encoder", run, "--images", 4, "--quiet")[0] == 0
    record = run / "analyses" / "encoder" / "analysis.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps(values | {"networks": ["of another network"]}))
    (kept,) = analyses_of(RunFolder.open(run))
    assert not kept.current
    assert hardspike("report", run, "--redo", "--quiet")[0] == 0
    page = (run / "report.html").read_text()
    assert "networks that have changed since: encoder" in page and kept.analysis.title not in page


@pytest.mark.parametrize("damage", ["no json", "[]", "{}", "found"])
def test_a_damaged_result_is_one_line_and_is_made_again(hardspike: Invoke, run: Path, damage: str) -> None:
    assert hardspike("analyse", "encoder", run, "--images", 4, "--quiet")[0] == 0
    record = run / "analyses" / "encoder" / "analysis.json"
    values = json.loads(record.read_text())
    values["analysis"]["found"] = None
    record.write_text(json.dumps(values) if damage == "found" else damage)
    code, out, err = hardspike("analyse", "encoder", run, "--images", 4, "--quiet")
    assert (code, out) == (1, "") and len(err.splitlines()) == 1 and "analysis.json" in err and "--redo" in err
    assert hardspike("analyse", "encoder", run, "--images", 4, "--redo", "--quiet")[0] == 0
    assert json.loads(record.read_text())["analysis"]["found"]


def test_charts_of_other_options_do_not_stay_behind(hardspike: Invoke, run: Path) -> None:
    for layer, other in (("spike1", "spike2"), ("spike2", "spike1")):
        assert hardspike("analyse", "heatmaps", run, "--images", 4, "--layers", layer, "--quiet")[0] == 0
        names = set(written(run, "heatmaps"))
        assert {f"maps_{layer}.svg", f"maps_{layer}.csv", "analysis.json"} <= names and f"maps_{other}.svg" not in names


def test_json_holds_the_whole_analysis(hardspike: Invoke, run: Path) -> None:
    code, out, _ = hardspike("analyse", "encoder", run, "--images", 4, "--json")
    assert code == 0
    values = json.loads(out)
    assert values["name"] == "encoder" and values["conditions"]["T"] == 4
    assert values["found"] and values["charts"] and values["values"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("nothing",), "analysis"),
        (("energy", "--images", 0), "images = 0"),
        (("energy", "--eps", "2"), "eps = 2.0"),
        (("energy", "--eps", "x"), "eps = 'x'"),
        (("energy", "--backend", "chip"), "backend = 'chip'"),
        (("energy", "--sam", "mine"), "sam = 'mine'"),
        (("energy", "--gamma", 0.1), "gamma = 0.1: analysis 'energy' does not read it"),
    ],
)
def test_wrong_options_end_with_one_line(hardspike: Invoke, run: Path, options: tuple[object, ...], told: str) -> None:
    name, *rest = options
    code, out, err = hardspike("analyse", name, run, *rest, "--quiet")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and told in err, err
    assert not (run / "analyses").exists()


def test_a_run_that_has_not_got_so_far_says_what_to_run(hardspike: Invoke, run: Path) -> None:
    stages = json.loads((run / "stages.json").read_text())
    (run / "stages.json").write_text(json.dumps({name: one for name, one in stages.items() if name == "train"}))
    code, _, err = hardspike("analyse", "energy", run, "--quiet")
    assert code == 1 and "run: hardspike" in err and len(err.splitlines()) == 1


def test_the_help_names_every_analysis(hardspike: Invoke) -> None:
    _, out, _ = hardspike("analyse", "--help")
    assert all(name in out for name in ANALYSES)


@pytest.mark.slow
def test_all_analyses_of_one_run_are_in_its_report(hardspike: Invoke, run: Path) -> None:
    code, out, err = hardspike("analyse", "all", run, "--images", 6, "--quiet")
    assert (code, err) == (0, ""), err
    kept = {one.analysis.name: one.analysis for one in analyses_of(RunFolder.open(run))}
    assert set(kept) == set(ANALYSES), out
    page = (run / "report.html").read_text()
    for analysis in kept.values():
        assert f'id="analysis-{analysis.name}"' in page and analysis.charts
        shown = {"suppression": "pairs", "leak-rate": "T", "encoder": "T"}.get(
            analysis.name, "n"
        )  # the last two see no image
        assert analysis.conditions[shown] and "seed" in analysis.conditions
    assert "NaN" not in (run / "report.json").read_text()
