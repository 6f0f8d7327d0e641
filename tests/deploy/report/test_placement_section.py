"""The report's section on placement and cost: every number of report.json in its place, what is missing said, nothing added up."""

import re
from functools import cache
from html import unescape
from typing import Any

import pytest
from report_example import Page, report_example

from hardspike.deploy.report.page import render_page
from hardspike.deploy.si_prefix import si, si_range


@cache
def _page() -> tuple[dict[str, Any], Page]:
    return (numbers := report_example()), Page(render_page(numbers))


@cache
def _without() -> Page:
    """A chip whose profile has no packing rule, and a network that has no form without spikes."""
    numbers = report_example() | {"examples": []}
    del numbers["networks"][1]
    numbers["placement"]["chips"][2] |= {"fits": None, "reasons": ["profile 'x' says not how"]}
    bare = numbers["placement"]["operations"]
    bare |= {"ann_dense": None, "ann_zero_skipping": None, "no_ann": "norms per timestep have no form without spikes"}
    for one in bare["prices"]:
        one |= {"ann_dense": None, "ann_zero_skipping": None, "ratio_dense": None, "ratio_zero_skipping": None}
    return Page(render_page(numbers))


def _section(page: Page) -> str:
    """Its text."""
    html = page.html[page.html.index('<section id="placement"') :]
    text = unescape(re.sub("<[^>]*>", " ", html[: html.index("</section>")])).replace("\N{NO-BREAK SPACE}", " ")
    return re.sub(r" ([.,:;)])", r"\1", " ".join(text.split())).replace("( ", "(")


KEYS = ("mean", "p50", "p95", "max")


def test_each_chip_says_whether_it_holds_the_network_and_why_not() -> None:
    text = _section(_page()[1])
    assert (
        "fits loihi2 (Intel Loihi 2; the network was compiled for it): 12 cores on 2 chips; the tightest is synapse words"
        in text
    )
    assert "no fit loihi1 (Intel Loihi 1): layer 'input': 8-bit graded messages exceed 1" in text
    assert "As if it did fit, each message of the input counted as one spike: 6 cores on 1 chip;" in text
    assert "no fit speck (SynSense Speck 2f): layer 'spike3': 327680 words" in text
    assert "open speck (SynSense Speck 2f): profile 'x' says not how." in _section(_without())


def test_the_placement_tables_are_those_of_the_numbers() -> None:
    numbers, shown = _page()
    loihi2, loihi1, _ = numbers["placement"]["chips"]
    assert not [caption for caption in shown.tables if "speck" in caption]
    for chip in (loihi2, loihi1):
        for row in chip["occupied"]["layers"]:
            cells = shown.row(f"Cores on {chip['profile']}", row["layer"])
            pairs = [row[name] for name in ("neurons", "synapse_words", "axons_in", "axons_out")]
            assert cells[1:5] == [f"{a:,}" if limit is None else f"{a:,} of {limit:,}" for a, limit in pairs]
            assert cells[0] == str(row["cores"])
            assert cells[5] == f"{row['replicated_words']:+,}".replace("-", "−")
            assert cells[6] == f"{row['binding'].replace('_', ' ')} {100 * row['used']:.1f} %"
    assert shown.row("Cores on loihi2", "mean in use 2 chips") == ["12", "11.1 %", "18.3 %", "–", "–", "", ""]
    assert shown.row("Cores on loihi2", "fullest core") == ["", "20.6 %", "23.1 %", "–", "–", "", ""]
    assert shown.row("Cores on loihi1", "mean in use 1 chip, 3 tiles")[:4] == ["6", "11.1 %", "18.3 %", "2.2 %"]


def test_energy_time_and_power_are_those_of_the_numbers() -> None:
    numbers, shown = _page()
    loihi2, loihi1, _ = (chip["work"] for chip in numbers["placement"]["chips"])
    rows = shown.table("Energy and time of an image on loihi1")
    starts = {costs["costs"]: rows.index([f"{costs['costs']} {costs['title']}"]) for costs in loihi1["prices"]}
    for costs in loihi1["prices"]:
        block = {row[0]: row[1:] for row in rows[starts[costs["costs"]] + 1 : starts[costs["costs"]] + 10]}
        for part, values in costs["parts"].items():
            assert block[part] == [si(values[key], "J") for key in KEYS]
        assert block["dynamic energy"] == [si(costs["dynamic"][key], "J") for key in KEYS]
        for times, values in costs["static"].items():
            assert block[f"static, time of {times}"] == [si(values[key], "J") for key in KEYS]
        if costs["no_total"]:
            assert block["total"] == [costs["no_total"]]
        else:
            assert block["total, sanafe"] == [si(costs["total"]["sanafe"][key], "J") for key in KEYS]
    for times in loihi1["times"]:
        start = rows.index([f"time, {times['times']} {times['title']}"])
        assert rows[start + 1][1:] == [si(times["sample"][key], "s") for key in KEYS]
        assert rows[start + 2][1] == si(times["barrier"], "s")
        core = f"core {times['busiest_core']} (dense3) decides {100 * times['busiest_share']:.1f} % of the steps"
        assert rows[start + 3][1].startswith(core)
    text = _section(shown)
    assert "An image costs 23.4 to 32.1 µJ of dynamic energy on average, and at most 33.5 to 45.9 µJ" in text
    assert "Energy and time of an image on loihi2" not in shown.tables and loihi2["missing"][0] in text
    assert (
        "Its 2 chips draw 0.464 to 4.52 W, as measured at rest and at work or quoted: 0.464 to 4.52 mJ for every"
        in text
    )
    assert text.count("for every millisecond") == 1, "where events have prices, power alone says less"
    assert shown.row("Events of an image, mean", "hops east or west") == ["–", "12.5"]
    assert shown.row("Events of an image, mean", "messages to cores") == ["1,994", "478"]
    assert "In no price on this page: host and input/output, weight loading." in text


def test_bare_operations_stand_apart_from_chips() -> None:
    numbers, shown = _page()
    bare = numbers["placement"]["operations"]
    assert shown.row("Operations of an image", "deployed, effective ACs")[0] == f"{bare['accumulates']['mean']:,.0f}"
    assert shown.row("Operations of an image", "ANN, dense MACs")[0] == "158,784"
    for one in bare["prices"]:
        cells = shown.row("Energy of the bare arithmetic", f"{one['arithmetic']} {one['title']}")
        ratios = [one[name][key] for name in ("ratio_zero_skipping", "ratio_dense") for key in KEYS]
        assert cells == [si(one["spiking"]["mean"], "J"), *(f"{ratio:.2f}" for ratio in ratios)]
    without = _without()
    assert without.row("Operations of an image", "ANN") == ["norms per timestep have no form without spikes"]
    assert without.row("Energy of the bare arithmetic", "cmos45: fp32 title of fp32")[1:] == ["–"] * 8


@pytest.mark.parametrize(
    ("values", "unit", "text"),
    [
        ((28.14e-6, 36.52e-6), "J", "28.1 to 36.5 µJ"),
        ((0.0, 2.5e-3), "s", "0 to 2.50 ms"),
        ((999.6e-9,), "J", "1.00 µJ"),
        ((1e-6, 1.0001e-6), "J", "1.00 µJ"),
        ((5e-16,), "J", "0.000500 pJ"),
        ((0.0,), "J", "0 J"),
        ((232.0,), "W", "232 W"),
        ((1234567.0,), "", "1.23 M"),
        ((3e15,), "J", "3,000 TJ"),
    ],
)
def test_three_digits_and_a_prefix(values: tuple[float, ...], unit: str, text: str) -> None:
    assert si_range(values, unit) == text
    assert len(values) > 1 or si(values[0], unit) == text


def test_less_than_nothing_has_a_minus_sign() -> None:
    assert si(-0.006, "J") == "\N{MINUS SIGN}6.00 mJ"
