"""Record what Lava computes for the random graphs, for machines without it: `python tests/golden/record_lava.py`.

Needs Python 3.10 with hardspike[lava]. Truth is Lava's own fixed point simulation (lava-nc 0.10.0) of the graphs and
messages that tests/support/random_graphs.py draws. lava_vectors.npz then holds, per case: the messages, a checksum of the
graph, the packed spikes of every layer [steps, samples, neurons] and the output.
"""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from lava_vectors import SAMPLES, VECTORS, checksum
from random_graphs import CASES, build, random_messages

from hardspike.deploy.lava_backend import LavaBackend


def record() -> dict[str, np.ndarray]:
    vectors = {"versions": np.array([f"{name} {version(name)}" for name in ("lava-nc", "numpy")])}
    for case in CASES:
        graph = build(case)
        messages = random_messages(case, graph, SAMPLES)
        trace = LavaBackend().run(graph, messages, keep_states=True)
        assert trace.states is not None
        vectors[f"{case.name}: messages"] = messages.numpy().astype(np.uint8)
        vectors[f"{case.name}: graph"] = np.array(checksum(graph))
        vectors[f"{case.name}: output"] = trace.output.numpy()
        for name, spikes in trace.states.spikes.items():
            vectors[f"{case.name}: spikes of {name}"] = np.packbits(spikes.flatten(2).numpy(), axis=-1)
    return vectors


if __name__ == "__main__":
    np.savez_compressed(VECTORS, **record())
    print(f"{VECTORS.name}: {VECTORS.stat().st_size} bytes")
