"""Poisson spikes on the chip: the float network's own draws, one signed channel or two, and a straight-through gradient."""

from dataclasses import replace

import pytest
import torch
from settled_networks import pictures, settled
from small_networks import HEAD, block, conv, image

from hardspike.deploy.compile import DeploySettings, compile_network
from hardspike.deploy.emulator import Emulator, EmulatorBackend
from hardspike.deploy.fold import fold_network
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.poisson_coding import on_two_channels
from hardspike.snn.architecture import Architecture, chain
from hardspike.snn.encoding import NoiseSource


def architecture(groups: int = 1) -> Architecture:
    shown = replace(image(2, 6, 5), coding="poisson", poisson_rate=0.7)
    return chain(shown, [*block("a", conv(4, groups=groups)), *HEAD])


@pytest.mark.parametrize("groups", [1, 2])
def test_two_channels_of_loihi1_compute_what_one_signed_channel_does(groups: int) -> None:
    network = settled(architecture(groups))
    first = network.layers["a"].weight
    with (
        torch.no_grad()
    ):  # 254 and -256 are legal: only if the largest weight is positive do w and -w allow the same scale
        first.mul_(torch.where(first.abs().amax((1, 2, 3)) == first.amax((1, 2, 3)), 1, -1).view(-1, 1, 1, 1))
        network.layers["a_norm"].weight.abs_()
    images = pictures(network.architecture, 5)
    graphs = [compile_network(network, DeploySettings(profile=name))[0] for name in ("loihi1", "loihi2")]
    assert [graph.input.coding for graph in graphs] == ["binary", "signed"]
    messages = [encode_images(images, graph, seed=3) for graph in graphs]
    assert {tuple(sent.unique().tolist()) for sent in messages} == {(0, 1), (-1, 0, 1)}
    traces = [
        EmulatorBackend().run(graph, sent, keep_states=True) for graph, sent in zip(graphs, messages, strict=True)
    ]
    assert torch.equal(traces[0].output, traces[1].output)
    one, two = (trace.states for trace in traces)
    assert one is not None and two is not None
    assert all(torch.equal(one.potentials[name], two.potentials[name]) for name in one.potentials)


def test_messages_are_the_float_networks_draws() -> None:
    network = settled(architecture())
    graph = compile_network(network, DeploySettings())[0]
    images = pictures(network.architecture, 4)
    expected = fold_network(network).draw_spikes(images, NoiseSource(11))
    assert torch.equal(encode_images(images, graph, seed=11).double(), expected)
    emulator = Emulator(graph, seed=11)
    logits = emulator(images)
    trace = EmulatorBackend().run(graph, encode_images(images, graph, seed=11))
    torch.testing.assert_close(logits, trace.output.double() / emulator.logit_unit, rtol=1e-12, atol=0)
    assert not torch.equal(emulator(images), logits), "each pass draws anew"


def test_the_gradient_is_that_of_the_signed_spike() -> None:
    spikes = torch.tensor([-1.0, 0.0, 1.0]).view(1, 1, 3, 1, 1).requires_grad_(True)
    weight = torch.arange(1.0, 4.0).view(1, 1, 3, 1, 1)
    sent = on_two_channels(spikes)
    assert sent.flatten().tolist() == [0, 0, 1, 1, 0, 0]
    (grad,) = torch.autograd.grad((torch.cat([weight, -weight], 2) * sent).sum(), spikes)
    assert torch.equal(grad, weight)
