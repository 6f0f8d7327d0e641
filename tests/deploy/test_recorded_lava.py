"""Equality 3 where there is no Lava: the emulator = what tests/golden/record_lava.py recorded from it."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from lava_vectors import DAGS, SAMPLES, VECTORS, checksum, recorded_graphs

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.process_graph import ProcessGraph

GRAPHS = dict(recorded_graphs())


@pytest.fixture(scope="module")
def vectors() -> Mapping[str, np.ndarray]:
    with np.load(VECTORS, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize(("name", "graph"), GRAPHS.items(), ids=GRAPHS)
def test_emulator_equals_recorded_lava(name: str, graph: ProcessGraph, vectors: Mapping[str, np.ndarray]) -> None:
    assert checksum(graph) == str(vectors[f"{name}: graph"]), "another graph is drawn now: run record_lava.py again"
    messages = torch.from_numpy(vectors[f"{name}: messages"].astype(np.int64))
    trace = EmulatorBackend().run(graph, messages, keep_states=True)
    assert trace.states is not None
    assert np.array_equal(trace.output.numpy(), vectors[f"{name}: output"])
    for layer in graph.layers:
        packed = vectors[f"{name}: spikes of {layer.name}"]
        size = int(np.prod(layer.shape))
        recorded = np.unpackbits(packed, axis=-1, count=size).reshape(graph.time_steps, SAMPLES, *layer.shape)
        assert np.array_equal(trace.states.spikes[layer.name].numpy(), recorded.astype(bool)), layer.name
        assert recorded.any() or not layer.neurons.spiking, "a silent layer proves nothing"
        if name in DAGS:
            potentials = vectors[f"{name}: potentials of {layer.name}"]
            assert np.array_equal(trace.states.potentials[layer.name].numpy(), potentials), layer.name


def test_every_recording_is_used(vectors: Mapping[str, np.ndarray]) -> None:
    assert {name.rsplit(": ", 1)[0] for name in vectors} == {"versions", *GRAPHS}
