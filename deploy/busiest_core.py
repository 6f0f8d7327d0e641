"""How long a sample takes at least: at every step all cores wait for the busiest one, then for each other.

Time of a step = max over cores of (neuron updates * t_update + synaptic operations * t_operation + messages that arrive *
t_message + spikes * t_spike) + barrier. Sums over a chip do not show this: the busiest core decides (arXiv 2511.21549).

The cores come from the simplest cut: each layer's neurons in C order (channel, row, column), as many to a core as the
profile allows. Synapse memory and axons, which often allow fewer, are not considered, nor the messages' way through the mesh,
nor the limits of one chip. An input message, like a spike, arrives once at every core that has a synapse from its sender.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hardspike.deploy.process_graph import ConvSynapse, ProcessGraph, Synapse
from hardspike.deploy.run_synapse import RunSynapse
from hardspike.hw_profiles.profile import Cores, TimeSet
from hardspike.snn.architecture import INPUT, Shape

NANOSECOND = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _LayerCores:
    """neurons: of each core, float64 [cores]. reach: per source, how many neurons of each core a sender reaches, [senders, cores]."""

    neurons: Tensor
    reach: list[tuple[str, Tensor]]
    convolution: bool


class BusiestCore:
    """Times of a graph's steps from what its senders sent."""

    def __init__(self, graph: ProcessGraph, cores: Cores, times: Mapping[str, TimeSet]) -> None:
        self.times, self.neurons_per_core, self.time_steps = times, cores.neurons_per_core, graph.time_steps
        shapes = graph.shapes
        self._layers = {}
        for layer in graph.layers:
            belongs = _cut(layer.shape, cores.neurons_per_core)
            self._layers[layer.name] = _LayerCores(
                neurons=belongs.flatten(1).sum(1),
                reach=[(s.source, _reach(s, shapes[s.source], belongs)) for s in layer.synapses],
                convolution=any(isinstance(synapse, ConvSynapse) for synapse in layer.synapses),
            )
        self.cores = sum(len(layer.neurons) for layer in self._layers.values())
        self.tiles = math.ceil(self.cores / cores.cores_per_tile)

    def seconds(self, sent: dict[str, Tensor]) -> dict[str, Tensor]:
        """Per time set, seconds of each sample over all steps, float64 [B].

        sent: as `Emulator.watching` gives it; messages [B, *shape], the same at every step, and spikes [T, B, *shape] of every
        firing layer.
        """
        messages, spikes = sent[INPUT], {name: value for name, value in sent.items() if name != INPUT}
        events = {INPUT: (messages != 0).flatten(1).double()[None]}
        events |= {name: value.flatten(2).double() for name, value in spikes.items()}
        busiest = {name: torch.zeros(self.time_steps, len(messages), dtype=torch.float64) for name in self.times}
        for name, layer in self._layers.items():
            operations = sum(events[source] @ reach for source, reach in layer.reach)
            arriving = sum(events[source] @ (reach > 0).double() for source, reach in layer.reach)
            fired = torch.zeros(1, dtype=torch.float64)
            if name in spikes:
                parts = events[name].split(self.neurons_per_core, 2)
                fired = torch.stack([part.sum(2) for part in parts], 2)
            for key, times in self.times.items():
                operation = times.synaptic_operation_convolution if layer.convolution else times.synaptic_operation
                load = (
                    operations * operation.value
                    + arriving * times.message_in.value
                    + fired * (times.neuron_update_active.value + times.spike_out.value)
                    + (layer.neurons - fired) * times.neuron_update_idle.value
                )
                busiest[key] = torch.maximum(busiest[key], load.amax(2))
        return {
            key: (nanoseconds + self.times[key].barrier_ns(self.tiles)).sum(0) * NANOSECOND
            for key, nanoseconds in busiest.items()
        }


def _cut(shape: Shape, neurons_per_core: int) -> Tensor:
    """Which neurons each core has, 0 or 1, float64 [cores, *shape]."""
    core = torch.arange(math.prod(shape)) // neurons_per_core
    return torch.nn.functional.one_hot(core).T.double().reshape(-1, *shape)


def _reach(synapse: Synapse, source: Shape, belongs: Tensor) -> Tensor:
    """Synapses from each sender into each core, [senders, cores]; a zero weight is no synapse."""
    present = RunSynapse(replace(synapse, weight=(synapse.weight != 0).astype(np.int32)), source, torch.float64)
    with torch.enable_grad():
        silent = torch.zeros(len(belongs), *source, dtype=torch.float64, requires_grad=True)
        # What a sender adds to the sum over a core's neurons is the gradient of that sum.
        (reach,) = torch.autograd.grad(present(silent), silent, belongs)
    return reach.flatten(1).T.contiguous()
