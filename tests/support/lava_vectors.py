"""What tests/golden/record_lava.py writes and tests/deploy/test_recorded_lava.py reads."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from random_dags import random_dag, random_dag_messages
from random_graphs import CASES, build, random_messages
from torch import Tensor

from hardspike.deploy.process_graph import ProcessGraph

VECTORS = Path(__file__).resolve().parents[1] / "golden" / "lava_vectors.npz"
SAMPLES = 4
DAGS = {f"dag {seed}": seed for seed in (7, 10, 15, 21, 33, 66, 79, 93)}  # of random_dag: every layer fires


def recorded_graphs() -> Iterator[tuple[str, ProcessGraph]]:
    yield from ((case.name, build(case)) for case in CASES)
    yield from ((name, random_dag(seed)) for name, seed in DAGS.items())


def messages_of(name: str, graph: ProcessGraph) -> Tensor:
    """As recorded, and drawn again only to record them."""
    if name in DAGS:
        return random_dag_messages(graph, DAGS[name], SAMPLES)
    return random_messages(next(case for case in CASES if case.name == name), graph, SAMPLES)


def checksum(graph: ProcessGraph) -> str:
    """Of every weight, bias and constant of the neurons; tells a changed graph from a changed emulator."""
    digest = hashlib.sha256()
    for layer in graph.layers:
        neurons = layer.neurons
        constants = [getattr(neurons, name) for name in neurons.__slots__ if name != "bias"]
        digest.update(repr((layer.name, layer.shape, constants)).encode())
        for array in (neurons.bias, *(synapse.weight for synapse in layer.synapses)):
            digest.update(np.ascontiguousarray(array, dtype="<i4").tobytes())
    return digest.hexdigest()
