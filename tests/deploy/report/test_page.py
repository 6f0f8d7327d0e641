"""The report's page: it shows the numbers it was given, says what is missing, and is one valid file that fetches nothing."""

import base64
import copy
import json
import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from report_example import FORMS, Browser, Page, analysis_example, contrast, example, read_png, report_example

from hardspike.deploy.report.analysis import analysis_to_json
from hardspike.deploy.report.page import render_page
from hardspike.deploy.report.png import difference_uri, image_uri
from hardspike.deploy.report.statuses import Status, statuses
from hardspike.deploy.report.svg import COLOURS

HOSTILE = "<script>alert('x')</script>\"><img src=http://x.example/a onerror=alert(1)> $\\frac$ & {{ 7 * 6 }}"


def percent(value: float) -> str:
    return f"{value * 100:.1f} %"


def cell(share: dict[str, Any]) -> str:
    return f"{percent(share['value'])} {share['low'] * 100:.1f}–{share['high'] * 100:.1f}"


@cache
def page() -> tuple[dict[str, Any], Page]:
    """The plain example and its page, for tests that change neither."""
    return (numbers := report_example()), Page(render_page(numbers))


def changed(change: Callable[[dict[str, Any]], Any], **main: Any) -> Page:
    numbers = report_example(**main)
    change(numbers)
    return Page(render_page(numbers))


def test_the_headline_is_computed_from_the_numbers() -> None:
    numbers, shown = page()
    text = " ".join(shown.text.split())
    clean = numbers["networks"][0]["clean"]["deployed"]["value"]
    worst, control = (tested["robust"][-1]["deployed_worst_case"]["value"] for tested in numbers["networks"])
    assert f"classifies {percent(clean)} of 200 test images. Under attack of eps 0.1" in text
    assert f"by 10 % of its range, it still classifies {percent(worst)}." in text
    assert f"The same network trained without adversarial images: {percent(control)}." in text


def test_the_result_table_shows_every_accuracy_with_its_interval() -> None:
    numbers, shown = page()
    rows = shown.table("Share of test images classified right")
    for tested in numbers["networks"]:
        start = rows.index([f"{tested['name']} {tested['training']}"])
        block = {row[0]: row[1:] for row in rows[start + 1 : start + 6]}
        assert block["clean"] == [*(cell(tested["clean"][form]) for form in FORMS), "–"]
        for budget in tested["robust"]:
            (noise,) = budget["noise"].values()
            assert block[f"random noise, eps {budget['eps']:g}"] == [*(cell(noise[form]) for form in FORMS), "–"]
            attacked = [*(budget["white_box"][form] for form in FORMS), budget["deployed_worst_case"]]
            assert block[f"attacked, eps {budget['eps']:g}"] == [cell(share) for share in attacked]


def test_tables_about_attacks_say_eps_steps_surrogates_n_and_seed() -> None:
    _, shown = page()
    wanted = ("Share of test", "Checks on", "Accuracy by set", "Mean per image", "Per image, all", "Priced", "Sum of")
    captions = [caption for caption in shown.tables if caption.startswith(wanted)]
    assert len(captions) == len(wanted) + 5  # five of them also in a second table, of the control network
    for caption in captions:
        for part in ("eps 0.05, 0.1 (L∞)", "n 200", "seed 7", "fgsm, pgd20"):
            assert part in caption
        assert "pgd20/{triangular:1; straight-through}" in caption or "pgd20 × 2 surrogates" in caption
    after = next(rows for caption, rows in shown.tables.items() if caption.startswith("control, eps 0.1"))
    assert after[2] == ["pgd20/triangular:1", *[percent(0.71 - 0.1 - 0.013)] * 3]


def test_analyses_are_shown_with_what_they_depend_on_and_their_files() -> None:
    numbers, shown = page()
    text = " ".join(shown.text.split())
    assert "Analysis found" in text and "n 3 · found found · commit 0123456789ab" in text
    links = [one for one in shown.all("a") if one.get("download", "").startswith("eps-curve")]
    assert [one["download"] for one in links] == ["eps-curve.csv", "eps-curve.json", "eps-curve.svg"]
    kinds, data = zip(*(one["href"].removeprefix("data:").split(";base64,") for one in links), strict=True)
    assert kinds == ("text/csv", "application/json", "image/svg+xml")
    csv, chart, svg = (base64.b64decode(one).decode() for one in data)
    assert (
        csv.splitlines()[1] == "found,0.0,1.0,,"
        and json.loads(chart) == numbers["analyses"][0]["analysis"]["charts"][0]
    )
    assert svg.startswith(("<svg", "<?xml")) and "prefers-color-scheme" in svg

    def none(numbers: dict[str, Any]) -> None:
        numbers |= {"analyses": [], "stale_analyses": []}

    assert "what the analyses found" not in changed(none).text
    assert "changed since: leak." in changed(lambda numbers: numbers.update(stale_analyses=["leak"])).text


def test_replay_fit_and_seconds_are_those_of_the_numbers() -> None:
    numbers, shown = page()
    for tested in numbers["networks"]:
        rows = shown.table(f"Accuracy by set of images, {tested['name']}")[2:]
        for row, one in zip(rows, tested["replay"], strict=True):
            assert row[2:] == [
                *(cell(one["accuracy"][form]) for form in FORMS),
                cell(one["accuracy_snn_before_grid"]),
                percent(one["agreement"]),
                str(one["right_only_snn"]),
                str(one["right_only_deployed"]),
            ]
        for fit in tested["fit"]:
            row = shown.row(f"Integers of {tested['name']}", fit["name"])
            assert row[0] == f"{fit['scale']:,.1f}" and row[1].endswith(fit["binding"])
            assert row[2:4] == [str(fit["largest_weight"]), f"{fit['largest_bias']:,}"]
            assert row[4] == ("does not fire" if fit["name"] == "dense3" else f"{fit['threshold']:,}")
            assert row[5] == f"{100 * fit['relative_weight_error']:.2g} %"
        assert shown.row("Seconds per stage", tested["name"]) == ["12.3", "5.7"]


def test_spikes_and_operations_are_those_of_the_numbers() -> None:
    numbers, shown = page()
    for tested in numbers["networks"]:
        clean, attack = tested["replay"][0], tested["replay"][-1]
        noise = next(one for one in tested["replay"] if one["kind"] == "noise" and one["eps"] == 0.1)
        for index, layer in enumerate(clean["layers"]):
            row = shown.row(f"Mean per image and layer, {tested['name']}", layer["name"])
            assert row[0] == str(layer["neurons"])
            for key, cells in (("spikes", row[3:7]), ("synaptic_operations", row[7:11])):
                means = [one["layers"][index][key]["mean"] if layer[key] else None for one in (clean, noise, attack)]
                if means[0] is None:
                    assert cells == ["–"] * 4
                else:
                    assert [cell.replace(",", "") for cell in cells[:3]] == [f"{mean:.0f}" for mean in means]
                    assert cells[3] == f"{100 * (means[2] / means[0] - 1):+.1f} %"
        assert f"changes spikes by +{20.0} % and" in " ".join(shown.text.split())


def test_energy_rows_are_interval_sum_and_the_sum_without_the_first_layer() -> None:
    numbers, shown = page()
    tested = numbers["networks"][0]
    title = "Priced parts in µJ per image and layer, tiny"
    for kind, place in (("clean", 0), ("attack", -1)):
        one = tested["replay"][place]
        column = {"clean": 1, "attack": 3}[kind]
        first, *_ = one["layers"]
        low, high = (1e6 * one["energy_j"][side]["mean"] for side in ("low", "high"))
        assert shown.row(title, "sum of priced parts")[column] == f"{low:.2f}–{high:.2f}"
        rest = [low - 1e6 * first["energy_j"]["low"]["mean"], high - 1e6 * first["energy_j"]["high"]["mean"]]
        assert shown.row(title, "without the first layer")[column] == f"{rest[0]:.2f}–{rest[1]:.2f}"
    by_set = tested["replay"][0]["energy_j"]["by_set"]
    shown_means = shown.row("Sum of priced parts in µJ per image, by set of images, tiny", "clean")[1:]
    assert shown_means == [f"{1e6 * by_set[s][k]:.2f}" for s in by_set for k in ("mean", "p50", "p95", "max")]


def test_energy_attacked_images_stand_beside_the_others_and_are_compared_with_the_same_images_only() -> None:
    def attacked(numbers: dict[str, Any], n: int) -> None:
        replay = numbers["networks"][0]["replay"]
        costly = copy.deepcopy(next(one for one in replay if one["kind"] == "attack" and one["eps"] == 0.1))
        clean = next(one for one in replay if one["kind"] == "clean")
        costly |= {"kind": "energy", "name": "energy attack eps 0.1", "made_on": "deployed"}
        costly["synaptic_operations"] = {key: 1.25 * value for key, value in clean["synaptic_operations"].items()}
        costly["accuracy"] = {form: one | {"n": n} for form, one in clean["accuracy"].items()}
        replay.append(costly)

    shown = changed(lambda numbers: attacked(numbers, 200))
    text = " ".join(shown.text.split())
    assert "while the class stays: +25.0 % on average, and its dearest image takes +25.0 %" in text
    tables = [
        rows for caption, rows in shown.tables.items() if caption.startswith(("Accuracy by set", "Sum of priced"))
    ]
    assert [sum(row[0] == "energy attack" for row in rows) for rows in tables] == [1, 0, 1, 0]
    fewer = " ".join(changed(lambda numbers: attacked(numbers, 50)).text.split())
    assert "made for the first 50 of 200 images only" in fewer and "+25.0 % on average" not in fewer
    assert "How dear an attacker could make an image was not measured: hardspike energy runs/tiny" in page()[1].text


def test_prices_carry_kind_bound_trust_and_source_and_nothing_is_called_a_total() -> None:
    numbers, shown = page()
    rows = shown.table("Energy per event, Intel Loihi 1")
    for costs in numbers["energy"]["sets"].values():
        assert [f"{costs['name']} {costs['title']}"] in rows
        constant = costs["neuron_update_idle"]
        assert ["neuron update idle", f"{constant['value']:g} pJ", "simulated", "min", "B", constant["source"]] in rows
    assert "This is not a total." in shown.text and "messages between cores, static power" in shown.text
    assert "No energy per operation of Loihi 2 is public" in shown.text


def test_the_proof_shows_every_row_and_keeps_equal_and_close_apart() -> None:
    numbers = report_example()
    numbers["networks"][1]["equalities"][1] |= {"differing": 3, "verdict": "DIFFERS", "first": "spike of spike1 step 2"}
    shown = Page(render_page(numbers))
    exact, close = shown.table("What must be equal"), shown.table("Float SNN against deployed")
    shipped = shown.table("Networks that ship with lava-dl")
    assert ["1 folded = unfolded", "equal", "12,301", "0", f"{12301 % 97} images", "–"] in exact
    assert ["2 emulator = oracle", "DIFFERS", "23,402", "3", f"{23402 % 97} images", "spike of spike1 step 2"] in exact
    assert ["6 float SNN, spike1", f"{8192 % 97} images", "8,192", "77", "0.94 %", "spike of spike1 step 1"] in close
    assert not [row for row in exact if row[0].startswith("6")] and len(close) == 1 + 2 * 3
    assert ["5 emulator = lava-dl's tiny.net", "equal", "56,705", "0", f"{56705 % 97} images", "–"] in shipped
    assert len(shipped) == 1 + 2 and not [row for row in exact if row[0].startswith("5")]
    assert "lava-dl's own networks: 1 equal, 0 differing, 1 not compared" in shown.text
    without = changed(lambda numbers: [tested["equalities"].__delitem__(slice(4, 6)) for tested in numbers["networks"]])
    assert "Not part of this run: equality 5." in without.text and "Not part" not in shown.text
    failing = changed(lambda numbers: numbers["networks"][0]["equalities"][4].update(differing=2, verdict="DIFFERS"))
    assert {"open": ""} in failing.all("details") and {"open": ""} not in shown.all("details")


def test_status_lines_say_what_holds_fails_fired_and_is_missing() -> None:
    numbers = report_example()
    values = f"{2 * (12301 + 23402 + 34503 + 45604) + 56705:,} values, none differs"
    text = f"All 9 comparisons of the proof that could be made hold: {values}. 1 could not."
    assert statuses(numbers)[0] == Status("good", "holds", text)
    assert "69,006 spikes and outputs" in statuses(numbers)[1].text
    numbers["networks"][0]["equalities"][0] |= {"differing": 5, "verdict": "DIFFERS"}
    failed = statuses(numbers)[0]
    assert failed.kind == "bad" and "1 of 10" in failed.text and "tiny: 1 folded = unfolded (5 values)" in failed.text
    numbers["networks"][0]["checks"][1]["fired"] = True
    fired = statuses(numbers)[2]
    assert fired.kind == "warn" and "1 of 4" in fired.text and "tiny: noise beats the attack at eps 0.1" in fired.text
    shown = Page(render_page(numbers))
    assert ["FIRED noise 0.1", "no noise 0.1"] in [row[1:] for row in shown.table("Checks on")]
    assert "Read the robust accuracies as upper bounds." in shown.text


def test_without_lava_the_rows_keep_their_reason() -> None:
    numbers = report_example()
    reason = "Lava is not installed here (Python 3.10: pip install hardspike[lava])"
    for tested in numbers["networks"]:
        for row in tested["equalities"][2:4]:
            row |= {"compared": 0, "what": "", "reason": reason, "verdict": "not compared"}
    shown = Page(render_page(numbers))
    assert ["3 emulator = Lava", "not compared", "–", "–", "–", reason] in shown.table("What must be equal")
    assert [status.kind for status in statuses(numbers)[:2]] == ["good", "warn"]
    assert f"Not compared here: 3 emulator = Lava, 4 .net file = graph. Reason: {reason}." in shown.text
    assert "All 5 comparisons of the proof that could be made hold" in shown.text and "5 could not." in shown.text


def every_network(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda numbers: [tested.update(values) for tested in numbers["networks"]]


def other_control(numbers: dict[str, Any]) -> None:
    numbers["networks"][1]["training"] = "trades ANN, robust_kl finetuning"


# How the example is changed, with which arguments it is made, and what the page must say.
CASES: dict[str, tuple[Callable[[dict[str, Any]], Any], dict[str, Any], str]] = {
    "no control": (lambda numbers: numbers["networks"].pop(), {}, "still classifies"),
    "other control": (other_control, {}, "The control network “control” (trades ANN, robust_kl finetuning)"),
    "no checks": (every_network(checks=[]), {}, "Gradient masking was not checked"),
    "no equalities": (every_network(equalities=[]), {}, "No equality could be checked."),
    "no examples": (lambda numbers: numbers.update(examples=[]), {}, "No examples were asked for"),
    "three channels": (lambda numbers: numbers.update(examples=[example(1, 3)]), {}, "each channel around middle grey"),
    "one eps": (lambda _: None, {"eps": (0.25,)}, "by 25 % of its range"),
    "not attacked": (lambda _: None, {"eps": ()}, "It was not attacked."),
    "only the ANN attacked": (lambda _: None, {"targets": ("ann",)}, "it was not attacked itself"),
    "no network attacked": (lambda _: None, {"targets": ()}, "it was not attacked itself"),
    "no spikes": (lambda _: None, {"size": 0.0}, "No layer fires on clean images."),
    "one layer": (lambda _: None, {"layers": ("dense1",)}, "does not fire"),
    "many layers": (lambda _: None, {"layers": ("a", "b", "long_name_of_a_layer")}, "long_name_of_a_layer"),
}


@pytest.mark.parametrize("case", CASES)
def test_unusual_runs_make_a_whole_page(case: str) -> None:
    change, main, expected = CASES[case]
    shown = changed(change, **main)
    text = " ".join(shown.text.split())
    assert expected in text
    assert not re.findall(
        r"\b(nan|inf|None(?! of)|undefined)\b", text + " ".join(a.get("d", "") for _, a in shown.elements)
    )
    check_structure(shown)


def check_structure(shown: Page) -> None:
    """Tags nest, ids are unique and found, everything has a label, a caption, a scope."""
    assert shown.problems == []
    assert shown.html.startswith("<!DOCTYPE html>") and shown.all("html") == [{"lang": "en"}]
    ids = [attributes["id"] for _, attributes in shown.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = [a["href"][1:] for _, a in shown.elements if a.get("href", "").startswith("#")]
    used += re.findall(r"url\(#([^)]*)\)", shown.html)
    used += [a["aria-labelledby"] for _, a in shown.elements if "aria-labelledby" in a]
    assert used and set(used) <= set(ids)
    levels = [int(tag[1]) for tag, _ in shown.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert len(shown.all("caption")) == len(shown.all("table")) and all(shown.tables)
    assert all("scope" in attributes for attributes in shown.all("th"))
    assert all(a.get("alt") for a in shown.all("img"))
    figures = [a for a in shown.all("svg") if a.get("aria-hidden") != "true"]
    assert figures and all(a["role"] == "img" and len(a["aria-label"]) > 30 for a in figures)


def test_the_page_is_valid_and_labelled() -> None:
    assert Page("<p><b>x</p></b>").problems and not Page("<p><b>x</b><br></p>").problems  # the check itself
    check_structure(page()[1])


def test_nothing_is_fetched_and_nothing_runs() -> None:
    _, shown = page()
    assert not shown.all("script") and not shown.all("iframe")
    for tag, attributes in shown.elements:
        for key, value in attributes.items():
            assert not key.startswith("on"), (tag, key)
            if key in ("src", "href", "xlink:href", "srcset", "action", "data"):
                assert value.startswith(("data:", "#")), (tag, key, value[:60])
    assert "http:" not in shown.html and "https:" not in shown.html and "@import" not in shown.html
    assert set(re.findall(r"url\((.)", shown.html)) == {"#"}
    policy = next(a["content"] for a in shown.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_hostile_text_is_shown_as_text() -> None:
    numbers = report_example(layers=(HOSTILE, "line\nbreak\x00", HOSTILE + "2"))
    for key in ("run", "written", "recipe", "dataset"):
        numbers[key] = HOSTILE
    numbers["environment"] |= {"command": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    numbers["energy"] |= {"not_priced": [HOSTILE], "chip": HOSTILE}
    numbers["analyses"] = [{"analysis": analysis_to_json(analysis_example(HOSTILE)), "commit": HOSTILE}]
    numbers["stale_analyses"] = [HOSTILE]
    for key in ("unit", "source", "trust", "kind", "bound"):
        numbers["energy"]["sets"]["sanafe"]["neuron_update_idle"][key] = HOSTILE
    for one in numbers["examples"]:
        one["broken_by"] = HOSTILE
    numbers["placement"] |= {"compiled_for": HOSTILE, "outside": [HOSTILE]}
    for chip in numbers["placement"]["chips"]:
        chip |= {"profile": HOSTILE, "chip": HOSTILE, "reasons": [HOSTILE]}
        for one in (chip["work"] or {"prices": [], "times": []})["prices"]:
            one |= {"costs": HOSTILE, "title": HOSTILE, "no_total": HOSTILE}
        for one in (chip["work"] or {"prices": [], "times": []})["times"]:
            one |= {"times": HOSTILE, "title": HOSTILE}
    for tested in numbers["networks"]:
        tested |= {"name": HOSTILE, "training": HOSTILE, "profile": HOSTILE, "backend": HOSTILE}
        tested["fit"][0]["binding"] = HOSTILE
        tested["checks"][0] |= {"name": HOSTILE, "detail": HOSTILE, "fired": True}
        tested["equalities"][0] |= {"name": HOSTILE, "what": HOSTILE, "reason": HOSTILE, "first": HOSTILE}
        for one in tested["replay"]:
            one["made_on"] = one["made_on"] and HOSTILE
        for budget in tested["robust"]:
            budget["members"] = {HOSTILE: {HOSTILE: 0.5}}
    shown = Page(render_page(numbers))
    check_structure(shown)
    assert not [a for tag, a in shown.elements if "onerror" in a or not a.get("src", "data:").startswith("data:")]
    assert shown.text.count(HOSTILE) > 60 and "<script" not in shown.html.lower()


def test_the_same_numbers_give_the_same_page_and_leave_matplotlib_alone() -> None:
    before = dict(matplotlib.rcParams)
    numbers = report_example()
    given = copy.deepcopy(numbers)
    assert render_page(numbers) == render_page(numbers)
    assert numbers == given and dict(matplotlib.rcParams) == before


def test_a_figure_moves_with_its_numbers() -> None:
    def drawings(numbers: dict[str, Any]) -> list[str]:
        figures = re.findall(r'<svg class="figure".*?</svg>', render_page(numbers))
        return [re.sub('aria-label="[^"]*"', "", figure) for figure in figures]

    numbers = report_example()
    before = drawings(numbers)
    numbers["networks"][0]["replay"][-1]["layers"][1]["synaptic_operations"]["mean"] *= 0.5
    moved = [index for index, (a, b) in enumerate(zip(before, drawings(numbers), strict=True)) if a != b]
    assert moved == [2]  # after the accuracy and the spikes


def test_images_are_the_pixels_that_were_given() -> None:
    assert read_png(image_uri([[[0.0, 0.2, 1.0], [0.5, 0.6, 0.7]]])) == (3, 2, 1, bytes([0, 51, 255, 128, 153, 179]))
    assert read_png(image_uri([[[0.0, 1.0]], [[0.2, 0.4]], [[0.6, 0.8]]])) == (
        2,
        1,
        3,
        bytes([0, 51, 153, 255, 102, 204]),
    )
    assert read_png(image_uri([[[0.0]], [[1.0]]]))[2:] == (1, b"\x80")


@pytest.mark.parametrize(
    ("clean", "attacked", "broken_by", "verdict"),
    [
        (4, 9, "pgd20", "fooled by pgd20"),
        (4, 4, "none", "survived every attack"),
        (4, 4, "fgsm", "fooled by fgsm, right again on the input grid"),
        (4, 9, "none", "fooled only on the input grid"),
        (2, 2, "wrong already", "wrong without any attack"),
    ],
)
def test_an_example_shows_its_images_and_what_became_of_it(
    clean: int, attacked: int, broken_by: str, verdict: str
) -> None:
    one = example(33) | {"predicted_clean": clean, "predicted_attacked": attacked, "broken_by": broken_by}
    shown = changed(lambda numbers: numbers.update(examples=[one]))
    images = [image_uri(one["clean"]), image_uri(one["attacked"]), difference_uri(one["clean"], one["attacked"], 0.1)]
    assert [a["src"] for a in shown.all("img")] == images
    text = " ".join(shown.text.split())
    assert f"clean → {clean} attacked → {attacked} difference Image 33, true class 4: {verdict}" in text


def test_a_difference_shows_its_sign_and_size() -> None:
    width, height, channels, pixels = read_png(difference_uri([[[0.5, 0.5, 0.5]]], [[[0.6, 0.5, 0.4]]], eps=0.1))
    brighter, same, darker = pixels[:3], pixels[3:6], pixels[6:]
    assert (width, height, channels) == (3, 1, 3)
    assert brighter[0] > brighter[2] + 100 and darker[2] > darker[0] + 100 and min(same) > 240
    colour = read_png(difference_uri([[[0.5]], [[0.5]], [[0.5]]], [[[0.6]], [[0.5]], [[0.4]]], eps=0.1))[3]
    assert colour == bytes([255, 128, 0])


def variables(html: str) -> tuple[dict[str, str], dict[str, str]]:
    """CSS variables with their colours, light and dark."""
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", block))
        for block in re.findall(r":root \{(.*?)\}", html, re.S)[:2]
    )
    return light, light | dark


def test_colours_are_legible_in_light_and_dark() -> None:
    html = render_page(report_example())
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    for scheme in variables(html):
        for paper in ("paper", "tint"):
            for name in ("ink", "soft", "link", "good", "warn", "bad"):
                assert contrast(scheme[name], scheme[paper]) >= 4.5, (name, paper)
        assert {*FORMS, "clean", "noise", "attack"} <= scheme.keys()
        for name in (COLOURS.keys() & scheme.keys()) - {"grid", "paper"}:
            assert contrast(scheme[name], scheme["paper"]) >= 3, name
    defined = set(re.findall(r"--([\w-]+):", html))
    assert set(re.findall(r"var\(--([\w-]+)\)", html)) <= defined
    assert not [colour for colour in COLOURS.values() if colour in html]


@pytest.mark.browser
def test_a_browser_shows_it_without_a_request_a_complaint_or_overflow(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_page(report_example()), encoding="utf-8")
    assert browser.complaints(path) == []
    assert browser.evaluate("document.querySelectorAll('svg.figure').length") > 8
