"""Small random process graphs that cover the arithmetic: used by the equality tests and by the script that records Lava vectors."""

from dataclasses import dataclass

import numpy as np
import torch
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
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import INPUT, Shape

NUMERICS = load_profile("loihi2").numerics


@dataclass(frozen=True)
class GraphCase:
    """One random network: what is random is drawn from `seed`, what matters is named."""

    name: str
    seed: int
    image: Shape = (2, 7, 5)
    coding: str = "graded"
    current_decays: tuple[int, ...] = (4096, 4096, 4096)
    potential_decays: tuple[int, ...] = (0, 0, 0)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    groups: int = 1
    dilation: tuple[int, int] = (1, 1)
    kernel: tuple[int, int] = (3, 3)
    constant_channels: int = 0
    position_bias: bool = False
    only_dense: bool = False
    time_steps: int = 6


CASES = (
    GraphCase("if graded", 1),
    GraphCase("if binary", 2, coding="binary"),
    GraphCase(
        "non-square kernel, stride 2x1, padding 0x1", 3, kernel=(3, 2), stride=(2, 1), padding=(0, 1), image=(2, 9, 6)
    ),
    GraphCase("groups", 4, groups=2, image=(4, 6, 5)),
    GraphCase("dilation", 5, dilation=(2, 1), image=(2, 8, 6)),
    GraphCase("leaky potential", 6, potential_decays=(128, 77, 1024)),
    GraphCase("current memory", 7, current_decays=(1024, 3000, 4096), coding="binary"),
    GraphCase("current memory and leak", 8, current_decays=(3000, 512, 2048), potential_decays=(4096, 300, 128)),
    GraphCase("integrating current", 9, current_decays=(0, 4096, 4096), coding="binary"),
    GraphCase("constant channel and bias per position", 10, constant_channels=1, position_bias=True),
    GraphCase("dense only, graded", 11, image=(12, 1, 1), only_dense=True),
    GraphCase(
        "dense only, binary, leak", 12, image=(9, 1, 1), only_dense=True, coding="binary", potential_decays=(200, 0, 50)
    ),
    GraphCase("fewer steps than layers", 13, coding="binary", time_steps=2, position_bias=True),
)


def _even(rng: np.random.Generator, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
    """Mixed-sign legal weights: even, and both signs present."""
    weight = 2 * rng.integers(low // 2, high // 2 + 1, size=shape).astype(np.int32)
    weight.flat[0], weight.flat[-1] = high, low
    return weight


def _neurons(rng: np.random.Generator, case: GraphCase, index: int, threshold: int, shape: Shape) -> NeuronGroup:
    bias_shape = shape if case.position_bias and index == 0 else (shape[0], *[1] * (len(shape) - 1))
    spread = max(threshold // 8, 2)
    return NeuronGroup(
        threshold=threshold,
        bias=rng.integers(-spread, spread + 1, size=bias_shape).astype(np.int32),
        current_decay=case.current_decays[index],
        potential_decay=case.potential_decays[index],
    )


def build(case: GraphCase) -> ProcessGraph:
    rng = np.random.default_rng(case.seed)
    bits = 8 if case.coding == "graded" else 1
    contract = InputContract(
        shape=case.image, coding=case.coding, message_bits=bits, constant_channels=case.constant_channels
    )
    size = 30 if case.coding == "graded" else 120
    first_threshold = 6000 if case.coding == "graded" else 180
    layers: list[GraphLayer] = []

    def add(name: str, synapse: Synapse, source: Shape, threshold: int) -> Shape:
        shape = synapse.output_shape(source)
        neurons = _neurons(rng, case, len(layers), threshold, shape)
        layers.append(GraphLayer(name=name, shape=shape, synapses=(synapse,), neurons=neurons, scale=100.0))
        return shape

    shape = contract.encoded_shape
    if case.only_dense:
        shape = add(
            "dense0",
            DenseSynapse(source=INPUT, weight=_even(rng, -size, size, (11, int(np.prod(shape))))),
            shape,
            first_threshold,
        )
    else:
        geometry = dict(stride=case.stride, padding=case.padding, dilation=case.dilation, groups=case.groups)
        weight = _even(rng, -size, size, (6, shape[0] // case.groups, *case.kernel))
        shape = add("conv0", ConvSynapse(source=INPUT, weight=weight, **geometry), shape, first_threshold)
        weight = _even(rng, -120, 120, (4, 6 // case.groups, 3, 3))
        shape = add("conv1", ConvSynapse(source="conv0", weight=weight, padding=(1, 1), groups=case.groups), shape, 200)
    weight = _even(rng, -100, 100, (5, int(np.prod(shape))))
    readout = DenseSynapse(source=layers[-1].name, weight=weight)
    bias = rng.integers(-40, 40, size=(5,)).astype(np.int32)
    neurons = NeuronGroup(threshold=NUMERICS.threshold_mantissa_max, bias=bias, spiking=False)
    layers.append(GraphLayer(name="output", shape=(5,), synapses=(readout,), neurons=neurons, scale=50.0))
    return ProcessGraph(
        input=contract, layers=tuple(layers), time_steps=case.time_steps, numerics=NUMERICS, profile="loihi2"
    )


def random_messages(case: GraphCase, graph: ProcessGraph, batch: int) -> Tensor:
    rng = np.random.default_rng(case.seed + 1000)
    if case.coding == "binary":
        return torch.from_numpy((rng.random((graph.time_steps, batch, *graph.input.shape)) < 0.35).astype(np.int64))
    return torch.from_numpy(rng.integers(0, 256, size=(batch, *graph.input.shape)).astype(np.int64))
