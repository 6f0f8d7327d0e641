"""The ONNX model of one timestep: ONNX Runtime, run for T steps, gives the emulator's integers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_networks
import torch
from random_dags import random_dag, random_dag_messages
from random_graphs import CASES, NUMERICS, GraphCase, build, random_messages
from step_runner import run_steps
from torch import Tensor
from toy_graphs import toy_graph, toy_image

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.fold import fold_network
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.onnx_step import onnx_step_model, write_onnx_step
from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    NeuronGroup,
    ProcessGraph,
)
from hardspike.deploy.quantize import quantize_network
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import DoesNotFitError


def assert_equal_integers(graph: ProcessGraph, messages: Tensor, path: Path) -> int:
    """Every spike, current, potential and output; returns how many spikes there were."""
    write_onnx_step(path, graph)
    found = run_steps(path, messages.numpy())
    trace = EmulatorBackend().run(graph, messages, keep_states=True)
    assert trace.states is not None
    for kind in ("spikes", "currents", "potentials"):
        for layer in graph.layers:
            expected = getattr(trace.states, kind)[layer.name].numpy()
            assert np.array_equal(np.stack(getattr(found, kind)[layer.name]), expected), (kind, layer.name)
    assert np.array_equal(found.output, trace.output.numpy())
    return sum(int(values.sum()) for values in trace.states.spikes.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_random_graphs(case: GraphCase, tmp_path: Path) -> None:
    graph = build(case)
    assert assert_equal_integers(graph, random_messages(case, graph, 3), tmp_path / "step.onnx") > 10


def test_random_dags_of_every_neuron_form(tmp_path: Path) -> None:
    """Several synapses, soft resets, initial potentials, fire first, signed spikes, weight exponents."""
    graphs = [random_dag(seed) for seed in range(14)]
    forms = {form for graph in graphs for layer in graph.layers for form in layer.neurons.extensions}
    assert forms == {"soft", "initial", "fire-first"}
    assert {graph.input.coding for graph in graphs} == {"graded", "binary", "signed"}
    spikes = 0
    for seed, graph in enumerate(graphs):
        spikes += assert_equal_integers(graph, random_dag_messages(graph, seed, 2), tmp_path / "step.onnx")
    assert spikes > 1000


def test_narrow_states_and_firing_outputs(tmp_path: Path) -> None:
    """Every third graph wraps currents and clips potentials, every fourth decays both states."""
    spikes, firing, joined = 0, 0, 0
    for seed in range(8):
        graph = toy_graph(seed)
        if seed % 2:
            fires = replace(graph.output.neurons, spiking=True, threshold=20)
            graph = replace(graph, layers=(*graph.layers[:-1], replace(graph.output, neurons=fires)))
        firing += graph.output.neurons.spiking
        joined += not graph.is_chain
        messages = torch.cat([encode_images(toy_image(number), graph) for number in range(20)])
        spikes += assert_equal_integers(graph, messages, tmp_path / "step.onnx")
    assert spikes > 1000 and firing > 3 and joined > 3


@pytest.mark.parametrize(
    "name", ["padded convolution, pool, dense", "pool before a dilated convolution", "groups and dilation", "leaky"]
)
def test_deployed_networks(name: str, tmp_path: Path) -> None:
    """Folded pools, constant channels, bias per position, leak."""
    architecture = small_networks.ARCHITECTURES[name]
    graph, _ = quantize_network(fold_network(small_networks.build(architecture)), load_profile("loihi2"))
    messages = encode_images(small_networks.images(architecture, 4), graph)
    assert assert_equal_integers(graph, messages, tmp_path / "step.onnx") > 100


def _readout(source: str, inputs: int) -> GraphLayer:
    weight = np.where(np.arange(2 * inputs).reshape(2, inputs) % 3 == 0, -256, 254).astype(np.int32)
    neurons = NeuronGroup(
        threshold=131071, bias=np.array([4095, -4096], dtype=np.int32), bias_exponent=7, spiking=False
    )
    return GraphLayer(name="out", shape=(2,), synapses=(DenseSynapse(source=source, weight=weight),), neurons=neurons)


def _graph(contract: InputContract, *layers: GraphLayer, time_steps: int = 5) -> ProcessGraph:
    return ProcessGraph(input=contract, layers=layers, time_steps=time_steps, numerics=NUMERICS, profile="loihi2")


def test_currents_as_input(tmp_path: Path) -> None:
    contract = InputContract(shape=(2, 3, 2), coding="current", message_bits=0)
    bias = np.zeros((2, 1, 1), dtype=np.int32)
    pixels = GraphLayer(
        name="pixels",
        shape=(2, 3, 2),
        synapses=(),
        neurons=NeuronGroup(threshold=500, bias=bias, bias_exponent=5, potential_decay=90),
    )
    graph = _graph(contract, pixels, _readout("pixels", 12), time_steps=9)
    messages = torch.from_numpy(np.random.default_rng(0).integers(-4096, 4096, (6, 2, 3, 2)))
    assert assert_equal_integers(graph, messages, tmp_path / "step.onnx") > 100


@pytest.mark.parametrize(
    ("low", "high", "bits"),
    [(-256, 254, 10), (0, 255, 10), (-255, 0, 10), (3, 255, 8), (-64, 48, 12), (7, 7, 16), (1, 1, 18)],
)
def test_extreme_weights_and_wide_messages(low: int, high: int, bits: int, tmp_path: Path) -> None:
    """The ends of every sign rule, messages of one to three digits, all ones too: a kernel saturating at 16 bits would fail."""
    rng = np.random.default_rng(5)
    weight = rng.choice([low, high], (4, 2, 3, 3)).astype(np.int32)
    weight[0], weight[1] = high, low
    contract = InputContract(shape=(2, 5, 4), coding="graded", message_bits=bits)
    synapse = ConvSynapse(source=INPUT, weight=weight, padding=(1, 1), stride=(2, 1))
    shape = synapse.output_shape(contract.shape)
    threshold = max(high << bits, 100)
    neurons = NeuronGroup(
        threshold=min(threshold, 100000), bias=rng.integers(-4096, 4096, shape).astype(np.int32), current_decay=3000
    )
    conv = GraphLayer(name="conv", shape=shape, synapses=(synapse,), neurons=neurons)
    graph = _graph(contract, conv, _readout("conv", int(np.prod(shape))))
    messages = torch.from_numpy(rng.integers(0, 1 << bits, (4, 2, 5, 4)))
    messages[0] = (1 << bits) - 1
    spikes = assert_equal_integers(graph, messages, tmp_path / "step.onnx")
    assert spikes > 20


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    graph = replace(build(CASES[9]), provenance={"seed": "3"})
    model = onnx_step_model(graph)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert (metadata["kind"], metadata["profile"], metadata["time_steps"]) == ("integer timestep", "loihi2", "6")
    assert metadata["output"] == "output/potential.next"
    assert json.loads(metadata["scales"]) == {"conv0": 100.0, "conv1": 100.0, "output": 50.0}
    assert json.loads(metadata["provenance"]) == {"seed": "3"}
    contract = json.loads(metadata["input"])
    assert contract == {
        "shape": [2, 7, 5],
        "coding": "graded",
        "message_bits": 8,
        "constant_channels": 1,
        "poisson": None,
    }
    names = {output.name for output in model.graph.output}
    assert names == {
        f"{layer.name}/{what}"
        for layer in graph.layers
        for what in ("spikes", "current.next", "potential.next", "potential.compared")
    }
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}
    assert not floats & {constant.data_type for constant in model.graph.initializer}


def test_names_of_layers_do_not_clash_with_tensors(tmp_path: Path) -> None:
    graph = build(CASES[10])
    first, last = graph.layers
    for name in ("messages", "input/digit0", "output/current"):
        renamed = replace(last, synapses=(replace(last.synapses[0], source=name),))
        other = replace(graph, layers=(replace(first, name=name), renamed))
        assert assert_equal_integers(other, random_messages(CASES[10], graph, 2), tmp_path / "step.onnx") > 0


def test_what_the_operators_cannot_hold_is_refused(tmp_path: Path) -> None:
    wide = replace(NUMERICS, weight_bits=(9,), mixed_weight_min=-512, mixed_weight_max=511)
    graph = build(CASES[0])
    first = graph.layers[0]
    weight = first.synapses[0].weight.copy()
    weight.flat[0], weight.flat[1] = -510, 3 * 2
    first = replace(first, synapses=(replace(first.synapses[0], weight=weight),))
    graph = replace(graph, layers=(first, *graph.layers[1:]), numerics=wide, weight_bits=9)
    path = tmp_path / "step.onnx"
    with pytest.raises(DoesNotFitError, match="layer 'conv0': weights -510..30 span 270 steps of 2.*holds 255"):
        write_onnx_step(path, graph)
    huge = replace(NUMERICS, state_bits=40, message_bits_max=24)
    contract = InputContract(shape=(9,), coding="graded", message_bits=24)
    last = _readout(INPUT, 9)
    with pytest.raises(DoesNotFitError, match="layer 'out': synaptic input could reach .* beyond the 2147483647"):
        write_onnx_step(
            path,
            replace(
                _graph(InputContract(shape=(9,), coding="binary", message_bits=1), last), input=contract, numerics=huge
            ),
        )
    assert not path.exists()
