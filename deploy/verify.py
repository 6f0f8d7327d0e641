"""Stage `verify`: the proof that the deployed network is the network that was trained, on a run's own network.

1 folded = unfolded                 float64, every input current and logit, relative tolerance 1e-9
2 emulator = oracle                 every spike, current, potential and output, exactly
3 emulator = Lava                   fixed-point simulation built from Lava processes, every spike, state and output, exactly
4 `.net` file = graph               every integer that netx reads from the file, and every spike it then gives
5 emulator = lava-dl's own networks ground truth shipped in the lava-dl wheel
6 float SNN and emulator            measured, not equal: class agreement, spike-count correlation, first divergence
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from hardspike.deploy.compare import Counter, Equality, correlation
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.float_spikes import float_spikes
from hardspike.deploy.fold import StepNorms, fold_network
from hardspike.deploy.input_coding import encode_images, quantize_images
from hardspike.deploy.lava_backend import LavaBackend, NetxBackend, lava_available
from hardspike.deploy.lava_limits import check_netx_holds
from hardspike.deploy.lava_netx import netx_graph_differences
from hardspike.deploy.oracle import Oracle
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.shipped_networks import compare_shipped_networks
from hardspike.deploy.trace import States, Trace
from hardspike.snn.architecture import INPUT
from hardspike.snn.data import ImageSet
from hardspike.snn.errors import HardspikeError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.progress import Progress, Silent
from hardspike.snn.ranges import require

NO_LAVA = "Lava is not installed here (Python 3.10: pip install hardspike[lava])"
FOLD_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings:
    """images: how many test images each equality is checked on. shipped: also run lava-dl's own networks."""

    images: int = 16
    shipped: bool = True

    def __post_init__(self) -> None:
        require("verify.images", self.images, self.images >= 1, "use 1 or more")


def verify_network(
    snn: SpikingNetwork,
    graph: ProcessGraph,
    net_path: Path,
    data: ImageSet,
    settings: VerifySettings,
    progress: Progress | None = None,
    *,
    step_norms: StepNorms = "refuse",
) -> list[Equality]:
    """All rows of the table. net_path: the `.net` file written from `graph`, if such a file can hold it. step_norms: as folded."""
    watch = progress or Silent()
    watch.begin("verify", 6)
    data = data.first(settings.images)
    images = quantize_images(data.images, graph.input.image_bits)
    messages = encode_images(images, graph)
    trace = EmulatorBackend().run(graph, messages, keep_states=True)
    rows = [compare_folded(snn, images, step_norms)]
    watch.advance(note="folded")
    rows.append(compare_oracle(graph, messages, trace))
    watch.advance(note="oracle")
    if lava_available():
        lava = LavaBackend().run(graph, messages, keep_states=True)
        what = f"{len(data)} images, spikes, currents, potentials, outputs"
        rows.append(_compare_traces(lava, trace, "3 emulator = Lava", what))
        watch.advance(note="Lava")
        rows += _compare_netx(graph, net_path, messages, trace)
        watch.advance(note=".net")
        rows += _compare_shipped() if settings.shipped else []
    else:
        for name in ("3 emulator = Lava", "4 .net file = graph", "5 lava-dl's networks"):
            rows.append(Equality(name=name, what="", reason=NO_LAVA))
        watch.advance(2)
    watch.advance(note="shipped networks")
    rows += compare_float(snn, graph, images, trace)
    watch.advance(note="float SNN")
    return rows


def compare_folded(snn: SpikingNetwork, images: Tensor, step_norms: StepNorms = "refuse") -> Equality:
    """Equality 1, measured where step norms were replaced by their mean. `snn` is left in its own precision."""
    dtype = next(snn.parameters()).dtype
    counter = Counter()
    try:
        snn = snn.double()
        folded = fold_network(snn, step_norms=step_norms)
        is_poisson = folded.input.coding == "poisson"
        spikes_TB = folded.draw_spikes(images, deepcopy(snn.noise)) if is_poisson else None
        with torch.no_grad(), snn.recording() as (_, currents):
            logits = snn(images.double())
        found, folded_logits = folded.run(images, spikes_TB)
        counter.add_all("current", found, currents, FOLD_TOLERANCE)
        counter.add("logits", folded_logits, logits, FOLD_TOLERANCE)
    finally:
        snn.to(dtype)
    what = f"{len(images)} images, float64 currents and logits, 1e-9 relative"
    row = counter.row("1 folded = unfolded", what)
    if not folded.step_norms:
        return row
    spread = max(found.factor for found in folded.step_norms)
    return replace(
        row, name="1 folded, step norms averaged", what=f"{what}; factors differ by up to {spread:.1%}", exact=False
    )


def compare_oracle(graph: ProcessGraph, messages: Tensor, trace: Trace) -> Equality:
    """Equality 2. messages as for `Backend.run`; the trace must keep states with potentials."""
    oracle = Oracle(graph)
    counter = Counter()
    states = trace.states
    assert states is not None
    for sample in range(len(trace)):
        steps = (
            messages[:, sample]
            if graph.input.has_time
            else messages[sample].expand(graph.time_steps, *messages[sample].shape)
        )
        expected = oracle.run([step.flatten().tolist() for step in steps])
        for layer in graph.layers:
            for kind, found, values in (
                ("spike", states.spikes, expected.spikes),
                ("current", states.currents, expected.currents),
                ("potential", states.potentials, expected.potentials),
            ):
                mine = found[layer.name][:, sample : sample + 1].long()
                counter.add(f"{kind} of {layer.name}", mine, torch.tensor(values[layer.name]).reshape(mine.shape))
        if not graph.output.neurons.spiking:
            counter.add("output", trace.output[sample], torch.tensor(expected.output))
    return counter.row("2 emulator = oracle", f"{len(trace)} images, spikes, currents, potentials, outputs")


def _compare_traces(found: Trace, expected: Trace, name: str, what: str) -> Equality:
    assert found.states is not None and expected.states is not None
    counter = Counter()
    firing = {layer: expected.states.spikes[layer] for layer in expected.spikes}
    counter.add_all("spike", found.states.spikes, firing)
    for kind, mine, theirs in (
        ("current", found.states.currents, expected.states.currents),
        ("potential", found.states.potentials, expected.states.potentials),
    ):
        if mine:  # netx shows none
            counter.add_all(kind, mine, theirs)
    counter.add("output", found.output, expected.output)
    return counter.row(name, what)


def _compare_netx(graph: ProcessGraph, path: Path, messages: Tensor, trace: Trace) -> list[Equality]:
    """Equality 4, both halves, or why there is none."""
    try:
        check_netx_holds(graph)
    except HardspikeError as refused:
        return [Equality(name="4 .net file = graph", what="", reason=str(refused))]
    found = netx_graph_differences(path, graph)
    integers = Equality(
        name="4 .net file = graph",
        what="weights, biases, thresholds, decays as netx reads them",
        compared=found.num_compared,
        differing=found.num_differing,
        first=found.first,
    )
    run = NetxBackend(path).run(graph, messages, keep_states=True)
    return [
        integers,
        _compare_traces(run, trace, "4 .net on Lava = emulator", f"{len(trace)} images, spikes and outputs"),
    ]


def _compare_shipped() -> list[Equality]:
    """Equality 5, a row for each network of the lava-dl wheel."""
    rows = []
    for name, group in groupby(compare_shipped_networks(), key=lambda row: row.name):
        parts = list(group)
        compared = [part for part in parts if not part.reason]
        first = next((f"{part.what}: {part.first}" for part in compared if part.differing), "")
        rows.append(
            Equality(
                name=f"5 lava-dl's {name}",
                what=f"{len(compared)} recordings: spikes, currents, potentials"
                if len(compared) > 1
                else parts[0].what,
                compared=sum(part.compared for part in compared),
                differing=sum(part.differing for part in compared),
                first=first,
                reason="; ".join(part.reason for part in parts if part.reason),
            )
        )
    return rows


def compare_float(snn: SpikingNetwork, graph: ProcessGraph, images: Tensor, trace: Trace) -> list[Equality]:
    """Row 6: how close the float network is. One row for classes, one for saturation, one per layer for spikes."""
    assert trace.states is not None
    spikes, logits = float_spikes(snn, images)
    predicted = logits.argmax(1)
    agreement = int((predicted == trace.predicted).sum())
    rows = [
        Equality(
            name="6 float SNN, class",
            what=f"{agreement} of {len(images)} classes agree",
            compared=len(images),
            differing=len(images) - agreement,
            exact=False,
        )
    ]
    at_limit, potentials = saturations(trace.states, graph)
    rows.append(
        Equality(
            name="6 potentials at their 24-bit limit",
            what="behind the first layer, where the limit can change spikes",
            compared=potentials,
            differing=at_limit,
            exact=False,
        )
    )
    for layer, expected in spikes.items():
        counter = Counter()
        counter.add(f"spike of {layer}", trace.states.spikes[layer].to(expected.dtype), expected)
        related = correlation(trace.states.spikes[layer].sum(0), expected.sum(0))
        text = "undefined (constant counts)" if related is None else f"{related:.5f}"
        rows.append(
            Equality(
                name=f"6 float SNN, {layer}",
                what=f"spike-count correlation {text}",
                compared=counter.compared,
                differing=counter.differing,
                first=counter.first,
                exact=False,
            )
        )
    return rows


def saturations(states: States, graph: ProcessGraph) -> tuple[int, int]:
    """How many membrane potentials sat at the 24-bit limit, and of how many, where that can change a spike.

    A graded input sends the same messages at every step, so a neuron that only it drives and that sinks to the limit would
    never have fired without the limit either: such layers are left out.
    """
    limit = graph.numerics.state_max
    steady = {
        layer.name
        for layer in graph.layers
        if graph.input.coding == "graded" and all(synapse.source == INPUT for synapse in layer.synapses)
    }
    counted = [potential for name, potential in states.potentials.items() if name not in steady]
    return sum(int((potential.abs() == limit).sum()) for potential in counted), sum(p.numel() for p in counted)
