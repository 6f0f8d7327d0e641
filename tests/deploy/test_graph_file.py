"""The process graph on disk: everything comes back, damage is one line."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_graphs import CASES, GraphCase, build, random_messages

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.graph_file import load_graph, save_graph
from hardspike.deploy.process_graph import ConvSynapse, ProcessGraph
from hardspike.snn.checkpoint import load_tensors, save_tensors
from hardspike.snn.errors import DoesNotFitError, FileError, UnsupportedLayerError


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


def _put(*place: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def edit(description: dict[str, Any]) -> None:
        *path, last = place
        entry: Any = description
        for key in path:
            entry = entry[key]
        entry[last] = value

    return edit


BAD = (
    (_put("layers", value=3), "layers: 3 is no list"),
    (_put("layers", 0, value=[]), r"layers.0: \[\] is not a table; write . name, neurons"),
    (_put("layers", 0, "extra", value=1), "layers.0.extra: key 'extra' is unknown"),
    (_put("layers", 1, "shape", value=[4, 7]), r"layers.1.shape: \(4, 7\) is no shape"),
    (_put("layers", 1, "shape", value=[4, -7, 5]), r"layers.1.shape: \[4, -7, 5\] is not allowed"),
    (_put("layers", 1, "shape", value=[1 << 40]), "layers.1.shape: .* whole numbers from 1 to"),
    (_put("layers", 1, "name", value="a\nb"), "layers.1.name: a b is no short line of text"),
    (_put("layers", 1, "scale", value=float("nan")), "layers.1.scale: nan is not allowed"),
    (
        _put("layers", 0, "synapses", 0, "geometry", "stride", value=[-1, 1]),
        "synapses.0.geometry.stride: .-1, 1. is not",
    ),
    (_put("layers", 0, "synapses", 0, "geometry", "stride", value=[1]), r"stride: \(1,\) is no pair"),
    (_put("layers", 0, "synapses", 0, "geometry", "groups", value=4), "groups: 4 groups of 6 output channels"),
    (
        _put("layers", 0, "synapses", 0, "geometry", value=None),
        "tensor 'conv0/weight/0' has shape .* must be int32 on 2 axes",
    ),
    (_put("layers", 0, "neurons", "spiking", value=1), "layers.0.neurons.spiking: 1 is not true or false"),
    (_put("layers", 0, "neurons", "threshold", value=True), "layers.0.neurons.threshold: True is not allowed"),
    (_put("layers", 0, "neurons", "order", value="first"), "layers.0.neurons.order: first is not allowed"),
    (_put("input", "message_bits", value=10**9), "input.message_bits: 1000000000 is not allowed"),
    (_put("input", "coding", value="binary"), "input.message_bits: 8 bits of a binary input; it has 1"),
    (_put("input", "poisson", value={"mean": [1], "std": [0], "rate": 1}), "input.poisson.std: 0 is not allowed"),
    (_put("input", "poisson", value={"mean": [1], "std": [1], "rate": 1}), "1 means and 1 stds of 2 channels"),
    (_put("numerics", "state_bits", value=10**12), "numerics.state_bits: 1000000000000 is not allowed"),
    (_put("numerics", "resets", value=["hard", "x"]), "numerics.resets: .* is not allowed"),
    (_put("time_steps", value=0), "time_steps: 0 is not allowed; expected a whole number from 1"),
    (_put("provenance", value={"a": 1}), "provenance: 1 is no short line of text"),
)


@pytest.mark.parametrize(("edit", "message"), BAD)
def test_a_wrong_value_is_named_by_its_place(
    edit: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "graph.safetensors"
    save_graph(path, build(CASES[0]))
    tensors, metadata = load_tensors(path, "process graph")
    description = json.loads(metadata["graph"])
    edit(description)
    save_tensors(path, tensors, {"kind": "process graph", "graph": json.dumps(description)})
    with pytest.raises(FileError, match=message) as caught:
        load_graph(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_tensors_of_another_type_and_limits_of_the_profile_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    save_graph(path, build(CASES[0]))
    tensors, metadata = load_tensors(path, "process graph")
    for name, value, message in (
        ("conv0/weight/0", tensors["conv0/weight/0"].double(), "has shape .* of float64; it must be int32"),
        ("conv1/bias", torch.zeros(0, dtype=torch.int32), r"'conv1/bias' has shape \(0,\)"),
    ):
        save_tensors(path, tensors | {name: value}, metadata)
        with pytest.raises(FileError, match=message):
            load_graph(path)
    save_tensors(path, tensors | {"conv1/bias": torch.zeros(9, 4, 1, 1, dtype=torch.int32)}, metadata)
    with pytest.raises(
        UnsupportedLayerError, match=r"graph.safetensors: layer 'conv1': bias of shape \(9, 4, 1, 1\) does not fit"
    ):
        load_graph(path)
    description = json.loads(metadata["graph"])
    description["layers"][0]["neurons"]["threshold"] = 1 << 30
    save_tensors(path, tensors, metadata | {"graph": json.dumps(description)})
    with pytest.raises(DoesNotFitError, match="graph.safetensors: layer 'conv0': threshold 1073741824 is outside"):
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
