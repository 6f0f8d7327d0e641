"""What a chip did, beside what the emulator says it does and what was estimated: differences, accuracy, time, energy.

The chip shows a code in place of the potential of a neuron that has just fired (128 in lava-dl's recordings of a Loihi), and Lava's
simulator 0; so potentials are compared where the neuron did not fire in the step before they were read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hardspike.deploy.bundle import BundleSet
from hardspike.deploy.busiest_core import BusiestCore, busiest_core
from hardspike.deploy.compare import Equality
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.energy import price, sum_layers
from hardspike.deploy.hardware_trace import RAILS, HardwareTrace
from hardspike.deploy.input_coding import append_constant_channels
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.report.numbers import proportion
from hardspike.deploy.trace import Trace
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.architecture import INPUT

BATCH = 16  # images whose full states are held at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSet:
    """right, expected: proportions as in report.json, of the chip and of the emulator. same_class: share of images.

    estimate_j, estimate_s: per image, means per cost and time set of the profile; empty where it has none.
    """

    name: str
    images: int
    right: dict[str, Any]
    expected: dict[str, Any]
    same_class: float
    estimate_j: dict[str, float]
    estimate_s: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """Power of one supply of the chip that runs, and its energy per image."""

    static_w: float
    dynamic_w: float
    static_j: float
    dynamic_j: float

    @property
    def total_j(self) -> float:
        return self.static_j + self.dynamic_j


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One trace, judged. rows: what was compared with the emulator. steps_per_image: the period, T or more.

    host_s_per_step: wall time of the host, reading out included. chip_s_per_step and rails (by supply): of the power measurement,
    None and empty where there was none; not_measured says why. estimated_for: chip of the profile that the estimates are made with.
    """

    backend: str
    network_sha256: str
    sets: tuple[MeasuredSet, ...]
    rows: tuple[Equality, ...]
    steps_per_image: int
    host_s_per_step: float
    chip_s_per_step: float | None
    rails: dict[str, Rail]
    chips_on_board: int
    not_measured: str
    estimated_for: str
    facts: dict[str, Any]

    @property
    def equal(self) -> bool:
        return all(row.holds for row in self.rows)


def check_trace(
    trace: HardwareTrace,
    graph: ProcessGraph,
    sets: Sequence[BundleSet],
    profile: Profile,
    *,
    progress: Callable[[int], None] | None = None,
) -> Measurement:
    """Compare a trace with the emulator on the same messages. sets: those that the trace was read with; profile: of the estimates."""
    known = {one.name: one for one in sets}
    busiest, _ = busiest_core(graph, profile)
    rows: list[Equality] = []
    measured, first = [], 0
    for name, images in trace.sets:
        one = known[name].first(images, graph)
        checked = _check_set(trace, graph, one, first, profile, None if graph.input.has_time else busiest, progress)
        measured.append(checked[0])
        rows += checked[1]
        first += images
    steps = [trace.period * (count - 1) + _lead(trace, graph) for count in trace.streams]
    chip_s = None if trace.step_time_s is None else float(trace.step_time_s.mean())
    return Measurement(
        backend=trace.backend,
        network_sha256=str(trace.facts["network_sha256"]),
        sets=tuple(measured),
        rows=tuple(rows),
        steps_per_image=trace.period,
        host_s_per_step=float(trace.wall_s.sum()) / sum(steps),
        chip_s_per_step=chip_s,
        rails=_rails(trace, chip_s),
        chips_on_board=trace.power.chips if trace.power is not None else 0,
        not_measured=trace.not_measured,
        estimated_for=profile.chip,
        facts={key: trace.facts[key] for key in ("started", "host", "place", "versions", "layers")},
    )


def _lead(trace: HardwareTrace, graph: ProcessGraph) -> int:
    """Lava's step after which the output has done all steps of a stream's first image."""
    return len(graph.layers) + trace.input_delay + graph.time_steps


def _rails(trace: HardwareTrace, chip_s: float | None) -> dict[str, Rail]:
    if trace.power is None or chip_s is None:
        return {}
    seconds, rails = chip_s * trace.period, {}
    for rail in RAILS:
        static, dynamic = trace.power.of_chip(rail)
        rails[rail] = Rail(static_w=static, dynamic_w=dynamic, static_j=static * seconds, dynamic_j=dynamic * seconds)
    return rails


def _check_set(
    trace: HardwareTrace,
    graph: ProcessGraph,
    one: BundleSet,
    first: int,
    profile: Profile,
    busiest: BusiestCore | None,
    progress: Callable[[int], None] | None,
) -> tuple[MeasuredSet, list[Equality]]:
    """first: index of the set's first image in the trace."""
    backend, dim = EmulatorBackend(BATCH), 1 if graph.input.has_time else 0
    spikes, outputs, potentials = _Differences(), _Differences(), _Differences()
    energy: dict[str, list[Tensor]] = {name: [] for name in profile.costs}
    seconds: dict[str, list[Tensor]] = {name: [] for name in (profile.times if busiest is not None else ())}
    expected_class, found_class = [], []
    output = trace.output(graph)
    done = 0
    for messages in one.messages.split(BATCH, dim):
        expected = backend.run(graph, messages, keep_states=True)
        assert expected.states is not None
        here = slice(first + done, first + done + len(expected))
        images = torch.arange(done, done + len(expected))
        for name, fired in trace.spikes.items():
            wanted = expected.states.spikes[name].transpose(0, 1)
            spikes.add(f"spike of {name}", ("image", "step"), fired[:, here].transpose(0, 1), wanted, images)
        outputs.add("output", ("image",), output[here], expected.output, images)
        _check_potentials(potentials, trace, graph, expected, here.start, images)
        for key, joule in sum_layers(price(graph, expected, profile)).by_set.items() if profile.costs else ():
            energy[key].append(joule)
        if busiest is not None:
            sent = {INPUT: append_constant_channels(messages, graph.input)}
            sent |= {name: expected.states.spikes[name] for name in expected.spikes}
            for key, values in busiest.seconds(sent).items():
                seconds[key].append(values)
        expected_class.append(expected.predicted)
        found_class.append(output[here].flatten(1).argmax(1))
        done += len(expected)
        if progress is not None:
            progress(len(expected))
    expected_classes, found_classes = torch.cat(expected_class), torch.cat(found_class)
    measured = MeasuredSet(
        name=one.name,
        images=len(one),
        right=proportion(found_classes == one.labels),
        expected=proportion(expected_classes == one.labels),
        same_class=float((found_classes == expected_classes).double().mean()),
        estimate_j={key: float(torch.cat(values).mean()) for key, values in energy.items()},
        estimate_s={key: float(torch.cat(values).mean()) for key, values in seconds.items()},
    )
    layers = f"{len(trace.spikes)} of {len(graph.layers)} layers"
    kind = "spike counts" if graph.output.neurons.spiking else "potentials"
    rows = [spikes.row(one.name, f"spikes of {layers}"), outputs.row(one.name, f"output {kind}")]
    if potentials.compared:
        rows.append(potentials.row(one.name, "potentials where no spike"))
    return measured, rows


def _check_potentials(
    differences: "_Differences", trace: HardwareTrace, graph: ProcessGraph, expected: Trace, start: int, images: Tensor
) -> None:
    """Every layer was read when the output had done T steps; by then a layer before it is that many steps further on.

    So what was read with image k may belong to a later image, or to the steps between two images, which are not compared.
    """
    states, last = expected.states, len(graph.layers) - 1
    assert states is not None
    begins = torch.cat([torch.full((n,), sum(trace.streams[:i])) for i, n in enumerate(trace.streams)])
    image = torch.arange(start, start + len(expected))
    for index, layer in enumerate(graph.layers):
        steps = graph.time_steps + last - index  # since the image began that was read
        later, step = (steps - 1) // trace.period, (steps - 1) % trace.period
        is_output = index == last and not layer.neurons.spiking  # which has been compared
        if is_output or layer.name not in trace.potentials or step >= graph.time_steps:
            continue
        there = image - later >= begins[image]
        found = trace.potentials[layer.name][(image - later)[there]]
        quiet = ~states.spikes[layer.name][step][there]
        wanted = states.potentials[layer.name][step][there]
        what = f"potential of {layer.name} at step {step + 1}"
        differences.add(what, ("image",), found, wanted, images[there], quiet)


class _Differences:
    """Counts values that differ, and keeps where the first one is."""

    def __init__(self) -> None:
        self.compared, self.differing, self.first = 0, 0, ""

    def add(
        self,
        what: str,
        axes: tuple[str, ...],
        found: Tensor,
        expected: Tensor,
        images: Tensor,
        where: Tensor | None = None,
    ) -> None:
        """axes: names of the first ones, `image` first; images: index in its set of each image; where: bool, what counts."""
        wrong = found != expected if where is None else (found != expected) & where
        self.compared += found.numel() if where is None else int(where.sum())
        count = int(wrong.sum())
        if count and not self.first:
            place = wrong.nonzero()[0].tolist()
            numbers = [int(images[place[0]]), *(one + 1 for one in place[1 : len(axes)])]  # steps count from 1
            names = ", ".join(f"{axis} {number}" for axis, number in zip(axes, numbers, strict=True))
            values = f"{int(found[tuple(place)])} instead of {int(expected[tuple(place)])}"
            self.first = f"{what}, {names}, neuron {tuple(place[len(axes) :])}: {values}"
        self.differing += count

    def row(self, name: str, what: str) -> Equality:
        return Equality(name=name, what=what, compared=self.compared, differing=self.differing, first=self.first)
