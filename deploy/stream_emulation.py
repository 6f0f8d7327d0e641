"""The emulator with the timing of a Lava stream, for recordings that were made on one.

On a stream each layer sees the spikes of the layer before one step later, runs on between samples, and is reset at
steps of its own. Between two resets a layer is a network of one layer on binary input, so the emulator runs it as such,
piece by piece. In a well-timed stream (each layer reset when its first message arrives) this is the graph itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.process_graph import GraphLayer, InputContract, ProcessGraph
from hardspike.snn.architecture import INPUT


@dataclass(frozen=True, slots=True, eq=False)
class StreamedLayer:
    """int64 [steps, *shape]; potentials are before the reset of a spike."""

    spikes: Tensor
    currents: Tensor
    potentials: Tensor


def emulate_stream(
    graph: ProcessGraph,
    messages: Tensor,
    *,
    num_steps: int,
    period: int | None,
    first_reset: int = 0,
    output_delays: Mapping[str, Tensor] | None = None,
) -> dict[str, StreamedLayer]:
    """Every layer of a chain over `num_steps` steps of one stream, counted from 0.

    Args:
        messages: currents [*shape] that stay (coding `current`), or int64 spikes [num_steps, *shape] of a binary input.
        period, first_reset: layer l is reset before the steps first_reset + l + k * period; period None: never. Currents
            arrive with first_reset 0, spikes, which cross a synapse first, with 1.
        output_delays: int64 [*shape] per layer name; steps by which each neuron's spikes reach the next layer later.
    """
    streamed: dict[str, StreamedLayer] = {}
    sent = messages
    for index, layer in enumerate(graph.layers):
        if layer.synapses:
            sent = torch.cat([torch.zeros_like(sent[:1]), sent[:-1]])  # a synapse takes one step
        resets = range(first_reset + index, num_steps, period) if period else range(0)
        cuts = sorted({0, *resets, num_steps})
        pieces = [_run_alone(graph, layer, sent, start, stop) for start, stop in pairwise(cuts)]
        spikes, currents, potentials = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        if output_delays is not None and layer.name in output_delays:
            spikes = _delayed(spikes, output_delays[layer.name])
        streamed[layer.name] = StreamedLayer(spikes, currents, potentials)
        sent = spikes
    return streamed


def _run_alone(
    graph: ProcessGraph, layer: GraphLayer, sent: Tensor, start: int, stop: int
) -> tuple[Tensor, Tensor, Tensor]:
    contract, messages = graph.input, sent[None]
    if layer.synapses:
        contract = InputContract(shape=tuple(sent.shape[1:]), coding="binary", message_bits=1)
        layer = replace(layer, synapses=tuple(replace(synapse, source=INPUT) for synapse in layer.synapses))
        messages = sent[start:stop, None]
    alone = replace(graph, input=contract, layers=(layer,), time_steps=stop - start)
    states = EmulatorBackend().run(alone, messages, keep_states=True).states
    assert states is not None, "states were asked for"
    return (
        states.spikes[layer.name][:, 0].long(),
        states.currents[layer.name][:, 0],
        states.potentials[layer.name][:, 0],
    )


def _delayed(spikes: Tensor, delays: Tensor) -> Tensor:
    """Each neuron's spikes, [steps, N], later by its own number of steps."""
    when = torch.arange(len(spikes))[:, None] - delays
    return torch.where(when >= 0, spikes.gather(0, when.clamp(min=0)), 0)
