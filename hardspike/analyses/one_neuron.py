"""Single neurons under a constant input: the float network's own, and the chip's integers."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.process_graph import GraphLayer, InputContract, NeuronGroup, ProcessGraph
from hardspike.hw_profiles.profile import Numerics
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.neuron import fire, plain_torch

# Integers of the threshold where nothing else sets it: divisible by 1.5, 2, 3 and 5, so that these ratios are exact.
FINE_THRESHOLD = 3000


def float_rates(currents: Tensor, settings: NeuronSettings, *, threshold: float, steps: int) -> Tensor:
    """Spikes per step of one neuron for each constant current, float64 [M], over `steps` steps from rest."""
    current_TB = currents.double().view(1, -1, 1)
    with torch.no_grad(), plain_torch():
        spikes_TB = fire(current_TB, torch.tensor(threshold, dtype=torch.float64), settings, steps=steps)
    return spikes_TB.mean(0).flatten()


def integer_rates(drives: Tensor, neurons: NeuronGroup, numerics: Numerics, *, steps: int) -> Tensor:
    """The same of the chip's neuron, as the emulator computes it. drives: int64 [M], in whole weights per step.

    neurons: threshold, decays, reset and order; its bias is not read. A neuron without synapses takes each drive as its bias.
    """
    alone = replace(neurons, bias=np.zeros(1, dtype=np.int32), bias_exponent=numerics.state_shift)
    graph = ProcessGraph(
        input=InputContract(shape=(1,), coding="current", message_bits=1),
        layers=(GraphLayer(name="neuron", shape=(1,), synapses=(), neurons=alone),),
        time_steps=steps,
        numerics=numerics,
        profile="one neuron",
        weight_bits=max(numerics.weight_bits),
    )
    trace = EmulatorBackend(batch_size=len(drives)).run(graph, drives.long().view(-1, 1))
    return trace.spikes["neuron"].sum(0).double() / steps


def integer_twin(leak: float, numerics: Numerics) -> NeuronGroup:
    """A hard-reset neuron of that leak, rounded to the chip's decay as stage `deploy` rounds it; fires from FINE_THRESHOLD on."""
    return NeuronGroup(
        threshold=FINE_THRESHOLD - 1,
        bias=np.zeros(1, dtype=np.int32),
        potential_decay=round((1 - leak) * numerics.decay_one),
    )
