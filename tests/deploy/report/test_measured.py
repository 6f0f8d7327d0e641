"""The report's section on hardware runs: there only where a run came back, measured beside estimated, nothing believed as HTML."""

import copy
from typing import Any

import pytest
from report_example import Page, report_example, share

from hardspike.deploy.report.measured import measured_runs
from hardspike.deploy.report.page import render_page, statuses

HOSTILE = "<script>alert(1)</script>{{ 7 * 6 }}"


def row(name: str, what: str, compared: int, differing: int = 0, first: str = "") -> dict[str, Any]:
    return {"name": name, "what": what, "compared": compared, "differing": differing, "first": first, "verdict": ""}


def rail(static_w: float, dynamic_w: float, seconds: float) -> dict[str, float]:
    joule = {"static_j": static_w * seconds, "dynamic_j": dynamic_w * seconds}
    return {"static_w": static_w, "dynamic_w": dynamic_w, **joule, "total_j": sum(joule.values())}


def run(**changes: Any) -> dict[str, Any]:
    sets = [
        {"name": "clean", "images": 30, "same_class": 0.987, "estimate_j": {"a": 1e-6, "b": 4e-6}},
        {"name": "attack on deployed eps 0.1", "images": 10, "same_class": 1.0, "estimate_j": {"a": 5e-6, "b": 8e-6}},
    ]
    for index, one in enumerate(sets):
        one |= {"right": share(0.91 - index / 5), "expected": share(0.93 - index / 5), "estimate_s": {"x": 2e-5}}
    return {
        "backend": "loihi2",
        "network_sha256": "0" * 64,
        "sets": sets,
        "rows": [row("clean", "spikes of 3 of 3 layers", 123456), row("clean", "output potentials", 300)],
        "steps_per_image": 8,
        "host_s_per_step": 0.0025,
        "chip_s_per_step": 1e-4,
        "rails": {name: rail(0.2, 0.05, 8e-4) for name in ("total", "vdd", "vddm", "vddio")},
        "chips_on_board": 1,
        "not_measured": "",
        "estimated_for": "Intel Loihi 1",
        "facts": {"started": "2026-03-04T05:06:07", "host": "slurm", "place": {"PARTITION": "kp"}, "versions": {}},
    } | changes


def report(*runs: dict[str, Any]) -> tuple[dict[str, Any], Page]:
    numbers = report_example()
    numbers["networks"][0]["measured"] = list(runs)
    return numbers, Page(render_page(numbers))


def test_without_a_run_there_is_no_section_and_no_claim() -> None:
    plain, empty = Page(render_page(report_example())), report()[1]
    for page in (plain, empty):
        assert "Measured on hardware" not in page.text and "bundle" not in page.text
        assert "No chip was used, and no power was measured." in page.text
    assert plain.text == empty.text


def test_measured_stands_beside_expected_and_estimated() -> None:
    numbers, page = report(run())
    assert not page.problems and page.text.count("Measured on hardware") == 2  # contents and heading
    assert page.table("Values compared with the emulator, tiny on Loihi 2 (kp)")[1:] == [
        ["clean", "spikes of 3 of 3 layers", "123,456", "0", "–"],
        ["clean", "output potentials", "300", "0", "–"],
    ]
    accuracy = page.table("Share of images classified right, tiny on Loihi 2 (kp)")
    assert [line[0] for line in accuracy[1:]] == ["clean", "attack on deployed eps 0.1"]
    assert accuracy[1][1] == "30" and accuracy[1][2].startswith("91.0 %") and accuracy[1][3].startswith("93.0 %")
    assert accuracy[1][4] == "98.7 %"
    costs = page.table("Energy and time per image, measured and estimated, tiny on Loihi 2 (kp)")
    assert costs == [
        ["Per image", "Measured", "Estimated for Intel Loihi 1"],
        ["dynamic energy", "40.0 µJ", "2.00 to 5.00 µJ"],  # (30 * 1 + 10 * 5) / 40, (30 * 4 + 10 * 8) / 40
        ["static energy", "160 µJ", "–"],
        ["total energy", "200 µJ", "–"],
        ["dynamic power", "50.0 mW", "–"],
        ["static power", "200 mW", "–"],
        ["time on the chip", "800 µs", "20.0 µs"],
        ["time of the host, reading out included", "20.0 ms", "–"],
    ]
    found = statuses(numbers)[-1]
    assert (found.kind, found.word) == ("good", "holds")
    assert "123,756 values were compared with the emulator's: none differs" in found.text
    assert "200 µJ per image, of which 160 µJ static" in found.text
    assert "No chip was used" not in page.text and "no power was measured" not in page.text


def test_a_difference_is_a_failure_that_is_shown() -> None:
    numbers, page = report(
        run(rows=[row("clean", "spikes", 1000, 3, "spike of a, image 2, step 1, neuron (4,): 1 instead")])
    )
    found = statuses(numbers)[-1]
    assert (found.kind, found.word) == ("bad", "fails") and "1,000 values were compared" in found.text
    assert "3 differ" in found.text and page.table("Values compared")[1][3:] == [
        "3",
        "spike of a, image 2, step 1, neuron (4,): 1 instead",
    ]


def test_a_simulators_run_is_called_one() -> None:
    simulated = run(backend="simulator", rails={}, chip_s_per_step=None)
    simulated["facts"]["place"] = {}
    numbers, page = report(simulated)
    assert "The bundle's run on Lava's simulator" in page.text and "Measured on hardware" not in page.text
    assert "No chip was used, and no power was measured." in page.text and len(statuses(numbers)) == 5
    costs = {line[0]: line[1:] for line in page.table("Energy and time per image")}
    assert costs["dynamic energy"] == ["–", "2.00 to 5.00 µJ"] and "total energy" not in costs
    assert "A simulator has no power to measure." in page.text


@pytest.mark.parametrize("why", ["", "AttributeError: x"])
def test_what_was_not_measured_or_has_no_public_price_is_not_made_up(why: str) -> None:
    bare = run(rails={}, chip_s_per_step=None, not_measured=why)
    for one in bare["sets"]:
        one |= {"estimate_j": {}, "estimate_s": {}}
    numbers, page = report(bare)
    costs = {line[0]: line[1:] for line in page.table("Energy and time per image")}
    assert costs["dynamic energy"] == ["–", "– (none is public)"] == costs["time on the chip"]
    assert f"Power and time per step were not measured{f' ({why})' if why else ''}." in page.text
    assert "per image, of which" not in statuses(numbers)[-1].text


def test_nothing_in_a_run_is_taken_for_html() -> None:
    hostile = run(not_measured=HOSTILE, rails={}, chip_s_per_step=None)
    hostile["facts"] |= {"started": HOSTILE, "place": {"BOARD": HOSTILE}}
    hostile["rows"][0]["first"] = HOSTILE
    page = report(hostile)[1]
    assert not page.problems and "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(HOSTILE) >= 4


def test_runs_keep_their_order_and_their_network() -> None:
    numbers = report_example()
    first, second = run(), run(chips_on_board=8)
    numbers["networks"][0]["measured"] = [first, second]
    numbers["networks"][1]["measured"] = [copy.deepcopy(first)]
    runs = measured_runs(numbers["networks"])
    assert [(one.network, one.numbers) for one in runs] == [("tiny", first), ("tiny", second), ("control", first)]
    assert "The sensors cover 8 chips" in runs[1].note and "sensors" not in runs[0].note
