"""Graphs of given layers with simple weights, to be placed."""

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

NUMERICS = load_profile("loihi2").numerics


def layered_graph(
    image: Shape, *layers: tuple[str, Shape | None, Synapse | None], bits: int = 8, coding: str = "graded"
) -> ProcessGraph:
    made = []
    shapes = {INPUT: image}
    for index, (name, shape, synapse) in enumerate(layers):
        shapes[name] = synapse.output_shape(shapes[synapse.source]) if synapse is not None else shape or image
        neurons = NeuronGroup(threshold=100, bias=np.zeros(1, np.int32), spiking=index + 1 < len(layers))
        made.append(GraphLayer(name=name, shape=shapes[name], synapses=(synapse,) if synapse else (), neurons=neurons))
    contract = InputContract(shape=image, coding=coding, message_bits=4 if coding == "graded" else 1)  # type: ignore[arg-type]
    return ProcessGraph(
        input=contract, layers=tuple(made), time_steps=2, numerics=NUMERICS, profile="loihi2", weight_bits=bits
    )


def dense(source: str, units: int, inputs: int) -> DenseSynapse:
    number = np.arange(inputs)  # no two columns alike, up to 8000
    digits = [2 * (number // 20**place % 20) - 20 for place in range(3)]
    weight = np.stack((digits + [number * 0] * units)[:units])
    weight = weight.astype(np.int32)
    weight.flat[0], weight.flat[-1] = -256, 254
    return DenseSynapse(source=source, weight=weight)


def conv(source: str, channels: int, inputs: int, kernel: int = 3, **geometry: object) -> ConvSynapse:
    weight = np.full((channels, inputs, kernel, kernel), 2, np.int32)
    weight.flat[0] = -254
    return ConvSynapse(source=source, weight=weight, **geometry)  # type: ignore[arg-type]
