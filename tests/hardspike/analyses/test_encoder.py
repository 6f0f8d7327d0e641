"""What codings make of a pixel: closed forms of stairs and of Poisson means, and the chip's own stairs."""

import json
import math
from pathlib import Path

import pytest
import torch
from hand_made_run import hand_made_subject, zoo_network
from small_networks import HEAD

from hardspike.analyses.encoder import encoder, quantised_curve
from hardspike.analyses.encoder_transfer import Transfer, deviation, direct_transfer, poisson_ideal, poisson_transfer
from hardspike.deploy.report.chart import LineChart
from hardspike.snn.architecture import ImageInput, chain
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork


@pytest.mark.parametrize("steps", [1, 4, 7, 50])
def test_direct_stairs_are_the_closed_forms(steps: int) -> None:
    shares = torch.arange(-16, 160, dtype=torch.float64) / 128
    for reset in ("hard", "soft"):
        found = direct_transfer(shares, steps=steps, settings=NeuronSettings(reset=reset), threshold=0.75)  # type: ignore[arg-type]
        for share, rate in zip(shares.tolist(), found.y, strict=True):
            if share <= 0:
                expected = 0
            elif reset == "hard":
                expected = steps // math.ceil(1 / share)
            else:
                expected = min(math.floor(steps * share), steps)
            assert rate == expected / steps, (reset, share)


def test_poisson_means_and_bands() -> None:
    values = torch.tensor([-1.5, -1.0, -0.3, 0.0, 0.25, 0.7, 2.0], dtype=torch.float64)
    found = poisson_transfer(values, steps=40, rate=0.8, draws=4000, seed=5)
    ideal = [max(-1.0, min(1.0, 0.8 * value)) for value in values.tolist()]
    assert poisson_ideal(values, 0.8).tolist() == pytest.approx(ideal)
    for mean, low, high, expected in zip(found.y, found.low, found.high, ideal, strict=True):
        p = abs(expected)
        sigma = math.sqrt(p * (1 - p) / 40)
        assert mean == pytest.approx(expected, abs=5 * sigma / math.sqrt(4000) + 1e-12)
        assert high - low == pytest.approx(2 * 1.96 * sigma, abs=0.05)
    again = poisson_transfer(values, steps=40, rate=0.8, draws=4000, seed=6)
    assert again.y != found.y


def test_deviation_is_a_mean_of_distances() -> None:
    curve = Transfer(steps=1, y=(0.0, 0.5, 1.0), low=(), high=())
    assert deviation(curve, torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)) == pytest.approx(0.1)


def test_few_bits() -> None:
    x, y = quantised_curve(2, points=7)
    assert y == pytest.approx([0, 0, 1 / 3, 2 / 3, 2 / 3, 1, 1]) or y == pytest.approx([round(3 * v) / 3 for v in x])
    assert len(set(quantised_curve(4)[1])) == 16 and set(quantised_curve(1)[1]) == {0.0, 1.0}


def test_direct_coding_of_a_run(tmp_path: Path) -> None:
    net = zoo_network("vgg_mini")
    found = encoder(hand_made_subject(tmp_path, net))
    json.dumps(found.values, allow_nan=False)
    assert [curve["T"] for curve in found.values["curves"]] == [4, 50, 150, 300]
    assert found.values["layer"] == next(iter(net.neurons())) and found.conditions["coding"] == "direct"
    neuron, own = next(iter(net.neurons().values())), found.values["curves"][0]
    for share, rate in zip(found.values["x"], own["y"], strict=True):
        potential, spikes = 0.0, 0
        for _ in range(4):
            potential = float(neuron.leak) * potential + share * float(neuron.threshold)
            if potential >= float(neuron.threshold):
                potential, spikes = 0.0, spikes + 1
        assert rate == spikes / 4
    near = sum(abs(a - b) < 1e-9 for a, b in zip(found.values["deployed"], own["y"], strict=True))
    assert near > 0.95 * len(own["y"]), "the chip's neuron differs by its rounding only"
    assert f"{found.values['levels'][4]} rates" in found.found[0]
    bits = found.charts[1]
    assert isinstance(bits, LineChart) and [line.name for line in bits.lines] == [
        "1 bit",
        "2 bit",
        "4 bit",
        "8 bit (this run)",
    ]
    for chart in found.charts:
        chart.table()


def test_poisson_coding_of_a_run(tmp_path: Path) -> None:
    found = encoder(hand_made_subject(tmp_path, zoo_network("vgg_mini", coding="poisson", time_steps=6)))
    json.dumps(found.values, allow_nan=False)
    bands = found.values["widest_band"]
    assert sorted(bands) == [6, 50, 150, 300] and bands[6] > bands[50] > bands[150] > bands[300]
    assert found.values["x"][0] == pytest.approx(-1.0) and found.values["x"][-1] == pytest.approx(1.4)
    assert f"{bands[6]:.2f}" in found.found[0]


def test_one_step_and_no_neurons(tmp_path: Path) -> None:
    single = encoder(hand_made_subject(tmp_path / "a", zoo_network("vgg_mini", time_steps=1), deployed=False))
    assert single.values["levels"][1] == 2 and "deployed" not in single.values and single.notes
    image = ImageInput(shape=(1, 2, 2), mean=(0.5,), std=(0.5,))
    net = SpikingNetwork(chain(image, HEAD), 2)  # type: ignore[arg-type]
    bare = encoder(hand_made_subject(tmp_path / "b", net, deployed=False))
    assert "no neurons" in bare.found[0] and [chart.name for chart in bare.charts] == ["encoder-bits"]
