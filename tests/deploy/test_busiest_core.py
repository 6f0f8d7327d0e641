"""Events per core against a walk over all synapses; times and prices that follow from them."""

import dataclasses

import pytest
import torch
from random_graphs import CASES, build
from toy_graphs import toy_graph

from hardspike.deploy.busiest_core import BusiestCore, core_seconds, step_seconds
from hardspike.deploy.emulator import Emulator
from hardspike.deploy.energy_report import energy_report
from hardspike.deploy.oracle import Oracle
from hardspike.deploy.placement import Placement, place
from hardspike.deploy.placement_events import PlacedNetwork
from hardspike.deploy.placement_price import power_energy_j, price_placed
from hardspike.deploy.process_graph import ConvSynapse, ProcessGraph
from hardspike.hw_profiles.profile import Profile, load_profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import SettingsError

LOIHI1 = load_profile("loihi1")
TIMES = LOIHI1.times
BY_NAME = {case.name: case for case in CASES}
CASES_AND_CORES = [
    ("if graded", 17),
    ("if graded", 1024),
    ("groups", 40),
    ("constant channel and bias per position", 33),
]
Counts = dict[str, list[list[int]]]


def _small(neurons_per_core: int, **changes: int) -> Profile:
    assert LOIHI1.cores is not None
    return dataclasses.replace(
        LOIHI1, cores=dataclasses.replace(LOIHI1.cores, neurons_per_core=neurons_per_core, **changes)
    )


def _sent(graph: ProcessGraph) -> dict[str, torch.Tensor]:
    images = torch.rand(3, *graph.input.shape, generator=torch.Generator().manual_seed(3)).double()
    images[:, :, :: 2 if images.shape[2] > 1 else 1, ::2] = 0  # silent pixels
    emulator = Emulator(graph)
    with torch.no_grad(), emulator.watching() as sent:
        emulator(images)
    return sent


def _slow_counts(graph: ProcessGraph, placement: Placement, sent: dict[str, torch.Tensor], sample: int) -> Counts:
    """Every event follows its synapses one by one. Per kind of event, [step][core], the host last."""
    oracle, cores = Oracle(graph), placement.cores
    owner: dict[tuple[str, int], int] = {}
    shapes = graph.shapes
    for index, core in enumerate(cores):
        flat = torch.arange(torch.Size(shapes[core.layer]).numel()).reshape(shapes[core.layer])
        for neuron in flat[tuple(slice(*span) for span in core.box)].flatten().tolist():
            owner[core.layer, neuron] = index
    kinds = ("operations", "operations_convolution", "active", "idle", "messages_in", "messages_out", "hops_east_west",
             "hops_north_south", "off_chip")  # fmt: skip
    found = {kind: [[0] * (len(cores) + 1) for _ in range(graph.time_steps)] for kind in kinds}
    for step in range(graph.time_steps):
        reached: dict[tuple[str, int], set[int]] = {}
        for layer in graph.layers:
            fans = oracle._fan_out[layer.name]
            for synapse, (source, fan) in zip(layer.synapses, fans, strict=True):
                kind = "operations_convolution" if isinstance(synapse, ConvSynapse) else "operations"
                events = sent[source][sample] if source == INPUT else sent[source][step, sample]
                for sender, event in enumerate(events.flatten().tolist()):
                    for target in fan[sender][0] if event else []:
                        core = owner[layer.name, target]
                        found[kind][step][core] += 1
                        reached.setdefault((source, sender), set()).add(core)
            fired = sent[layer.name][step, sample] if layer.name in sent else torch.zeros(layer.shape)
            for neuron, spike in enumerate(fired.flatten().tolist()):
                found["active" if spike else "idle"][step][owner[layer.name, neuron]] += 1
        for (source, sender), targets in reached.items():
            here = len(cores) if source == INPUT else owner[source, sender]
            at = (0, 0, 0) if source == INPUT else (cores[here].chip, cores[here].column, cores[here].row)
            for core in targets:
                found["messages_in"][step][core] += 1
                found["messages_out"][step][here] += 1
                if cores[core].chip != at[0]:
                    found["off_chip"][step][here] += 1
                    continue
                found["hops_east_west"][step][here] += abs(cores[core].column - at[1])
                found["hops_north_south"][step][here] += abs(cores[core].row - at[2])
    return found


@pytest.mark.parametrize(("name", "neurons_per_core"), CASES_AND_CORES)
@pytest.mark.parametrize("cores_per_chip", [128, 5])
def test_events_equal_a_walk_over_all_synapses(name: str, neurons_per_core: int, cores_per_chip: int) -> None:
    graph = build(BY_NAME[name])
    profile = _small(neurons_per_core, cores_per_chip=cores_per_chip, cores_per_tile=2, tiles_high=2)
    placement = place(graph, profile, check_messages=False)
    sent = _sent(graph)
    events = PlacedNetwork(graph, placement).count(sent)
    for kind, expected in _slow_counts(graph, placement, sent, 1).items():
        assert getattr(events, kind)[:, 1].tolist() == expected, kind
    if neurons_per_core < 1024:
        assert placement.chips == (1 if cores_per_chip == 128 else -(-len(placement.cores) // 5))
        assert int(events.hops_east_west.sum()) + int(events.hops_north_south.sum()) > 0


@pytest.mark.parametrize(("name", "neurons_per_core"), CASES_AND_CORES)
def test_time_is_that_of_the_busiest_core(name: str, neurons_per_core: int) -> None:
    graph = build(BY_NAME[name])
    placement = place(graph, _small(neurons_per_core), check_messages=False)
    sent = _sent(graph)
    busiest = BusiestCore(graph, placement, TIMES)
    found, counts = busiest.seconds(sent), _slow_counts(graph, placement, sent, 1)
    for key, times in TIMES.items():
        total = 0.0
        for step in range(graph.time_steps):
            loads = [
                counts["operations"][step][core] * times.synaptic_operation.value
                + counts["operations_convolution"][step][core] * times.synaptic_operation_convolution.value
                + counts["messages_in"][step][core] * times.message_in.value
                + counts["messages_out"][step][core] * (5.1 if key == "sanafe" else 0)
                + counts["active"][step][core] * (times.neuron_update_active.value + times.spike_out.value)
                + counts["idle"][step][core] * times.neuron_update_idle.value
                for core in range(len(placement.cores))
            ]
            total += max(loads) + times.barrier_ns(placement.tiles)
        assert float(found[key][1]) == pytest.approx(total * 1e-9, rel=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_events_of_branches_equal_a_walk_over_all_synapses(seed: int) -> None:
    graph = toy_graph(seed)
    placement = place(graph, _small(2, cores_per_tile=1, tiles_high=2), check_messages=False)
    sent = _sent(graph)
    events = PlacedNetwork(graph, placement).count(sent)
    for kind, expected in _slow_counts(graph, placement, sent, 1).items():
        assert getattr(events, kind)[:, 1].tolist() == expected, kind


def test_a_constant_input_and_the_same_at_every_step_count_alike() -> None:
    graph = build(BY_NAME["if graded"])
    sent = _sent(graph)
    network = PlacedNetwork(graph, place(graph, _small(17), check_messages=False))
    repeated = sent | {INPUT: sent[INPUT].expand(graph.time_steps, *sent[INPUT].shape)}
    for batch in (slice(0, 3), slice(1, 2)):
        some = {name: value[:, batch] for name, value in repeated.items()}
        constant = some | {INPUT: sent[INPUT][batch]}
        assert network.count(some).totals() == network.count(constant).totals()


def test_the_barrier_is_that_of_the_tiles_in_use() -> None:
    assert [TIMES["sanafe"].barrier_ns(tiles) for tiles in (1, 2, 3, 4, 28, 29, 99)] == [
        600, 1000, 1000, 1400, 1400, 1800, 1800,
    ]  # fmt: skip
    assert TIMES["davies2018"].barrier_ns(31) == 113 and TIMES["davies2018"].barrier_ns(32) == 465
    later = dataclasses.replace(TIMES["sanafe"], barrier=TIMES["sanafe"].barrier[1:])
    assert later.barrier_ns(1) == 1000
    shuffled = dataclasses.replace(TIMES["sanafe"], barrier=TIMES["sanafe"].barrier[::-1])
    assert shuffled.barrier_ns(3) == 1000


def test_energy_per_layer_step_core_and_sample() -> None:
    graph = build(BY_NAME["if graded"])
    network = PlacedNetwork(graph, place(graph, _small(17), check_messages=False))
    events = network.count(_sent(graph))
    priced = price_placed(network, events, [LOIHI1])
    assert list(priced.energies) == list(priced.step_s) == ["loihi1: davies2018", "loihi1: sanafe"]
    davies, sanafe = priced.energies.values()
    n = events.totals()
    expected = {
        "davies": 23.6 * (n["operations"] + n["operations_convolution"]) + 81 * n["active"] + 52 * n["idle"]
        + 1.7 * n["messages_out"] + 3.0 * n["hops_east_west"] + 4.0 * n["hops_north_south"],
        "sanafe": 35.5 * n["operations"] + 24.0 * n["operations_convolution"] + 72.8 * (n["active"] + n["idle"])
        + 69.3 * n["active"] + 111 * n["messages_out"] + 3.0 * n["hops_east_west"] + 4.2 * n["hops_north_south"],
    }  # fmt: skip
    assert float(davies.dynamic_j.sum()) == pytest.approx(expected["davies"] * 1e-12, rel=1e-12)
    assert float(sanafe.dynamic_j.sum()) == pytest.approx(expected["sanafe"] * 1e-12, rel=1e-12)
    layers = sanafe.per_layer_j()
    assert list(layers) == ["conv0", "conv1", "output", INPUT]
    torch.testing.assert_close(torch.stack(list(layers.values())).sum(0), sanafe.dynamic_j.sum(2))
    assert float(sanafe.parts["neurons"][..., -1].sum()) == float(sanafe.parts["synapses"][..., -1].sum()) == 0
    assert float(sanafe.parts["messages"][..., -1].sum()) > 0  # the host's messages
    low, high = priced.dynamic_interval_j()
    assert bool((low < high).all())
    torch.testing.assert_close(low, davies.dynamic_j.sum((0, 2)))
    short, long = priced.seconds_interval()
    assert bool((short < long).all())


def test_a_total_needs_every_term_and_static_power() -> None:
    graph = build(BY_NAME["if graded"])
    network = PlacedNetwork(graph, place(graph, _small(17), check_messages=False))
    events = network.count(_sent(graph))
    davies, sanafe = price_placed(network, events, [LOIHI1]).energies.values()
    seconds = torch.full((3,), 1e-3, dtype=torch.float64)
    with pytest.raises(
        SettingsError, match="'loihi1: davies2018' does not price barrier synchronisation, so there is no total"
    ):
        davies.total_j(seconds)
    torch.testing.assert_close(sanafe.static_j(seconds), 0.104 * seconds)
    torch.testing.assert_close(sanafe.total_j(seconds), sanafe.dynamic_j.sum((0, 2)) + 0.104 * seconds)
    several = PlacedNetwork(graph, place(graph, _small(17, cores_per_chip=9), check_messages=False))
    across = price_placed(several, several.count(_sent(graph)), [LOIHI1]).energies["loihi1: sanafe"]
    assert across.unpriced == ("messages between chips",) and across.static_w == pytest.approx(
        0.104 * several.placement.chips
    )
    truenorth, spinnaker2 = load_profile("truenorth"), load_profile("spinnaker2")
    others = price_placed(network, events, [truenorth, spinnaker2]).energies
    n = events.totals()
    operations = n["operations"] + n["operations_convolution"]
    assert float(others["truenorth: all_in"].total_j(seconds).sum()) == pytest.approx(26e-12 * operations)
    assert others["spinnaker2: keras_spiking"].unpriced == (
        "messages between cores", "hops between tiles", "barrier synchronisation",
    )  # fmt: skip
    without = dataclasses.replace(LOIHI1, power=load_profile("cmos45").power)
    with pytest.raises(SettingsError, match="profile 'loihi1' has no static power"):
        price_placed(network, events, [without]).energies["loihi1: sanafe"].total_j(seconds)


def test_what_has_no_prices_is_not_priced() -> None:
    graph = build(BY_NAME["if graded"])
    loihi2 = load_profile("loihi2")
    placement = place(graph, loihi2)
    network = PlacedNetwork(graph, placement)
    events = network.count(_sent(graph))
    with pytest.raises(SettingsError, match=r"profiles loihi2 have no cost sets \(no per-operation energy is public\)"):
        price_placed(network, events, [loihi2])
    with pytest.raises(SettingsError, match="profile 'cmos45' prices bare arithmetic and is never put beside a chip"):
        price_placed(network, events, [LOIHI1, load_profile("cmos45")])
    assert "hops between tiles" in price_placed(network, events, [LOIHI1]).energies["loihi1: sanafe"].unpriced
    low, high = power_energy_j(loihi2, placement, torch.tensor([2.0], dtype=torch.float64))
    assert (float(low), float(high)) == (2 * 0.232, 2 * 2.26)
    with pytest.raises(SettingsError, match="profile 'cmos45' has no power"):
        power_energy_j(load_profile("cmos45"), placement, torch.ones(1))


def test_the_busiest_core_is_named() -> None:
    graph = build(BY_NAME["if graded"])
    network = PlacedNetwork(graph, place(graph, _small(17), check_messages=False))
    events = network.count(_sent(graph))
    seconds, core = step_seconds(events, TIMES["sanafe"], network.placement.tiles)
    loads = core_seconds(events, TIMES["sanafe"])
    assert bool((loads.gather(2, core[..., None])[..., 0] == loads.amax(2)).all())
    assert seconds.shape == core.shape == (graph.time_steps, 3)


def test_a_report_says_why_a_network_has_no_place() -> None:
    graph = build(BY_NAME["if graded"])
    images = torch.rand(2, *graph.input.shape, generator=torch.Generator().manual_seed(0))
    placed = energy_report(graph, images, {}, LOIHI1)
    assert placed.cores is not None and placed.not_placed is None and list(placed.sets[0].time_s) == list(TIMES)
    report = energy_report(graph, images, {}, _small(17, synapse_words=3))
    assert report.cores is None and not report.sets[0].time_s and report.sets[0].energy_j
    assert report.not_placed is not None and "synapse words, over 3 (loihi1: cores.synapse_words)" in report.not_placed
