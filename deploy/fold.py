"""Everything between two neuron layers folded into synapses and one bias, exactly (float64).

The network becomes a graph (`passes.build`), the passes rewrite it until each neuron layer reads nothing but synapses
(`passes.table`), and this file puts down what is left. Batch norm becomes factors and a shift, average pooling a kernel with
equal taps, a weighted sum several synapses, an analog shortcut the synapses of all that was added up on its way.

The input's normalisation becomes a factor on the first weights and a bias. Zero padding pads the *normalised* image, so
that bias differs at the border: it is a map (C, H, W), not one number per channel.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.deploy.passes.build import build_graph
from hardspike.deploy.passes.graph import (
    Convolve,
    Fire,
    Graph,
    Multiply,
    Node,
    Normalise,
    Pair,
    Shift,
    StepNorm,
    Sum,
    column,
)
from hardspike.deploy.passes.scales import on_input_channels
from hardspike.deploy.passes.step_norms import MeanOverSteps, StepNormSpread, spreads
from hardspike.deploy.passes.table import rewrite
from hardspike.snn.architecture import INPUT, ImageInput, Shape
from hardspike.snn.encoding import NoiseSource, poisson_spikes, quantised
from hardspike.snn.errors import DataError, UnsupportedLayerError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.neuron import fire

StepNorms = Literal["refuse", "mean"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldedSynapse:
    """One synapse, float64, from `input` or an earlier layer called `source`.

    weight: (out, in / groups, kH, kW), or (out, in) for one that reads its source flattened in C order. Behind the input it
    acts on the image in [0, 1], or on its spikes in {-1, 0, 1} under Poisson coding.
    """

    source: str
    weight: Tensor
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def respond(self, messages: Tensor) -> Tensor:
        """What the layer receives through it, (B, *shape of the layer), for messages (B, *source shape); without bias."""
        if self.weight.ndim == 2:
            return F.linear(messages.flatten(1), self.weight)
        return F.conv2d(messages, self.weight, None, self.stride, self.padding, self.dilation, self.groups)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldedLayer:
    """Neurons and the synapses, at least one, whose responses they add up; float64.

    uniform_bias: one number per output channel or feature, [shape[0]].
    bias: broadcasts to `shape`: `uniform_bias` and the response of the synapses from the input to an image of -mean (which
        is a map where a padded kernel leaves the image). Where a shift of the network's own passed a padded kernel (a batch
        norm behind neurons, in front of a convolution), the bias is a map too, and `uniform_bias` its own part's median.
    neuron: leak is the trained leak; None: the output layer, never fires.
    """

    name: str
    shape: Shape
    synapses: tuple[FoldedSynapse, ...]
    uniform_bias: Tensor
    bias: Tensor
    neuron: NeuronSettings | None
    threshold: float


@dataclass(frozen=True, slots=True)
class FoldedNetwork:
    """Layers in topological order; the input is the image in [0, 1] itself, or its spikes under Poisson coding.

    input: mean and std as the network has them, bits, coding. readout: logits are the output layer's `mean` or `sum` over steps.
    step_norms: what batch norms per step lost to their means; empty where there are none, and folding is exact.
    """

    input_shape: tuple[int, int, int]
    layers: tuple[FoldedLayer, ...]
    time_steps: int
    input: ImageInput
    readout: Literal["mean", "sum"] = "mean"
    step_norms: tuple[StepNormSpread, ...] = ()

    def run(self, images: Tensor, spikes_TBCHW: Tensor | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """Input currents per layer [T, B, *shape], the output layer's too, and logits [B, K], in float64.

        images: [B, C, H, W] in [0, 1]; rounded to the input's bits. spikes_TBCHW: what Poisson coding sends, [T, B, C, H, W],
        see `draw_spikes`; without it images alone decide. Raises DataError where it is missing, or of no use.
        """
        is_poisson = self.input.coding == "poisson"
        if is_poisson != (spikes_TBCHW is not None):
            raise DataError(
                f"input: its coding is {self.input.coding}, but spikes were {'not ' if is_poisson else ''}given; "
                f"{'draw them with draw_spikes' if is_poisson else 'leave them out'}"
            )
        sent = {INPUT: self._rounded(images)[None] if spikes_TBCHW is None else spikes_TBCHW.double()}
        currents = {}
        for layer in self.layers:
            current = layer.bias
            for synapse in layer.synapses:
                messages = sent[synapse.source]
                response = synapse.respond(messages.flatten(0, 1)).unflatten(0, messages.shape[:2])
                current = current + response
            currents[layer.name] = current.expand(self.time_steps, *current.shape[1:])
            if layer.neuron is not None:
                threshold = torch.tensor(layer.threshold, dtype=torch.float64)
                sent[layer.name] = fire(current, threshold, layer.neuron, steps=self.time_steps)
        output = currents[self.layers[-1].name]
        return currents, output.mean(0) if self.readout == "mean" else output.sum(0)

    def draw_spikes(self, images: Tensor, noise: NoiseSource) -> Tensor:
        """Spikes [T, B, C, H, W] in {-1, 0, 1} of images [B, C, H, W], float64; Poisson coding only.

        With a copy of `SpikingNetwork.noise` they are those that the network, in float64, draws next.
        """
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.input.mean, self.input.std))
        normalised = (self._rounded(images) - column(mean, 3)) / column(std, 3)
        uniform_TB = noise.uniform((self.time_steps, *normalised.shape), normalised)
        return poisson_spikes(normalised, uniform_TB, self.input.poisson_rate)

    def _rounded(self, images: Tensor) -> Tensor:
        return images.double() if self.input.bits is None else quantised(images.double(), self.input.bits)


def fold_network(
    network: SpikingNetwork, *, step_norms: StepNorms = "refuse", differentiable: bool = False
) -> FoldedNetwork:
    """Fold a spiking network in evaluation mode; its neuron layers and its last layer become the layers, by name.

    A network that ends with neurons gets an output layer `NAME_output` that counts their spikes.

    step_norms: what to do with batch norms of their own at each step (BNTT), which no fixed weight can follow: `refuse`
        them, or replace each by its `mean` over the steps, and say in `FoldedNetwork.step_norms` how far the steps differ.
    differentiable: weights and biases have gradients to the network's parameters; batch statistics are constants.

    Raises UnsupportedLayerError, naming the layer and what to change, for an ANN, for a batch norm per step unless replaced,
    and for two convolutions without neurons between where the second one's padding makes one kernel wrong.
    """
    with torch.set_grad_enabled(differentiable):
        return _folded(network, step_norms)


def _folded(network: SpikingNetwork, step_norms: StepNorms) -> FoldedNetwork:
    graph = build_graph(network)
    spread = spreads(graph)
    if spread and step_norms == "refuse":
        raise UnsupportedLayerError(
            f"layer '{spread[0].layer}': batch norm of its own per step (BNTT) needs weights that change with time; "
            "train with norm = 'td', or fold it to its mean over the steps (step_norms = 'mean')"
        )
    graph = rewrite(rewrite(graph, (MeanOverSteps(),)))
    architecture = network.architecture
    image = replace(
        architecture.input, mean=tuple(network.mean.flatten().tolist()), std=tuple(network.std.flatten().tolist())
    )
    return FoldedNetwork(
        input_shape=image.shape,
        layers=folded_layers(graph),
        time_steps=graph.time_steps,
        input=image,
        readout=architecture.readout,
        step_norms=spread,
    )


def folded_layers(graph: Graph) -> tuple[FoldedLayer, ...]:
    """A layer for each neuron layer of a graph that no pass matches any more, and one for its output."""
    assert not any(isinstance(node.op, StepNorm) for node in graph.nodes)
    layers = [
        _folded_layer(graph, node.name, graph[node.source], node.op)
        for node in graph.nodes
        if isinstance(node.op, Fire)
    ]
    return (*layers, _folded_layer(graph, graph.output, graph[graph.output], None))


def _folded_layer(graph: Graph, name: str, current: Node, neurons: Fire | None) -> FoldedLayer:
    """current: the node that computes the neurons' input: (sum of) synapses, then (a shift)."""
    shape = current.shape
    own = torch.zeros(shape[0], dtype=torch.float64).view(-1, *(1,) * (len(shape) - 1))
    if isinstance(current.op, Shift):
        own, current = current.op.bias, graph[current.source]
    terms = [graph[source] for source in current.sources] if isinstance(current.op, Sum) else [current]
    bias = own
    synapses = []
    for term in terms:
        sender = graph[term.source]
        if not sender.is_sender:
            raise UnsupportedLayerError(_not_one_kernel(term, sender))
        synapse, shifted = _folded_synapse(term, sender)
        synapses.append(synapse)
        bias = bias if shifted is None else bias + shifted
    return FoldedLayer(
        name=name,
        shape=shape,
        synapses=tuple(synapses),
        uniform_bias=own.flatten(1).median(1).values if own.ndim == 3 else own,
        bias=bias,
        neuron=neurons.settings if neurons is not None else None,
        threshold=neurons.threshold if neurons is not None else 0.0,
    )


def _folded_synapse(term: Node, sender: Node) -> tuple[FoldedSynapse, Tensor | None]:
    """A synapse, and what the normalisation of the image that it reads adds: its response to -mean."""
    if isinstance(term.op, Multiply):
        synapse = FoldedSynapse(source=sender.name, weight=term.op.weight)
    else:
        assert isinstance(term.op, Convolve)
        synapse = FoldedSynapse(
            source=sender.name,
            weight=term.op.weight,
            stride=term.op.stride,
            padding=term.op.padding,
            dilation=term.op.dilation,
            groups=term.op.groups,
        )
    if not isinstance(sender.op, Normalise):
        return synapse, None
    factor = 1 / sender.op.std
    if synapse.weight.ndim == 2:
        weight = synapse.weight * factor.repeat_interleave(synapse.weight.shape[1] // len(factor))
    else:
        weight = on_input_channels(synapse.weight, factor, synapse.groups)
    synapse = replace(synapse, source=INPUT, weight=weight)
    shifted = synapse.respond(-column(sender.op.mean, 3).expand(1, *sender.shape))[0]
    return synapse, shifted[:, :1, :1] if shifted.ndim == 3 and not any(synapse.padding) else shifted


def _not_one_kernel(term: Node, before: Node) -> str:
    """Only a padded convolution behind another one, or behind a pooling, is left when no pass matches any more."""
    assert isinstance(term.op, Convolve)
    return (
        f"layer '{term.layer}': padding {term.op.padding} around what '{before.layer}' computes without neurons cannot be one kernel "
        "with it; put neurons between them, use padding 0 or, behind a pooling, an image that its windows fill"
    )
