"""Random networks so small that every image of a box can be run: chains and branches, leaks, wraps, saturation, all readouts."""

from dataclasses import replace
from itertools import product

import numpy as np
import torch
from random_graphs import NUMERICS
from torch import Tensor

from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    NeuronGroup,
    ProcessGraph,
    Synapse,
)
from hardspike.snn.architecture import INPUT, Shape

NARROW = replace(NUMERICS, state_bits=15, threshold_mantissa_max=200)  # currents wrap and potentials clip at 2^14
BITS, STEPS, CLASSES = 3, 4, 3


def toy_graph(seed: int) -> ProcessGraph:
    """Three pixels of eight levels; every third graph has narrow states, every fourth decays everywhere."""
    rng = np.random.default_rng(seed)
    numerics = NARROW if seed % 3 == 0 else NUMERICS
    contract = InputContract(
        shape=(1, 1, 3), coding="graded", message_bits=BITS, constant_channels=int(rng.integers(2))
    )
    shapes: dict[str, Shape] = {INPUT: contract.encoded_shape}
    layers: list[GraphLayer] = []

    def weight(*shape: int) -> np.ndarray:
        return 2 * rng.integers(-20, 21, shape).astype(np.int32)

    def dense(source: str, size: int) -> Synapse:
        return DenseSynapse(source=source, weight=weight(size, int(np.prod(shapes[source]))))

    def add(name: str, *synapses: Synapse, threshold: int, spiking: bool = True) -> None:
        shape = synapses[0].output_shape(shapes[synapses[0].source])
        neurons = NeuronGroup(
            threshold=int(rng.integers(threshold)) if spiking else 200,
            bias=rng.integers(-20, 21, (shape[0], *[1] * (len(shape) - 1))).astype(np.int32),
            bias_exponent=int(rng.integers(5, 7)),
            current_decay=int(rng.choice([4096, 1500, 0])) if seed % 4 == 0 else 4096,
            potential_decay=int(rng.choice([0, 300, 2048, 4096])) if seed % 4 == 0 else 0,
            spiking=spiking,
        )
        layers.append(GraphLayer(name=name, shape=shape, synapses=synapses, neurons=neurons))
        shapes[name] = shape

    if rng.integers(2):
        first: Synapse = ConvSynapse(source=INPUT, weight=weight(2, contract.encoded_shape[0], 1, 3), padding=(0, 1))
    else:
        first = dense(INPUT, 5)
    add("a", first, threshold=180)
    add("b", dense("a", 4), *([dense(INPUT, 4)] if rng.integers(2) else []), threshold=60)
    add("c", dense("b", 4), *([dense("a", 4)] if rng.integers(2) else []), threshold=60)
    spiking = bool(rng.integers(4) == 0)
    add("out", dense("c", CLASSES), *([dense("b", CLASSES)] if rng.integers(2) else []), threshold=60, spiking=spiking)
    return ProcessGraph(input=contract, layers=tuple(layers), time_steps=STEPS, numerics=numerics, profile="toy")


def toy_image(seed: int) -> Tensor:
    """On the grid, [1, 1, 1, 3]."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2**BITS, (1, 1, 1, 3))) / (2**BITS - 1)


def every_message(low: Tensor, high: Tensor) -> Tensor:
    """All integer tensors of a box, int64; low, high: of one sample, with its batch axis."""
    ranges = [range(a, b + 1) for a, b in zip(low.flatten().tolist(), high.flatten().tolist(), strict=True)]
    return torch.tensor(list(product(*ranges))).reshape(-1, *low.shape[1:])
