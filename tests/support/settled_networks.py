"""Networks of any architecture with random parameters everywhere and thresholds at which each layer fires now and then."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from hardspike.snn.architecture import Architecture, Convolution
from hardspike.snn.network import ScalarWeights, SpikingNetwork
from hardspike.snn.norms import NORMS


def narrow(architecture: Architecture, divisor: int) -> Architecture:
    """With so many times fewer channels in every convolution."""

    def thinned(layer: object) -> object:
        if isinstance(layer, Convolution):
            return replace(layer, out_channels=max(layer.out_channels // divisor, 2))
        return layer

    nodes = tuple(replace(node, layer=thinned(node.layer)) for node in architecture.nodes)  # type: ignore[arg-type]
    return replace(architecture, nodes=nodes)


def settled(architecture: Architecture, time_steps: int = 4, seed: int = 0) -> SpikingNetwork:
    """float64, in evaluation mode: no bias, statistic, factor of a sum, leak or threshold has its first value."""
    net = SpikingNetwork(architecture, time_steps, seed=seed).double().eval()
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor | None, low: float, high: float) -> None:
        if tensor is not None:
            tensor.uniform_(low, high, generator=generator)

    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, NORMS):
                draw(module.weight, 0.5, 1.5)
                draw(module.bias, -0.3, 0.6)
                draw(module.running_mean, -0.5, 0.5)
                draw(module.running_var, 0.5, 2)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                draw(module.bias, -0.3, 0.5)
            elif isinstance(module, ScalarWeights):
                draw(module.weight, 0.3, 0.9)
        for name, neuron in net.neurons().items():
            current = net.input_current(pictures(architecture, 8, seed), name)
            share = float(torch.empty(()).uniform_(0.9, 1.4, generator=generator))  # no sum of equal weights meets it
            neuron.threshold.fill_(max(float(current.flatten().quantile(0.8)), 0.05) * share)
            neuron.leak.mul_(float(torch.empty(()).uniform_(0.8, 1, generator=generator)))
    return net


def pictures(architecture: Architecture, count: int, seed: int = 7) -> Tensor:
    """Images in [0, 1], float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *architecture.input.shape, generator=generator, dtype=torch.float64)
