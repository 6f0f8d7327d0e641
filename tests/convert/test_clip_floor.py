"""Conversion by activation (QCFS): spikes of the converted network are worth what the clip-floor activation was."""

from copy import deepcopy
from dataclasses import replace
from math import floor
from typing import Any

import pytest
import torch
from small_networks import FLAT, block, conv, image, pool
from torch import Tensor

from hardspike.convert.ann_to_snn import convert_clip_floor
from hardspike.snn.architecture import Architecture, Dense, Node, Spiking, WeightedSum, chain
from hardspike.snn.errors import SettingsError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork

SHAPE = (2, 6, 4)
STEPS = 6


def _random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _clip_floor(levels: int, **changes: Any) -> NeuronSettings:
    return NeuronSettings(
        **{"activation": "clip-floor", "reset": "soft", "initial_potential": 0.5, "levels": levels} | changes
    )


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 7, 8, 16])
@pytest.mark.parametrize("threshold", [0.25, 1.0, 8.0])
def test_rate_of_a_converted_neuron_is_its_clip_floor_activation(levels: int, threshold: float) -> None:
    """On a grid that floating point represents, where the sums are exact; steps of the floor and both ends are on it."""
    currents = torch.arange(-768, 1793, dtype=torch.float64) / 1024 * threshold
    layers = [*FLAT, ("s", Spiking(neuron=_clip_floor(levels))), ("out", Dense(out_features=1))]
    plain = replace(image(1, 1, 1), mean=(0.0,), std=(1.0,))
    ann = SpikingNetwork(chain(plain, layers)).double()
    ann.neurons()["s"].threshold.data.fill_(threshold)
    ann.get_parameter("layers.out.weight").data.fill_(1.0)
    snn = convert_clip_floor(ann, time_steps=levels)
    with torch.no_grad(), snn.recording() as (spikes, _):
        output = snn(currents.view(-1, 1, 1, 1))[:, 0]
        activation = ann(currents.view(-1, 1, 1, 1))[:, 0]
    expected = [min(max(floor(levels * c / threshold + 0.5), 0), levels) for c in currents.tolist()]
    assert spikes["s"].sum((0, 2)).tolist() == expected and {0, levels} <= set(expected)
    torch.testing.assert_close(activation, torch.tensor(expected).double() * threshold / levels, rtol=1e-15, atol=0)
    torch.testing.assert_close(output, activation, rtol=1e-15, atol=0)
    assert float(snn.get_parameter("layers.out.weight").detach()) == threshold


def _one_hidden(time_steps: int | None, levels: int = 6) -> SpikingNetwork:
    layers = [
        *block("a", conv(5, bias=True), _clip_floor(levels)),
        ("p", pool(2, 2)),
        *FLAT,
        ("out", Dense(out_features=3, bias=True)),
    ]
    net = SpikingNetwork(chain(image(*SHAPE), layers), time_steps).double().eval()
    norm = net.layers["a_norm"]
    with torch.no_grad():
        norm.running_mean.copy_(_random(3, 5))
        norm.bias.copy_(_random(4, 5))
        net.neurons()["a_spike"].threshold.fill_(1.7)
        net.get_parameter("layers.out.bias").copy_(_random(5, 3))
    return net


@pytest.mark.parametrize("levels", [1, 4, 6])
def test_one_hidden_layer_converts_without_loss(levels: int) -> None:
    ann = _one_hidden(None, levels)
    before = deepcopy(ann.state_dict())
    snn = convert_clip_floor(ann, time_steps=levels)
    images = _random(9, 20, *SHAPE)
    torch.testing.assert_close(snn(images), ann(images), rtol=1e-12, atol=1e-12)
    assert len(ann(images).detach().unique()) > 20  # not all the same
    assert all(torch.equal(value, before[name]) for name, value in ann.state_dict().items())
    assert not torch.allclose(convert_clip_floor(ann, time_steps=levels + 3)(images), ann(images), rtol=1e-6)


def test_heights_of_spikes_go_into_the_weights_behind() -> None:
    """Through pooling, dropout and flattening, and into both scalars of a sum: the same as spikes that are worth their threshold."""
    neuron = Spiking(neuron=_clip_floor(8))
    nodes = [
        Node(name="a", layer=conv(4, bias=True), sources=("input",)),
        Node(name="s1", layer=neuron, sources=("a",)),
        Node(name="b", layer=conv(4), sources=("s1",)),
        Node(name="s2", layer=neuron, sources=("b",)),
        Node(name="p1", layer=pool(2, 2), sources=("s1",)),
        Node(name="p2", layer=pool(2, 2), sources=("s2",)),
        Node(name="sum", layer=WeightedSum(initial=(0.7, 0.4), trainable=True), sources=("p1", "p2")),
        Node(name="s3", layer=neuron, sources=("sum",)),
        Node(name="mixed", layer=WeightedSum(initial=(1.0, 1.0)), sources=("s3", "sum")),
        Node(name="flat", layer=FLAT[0][1], sources=("mixed",)),  # type: ignore[index]
        Node(name="c", layer=Dense(out_features=9, bias=True), sources=("flat",)),
        Node(name="s4", layer=neuron, sources=("c",)),
        Node(name="out", layer=Dense(out_features=3, bias=True), sources=("s4",)),
    ]
    ann = SpikingNetwork(Architecture(input=image(*SHAPE), nodes=tuple(nodes))).double().eval()
    for index, each in enumerate(ann.neurons().values()):
        each.threshold.data.fill_(0.3 + 0.4 * index)
    for name in ("a", "c", "out"):
        bias = ann.get_parameter(f"layers.{name}.bias")
        bias.data.copy_(_random(6, *bias.shape) - 0.3)
    snn = convert_clip_floor(ann, time_steps=STEPS, trainable_thresholds=True)
    images = _random(8, 5, *SHAPE)

    potentials: dict[str, Tensor] = {}
    outputs, fired = [], set[str]()
    for _ in range(STEPS):
        values = {"input": (images - ann.mean) / ann.std}
        for node in nodes:
            sources = [values[name] for name in node.sources]
            module = ann.layers[node.name]
            if isinstance(node.layer, Spiking):
                threshold = ann.neurons()[node.name].threshold.detach()
                potential = potentials.get(node.name, 0.5 * threshold) + sources[0]
                spikes = (potential >= threshold).double()
                fired |= {node.name} if spikes.any() and not spikes.all() else set()
                potentials[node.name] = potential - threshold * spikes
                values[node.name] = threshold * spikes
            elif isinstance(node.layer, WeightedSum):
                values[node.name] = module.weight[0] * sources[0] + module.weight[1] * sources[1]
            else:
                values[node.name] = module(sources[0])
        outputs.append(values["out"])
    torch.testing.assert_close(snn(images), torch.stack(outputs).mean(0), rtol=1e-11, atol=1e-11)
    assert fired == {"s1", "s2", "s3", "s4"} and all(n.threshold.requires_grad for n in snn.neurons().values())


@pytest.mark.parametrize(
    "wrong", [{"activation": "relu"}, {"reset": "hard"}, {"leak": 0.9}, {"initial_potential": 0.0}]
)
def test_neurons_that_do_not_compute_the_activation_are_refused(wrong: dict[str, Any]) -> None:
    layers = [*FLAT, ("a", Dense(out_features=4)), ("s", Spiking(neuron=_clip_floor(4, **wrong)))]
    net = SpikingNetwork(chain(image(*SHAPE), [*layers, ("out", Dense(out_features=3))]))
    with pytest.raises(
        SettingsError, match="layer 's': activation, reset, leak, initial_potential = .* needs"
    ) as caught:
        convert_clip_floor(net, time_steps=4)
    assert "\n" not in str(caught.value)


def test_heights_that_no_weight_can_take_are_refused() -> None:
    spiking = ("s", Spiking(neuron=_clip_floor(4)))
    behind = [spiking, *block("b", conv(3))[1:2], *FLAT, ("out", Dense(out_features=3))]  # type: ignore[index]
    for layers, message in (
        (behind, "layer 'b_norm': batch norm directly behind spikes cannot take their height"),
        ([*FLAT, ("a", Dense(out_features=3)), spiking], "layer 's': spikes are the output"),
    ):
        net = SpikingNetwork(chain(image(*SHAPE), layers))
        net.neurons()["s"].threshold.data.fill_(2.0)
        with pytest.raises(SettingsError, match=message):
            convert_clip_floor(net, time_steps=4)
