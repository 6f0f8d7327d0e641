"""What a network takes of chips and costs there: reasons for a misfit, sums over batches against one run, totals only where due."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from random_graphs import CASES
from random_graphs import build as build_graph
from small_networks import ARCHITECTURES, build, images

from hardspike.deploy import chip_report as chip_report_module
from hardspike.deploy.chip_fit import ChipFit, fit_chip
from hardspike.deploy.chip_report import Chip, ChipReport, chip_report
from hardspike.deploy.chip_work import WorkCounter
from hardspike.deploy.emulator import Emulator, EmulatorBackend
from hardspike.deploy.energy_report import Spread
from hardspike.deploy.fold import fold_network
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.operation_counts import ann_operations, effective_operations
from hardspike.deploy.placement import place
from hardspike.deploy.placement_events import PlacedNetwork
from hardspike.deploy.placement_price import price_placed
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.quantize import quantize_network
from hardspike.hw_profiles.profile import Profile, load_profile
from hardspike.snn.architecture import Architecture, BatchNorm, chain
from hardspike.snn.data import ImageSet
from hardspike.snn.network import SpikingNetwork

LOIHI1, LOIHI2 = load_profile("loihi1"), load_profile("loihi2")
GRAPHS = {case.name: build_graph(case) for case in CASES[:2]}
ARCHITECTURE = ARCHITECTURES["padded convolution, pool, dense"]
COUNT = 5


def _cut(neurons_per_core: int, profile: Profile = LOIHI1, **changes: int) -> Profile:
    """The chip with smaller cores."""
    assert profile.cores is not None
    return dataclasses.replace(
        profile, cores=dataclasses.replace(profile.cores, neurons_per_core=neurons_per_core, **changes)
    )


SMALL = _cut(40)
CHIPS = (LOIHI2, SMALL, _cut(40, cores_per_chip=4), load_profile("spinnaker2"), load_profile("truenorth"))


@cache
def _network() -> tuple[SpikingNetwork, ProcessGraph]:
    network = build(ARCHITECTURE)
    graph, _ = quantize_network(fold_network(network), LOIHI2)
    return network, graph


def _data() -> ImageSet:
    labels = torch.arange(COUNT) % 5
    return ImageSet(images(ARCHITECTURE, COUNT).float(), labels, 5)


@cache
def _report() -> ChipReport:
    network, graph = _network()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chip_report_module, "BATCH", 2)
        return chip_report(graph, network.float(), _data(), CHIPS)


def _chip(index: int) -> Chip:
    return _report().chips[index]


def test_reasons_of_a_misfit_are_all_named_and_what_it_would_take_is_still_shown() -> None:
    def reasons(found: ChipFit) -> list[str]:
        return [reason.split("; ")[0] for reason in found.reasons]

    graded, binary = GRAPHS["if graded"], GRAPHS["if binary"]
    held = fit_chip(binary, LOIHI1)
    assert held.fits is True and held.reasons == () and held.placement is not None
    refused = fit_chip(graded, LOIHI1)
    assert refused.fits is False and refused.placement == place(graded, LOIHI1, check_messages=False)
    (bits,) = {graded.input.message_bits}
    wide = f"layer 'input': {bits}-bit graded messages exceed 1 (loihi1: numerics.message_bits_max)"
    assert reasons(refused) == [wide]
    first, *rest = graded.layers
    soft = dataclasses.replace(first, neurons=dataclasses.replace(first.neurons, reset_by=first.neurons.threshold))
    both = dataclasses.replace(graded, layers=(soft, *rest))
    assert fit_chip(both, LOIHI2).fits is True  # after it was programmed for it
    assert [reason.partition("'")[2][:5] for reason in reasons(fit_chip(both, LOIHI1))] == ["input", "conv0"]
    tiny = fit_chip(graded, _cut(40, chips_max=1, cores_per_chip=2))
    assert tiny.fits is False and tiny.placement is None
    assert reasons(tiny)[0] == wide and "over 1 (loihi1: cores.chips_max)" in reasons(tiny)[1]
    assert LOIHI1.cores is not None
    bare = dataclasses.replace(LOIHI1, integers=None, cores=dataclasses.replace(LOIHI1.cores, message_bits=1))
    unchecked = fit_chip(graded, bare)
    assert reasons(unchecked) == [wide.replace("numerics.message_bits_max", "message bits")]
    assert unchecked.fits is False and unchecked.placement is not None
    nowhere = fit_chip(graded, load_profile("truenorth"))
    assert nowhere.placement is None and len(nowhere.reasons) == 2
    unknown = fit_chip(graded, load_profile("spinnaker2"))
    assert unknown.fits is None and unknown.placement is None and "cores.packing" in unknown.reasons[0]


def test_events_of_all_batches_are_those_of_one_trace() -> None:
    _, graph = _network()
    trace = EmulatorBackend().run(graph, encode_images(_data().images, graph))
    expected = sum(float(counts.sum()) for counts in trace.synaptic_operations.values()) / COUNT
    spikes = sum(float(counts.sum()) for counts in trace.spikes.values()) / COUNT
    for index in range(3):
        work = _chip(index).work
        assert work is not None
        assert work.events["operations"] + work.events["operations_convolution"] == pytest.approx(expected, rel=1e-12)
        assert work.events["active"] == pytest.approx(spikes, rel=1e-12) and work.events["operations"] > 0
    assert ("hops_east_west" in _work_events(0), "hops_east_west" in _work_events(1)) == (False, True)
    right = (trace.predicted == _data().labels).double().mean()
    assert _report().accuracy == pytest.approx(float(right)) and 0 < _report().accuracy < 1


def _work_events(index: int) -> dict[str, float]:
    work = _chip(index).work
    assert work is not None
    return work.events


def test_prices_and_times_of_batches_are_those_of_one_batch() -> None:
    _, graph = _network()
    placement = place(graph, SMALL, check_messages=False)
    network, emulator = PlacedNetwork(graph, placement), Emulator(graph)
    with torch.no_grad(), emulator.watching() as sent:
        emulator(_data().images)
    whole = price_placed(network, network.count(sent), [SMALL])
    work = _chip(1).work
    assert work is not None and work.dynamic is not None and len(placement.cores) > 4
    for found, energy in zip(work.prices, whole.energies.values(), strict=True):
        assert _near(found.dynamic, energy.dynamic_j.sum((0, 2)))
        assert {part: spread.max for part, spread in found.parts.items()} == pytest.approx(
            {part: float(joule.sum((0, 2)).max()) for part, joule in energy.parts.items()}
        )
        layers = {name: float(joule.sum(0).mean()) for name, joule in energy.per_layer_j().items()}
        assert found.layers == pytest.approx(layers) and len(layers) == 4
        for name, seconds in whole.step_s.items():
            assert _near(found.static[name.split(": ")[1]], 0.104 * placement.chips * seconds.sum(0))
    low, high = whole.dynamic_interval_j()
    assert _near(work.dynamic[0], low) and _near(work.dynamic[1], high)
    for found, (name, seconds) in zip(work.times, whole.step_s.items(), strict=True):
        assert _near(found.sample, seconds.sum(0))
        core, count = np.unique(whole.busiest[name].numpy(), return_counts=True)
        assert found.busiest_core == core[count.argmax()]
        assert found.busiest_share == pytest.approx(count.max() / count.sum())
        assert found.busiest_layer == placement.cores[found.busiest_core].layer
        assert found.barrier == pytest.approx(6e-9 * SMALL.times[found.times].barrier_ns(placement.tiles))


def _near(spread: Spread, values: torch.Tensor) -> bool:
    return dataclasses.astuple(spread) == pytest.approx(dataclasses.astuple(Spread.of(values)), rel=1e-9)


def test_a_total_is_there_only_where_nothing_is_left_without_a_price() -> None:
    alone, apart = _chip(1).work, _chip(2).work
    assert alone is not None and apart is not None
    davies, sanafe = alone.prices
    assert davies.total == {} and davies.unpriced == ("barrier synchronisation",)
    assert davies.no_total is not None and "does not price barrier synchronisation" in davies.no_total
    assert sanafe.no_total is None and sanafe.unpriced == () and list(sanafe.total) == ["davies2018", "sanafe"]
    for times, total in sanafe.total.items():
        assert total.mean == pytest.approx(sanafe.static[times].mean + sanafe.dynamic.mean)
    # On several chips messages go where no price is known.
    assert apart.events["off_chip"] > 0 and alone.events["off_chip"] == 0
    assert apart.prices[1].total == {} and "messages between chips" in apart.prices[1].unpriced
    assert list(apart.prices[1].static) == ["davies2018", "sanafe"], "static energy is known all the same"


def test_one_batch_without_a_total_leaves_none() -> None:
    _, graph = _network()
    profile, emulator = CHIPS[2], Emulator(graph)
    counter = WorkCounter(graph, profile, place(graph, profile, check_messages=False))
    with torch.no_grad(), emulator.watching() as sent:
        emulator(_data().images)
    counter.add({name: torch.zeros_like(value) for name, value in sent.items()})  # silence crosses no chip's border
    assert counter.work().prices[1].total and counter.work().prices[1].no_total is None
    counter.add(sent)
    assert counter.work().prices[1].total == {} and "messages between chips" in str(counter.work().prices[1].no_total)


def test_what_a_profile_does_not_give_is_said() -> None:
    loihi2 = _chip(0).work
    assert loihi2 is not None and (loihi2.prices, loihi2.dynamic, loihi2.times) == ((), None, ())
    assert [line.split("(")[1][:7] for line in loihi2.missing] == ["[costs]", "[times]"]
    assert loihi2.power == (0.232, 2.26)
    network, graph = _network()
    unchecked = dataclasses.replace(LOIHI2, integers=None)
    (bare,) = chip_report(graph, network.float(), _data().first(1), [unchecked]).chips
    assert bare.fits is True and bare.work is not None and "no arithmetic ([numerics])" in bare.work.missing[0]
    spinnaker, truenorth = _report().chips[3:]
    assert spinnaker.fits is None and spinnaker.occupied is None and spinnaker.work is None
    assert truenorth.fits is False and truenorth.work is None


def test_a_price_that_holds_all_of_the_chip_is_a_total_without_a_time() -> None:
    _, graph = _network()
    costs = {"all_in": dataclasses.replace(LOIHI1.costs["sanafe"], name="all_in", includes_static=True)}
    untimed = dataclasses.replace(LOIHI2, name="untimed", costs={"sanafe": LOIHI1.costs["sanafe"]})
    both = (dataclasses.replace(LOIHI2, name="whole", costs=costs), untimed)
    report = chip_report(graph, _network()[0].float(), _data().first(2), both)
    whole, lacking = (chip.work.prices[0] for chip in report.chips if chip.work is not None)
    assert whole.total == {"all in": whole.dynamic} and whole.static == {} and whole.no_total is None
    assert lacking.total == {} and lacking.no_total is not None and "no time per event" in lacking.no_total
    assert [chip.work.missing[-1].split("(")[1] for chip in report.chips if chip.work is not None] == [
        "[times]), so there is no time per sample",
        "power.static_chip)",
    ]


def test_where_a_network_sits_is_said_in_a_line() -> None:
    _, graph = _network()
    placement = place(graph, SMALL, check_messages=False)
    place_ = _chip(1).occupied
    assert place_ is not None and place_.layers == placement.table() and place_.utilisation == placement.utilisation()
    most = max(placement.layers, key=lambda layer: layer.used)
    assert place_.line() == (
        f"{len(placement.cores)} cores on 1 chip; binding: {most.binding} of '{most.name}' ({100 * most.used:.0f} % of a core's)"
    )
    assert place_.tiles == placement.tiles > 1
    loihi2 = _chip(0).occupied
    assert loihi2 is not None and loihi2.tiles is None, "its mesh is not known"


def test_bare_operations_of_batches_are_those_of_one_batch() -> None:
    network, graph = _network()
    emulator, data = Emulator(graph), _data()
    with torch.no_grad(), emulator.watching() as sent:
        emulator(data.images)
    layers = effective_operations(graph, sent)
    ann = ann_operations(network.float(), data.images)
    found = _report().operations
    macs = torch.stack([one.multiply_accumulates for one in layers.values()]).sum(0)
    adds = torch.stack([one.accumulates for one in layers.values()]).sum(0)
    dense, skipping = sum(one.dense for one in ann.values()), sum(one.zero_skipping for one in ann.values())
    assert isinstance(skipping, torch.Tensor) and float(macs.min()) > 0 < float(adds.min())
    assert _near(found.accumulates, adds) and _near(found.multiply_accumulates, macs)
    assert found.first_layer == float(macs.double().mean()), "graded pixels go to the first layer only"
    assert found.ann_dense == dense and found.ann_zero_skipping is not None and _near(found.ann_zero_skipping, skipping)
    fp32 = found.prices[0]
    joule = 1e-12 * (4.6 * macs.double() + 0.9 * adds.double())
    assert fp32.arithmetic == "cmos45: fp32" and _near(fp32.spiking, joule)
    assert fp32.ann_dense == pytest.approx(4.6e-12 * dense)
    assert fp32.ratio_dense is not None and _near(fp32.ratio_dense, joule / (4.6e-12 * dense))
    assert fp32.ratio_zero_skipping is not None
    assert _near(fp32.ratio_zero_skipping, joule / (4.6e-12 * skipping.double()))


def test_a_network_without_a_form_without_spikes_has_no_baseline() -> None:
    _, graph = _network()
    nodes = [
        (node.name, BatchNorm(steps=6) if isinstance(node.layer, BatchNorm) else node.layer)
        for node in ARCHITECTURE.nodes
    ]
    architecture: Architecture = chain(ARCHITECTURE.input, nodes)
    report = chip_report(graph, SpikingNetwork(architecture, 6, seed=0), _data().first(2), [load_profile("cmos45")])
    assert report.chips == () and report.operations.no_ann is not None and report.operations.ann_dense is None
    assert all(price.ratio_dense is None and price.spiking.mean > 0 for price in report.operations.prices)
