"""Small spiking networks with random but settled weights: what folding, quantising and verifying are tested on."""

from collections.abc import Iterable

import torch
from torch import nn

from hardspike.snn.architecture import (
    Architecture,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Flatten,
    ImageInput,
    Layer,
    Spiking,
    chain,
)
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork

Layers = Iterable[tuple[str, Layer]]
IF = NeuronSettings()


def image(channels: int, height: int, width: int) -> ImageInput:
    return ImageInput(
        shape=(channels, height, width), mean=(0.48, 0.3, 0.41, 0.5)[:channels], std=(0.25, 0.4, 0.2, 0.3)[:channels]
    )


def conv(out_channels: int, kernel: tuple[int, int] = (3, 3), **geometry: object) -> Convolution:
    return Convolution(out_channels=out_channels, kernel_size=kernel, **{"padding": (1, 1), **geometry})  # type: ignore[arg-type]


def block(name: str, layer: Convolution | Dense, neuron: NeuronSettings = IF) -> Layers:
    return [(f"{name}", layer), (f"{name}_norm", BatchNorm()), (f"{name}_spike", Spiking(neuron=neuron))]


def pool(rows: int, columns: int) -> AveragePool:
    return AveragePool(kernel_size=(rows, columns))


FLAT: Layers = [("flat", Flatten())]
HEAD: Layers = [*FLAT, ("head", Dense(out_features=5, bias=True))]


# Name, architecture: between them every layer, order and geometry that can be deployed, on two image sizes not square.
ARCHITECTURES: dict[str, Architecture] = {
    "padded convolution, pool, dense": chain(
        image(2, 8, 6), [*block("a", conv(4)), ("p", pool(2, 2)), *block("b", conv(6)), ("q", pool(2, 1)), *HEAD]
    ),
    "stride and non-square kernel": chain(
        image(1, 9, 7),
        [*block("a", conv(4, (3, 2), stride=(2, 1), padding=(1, 0))), *block("b", conv(4, stride=(1, 2))), *HEAD],
    ),
    "groups and dilation": chain(
        image(4, 8, 6),
        [*block("a", conv(4, groups=2)), *block("b", conv(8, dilation=(2, 1), groups=4, padding=(2, 1))), *HEAD],
    ),
    "pool before a dilated convolution": chain(
        image(1, 12, 8),
        [*block("a", conv(3)), ("p", pool(2, 2)), *block("b", conv(4, dilation=(2, 1), padding=(2, 1))), *HEAD],
    ),
    "pool on the image, biases": chain(
        image(3, 8, 12), [("p", pool(2, 3)), *block("a", conv(4, bias=True)), *block("b", conv(4, bias=True)), *HEAD]
    ),
    "pool that drops rows": chain(
        image(2, 9, 7), [*block("a", conv(4)), ("p", pool(2, 2)), *block("b", conv(4, padding=(0, 0))), *HEAD]
    ),
    "dense only": chain(image(2, 3, 4), [*FLAT, *block("a", Dense(out_features=9)), *HEAD[1:]]),  # type: ignore[index]
    "dense after a pool that drops rows": chain(image(1, 7, 5), [*block("a", conv(4)), ("p", pool(2, 2)), *HEAD]),
    "leaky": chain(
        image(2, 6, 5),
        [*block("a", conv(4), NeuronSettings(leak=0.9)), *block("b", conv(4), NeuronSettings(leak=0.5)), *HEAD],
    ),
    "convolution as output": chain(
        image(1, 5, 4), [*block("a", conv(4)), ("out", conv(3, (5, 4), padding=(0, 0), bias=True))]
    ),
}


def build(architecture: Architecture, time_steps: int = 6, seed: int = 0) -> SpikingNetwork:
    """Random weights; batch norm and thresholds as if trained: statistics from data, gamma and beta away from 1 and 0."""
    net = SpikingNetwork(architecture, time_steps, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.3, 0.6, generator=generator)
        for index, neuron in enumerate(net.neurons().values()):
            neuron.threshold.fill_(0.9 + 0.1 * index)
        net.train()
        for _ in range(20):
            net(torch.rand(16, *architecture.input.shape, generator=generator, dtype=torch.float64))
    return net.eval()


def images(architecture: Architecture, count: int, seed: int = 7) -> torch.Tensor:
    """8-bit grey values in [0, 1], float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *architecture.input.shape), generator=generator).double() / 255
