"""A graph in float arithmetic on its integer grids: the fake-quantised network, one of the networks an attack is made on.

Weights, biases and thresholds are the graph's integers divided by the layer's scale. Nothing else of the chip is there: images
are not rounded, decays are float factors without truncation, nothing wraps or saturates. So on images of the input's grid a
network without leak gives the emulator's spikes wherever the emulator neither wraps nor saturates.

Spikes come from `snn.neuron.fire`, with the float network's fused kernel and every surrogate. Current memory is a plain loop in
front of it, which `fire` has no place for. Under an `Activation` the neurons are replaced as in the float network: no
timesteps, leak and reset ignored, the threshold too for `relu`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from hardspike.deploy.input_coding import append_constant_channels, check_image_input
from hardspike.deploy.poisson_coding import analog_messages, poisson_messages
from hardspike.deploy.process_graph import GraphLayer, ProcessGraph
from hardspike.deploy.run_synapse import RunSynapse
from hardspike.snn.architecture import INPUT
from hardspike.snn.encoding import NoiseSource
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.neuron import fire, rate
from hardspike.snn.surrogate import Activation, active_surrogate

# Of the distance between two potentials: how far below the smallest that fires a neuron already does, so that a float rounding
# error loses no spike.
ROUNDING_SHARE = 2.0**-10


class FakeQuantised(nn.Module):
    """Float images (B, C, H, W) in [0, 1] to logits (B, classes) in the units of `Emulator.forward`, differentiable.

    It computes in the images' dtype. detach_reset: leave the reset out of the gradient. seed: as of `Emulator`.
    """

    def __init__(self, graph: ProcessGraph, *, detach_reset: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.graph = graph
        self.detach_reset = detach_reset
        self.noise = NoiseSource(seed)
        shapes = graph.shapes
        # float32 holds every integer weight; the scale is applied in the images' dtype.
        self.synapses = nn.ModuleDict(
            {
                layer.name: nn.ModuleList(RunSynapse(s, shapes[s.source], torch.float32) for s in layer.synapses)
                for layer in graph.layers
            }
        )
        self._bias = {layer.name: torch.from_numpy(_bias(layer, graph)) for layer in graph.layers}
        self._watched: dict[str, Tensor] | None = None

    @contextmanager
    def watching(self) -> Iterator[dict[str, Tensor]]:
        """Inside the block each forward pass leaves the spikes of every layer that fires, [T, B, ...]; none under an `Activation`."""
        self._watched = {}
        try:
            yield self._watched
        finally:
            self._watched = None

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Raises DataError for images that do not fit the input contract."""
        graph, contract = self.graph, self.graph.input
        check_image_input(images_BCHW.detach(), contract)
        substitute = active_surrogate()
        if contract.poisson is not None and not isinstance(substitute, Activation):
            sent = {INPUT: poisson_messages(images_BCHW, contract, graph.time_steps, self.noise)}
        else:
            sent = {INPUT: self._static_messages(images_BCHW)[None]}  # [1, B, ...]: the same at every step
        for layer in graph.layers:
            current_TB = self._current(layer, sent)
            if not layer.neurons.spiking:
                continue
            if isinstance(substitute, Activation):
                sent[layer.name] = self._activate(layer, current_TB.mean(0), substitute)[None]
            else:
                sent[layer.name] = self._fire(layer, current_TB)
                if self._watched is not None:
                    self._watched[layer.name] = sent[layer.name]
        if graph.output.neurons.spiking:
            spikes_TB = sent[graph.output.name]
            return spikes_TB.mean(0) if graph.readout == "mean" else spikes_TB.sum(0)
        return self._final_potential(current_TB) / (graph.time_steps if graph.readout == "mean" else 1)

    def _static_messages(self, images_BCHW: Tensor) -> Tensor:
        """The same at every step, with constant channels."""
        contract = self.graph.input
        if contract.poisson is None:
            return append_constant_channels(images_BCHW * contract.message_max, contract)
        return analog_messages(images_BCHW, contract)

    def _current(self, layer: GraphLayer, sent: dict[str, Tensor]) -> Tensor:
        """What is added to the potentials in float units, [T or 1, B, *shape]."""
        parts = []
        for synapse, run in zip(layer.synapses, self.synapses[layer.name], strict=True):
            messages_TB = sent[synapse.source]
            weight = run.weight.to(messages_TB.dtype) / layer.scale
            parts.append(run.respond(messages_TB.flatten(0, 1), weight).unflatten(0, messages_TB.shape[:2]))
        current_TB: Tensor = sum(parts[1:], parts[0])
        kept = self.graph.numerics.kept(layer.neurons.current_decay)
        if kept:
            arriving_TB = current_TB.expand(self.graph.time_steps, *current_TB.shape[1:])
            current_TB = torch.stack(_accumulated(arriving_TB, kept))
        return current_TB + self._bias[layer.name].to(current_TB.dtype)

    def _fire(self, layer: GraphLayer, current_TB: Tensor) -> Tensor:
        leak = current_TB.new_tensor(self.graph.numerics.kept(layer.neurons.potential_decay))
        threshold, steps = self._threshold(layer, current_TB), self.graph.time_steps
        return fire(
            current_TB,
            threshold,
            self._settings(layer, float(threshold)),
            leak=leak,
            steps=steps,
            layer=(self, layer.name),
        )

    def _settings(self, layer: GraphLayer, threshold: float) -> NeuronSettings:
        neurons = layer.neurons
        initial = neurons.initial / (layer.scale * (1 << self.graph.numerics.state_shift))
        return NeuronSettings(
            detach_reset=self.detach_reset,
            reset="hard" if neurons.reset_by is None else "soft",
            order=neurons.order,
            initial_potential=initial / threshold,
        )

    def _threshold(self, layer: GraphLayer, like: Tensor) -> Tensor:
        """The smallest potential that fires, a share of the grid below it; scalar.

        The chip fires above the mantissa. Without memory potentials are multiples of what bias and messages are multiples of,
        with memory of 1 / 2^state_shift, which decay leaves. A soft reset subtracts the threshold, so there it is the reset's.
        """
        neurons, numerics = layer.neurons, self.graph.numerics
        if neurons.reset_by is not None:
            side = -ROUNDING_SHARE if neurons.reset_by > neurons.threshold else ROUNDING_SHARE
            return like.new_tensor((neurons.reset_by + side) / layer.scale)
        forgets = neurons.current_decay == numerics.decay_one and neurons.potential_decay in (0, numerics.decay_one)
        exponent = min(neurons.bias_exponent, numerics.state_shift) if forgets else 0
        grid = 2.0 ** (exponent - numerics.state_shift)
        return like.new_tensor((neurons.threshold + grid * (1 - ROUNDING_SHARE)) / layer.scale)

    def _activate(self, layer: GraphLayer, current: Tensor, substitute: Activation) -> Tensor:
        if substitute.kind == "relu":
            return F.relu(current)
        return rate(current, self._threshold(layer, current), self.graph.time_steps, 0.0)

    def _final_potential(self, current_TB: Tensor) -> Tensor:
        """Of the output layer after all steps."""
        steps = self.graph.time_steps
        kept = self.graph.numerics.kept(self.graph.output.neurons.potential_decay)
        if kept == 1:
            return current_TB.sum(0) if len(current_TB) == steps else current_TB[0] * steps
        return _accumulated(current_TB.expand(steps, *current_TB.shape[1:]), kept)[-1]


def _bias(layer: GraphLayer, graph: ProcessGraph) -> NDArray[np.float64]:
    """In float units of the membrane potential, of a shape that broadcasts to the layer's."""
    neurons = layer.neurons
    bias: NDArray[np.float64] = neurons.bias * 2.0 ** (neurons.bias_exponent - graph.numerics.state_shift) / layer.scale
    return bias


def _accumulated(added_TB: Tensor, kept: float) -> list[Tensor]:
    """x(t) = kept * x(t - 1) + added(t), from 0."""
    states = [added_TB[0]]
    for added in added_TB[1:]:
        states.append(kept * states[-1] + added)
    return states
