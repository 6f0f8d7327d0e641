"""Equality 3 on whole networks: random ones of every form, and the zoo's; every spike, current, potential and output."""

import pytest
import torch
from needs_lava import needs_lava
from random_dags import random_dag, random_dag_messages
from zoo_graphs import zoo_graph

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.lava_backend import LavaBackend
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.trace import States
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.zoo import ZOO

SAMPLES = 3
# Those of 120 in which every layer fires, and with at most 25 processes.
PLAIN = (0, 14, 34, 6, 31, 75, 79, 89, 107, 119)
EXTENDED = (15, 25, 33, 7, 10, 21, 66, 79, 93, 114)


def _first_quickly(seeds: tuple[int, ...]) -> list[object]:
    return [pytest.param(seed, marks=[] if index < 2 else pytest.mark.slow) for index, seed in enumerate(seeds)]


def differing(graph: ProcessGraph, messages: torch.Tensor, **how: int) -> tuple[int, int, int]:
    """(values compared, values that differ, spikes) of the emulator and Lava."""
    found = LavaBackend(**how).run(graph, messages, keep_states=True)
    expected = EmulatorBackend().run(graph, messages, keep_states=True)
    pairs = [(found.output, expected.output)]
    for kind in ("spikes", "currents", "potentials"):
        mine, theirs = _kind(found.states, kind), _kind(expected.states, kind)
        assert mine.keys() == theirs.keys() == {layer.name for layer in graph.layers}
        pairs += [(mine[name], theirs[name]) for name in theirs]
    fired = [int(expected.spikes[layer.name].sum()) for layer in graph.layers if layer.neurons.spiking]
    assert all(fired), "a silent layer proves nothing"
    return sum(one.numel() for one, _ in pairs), sum(int((one != other).sum()) for one, other in pairs), sum(fired)


def _kind(states: States | None, kind: str) -> dict[str, torch.Tensor]:
    assert states is not None
    found: dict[str, torch.Tensor] = getattr(states, kind)
    return found


@needs_lava
@pytest.mark.parametrize("seed", _first_quickly(PLAIN))
def test_random_networks_of_lavas_own_neurons(seed: int) -> None:
    graph = random_dag(seed, plain_neurons=True)
    compared, wrong, _ = differing(graph, random_dag_messages(graph, seed, SAMPLES))
    assert compared > 100 and wrong == 0


@needs_lava
@pytest.mark.parametrize("seed", _first_quickly(EXTENDED))
def test_random_networks_of_every_neuron(seed: int) -> None:
    graph = random_dag(seed)
    assert any(layer.neurons.extensions for layer in graph.layers)
    compared, wrong, _ = differing(graph, random_dag_messages(graph, seed, SAMPLES))
    assert compared > 100 and wrong == 0


def test_the_random_networks_cover_every_form() -> None:
    graphs = [random_dag(seed, plain_neurons=True) for seed in PLAIN] + [random_dag(seed) for seed in EXTENDED]
    layers = [layer for graph in graphs for layer in graph.layers]
    assert {form for layer in layers for form in layer.neurons.extensions} == {"soft", "initial", "fire-first"}
    assert {graph.input.coding for graph in graphs} == {"graded", "binary", "signed"}
    assert {synapse.exponent for layer in layers for synapse in layer.synapses} == {0, 1, 3}
    assert sum(not graph.is_chain for graph in graphs) >= 15


@needs_lava
@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_networks_of_the_zoo(name: str) -> None:
    graph = zoo_graph(name)
    images = torch.rand(2, *graph.input.image_shape, generator=torch.Generator().manual_seed(1))
    compared, wrong, spikes = differing(graph, encode_images(images, graph))
    assert wrong == 0 and compared > 5_000 and spikes > 500


@needs_lava
@pytest.mark.parametrize(
    ("name", "neuron"),
    [
        ("vgg_digits", {}),
        pytest.param(
            "resnet_mini", {"reset": "soft", "initial_potential": 0.5, "strict": True}, marks=pytest.mark.slow
        ),
        pytest.param("vgg5", {"order": "fire-first", "reset": "soft", "leak": 0.9}, marks=pytest.mark.slow),
    ],
)
def test_poisson_networks_with_signed_spikes(name: str, neuron: dict[str, object]) -> None:
    graph = zoo_graph(name, coding="poisson", neuron=NeuronSettings(**neuron))  # type: ignore[arg-type]
    images = torch.rand(2, *graph.input.image_shape, generator=torch.Generator().manual_seed(2))
    messages = encode_images(images, graph, seed=5)
    assert graph.input.coding == "signed" and set(messages.unique().tolist()) == {-1, 0, 1}
    _, wrong, _ = differing(graph, messages)
    assert wrong == 0
