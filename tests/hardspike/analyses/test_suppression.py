"""Two stacked images: the taller network, the confidences, who wins, and what is said where nothing can be."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from explained_runs import TWO_LAYERS, checked, own_run, subject_of, without_deployment
from needs_lava import needs_lava
from settled_networks import settled
from small_networks import ARCHITECTURES
from torch.nn import functional as F

from hardspike.analyses.activation_maps import spike_activation
from hardspike.analyses.explanations import DEPLOYED_SAM, explain
from hardspike.analyses.stacked_images import (
    confidences,
    half_masses,
    late_steps,
    outcome,
    random_pairs,
    shrunk,
    stacked,
    taller,
)
from hardspike.analyses.subject import Subject
from hardspike.analyses.suppression import suppression
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.input_coding import encode_images
from hardspike.snn.architecture import Architecture, ImageInput, Node
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.data import ImageSet
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.resnet import resnet_mini

RESNET = resnet_mini(Blueprint(image=ImageInput(shape=(3, 12, 8), mean=(0.5,) * 3, std=(0.25,) * 3), num_classes=5))


@pytest.mark.slow
def test_a_pooling_network_takes_the_taller_image_with_the_same_weights() -> None:
    net = settled(RESNET).float()
    high = taller(net)
    assert high is not None and high.architecture.input.shape == (3, 24, 8) and not high.training
    top, bottom = torch.rand(2, 2, 3, 12, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), high.watching() as seen:
        high(stacked(top, bottom))
    with torch.no_grad(), net.watching() as alone:
        net(top)
    # Rows that no kernel of the first layer joins to the lower image fire as they do alone.
    assert torch.equal(seen["spike1"][..., :11, :], alone["spike1"][..., :11, :])
    name = "stage3_block1_spike2"
    pooled = seen[name].mean((-2, -1))
    expected = net.layers["dense"](pooled.flatten(0, 1)).unflatten(0, pooled.shape[:2])
    assert torch.allclose(seen["dense"], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["padded convolution, pool, dense", "dense only", "convolution as output"])
def test_a_network_whose_weights_fix_its_height_has_no_taller_form(name: str) -> None:
    assert taller(settled(ARCHITECTURES[name])) is None


def test_stacking_and_shrinking() -> None:
    top, bottom = torch.zeros(1, 1, 3, 2), torch.tensor([[[[1.0, 0], [0.5, 0], [0, 1]]]])
    both = stacked(top, bottom)
    assert both.shape == (1, 1, 6, 2)
    assert shrunk(both).tolist() == [[[[0, 0], [0.5, 0], [0.25, 0.5]]]]


def test_pairs_are_of_different_classes_and_follow_the_seed() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    pairs = random_pairs(labels, 500, seed=3)
    assert pairs.shape == (500, 2) and bool((labels[pairs[:, 0]] != labels[pairs[:, 1]]).all())
    assert torch.equal(pairs, random_pairs(labels, 500, seed=3))
    assert not torch.equal(pairs, random_pairs(labels, 500, seed=4))
    assert set(pairs.flatten().tolist()) == set(range(6))
    assert random_pairs(torch.zeros(4, dtype=torch.int64), 10, seed=0).shape == (0, 2)


def test_confidences_equal_the_formula() -> None:
    potentials = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(0)
    found = confidences(potentials)
    for t in range(4):
        for b in range(3):
            weights = [math.exp(v / (t + 1 + 1e-3)) for v in potentials[t, b].tolist()]
            assert found[t, b].tolist() == pytest.approx([w / sum(weights) for w in weights], abs=1e-12)


def test_late_steps_are_a_quarter() -> None:
    assert [late_steps(steps) for steps in (1, 3, 4, 7, 8, 30)] == [1, 1, 1, 1, 2, 7]


def test_outcome_of_each_kind() -> None:
    """Eight steps, so two late ones; classes 0 (top), 1 (bottom), 2."""
    late = torch.tensor(
        [
            [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1]],  # settles on the upper one
            [[0.1, 0.8, 0.1], [0.2, 0.7, 0.1]],  # settles on the lower one
            [[0.6, 0.4, 0.0], [0.1, 0.9, 0.0]],  # changes its mind
            [[0.1, 0.1, 0.8], [0.1, 0.1, 0.8]],  # neither
        ]
    ).transpose(0, 1)
    early = torch.tensor([0.0, 0.0, 1.0]).expand(6, 4, 3)
    seen = outcome(torch.cat([early, late]), torch.tensor([[0, 1]] * 4), torch.tensor([0, 0, 1, 2]))
    assert seen.late.tolist() == [0, 1, 1, 2]
    assert seen.settled.tolist() == [True, True, False, False]
    assert seen.side.tolist() == [0, 1, 1, -1]
    assert seen.is_prediction.tolist() == [True, False, True, True]
    assert seen.confidence[0].tolist() == pytest.approx([0.7, 0.2, 0.1])


def test_masses_of_halves_share_a_middle_row() -> None:
    maps = torch.zeros(4, 1, 5, 2)
    maps[3, 0] = torch.tensor([[1, 0], [0, 2], [4, 0], [8, 0], [0, 16]])
    maps[:3] = 99  # not late
    assert half_masses(maps).tolist() == [[1 + 2 + 2, 2 + 8 + 16]]
    assert half_masses(maps[:, :, :4]).tolist() == [[3, 12]]
    assert half_masses(maps[:, :, :1]).tolist() == [[0.5, 0.5]]


def test_shares_of_a_run_follow_from_the_network(run: Path) -> None:
    """Both networks run here once more, and each pair is judged by itself."""
    subject = subject_of(run, images=12)
    analysis = checked(suppression(subject))
    data = subject.test
    pairs = random_pairs(data.labels, 24, seed=0)
    labels = data.labels[pairs]
    images = F.avg_pool2d(torch.cat([data.images[pairs[:, 0]], data.images[pairs[:, 1]]], 2), (2, 1))
    assert analysis.conditions["pairs"] == 24 and "shrunk to 8 x 8" in str(analysis.conditions["images"])
    assert any("squeezed into half the height" in note for note in analysis.notes)
    graph = subject.graph
    unit = graph.output.scale * (1 << graph.numerics.state_shift)
    states = EmulatorBackend().run(graph, encode_images(images, graph), keep_states=True).states
    assert states is not None
    found = {"deployed": (states.potentials["dense4"] / unit, spike_activation(states.spikes["spike2"], 0.5))}
    with torch.no_grad(), subject.snn.watching() as seen:
        subject.snn(images)
    found["snn"] = (seen["dense4"].double().cumsum(0), spike_activation(seen["spike2"], 0.5))
    for name, (potential, activation) in found.items():
        late = (potential[-1] / 4.001).softmax(1).argmax(1)
        settled_on = [int(late[p]) in labels[p].tolist() for p in range(24)]
        on_side = []
        for p in range(24):
            upper, lower = float(activation[-1, p, :2].sum()), float(activation[-1, p, 2:].sum())
            if settled_on[p] and upper + lower:
                on_side.append(upper > lower if int(late[p]) == int(labels[p, 0]) else lower > upper)
        winners = [float((potential[-1, p] / 4.001).softmax(0)[late[p]]) for p in range(24) if settled_on[p]]
        assert analysis.values["confidence"][name]["winner"][-1] == pytest.approx(sum(winners) / len(winners), abs=1e-6)
        shares = analysis.values["shares"][name]
        assert shares["settles on one"]["value"] == pytest.approx(sum(settled_on) / 24)
        assert shares["stays to the end"]["value"] == 1  # one late step, the last
        assert shares["spikes on its half"]["n"] == len(on_side)
        assert len(on_side) > 2
        assert shares["spikes on its half"]["value"] == pytest.approx(sum(on_side) / len(on_side))


def test_a_pooling_network_sees_the_taller_image(run: Path) -> None:
    subject = own_run(run, RESNET, images=6)
    analysis = checked(suppression(subject))
    assert analysis.conditions["images"] == "stacked to 24 x 8, which the network takes as it is"
    assert set(analysis.values["shares"]) == {"snn"}
    picture = analysis.charts[-1].pictures[0][0]  # type: ignore[union-attr]
    assert picture is not None and len(picture.values[0]) == 24
    assert any("no deployed network" in note for note in analysis.notes)


def test_a_deployed_network_is_left_out_where_the_image_is_taller(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = own_run(run, RESNET, images=4)
    monkeypatch.setattr(type(subject), "has_deployed", True)
    analysis = checked(suppression(subject))
    assert any("made for its own image height" in note for note in analysis.notes)


def test_images_of_one_class(run: Path) -> None:
    analysis = checked(suppression(own_run(run, TWO_LAYERS, classes=1)))
    assert analysis.charts == () and analysis.conditions["pairs"] == 0
    assert analysis.found == ("All 6 test images are of one class: no two of different classes can be stacked.",)


def test_a_single_image(run: Path) -> None:
    assert checked(suppression(own_run(run, TWO_LAYERS, images=1))).conditions["pairs"] == 0


def test_no_spikes_at_all(run: Path) -> None:
    subject = own_run(run, TWO_LAYERS)
    with torch.no_grad():
        for neuron in subject.snn.neurons().values():
            neuron.threshold.fill_(1e9)
    analysis = checked(suppression(subject))
    share = analysis.values["shares"]["snn"]["spikes on its half"]
    assert share == {"value": None, "low": None, "high": None, "n": 0}
    assert any("zero everywhere for 12 of 12 pairs" in note for note in analysis.notes)


def test_no_pair_settles(run: Path) -> None:
    """A head that always says the last class, which no image has."""
    subject = own_run(run, TWO_LAYERS, classes=4)
    with torch.no_grad():
        subject.snn.layers["head"].bias[4] = 1e6
    analysis = checked(suppression(subject))
    assert analysis.values["shares"]["snn"]["settles on one"]["value"] == 0
    assert "mean_confidence" not in [chart.name for chart in analysis.charts]
    assert any("no pair settles" in sentence for sentence in analysis.found)


def test_one_timestep_and_two_classes(run: Path) -> None:
    two = Architecture(input=TWO_LAYERS.input, nodes=(*TWO_LAYERS.nodes[:-1], _with_outputs(TWO_LAYERS, 2)))
    subject = own_run(run, two, time_steps=1)
    analysis = checked(suppression(subject))
    assert len(analysis.charts[0].lines) == 2  # type: ignore[union-attr]
    assert analysis.values["shares"]["snn"]["settles on one"]["value"] == 1
    assert "100 %" in analysis.found[0]


def _with_outputs(architecture: Architecture, count: int) -> Node:
    head = architecture.nodes[-1]
    return replace(head, layer=replace(head.layer, out_features=count))  # type: ignore[call-arg]


def test_a_backend_without_potentials_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(run, images=4)
    backend = subject.backend
    plain = backend.run

    def spikes_only(*arguments: object, **named: object) -> object:
        trace = plain(*arguments, **named)  # type: ignore[arg-type]
        trace.states.potentials.clear()  # type: ignore[union-attr]
        return trace

    monkeypatch.setattr(backend, "run", spikes_only)
    analysis = checked(suppression(subject))
    assert set(analysis.values["shares"]) == {"snn"}
    assert any("shows no potentials" in note for note in analysis.notes)


def test_without_deployment(run: Path) -> None:
    without_deployment(run)
    subject = subject_of(run, images=4)
    subject.test = ImageSet(subject.test.pixels, subject.test.labels, 10)
    assert set(checked(suppression(subject)).values["shares"]) == {"snn"}
    assert isinstance(subject.snn, SpikingNetwork)


@pytest.mark.slow
@needs_lava
def test_lava_gives_the_same_maps_and_confidences(run: Path) -> None:
    explained = {name: _on(run, name) for name in ("emulator", "lava")}
    data = explained["lava"].test
    first, second = (
        explain(one, DEPLOYED_SAM, data.images, data.labels, ("spike1", "spike2")) for one in explained.values()
    )
    assert torch.equal(first.predicted, second.predicted)
    assert all(torch.equal(first.maps[name], second.maps[name]) and first.maps[name].any() for name in first.maps)
    shares = [suppression(one) for one in explained.values()]
    assert shares[0].values == shares[1].values and shares[0].charts == shares[1].charts
    assert [one.conditions["backend"] for one in shares] == ["emulator", "lava"]


def _on(run: Path, backend: str) -> Subject:
    return subject_of(run, images=2, backend=backend)
