"""Synapses on Lava: the matrix of a convolution, groups put together, and every form of weight and geometry in one network."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from needs_lava import needs_lava
from random_graphs import NUMERICS
from torch.nn import functional as F

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.lava_backend import LavaBackend
from hardspike.deploy.lava_synapses import lava_groups, num_nonzeros, sparse_synapses, sparse_weights
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

side = st.integers(1, 3)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[ConvSynapse, Shape]:
    """Any geometry, with an image that the kernel fits on."""
    groups, per_input, per_output = draw(side), draw(side), draw(side)
    kernel, stride, dilation, padding = ([draw(side), draw(side)] for _ in range(4))
    padding = [draw(st.integers(0, 3)) for _ in range(2)]
    least = [max(d * (k - 1) + 1 - 2 * p, 1) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    shape = (groups * per_input, *(size + draw(st.integers(0, 4)) for size in least))
    exponent = draw(st.sampled_from([0, 0, 3]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    weight = rng.integers(-3, 4, size=(groups * per_output, per_input, *kernel)).astype(np.int32) << exponent
    geometry: dict[str, Any] = {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation)}
    return ConvSynapse(source=INPUT, weight=weight, groups=groups, exponent=exponent, **geometry), shape


def convolved(synapse: ConvSynapse, image: torch.Tensor, weight: np.ndarray, groups: int) -> torch.Tensor:
    kernel = torch.from_numpy(weight.astype(np.float64))
    return F.conv2d(image[None], kernel, None, synapse.stride, synapse.padding, synapse.dilation, groups)[0]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(convolutions())
def test_the_matrix_is_the_convolution_in_lavas_order(case: tuple[ConvSynapse, Shape]) -> None:
    synapse, shape = case
    matrix = sparse_weights(synapse, shape)
    assert matrix.nnz == num_nonzeros(synapse, shape) and matrix.dtype == np.int32 and (matrix.data != 0).all()
    image = torch.from_numpy(np.random.default_rng(0).integers(-9, 10, size=shape).astype(np.float64))
    expected = convolved(synapse, image, synapse.weight, synapse.groups)
    found = matrix @ image.numpy().T.ravel() * 2.0**synapse.exponent
    assert np.array_equal(found.reshape(synapse.output_shape(shape)[::-1]).T, expected.numpy())


@pytest.mark.parametrize(
    ("groups", "expected"), [(1, 1), (127, 127), (128, 64), (200, 100), (131, 1), (254, 127), (400, 100)]
)
def test_groups_are_put_together_until_lava_can_count_them(groups: int, expected: int) -> None:
    rng = np.random.default_rng(groups)
    weight = rng.integers(-9, 10, size=(2 * groups, 3, 1, 2)).astype(np.int32)
    synapse = ConvSynapse(source=INPUT, weight=weight, groups=groups)
    found, together = lava_groups(synapse)
    assert found == expected
    image = torch.from_numpy(rng.integers(-9, 10, size=(3 * groups, 2, 3)).astype(np.float64))
    assert torch.equal(convolved(synapse, image, together, found), convolved(synapse, image, weight, groups))


def _layer(name: str, shape: Shape, threshold: int, *synapses: Synapse) -> GraphLayer:
    neurons = NeuronGroup(threshold=threshold, bias=np.zeros((1,) * len(shape), dtype=np.int32))
    return GraphLayer(name=name, shape=shape, synapses=synapses, neurons=neurons)


def every_synapse() -> ProcessGraph:
    """A layer of its own for each kind, between one of 130 channels and the readout."""
    rng = np.random.default_rng(3)

    def even(*shape: int, most: int = 100) -> Any:
        weight = 2 * rng.integers(-most // 2, most // 2 + 1, size=shape).astype(np.int32)
        weight.flat[0], weight.flat[-1] = 2, -2
        return weight

    def odd(sign: int, *shape: int) -> Any:
        return sign * rng.integers(0, 256, size=shape).astype(np.int32)

    image = (2, 5, 4)
    wide = _layer("wide", (130, 5, 4), 40, ConvSynapse(source=INPUT, weight=even(130, 2, 1, 1)))
    kinds: dict[str, tuple[int, Synapse]] = {
        "depthwise": (90, ConvSynapse(source="wide", weight=odd(1, 130, 1, 3, 3), padding=(1, 1), groups=130)),
        "strides": (200, ConvSynapse(source="wide", weight=even(3, 130, 3, 2), stride=(2, 3), padding=(1, 0))),
        "dilation": (200, ConvSynapse(source="wide", weight=even(3, 130, 2, 3), dilation=(3, 1), padding=(2, 3))),
        "two groups": (150, ConvSynapse(source="wide", weight=even(4, 65, 1, 1), groups=2)),
        "odd weights": (4000, ConvSynapse(source="wide", weight=odd(1, 2, 130, 1, 1))),
        "exponent": (3000, ConvSynapse(source="wide", weight=even(3, 130, 3, 3, most=250) << 5, exponent=5)),
        "ends of the range": (500, ConvSynapse(source="wide", weight=np.resize(np.int32([254, -256]), (2, 130, 1, 1)))),
        "ends, one sign": (36000, DenseSynapse(source="wide", weight=np.resize(np.int32([255, 0, 0]), (3, 2600)))),
        "dense exponent": (3000, DenseSynapse(source=INPUT, weight=even(4, 40, most=250) << 7, exponent=7)),
        "dense of the input": (30, DenseSynapse(source=INPUT, weight=even(6, 40))),
    }
    layers = [wide]
    for name, (threshold, synapse) in kinds.items():
        layers.append(
            _layer(name, synapse.output_shape(image if synapse.source == INPUT else wide.shape), threshold, synapse)
        )
    late = [
        DenseSynapse(source="strides", weight=even(4, int(np.prod(layers[2].shape)))),
        DenseSynapse(source="strides", weight=even(4, int(np.prod(layers[2].shape)))),
        DenseSynapse(source="wide", weight=odd(-1, 4, 2600)),
        DenseSynapse(source="wide", weight=odd(1, 4, 2600)),
        DenseSynapse(source=INPUT, weight=np.zeros((4, 40), dtype=np.int32)),
        DenseSynapse(source=INPUT, weight=even(4, 40)),
    ]
    layers.append(_layer("twice, negative, zero, late", (4,), 300, *late))
    readout = [DenseSynapse(source=layer.name, weight=even(3, int(np.prod(layer.shape)))) for layer in layers[2:]]
    layers.append(_layer("output", (3,), NUMERICS.threshold_mantissa_max, *readout))
    layers[-1] = replace(layers[-1], neurons=replace(layers[-1].neurons, spiking=False))
    return ProcessGraph(
        input=InputContract(shape=image, coding="signed", message_bits=1),
        layers=tuple(layers),
        time_steps=4,
        numerics=NUMERICS,
        profile="loihi2",
    )


@pytest.mark.slow
@needs_lava
@pytest.mark.parametrize(
    "sparse_nonzeros", [40_000, pytest.param(0, marks=pytest.mark.slow), pytest.param(1 << 20, marks=pytest.mark.slow)]
)
def test_every_kind_of_synapse(sparse_nonzeros: int) -> None:
    graph = every_synapse()
    chosen = {name for name, _ in sparse_synapses(graph, sparse_nonzeros)}
    assert len(chosen) == {0: 0, 40_000: 5, 1 << 20: 8}[sparse_nonzeros], chosen
    messages = torch.from_numpy(np.random.default_rng(4).choice([0, 0, 1, -1], size=(4, 3, 2, 5, 4)))
    expected = EmulatorBackend().run(graph, messages, keep_states=True)
    for layer in graph.layers[:-1]:
        share = float(expected.states.spikes[layer.name].double().mean())  # type: ignore[union-attr]
        assert 0 < share < 1, (layer.name, share)
    found = LavaBackend(sparse_nonzeros=sparse_nonzeros).run(graph, messages, keep_states=True)
    assert found.states is not None and expected.states is not None
    for layer in graph.layers:
        for kind in ("spikes", "currents", "potentials"):
            mine, theirs = (getattr(states, kind)[layer.name] for states in (found.states, expected.states))
            assert torch.equal(mine, theirs), (layer.name, kind)
    assert torch.equal(found.output, expected.output)


def test_the_smallest_matrices_are_chosen_within_the_limit() -> None:
    graph = every_synapse()
    shapes = graph.shapes
    sizes = {
        layer.name: num_nonzeros(layer.synapses[0], shapes[layer.synapses[0].source])
        for layer in graph.layers
        if isinstance(layer.synapses[0], ConvSynapse)
    }
    ordered = sorted(sizes, key=lambda name: sizes[name])
    for count in range(len(ordered) + 1):
        limit = sum(sizes[name] for name in ordered[:count])
        assert sparse_synapses(graph, limit) == {(name, 0) for name in ordered[:count]}
        assert count == 0 or sparse_synapses(graph, limit - 1) == {(name, 0) for name in ordered[: count - 1]}
