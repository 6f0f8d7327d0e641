"""NIR files of ours: what is written comes back the same, and what NIR has no place for is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from nir_files import lif
from random_architectures import architectures
from settled_networks import pictures
from small_networks import ARCHITECTURES, HEAD, block, conv, image
from torch import nn

from hardspike.convert.nir_file import NirNode, read_nir_graph, write_nir_graph
from hardspike.convert.nir_in import read_nir
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
from hardspike.snn.errors import SettingsError, UnsupportedLayerError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import ScalarWeights, SpikingNetwork


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
        expected, logits = net(pictures(net.architecture, 3)), back(pictures(net.architecture, 3))
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
        torch.testing.assert_close(
            back(pictures(net.architecture, 3)), net(pictures(net.architecture, 3)), rtol=1e-9, atol=1e-9
        )


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
            read_nir(tmp_path / "a.nir")(pictures(net.architecture, 3)),
            net(pictures(net.architecture, 3)),
            rtol=1e-9,
            atol=1e-9,
        )


def test_a_node_that_somebody_changed_counts_as_it_is(tmp_path: Path) -> None:
    """Metadata only add what rounding hides: neither an old leak nor an old normalisation wins over the nodes."""
    net = trained(chain(image(1, 5, 4), [*block("a", conv(4)), *HEAD]), torch.float64)
    graph = nir_graph(net, 1e-4)
    spike = graph.nodes["a_spike"]
    graph.nodes["a_spike"] = NirNode("LIF", {**spike.values, **lif((4, 5, 4), tau=2e-4, r=2.0)})
    graph.nodes["input_normalised"].values["bias"][:] = 0.5
    write_nir_graph(tmp_path / "a.nir", graph)
    back = read_nir(tmp_path / "a.nir")
    assert float(back.neurons()["a_spike"].leak) == 0.5 and back.architecture.nodes[1].name == "a"
    assert back.architecture.input.mean == (0.0,) and back.architecture.nodes[0].name == "input_normalised"
    assert set(back.layers["input_normalised"].bias.tolist()) == {0.5}  # type: ignore[union-attr, operator]


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
