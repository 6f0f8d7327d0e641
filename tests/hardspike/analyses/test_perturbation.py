"""What neurons and layers leave of a perturbation: loops over pixels and steps, and layers that are silent."""

import json
import math
from pathlib import Path

import pytest
import torch
from hand_made_run import hand_made_subject, silenced, zoo_network

from hardspike.analyses.looked_at_images import attacked_images, noise_images
from hardspike.analyses.perturbation import perturbation
from hardspike.analyses.perturbation_norm import defined, distances, lif_output, relative_distances
from hardspike.deploy.input_coding import encode_images, quantize_images
from hardspike.deploy.report.chart import LineChart
from hardspike.snn.encoding import NoiseSource


def _slow_lif(inputs: list[float], threshold: float) -> float:
    """ECCV 2020's neuron: fires from the potential of the step before, strictly above, and keeps what is over."""
    potential, spikes = 0.0, 0
    for current in inputs:
        spike = potential > threshold
        spikes += spike
        potential = 0.99 * potential - threshold * spike + current
    return spikes / len(inputs)


@pytest.mark.parametrize("threshold", [1.0, 2.0])
def test_lif_of_pixels_is_a_loop(threshold: float) -> None:
    images = torch.tensor([[0.0, 0.13, 0.5], [0.77, 0.999, 1.0]]).view(2, 1, 1, 3)
    drawn, direct = (lif_output(images, threshold=threshold, steps=30, seed=seed) for seed in (4, None))
    uniform = NoiseSource(4).uniform((30, *images.shape), images.double())
    for b in range(2):
        for i in range(3):
            pixel = float(images[b, 0, 0, i].double())
            spikes = [float(uniform[t, b, 0, 0, i] <= pixel and pixel > 0) for t in range(30)]
            assert float(drawn[b, 0, 0, i]) == _slow_lif(spikes, threshold)
            assert float(direct[b, 0, 0, i]) == _slow_lif([pixel] * 30, threshold)


def test_a_potential_at_the_threshold_does_not_fire() -> None:
    one = torch.ones(1, 1, 1, 1)
    assert lif_output(one, threshold=1.0, steps=2, seed=None).item() == 0
    assert lif_output(one, threshold=1.0, steps=3, seed=None).item() == pytest.approx(1 / 3)


def test_distances_are_sums_of_squares() -> None:
    first, second = torch.rand(3, 2, 4), torch.rand(3, 2, 4)
    first[2] = 0
    squares = [
        sum((float(a) - float(b)) ** 2 for a, b in zip(x.flatten(), y.flatten(), strict=True))
        for x, y in zip(first, second, strict=True)
    ]
    assert distances(first, second).tolist() == pytest.approx([math.sqrt(one) for one in squares])
    own = [math.sqrt(sum(float(a) ** 2 for a in x.flatten())) for x in first]
    found = relative_distances(first, second)
    assert found[:2].tolist() == pytest.approx([math.sqrt(s) / n for s, n in zip(squares[:2], own[:2], strict=True)])
    assert len(defined(found)) == 2 and len(defined(relative_distances(first * 0, first * 0))) == 0


@pytest.mark.parametrize("name", ["resnet_mini", "vgg_mini"])
def test_layers_of_a_run(tmp_path: Path, name: str) -> None:
    poisson = name == "vgg_mini"
    subject = hand_made_subject(tmp_path, zoo_network(name, coding="poisson" if poisson else "direct"), images=3)
    found = perturbation(subject)
    json.dumps(found.values, allow_nan=False)
    assert list(found.values["layers"]) == ["ann", "snn", "deployed"]
    clean, graph = quantize_images(subject.test.images, 8), subject.graph
    for kind, images in (("attack", attacked_images(subject, "deployed").images), ("noise", noise_images(subject))):
        states = [
            subject.backend.run(graph, encode_images(one, graph), keep_states=True).states for one in (clean, images)
        ]
        for layer, mean in found.values["layers"]["deployed"][kind].items():
            expected = []
            for b in range(3):
                if layer == "input":
                    before, after = clean[b].double(), images[b].double()
                else:
                    before, after = (s.spikes[layer][:, b].double().mean(0) for s in states if s is not None)
                if before.any():
                    expected.append(float(((after - before) ** 2).sum().sqrt() / (before**2).sum().sqrt()))
            assert mean["mean"] == pytest.approx(sum(expected) / len(expected)), (kind, layer)
    chart = found.charts[1]
    assert isinstance(chart, LineChart) and chart.x_names[0] == (0.0, "input") and len(chart.lines) == 6
    single = found.values["single_neurons"]
    assert single["ReLU"] == single["input"], "a pixel is never negative"
    assert found.values["less_relu"]["ReLU"]["mean"] == 0
    anew = single["LIF, Poisson input drawn anew, threshold 1"]["mean"]
    assert anew > single["LIF, Poisson input, threshold 1"]["mean"], "coding noise comes on top"
    for one in found.charts:
        one.table()


def test_attacks_are_at_full_strength_and_on_the_grid(tmp_path: Path) -> None:
    subject = hand_made_subject(tmp_path, zoo_network("vgg_mini"), images=3)
    for images in (attacked_images(subject, "snn").images, noise_images(subject)):
        grey = images * 255
        assert float((grey - grey.round()).abs().max()) < 1e-3
        moved = (images - subject.test.images).abs()
        assert float(moved.max()) <= 0.1 + 1e-6 and (moved.flatten(1).amax(1) > 0.09).all()


def test_silent_constant_single(tmp_path: Path) -> None:
    grey = torch.full((1, 3, 16, 16), 128 / 255)
    subject = hand_made_subject(tmp_path, silenced(zoo_network("vgg_mini", time_steps=1)), pixels=grey)
    found = perturbation(subject)
    json.dumps(found.values, allow_nan=False)
    layers = found.values["layers"]["deployed"]["attack"]
    assert all(mean["mean"] is None for layer, mean in layers.items() if layer != "input")
    assert layers["input"]["low"] is None and any("left out" in note for note in found.notes)
    assert any("no layer has a defined relative distance" in text for text in found.found)


def test_black_images_have_no_relative_distance_at_the_input(tmp_path: Path) -> None:
    subject = hand_made_subject(tmp_path, zoo_network("vgg_mini"), pixels=torch.zeros(2, 3, 16, 16), deployed=False)
    found = perturbation(subject)
    json.dumps(found.values, allow_nan=False)
    assert found.values["layers"]["snn"]["noise"]["input"]["mean"] is None
    assert any("input (2)" in note for note in found.notes)


def test_without_ann(tmp_path: Path) -> None:
    net = zoo_network("vgg_mini", norm="per-step", norm_steps=4)
    found = perturbation(hand_made_subject(tmp_path, net, images=2, has_ann=False, deployed=False))
    assert list(found.values["layers"]) == ["snn"] and "made on the float SNN" in str(
        found.conditions["single neurons"]
    )
