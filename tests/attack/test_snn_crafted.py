"""The SNN-crafted attack of ECCV 2020 (Sharmin et al., Algorithm 1) is BPTT with a straight-through Poisson encoder.

Its authors accumulate dJ / d(output of the first convolution) over all timesteps and pass the sum back through that convolution,
turned round, to the image. The same random draw gives the same gradient here, so `fgsm` and `pgd7` on a network with Poisson
coding are that attack.
"""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.attack.gradient import cross_entropy, gradient
from hardspike.snn.architecture import (
    Architecture,
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    ImageInput,
    Spiking,
    chain,
)
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.surrogate import Linear, surrogate_gradient

STD = (0.5, 0.4)


def poisson_network(neuron: NeuronSettings) -> SpikingNetwork:
    image = ImageInput(shape=(2, 6, 6), mean=(0.5, 0.45), std=STD, coding="poisson")
    layers = [
        ("conv", Convolution(out_channels=4, kernel_size=(3, 3), padding=(1, 1))),
        ("spike1", Spiking(neuron=neuron)),
        ("pool", AveragePool(kernel_size=(2, 2))),
        ("conv2", Convolution(out_channels=5, kernel_size=(3, 3), padding=(1, 1))),
        ("spike2", Spiking(neuron=neuron)),
        ("flat", Flatten()),
        ("head", Dense(out_features=4)),
    ]
    architecture: Architecture = chain(image, layers)
    return SpikingNetwork(architecture, 9, seed=3).double().eval()


def snn_crafted_gradient(network: SpikingNetwork, images: Tensor, labels: Tensor) -> Tensor:
    """Algorithm 1, steps 3 to 6, on images as the network normalises them; then back to [0, 1]."""
    outputs: list[Tensor] = []
    convolution = network.layers["conv"]
    hook = convolution.register_forward_hook(lambda module, given, output: outputs.append(output))
    loss = cross_entropy(labels)(network(images)).sum()
    hook.remove()
    (per_step,) = torch.autograd.grad(loss, outputs[0])
    accumulated = per_step.unflatten(0, (network.time_steps, len(images))).sum(0)
    turned = convolution.weight.detach().flip(2, 3).transpose(0, 1)  # rot180, in and out channels swapped
    inputs = F.conv2d(accumulated, turned, padding=1)
    return inputs / torch.tensor(STD, dtype=images.dtype).view(1, -1, 1, 1)


@pytest.mark.parametrize(
    "neuron",
    [
        NeuronSettings(),
        NeuronSettings(leak=0.9, reset="soft", order="fire-first"),
        NeuronSettings(leak=0.95, detach_reset=True, reset="soft"),
    ],
)
def test_it_is_backpropagation_through_a_straight_through_encoder(neuron: NeuronSettings) -> None:
    network = poisson_network(neuron)
    generator = torch.Generator().manual_seed(1)
    images = torch.rand((5, 2, 6, 6), generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 1])
    with surrogate_gradient(Linear(0.3)):
        network.noise.generator.manual_seed(7)
        crafted = snn_crafted_gradient(network, images, labels)
        network.noise.generator.manual_seed(7)
        ours = gradient(network, images, cross_entropy(labels))
        other_draw = gradient(network, images, cross_entropy(labels))
    largest = float(ours.abs().max())
    assert largest > 0 and float((crafted - ours).abs().max()) <= 1e-12 * largest
    assert float((other_draw - ours).abs().max()) > 1e-3 * largest, "the draw matters: average it with +eot"
