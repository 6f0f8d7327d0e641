"""Training through integers: the trained logits are the deployed network's, and the gradients those of the float network."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from random_architectures import architectures
from settled_networks import narrow, pictures, settled
from small_networks import ARCHITECTURES, FLAT, build, conv
from torch import Tensor, nn

from hardspike.deploy.compile import DeploySettings, compile_network
from hardspike.deploy.emulator import Emulator
from hardspike.deploy.fold import fold_network
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.integer_training import IntegerNetwork, TrainedEmulator, finetuning
from hardspike.deploy.oracle import Oracle
from hardspike.deploy.process_graph import NeuronGroup, ProcessGraph
from hardspike.snn.architecture import Architecture, Dense, ImageInput, Spiking, chain
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.data import ImageSet, Splits
from hardspike.snn.errors import DoesNotFitError, HardspikeError, SettingsError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.neuron import plain_torch
from hardspike.snn.surrogate import parse_surrogate, surrogate_gradient
from hardspike.snn.zoo import build_architecture
from hardspike.train.loop import fit
from hardspike.train.settings import FitSettings

LOW = DeploySettings(weight_bits=4, input_bits=4, scale="search")


@pytest.fixture(autouse=True)
def _without_fused_kernels() -> Iterator[None]:
    """Compiling them takes longer than these tests."""
    with plain_torch():
        yield


def assert_same_integers(found: ProcessGraph, expected: ProcessGraph) -> None:
    """Every number of both graphs."""
    assert (found.input, found.time_steps, found.weight_bits) == (
        expected.input,
        expected.time_steps,
        expected.weight_bits,
    )
    for mine, other in zip(found.layers, expected.layers, strict=True):
        assert (mine.name, mine.shape, mine.scale) == (other.name, other.shape, other.scale)
        for item in fields(NeuronGroup):
            assert np.array_equal(getattr(mine.neurons, item.name), getattr(other.neurons, item.name)), item.name
        for own, theirs in zip(mine.synapses, other.synapses, strict=True):
            assert (own.source, own.exponent) == (theirs.source, theirs.exponent)
            assert np.array_equal(own.weight, theirs.weight)


def trained(network: IntegerNetwork, images: Tensor, steps: int, rate: float = 0.05) -> Tensor:
    """The logits that the network has in training mode after so many optimiser steps on these images."""
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], rate)
    labels = torch.arange(len(images)) % network.architecture.num_classes
    network.train()
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
    return network(images)


def with_neurons(settings: NeuronSettings) -> Architecture:
    nodes = ARCHITECTURES["padded convolution, pool, dense"].nodes
    return replace(
        ARCHITECTURES["padded convolution, pool, dense"],
        nodes=tuple(
            replace(node, layer=Spiking(neuron=settings)) if isinstance(node.layer, Spiking) else node for node in nodes
        ),
    )


FORMS = {
    **{name: ARCHITECTURES[name] for name in ("padded convolution, pool, dense", "groups and dilation", "leaky")},
    "soft reset from half the threshold": with_neurons(NeuronSettings(reset="soft", initial_potential=0.5)),
    "fire first, strict": with_neurons(NeuronSettings(order="fire-first", strict=True)),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("bits", [8, 3])
def test_the_trained_logits_are_those_of_the_network_that_is_deployed(name: str, bits: int) -> None:
    """After steps that change the integers: equal graphs, equal logits, and no spike differs from the oracle's."""
    chosen = replace(LOW, weight_bits=bits)
    network = IntegerNetwork(build(FORMS[name]), chosen)
    before = network.graph
    images = pictures(FORMS[name], 6)
    logits = trained(network, images, 3)
    graph, _ = compile_network(network.as_float(), chosen)
    assert any(
        (a.synapses[0].weight != b.synapses[0].weight).any() for a, b in zip(before.layers, graph.layers, strict=True)
    )
    assert_same_integers(network.graph, graph)
    assert logits.requires_grad and torch.equal(logits, Emulator(graph)(images))
    assert torch.equal(logits, network.eval()(images))

    thresholds = {layer: neuron.threshold for layer, neuron in network.neurons().items()}
    emulator = TrainedEmulator(graph, fold_network(network, differentiable=True), thresholds)
    with emulator.watching() as sent:
        emulator(images)
    oracle = Oracle(graph)
    for sample, message in enumerate(encode_images(images, graph)):
        expected = oracle.run([message.flatten().tolist()] * graph.time_steps)
        for layer in graph.layers[:-1]:
            spikes = torch.tensor(expected.spikes[layer.name]).flatten()
            assert spikes.any() or sample
            assert int((sent[layer.name][:, sample].flatten() != spikes).sum()) == 0


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(architecture=architectures())
def test_any_network_that_can_be_deployed_can_be_trained(architecture: Architecture) -> None:
    """Sums, shortcuts, Poisson spikes, outputs that fire: logits and graph are the deployed network's before and after a step."""
    snn = settled(architecture)
    try:
        network = IntegerNetwork(snn, LOW)
    except HardspikeError as refused:
        with pytest.raises(type(refused)):
            compile_network(snn, LOW)
        return
    images = pictures(architecture, 3)
    for _ in range(2):
        graph, _ = compile_network(network.as_float(), LOW)
        assert_same_integers(network.graph, graph)
        network.noise.generator.manual_seed(5)
        emulator = Emulator(graph, seed=5)
        network.train()
        logits = network(images)
        assert torch.equal(logits, emulator(images))
        logits.sum().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.grad is not None:
                    assert torch.isfinite(parameter.grad).all()
                    parameter -= 1e-3 * parameter.grad.sign()
        try:
            _ = network.graph
        except DoesNotFitError:
            return


@pytest.mark.parametrize("norm", ["td", "per-step"])
def test_residual_networks_train_through_integers(norm: str) -> None:
    """Several synapses per layer, and batch norms per step folded to their means."""
    shown = ImageInput(shape=(3, 16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    blueprint = Blueprint(image=shown, num_classes=5, norm=norm, norm_steps=4)  # type: ignore[arg-type]
    architecture = narrow(build_architecture("resnet_mini", blueprint), 16)
    chosen = replace(LOW, step_norms="mean")
    network = IntegerNetwork(settled(architecture), chosen)
    images = pictures(architecture, 3)
    logits = trained(network, images, 1, rate=1e-3)
    graph, _ = compile_network(network.as_float(), chosen)
    assert any(len(layer.synapses) > 1 for layer in graph.layers)
    assert_same_integers(network.graph, graph)
    assert torch.equal(logits, Emulator(graph)(images))
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def exact_network(neuron: NeuronSettings, seed: int = 0, **image: Any) -> SpikingNetwork:
    """Float weights that are even integers over 2^k, the largest legal one among them: rounding changes nothing."""
    shown = ImageInput(**{"shape": (2, 6, 5), "mean": (0.0, 0.0), "std": (1.0, 1.0), **image})
    layers = [
        ("a", conv(3, bias=True)),
        ("a_spike", Spiking(neuron=neuron)),
        ("b", conv(4, (3, 2), stride=(2, 1), bias=True)),
        ("b_spike", Spiking(neuron=neuron)),
        *FLAT,
        ("head", Dense(out_features=3, bias=True)),
    ]
    net = SpikingNetwork(chain(shown, layers), 5).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in ("a", "b", "head"):
            layer = net.layers[name]
            assert isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None
            layer.weight.copy_(2 * torch.randint(-60, 127, layer.weight.shape, generator=generator) / 256)
            layer.weight.view(-1)[0] = 254 / 256
            layer.bias.copy_(torch.randint(-20, 20, layer.bias.shape, generator=generator) / 256)
        for index, neurons in enumerate(net.neurons().values()):
            neurons.threshold.fill_((501 + 60 * index) / 256).requires_grad_(True)
    return net.eval()


@pytest.mark.parametrize(
    "neuron",
    [
        NeuronSettings(),
        NeuronSettings(detach_reset=True),
        NeuronSettings(reset="soft", initial_potential=1 / 3),
        NeuronSettings(order="fire-first"),
    ],
    ids=["hard", "detached", "soft", "fire first"],
)
@pytest.mark.parametrize("surrogate", ["triangular:1", "exponential:0.3,1"])
def test_gradients_are_the_float_networks_where_rounding_changes_nothing(
    neuron: NeuronSettings, surrogate: str
) -> None:
    """Of weights, biases and thresholds, and of the images; on binary images, whose messages are exact."""
    net = exact_network(neuron)
    network = IntegerNetwork(net, DeploySettings(input_bits=1))
    images = (pictures(net.architecture, 7) > 0.5).double()
    upstream = torch.linspace(-1, 2, 21, dtype=torch.float64).reshape(7, 3)
    network.train()
    with surrogate_gradient(parse_surrogate(surrogate)):
        pixels = [images.clone().requires_grad_(True) for _ in range(2)]
        logits, expected = network(pixels[0]), net(pixels[1])
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
        (logits * upstream).sum().backward()
        (expected * upstream).sum().backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters()} | {"images": pixels[0].grad}
    wanted = {name: parameter.grad for name, parameter in net.named_parameters()} | {"images": pixels[1].grad}
    assert sum(grad is not None for grad in wanted.values()) == 9
    for name, grad in wanted.items():
        if grad is None:
            assert found[name] is None
            continue
        mine = found[name]
        assert mine is not None and float(grad.abs().max()) > 0
        torch.testing.assert_close(mine, grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max()))


def test_spikes_on_channels_of_their_own_give_the_gradients_of_signed_ones() -> None:
    """Loihi 1 takes Poisson spikes of either sign on two channels, Loihi 2 on one; the same weights read both."""
    net = exact_network(NeuronSettings(), coding="poisson", mean=(0.5, 0.5))
    found = []
    for profile in ("loihi1", "loihi2"):
        network = IntegerNetwork(net, DeploySettings(profile=profile))
        network.noise.generator.manual_seed(3)
        network.train()
        logits = network(pictures(net.architecture, 5))
        logits.square().sum().backward()
        found.append((logits, *(p.grad for p in network.parameters() if p.requires_grad)))
    assert network.graph.input.coding == "signed"
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["padded convolution, pool, dense", "pool on the image, biases", "leaky"])
def test_folding_keeps_gradients(name: str) -> None:
    """Factors, shifts and biases of the folded network lead to the parameters as the network's own forward pass does."""
    net = build(ARCHITECTURES[name])
    images = pictures(net.architecture, 4)
    parameters = [p for p in net.parameters() if p.requires_grad]
    folded = fold_network(net, differentiable=True)
    found = torch.autograd.grad(folded.run(images)[1].square().sum(), parameters)
    expected = torch.autograd.grad(net(images).square().sum(), parameters)
    for mine, grad in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, grad, rtol=1e-7, atol=1e-9 * float(grad.abs().max() + 1))
    plain = fold_network(net).layers[0]
    assert not plain.bias.requires_grad and not plain.synapses[0].weight.requires_grad


def test_kernels_whose_integers_happen_to_be_blocks_have_every_taps_own_gradient() -> None:
    """d logit / d w is the mean over time of what the tap sees, though both taps round to one integer."""
    shown = ImageInput(shape=(1, 2, 2), mean=(0.0,), std=(1.0,), bits=2)
    layers = [("out", conv(1, (2, 2), stride=(2, 2), padding=(0, 0)))]
    net = SpikingNetwork(chain(shown, layers), 3).double().eval()
    with torch.no_grad():
        net.layers["out"].weight.copy_(torch.tensor([[1.0, 0.99], [0.98, 1.01]]))  # type: ignore[operator, union-attr]
    network = IntegerNetwork(net, DeploySettings(weight_bits=2))
    assert len(np.unique(network.graph.layers[0].synapses[0].weight)) == 1
    images = torch.tensor([[[[0, 1], [2, 3]]]], dtype=torch.float64) / 3
    network.train()
    logits = network(images)
    assert torch.equal(logits, Emulator(network.graph)(images))
    logits.sum().backward()
    grad = network.layers["out"].weight.grad
    torch.testing.assert_close(grad, images, rtol=1e-6, atol=0)


def test_thresholds_stay_above_their_floor_as_a_float_networks_do() -> None:
    net = build(ARCHITECTURES["dense only"])
    network = IntegerNetwork(net, DeploySettings())
    neuron = next(iter(network.neurons().values()))
    with torch.no_grad():
        neuron.threshold.fill_(0.001)
    graph = network.graph
    assert float(neuron.threshold.detach()) == neuron.settings.threshold_floor
    assert_same_integers(graph, compile_network(network.as_float(), DeploySettings())[0])
    frozen = IntegerNetwork(net, DeploySettings(), trainable_thresholds=False)
    trained(frozen, pictures(net.architecture, 5), 1)
    assert all(neuron.threshold.grad is None for neuron in frozen.neurons().values())


def test_batch_statistics_and_evaluation_mode_leave_no_trace() -> None:
    net = build(ARCHITECTURES["padded convolution, pool, dense"])
    network = IntegerNetwork(net, LOW)
    images = pictures(net.architecture, 4)
    trained(network, images, 2)
    for (name, mine), other in zip(network.named_buffers(), net.buffers(), strict=True):
        assert torch.equal(mine, other), name
    for _ in range(2):  # without a step between
        network(images).sum().backward()
    network.eval()
    pixels = images.clone().requires_grad_(True)
    (grad,) = torch.autograd.grad(network(pixels).sum(), pixels)
    assert float(grad.abs().max()) > 0
    network.zero_grad()
    network(pixels).sum().backward()
    assert all(parameter.grad is None for parameter in network.parameters())


def _splits(architecture: Architecture) -> Splits:
    def part(seed: int) -> ImageSet:
        return ImageSet(pictures(architecture, 24, seed).float(), torch.arange(24) % 5, 5)

    return Splits(part(1), part(2), part(3))


class _Stopped(Exception):
    pass


def _fitted(path: Path, on_epoch: Callable[[dict[str, Any]], None]) -> IntegerNetwork:
    architecture = ARCHITECTURES["padded convolution, pool, dense"]
    chosen = replace(LOW, finetune_epochs=3)
    network = IntegerNetwork(build(architecture).float(), chosen)
    last = FitSettings(objective="robust_kl", batch_size=8, mixed_precision="bfloat16", channels_last=True)
    options = finetuning(last, chosen)
    fit(network, _splits(architecture), options, seed=3, state_path=path, identity="x", on_epoch=on_epoch)
    return network


@pytest.mark.slow
def test_an_interrupted_training_continues_to_the_same_bits(tmp_path: Path) -> None:
    """Robust objective, attacks crafted on the same integers; stopped behind the first epoch."""
    epochs: list[dict[str, Any]] = []
    undisturbed = _fitted(tmp_path / "whole", epochs.append)
    assert [metrics["epoch"] for metrics in epochs] == [1, 2, 3]

    def stop(_: dict[str, Any]) -> None:
        raise _Stopped

    with pytest.raises(_Stopped):
        _fitted(tmp_path / "part", stop)
    continued = _fitted(tmp_path / "part", lambda _: None)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, continued.state_dict()[name]), name
    assert_same_integers(continued.graph, undisturbed.graph)
    start = build(ARCHITECTURES["padded convolution, pool, dense"]).float().state_dict()
    assert not all(torch.equal(value, start[name]) for name, value in undisturbed.state_dict().items())


def test_an_objective_that_divides_the_timesteps_is_refused() -> None:
    with pytest.raises(SettingsError, match="deploy.finetune_epochs: the objective 'hire' divides the timesteps"):
        finetuning(FitSettings(objective="hire"), DeploySettings(finetune_epochs=1))
    with pytest.raises(SettingsError, match="deploy.finetune_epochs = -1"):
        DeploySettings(finetune_epochs=-1)
    with pytest.raises(SettingsError, match="deploy.finetune_learning_rate = 0"):
        DeploySettings(finetune_learning_rate=0.0)
    with pytest.raises(SettingsError, match=r"deploy.scale = 'least' is not allowed"):
        DeploySettings(scale="least")
