"""The comparison's page: every number of every run, marks where intervals are apart, and text of files as text."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_example import Browser, Page, analysis_example

from hardspike.deploy.report.analysis import Analysis
from hardspike.deploy.report.chart import BarChart, LineChart
from hardspike.deploy.report.compare_page import comparison_charts, render_comparison
from hardspike.deploy.report.compared import ComparedRun, Quantity, compared_rows, mark, notes_on

HOSTILE = "<script>alert(1)</script>\"'><img src=//x.example> & {{ 7 * 6 }}"


def share(value: float, half: float = 0.02) -> Quantity:
    return Quantity(value=value, low=value - half, high=value + half, n=100, unit="%")


def compared(name: str, clean: float, robust: float, spikes: float, **changed: str | int) -> ComparedRun:
    facts: dict[str, str | int] = {"dataset": "digits", "test images": 100, "attacks": "fgsm", "seed of the attacks": 0}
    return ComparedRun(
        name=name,
        training="adversarial ANN",
        facts=facts | {"commit": "0123456789ab"} | changed,
        values={
            "clean, deployed": share(clean),
            "attacked, eps 0.1, deployed": share(robust),
            "attacked, eps 0.05, deployed": share(robust + 0.1),
            "attacked, eps 0.1, deployed, all attacks": share(robust - 0.05),
            "spikes, clean image": Quantity(value=spikes, low=spikes - 9, high=spikes + 9, n=100, unit=""),
            "priced energy (davies2018), clean image": Quantity(value=3.1e-5, low=None, high=None, n=1, unit="J"),
        },
        fired=(),
        recipe=f'name = "{name}"',
    )


RUNS = [compared("one", 0.98, 0.6, 4000), compared("two", 0.97, 0.5, 3500), compared("three", 0.99, 0.61, 4001)]


def page(runs: list[ComparedRun], analyses: dict[str, list[tuple[Analysis, str | None]]] | None = None) -> str:
    given = analyses or {run.name: [] for run in runs}
    return render_comparison(runs, compared_rows(runs), notes_on(runs), comparison_charts(runs), given)


@pytest.mark.parametrize(
    ("value", "first", "expected"),
    [
        (share(0.6), share(0.5), "higher"),
        (share(0.5), share(0.6), "lower"),
        (share(0.54), share(0.5), ""),  # the intervals touch
        (share(0.541), share(0.5), "higher"),
        (None, share(0.5), ""),
        (share(0.5), None, ""),
        (share(0.9), Quantity(value=0.1, low=None, high=None, n=1, unit="%"), ""),
    ],
)
def test_a_mark_means_that_the_intervals_are_apart(
    value: Quantity | None, first: Quantity | None, expected: str
) -> None:
    assert mark(value, first) == expected


def test_the_table_has_every_number_of_every_run() -> None:
    shown = Page(page(RUNS))
    rows = shown.table("Numbers of each run")
    assert rows[0][1:] == [f"{run.name}adversarial ANN" for run in RUNS] or rows[0][1].startswith("one")
    by_name = {row[0]: row[1:] for row in rows[1:]}
    assert list(by_name) == list(RUNS[0].values)
    assert by_name["attacked, eps 0.1, deployed"][0].startswith("60.0 % 58.0 % to 62.0 %")
    assert "▼" in by_name["attacked, eps 0.1, deployed"][1] and "lower" in by_name["attacked, eps 0.1, deployed"][1]
    assert not set("▲▼") & set(by_name["attacked, eps 0.1, deployed"][2])
    assert by_name["spikes, clean image"][1].startswith("3,500 ▼")
    assert by_name["priced energy (davies2018), clean image"][0] == "31.0 µJ"
    assert "4 of 6 numbers differ beyond their intervals" in " ".join(shown.text.split())


def test_charts_hold_the_rows_they_draw() -> None:
    charts = {chart.name: chart for chart in comparison_charts(RUNS)}
    assert set(charts) == {"accuracy-deployed", "accuracy-deployed-all-attacks", "spikes"}
    lines = charts["accuracy-deployed"]
    assert isinstance(lines, LineChart)
    assert [(line.name, line.x, line.y) for line in lines.lines] == [
        ("one", (0.0, 0.05, 0.1), (0.98, 0.7, 0.6)),
        ("two", (0.0, 0.05, 0.1), (0.97, 0.6, 0.5)),
        ("three", (0.0, 0.05, 0.1), (0.99, 0.71, 0.61)),
    ]
    assert len({line.tone for line in lines.lines}) == 3
    worst = charts["accuracy-deployed-all-attacks"]
    assert isinstance(worst, LineChart) and worst.lines[0].x == (0.0, 0.1)
    bars = charts["spikes"]
    assert isinstance(bars, BarChart) and [one.values for one in bars.bars] == [(4000,), (3500,), (4001,)]


def test_what_cannot_be_compared_is_said() -> None:
    other = replace(compared("two", 0.9, 0.5, 1, dataset="fashion_mnist"), fired=("gradients vanish",))
    notes = notes_on([RUNS[0], other])
    assert notes[0] == "two: dataset is 'fashion_mnist', in one 'digits'; compare with care"
    assert notes[1].startswith("two: 1 check for gradient masking fired (gradients vanish)")
    shown = Page(page([RUNS[0], other]))
    assert all(note in shown.text for note in notes)
    assert "All runs were measured on the same images" not in shown.text
    assert "All runs were measured on the same images" in Page(page(RUNS)).text


def test_a_number_that_a_run_lacks_is_a_dash() -> None:
    float_only = replace(RUNS[1], values={"clean, float SNN": share(0.9)})
    rows = {row[0]: row[1:] for row in Page(page([RUNS[0], float_only])).table("Numbers of each run")[1:]}
    assert rows["spikes, clean image"][1] == "–" and rows["clean, float SNN"][0] == "–"
    assert rows["clean, float SNN"][1].startswith("90.0 %")


def test_analyses_that_all_runs_have_stand_side_by_side_with_ids_of_their_own() -> None:
    given = {run.name: [(analysis_example(f"found by {run.name}"), "0123")] for run in RUNS}
    text = page(RUNS, given)
    shown = Page(text)
    assert all(f"found by {run.name}" in shown.text for run in RUNS)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    del given["two"][0]
    assert "Analyses that all runs have" not in Page(page(RUNS, given)).text


def test_hostile_text_is_shown_as_text() -> None:
    named = replace(
        RUNS[1], name=HOSTILE, training=HOSTILE, recipe=HOSTILE, fired=(HOSTILE,), facts=RUNS[1].facts | {"x": HOSTILE}
    )
    made: list[tuple[Analysis, str | None]] = [(analysis_example(HOSTILE), HOSTILE)]
    text = page([RUNS[0], named], {"one": made, HOSTILE: made})
    shown = Page(text)
    assert not shown.problems and not shown.all("script") and shown.text.count(HOSTILE) > 10
    assert all(value.startswith("data:") for _, one in shown.elements for key, value in one.items() if key == "src")
    assert not [key for _, one in shown.elements for key in one if key.startswith("on")]


@pytest.mark.browser
def test_a_browser_shows_it_without_a_request_a_complaint_or_overflow(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    # Long names: a table that is wider than a phone scrolls by itself, with everything in it.
    runs = [
        replace(run, name=f"{run.name}-trained-on-many-images", training="adversarial ANN, finetuned") for run in RUNS
    ]
    path.write_text(page(runs, {run.name: [(analysis_example(), None)] for run in runs}), encoding="utf-8")
    assert browser.complaints(path) == []
    assert browser.evaluate("document.querySelectorAll('svg.figure').length") == 3 + 2 * len(RUNS)


def test_a_run_alone_is_a_report_of_its_own() -> None:
    text = page(RUNS[:1], {"one": [(analysis_example("found here"), "0123456789ab")]})
    shown = Page(text)
    assert not shown.problems and "Nothing was deployed" in shown.text and "found here" in shown.text
    assert "commit 0123456789ab" in shown.text and "side by side" not in shown.text and "compared" not in shown.text
