"""What rounding may have changed in a deployed network, and nothing else."""

from dataclasses import replace

import torch
from torch import Tensor

from hardspike.deploy.fold import FoldedNetwork
from hardspike.deploy.process_graph import ProcessGraph, weight_step
from hardspike.deploy.trace import Trace
from hardspike.snn.architecture import INPUT


def assert_rounded(folded: FoldedNetwork, graph: ProcessGraph, messages: Tensor, trace: Trace) -> None:
    """What each layer receives from the emulator's own spikes is what the float weights would give it, but for rounding them.

    Layer by layer, for in a deep network one spike too many changes everything behind it. Half a step per weight and message
    is the most that rounding can add up to, and half a unit for the bias (one more where a constant channel carries part of it).
    """
    assert trace.states is not None
    sent = {name: spikes.double().flatten(0, 1) for name, spikes in trace.states.spikes.items()}
    steps = messages if graph.input.has_time else messages.expand(graph.time_steps, *messages.shape)
    sent[INPUT] = steps.double().flatten(0, 1)
    for layer, exact in zip(graph.layers, folded.layers, strict=True):
        allowed = torch.full((1,), 1.5, dtype=torch.float64)
        wanted = exact.bias
        for synapse, weights in zip(layer.synapses, exact.synapses, strict=True):
            mixed = bool(synapse.weight.min() < 0 < synapse.weight.max())
            step = weight_step(mixed, graph.numerics, graph.weight_bits) << synapse.exponent
            unit = graph.input.message_max if synapse.source == INPUT else 1
            wanted = wanted + weights.respond(sent[synapse.source]) / unit
            ones = replace(weights, weight=torch.ones_like(weights.weight))
            allowed = allowed + ones.respond(sent[synapse.source].abs()) * step / 2
        bias = torch.from_numpy(layer.neurons.bias).double() * 2.0 ** (layer.neurons.bias_exponent - 6)
        found = trace.states.currents[layer.name].double().flatten(0, 1) / 64 + bias
        error = (found - wanted * layer.scale).abs()
        assert bool((error <= allowed).all()), f"{layer.name}: {float((error - allowed).max())} beyond rounding"
