"""Everything between two neuron layers folded into one synapse and one bias, exactly (float64).

Batch norm becomes a factor and a shift; average pooling becomes a kernel with equal blocks; the input's normalisation
becomes a factor on the first weights and a bias. Zero padding pads the *normalised* image, so that bias differs at the
border: it is a map (C, H, W), not one number per channel.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardspike.snn.architecture import (
    INPUT,
    AveragePool,
    BatchNorm,
    Convolution,
    Dense,
    Dropout,
    Flatten,
    Node,
    Shape,
    Spiking,
)
from hardspike.snn.errors import UnsupportedLayerError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.neuron import fire

Pair = tuple[int, int]
SUPPORTED = (
    "(average pool, flatten) then convolution or dense, then batch norm, then spiking; last a convolution or dense"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldedLayer:
    """One synapse and its neurons, float64.

    weight: (out, in / groups, kH, kW) or (out, in). bias: broadcasts to `shape`. neuron None: the output layer, never fires.
    The bias is the sum of `uniform_bias`, one number per output channel, and of the response of `shift_taps`, a kernel
    (out, 1, kH, kW), to an image of ones: what the normalisation's mean adds wherever the kernel is inside the image.
    """

    name: str
    source: str
    shape: Shape
    weight: Tensor
    bias: Tensor
    uniform_bias: Tensor
    neuron: NeuronSettings | None
    threshold: float
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    shift_taps: Tensor | None = None

    def respond(self, messages: Tensor) -> Tensor:
        """Input current of the neurons for messages of shape (B, *source shape)."""
        if self.weight.ndim == 2:
            return F.linear(messages.flatten(1), self.weight) + self.bias
        out = F.conv2d(messages, self.weight, None, self.stride, self.padding, self.dilation, self.groups)
        return out + self.bias


@dataclass(frozen=True, slots=True)
class FoldedNetwork:
    """Layers in order; the input is the image in [0, 1] itself."""

    input_shape: tuple[int, int, int]
    layers: tuple[FoldedLayer, ...]
    time_steps: int

    def run(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Input currents per layer [T, B, *shape] and logits [B, K], in float64."""
        batch = len(images)
        sent = {INPUT: images.double().expand(self.time_steps, *images.shape).flatten(0, 1)}
        currents = {}
        for layer in self.layers:
            current = layer.respond(sent[layer.source]).unflatten(0, (self.time_steps, batch))
            currents[layer.name] = current
            if layer.neuron is not None:
                threshold = torch.tensor(layer.threshold, dtype=torch.float64)
                sent[layer.name] = fire(current, threshold, layer.neuron).flatten(0, 1)
        return currents, current.mean(0)


@dataclass(frozen=True, slots=True)
class _Pending:
    """Linear operations seen since the last neurons: first pool and flatten, then one synapse."""

    source: str
    source_shape: Shape
    pool: Pair = (1, 1)
    flat: bool = False
    layer: FoldedLayer | None = None


def fold_network(network: SpikingNetwork) -> FoldedNetwork:
    """Fold a spiking network in evaluation mode.

    Raises UnsupportedLayerError, naming the layer, for anything but the order in `SUPPORTED`, or for an ANN.
    """
    if network.time_steps is None:
        raise UnsupportedLayerError("network: it is an ANN (no timesteps); convert it to a spiking network first")
    architecture = network.architecture
    _check_forms(network)
    pending = {INPUT: _Pending(INPUT, architecture.input.shape)}
    layers: list[FoldedLayer] = []
    for node in architecture.nodes:
        before = pending[node.sources[0]]
        shape = architecture.shapes[node.name]
        module = network.layers[node.name]
        match node.layer:
            case AveragePool() if before.layer is None and not before.flat:
                pool = (before.pool[0] * node.layer.kernel_size[0], before.pool[1] * node.layer.kernel_size[1])
                pending[node.name] = replace(before, pool=pool)
            case Flatten() if before.layer is None:
                pending[node.name] = replace(before, flat=True)
            case Convolution() if before.layer is None and not before.flat:
                assert isinstance(module, nn.Conv2d)
                pending[node.name] = replace(
                    before, layer=_fold_convolution(node, node.layer, module, before, shape, network)
                )
            case Dense() if before.layer is None:
                assert isinstance(module, nn.Linear)
                pending[node.name] = replace(before, layer=_fold_dense(node, module, before, shape, network))
            case Dropout():
                pending[node.name] = before
            case BatchNorm(steps=None) if before.layer is not None and before.layer.neuron is None:
                assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
                pending[node.name] = replace(before, layer=_fold_batch_norm(before.layer, module))
            case Spiking() if before.layer is not None:
                neuron = network.neurons()[node.name]
                settings = replace(node.layer.neuron, leak=float(neuron.leak.detach()))
                threshold = float(neuron.threshold.detach())
                layers.append(replace(before.layer, name=node.name, neuron=settings, threshold=threshold))
                pending[node.name] = _Pending(node.name, shape)
            case _:
                kind = type(node.layer).__name__
                raise UnsupportedLayerError(
                    f"layer '{node.name}' ({kind} after '{node.sources[0]}') cannot be deployed in this place; supported order: {SUPPORTED}"
                )
    last = pending[architecture.nodes[-1].name].layer
    if last is None:
        raise UnsupportedLayerError(
            f"layer '{architecture.nodes[-1].name}' ends the network; the last layer must be a convolution or dense"
        )
    return FoldedNetwork(architecture.input.shape, (*layers, last), network.time_steps)


def _check_forms(network: SpikingNetwork) -> None:
    """Raise UnsupportedLayerError for an input, readout or neuron whose integer form does not exist yet."""
    image, readout = network.architecture.input, network.architecture.readout
    found = {"input.coding": image.coding, "input.bits": image.bits, "readout": readout}
    for name, wanted in {"input.coding": "direct", "input.bits": None, "readout": "mean"}.items():
        if found[name] != wanted:
            raise UnsupportedLayerError(
                f"network: {name} = {found[name]} cannot be deployed; train it with {wanted or 'none'}"
            )
    plain = NeuronSettings()
    for node in network.architecture.spiking:
        assert isinstance(node.layer, Spiking)
        for field in ("order", "strict", "initial_potential"):
            value = getattr(node.layer.neuron, field)
            if value != getattr(plain, field):
                raise UnsupportedLayerError(
                    f"layer '{node.name}': {field} = {value} cannot be deployed; train it with {getattr(plain, field)}"
                )


def _pool_kernel(node: Node, layer: Convolution, weight: Tensor, before: _Pending) -> tuple[Tensor, Pair, Pair, Pair]:
    """Kernel, stride, padding, dilation that act on the unpooled source."""
    if before.pool == (1, 1):
        return weight, layer.stride, layer.padding, layer.dilation
    for side, pool, pad in zip(before.source_shape[1:], before.pool, layer.padding, strict=True):
        if side % pool and pad:
            raise UnsupportedLayerError(
                f"layer '{node.name}': pooling by {pool} drops the last rows of {side}, and padding {pad} would bring them back; "
                "use an image size divisible by the pool or no padding"
            )
    if layer.dilation != (1, 1):
        spread = weight.new_zeros(
            *weight.shape[:2], *(d * (k - 1) + 1 for d, k in zip(layer.dilation, weight.shape[2:], strict=True))
        )
        spread[:, :, :: layer.dilation[0], :: layer.dilation[1]] = weight
        weight = spread
    (rows, columns) = before.pool
    weight = weight.repeat_interleave(rows, 2).repeat_interleave(columns, 3) / (rows * columns)
    stride = (layer.stride[0] * rows, layer.stride[1] * columns)
    return weight, stride, (layer.padding[0] * rows, layer.padding[1] * columns), (1, 1)


def _fold_convolution(
    node: Node, layer: Convolution, module: nn.Conv2d, before: _Pending, shape: Shape, network: SpikingNetwork
) -> FoldedLayer:
    weight, stride, padding, dilation = _pool_kernel(node, layer, module.weight.detach().double(), before)
    bias = weight.new_zeros(shape[0]) if module.bias is None else module.bias.detach().double()
    folded = FoldedLayer(
        name=node.name,
        source=before.source,
        shape=shape,
        weight=weight,
        bias=bias.view(-1, 1, 1),
        uniform_bias=bias,
        neuron=None,
        threshold=0.0,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=layer.groups,
    )
    if before.source != INPUT:
        return folded
    mean, std = network.mean.double(), network.std.double()
    shifted = folded.respond((-mean / std).expand(1, *before.source_shape))[0]
    return replace(
        folded,
        bias=shifted if any(padding) else shifted[:, :1, :1],
        weight=_per_input_channel(weight, 1 / std.flatten(), layer.groups),
        shift_taps=_per_input_channel(weight, -(mean / std).flatten(), layer.groups).sum(1, keepdim=True),
    )


def _per_input_channel(weight: Tensor, factor: Tensor, groups: int) -> Tensor:
    """weight * factor[c] for every input channel c of every group."""
    per_group = factor.view(groups, -1).repeat_interleave(len(weight) // groups, 0)
    return weight * per_group[:, :, None, None]


def _fold_dense(node: Node, module: nn.Linear, before: _Pending, shape: Shape, network: SpikingNetwork) -> FoldedLayer:
    weight = module.weight.detach().double()
    bias = weight.new_zeros(shape[0]) if module.bias is None else module.bias.detach().double()
    if len(before.source_shape) == 3:
        channels, height, width = before.source_shape
        rows, columns = before.pool
        weight = weight.view(-1, channels, height // rows, width // columns)
        weight = weight.repeat_interleave(rows, 2).repeat_interleave(columns, 3) / (rows * columns)
        weight = F.pad(weight, (0, width - weight.shape[3], 0, height - weight.shape[2]))  # what the pool dropped
        if before.source == INPUT:
            mean, std = network.mean.double(), network.std.double()
            bias = bias - (weight * (mean / std)).sum((1, 2, 3))
            weight = weight / std
        weight = weight.flatten(1)
    return FoldedLayer(
        name=node.name,
        source=before.source,
        shape=shape,
        weight=weight,
        bias=bias,
        uniform_bias=bias,
        neuron=None,
        threshold=0.0,
    )


def _fold_batch_norm(layer: FoldedLayer, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> FoldedLayer:
    assert norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.detach().double() - norm.running_mean.double() * factor
    return replace(
        layer,
        weight=layer.weight * _column(factor, layer.weight),
        bias=layer.bias * _column(factor, layer.bias) + _column(shift, layer.bias),
        uniform_bias=layer.uniform_bias * factor + shift,
        shift_taps=None if layer.shift_taps is None else layer.shift_taps * _column(factor, layer.shift_taps),
    )


def _column(values: Tensor, like: Tensor) -> Tensor:
    """One value per output channel, shaped to broadcast over `like`."""
    return values.view(-1, *(1,) * (like.ndim - 1))
