"""The charts of a report hold the numbers of report.json."""

from pathlib import Path

from report_example import FORMS, report_example

from hardspike.deploy.report.chart import BarChart, LineChart
from hardspike.deploy.report.chart_file import write_chart
from hardspike.deploy.report.draw import draw
from hardspike.deploy.report.figures import accuracy_chart, charts, network_charts
from hardspike.deploy.report.page import render_page


def test_every_chart_is_listed_once_in_the_order_of_the_page() -> None:
    numbers = report_example() | {"analyses": []}
    names = [chart.name for chart in charts(numbers)]
    one = ["spikes", "synaptic-operations", "time-0", "time-1", "energy"]
    assert names == ["accuracy", *(f"n{k}-{name}" for k in (0, 1) for name in one)]
    page = render_page(numbers)
    assert page.count('<svg class="figure"') == len(names)
    places = [page.index(str(draw(chart, keyed=chart.name == "accuracy"))) for chart in charts(numbers)]
    assert len(set(places)) == len(places)


def test_accuracy_is_that_of_the_numbers_with_its_intervals() -> None:
    networks = report_example()["networks"]
    chart = accuracy_chart(networks)
    assert len(chart.lines) == 6 and chart.x_names == ((0.0, "clean"), (0.05, "0.05"), (0.1, "0.1"))
    for at, line in enumerate(chart.lines):
        network, form = networks[at // 3], FORMS[at % 3]
        shares = [network["clean"][form], *(budget["white_box"][form] for budget in network["robust"])]
        assert line.tone == form and line.dashed == (at >= 3) and line.x == (0.0, 0.05, 0.1)
        assert (line.y, line.low, line.high) == tuple(
            tuple(share[key] for share in shares) for key in ("value", "low", "high")
        )
    assert [line.name for line in chart.lines][2:4] == ["deployed, tiny", "ANN, control"]
    assert [line.name for line in accuracy_chart(networks[:1]).lines] == ["ANN", "float SNN", "deployed"]


def test_a_network_that_was_not_attacked_has_a_point_only() -> None:
    chart = accuracy_chart(report_example(targets=())["networks"])
    assert {line.x for line in chart.lines} == {(0.0,)}


def test_layers_and_energy_are_those_of_the_numbers() -> None:
    network = report_example()["networks"][0]
    found = network_charts(network, "n0")
    chosen = [network["replay"][0], network["replay"][5], network["replay"][-1]]  # clean; noise and attack at 0.1
    assert [one["kind"] for one in chosen] == ["clean", "noise", "attack"]
    for key, chart in (
        ("spikes", found.activity["Spikes per image"]),
        ("synaptic_operations", found.activity["Synaptic operations per image"]),
    ):
        assert isinstance(chart, BarChart)
        assert [bars.name for bars in chart.bars] == ["clean", "random noise, eps 0.1", "attack on deployed, eps 0.1"]
        for bars, one in zip(chart.bars, chosen, strict=True):
            rows = [row for row in one["layers"] if row["name"] in chart.categories]
            for side, name in ((bars.values, "mean"), (bars.low, "p50"), (bars.high, "p95")):
                assert side == tuple(row[key][name] for row in rows)
    assert found.activity["Spikes per image"].categories == ("spike1", "spike2")
    for bars, one in zip(found.energy.bars, chosen, strict=True):
        for side, name in ((bars.low, "low"), (bars.high, "high")):
            assert side == tuple(row["energy_j"][name]["mean"] / 1e-6 for row in one["layers"])
    assert found.energy.label.startswith("µJ per image")


def test_shares_of_firing_neurons_have_one_scale() -> None:
    network = report_example()["networks"][0]
    times = network_charts(network, "n0").times
    assert all(isinstance(chart, LineChart) and chart.width == "small" for chart in times)
    largest = 0.0
    for chart, layer in zip(times, network["replay"][0]["layers"], strict=False):
        assert chart.title == layer["name"]
        over = network["replay"][-1]["spikes_over_time"][layer["name"]]
        assert chart.lines[2].y == tuple(count / layer["neurons"] for count in over)
        largest = max(largest, *(y for line in chart.lines for y in line.y if y is not None))
    assert {chart.y_top for chart in times} == {1.08 * largest}


def test_every_chart_of_a_report_can_be_a_file(tmp_path: Path) -> None:
    for numbers in (report_example(size=0.0), report_example(layers=("only",))):
        for chart in charts(numbers | {"networks": numbers["networks"][:1]}):
            paths = write_chart(tmp_path / "figures", chart)
            assert all(path.stat().st_size > 50 for path in paths)
