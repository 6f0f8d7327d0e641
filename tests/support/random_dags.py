"""Random process graphs of every form: DAGs, all neuron forms, all input codings, weight exponents, sums of any sign."""

from dataclasses import replace

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
    weight_limits,
)
from hardspike.snn.architecture import INPUT, Shape


def random_dag(
    seed: int, *, plain_neurons: bool = False, codings: tuple[str, ...] = ("graded", "binary", "signed")
) -> ProcessGraph:
    """plain_neurons: hard reset, integrate first, from 0, as Lava's own LIF."""
    rng = np.random.default_rng(seed)
    coding = str(rng.choice(codings))
    image = (int(rng.integers(1, 4)), int(rng.integers(2, 6)), int(rng.integers(2, 6)))
    contract = InputContract(
        shape=image,
        coding=coding,
        message_bits=8 if coding == "graded" else 1,
        constant_channels=int(coding == "graded" and rng.random() < 0.3),
    )
    shapes: dict[str, Shape] = {INPUT: contract.encoded_shape}
    layers: list[GraphLayer] = []
    for index in range(int(rng.integers(1, 5))):
        name, images = f"conv{index}", [n for n, s in shapes.items() if len(s) == 3]
        target = (int(rng.integers(1, 5)), *image[1:])
        synapses = [_convolution(rng, source, shapes[source], target[0]) for source in _some(rng, images)]
        layers.append(_layer(rng, name, target, synapses, contract, plain_neurons))
        shapes[name] = target
    for index in range(int(rng.integers(0, 3))):
        name, target = f"dense{index}", (int(rng.integers(2, 7)),)
        synapses = [_dense(rng, source, shapes[source], target[0]) for source in _some(rng, list(shapes))]
        layers.append(_layer(rng, name, target, synapses, contract, plain_neurons))
        shapes[name] = target
    readout = [_dense(rng, source, shapes[source], 5) for source in _some(rng, [layer.name for layer in layers])]
    last = _layer(rng, "output", (5,), readout, contract, True)
    neurons = replace(
        last.neurons, spiking=False, threshold=NUMERICS.threshold_mantissa_max, current_decay=NUMERICS.decay_one
    )
    return ProcessGraph(
        input=contract,
        layers=(*layers, replace(last, neurons=neurons)),
        time_steps=int(rng.integers(1, 7)),
        numerics=NUMERICS,
        profile="loihi2",
    )


def random_dag_messages(graph: ProcessGraph, seed: int, batch: int) -> Tensor:
    rng, contract = np.random.default_rng(seed + 1_000_000), graph.input
    if contract.coding == "graded":
        return torch.from_numpy(rng.integers(0, 256, size=(batch, *contract.shape)))
    values = [0, 0, 1] if contract.coding == "binary" else [0, 0, 1, -1]
    return torch.from_numpy(rng.choice(values, size=(graph.time_steps, batch, *contract.shape)))


def _some(rng: np.random.Generator, names: list[str]) -> list[str]:
    """One to three of them, the last more often than not, and now and then one twice."""
    chosen = {names[-1]} if rng.random() < 0.8 else set()
    chosen |= {str(name) for name in rng.choice(names, size=int(rng.integers(0 if chosen else 1, 3)))}
    found = [name for name in names if name in chosen]
    return [*found, found[0]] if rng.random() < 0.1 else found


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Legal weights of one or both signs, and their exponent."""
    kind = int(rng.integers(0, 4))  # mixed more often than one sign
    mixed, exponent = kind > 1 and int(np.prod(shape)) > 1, int(rng.choice([0, 0, 0, 1, 3]))
    low, high = weight_limits(mixed, kind != 0, NUMERICS)
    step = 2 if mixed else 1
    weight = (rng.integers(low // 3 // step, high // 3 // step + 1, size=shape) * step).astype(np.int32)
    weight[rng.random(shape) < 0.2] = 0
    if mixed:
        weight.flat[0], weight.flat[-1] = 2 * step, -2 * step
    return weight << exponent, exponent


def _convolution(rng: np.random.Generator, source: str, shape: Shape, outputs: int) -> Synapse:
    kernel = (int(rng.choice([1, 3])), int(rng.choice([1, 3])))
    dilation = tuple(int(rng.choice([1, 2])) if side == 3 else 1 for side in kernel)
    padding = tuple(spread * (side - 1) // 2 for side, spread in zip(kernel, dilation, strict=True))
    groups = shape[0] if outputs % shape[0] == 0 and rng.random() < 0.3 else 1
    weight, exponent = _weights(rng, (outputs, shape[0] // groups, *kernel))
    return ConvSynapse(
        source=source, weight=weight, padding=padding, dilation=dilation, groups=groups, exponent=exponent
    )


def _dense(rng: np.random.Generator, source: str, shape: Shape, outputs: int) -> Synapse:
    weight, exponent = _weights(rng, (outputs, int(np.prod(shape))))
    return DenseSynapse(source=source, weight=weight, exponent=exponent)


def _layer(
    rng: np.random.Generator,
    name: str,
    shape: Shape,
    synapses: list[Synapse],
    contract: InputContract,
    plain: bool,
) -> GraphLayer:
    threshold = int(rng.integers(20, 300)) * (
        60 if any(s.source == INPUT for s in synapses) and contract.message_bits == 8 else 1
    )
    one = NUMERICS.decay_one
    soft, spread = not plain and rng.random() < 0.5, max(threshold // 8, 2)
    neurons = NeuronGroup(
        threshold=threshold,
        bias=rng.integers(-min(spread, 4096), min(spread, 4095) + 1, size=(shape[0], *(1,) * (len(shape) - 1))).astype(
            np.int32
        ),
        bias_exponent=int(rng.choice([6, 6, 0, 7])),
        current_decay=int(rng.choice([one, one, one, 3000, 0])),
        potential_decay=int(rng.choice([0, 0, 0, 128, 2048, one])),
        reset_by=int(rng.choice([threshold, threshold + 1, 1])) if soft else None,
        initial=0 if plain else int(rng.choice([0, 0, (threshold << 6) // 2 + 3])),
        order="fire-first" if not plain and rng.random() < 0.4 else "integrate-first",
    )
    return GraphLayer(name=name, shape=shape, synapses=tuple(synapses), neurons=neurons, scale=100.0)
