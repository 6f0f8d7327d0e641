"""Maps of a run's networks: gradients and spikes against other ways to get them, and networks left as they were found."""

from pathlib import Path

import pytest
import torch
from explained_runs import TWO_LAYERS, own_run, subject_of, without_deployment
from settled_networks import settled
from small_networks import ARCHITECTURES, HEAD, block, chain, conv, image
from torch.nn import functional as F

from hardspike.analyses import explanations
from hardspike.analyses.activation_maps import gradient_weighted, normalised, spike_activation
from hardspike.analyses.explanations import (
    ANN_GRADCAM,
    DEPLOYED_SAM,
    METHODS,
    SNN_GRADCAM,
    SNN_SAM,
    explain,
    map_layers,
    methods_of,
)
from hardspike.analyses.options import AnalyseOptions
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.oracle import Oracle
from hardspike.snn.architecture import Dense, ImageInput
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.neuron import fire
from hardspike.snn.resnet import resnet_mini

RESNET = resnet_mini(Blueprint(image=ImageInput(shape=(3, 12, 8), mean=(0.5,) * 3, std=(0.25,) * 3), num_classes=5))
POISSON = chain(ImageInput(shape=(1, 8, 6), mean=(0.5,), std=(0.5,), coding="poisson"), [*block("a", conv(4)), *HEAD])


@pytest.mark.parametrize("time_steps", [4, None])
def test_watching_shows_all_layers_and_changes_nothing(time_steps: int | None) -> None:
    net = settled(TWO_LAYERS)
    if time_steps is None:
        twin = SpikingNetwork(TWO_LAYERS, None).double().eval()
        twin.load_state_dict(net.state_dict())
        net = twin
    images = torch.rand(3, 3, 8, 6, dtype=torch.float64)
    with torch.no_grad():
        plain = net(images)
        with net.recording() as (spikes, _):
            net(images)
        with net.watching() as seen:
            watched = net(images)
        again = net(images)
    assert torch.equal(plain, watched) and torch.equal(plain, again)
    assert list(seen) == ["a_spike", "b_spike", "head"]
    assert torch.allclose(seen["head"].mean(0), plain)
    if time_steps is not None:
        assert all(torch.equal(seen[name], spikes[name]) for name in spikes)
    assert seen["a_spike"].shape == (time_steps or 1, 3, 4, 8, 6)


@pytest.mark.slow
def test_gradients_are_those_of_the_rest_of_the_network() -> None:
    """From the first layer's spikes on, the network is written out here once more."""
    net = settled(TWO_LAYERS).requires_grad_(False)
    images, labels = torch.rand(5, 3, 8, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4])
    with net.watching() as seen:
        logits = net(images.requires_grad_(True))
        (found,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), seen["a_spike"])
    spikes = seen["a_spike"].detach().requires_grad_(True)
    layers, neuron = net.layers, net.neurons()["b_spike"]
    current = layers["b_norm"](layers["b"](F.avg_pool2d(spikes.flatten(0, 1), 2))).unflatten(0, (4, 5))
    later = fire(current, neuron.threshold, neuron.settings, leak=neuron.leak)
    outputs = layers["head"](F.avg_pool2d(later.flatten(0, 1), (2, 1)).flatten(1)).unflatten(0, (4, 5)).mean(0)
    (expected,) = torch.autograd.grad(outputs.gather(1, labels[:, None]).sum(), spikes)
    assert bool(expected.any())
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_deployed_maps_are_those_of_the_oracle(run: Path) -> None:
    subject = subject_of(run, images=1)
    layers, _ = map_layers(subject)
    found = explain(subject, DEPLOYED_SAM, subject.test.images, subject.test.labels, layers)
    graph = subject.graph
    encoded = encode_images(subject.test.images, graph)
    trace = Oracle(graph).run([encoded[0].flatten().tolist()] * graph.time_steps)
    assert found.predicted.tolist() == [trace.output.index(max(trace.output))]
    for name in layers:
        spikes = torch.tensor(trace.spikes[name]).unflatten(1, graph.shapes[name])[:, None]
        assert bool(spikes.any())
        assert torch.equal(found.maps[name], normalised(spike_activation(spikes, 0.5)))


def test_float_maps_are_those_of_the_network_in_any_batch(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = own_run(run, TWO_LAYERS, sam="code", gamma=0.2)
    data, layers = subject.test, ("a_spike", "b_spike")
    whole = {method: explain(subject, method, data.images, data.labels, layers) for method in methods_of(subject)[0]}
    assert list(whole) == [ANN_GRADCAM, SNN_GRADCAM, SNN_SAM]
    with torch.no_grad(), subject.snn.recording() as (spikes, _):
        predicted = subject.snn(data.images).argmax(1)
    for name in layers:
        assert torch.equal(whole[SNN_SAM].maps[name], normalised(spike_activation(spikes[name], 0.2, "code")))
    assert torch.equal(whole[SNN_SAM].predicted, predicted)
    with subject.ann.watching() as values:
        logits = subject.ann(data.images)
        chosen = sum(logits[row, label] for row, label in enumerate(data.labels.tolist()))
        (gradient,) = torch.autograd.grad(chosen, values["b_spike"])
    expected = normalised(gradient_weighted(values["b_spike"].detach().double(), gradient.double()))
    assert torch.allclose(whole[ANN_GRADCAM].maps["b_spike"], expected, rtol=0, atol=1e-6)
    assert not torch.equal(whole[SNN_GRADCAM].predicted, data.labels)  # the label's logit, not the predicted one's
    monkeypatch.setattr(explanations, "BYTES", 1)
    for method, before in whole.items():
        single = explain(subject, method, data.images, data.labels, layers)
        assert all(torch.allclose(before.maps[name], single.maps[name], rtol=0, atol=1e-4) for name in layers)


def test_noise_is_the_same_each_time_and_goes_on_where_it_was(run: Path) -> None:
    subject = own_run(run, POISSON, images=3)
    state = subject.snn.noise.generator.get_state()
    first, second = (
        explain(subject, SNN_SAM, subject.test.images, subject.test.labels, ("a_spike",)) for _ in range(2)
    )
    assert torch.equal(first.maps["a_spike"], second.maps["a_spike"]) and bool(first.maps["a_spike"].any())
    assert torch.equal(subject.snn.noise.generator.get_state(), state)
    subject.options = AnalyseOptions(images=3, seed=5)
    other = explain(subject, SNN_SAM, subject.test.images, subject.test.labels, ("a_spike",))
    assert not torch.equal(first.maps["a_spike"], other.maps["a_spike"])


@pytest.mark.parametrize("architecture", [RESNET, POISSON, ARCHITECTURES["leaky"]])
def test_maps_of_any_network(run: Path, architecture: object) -> None:
    subject = own_run(run, architecture, images=3)  # type: ignore[arg-type]
    layers, _ = map_layers(subject)
    for method in methods_of(subject)[0]:
        found = explain(subject, method, subject.test.images, subject.test.labels, layers)
        for name in layers:
            steps = 1 if method is ANN_GRADCAM else 4
            assert found.maps[name].shape == (steps, 3, *architecture.shapes[name][1:])  # type: ignore[attr-defined]
            assert float(found.maps[name].min()) >= 0 and float(found.maps[name].max()) <= 1


def test_layers_with_a_plane_are_chosen_by_name_in_their_order(run: Path) -> None:
    subject = subject_of(run)
    assert map_layers(subject) == (("spike1", "spike2"), ("Without an image plane and so without a map: spike3.",))
    assert map_layers(subject_of(run, layers=("spike2", "spike1"))) == (("spike1", "spike2"), ())
    for name in ("spike3", "nothing"):
        with pytest.raises(
            SettingsError, match=f"^layers: '{name}' is no neuron layer with an image plane; use spike1, spike2$"
        ):
            map_layers(subject_of(run, layers=(name,)))


def test_a_network_without_planes_is_refused(run: Path) -> None:
    flat = chain(image(1, 3, 4), [HEAD[0], *block("a", Dense(out_features=9)), HEAD[1]])  # type: ignore[index]
    with pytest.raises(SettingsError, match="no neuron layer has an image plane"):
        map_layers(own_run(run, flat))


def test_methods_follow_the_networks_of_the_run(run: Path) -> None:
    assert methods_of(subject_of(run)) == (METHODS, ())
    without_deployment(run)
    methods, notes = methods_of(subject_of(run))
    assert methods == METHODS[:3] and "no deployed network" in notes[0]
