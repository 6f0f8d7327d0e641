"""Energy against SANA-FE itself (marker `peers`): the same network on the same cores, to 1e-9.

SANA-FE delivers a spike one step later than this graph, so both run as many steps longer as there are layers, without input and
bias; every neuron is updated at every step there too (`force_update`), as on the chip.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.oracle import Oracle
from hardspike.deploy.placement import Placement, place
from hardspike.deploy.placement_events import CoreEvents, PlacedNetwork
from hardspike.deploy.placement_price import price_placed
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

sanafe = pytest.importorskip("sanafe", reason="compares with SANA-FE 2.2.9, which is not installed")
pytestmark = pytest.mark.peers

LOIHI1 = load_profile("loihi1")
STEPS = 20


def _graph(image: Shape, *layers: tuple[str, Synapse, int]) -> ProcessGraph:
    made: list[GraphLayer] = []
    shapes = {INPUT: image}
    for name, synapse, threshold in layers:
        if name in shapes:
            made[-1] = replace(made[-1], synapses=(*made[-1].synapses, synapse))
            continue
        shapes[name] = synapse.output_shape(shapes[synapse.source])
        # Leaks by 1/8 of the potential, rounded to 1/64 of a weight step there and here.
        neurons = NeuronGroup(threshold=threshold, bias=np.zeros(1, np.int32), potential_decay=512)
        made.append(GraphLayer(name=name, shape=shapes[name], synapses=(synapse,), neurons=neurons))
    contract = InputContract(shape=image, coding="binary", message_bits=1)
    return ProcessGraph(
        input=contract,
        layers=tuple(made),
        time_steps=STEPS + len(made),
        numerics=LOIHI1.numerics,
        profile="loihi1",
    )


def _weight(rng: np.random.Generator, *shape: int) -> np.ndarray:
    weight = (2 * rng.integers(-40, 60, shape)).astype(np.int32)
    weight[rng.random(shape) < 0.2] = 0  # no synapse
    weight.flat[0], weight.flat[-1] = -2, 2
    return weight


def _dense_net(rng: np.random.Generator) -> ProcessGraph:
    return _graph(
        (16,),
        ("hidden", DenseSynapse(source=INPUT, weight=_weight(rng, 32, 16)), 64),
        ("out", DenseSynapse(source="hidden", weight=_weight(rng, 10, 32)), 64),
    )


def _conv_net(rng: np.random.Generator) -> ProcessGraph:
    return _graph(
        (2, 6, 5),
        ("conv", ConvSynapse(source=INPUT, weight=_weight(rng, 3, 2, 3, 3), padding=(1, 1)), 100),
        ("down", ConvSynapse(source="conv", weight=_weight(rng, 4, 3, 3, 2), stride=(2, 1)), 100),
        ("out", DenseSynapse(source="down", weight=_weight(rng, 5, 4 * 2 * 4)), 64),
    )


def _branched_net(rng: np.random.Generator) -> ProcessGraph:
    return _graph(
        (12,),
        ("a", DenseSynapse(source=INPUT, weight=_weight(rng, 20, 12)), 64),
        ("b", DenseSynapse(source="a", weight=_weight(rng, 15, 20)), 64),
        ("b", DenseSynapse(source="a", weight=_weight(rng, 15, 20)), 64),
        ("out", DenseSynapse(source="b", weight=_weight(rng, 4, 15)), 64),
    )


def _events(graph: ProcessGraph, placement: Placement, spikes: np.ndarray) -> tuple[PlacedNetwork, CoreEvents]:
    messages = torch.from_numpy(spikes)[:, None]
    trace = EmulatorBackend().run(graph, messages, keep_states=True)
    assert trace.states is not None
    network = PlacedNetwork(graph, placement)
    return network, network.count({INPUT: messages, **trace.states.spikes})


@pytest.fixture(scope="module")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SANA-FE's own loihi.yaml, with 64 instead of 1024 input units per core: the only thing that makes it slow."""
    text = (Path(sanafe.__file__).parent / "examples" / "loihi.yaml").read_text(encoding="utf-8")
    assert "loihi_inputs[0..1023]" in text
    path = tmp_path_factory.mktemp("sanafe") / "loihi.yaml"
    path.write_text(text.replace("loihi_inputs[0..1023]", "loihi_inputs[0..63]"), encoding="utf-8")
    return path


def _run_sanafe(graph: ProcessGraph, placement: Placement, spikes: np.ndarray, architecture: Path) -> dict[str, float]:
    """SANA-FE's result of the same network, its neurons on the same cores, its inputs on the first one."""
    arch = sanafe.load_arch(str(architecture))
    net = sanafe.Network()
    cores = {core.number: arch.tiles[core.tile].cores[core.number % 4] for core in placement.cores}
    groups = {INPUT: net.create_neuron_group(INPUT, spikes[0].size)}
    flat = spikes.reshape(len(spikes), -1)
    for index, neuron in enumerate(groups[INPUT]):
        neuron.set_attributes(
            soma_hw_name=f"loihi_inputs[{index}]", model_attributes={"spikes": flat[:, index].astype(int).tolist()}
        )
    lif = dict(
        reset=0.0, reset_mode="hard", leak_decay=(4096 - 512) / 4096, input_decay=0.0, bias=0.0, force_update=True
    )
    kinds = {}
    for layer in graph.layers:
        attributes = lif | {"threshold": float(layer.neurons.threshold)}
        size = int(np.prod(layer.shape))
        groups[layer.name] = net.create_neuron_group(layer.name, size)
        kinds[layer.name] = (
            "loihi_conv_synapse" if isinstance(layer.synapses[0], ConvSynapse) else "loihi_dense_synapse"
        )
        for neuron in groups[layer.name]:
            neuron.set_attributes(
                soma_hw_name="loihi_lif",
                default_synapse_hw_name=kinds[layer.name],
                model_attributes=attributes,
            )
    for name, fans in Oracle(graph)._fan_out.items():
        for source, fan in fans:
            for sender, (targets, weights) in enumerate(fan):
                for target, weight in zip(targets, weights, strict=True):
                    groups[source][sender].connect_to_neuron(groups[name][target], {"weight": float(weight)})
    for neuron in groups[INPUT]:
        neuron.map_to_core(arch.tiles[0].cores[0])
    for core in placement.cores:
        shape = graph.shapes[core.layer]
        numbers = np.arange(int(np.prod(shape))).reshape(shape)[tuple(slice(*span) for span in core.box)].ravel()
        for number in numbers.tolist():
            groups[core.layer][number].map_to_core(cores[core.number])
    chip = sanafe.SpikingChip(arch)
    chip.load(net)
    result: dict[str, float] = chip.sim(len(spikes), timing_model="simple")
    return result


@pytest.mark.parametrize("net", [_dense_net, _conv_net, _branched_net])
@pytest.mark.parametrize("neurons_per_core", [1024, 2])
def test_energy_equals_sanafe(net: object, neurons_per_core: int, architecture: Path) -> None:
    rng = np.random.default_rng(7)
    graph = net(rng)  # type: ignore[operator]
    assert LOIHI1.cores is not None
    profile = replace(LOIHI1, cores=replace(LOIHI1.cores, neurons_per_core=neurons_per_core))
    placement = place(graph, profile)
    spikes = np.zeros((graph.time_steps, *graph.input.shape), np.int64)
    spikes[:STEPS] = rng.random((STEPS, *graph.input.shape)) < 0.35
    found = _run_sanafe(graph, placement, spikes, architecture)
    network, events = _events(graph, placement, spikes)
    counts = events.totals()
    priced = price_placed(network, events, [profile])
    energy = priced.energies["loihi1: sanafe"]
    assert counts["active"] > 50 and (neurons_per_core > 2 or counts["hops_east_west"] > 0 < counts["hops_north_south"])
    assert found["neurons_fired"] == counts["active"] + int(spikes.sum())
    assert found["spikes"] == counts["operations"] + counts["operations_convolution"]
    assert found["packets_sent"] == counts["messages_out"] == counts["messages_in"]
    parts = {"synapse": ("synapses",), "soma": ("neurons",), "network": ("messages", "hops")}
    for theirs, ours in parts.items():
        priced_part = sum(float(energy.parts[part].sum()) for part in ours)
        assert priced_part == pytest.approx(found["energy"][theirs], rel=1e-9), theirs
    assert float(energy.dynamic_j.sum()) == pytest.approx(found["energy"]["total"], rel=1e-9)
    # Its simple model lets a core receive and update at once, and its inputs share a core; here a core does one after the other.
    seconds, host = float(priced.step_s["loihi1: sanafe"].sum()), 5.1e-9 * float(events.messages_out[..., -1].sum())
    assert found["sim_time"] - host <= seconds * (1 + 1e-9) and seconds <= 2 * found["sim_time"]
