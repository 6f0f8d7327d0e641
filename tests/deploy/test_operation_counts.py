"""Accumulates and multiply-accumulates: against loops, and against NeuroBench itself (marker `peers`)."""

from importlib.util import find_spec
from itertools import product

import numpy as np
import pytest
import torch
from random_graphs import CASES, build, random_messages
from small_networks import ARCHITECTURES, images
from small_networks import build as build_network
from torch import Tensor, nn
from toy_graphs import toy_graph

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.input_coding import append_constant_channels
from hardspike.deploy.operation_counts import (
    Operations,
    ann_operations,
    effective_operations,
    operation_energy_j,
)
from hardspike.deploy.oracle import Oracle
from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    NeuronGroup,
    ProcessGraph,
)
from hardspike.deploy.trace import Trace, fan_out
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import SettingsError

CMOS = load_profile("cmos45")


def _run(graph: ProcessGraph, messages: Tensor) -> tuple[Trace, dict[str, Tensor]]:
    trace = EmulatorBackend().run(graph, messages, keep_states=True)
    assert trace.states is not None
    return trace, {INPUT: append_constant_channels(messages, graph.input), **trace.states.spikes}


def _slow(graph: ProcessGraph, sent: dict[str, Tensor], sample: int) -> dict[str, tuple[int, int]]:
    """(multiply-accumulates, accumulates) of one sample, each pair counted; a step's inputs are those of the whole batch."""
    found = {}
    has_time = sent[INPUT].ndim > 1 + len(graph.input.shape)
    for name, fans in Oracle(graph)._fan_out.items():
        counted = [0, 0]
        for source, fan in fans:
            for step in range(graph.time_steps):
                batch = sent[source] if source == INPUT and not has_time else sent[source][step]
                adds = set(batch.flatten().long().tolist()) <= {-1, 0, 1}
                for sender, value in enumerate(batch[sample].flatten().tolist()):
                    counted[adds] += len(fan[sender][0]) if value else 0
        found[name] = (counted[0], counted[1])
    return found


@pytest.mark.parametrize("case", CASES[:6], ids=lambda case: case.name)
def test_equals_a_walk_over_all_pairs(case: object) -> None:
    graph = build(case)  # type: ignore[arg-type]
    trace, sent = _run(graph, random_messages(case, graph, 3))  # type: ignore[arg-type]
    found = effective_operations(graph, sent)
    for name, expected in _slow(graph, sent, 1).items():
        assert (int(found[name].multiply_accumulates[1]), int(found[name].accumulates[1])) == expected
        total = found[name].multiply_accumulates + found[name].accumulates
        assert total.tolist() == trace.synaptic_operations[name].sum(0).tolist()
    assert (int(found["conv0"].accumulates.sum()) > 0) == (graph.input.coding == "binary")


@pytest.mark.parametrize("seed", range(6))
def test_branches_too(seed: int) -> None:
    graph = toy_graph(seed)
    messages = torch.from_numpy(np.random.default_rng(seed).integers(0, 8, (4, *graph.input.shape)))
    for batch in (messages, messages.clamp(max=1)):  # pixels of 0 and 1 only are added, not multiplied
        _, sent = _run(graph, batch)
        found = effective_operations(graph, sent)
        for name, expected in _slow(graph, sent, 2).items():
            assert (int(found[name].multiply_accumulates[2]), int(found[name].accumulates[2])) == expected


@pytest.mark.parametrize("name", ["groups and dilation", "stride and non-square kernel", "dense only"])
def test_the_ann_form_against_loops(name: str) -> None:
    network = build_network(ARCHITECTURES[name])
    batch = images(ARCHITECTURES[name], 2)
    found = ann_operations(network, batch)
    assert network.time_steps == 6
    inputs: dict[str, Tensor] = {}
    network.set_time_steps(None)
    for key, module in network.layers.items():
        module.register_forward_pre_hook(lambda module, value, key=key: inputs.__setitem__(key, value[0].detach()))
    network(batch)
    for key, module in network.layers.items():
        if isinstance(module, nn.Linear):
            value = (inputs[key][1] != 0).long()
            assert found[key].dense == module.weight.numel()
            assert int(found[key].zero_skipping[1]) == int(((module.weight != 0).long() @ value).sum())
        elif isinstance(module, nn.Conv2d):
            value, dense, nonzero = inputs[key][1], 0, 0
            out, per_group, height, width = module.weight.shape
            with torch.no_grad():
                shape = module(inputs[key]).shape[2:]
            for o, r, c, i, ky, kx in product(
                range(out), *map(range, shape), range(per_group), range(height), range(width)
            ):
                y = r * module.stride[0] - module.padding[0] + ky * module.dilation[0]
                x = c * module.stride[1] - module.padding[1] + kx * module.dilation[1]
                if 0 <= y < value.shape[1] and 0 <= x < value.shape[2]:
                    dense += 1
                    pixel = value[o // (out // module.groups) * per_group + i, y, x]
                    nonzero += int(bool(pixel != 0) and bool(module.weight[o, i, ky, kx] != 0))
            assert (found[key].dense, int(found[key].zero_skipping[1])) == (dense, nonzero)
    assert any(int(one.zero_skipping.max()) < one.dense for one in found.values())  # ReLU leaves zeros


def test_synapses_of_each_sender_of_every_small_geometry() -> None:
    """Also where the stride leaves part of the far padding unused."""
    rng = np.random.default_rng(0)
    for side, kernel, stride, padding, dilation in product(range(3, 9), range(1, 5), range(1, 4), range(4), (1, 2)):
        if side + 2 * padding < dilation * (kernel - 1) + 1:
            continue
        weight = rng.integers(0, 2, (3, 2, kernel, 2)).astype(np.int32)
        synapse = ConvSynapse(
            source=INPUT, weight=weight, stride=(stride, 1), padding=(padding, 0), dilation=(dilation, 1)
        )
        expected = np.zeros((2, side, 4))
        for row, column, ky, kx in product(
            *map(range, synapse.output_shape((2, side, 4))[1:]), range(kernel), range(2)
        ):
            y = row * stride - padding + ky * dilation
            if 0 <= y < side:
                expected[:, y, column + kx] += (weight[:, :, ky, kx] != 0).sum(0)
        assert np.array_equal(fan_out(synapse, (2, side, 4)).numpy(), expected), (
            side,
            kernel,
            stride,
            padding,
            dilation,
        )


def test_bare_arithmetic_prices_counts_and_nothing_else() -> None:
    counted = Operations(multiply_accumulates=torch.tensor([10, 0]), accumulates=torch.tensor([0, 100]))
    found = operation_energy_j(counted, CMOS)
    assert list(found) == ["fp32", "int32", "int8"]
    torch.testing.assert_close(found["fp32"], torch.tensor([46e-12, 90e-12], dtype=torch.float64))
    torch.testing.assert_close(found["int8"], torch.tensor([2.3e-12, 3e-12], dtype=torch.float64))
    with pytest.raises(SettingsError, match="profile 'loihi1' is a chip, not bare arithmetic; use cmos45"):
        operation_energy_j(counted, load_profile("loihi1"))


class _IntegrateAndFire(nn.Module):
    """A graph's layers as PyTorch's own, stepped over time: what NeuroBench hooks. Integrates, fires above, resets to zero."""

    def __init__(self, graph: ProcessGraph) -> None:
        super().__init__()
        self.graph, self.connections = graph, nn.ModuleList()
        for layer in graph.layers:
            (synapse,) = layer.synapses
            weight = torch.from_numpy(synapse.weight).float()
            if isinstance(synapse, ConvSynapse):
                channels = (weight.shape[1] * synapse.groups, weight.shape[0])
                geometry = {key: getattr(synapse, key) for key in ("stride", "padding", "dilation", "groups")}
                made: nn.Conv2d | nn.Linear = nn.Conv2d(*channels, weight.shape[2:], bias=False, **geometry)  # type: ignore[arg-type]
            else:
                made = nn.Linear(*reversed(weight.shape), bias=False)
            made.weight.data = weight
            self.connections.append(made)

    def forward(self, messages_BT: Tensor) -> Tensor:
        state = [torch.zeros(len(messages_BT), *layer.shape) for layer in self.graph.layers]
        outputs = []
        for value in messages_BT.unbind(1):
            for index, (layer, connection) in enumerate(zip(self.graph.layers, self.connections, strict=True)):
                value = value.flatten(1) if isinstance(connection, nn.Linear) else value
                state[index] = state[index] + connection(value)
                value = (state[index] > layer.neurons.threshold).float()
                state[index] = state[index] * (1 - value)
            outputs.append(value)
        return torch.stack(outputs, 1)


@pytest.mark.peers
@pytest.mark.skipif(
    find_spec("neurobench") is None or find_spec("snntorch") is None,
    reason="compares with NeuroBench 2.3.0, which is not installed (requirements/peers.txt)",
)
@pytest.mark.parametrize("coding", ["binary", "graded"])
def test_equals_neurobench(coding: str) -> None:
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    rng = np.random.default_rng(4)

    def weight(*shape: int) -> np.ndarray:
        made = (2 * rng.integers(-20, 40, shape)).astype(np.int32)
        made[rng.random(shape) < 0.3] = 0
        made.flat[0], made.flat[-1] = -2, 2
        return made

    convs = ConvSynapse(source=INPUT, weight=weight(4, 2, 3, 3), padding=(1, 1), stride=(2, 1))
    second = ConvSynapse(source="a", weight=weight(6, 2, 3, 3), groups=2)
    shapes = {"a": (4, 4, 6), "b": (6, 2, 4), "c": (9,)}
    dense = DenseSynapse(source="b", weight=weight(9, 48))
    layers = [
        GraphLayer(name=name, shape=shapes[name], synapses=(synapse,), neurons=NeuronGroup(threshold=90, bias=np.zeros(1, np.int32)))
        for name, synapse in (("a", convs), ("b", second), ("c", dense))
    ]  # fmt: skip
    contract = InputContract(shape=(2, 8, 6), coding=coding, message_bits=1 if coding == "binary" else 3)  # type: ignore[arg-type]
    graph = ProcessGraph(
        input=contract, layers=tuple(layers), time_steps=7, numerics=load_profile("loihi2").numerics, profile="loihi2"
    )
    if coding == "binary":
        messages = torch.from_numpy((rng.random((7, 5, 2, 8, 6)) < 0.3).astype(np.int64))
        batch_first = messages.transpose(0, 1)
    else:
        messages = torch.from_numpy(rng.integers(0, 8, (5, 2, 8, 6)))
        batch_first = messages[:, None].expand(-1, 7, -1, -1, -1)
    trace, sent = _run(graph, messages)
    model = TorchModel(_IntegrateAndFire(graph))
    model.register_hooks()
    with torch.no_grad():
        predicted = model(batch_first.float())
    theirs = SynapticOperations()(model, predicted, (batch_first, None))
    model.cleanup_hooks()
    assert trace.states is not None
    assert torch.equal(predicted.transpose(0, 1).bool(), trace.states.spikes["c"]) and int(predicted.sum()) > 10
    total = sum(
        effective_operations(graph, sent).values(),
        Operations(multiply_accumulates=torch.tensor(0), accumulates=torch.tensor(0)),
    )
    assert float(total.accumulates.sum()) / 5 == theirs["Effective_ACs"] > 0
    assert float(total.multiply_accumulates.sum()) / 5 == theirs["Effective_MACs"]
    assert (theirs["Effective_MACs"] > 0) == (coding == "graded")
