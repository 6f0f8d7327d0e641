"""Equality 2 on a generator of networks: DAGs, every neuron form, every coding, weight exponents."""

import pytest
import torch
from random_dags import random_dag, random_dag_messages

from hardspike.deploy.emulator import Emulator, EmulatorBackend
from hardspike.deploy.graph_file import load_graph, save_graph
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.verify import compare_oracle

NETWORKS = 240


@pytest.mark.parametrize("block", range(8))
def test_emulator_equals_the_oracle(block: int) -> None:
    fired = 0
    for seed in range(block, NETWORKS, 8):
        graph = random_dag(seed)
        messages = random_dag_messages(graph, seed, 2)
        trace = EmulatorBackend().run(graph, messages, keep_states=True)
        row = compare_oracle(graph, messages, trace)
        assert (row.differing, row.first) == (0, ""), f"seed {seed}"
        fired += sum(int(counts.sum()) for counts in trace.spikes.values())
    assert fired > 1_000, "silent networks prove nothing"


def test_the_generator_covers_every_form() -> None:
    graphs = [random_dag(seed) for seed in range(NETWORKS)]
    layers = [layer for graph in graphs for layer in graph.layers]
    forms = {form for layer in layers for form in layer.neurons.extensions}
    assert forms == {"soft", "initial", "fire-first"}
    assert {graph.input.coding for graph in graphs} == {"graded", "binary", "signed"}
    assert any(synapse.exponent for layer in layers for synapse in layer.synapses)
    assert sum(not graph.is_chain for graph in graphs) > NETWORKS / 2
    wraps = [
        EmulatorBackend().run(g, random_dag_messages(g, s, 2), keep_states=True) for s, g in enumerate(graphs[:40])
    ]
    assert any(wrapped.any() for trace in wraps if trace.states for wrapped in trace.states.wrapped.values())


def test_the_file_brings_back_every_field(tmp_path: object) -> None:
    path = tmp_path / "graph.safetensors"  # type: ignore[operator]
    for seed in range(12):
        graph = random_dag(seed)
        save_graph(path, graph)
        assert same(load_graph(path), graph)


def same(one: ProcessGraph, other: ProcessGraph) -> bool:
    messages = random_dag_messages(one, 7, 2)
    traces = [EmulatorBackend().run(graph, messages, keep_states=True) for graph in (one, other)]
    return (
        bool(torch.equal(traces[0].output, traces[1].output))
        and all(
            mine.neurons.extensions == theirs.neurons.extensions
            and [s.exponent for s in mine.synapses] == [s.exponent for s in theirs.synapses]
            for mine, theirs in zip(one.layers, other.layers, strict=True)
        )
        and one.input == other.input
        and one.readout == other.readout
        and Emulator(one).logit_unit == Emulator(other).logit_unit
    )
