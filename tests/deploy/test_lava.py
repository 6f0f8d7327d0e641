"""Equalities 3 and 4: emulator = Lava, and the `.net` file through netx = the graph; and how a failing Lava ends."""

import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from needs_lava import needs_lava
from random_graphs import CASES, NUMERICS, GraphCase, build, random_messages

from hardspike.deploy import lava_backend, lava_processes, lava_runner
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.lava_backend import LavaBackend, Loihi2Backend, NetxBackend
from hardspike.deploy.lava_netx import netx_graph_differences
from hardspike.deploy.lava_processes import layer_delays
from hardspike.deploy.netx_file import write_netx
from hardspike.deploy.process_graph import (
    ConvSynapse,
    DenseSynapse,
    GraphLayer,
    InputContract,
    NeuronGroup,
    ProcessGraph,
    Synapse,
)
from hardspike.deploy.trace import Trace
from hardspike.snn.architecture import INPUT, Shape
from hardspike.snn.errors import BackendError, FileError, UnsupportedLayerError

SAMPLES = 4  # in one stream, so with three resets between them


def assert_equal(found: Trace, expected: Trace) -> None:
    """Every spike of every layer at every step, what is there of currents and potentials, and every output."""
    assert found.states is not None and expected.states is not None
    assert found.states.spikes.keys() == expected.states.spikes.keys()
    for name, spikes in expected.states.spikes.items():
        assert torch.equal(found.states.spikes[name], spikes), name
    for kind in ("currents", "potentials"):
        for name, states in getattr(found.states, kind).items():
            assert torch.equal(states, getattr(expected.states, kind)[name]), (kind, name)
    assert torch.equal(found.output, expected.output)
    assert found.output.dtype == torch.int64
    for field in ("spikes", "active", "synaptic_operations"):
        for name, counts in getattr(expected, field).items():
            assert torch.equal(getattr(found, field)[name], counts), (field, name)
    assert torch.equal(found.messages, expected.messages)


@needs_lava
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[] if index < 5 else pytest.mark.slow) for index, case in enumerate(CASES)],
    ids=lambda case: case.name,
)
def test_emulator_equals_lava_and_the_net_file_through_netx(case: GraphCase, tmp_path: Path) -> None:
    graph = build(case)
    messages = random_messages(case, graph, SAMPLES)
    expected = EmulatorBackend().run(graph, messages, keep_states=True)
    assert all(int(counts.sum()) for counts in expected.spikes.values()), "a silent layer proves nothing"
    lava = LavaBackend().run(graph, messages, keep_states=True)
    assert_equal(lava, expected)
    assert (
        lava.states is not None
        and lava.states.currents.keys() == lava.states.potentials.keys() == lava.states.spikes.keys()
    )
    path = tmp_path / "a.net"
    write_netx(path, graph)
    held = netx_graph_differences(path, graph)
    assert held.num_compared > sum(layer.synapses[0].weight.size for layer in graph.layers)
    assert (held.num_differing, held.first) == (0, "")
    netx = NetxBackend(path).run(graph, messages, keep_states=True)
    assert_equal(netx, expected)
    assert netx.states is not None and not netx.states.potentials, "netx builds Lava's neurons, which show none"


def _layer(name: str, shape: Shape, *synapses: Synapse, threshold: int = 150) -> GraphLayer:
    neurons = NeuronGroup(threshold=threshold, bias=np.array([[[3]]], dtype=np.int32))
    return GraphLayer(name=name, shape=shape, synapses=synapses, neurons=neurons)


def _even(rng: np.random.Generator, *shape: int) -> Any:
    return (2 * rng.integers(-30, 31, size=shape)).astype(np.int32)


def two_paths(*, direct: bool) -> ProcessGraph:
    """Two paths that meet in one layer; `direct`: one of them has a layer less."""
    rng = np.random.default_rng(5)
    shape = (4, 6, 5)

    def conv(source: str, inputs: int, kernel: int) -> ConvSynapse:
        padding = (kernel // 2, kernel // 2)
        return ConvSynapse(source=source, weight=_even(rng, 4, inputs, kernel, kernel), padding=padding)

    left = _layer("left", shape, conv(INPUT, 2, 3), threshold=4000)
    right = _layer(
        "right", shape, conv("left", 4, 1) if direct else conv(INPUT, 2, 1), threshold=100 if direct else 4000
    )
    both = _layer("both", shape, conv("left", 4, 3), conv("right", 4, 1))
    last = _layer("last", (3,), DenseSynapse(source="both", weight=_even(rng, 3, 120)))
    return ProcessGraph(
        input=InputContract(shape=(2, 6, 5), coding="graded", message_bits=8),
        layers=(left, right, both, replace(last, neurons=replace(last.neurons, bias=np.zeros(3, dtype=np.int32)))),
        time_steps=5,
        numerics=NUMERICS,
        profile="loihi2",
    )


@pytest.mark.slow
@needs_lava
@pytest.mark.parametrize("direct", [False, True])
def test_two_paths_and_a_spiking_output(direct: bool) -> None:
    """The same with Lava's own neurons and with those that show their states."""
    graph = two_paths(direct=direct)
    messages = torch.from_numpy(np.random.default_rng(6).integers(0, 256, size=(SAMPLES, 2, 6, 5)))
    expected = EmulatorBackend().run(graph, messages, keep_states=True)
    assert int(expected.output.sum()) > 0 and int(expected.spikes["both"].sum()) > 0
    done: list[int] = []
    assert_equal(LavaBackend().run(graph, messages, keep_states=True, progress=done.append), expected)
    assert done == [1] * SAMPLES
    assert_equal_counts(LavaBackend().run(graph, messages), expected)


def assert_equal_counts(found: Trace, expected: Trace) -> None:
    """Of every layer and step."""
    assert found.states is None and torch.equal(found.output, expected.output)
    for field in ("spikes", "active", "synaptic_operations"):
        for name, counts in getattr(expected, field).items():
            assert torch.equal(getattr(found, field)[name], counts), (field, name)


@pytest.mark.slow
@needs_lava
def test_long_runs_are_split_into_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = build(CASES[10])
    messages = random_messages(CASES[10], graph, 3)
    monkeypatch.setattr(lava_backend, "STREAM_BYTES", 4 * 2 * graph.time_steps * messages[0].numel())
    streams = []
    build_processes = lava_backend.build_processes
    monkeypatch.setattr(
        lava_backend, "build_processes", lambda g, s, **how: streams.append(len(s)) or build_processes(g, s, **how)
    )
    found = LavaBackend().run(graph, messages, keep_states=True)
    assert streams == [2 * graph.time_steps, graph.time_steps]
    assert_equal(found, EmulatorBackend().run(graph, messages, keep_states=True))


def test_each_layer_is_one_step_later_than_the_latest_of_its_sources() -> None:
    assert layer_delays(two_paths(direct=True)) == {INPUT: 0, "left": 1, "right": 2, "both": 3, "last": 4}
    assert layer_delays(two_paths(direct=False)) == {INPUT: 0, "left": 1, "right": 1, "both": 2, "last": 3}


@pytest.mark.slow
@needs_lava
def test_a_layer_that_leads_nowhere_may_be_later_than_the_output() -> None:
    graph = two_paths(direct=True)
    left, right, both, last = graph.layers
    early = replace(last, name="early", synapses=(replace(last.synapses[0], source="left"),))
    later = replace(last, name="later", synapses=(replace(last.synapses[0], source="both"),))
    graph = replace(graph, layers=(left, right, both, later, early), time_steps=2)
    messages = torch.from_numpy(np.random.default_rng(6).integers(0, 256, size=(3, 2, 6, 5)))
    assert layer_delays(graph)["later"] == layer_delays(graph)["early"] + 2
    expected = EmulatorBackend().run(graph, messages, keep_states=True)
    assert expected.spikes["later"].any() and expected.spikes["early"].any()
    assert_equal(LavaBackend().run(graph, messages, keep_states=True), expected)


def test_current_inputs_are_refused() -> None:
    neurons = NeuronGroup(threshold=20, bias=np.zeros(1, dtype=np.int32))
    graph = ProcessGraph(
        input=InputContract(shape=(3,), coding="current", message_bits=0),
        layers=(GraphLayer(name="pixels", shape=(3,), synapses=(), neurons=neurons),),
        time_steps=2,
        numerics=NUMERICS,
        profile="loihi2",
    )
    with pytest.raises(UnsupportedLayerError, match="'pixels' takes its bias from the input"):
        LavaBackend().run(graph, torch.zeros(1, 3, dtype=torch.int64))


@needs_lava
def test_a_file_of_another_graph_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    graph, path = build(CASES[0]), tmp_path / "a.net"
    weight = graph.layers[1].synapses[0].weight.copy()
    weight[2, 1, 0, 2] += 2
    other = replace(graph.layers[1], synapses=(replace(graph.layers[1].synapses[0], weight=weight),))
    neurons = replace(graph.layers[0].neurons, threshold=graph.layers[0].neurons.threshold + 1)
    changed = replace(graph, layers=(replace(graph.layers[0], neurons=neurons), other, graph.layers[2]))
    write_netx(path, changed)
    found = netx_graph_differences(path, graph)
    assert (found.num_differing, found.first) == (2, "layer 'conv0': threshold[0] is 6001 instead of 6000")
    write_netx(path, replace(changed, layers=(graph.layers[0], other, graph.layers[2])))
    found = netx_graph_differences(path, graph)
    was = int(graph.layers[1].synapses[0].weight[2, 1, 0, 2])
    assert (found.num_differing, found.first) == (1, f"layer 'conv1': weight[2, 1, 0, 2] is {was + 2} instead of {was}")
    with pytest.raises(BackendError, match="not a file of this graph .*conv1.*; write it again"):
        NetxBackend(path).run(graph, random_messages(CASES[0], graph, 1))
    shorter = replace(graph, layers=(graph.layers[0],))
    assert netx_graph_differences(path, shorter).first == "3 layers instead of 1"


@needs_lava
def test_files_that_netx_cannot_load(tmp_path: Path) -> None:
    graph = build(CASES[0])
    with pytest.raises(FileError, match="no such file"):
        netx_graph_differences(tmp_path / "none.net", graph)
    (tmp_path / "text.net").write_text("no HDF5")
    with pytest.raises(BackendError, match="netx cannot load this file"):
        netx_graph_differences(tmp_path / "text.net", graph)


def _stop_after_first(error: BaseException) -> Callable[[int], None]:
    def progress(_: int) -> None:
        raise error

    return progress


@needs_lava
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()], ids=lambda error: type(error).__name__)
def test_an_interrupted_run_leaves_no_process_behind(error: BaseException) -> None:
    graph = build(CASES[10])
    with pytest.raises(type(error)):
        LavaBackend().run(graph, random_messages(CASES[10], graph, 3), progress=_stop_after_first(error))
    assert multiprocessing.active_children() == []


@needs_lava
def test_a_run_that_takes_too_long_ends_with_one_line() -> None:
    graph = two_paths(direct=True)
    with pytest.raises(BackendError, match="'lava': 5 steps took Lava over 0 s; give more time") as caught:
        LavaBackend(timeout_s=0.0).run(graph, torch.ones(1, 2, 6, 5, dtype=torch.int64))
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@needs_lava
def test_a_run_whose_process_died_ends_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lava_runner, "STOP_S", 1.0)
    graph = two_paths(direct=True)

    def kill_one(_: int) -> None:
        next(child for child in multiprocessing.active_children() if type(child).__name__ == "SystemProcess").kill()

    with pytest.raises(BackendError, match="'lava': a process of Lava died") as caught:
        LavaBackend(timeout_s=30.0).run(graph, torch.ones(2, 2, 6, 5, dtype=torch.int64), progress=kill_one)
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


@needs_lava
def test_readout_that_fires_is_refused() -> None:
    """On Lava a readout fires above the largest threshold, just below saturation; the graph says that it never does."""
    neurons = NeuronGroup(threshold=131071, bias=np.full(1, 4095, dtype=np.int32), bias_exponent=7, spiking=False)
    synapse = DenseSynapse(source=INPUT, weight=np.array([[254]], dtype=np.int32))
    graph = ProcessGraph(
        input=InputContract(shape=(1,), coding="binary", message_bits=1),
        layers=(GraphLayer(name="out", shape=(1,), synapses=(synapse,), neurons=neurons),),
        time_steps=20,
        numerics=NUMERICS,
        profile="loihi2",
    )
    messages = torch.zeros(20, 1, 1, dtype=torch.int64)
    assert EmulatorBackend().run(graph, messages).output.item() == NUMERICS.state_max
    with pytest.raises(BackendError, match="the readout 'out' fired, which resets it"):
        LavaBackend().run(graph, messages)


@needs_lava
def test_loihi2_says_what_is_missing(tmp_path: Path) -> None:
    graph = replace(build(CASES[0]), time_steps=8)
    write_netx(tmp_path / "a.net", graph)
    with pytest.raises(BackendError, match=r"'loihi2': Intel's Lava extension for Loihi .*INRC") as caught:
        Loihi2Backend(tmp_path / "a.net").run(graph, random_messages(CASES[0], graph, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", [LavaBackend(), NetxBackend(Path("a.net")), Loihi2Backend(Path("a.net"))])
def test_without_lava_the_error_says_how_to_get_it(backend: LavaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lava_processes, "lava_available", lambda: False)
    graph = replace(build(CASES[0]), time_steps=8)
    with pytest.raises(BackendError) as caught:
        backend.run(graph, random_messages(CASES[0], graph, 1))
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert str(caught.value) == (
        f"backend '{backend.name}': Lava is not installed for Python {here}; run `pip install hardspike[lava]` on "
        "Python 3.10, or use the backend 'emulator'"
    )
