"""One network, one forward pass: an ANN while `time_steps` is None, a spiking network once it is a number.

Direct coding: the normalised image is the same input current at every step, so everything before the first neuron is
computed once per image. After it, tensors carry time merged with the batch, time-major: row t * B + b.
Logits are the mean over steps of the output layer's current (arXiv 2311.09266, code).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardspike.snn.architecture import (
    INPUT,
    Architecture,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Flatten,
    Layer,
    Shape,
    Spiking,
)
from hardspike.snn.errors import DataError, SettingsError, UnsupportedLayerError
from hardspike.snn.neuron import Neuron


def _module(layer: Layer, shape: Shape) -> nn.Module:
    match layer:
        case Convolution():
            return nn.Conv2d(
                shape[0],
                layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.groups,
                layer.bias,
            )
        case BatchNorm():
            # BatchNorm1d and 2d differ only in the shapes they accept; the parameters are the same.
            return nn.BatchNorm2d(shape[0]) if len(shape) == 3 else nn.BatchNorm1d(shape[0])
        case Spiking():
            return Neuron(layer.neuron)
        case AveragePool():
            return nn.AvgPool2d(layer.kernel_size)
        case Flatten():
            return nn.Flatten(1)
        case Dense():
            return nn.Linear(shape[0], layer.out_features, layer.bias)
    raise UnsupportedLayerError(f"layer kind '{type(layer).__name__}' cannot be built")


class SpikingNetwork(nn.Module):
    """A network with weights.

    Args:
        architecture: what to build.
        time_steps: None for an ANN (neurons are ReLU), or the number of timesteps T >= 1 of an SNN.
        seed: of the weight initialisation (Kaiming normal, fan out, for convolutions; PyTorch's default for dense layers).

    `forward` takes float images of shape (B, C, H, W) in [0, 1] and returns logits of shape (B, num_classes).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: Architecture, time_steps: int | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.architecture = architecture
        self.set_time_steps(time_steps)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleDict(
                {node.name: _module(node.layer, architecture.shapes[node.source]) for node in architecture.nodes}
            )
            for module in self.layers.values():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out")
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        image = architecture.input
        self.register_buffer("mean", torch.tensor(image.mean, dtype=torch.float64).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(image.std, dtype=torch.float64).view(1, -1, 1, 1), persistent=False)
        self._spikes: dict[str, Tensor] | None = None
        self._currents: dict[str, Tensor] | None = None

    def set_time_steps(self, time_steps: int | None) -> None:
        if time_steps is not None and time_steps < 1:
            raise SettingsError(f"network: time_steps = {time_steps} is not allowed; use 1 or more, or none for an ANN")
        self.time_steps = time_steps

    def neurons(self) -> dict[str, Neuron]:
        """The neuron layers by name, in order."""
        return {name: module for name, module in self.layers.items() if isinstance(module, Neuron)}

    def check_images(self, images: Tensor) -> None:
        """Raise DataError unless `images` has this network's image shape."""
        expected = self.architecture.input.shape
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise DataError(
                f"images: shape {tuple(images.shape)} does not fit this network; it takes (batch, {expected})"
            )

    def forward(self, images_BCHW: Tensor) -> Tensor:
        value = self._propagate(images_BCHW, None)
        logits: Tensor = value.unflatten(0, (-1, len(images_BCHW))).mean(0)
        return logits

    def input_current(self, images_BCHW: Tensor, name: str) -> Tensor:
        """What the neuron layer `name` receives, shape [T, B, ...]; nothing behind it is computed."""
        return self._propagate(images_BCHW, name)

    def _propagate(self, images_BCHW: Tensor, until: str | None) -> Tensor:
        """Output of the last node, or the input current of the neuron layer `until`."""
        self.check_images(images_BCHW)
        batch = len(images_BCHW)
        dtype = images_BCHW.dtype
        values = {INPUT: (images_BCHW - self.mean.to(dtype)) / self.std.to(dtype)}
        merged = {INPUT: False}  # whether the leading axis is T * B rather than B
        for node in self.architecture.nodes:
            value, has_time = values[node.source], merged[node.source]
            module = self.layers[node.name]
            if isinstance(module, Neuron):
                current = self._current(value, batch, has_time)
                if node.name == until:
                    return current
                value, has_time = self._fire(node.name, module, current)
            else:
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and self.training and not has_time:
                    # Running variance is the unbiased one: its factor n/(n-1) must count all T steps.
                    value, has_time = self._repeat(value), self.time_steps is not None
                value = module(value)
            values[node.name], merged[node.name] = value, has_time
        return value

    def _repeat(self, value: Tensor) -> Tensor:
        return value if self.time_steps is None else value.repeat(self.time_steps, *[1] * (value.ndim - 1))

    def _current(self, value: Tensor, batch: int, has_time: bool) -> Tensor:
        if has_time or self.time_steps is None:
            current_TB: Tensor = value.unflatten(0, (-1, batch))
            return current_TB
        return value.expand(self.time_steps, *value.shape)

    def _fire(self, name: str, neuron: Neuron, current_TB: Tensor) -> tuple[Tensor, bool]:
        if self._currents is not None:
            self._currents[name] = current_TB.detach()
        if self.time_steps is None:
            return F.relu(current_TB).flatten(0, 1), False
        spikes_TB = neuron(current_TB)
        if self._spikes is not None:
            self._spikes[name] = spikes_TB.detach()
        return spikes_TB.flatten(0, 1), True

    @contextmanager
    def recording(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Inside the block, each forward pass leaves (spikes, input currents) per neuron layer, both of shape [T, B, ...].

        An ANN leaves no spikes, and its one step's currents, T = 1.
        """
        self._spikes, self._currents = {}, {}
        try:
            yield self._spikes, self._currents
        finally:
            self._spikes = self._currents = None


def num_parameters(network: SpikingNetwork) -> int:
    """Weights, biases and batch-norm parameters; thresholds are not counted."""
    thresholds = {id(neuron.threshold) for neuron in network.neurons().values()}
    return sum(p.numel() for p in network.parameters() if id(p) not in thresholds)


def num_neurons(architecture: Architecture) -> int:
    return sum(math.prod(architecture.shapes[node.name]) for node in architecture.spiking)
