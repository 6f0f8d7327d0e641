"""PilotNet's shapes with random weights of the bits that Lava's compiler stored, and what it printed about its cores.

From lava-dl, tutorials/lava/lib/dl/netx/pilotnet_sdnn and pilotnet_snn, benchmark.ipynb: neurons and words of synapse memory on a
core, and cores. Spatial numbers there are width first.
"""

import numpy as np

from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    NeuronGroup,
    ProcessGraph,
    Synapse,
)
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import INPUT, Shape

IMAGE: Shape = (3, 66, 200)
CONVOLUTIONS = (  # name, channels, stride, padding, bits of the weights
    ("conv1", 24, (2, 2), (0, 0), 8),
    ("conv2", 36, (2, 2), (0, 0), 7),
    ("conv3", 48, (2, 2), (0, 0), 6),
    ("conv4", 64, (2, 1), (1, 0), 6),
    ("conv5", 64, (1, 1), (0, 0), 5),
)
DENSE = (("fc1", 100), ("fc2", 50), ("fc3", 10), ("fc4", 1))
# Printed: neurons on a core, words on a core, cores. Of fc1, the mean over its cores.
PRINTED = {
    "input": (3168, 0, 13),
    "conv1": (3072, 81, 25),
    "conv2": (2160, 864, 13),
    "conv3": (2688, 1620, 3),
    "conv4": (2048, 2592, 3),
    "conv5": (2048, 2880, 2),
    "fc1": (8, 7253, 12),
    "fc2": (50, 1300, 1),
    "fc3": (10, 150, 1),
    "fc4": (1, 10, 1),
}


def pilotnet(*, with_input_neurons: bool) -> ProcessGraph:
    """61 cores, or 74 with neurons that turn the image into spikes."""
    rng = np.random.default_rng(0)
    coding = "current" if with_input_neurons else "graded"
    layers: list[GraphLayer] = []
    source, shape = INPUT, IMAGE

    def weight(bits: int, *sides: int) -> np.ndarray:
        """Mixed signs, using all of `bits` bits at the step that Loihi 2 has for them."""
        step = 1 << (8 - bits + 1)
        made = step * rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), sides)
        made.flat[0], made.flat[1 % made.size] = -step * (1 << (bits - 1)), step
        return made.astype(np.int32)

    def add(name: str, made: Shape, *synapses: Synapse) -> None:
        nonlocal source, shape
        neurons = NeuronGroup(threshold=100, bias=np.zeros(1, np.int32), spiking=name != DENSE[-1][0])
        layers.append(GraphLayer(name=name, shape=made, synapses=synapses, neurons=neurons))
        source, shape = name, made

    if with_input_neurons:
        add("pixels", IMAGE)
    for name, channels, stride, padding, bits in CONVOLUTIONS:
        kernel = weight(bits, channels, shape[0], 3, 3)
        synapse = ConvSynapse(source=source, weight=kernel, stride=stride, padding=padding)
        add(name, synapse.output_shape(shape), synapse)
    for name, units in DENSE:
        add(name, (units,), DenseSynapse(source=source, weight=weight(8, units, int(np.prod(shape)))))
    contract = InputContract(shape=IMAGE, coding=coding, message_bits=8)
    return ProcessGraph(
        input=contract,
        layers=tuple(layers),
        time_steps=16,
        numerics=load_profile("loihi2").numerics,
        profile="loihi2",
    )
