"""What tests/golden/record_lava.py writes and tests/deploy/test_recorded_lava.py reads."""

import hashlib
from pathlib import Path

import numpy as np

from hardspike.deploy.process_graph import ProcessGraph

VECTORS = Path(__file__).resolve().parents[1] / "golden" / "lava_vectors.npz"
SAMPLES = 4


def checksum(graph: ProcessGraph) -> str:
    """Of every weight, bias and threshold; tells a changed graph from a changed emulator."""
    digest = hashlib.sha256()
    for layer in graph.layers:
        digest.update(repr((layer.name, layer.shape, layer.neurons.threshold)).encode())
        for array in (layer.neurons.bias, *(synapse.weight for synapse in layer.synapses)):
            digest.update(np.ascontiguousarray(array, dtype="<i4").tobytes())
    return digest.hexdigest()
