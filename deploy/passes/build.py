"""A spiking network in evaluation mode to the graph that the passes work on, layer by layer."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from hardspike.deploy.passes.graph import (
    Convolve,
    Fire,
    Flat,
    Graph,
    Multiply,
    Node,
    Normalise,
    Operator,
    Pool,
    Scale,
    Shift,
    Source,
    StepNorm,
    Sum,
    column,
)
from hardspike.snn.architecture import INPUT, Convolution
from hardspike.snn.errors import UnsupportedLayerError
from hardspike.snn.network import DropoutMask, ScalarWeights, SpikingNetwork
from hardspike.snn.neuron import Neuron
from hardspike.snn.norms import BatchNormPerStep

NORMALISED = f"{INPUT}.normalised"


def build_graph(network: SpikingNetwork) -> Graph:
    """The network's layers as operators; a batch norm is a factor and a shift, a bias a shift, dropout nothing.

    A network that ends with neurons gets one more node, the spikes themselves, since the output layer never fires. Where
    gradients are enabled they run from the operators' numbers to the parameters, but for the neurons' own.
    Raises UnsupportedLayerError for an ANN.
    """
    if network.time_steps is None:
        raise UnsupportedLayerError("network: it is an ANN (no timesteps); convert it to a spiking network first")
    builder = _Builder(network)
    for node in network.architecture.nodes:
        builder.add(node.name, node.sources)
    output = builder.stands_for[network.architecture.nodes[-1].name]
    last = next(node for node in builder.nodes if node.name == output)
    if last.is_sender:
        output = f"{last.layer}_output"
        while output in network.architecture.shapes:
            output += "_"
        builder.append(output, Scale(factor=torch.ones(last.shape[0], dtype=torch.float64)), (last.name,), last.layer)
    return Graph(tuple(builder.nodes), output, network.time_steps).swept()


class _Builder:
    def __init__(self, network: SpikingNetwork) -> None:
        self.network = network
        image = network.architecture.input
        self.nodes = [Node(name=INPUT, op=Source(), sources=(), shape=image.shape, layer=INPUT)]
        self.stands_for = {INPUT: INPUT}  # the node that computes what the layer does
        if image.coding == "direct":
            mean, std = network.mean.double().flatten(), network.std.double().flatten()
            self.append(NORMALISED, Normalise(mean=mean, std=std), (INPUT,), INPUT)
            self.stands_for[INPUT] = NORMALISED

    def shape_of(self, name: str) -> tuple[int, ...]:
        return next(node.shape for node in self.nodes if node.name == name)

    def append(self, name: str, op: Operator, sources: tuple[str, ...], layer: str) -> str:
        shape = op.output_shape(self.shape_of(sources[0]))
        self.nodes.append(Node(name=name, op=op, sources=sources, shape=shape, layer=layer))
        return name

    def chain(self, name: str, source: str, *ops: Operator) -> None:
        """Operators one after the other; the last one carries the layer's name."""
        for index, op in enumerate(ops):
            is_last = index == len(ops) - 1
            source = self.append(name if is_last else f"{name}.{index}", op, (source,), name)
        self.stands_for[name] = source

    def add(self, name: str, read: tuple[str, ...]) -> None:
        module = self.network.layers[name]
        sources = [self.stands_for[source] for source in read]
        shape = self.network.architecture.shapes[name]
        match module:
            case nn.Conv2d():
                layer = next(node.layer for node in self.network.architecture.nodes if node.name == name)
                assert isinstance(layer, Convolution)
                convolve = Convolve(
                    weight=_double(module.weight),
                    stride=layer.stride,
                    padding=layer.padding,
                    dilation=layer.dilation,
                    groups=layer.groups,
                )
                self.chain(name, sources[0], convolve, *_bias(module.bias, shape))
            case nn.Linear():
                self.chain(name, sources[0], Multiply(weight=_double(module.weight)), *_bias(module.bias, shape))
            case nn.BatchNorm1d() | nn.BatchNorm2d():
                factor, shift = _factor_and_shift(module)
                self.chain(name, sources[0], Scale(factor=factor), Shift(bias=column(shift, len(shape))))
            case BatchNormPerStep():
                factor, shift = _factor_and_shift(module)
                self.chain(name, sources[0], StepNorm(factor=factor, shift=shift))
            case Neuron():
                self.chain(name, sources[0], _fire(module))
            case nn.AvgPool2d():
                rows, columns = module.kernel_size  # type: ignore[misc]
                self.chain(name, sources[0], Pool(kernel=(rows, columns)))
            case nn.Flatten():
                self.chain(name, sources[0], Flat())
            case DropoutMask():
                self.stands_for[name] = sources[0]
            case ScalarWeights():
                terms = []
                for index, (factor, source) in enumerate(zip(_double(module.weight), sources, strict=True)):
                    scale = Scale(factor=factor.repeat(shape[0]))
                    terms.append(self.append(f"{name}.{index}", scale, (source,), name))
                self.nodes.append(Node(name=name, op=Sum(), sources=tuple(terms), shape=shape, layer=name))
                self.stands_for[name] = name
            case _:
                raise UnsupportedLayerError(
                    f"layer '{name}': a {type(module).__name__} cannot be deployed; use the layers of hardspike.snn.architecture"
                )


def _double(parameter: Tensor) -> Tensor:
    return parameter.double() if torch.is_grad_enabled() else parameter.detach().double()


def _bias(bias: Tensor | None, shape: tuple[int, ...]) -> list[Shift]:
    return [] if bias is None else [Shift(bias=column(_double(bias), len(shape)))]


def _factor_and_shift(norm: nn.BatchNorm1d | nn.BatchNorm2d | BatchNormPerStep) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    factor = _double(norm.weight) / torch.sqrt(norm.running_var.double() + norm.eps)
    shift = -norm.running_mean.double() * factor
    return factor, shift if norm.bias is None else shift + _double(norm.bias)


def _fire(neuron: Neuron) -> Fire:
    """A training threshold below its floor is raised to it by the next forward pass."""
    threshold = float(neuron.threshold.detach())
    if neuron.threshold.requires_grad:
        threshold = max(threshold, neuron.settings.threshold_floor)
    return Fire(settings=replace(neuron.settings, leak=float(neuron.leak.detach())), threshold=threshold)
