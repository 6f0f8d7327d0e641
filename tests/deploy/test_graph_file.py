"""The process graph on disk: everything comes back, damage is one line."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from random_graphs import CASES, GraphCase, build, random_messages

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.graph_file import load_graph, save_graph
from hardspike.deploy.process_graph import ConvSynapse, ProcessGraph
from hardspike.snn.checkpoint import save_tensors
from hardspike.snn.errors import FileError


def assert_same_graph(found: ProcessGraph, expected: ProcessGraph) -> None:
    assert asdict(found.input) == asdict(expected.input)
    assert (found.time_steps, found.profile, found.weight_bits) == (
        expected.time_steps,
        expected.profile,
        expected.weight_bits,
    )
    assert asdict(found.numerics) == asdict(expected.numerics) and found.provenance == expected.provenance
    for a, b in zip(found.layers, expected.layers, strict=True):
        assert (a.name, a.shape, a.scale) == (b.name, b.shape, b.scale)
        for name in ("threshold", "bias_exponent", "current_decay", "potential_decay", "spiking"):
            assert getattr(a.neurons, name) == getattr(b.neurons, name)
        assert np.array_equal(a.neurons.bias, b.neurons.bias) and a.neurons.bias.dtype == b.neurons.bias.dtype
        for s, t in zip(a.synapses, b.synapses, strict=True):
            assert type(s) is type(t) and s.source == t.source
            assert np.array_equal(s.weight, t.weight) and s.weight.dtype == t.weight.dtype
            if isinstance(s, ConvSynapse) and isinstance(t, ConvSynapse):
                assert (s.stride, s.padding, s.dilation, s.groups) == (t.stride, t.padding, t.dilation, t.groups)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_round_trip(case: GraphCase, tmp_path: Path) -> None:
    graph = build(case)
    save_graph(tmp_path / "graph.safetensors", graph)
    loaded = load_graph(tmp_path / "graph.safetensors")
    assert_same_graph(loaded, graph)
    messages = random_messages(case, graph, 2)
    assert torch.equal(EmulatorBackend().run(loaded, messages).output, EmulatorBackend().run(graph, messages).output)


def test_damaged_files_are_one_line_errors(tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    with pytest.raises(FileError, match="no such file; expected a hardspike process graph file"):
        load_graph(path)
    save_graph(path, build(CASES[0]))
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match="not a readable process graph file") as caught:
            load_graph(path)
        assert "\n" not in str(caught.value)
    save_tensors(path, {"x": torch.zeros(1)}, {"kind": "network"})
    with pytest.raises(FileError, match="holds 'network', expected 'process graph'"):
        load_graph(path)
    save_tensors(path, {"x": torch.zeros(1)}, {"kind": "process graph", "graph": "{}"})
    with pytest.raises(
        FileError, match="not a readable process graph file .key 'input' is missing; needed: input, layers"
    ):
        load_graph(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.safetensors"
    save_graph(path, build(CASES[0]))
    before = path.read_bytes()

    def broken(*args: object, **kwargs: object) -> None:
        Path(str(args[1])).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        save_graph(path, build(CASES[1]))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
