"""Record what Lava computes for the random graphs, for machines without it: `python tests/golden/record_lava.py`.

Needs Python 3.10 with hardspike[lava]. Truth is Lava's own fixed point simulation (lava-nc 0.10.0) of the graphs and
messages that tests/support/random_graphs.py and random_dags.py draw; soft resets, initial potentials and neurons that fire
first are processes of our own (deploy/lava_neuron). lava_vectors.npz then holds, per graph: the messages, a checksum of the
graph, the packed spikes of every layer [steps, samples, neurons], of the DAGs its potentials too, and the output.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from lava_vectors import DAGS, VECTORS, checksum, messages_of, recorded_graphs

from hardspike.deploy.lava_backend import LavaBackend


def record() -> dict[str, np.ndarray]:
    vectors = {"versions": np.array([f"{name} {version(name)}" for name in ("lava-nc", "numpy")])}
    for name, graph in recorded_graphs():
        messages = messages_of(name, graph)
        trace = LavaBackend().run(graph, messages, keep_states=True)
        assert trace.states is not None
        vectors[f"{name}: messages"] = messages.numpy().astype(np.int16)
        vectors[f"{name}: graph"] = np.array(checksum(graph))
        vectors[f"{name}: output"] = trace.output.numpy()
        for layer, spikes in trace.states.spikes.items():
            vectors[f"{name}: spikes of {layer}"] = np.packbits(spikes.flatten(2).numpy(), axis=-1)
            if name in DAGS:
                vectors[f"{name}: potentials of {layer}"] = trace.states.potentials[layer].numpy().astype(np.int32)
    return vectors


if __name__ == "__main__":
    np.savez_compressed(VECTORS, **record())
    print(f"{VECTORS.name}: {VECTORS.stat().st_size} bytes")
