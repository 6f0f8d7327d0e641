"""Certificates against every image of the box, run on the emulator; and what they are defined to mean."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_graphs import CASES, NUMERICS, GraphCase, build, random_messages
from torch import Tensor
from toy_graphs import CLASSES, STEPS, every_message, toy_graph, toy_image

from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import SURVIVED, Attacker, run_members
from hardspike.attack.members import parse_member
from hardspike.deploy.bounds import Interval, SynapseInterval
from hardspike.deploy.certificate import certify, message_box
from hardspike.deploy.compile import DeploySettings, compile_network
from hardspike.deploy.emulator import Emulator, EmulatorBackend
from hardspike.deploy.energy import price, sum_layers
from hardspike.deploy.input_coding import append_constant_channels, encode_images, graded_messages
from hardspike.deploy.network_bounds import IntervalNetwork, NetworkBounds
from hardspike.deploy.oracle import Oracle, decay
from hardspike.deploy.process_graph import DenseSynapse, GraphLayer, InputContract, NeuronGroup, ProcessGraph
from hardspike.deploy.run_synapse import RunSynapse
from hardspike.deploy.trace import Trace
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.checkpoint import load_network
from hardspike.snn.data import load_dataset
from hardspike.snn.errors import DataError, SettingsError, UnsupportedLayerError
from hardspike.snn.settings import DataSettings

LOIHI1 = load_profile("loihi1")
EPS = 1 / 7  # one of the toy graphs' grey levels


def encoded(graph: ProcessGraph, box: Interval) -> Interval:
    return Interval(*(append_constant_channels(end, graph.input).double() for end in (box.low, box.high)))


def contains(interval: Interval, row: int, values: Tensor) -> bool:
    """values: of many runs, runs first."""
    return bool((values >= interval.low[row]).all() and (values <= interval.high[row]).all())


def check_contained(graph: ProcessGraph, bounds: NetworkBounds, row: int, trace: Trace) -> None:
    assert trace.states is not None
    for name, spikes in bounds.spikes.items():
        counted = trace.states.spikes[name].long().cumsum(0)
        counted = torch.cat([torch.zeros_like(counted[:1]), counted])
        for start in range(graph.time_steps):
            for stop in range(start + 1, graph.time_steps + 1):
                assert contains(spikes.window(start, stop), row, counted[stop] - counted[start])
        for step, potential in enumerate(spikes.potentials):
            assert contains(potential, row, trace.states.potentials[name][step])
    assert contains(bounds.output, row, trace.output)


@pytest.mark.parametrize(("start", "windows"), [(0, True), (20, True), (40, False)])
def test_no_image_of_the_box_leaves_the_bounds_or_the_certified_class(start: int, windows: bool) -> None:
    """Spikes of every window, potentials, outputs, margins, events and energy of all 27 images around each of two, on 20 graphs."""
    certified = unstable = 0
    for seed in range(start, start + 20):
        graph = toy_graph(seed)
        images = torch.cat([toy_image(seed), toy_image(seed + 1000)])
        labels = EmulatorBackend().run(graph, encode_images(images, graph)).predicted
        box = message_box(images, EPS, graph.input)
        network = IntervalNetwork(graph, windows=windows)
        bounds = network.bounds(encoded(graph, box))
        margins = network.margins(bounds, labels)
        proof = certify(graph, images, labels, EPS, profile=LOIHI1, windows=windows)
        assert proof.correct.all()
        for row in range(2):
            messages = every_message(box.low[row : row + 1], box.high[row : row + 1])
            trace = EmulatorBackend().run(graph, messages, keep_states=True)
            check_contained(graph, bounds, row, trace)
            apart = trace.output[:, labels[row], None] - trace.output
            assert bool((apart >= margins[row]).all())
            assert not proof.certified[row] or bool((trace.predicted == labels[row]).all())
            for name, spikes in trace.spikes.items():
                assert contains(proof.spikes[name], row, spikes.sum(0))
            for name, operations in trace.synaptic_operations.items():
                assert contains(proof.operations[name], row, operations.sum(0))
            for name, energy_j in sum_layers(price(graph, trace, LOIHI1)).by_set.items():
                tolerance = 1e-12 * energy_j
                assert bool((energy_j + tolerance >= proof.energy_j[name].low[row]).all())
                assert bool((energy_j - tolerance <= proof.energy_j[name].high[row]).all())
            unstable += int((trace.output != trace.output[0]).any())
        certified += int(proof.certified.sum())
    assert certified >= 8 and unstable >= 20, "boxes in which nothing happens prove nothing"


def test_toy_graphs_cover_the_arithmetic() -> None:
    """So that the test above is about wraps, clipping and both readouts."""
    wrapped = clipped = spiking = 0
    for seed in range(40):
        graph = toy_graph(seed)
        messages = encode_images(toy_image(seed), graph)
        states = EmulatorBackend().run(graph, messages, keep_states=True).states
        assert states is not None
        clipped += any(bool((v.abs() == graph.numerics.state_max).any()) for v in states.potentials.values())
        first = graph.layers[0]
        arrived = RunSynapse(first.synapses[0], graph.input.encoded_shape, torch.float64)(
            append_constant_channels(messages, graph.input)
        )
        wrapped += not torch.equal(states.currents[first.name][0], 64 * arrived.long())
        spiking += graph.output.neurons.spiking
    assert min(wrapped, clipped, spiking) >= 4, (wrapped, clipped, spiking)


@pytest.mark.parametrize("case", [c for c in CASES if c.coding == "graded"], ids=lambda case: case.name)
@pytest.mark.parametrize("windows", [True, False])
def test_random_images_of_the_box_stay_inside_on_larger_graphs(case: GraphCase, windows: bool) -> None:
    graph = build(case)
    clean = random_messages(case, graph, 1)
    box = Interval((clean - 2).clamp(min=0), (clean + 2).clamp(max=255))
    bounds = IntervalNetwork(graph, windows=windows).bounds(encoded(graph, box))
    chosen = torch.rand(12, *clean.shape[1:], generator=torch.Generator().manual_seed(case.seed))
    messages = box.low + (chosen * (box.high - box.low + 1)).long()
    messages[:2] = torch.cat([box.low, box.high])
    check_contained(graph, bounds, 0, EmulatorBackend().run(graph, messages, keep_states=True))


def slow_intervals(graph: ProcessGraph, low: list[int], high: list[int]) -> dict[str, list[list[tuple[int, int]]]]:
    """Potentials [layer][step][neuron] in Python integers, weight by weight: merged intervals, no tensor, no convolution."""
    numerics, oracle = graph.numerics, Oracle(graph)
    half, full, top = numerics.state_max + 1, 2 * (numerics.state_max + 1), numerics.state_max

    def once_around(a: int, b: int) -> tuple[int, int]:
        ends = [min(b, half), max(a, 1 - half)] if a <= half and b > -half else []
        values = [*ends, a, b, min(b, -half) if a <= -half else b, max(a, half + 1) if b > half else a]
        wrapped = [v - full if v > half else v + full if v <= -half else v for v in values]
        return min(wrapped), max(wrapped)

    size = {layer.name: int(np.prod(layer.shape)) for layer in graph.layers}
    current = {name: [(0, 0)] * n for name, n in size.items()}
    potential = {name: [(0, 0)] * n for name, n in size.items()}
    found: dict[str, list[list[tuple[int, int]]]] = {name: [] for name in size}
    for _ in range(graph.time_steps):
        sent = {INPUT: list(zip(low, high, strict=True))}
        for layer in graph.layers:
            neurons, name = layer.neurons, layer.name
            arrived = [[0, 0] for _ in range(size[name])]
            for source, fan in oracle._fan_out[name]:
                for (least, most), (targets, weights) in zip(sent[source], fan, strict=True):
                    for target, weight in zip(targets, weights, strict=True):
                        arrived[target][0] += weight * (least if weight > 0 else most)
                        arrived[target][1] += weight * (most if weight > 0 else least)
            before, spikes = [], []
            for n, (least, most) in enumerate(arrived):
                u = [decay(end, neurons.current_decay, numerics) for end in current[name][n]]
                u = list(once_around(u[0] + (least << numerics.state_shift), u[1] + (most << numerics.state_shift)))
                bias = oracle._bias[name][n] << neurons.bias_exponent
                v = [
                    decay(end, neurons.potential_decay, numerics) + side + bias
                    for end, side in zip(potential[name][n], u, strict=True)
                ]
                v = [max(-top, min(top, end)) for end in v]
                surely, maybe = ((neurons.spiking and end > neurons.threshold << numerics.state_shift) for end in v)
                ceiling = neurons.threshold << numerics.state_shift
                after = (0, 0) if surely else (min(v[0], 0), max(0, min(v[1], ceiling))) if maybe else (v[0], v[1])
                current[name][n], potential[name][n] = (u[0], u[1]), after
                before.append((v[0], v[1]))
                spikes.append((int(surely), int(maybe)))
            found[name].append(before)
            sent[name] = spikes
    return found


def test_equals_intervals_in_plain_integers() -> None:
    for seed in range(0, 48, 2):
        graph = toy_graph(seed)
        box = encoded(graph, message_box(toy_image(seed), EPS, graph.input))
        slow = slow_intervals(graph, *(end.long().flatten().tolist() for end in (box.low, box.high)))
        bounds = IntervalNetwork(graph, windows=False).bounds(box)
        for name, spikes in bounds.spikes.items():
            ends = [
                list(zip(p.low.flatten().tolist(), p.high.flatten().tolist(), strict=True)) for p in spikes.potentials
            ]
            assert ends == slow[name], (seed, name)
        if not graph.output.neurons.spiking:
            last = list(zip(bounds.output.low[0].tolist(), bounds.output.high[0].tolist(), strict=True))
            assert last == slow[graph.output.name][-1]


def readout(weight: list[list[int]], bias: list[int], **settings: int | bool) -> ProcessGraph:
    """One layer of two steps on two pixels."""
    neurons = NeuronGroup(
        **{"threshold": 100, "bias": np.array(bias, np.int32), "bias_exponent": 6, "spiking": False} | settings
    )  # type: ignore[arg-type]
    synapse = DenseSynapse(source=INPUT, weight=np.array(weight, np.int32))
    layer = GraphLayer(name="out", shape=(len(bias),), synapses=(synapse,), neurons=neurons)
    contract = InputContract(shape=(1, 1, 2), coding="graded", message_bits=8)
    return ProcessGraph(input=contract, layers=(layer,), time_steps=2, numerics=NUMERICS, profile="loihi2")


def test_of_equal_outputs_the_first_class_wins() -> None:
    """Both classes count the same pixels, so that only their biases tell them apart, whatever the box."""
    grey = torch.full((1, 1, 1, 2), 0.5)
    for bias, certified in (([0, 0], (True, False)), ([0, 1], (False, True)), ([1, 0], (True, False))):
        graph = readout([[80, -60], [80, -60]], bias)
        for label in (0, 1):
            proof = certify(graph, grey, torch.tensor([label]), 0.3, profile=None)
            assert bool(proof.certified) == bool(proof.correct) == certified[label]
            assert int(proof.margin) == 2 * 64 * (bias[label] - bias[1 - label])


def test_outputs_and_margins_of_a_sum_are_exact() -> None:
    """Two synapses on the pixels that never pull apart, no neuron between: each bound is met by an image of the box."""
    graph = readout([[80, -60], [20, 40], [-6, 4]], [3, -5, 9])
    (synapse,), neurons = graph.output.synapses, graph.output.neurons
    again = replace(synapse, weight=np.array([[40, -20], [10, 10], [-2, 6]], np.int32))
    layer = GraphLayer(name="out", shape=(3,), synapses=(synapse, again), neurons=neurons)
    graph = replace(graph, layers=(layer,))
    images, labels = torch.tensor([[[[0.3, 0.8]]]]), torch.tensor([1])
    box = message_box(images, 2 / 255, graph.input)
    network = IntervalNetwork(graph)
    bounds = network.bounds(encoded(graph, box))
    outputs = EmulatorBackend().run(graph, every_message(box.low, box.high)).output
    assert torch.equal(bounds.output.low[0].long(), outputs.amin(0))
    assert torch.equal(bounds.output.high[0].long(), outputs.amax(0))
    assert torch.equal(network.margins(bounds, labels)[0], (outputs[:, 1:2] - outputs).amin(0))


def test_sums_beyond_float32_are_exact() -> None:
    rng = np.random.default_rng(0)
    weight, ends = 2 * rng.integers(-127, 128, (4, 300)), np.sort(rng.integers(0, 65536, (2, 300)), axis=0)
    synapse = DenseSynapse(source=INPUT, weight=weight.astype(np.int32))
    sums = SynapseInterval(synapse, (300,), 65535)(Interval(*(torch.from_numpy(end)[None] for end in ends)))
    for low, high, row in zip(sums.low[0].tolist(), sums.high[0].tolist(), weight.tolist(), strict=True):
        pairs = list(zip(row, *ends.tolist(), strict=True))
        assert int(low) == sum(w * (least if w > 0 else most) for w, least, most in pairs)
        assert int(high) == sum(w * (most if w > 0 else least) for w, least, most in pairs)
        assert abs(high) > 1 << 24


@pytest.mark.parametrize("settings", [{"potential_decay": 300}, {"current_decay": 2048}, {"bias_exponent": 7}])
def test_readouts_that_are_no_sum_are_bounded_class_by_class(settings: dict[str, int]) -> None:
    """Leak, memory, and (bias 4095 * 2^7 sixteen times) a potential that clips: every image is tried."""
    graph = readout([[80, -60], [78, -60], [0, 20]], [4095, 4095, 4095], **settings)
    if "bias_exponent" in settings:
        graph = replace(graph, time_steps=16)
    images, labels = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    box = message_box(images, 1.2 / 255, graph.input)
    network = IntervalNetwork(graph)
    bounds = network.bounds(encoded(graph, box))
    assert not bounds.sums.any()
    outputs = EmulatorBackend().run(graph, every_message(box.low, box.high)).output
    margins = network.margins(bounds, labels)
    assert contains(bounds.output, 0, outputs) and bool((outputs[:, :1] - outputs >= margins[0]).all())
    assert bool((margins[0, 1:] == bounds.output.low[0, 0] - bounds.output.high[0, 1:]).all())


def test_box_holds_what_every_image_of_the_ball_is_rounded_to() -> None:
    """In float64, in float32 as the emulator multiplies, and on the grid; clean pixels at and between grey levels."""
    contract = InputContract(shape=(1, 1, 512), coding="graded", message_bits=8)
    levels = torch.arange(512) / 511
    for clean in (levels, torch.floor(levels * 255 + 0.5) / 255, torch.floor(levels * 16) / 16):
        image = clean.view(1, 1, 1, 512)
        for eps in (0.0, 0.25 / 255, 0.5 / 255, 1 / 255, 4 / 255, 0.01, 0.1):
            box = message_box(image, eps, contract)
            for ball in (Ball.around(image, eps), Ball.around(image, eps, grid=255)):
                for seen in (ball.low, ball.high, ball.clean, ball.rounded(image)):
                    for message in (graded_messages(seen, contract), torch.floor(seen * 255 + 0.5).long()):
                        assert bool((message >= box.low).all() and (message <= box.high).all())
            assert int((box.high - box.low).max()) <= 2 * eps * 255 + 1.001
    black = message_box(torch.zeros(1, 1, 1, 512), 2 / 255, contract)
    assert int(black.low.min()) == 0 and int(black.high.max()) == 2


def test_images_on_the_grid_are_certified_at_no_budget_if_they_are_right() -> None:
    case = CASES[9]
    graph, generator = build(case), torch.Generator().manual_seed(0)
    messages = random_messages(case, graph, 12)
    labels = torch.randint(0, 5, (12,), generator=generator)
    trace = EmulatorBackend().run(graph, messages)
    labels[::2] = trace.predicted[::2]
    proof = certify(graph, messages / 255, labels, 0.0, profile=LOIHI1)
    assert torch.equal(proof.certified, proof.correct) and torch.equal(proof.correct, trace.predicted == labels)
    assert proof.certified_accuracy == float(proof.correct.double().mean())
    for name, count in trace.spikes.items():
        assert torch.equal(proof.spikes[name].low, count.sum(0)) and torch.equal(proof.spikes[name].high, count.sum(0))
    for name, energy_j in sum_layers(price(graph, trace, LOIHI1)).by_set.items():
        assert energy_j.dtype == torch.float64
        assert torch.equal(proof.energy_j[name].low, energy_j) and torch.equal(proof.energy_j[name].high, energy_j)
    others = trace.output.scatter(1, labels[:, None], torch.iinfo(torch.int64).min).amax(1)
    assert torch.equal(proof.margin, trace.output.gather(1, labels[:, None])[:, 0] - others)


@pytest.mark.slow
def test_no_attack_breaks_a_certified_image() -> None:
    """A trained network, deployed; every kind of attack, on what is certified and on what is not."""
    path = Path(__file__).parents[1] / "golden" / "small_snn_adversarial.safetensors"
    graph, _ = compile_network(load_network(path), DeploySettings(profile="loihi2"))
    data = load_dataset(DataSettings(dataset="digits")).test.first(40)
    attacks = [
        "fgsm",
        "pgd10+detached/triangular:0.5",
        "apgd-ce20+detached/assg:0.425",
        "fab-t10",
        "square100",
        "noise",
    ]
    certified, broken = [], []
    for eps in (0.25 / 255, 0.5 / 255, 0.1):
        certified.append(certify(graph, data.images, data.labels, eps, profile=None).certified)
        attacker = Attacker(model=Emulator(graph), data=data, eps=eps)
        *_, made = run_members(attacker, [parse_member(name) for name in attacks])
        broken.append(made.broken_by != SURVIVED)
        assert not bool((certified[-1] & broken[-1]).any())
    assert certified[0].sum() > certified[1].sum() and int(broken[2].sum()) > 12 and not certified[2].any()


def test_batch_size_changes_nothing() -> None:
    graph, done = toy_graph(3), []
    images = torch.cat([toy_image(seed) for seed in range(7)])
    labels = torch.arange(7) % CLASSES
    whole = certify(graph, images, labels, EPS, profile=LOIHI1)
    parts = certify(graph, images, labels, EPS, profile=LOIHI1, batch_size=3, progress=done.append)
    assert done == [3, 3, 1] and graph.time_steps == STEPS
    for name in ("certified", "correct", "margin"):
        assert torch.equal(getattr(whole, name), getattr(parts, name))
    for name in ("spikes", "operations", "energy_j"):
        for key, interval in getattr(whole, name).items():
            other = getattr(parts, name)[key]
            assert torch.equal(interval.low, other.low) and torch.equal(interval.high, other.high)


def test_refuses_in_one_line() -> None:
    graph, image, label = toy_graph(1), toy_image(1), torch.tensor([0])
    with pytest.raises(DataError, match=r"^input: coding 'binary' takes integers, not images; encode them yourself$"):
        certify(build(CASES[1]), torch.zeros(1, 2, 7, 5), label, 0.1, profile=None)
    with pytest.raises(SettingsError, match=r"^report.cost_profile = 'loihi2' has no cost sets"):
        certify(graph, image, label, 0.1, profile=load_profile("loihi2"))
    with pytest.raises(SettingsError, match=r"^eps = -0.1 is not allowed; use 0 or more, in units of \[0, 1\]$"):
        certify(graph, image, label, -0.1, profile=None)
    first = replace(graph.layers[0], neurons=replace(graph.layers[0].neurons, spiking=False))
    with pytest.raises(UnsupportedLayerError, match=r"^layer 'a' never fires; only the output layer may be so$"):
        certify(replace(graph, layers=(first, *graph.layers[1:])), image, label, 0.1, profile=None)
