"""NIR files: what is written comes back the same, what others write means what NIR defines, and bad files end in one line."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from random_architectures import architectures
from small_networks import ARCHITECTURES, HEAD, block, conv, image
from torch import Tensor, nn

from hardspike.convert.nir_file import NirGraph, NirNode, read_nir_graph, write_nir_graph
from hardspike.convert.nir_in import read_nir
from hardspike.convert.nir_neurons import fires_at, nir_neuron, step_neuron
from hardspike.convert.nir_out import nir_graph, write_nir
from hardspike.snn.architecture import (
    INPUT,
    Architecture,
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    ImageInput,
    Spiking,
    WeightedSum,
    chain,
)
from hardspike.snn.encoding import NoiseSource
from hardspike.snn.errors import FileError, HardspikeError, SettingsError, UnsupportedLayerError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import ScalarWeights, SpikingNetwork

Arrays = dict[str, Any]


def trained(architecture: Architecture, dtype: torch.dtype, seed: int = 3) -> SpikingNetwork:
    """Every parameter and statistic away from where it starts."""
    net = SpikingNetwork(architecture, 4, seed=seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.uniform_(-0.3, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.3, 0.6, generator=generator)
            elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.uniform_(-0.5, 0.5, generator=generator)
            elif isinstance(module, ScalarWeights):
                module.weight.add_(torch.rand(module.weight.shape, generator=generator, dtype=dtype))
        for index, neuron in enumerate(net.neurons().values()):
            neuron.threshold.fill_(0.3 + 0.07 * index)
            neuron.leak.fill_((1.0, 0.9, 0.37)[index % 3])
    return net.eval()


def pictures(net: SpikingNetwork, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.rand(count, *net.architecture.input.shape, generator=generator, dtype=torch.float64)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(architecture=architectures())
def test_any_network_comes_back_with_its_spikes(
    architecture: Architecture, tmp_path_factory: pytest.TempPathFactory
) -> None:
    net = trained(architecture, torch.float64)
    path = tmp_path_factory.getbasetemp() / "a.nir"
    write_nir(path, net)
    back = read_nir(path)
    net.noise, back.noise = NoiseSource(5), NoiseSource(5)
    with torch.no_grad(), net.recording() as (spikes, _), back.recording() as (found, _):
        expected, logits = net(pictures(net)), back(pictures(net))
    assert back.architecture.input == architecture.input and back.architecture.readout == architecture.readout
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    assert spikes.keys() >= found.keys()  # neurons that the output does not need are left out
    assert all(torch.equal(found[name], spikes[name]) for name in found)


def dag() -> Architecture:
    """All that needs no folding, fixed image bits, a sum of one, sums with equal and other factors."""
    neuron = NeuronSettings(reset="soft", order="fire-first", initial_potential=0.25, leak=0.8, threshold_floor=0.1)
    plain = chain(
        replace(image(2, 8, 6), bits=4, mean=(0.4, 0.5), std=(0.2, 0.3)),
        [
            ("a", conv(4, bias=True)),
            ("fire_a", Spiking(neuron=neuron)),
            ("b", conv(4, groups=2)),
            ("sum", WeightedSum(initial=(0.5,))),
            ("fire_b", Spiking(neuron=NeuronSettings(strict=True, leak=0.3))),
            ("flat", Flatten()),
            ("head", Dense(out_features=5)),
        ],
        readout="sum",
    )
    nodes = list(plain.nodes)
    nodes[3] = replace(nodes[3], layer=WeightedSum(initial=(0.5, -2.0), trainable=True), sources=("b", "fire_a"))
    nodes[5] = replace(nodes[5], sources=("both",))
    both = replace(nodes[3], name="both", layer=WeightedSum(initial=(0.5, 0.5)), sources=("fire_b", "fire_a"))
    return replace(plain, nodes=(*nodes[:5], both, *nodes[5:]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_norms_everything_comes_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    net = SpikingNetwork(dag(), 6).to(dtype)
    write_nir(tmp_path / "a.nir", net, dt=0.0123)
    back = read_nir(tmp_path / "a.nir")
    assert (back.architecture, back.time_steps) == (net.architecture, 6)
    expected = net.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in back.state_dict().items())
    assert {value.dtype for value in back.state_dict().values()} == {dtype}
    write_nir(tmp_path / "b.nir", back, dt=0.0123)
    one, two = read_nir_graph(tmp_path / "a.nir"), read_nir_graph(tmp_path / "b.nir")
    assert one.edges == two.edges and one.metadata == two.metadata


@pytest.mark.parametrize("name", [*ARCHITECTURES])
def test_every_geometry_with_folded_norms(name: str, tmp_path: Path) -> None:
    net = trained(ARCHITECTURES[name], torch.float64)
    write_nir(tmp_path / "a.nir", net)
    back = read_nir(tmp_path / "a.nir")
    assert not any(isinstance(node.layer, BatchNorm) for node in back.architecture.nodes)
    with torch.no_grad():
        torch.testing.assert_close(back(pictures(net)), net(pictures(net)), rtol=1e-9, atol=1e-9)


def test_layers_with_several_readers(tmp_path: Path) -> None:
    """A convolution that is read beside its norm keeps its weights; a dropout is the same as what it reads."""
    layers = [("a", conv(4)), ("n", BatchNorm()), ("both", WeightedSum(initial=(0.5, 0.5))), ("fire", Spiking())]
    plain = chain(image(1, 5, 4), [*layers[:2], ("d", Dropout(share=0.5)), ("both", layers[3][1]), *HEAD])
    nodes = list(plain.nodes)
    nodes[2] = replace(nodes[2], sources=("n",))
    sums = [
        replace(nodes[2], name="both", layer=layers[2][1], sources=("a", "n")),
        replace(nodes[2], name="same", layer=layers[2][1], sources=("n", "d")),
        replace(nodes[2], name="all", layer=layers[2][1], sources=("both", "same")),
        replace(nodes[3], name="fire", sources=("all",)),
        replace(nodes[4], sources=("fire",)),
    ]
    net = trained(replace(plain, nodes=(*nodes[:3], *sums, *nodes[5:])), torch.float64)
    net.layers["same"].weight.data.fill_(0.75)  # type: ignore[union-attr, operator]
    write_nir(tmp_path / "a.nir", net)
    with torch.no_grad():
        torch.testing.assert_close(
            read_nir(tmp_path / "a.nir")(pictures(net)), net(pictures(net)), rtol=1e-9, atol=1e-9
        )


def test_a_node_that_somebody_changed_counts_as_it_is(tmp_path: Path) -> None:
    """Metadata only add what rounding hides: neither an old leak nor an old normalisation wins over the nodes."""
    net = trained(chain(image(1, 5, 4), [*block("a", conv(4)), *HEAD]), torch.float64)
    graph = nir_graph(net, 1e-4)
    spike = graph.nodes["a_spike"]
    graph.nodes["a_spike"] = NirNode("LIF", {**spike.values, **_lif((4, 5, 4), tau=2e-4, r=2.0)})
    graph.nodes["input_normalised"].values["bias"][:] = 0.5
    write_nir_graph(tmp_path / "a.nir", graph)
    back = read_nir(tmp_path / "a.nir")
    assert float(back.neurons()["a_spike"].leak) == 0.5 and back.architecture.nodes[1].name == "a"
    assert back.architecture.input.mean == (0.0,) and back.architecture.nodes[0].name == "input_normalised"
    assert set(back.layers["input_normalised"].bias.tolist()) == {0.5}  # type: ignore[union-attr, operator]


# Other people's files.


def _lif(shape: tuple[int, ...], **values: float) -> Arrays:
    defaults = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0}
    return {key: np.full(shape, value) for key, value in (defaults | values).items()}


def line(**nodes: NirNode) -> NirGraph:
    """The nodes one after the other."""
    names = [*nodes]
    return NirGraph(nodes, [*pairwise(names)])


def node(kind: str, **values: Any) -> NirNode:
    return NirNode(kind, {key: np.asarray(value) for key, value in values.items()})


def foreign(**changes: NirNode | None) -> NirGraph:
    """Numbers for pairs, a flatten that says what it flattens, sums in place of means."""
    rng = np.random.default_rng(0)
    nodes = {
        "in": node("Input", shape=[2, 6, 8]),
        "net.0": node(
            "Conv2d",
            input_shape=[6, 8],
            weight=rng.normal(size=(3, 2, 3, 3)).astype(np.float32),
            bias=np.zeros(3, dtype=np.float32),
            stride=1,
            padding=[1, 1],
            dilation=[1, 1],
            groups=1,
        ),
        "net.1": NirNode("LIF", _lif((3, 6, 8))),
        "net.2": node("SumPool2d", kernel_size=2, stride=[2, 2], padding=0),
        "net.3": node("Flatten", start_dim=0, end_dim=-1, input_type=[3, 3, 4]),
        "net.4": node("Linear", weight=rng.normal(size=(5, 36)).astype(np.float32)),
        "out": node("Output", shape=[5]),
    }
    return line(**{name: value for name, value in (nodes | changes).items() if value is not None})


def read(tmp_path: Path, graph: NirGraph, **arguments: Any) -> SpikingNetwork:
    write_nir_graph(tmp_path / "a.nir", graph)
    return read_nir(tmp_path / "a.nir", **({"dt": 1e-4, "time_steps": 3} | arguments))


def test_foreign_file_is_the_network_that_nir_defines(tmp_path: Path) -> None:
    graph = foreign()
    net = read(tmp_path, graph)
    assert [node.name for node in net.architecture.nodes] == ["net_0", "net_1", "net_2", "net_3", "net_4"]
    first, last = (torch.from_numpy(graph.nodes[name].values["weight"]) for name in ("net.0", "net.4"))
    images = pictures(net).float()
    # By the equations: tau v' = -v + r I with tau = 10 dt and r = 10, so v <- 0.9 v + I.
    v, total = torch.zeros(3, 3, 6, 8), torch.zeros(3, 5)
    current = torch.nn.functional.conv2d(images, first, padding=1)
    for _ in range(3):
        v = 0.9 * v + current
        spikes = (v > 1).float()
        v = v * (1 - spikes)
        total += torch.nn.functional.avg_pool2d(spikes, 2, divisor_override=1).flatten(1) @ last.T
    with torch.no_grad():
        torch.testing.assert_close(net(images), total / 3, rtol=1e-5, atol=1e-5)
    assert float(total.std()) > 0.1


def test_edges_that_meet_add_up(tmp_path: Path) -> None:
    """Scale nodes on the way are factors; the sum feeds a neuron directly."""
    graph = foreign()
    graph.nodes["twice"] = node("Scale", scale=np.full((3, 6, 8), 2.0))
    graph.edges.remove(("net.0", "net.1"))
    graph.edges.extend([("net.0", "twice"), ("twice", "net.1"), ("net.0", "net.1")])
    net, once = read(tmp_path, graph), read(tmp_path, foreign())
    with torch.no_grad():
        once.layers["net_0"].weight.mul_(3)  # type: ignore[union-attr, operator]
        torch.testing.assert_close(net(pictures(net).float()), once(pictures(net).float()), rtol=1e-5, atol=1e-5)
    (joined,) = [entry for entry in net.architecture.nodes if isinstance(entry.layer, WeightedSum)]
    assert joined.layer == WeightedSum(initial=(2.0, 1.0)) and joined.sources == ("net_0", "net_0")


def test_a_gain_goes_into_the_threshold(tmp_path: Path) -> None:
    """r twice as large, or a scale of 2 in front, halve it; the potentials are the same up to that."""
    louder = read(tmp_path, foreign(**{"net.1": NirNode("LIF", _lif((3, 6, 8), r=20.0))}))
    assert float(louder.neurons()["net_1"].threshold) == 0.5
    scaled = foreign()
    scaled.nodes["twice"] = node("Scale", scale=np.full((3, 6, 8), 2.0))
    scaled.edges[1:2] = [("net.0", "twice"), ("twice", "net.1")]
    assert float(read(tmp_path, scaled).neurons()["net_1"].threshold) == 0.5


def test_sums_over_windows_reach_the_next_convolution(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    second = {
        "weight": rng.normal(size=(5, 3, 3, 4)).astype(np.float32),
        "bias": np.ones(5, dtype=np.float32),
        "stride": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
    }
    graph = foreign(**{"net.3": node("Conv2d", **second), "net.4": None})
    graph = line(**graph.nodes)
    net = read(tmp_path, graph)
    last = net.layers[net.architecture.nodes[-1].name]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    assert np.array_equal(last.weight.detach().numpy(), 4 * second["weight"])
    assert last.bias.tolist() == [1.0] * 5


def test_flat_input_takes_images_of_any_such_size(tmp_path: Path) -> None:
    nodes = {
        "in": node("Input", shape=[12]),
        "fc": node("Affine", weight=np.ones((2, 12)), bias=np.zeros(2)),
        "lif": NirNode("IF", {"r": np.ones(2), "v_threshold": np.ones(2)}),
        "out": node("Output", shape=[2]),
    }
    net = read(tmp_path, line(**nodes), dt=1.0)
    assert net.architecture.input.shape == (1, 1, 12) and net.mean.dtype == torch.float64
    net = read(tmp_path, line(**nodes), dt=1.0, image_shape=(3, 2, 2))
    assert net(torch.rand(2, 3, 2, 2).double()).shape == (2, 2)
    with pytest.raises(FileError, match=r"shape \(12,\), which images of shape \(3, 2, 3\) do not fit"):
        read(tmp_path, line(**nodes), dt=1.0, image_shape=(3, 2, 3))


def test_what_nir_does_not_say_is_given(tmp_path: Path) -> None:
    neuron = NeuronSettings(reset="soft", leak=0.2)
    net = read(tmp_path, foreign(), neuron=neuron)
    assert net.neurons()["net_1"].settings == replace(neuron, leak=0.9)
    with pytest.raises(SettingsError, match="does not say its dt; give it"):
        read(tmp_path, foreign(), dt=None)
    with pytest.raises(SettingsError, match="does not say its time_steps; give it"):
        read(tmp_path, foreign(), time_steps=None)
    with pytest.raises(SettingsError, match="time_steps = 0 is not allowed"):
        read(tmp_path, foreign(), time_steps=0)


# Neurons.


@pytest.mark.parametrize("discretisation", ["euler", "exponential"])
@pytest.mark.parametrize("dt", [1e-4, 1e-3, 1.0])
def test_step_is_the_equations(discretisation: Any, dt: float) -> None:
    """Against the equations themselves: one Euler step, or a thousand small ones."""
    tau, r, threshold = 7 * dt, 3.0, 0.8
    step = step_neuron("LIF", _lif((), tau=tau, r=r, v_threshold=threshold), (), dt, discretisation, "x")
    v, ours, current, parts = 0.0, 0.0, 0.4, 1 if discretisation == "euler" else 100_000
    for _ in range(3):
        for _ in range(parts):
            v += dt / parts * (-v + r * current) / tau
        ours = step.leak * ours + current
    # In units of their thresholds.
    assert math.isclose(v / threshold, ours / step.threshold, rel_tol=1e-12 if parts == 1 else 1e-5)


def test_what_other_frameworks_write_gives_their_steps() -> None:
    """Leak and threshold: snnTorch beta 0.9 and 1, SpikingJelly, IF of sinabs and Norse, synapses that forget."""
    beta = np.float32(0.9)
    tau = np.float32(1e-4) / (1 - beta)
    snntorch = _lif((), tau=tau, r=tau / np.float32(1e-4), v_threshold=0.7)
    snntorch = {key: value.astype(np.float32) for key, value in snntorch.items()}
    step = step_neuron("LIF", snntorch, (), 1e-4, "euler", "x")
    assert np.float32(step.leak) == beta and step.threshold == np.float32(0.7)
    endless = _lif((), tau=np.inf, r=np.inf, v_threshold=0.7)
    assert asdict(step_neuron("LIF", endless, (), 1e-4, "euler", "x")) == {"leak": 1.0, "threshold": 0.7}
    integrate = {"r": np.array(1e4), "v_threshold": np.array(0.7)}
    assert asdict(step_neuron("IF", integrate, (), 1e-4, "euler", "x")) == {"leak": 1.0, "threshold": 0.7}
    assert step_neuron("IF", integrate | {"r": np.array(1.0)}, (), 1.0, "euler", "x").threshold == 0.7
    forgets = _lif((), v_threshold=0.7) | {"tau_mem": np.array(1e-3), "tau_syn": np.array(1e-4), "w_in": np.array(2.0)}
    assert math.isclose(step_neuron("CubaLIF", forgets, (), 1e-4, "euler", "x").threshold, 0.35)


def _neuron_cases() -> list[tuple[str, Arrays, type[HardspikeError], str]]:
    refused, damaged = UnsupportedLayerError, FileError
    cuba = _lif((2,)) | {"tau_mem": np.full(2, 1e-3), "tau_syn": np.full(2, 3e-4)}
    return [
        ("LIF", _lif((2,)) | {"tau": np.array([1e-3, 2e-3])}, refused, "tau is between 0.001 and 0.002; one number"),
        ("LIF", _lif((2,), v_leak=0.1), refused, "v_leak = 0.1 has no place here; allowed: 0"),
        ("LIF", _lif((2,), v_reset=-0.1), refused, "v_reset = -0.1"),
        ("LIF", _lif((2,), tau=1e-4), refused, "tau = 0.0001 leaves nothing after a step of dt = 0.0001"),
        ("LIF", _lif((2,), tau=-1.0), refused, "tau = -1"),
        ("LIF", _lif((2,), tau=np.inf), refused, "gain 0 per step"),
        ("LIF", _lif((2,), r=-1.0), refused, "must both be positive"),
        ("LIF", _lif((2,), v_threshold=0.0), refused, "threshold 0 and gain 1"),
        ("LIF", _lif((2,), v_threshold=np.nan), refused, "v_threshold is between nan and nan"),
        ("LIF", _lif((3,)), damaged, r"v_threshold has shape \(3,\), but the layer has \(2,\)"),
        ("LIF", {key: value for key, value in _lif((2,)).items() if key != "r"}, damaged, "has no numbers 'r'"),
        ("CubaLIF", cuba, refused, "tau_syn = 0.0003 keeps a synaptic current.*allowed: tau_syn = dt"),
    ]


@pytest.mark.parametrize(("kind", "values", "error", "message"), _neuron_cases())
def test_neurons_that_no_step_is_the_same_as_are_refused(
    kind: str, values: Arrays, error: type[HardspikeError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        step_neuron(kind, values, (2,), 1e-4, "euler", "node 'n'")
    assert str(caught.value).startswith("node 'n'") and "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_firing_at_a_threshold_is_firing_above_the_next_smaller_number(dtype: Any) -> None:
    for threshold in (0.3, 1.0, 7.5e-3, 1e6):
        at = dtype(threshold)
        written = nir_neuron(0.9, float(at), False, (), 1e-4, dtype)["v_threshold"]
        assert np.nextafter(at, dtype(0)) <= written < at and fires_at(float(written), dtype) == at
        assert nir_neuron(0.9, float(at), True, (), 1e-4, dtype)["v_threshold"] == at


# Bad files.

Edit = Callable[[Any], None]


def _put(name: str, value: Any) -> Edit:
    def edit(file: Any) -> None:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value

    return edit


def _claim(name: str) -> Edit:
    def edit(file: Any) -> None:
        del file[name]
        file.create_dataset(name, shape=(1 << 27,), dtype="f8", chunks=True)

    return edit


def _link(name: str, target: Any) -> Edit:
    def edit(file: Any) -> None:
        del file[name]
        file[name] = target

    return edit


CONV, LIF = "node/nodes/net.0", "node/nodes/net.1"
REFUSED, DAMAGED = UnsupportedLayerError, FileError
BAD: tuple[tuple[Edit, type[HardspikeError], str], ...] = (
    (_put("node", None), DAMAGED, "has no group 'node/nodes'; it is no NIR file"),
    (_put("node/type", b"LIF"), DAMAGED, "node is of type 'LIF', not NIRGraph"),
    (_put("node/edges", None), DAMAGED, "node has no dataset 'edges'"),
    (_put("node/edges", [1, 2]), DAMAGED, "node/edges has shape"),
    (_put("node/edges", [[b"in", b"nowhere"]]), DAMAGED, "edge 'in' to 'nowhere' is there twice or joins no nodes"),
    (_put("node/edges", [[b"in", b"net.0"]] * 2), DAMAGED, "is there twice"),
    (_put("node/edges", [[b"net.0", b"net.1"], [b"net.1", b"net.0"]]), REFUSED, "is part of a cycle or behind one"),
    (_put("node/edges", [[b"in", b"out"]]), DAMAGED, r"node 'net.0' \(Conv2d\) has 0 inputs"),
    (_put(f"{CONV}/type", 3), DAMAGED, "node 'net.0': dataset 'type' is not one text"),
    (_put(f"{CONV}/weight", None), DAMAGED, r"node 'net.0' \(Conv2d\): 'weight' is missing"),
    (_put(f"{CONV}/weight", np.zeros((3, 2, 3))), DAMAGED, r"'weight' has shape \(3, 2, 3\) of float64.*on 4 axes"),
    (_put(f"{CONV}/weight", np.zeros((3, 5, 3, 3))), DAMAGED, "1 groups do not fit an input of"),
    (_put(f"{CONV}/weight", np.full((3, 2, 3, 3), np.nan)), DAMAGED, "holds a value that is not finite"),
    (_put(f"{CONV}/weight", b"text"), DAMAGED, "'weight' has shape .* it must be numbers on 4 axes"),
    (_claim(f"{CONV}/weight"), DAMAGED, "dataset 'weight' claims 134217728 values"),
    (_link(f"{CONV}/weight", h5py.ExternalLink("/etc/hosts", "x")), DAMAGED, "'weight' is missing"),
    (_link(f"{CONV}/weight", h5py.SoftLink("/node/nodes/net.4/weight")), DAMAGED, "has no dataset 'weight'"),
    (_link(CONV, h5py.SoftLink("/node/nodes/net.1")), DAMAGED, "node 'net.0' is no group"),
    (_put(f"{CONV}/stride", -1), DAMAGED, r"'stride' is \[-1\]; it must be integers from 1"),
    (_put(f"{CONV}/stride", [1, 1, 1]), DAMAGED, "must be one or two numbers"),
    (_put(f"{CONV}/stride", 1e12), DAMAGED, "must be integers from 1 to"),
    (_put(f"{CONV}/padding", -1), DAMAGED, "'padding' is"),
    (_put(f"{CONV}/padding", b"mirror"), REFUSED, "padding 'mirror' is not the same at begin and end"),
    (_put(f"{CONV}/groups", [1, 1]), DAMAGED, "'groups' is .* must be one number"),
    (_put(f"{CONV}/input_shape", [6, 6]), DAMAGED, r"its input_shape is not \(6, 8\)"),
    (_put(f"{CONV}/dilation", 9), DAMAGED, "would have output shape"),
    (_put("node/nodes/in/shape", [2, 0, 8]), DAMAGED, "'shape' is"),
    (_put("node/nodes/in/shape", [2, 1 << 40, 8]), DAMAGED, "'shape' is"),
    (_put("node/nodes/in/shape", [3, 2, 6, 8]), REFUSED, "without the batch"),
    (_put("node/nodes/in/type", b"Output"), DAMAGED, r"node 'in' \(Output\) has 0 inputs"),
    (_put("node/nodes/out/type", b"Input"), DAMAGED, r"node 'out' \(Input\) has 1 inputs"),
    (_put("node/nodes/net.2/stride", 1), REFUSED, r"kernel \(2, 2\), stride \(1, 1\).*windows side by side"),
    (_put("node/nodes/net.3/start_dim", 1), REFUSED, "start_dim 1 and end_dim -1 leave axes"),
    (
        _put("node/nodes/net.4/weight", np.zeros((5, 35))),
        DAMAGED,
        r"weight has shape \(5, 35\), but its input has \(36,\)",
    ),
    (_put(f"{LIF}/type", b"CubaLI"), REFUSED, r"node 'net.1' \(CubaLI\) is not supported: it integrates over time"),
    (_put(f"{LIF}/type", b"Threshold"), REFUSED, "has no potential; use IF"),
    (_put(f"{LIF}/type", b"NIRGraph"), REFUSED, "a graph in itself"),
    (_put(f"{LIF}/type", b"Resonator"), REFUSED, "it is unknown; supported are Input"),
    (_put("node/metadata/hardspike", b"[]"), DAMAGED, "metadata 'hardspike' of the graph is not what we write there"),
    (_put("node/metadata/hardspike", b'{"dt": "1"}'), DAMAGED, "is not what we write there"),
    (_put("node/metadata/hardspike", b"[" * 100_000), DAMAGED, "is not what we write there"),
    (
        _put("node/metadata/hardspike", b'{"image": {"mean": [NaN], "std": [1]}}'),
        DAMAGED,
        "metadata of the image are not",
    ),
    (
        _put("node/metadata/hardspike", b'{"nodes": {"net.1": {"leak": 1%s}}}' % (b"0" * 400)),
        DAMAGED,
        "not what we write",
    ),
    (
        _put("node/metadata/hardspike", b'{"nodes": {"net.1": {"neuron": {"reset": "no"}, "leak": 1}}}'),
        DAMAGED,
        "reset = 'no'",
    ),
)


@pytest.mark.parametrize(("edit", "error", "message"), BAD)
def test_bad_file_is_one_clear_line(edit: Edit, error: type[HardspikeError], message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    write_nir_graph(path, foreign())
    with h5py.File(path, "r+") as file:
        edit(file)
    with pytest.raises(error, match=message) as caught:
        read_nir(path, dt=1e-4, time_steps=3)
    assert type(caught.value) is error
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file; expected a NIR file"):
        read_nir(tmp_path / "none.nir")
    (tmp_path / "text.nir").write_text("not HDF5 at all")
    with pytest.raises(FileError, match="not readable as HDF5"):
        read_nir(tmp_path / "text.nir")


def test_what_nir_has_no_place_for_is_refused_and_nothing_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.nir"
    write_nir(path, SpikingNetwork(dag(), 2))
    before = path.read_bytes()
    norm = BatchNorm(steps=2, shift=False)
    stepwise = chain(image(1, 4, 4), [("a", conv(2)), ("n", norm), ("s", Spiking()), *HEAD])
    slashed = chain(image(1, 4, 4), [("a/b", conv(2)), ("s", Spiking()), *HEAD])
    for net, message in (
        (SpikingNetwork(dag()), "an ANN .no timesteps. cannot be written as NIR"),
        (SpikingNetwork(stepwise, 2), "layer 'n': a batch norm of its own for each of 2 timesteps"),
        (SpikingNetwork(slashed, 2), "layer 'a/b': HDF5 has another use for this name"),
    ):
        with pytest.raises(UnsupportedLayerError, match=message):
            write_nir(path, net)
    with pytest.raises(SettingsError, match="dt = 0 is not allowed"):
        write_nir(path, SpikingNetwork(dag(), 2), dt=0)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_poisson_coding_stays_with_the_host(tmp_path: Path) -> None:
    """The file's Input takes the spikes; rate and normalisation are metadata."""
    coded = ImageInput(shape=(1, 5, 4), mean=(0.5,), std=(0.25,), coding="poisson", poisson_rate=0.7)
    net = trained(chain(coded, [*block("a", conv(4)), ("d", Dropout(share=0.5)), *HEAD]), torch.float32)
    write_nir(tmp_path / "a.nir", net)
    graph = read_nir_graph(tmp_path / "a.nir")
    assert {name: entry.kind for name, entry in graph.nodes.items()}["a"] == "Conv2d"
    assert ("input", "a") in graph.edges and json.loads(graph.metadata["hardspike"])["image"]["poisson_rate"] == 0.7
    back = read_nir(tmp_path / "a.nir")
    assert back.architecture.input == coded and back.architecture.shapes[INPUT] == (1, 5, 4)
