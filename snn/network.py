"""One network, one forward pass: an ANN while `time_steps` is None, a spiking network once it is a number.

Direct coding: the normalised image is the same input current at every step, so everything before the first neuron is
computed once per image. After it, tensors carry time merged with the batch, time-major: row t * B + b.
Logits are the mean over steps of the output layer's current (arXiv 2311.09266, code), or their sum.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

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
    Dropout,
    Flatten,
    Layer,
    Shape,
    Spiking,
    WeightedSum,
)
from hardspike.snn.encoding import NoiseSource, poisson_spikes, quantised
from hardspike.snn.errors import DataError, SettingsError, UnsupportedLayerError
from hardspike.snn.neuron import Neuron, Pool, rate
from hardspike.snn.norms import BatchNormPerStep
from hardspike.snn.surrogate import Activation, active_surrogate

Initialisation = Literal["kaiming", "xavier"]


class ScalarWeights(nn.Module):
    """One factor per source of a `WeightedSum`."""

    def __init__(self, layer: WeightedSum) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(layer.initial), requires_grad=layer.trainable)


class DropoutMask(nn.Module):
    """Draws what a `Dropout` layer multiplies with; 1 / (1 - share) where kept."""

    def __init__(self, layer: Dropout) -> None:
        super().__init__()
        self.share, self.per_step = layer.share, layer.per_step

    def draw(self, shape_TB: tuple[int, ...], like: Tensor, noise: NoiseSource) -> Tensor:
        shape = shape_TB if self.per_step else (1, *shape_TB[1:])
        return (noise.uniform(shape, like) >= self.share).to(like.dtype) / (1 - self.share)


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
        case BatchNorm(steps=None, shift=True):
            # BatchNorm1d and 2d differ only in the shapes they accept; the parameters are the same.
            return nn.BatchNorm2d(shape[0], layer.eps) if len(shape) == 3 else nn.BatchNorm1d(shape[0], layer.eps)
        case BatchNorm(steps=int(steps)):
            return BatchNormPerStep(shape[0], steps, layer.eps, layer.shift)
        case Spiking():
            return Neuron(layer.neuron)
        case AveragePool():
            return nn.AvgPool2d(layer.kernel_size)
        case Flatten():
            return nn.Flatten(1)
        case Dense():
            return nn.Linear(shape[0], layer.out_features, layer.bias)
        case Dropout():
            return DropoutMask(layer)
        case WeightedSum():
            return ScalarWeights(layer)
    raise UnsupportedLayerError(f"layer {layer} cannot be built; a batch norm without shift needs `steps`")


class SpikingNetwork(nn.Module):
    """A network with weights.

    Args:
        architecture: what to build.
        time_steps: None for an ANN (neurons are activations), or the number of timesteps T >= 1 of an SNN.
        seed: of the weights, and of the network's own noise (Poisson spikes, dropout), see `noise`.
        initialisation: of convolutions: `kaiming` normal, fan out, dense layers as PyTorch has them (arXiv 2311.09266), or
            `xavier` uniform with gain 2 for both (BNTT). Biases start at 0.

    `forward` takes float images of shape (B, C, H, W) in [0, 1] and returns logits of shape (B, num_classes).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: Architecture,
        time_steps: int | None = None,
        *,
        seed: int = 0,
        initialisation: Initialisation = "kaiming",
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.set_time_steps(time_steps)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleDict(
                {node.name: _module(node.layer, architecture.shapes[node.sources[0]]) for node in architecture.nodes}
            )
            for module in self.layers.values():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    if initialisation == "xavier":
                        nn.init.xavier_uniform_(module.weight, gain=2)
                    elif isinstance(module, nn.Conv2d):
                        nn.init.kaiming_normal_(module.weight, mode="fan_out")
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        image = architecture.input
        self.register_buffer("mean", torch.tensor(image.mean, dtype=torch.float64).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(image.std, dtype=torch.float64).view(1, -1, 1, 1), persistent=False)
        self.noise = NoiseSource(seed)
        self._fused_pools = _pools_behind_neurons(architecture)
        self._memory = torch.preserve_format
        self._carrying = False
        self._spikes: dict[str, Tensor] | None = None
        self._currents: dict[str, Tensor] | None = None
        self._watched: dict[str, Tensor] | None = None

    def set_time_steps(self, time_steps: int | None) -> None:
        """Raises SettingsError for a number below 1, or one that the batch norms per step are not made for."""
        if time_steps is not None and time_steps < 1:
            raise SettingsError(f"network: time_steps = {time_steps} is not allowed; use 1 or more, or none for an ANN")
        fixed = self.architecture.fixed_time_steps
        if fixed not in (None, time_steps):
            found = "an ANN" if time_steps is None else f"{time_steps} timesteps"
            raise SettingsError(
                f"network: {found} is not allowed; its batch norms of their own per step (BNTT) are made for {fixed} timesteps"
            )
        self.time_steps = time_steps

    def use_channels_last(self) -> None:
        """Keep images and convolution weights in channels-last memory order; the numbers are the same up to rounding."""
        self._memory = torch.channels_last
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def neurons(self) -> dict[str, Neuron]:
        """The neuron layers by name, in order."""
        return {name: module for name, module in self.layers.items() if isinstance(module, Neuron)}

    def on_cpu_images(self) -> Callable[[Tensor], Tensor]:
        """This network as a function of images on the CPU to logits on the CPU, wherever its weights are."""
        device = self.mean.device
        return self if device.type == "cpu" else lambda images: self(images.to(device)).to(images.device)

    def check_images(self, images: Tensor) -> None:
        """Raise DataError unless `images` has this network's image shape."""
        expected = self.architecture.input.shape
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise DataError(
                f"images: shape {tuple(images.shape)} does not fit this network; it takes (batch, {expected})"
            )

    def forward(self, images_BCHW: Tensor) -> Tensor:
        outputs_TB: Tensor = self._propagate(images_BCHW, None).unflatten(0, (-1, len(images_BCHW)))
        if outputs_TB.dtype in (torch.float16, torch.bfloat16):  # mixed precision: sums and losses in 32 bit
            outputs_TB = outputs_TB.float()
        if self._watched is not None:
            self._watched[self.architecture.nodes[-1].name] = outputs_TB
        if self.architecture.readout == "mean":
            return outputs_TB.mean(0)
        steps = None if isinstance(active_surrogate(), Activation) else self.time_steps
        # Before the first neuron a constant image is computed once, for all steps.
        return outputs_TB.sum(0) * ((steps or 1) // len(outputs_TB))

    def input_current(self, images_BCHW: Tensor, name: str) -> Tensor:
        """What the neuron layer `name` receives, [T, B, ...]; nothing behind it is computed.

        Where it is the same at every step (direct coding, before the first neuron) it may be an expanded view.
        """
        return self._propagate(images_BCHW, name)

    def _propagate(self, images_BCHW: Tensor, until: str | None) -> Tensor:
        """Output of the last node, or the input current of the neuron layer `until`."""
        self.check_images(images_BCHW)
        substitute = active_surrogate()
        steps = None if isinstance(substitute, Activation) else self.time_steps
        if steps is None and self.architecture.fixed_time_steps is not None:
            raise SettingsError("network: its batch norms of their own per step (BNTT) have no form without spikes")
        batch = len(images_BCHW)
        value: Tensor = images_BCHW
        values, merged = self._encoded(images_BCHW, steps)  # merged: whether the leading axis is T * B rather than B
        for node in self.architecture.nodes:
            if node.name in values:  # a pooling that its neurons have done
                continue
            module = self.layers[node.name]
            has_time = any(merged[source] for source in node.sources)
            if isinstance(module, ScalarWeights):
                sources = [
                    values[source] if merged[source] or not has_time else self._repeat(values[source], steps)
                    for source in node.sources
                ]
                value = sum(factor * source for factor, source in zip(module.weight, sources, strict=True))
            elif isinstance(module, Neuron):
                current_TB = values[node.source].unflatten(0, (-1, batch)) if has_time else values[node.source][None]
                if node.name == until:
                    return current_TB if steps is None else current_TB.expand(steps, *current_TB.shape[1:])
                pooled = self._fused_pools.get(node.name)
                seen = self._spikes is not None or self._watched is not None
                if pooled is not None and steps is not None and not seen and not self._carrying:
                    values[pooled[0]], merged[pooled[0]] = self._fire(node.name, current_TB, steps, pooled[1]), True
                    continue
                value, has_time = self._fire(node.name, current_TB, steps), steps is not None
                if self._watched is not None:
                    value = self._watch(node.name, value, batch)
            elif isinstance(module, DropoutMask):
                value = self._dropped(module, values[node.source], steps if has_time else 1)
            elif isinstance(module, BatchNormPerStep) and not has_time:
                value, has_time = module(self._repeat(values[node.source], steps)), True
            elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and self.training and not has_time:
                value = _norm_of_constant(module, values[node.source], steps or 1)
            else:
                value = module(values[node.source])
            assert isinstance(value, Tensor)
            values[node.name], merged[node.name] = value, has_time
        return value

    def _watch(self, name: str, value: Tensor, batch: int) -> Tensor:
        """Keep a neuron layer's output; returned as a function of what is kept, so that later layers' gradients reach it."""
        assert self._watched is not None
        self._watched[name] = value.unflatten(0, (-1, batch))
        return self._watched[name].flatten(0, 1)

    def _encoded(self, images: Tensor, steps: int | None) -> tuple[dict[str, Tensor], dict[str, bool]]:
        image = self.architecture.input
        dtype = images.dtype
        if image.bits is not None:
            images = quantised(images, image.bits)
        value = (images - self.mean.to(dtype)) / self.std.to(dtype)
        value = value.contiguous(memory_format=self._memory) if self._memory != torch.preserve_format else value
        if image.coding == "direct" or steps is None:
            return {INPUT: value}, {INPUT: False}
        uniform = self.noise.uniform((steps, *value.shape), value)
        return {INPUT: poisson_spikes(value, uniform, image.poisson_rate).flatten(0, 1)}, {INPUT: True}

    def _dropped(self, module: DropoutMask, value: Tensor, steps: int | None) -> Tensor:
        if not self.training or module.share == 0:
            return value
        value_TB = value.unflatten(0, (steps or 1, -1))
        dropped: Tensor = value_TB * module.draw(tuple(value_TB.shape), value, self.noise)
        return dropped.flatten(0, 1)

    def _repeat(self, value: Tensor, steps: int | None) -> Tensor:
        return value if steps is None else value.repeat(steps, *[1] * (value.ndim - 1))

    def _fire(self, name: str, current_TB: Tensor, steps: int | None, pool: Pool = (1, 1)) -> Tensor:
        """Spikes (or activations where steps is None), time merged with the batch."""
        neuron = self.layers[name]
        assert isinstance(neuron, Neuron)
        if current_TB.dtype in (torch.float16, torch.bfloat16):  # mixed precision ends at the membrane potential
            current_TB = current_TB.float()
        if self._currents is not None:
            kept = current_TB.detach()
            self._currents[name] = kept if steps is None else kept.expand(steps, *kept.shape[1:])
        if steps is None:
            substitute = active_surrogate()
            if self.time_steps is None or not isinstance(substitute, Activation):
                return neuron.activate(current_TB[0])
            if substitute.kind == "relu":
                return F.relu(current_TB[0])
            return rate(current_TB[0], neuron.threshold, self.time_steps, neuron.settings.initial_potential)
        spikes_TB = neuron.continued(current_TB, steps) if self._carrying else neuron(current_TB, steps, pool)
        if self._spikes is not None:
            self._spikes[name] = spikes_TB.detach()
        return spikes_TB.flatten(0, 1)

    @contextmanager
    def carrying(self) -> Iterator[None]:
        """Inside the block each forward pass continues from the membrane potentials the last one left, the first from rest."""
        for neuron in self.neurons().values():
            neuron.carried = None
        self._carrying = True
        try:
            yield
        finally:
            self._carrying = False
            for neuron in self.neurons().values():
                neuron.carried = None

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

    @contextmanager
    def watching(self) -> Iterator[dict[str, Tensor]]:
        """Inside the block each forward pass leaves, with the gradient's path, what neuron layers and the last layer put out.

        Shape [T, B, ...]; T = 1 for an ANN.
        """
        self._watched = {}
        try:
            yield self._watched
        finally:
            self._watched = None


def _pools_behind_neurons(architecture: Architecture) -> dict[str, tuple[str, Pool]]:
    """Neuron layers whose spikes go nowhere but into one average pooling, with its name and window."""
    readers: dict[str, list[int]] = {}
    for index, node in enumerate(architecture.nodes):
        for source in node.sources:
            readers.setdefault(source, []).append(index)
    found = {}
    for node in architecture.spiking:
        behind = [architecture.nodes[index] for index in readers.get(node.name, [])]
        if len(behind) == 1 and isinstance(behind[0].layer, AveragePool):
            found[node.name] = (behind[0].name, behind[0].layer.kernel_size)
    return found


def _norm_of_constant(module: nn.BatchNorm1d | nn.BatchNorm2d, value: Tensor, steps: int) -> Tensor:
    """Training-mode batch norm of what is the same at all `steps` timesteps, computed once.

    Mean and variance are those of one step; only the running variance, which is the unbiased one, counts all of them.
    """
    axes = [0, *range(2, value.ndim)]
    with torch.no_grad():
        count = steps * value.numel() // value.shape[1]
        if module.running_mean is not None and module.running_var is not None:
            # In the statistics' own dtype: in mixed precision the value has a shorter one.
            variance, mean = torch.var_mean(value.to(module.running_mean.dtype), axes, correction=0)
            module.running_mean.lerp_(mean, 0.1)
            module.running_var.lerp_(variance * (count / (count - 1)), 0.1)
        if module.num_batches_tracked is not None:
            module.num_batches_tracked.add_(1)
    return F.batch_norm(value, None, None, module.weight, module.bias, True, 0.0, module.eps)


def num_parameters(network: SpikingNetwork) -> int:
    """Weights, biases, batch-norm parameters and trainable sums; thresholds and leaks are not counted."""
    own = {id(p) for neuron in network.neurons().values() for p in neuron.parameters()}
    return sum(p.numel() for p in network.parameters() if id(p) not in own)


def num_neurons(architecture: Architecture) -> int:
    return sum(math.prod(architecture.shapes[node.name]) for node in architecture.spiking)
