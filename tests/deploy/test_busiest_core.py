"""The busiest core's time against a walk over all synapses, and the constants it needs."""

import dataclasses
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from random_graphs import CASES, build

from hardspike.deploy.busiest_core import BusiestCore
from hardspike.deploy.emulator import Emulator
from hardspike.deploy.oracle import Oracle
from hardspike.deploy.process_graph import ConvSynapse, ProcessGraph
from hardspike.hw_profiles.profile import Cores, TimeSet, load_profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import SettingsError

TIMES = load_profile("loihi1").times
BY_NAME = {case.name: case for case in CASES}


def _slow_seconds(
    graph: ProcessGraph, sent: dict[str, torch.Tensor], sample: int, cores: Cores, times: TimeSet
) -> tuple[float, int]:
    """Seconds and number of cores: every event follows its synapses one by one."""
    most, oracle, step_ns, used = cores.neurons_per_core, Oracle(graph), [0.0] * graph.time_steps, 0
    for layer in graph.layers:
        neurons = 1
        for side in layer.shape:
            neurons *= side
        convolution = isinstance(layer.synapses[0], ConvSynapse)
        operation = times.synaptic_operation_convolution if convolution else times.synaptic_operation
        count = -(-neurons // most)
        used += count
        for step in range(graph.time_steps):
            load = [0.0] * count
            for source, fan in oracle._fan_out[layer.name]:
                events = sent[source][sample] if source == INPUT else sent[source][step, sample]
                for sender, event in enumerate(events.flatten().tolist()):
                    reached = [target // most for target in fan[sender][0]] if event else []
                    for core in reached:
                        load[core] += operation.value
                    for core in set(reached):
                        load[core] += times.message_in.value
            fired = sent[layer.name][step, sample].flatten().tolist() if layer.name in sent else [0] * neurons
            for neuron, spike in enumerate(fired):
                active = times.neuron_update_active.value + times.spike_out.value
                load[neuron // most] += active if spike else times.neuron_update_idle.value
            step_ns[step] = max(step_ns[step], *load)
    barrier = times.barrier_ns(-(-used // cores.cores_per_tile))
    return sum(step_ns) * 1e-9 + graph.time_steps * barrier * 1e-9, used


@pytest.mark.parametrize(
    ("name", "neurons_per_core"),
    [("if graded", 17), ("if graded", 1024), ("groups", 40), ("constant channel and bias per position", 33)],
)
def test_equals_a_walk_over_all_synapses(name: str, neurons_per_core: int) -> None:
    graph, cores = (
        build(BY_NAME[name]),
        Cores(neurons_per_core=neurons_per_core, cores_per_tile=4, cores_per_chip=128, chips_max=1),
    )
    images = torch.rand(3, *graph.input.shape, generator=torch.Generator().manual_seed(3)).double()
    images[:, :, ::2] = 0  # silent pixels
    emulator, busiest = Emulator(graph), BusiestCore(graph, cores, TIMES)
    with torch.no_grad(), emulator.watching() as sent:
        emulator(images)
    found = busiest.seconds(sent)
    for key, times in TIMES.items():
        expected, used = _slow_seconds(graph, sent, 1, cores, times)
        assert busiest.cores == used
        assert float(found[key][1]) == pytest.approx(expected, rel=1e-12)


def test_the_barrier_is_that_of_the_tiles_in_use() -> None:
    assert [TIMES["sanafe"].barrier_ns(tiles) for tiles in (1, 2, 3, 4, 28, 29, 99)] == [
        600, 1000, 1000, 1400, 1400, 1800, 1800,
    ]  # fmt: skip
    assert TIMES["davies2018"].barrier_ns(31) == 113 and TIMES["davies2018"].barrier_ns(32) == 465
    later = dataclasses.replace(TIMES["sanafe"], barrier=TIMES["sanafe"].barrier[1:])
    assert later.barrier_ns(1) == 1000
    shuffled = dataclasses.replace(TIMES["sanafe"], barrier=TIMES["sanafe"].barrier[::-1])
    assert shuffled.barrier_ns(3) == 1000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('value = 3.5, unit = "ns"', 'value = 3.5, unit = "us"', "3.5 us is not allowed; give a value >= 0 in ns"),
        ("{ tiles = 1, value = 113.0", "{ value = 113.0", "barrier.0: key 'tiles' is missing"),
        ("cores_per_tile = {", "cores_per_tyle = {", "cores: key 'cores_per_tyle' is unknown"),
        ("message_in = { value = 0.0", "message_in = { value = -1.0", "-1.0 ns is not allowed"),
    ],
)
def test_a_profile_must_say_what_its_times_are(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (files("hardspike.hw_profiles") / "loihi1.toml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "own.toml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        load_profile(str(tmp_path / "own.toml"))
