"""Neurons that Lava has not, on Lava: every form in one network, at the ends of the states too; and soft reset by `ATRLIF`."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from needs_lava import needs_lava
from random_graphs import NUMERICS

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.lava_backend import LavaBackend
from hardspike.deploy.lava_processes import LavaNetwork, tap, to_lava_order
from hardspike.deploy.lava_runner import run_stream, simulator_config
from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    NeuronGroup,
    ProcessGraph,
)
from hardspike.snn.architecture import INPUT

STEPS = 12
# (threshold, what a soft reset subtracts, bias and its exponent, exponent of the weights)
PLAIN, HIGH = (300, 301, 20, 6, 0), (NUMERICS.threshold_mantissa_max, 900, 4095, 7, 7)
LOW = (200, 50_000, -4096, 7, 7)  # potentials sink to the lower end


def every_neuron() -> ProcessGraph:
    """Every order and reset with and without decays, and at both ends of the potential; a layer each, read by one readout."""
    rng = np.random.default_rng(1)
    layers = []
    start = 300 << NUMERICS.state_shift
    states = ((0, (4096, 0), PLAIN), (start, (3000, 512), PLAIN), (0, (4096, 0), HIGH), (0, (4096, 0), LOW))
    forms = [
        *product(("integrate-first", "fire-first"), (False, True), states),
        ("fire-first", True, (NUMERICS.state_max, (0, 0), HIGH)),  # the current wraps
    ]
    for index, (order, soft, (initial, (current_decay, potential_decay), scale)) in enumerate(forms):
        threshold, reset_by, bias, exponent, weight_exponent = scale
        neurons = NeuronGroup(
            threshold=threshold,
            bias=np.full((2, 1, 1), bias, dtype=np.int32),
            bias_exponent=exponent,
            current_decay=current_decay,
            potential_decay=potential_decay,
            reset_by=reset_by if soft else None,
            initial=initial,
            order=order,
        )
        codes = (2 * rng.integers(-60, 61, size=(2, 2, 3, 3))).astype(np.int32)
        synapse = ConvSynapse(source=INPUT, weight=codes << weight_exponent, padding=(1, 1), exponent=weight_exponent)
        layers.append(GraphLayer(name=f"form{index}", shape=(2, 3, 2), synapses=(synapse,), neurons=neurons))
    readout = tuple(
        DenseSynapse(source=layer.name, weight=(2 * rng.integers(-60, 61, size=(3, 12))).astype(np.int32))
        for layer in layers
    )
    none = NeuronGroup(threshold=NUMERICS.threshold_mantissa_max, bias=np.zeros(1, dtype=np.int32), spiking=False)
    return ProcessGraph(
        input=InputContract(shape=(2, 3, 2), coding="signed", message_bits=1),
        layers=(*layers, GraphLayer(name="output", shape=(3,), synapses=readout, neurons=none)),
        time_steps=STEPS,
        numerics=NUMERICS,
        profile="loihi2",
    )


@pytest.mark.slow
@needs_lava
def test_every_form_of_neuron() -> None:
    graph = every_neuron()
    messages = torch.from_numpy(np.random.default_rng(2).choice([0, 1, 1, -1], size=(STEPS, 2, 2, 3, 2)))
    expected = EmulatorBackend().run(graph, messages, keep_states=True).states
    assert expected is not None
    ends = {int(side(states)) for states in expected.potentials.values() for side in (torch.min, torch.max)}
    assert {NUMERICS.state_max, -NUMERICS.state_max} <= ends
    assert any(bool(wrapped.any()) for wrapped in expected.wrapped.values())
    for layer in graph.layers[:-1]:
        assert 0 < int(expected.spikes[layer.name].sum()) < expected.spikes[layer.name].numel(), layer.name
    trace = LavaBackend().run(graph, messages, keep_states=True)
    assert trace.states is not None
    for layer in graph.layers:
        for kind in ("spikes", "currents", "potentials"):
            mine, theirs = (getattr(states, kind)[layer.name] for states in (trace.states, expected))
            assert torch.equal(mine, theirs), (layer.neurons, kind)


def soft_reset_chain(theta: int, steps: int) -> ProcessGraph:
    """IF that fires from theta on, subtracts theta, and starts at half of it; potentials are multiples of 2^6."""
    rng = np.random.default_rng(9)
    neurons = NeuronGroup(
        threshold=theta - 1,
        bias=rng.integers(-30, 31, size=40).astype(np.int32),
        reset_by=theta,
        initial=theta // 2 << NUMERICS.state_shift,
    )
    weight = (2 * rng.integers(-60, 61, size=(40, 20))).astype(np.int32)
    layer = GraphLayer(name="a", shape=(40,), synapses=(DenseSynapse(source=INPUT, weight=weight),), neurons=neurons)
    return ProcessGraph(
        input=InputContract(shape=(20,), coding="binary", message_bits=1),
        layers=(layer,),
        time_steps=steps,
        numerics=NUMERICS,
        profile="loihi2",
    )


@needs_lava
def test_soft_reset_by_a_neuron_that_lava_has() -> None:
    """It has no reset between samples, so one sample; and it integrates its bias in the step before the first message."""
    from lava.proc.atrlif.process import ATRLIF
    from lava.proc.dense.process import Dense
    from lava.proc.io.source import RingBuffer

    theta, steps = 200, 50
    graph = soft_reset_chain(theta, steps)
    messages = torch.from_numpy(np.random.default_rng(3).integers(0, 2, size=(steps, 1, 20)))
    layer = graph.layers[0]
    bias = layer.neurons.bias
    parameters: dict[str, Any] = {"delta_i": 4095 / 4096, "delta_v": 0, "delta_theta": 0, "delta_r": 0, "theta_step": 0}
    neurons = ATRLIF(
        shape=(40,),
        theta_0=theta // 2,
        theta=theta // 2,
        v=-(bias << layer.neurons.bias_exponent),
        bias_mant=bias,
        bias_exp=layer.neurons.bias_exponent,
        **parameters,
    )
    source, dense = (
        RingBuffer(data=to_lava_order(messages[:, 0].int().numpy())),
        Dense(weights=layer.synapses[0].weight),
    )
    source.s_out.connect(dense.s_in)
    dense.a_out.connect(neurons.a_in)
    network = LavaNetwork(source, {"a": tap(neurons.s_out, steps)}, {"a": neurons}, {"a": 1})
    found = run_stream(graph, network, 1, simulator_config(), backend="lava", timeout_s=60.0, progress=None)
    expected = EmulatorBackend().run(graph, messages, keep_states=True)
    assert expected.states is not None
    assert 400 < int(expected.output.sum()) < 40 * steps
    assert torch.equal(torch.from_numpy(found.states["a"][0]), expected.states.spikes["a"])
    ours = LavaBackend().run(graph, messages, keep_states=True)
    assert ours.states is not None and torch.equal(ours.states.spikes["a"], expected.states.spikes["a"])
    early = replace(graph, layers=(replace(layer, neurons=replace(layer.neurons, initial=0)),))
    assert not torch.equal(EmulatorBackend().run(early, messages).output, expected.output), "any charge would do"
