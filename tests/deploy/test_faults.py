"""Faults of the deployed network against the oracle's neurons, codes counted bit by bit, and shares by probability."""

import dataclasses
import json
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import CASES, NUMERICS, GraphCase, build, random_messages
from torch import Tensor

from hardspike.attack.gradient import cross_entropy, value_and_gradient
from hardspike.deploy.emulator import Emulator, EmulatorBackend
from hardspike.deploy.faults import (
    FAULT_KINDS,
    FaultKind,
    LostSpikes,
    StuckNeurons,
    fault_curve,
    faulty,
    faulty_graph,
    spike_faults,
    weight_codes,
)
from hardspike.deploy.input_coding import append_constant_channels
from hardspike.deploy.oracle import Oracle, update
from hardspike.deploy.process_graph import DenseSynapse, GraphLayer, InputContract, NeuronGroup, ProcessGraph
from hardspike.deploy.trace import Trace
from hardspike.deploy.verify import compare_oracle
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import DataError, DoesNotFitError, SettingsError
from hardspike.snn.surrogate import parse_surrogate, surrogate_gradient

BY_NAME = {case.name: case for case in CASES}
GRADED, LEAKY = BY_NAME["if graded"], BY_NAME["current memory and leak"]
# A graded input, spikes as input, memory with leak, and a constant channel.
MASKED = (GRADED, BY_NAME["if binary"], LEAKY, BY_NAME["constant channel and bias per position"])


def run(graph: ProcessGraph, kind: FaultKind, rate: float, messages: Tensor, batch_size: int = 256) -> Trace:
    network = faulty(graph, kind, rate, seed=4)
    return EmulatorBackend(batch_size, network.faults).run(network.graph, messages, keep_states=True)


def in_float_units(graph: ProcessGraph) -> ProcessGraph:
    """The same integers; surrogates see thresholds of 1."""
    layers = [dataclasses.replace(layer, scale=layer.neurons.threshold) for layer in graph.layers[:-1]]
    return dataclasses.replace(graph, layers=(*layers, graph.output))


def steps_of(graph: ProcessGraph, messages: Tensor, sample: int) -> list[list[int]]:
    row = (
        messages[:, sample] if graph.input.coding == "binary" else messages[sample].expand(graph.time_steps, -1, -1, -1)
    )
    return [step.flatten().tolist() for step in row]


def oracle_with_masks(
    graph: ProcessGraph, steps: list[list[int]], masks: dict[str, list[list[bool]]]
) -> tuple[dict[str, list[list[int]]], dict[str, list[list[int]]]]:
    """Spikes that arrive and potentials of one sample, neuron by neuron; masks: [layer][step][neuron], True where spikes arrive."""
    oracle, numerics = Oracle(graph), graph.numerics
    zeros = {layer.name: [0] * int(np.prod(layer.shape)) for layer in graph.layers}
    current, potential = ({name: list(values) for name, values in zeros.items()} for _ in range(2))
    arrived: dict[str, list[list[int]]] = {name: [] for name in zeros}
    before: dict[str, list[list[int]]] = {name: [] for name in zeros}
    constant = len(oracle._fan_out[graph.layers[0].name][0][1]) - len(steps[0])
    for t, step in enumerate(steps):
        sent = {INPUT: step + [graph.input.message_max] * constant}
        for layer in graph.layers:
            total = list(zeros[layer.name])
            for source, fan in oracle._fan_out[layer.name]:
                for message, (targets, weights) in zip(sent[source], fan, strict=True):
                    for target, weight in zip(targets, weights, strict=True):
                        total[target] += weight * message
            sent[layer.name], seen = [], []
            us, vs = current[layer.name], potential[layer.name]
            for n, added in enumerate(total):
                bias = oracle._bias[layer.name][n]
                us[n], v, spike, _ = update(added, us[n], vs[n], bias, layer.neurons, numerics)
                seen.append(v)
                vs[n] = 0 if spike else v
                sent[layer.name].append(spike if layer.name not in masks or masks[layer.name][t][n] else 0)
            arrived[layer.name].append(sent[layer.name])
            before[layer.name].append(seen)
    return arrived, before


@pytest.mark.parametrize("case", MASKED, ids=lambda case: case.name)
@pytest.mark.parametrize("kind", ["stuck", "dropped"])
def test_lost_spikes_equal_the_oracle_with_masks(case: GraphCase, kind: FaultKind) -> None:
    graph, samples = build(case), 2
    messages = random_messages(case, graph, samples)
    trace, faults = run(graph, kind, 0.3, messages), spike_faults(graph, kind, 0.3, seed=4)
    assert trace.states is not None
    encoded = append_constant_channels(messages, graph.input)
    encoded_B = encoded.transpose(0, 1) if case.coding == "binary" else encoded
    whole: dict[str, Tensor] = {}
    for layer in graph.layers[:-1]:
        spikes = trace.states.spikes[layer.name]
        if isinstance(faults, StuckNeurons):
            whole[layer.name] = faults.working[layer.name].expand_as(spikes)
        else:
            assert isinstance(faults, LostSpikes)
            whole[layer.name] = faults.arrives(layer.name, spikes.float(), encoded_B)
        assert 0.1 < float((~whole[layer.name]).double().mean()) < 0.5
    for sample in range(samples):
        masks = {name: mask[:, sample].flatten(1).tolist() for name, mask in whole.items()}
        arrived, before = oracle_with_masks(graph, steps_of(graph, messages, sample), masks)
        for layer in graph.layers:
            found = trace.states.spikes[layer.name][:, sample].flatten(1).long().tolist()
            assert found == arrived[layer.name], layer.name
            assert trace.states.potentials[layer.name][:, sample].flatten(1).tolist() == before[layer.name], layer.name
        assert trace.output[sample].tolist() == before["output"][-1]
    assert int(trace.spikes[graph.layers[0].name].sum()) == int(trace.states.spikes[graph.layers[0].name].sum()) > 0


@pytest.mark.parametrize("case", [GRADED, LEAKY, BY_NAME["if binary"]], ids=lambda case: case.name)
@pytest.mark.parametrize("kind", ["bitflip", "drift"])
def test_changed_graphs_equal_the_oracle(case: GraphCase, kind: FaultKind) -> None:
    """Large weights that flips bring make currents wrap."""
    graph = faulty_graph(build(case), kind, 0.4, seed=1)
    messages = random_messages(case, graph, 2)
    row = compare_oracle(graph, messages, EmulatorBackend().run(graph, messages, keep_states=True))
    assert (row.differing, row.first) == (0, "")


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_rate_0_changes_no_bit(kind: FaultKind) -> None:
    for case in (GRADED, LEAKY):
        graph = build(case)
        messages = random_messages(case, graph, 3)
        found, expected = run(graph, kind, 0, messages), EmulatorBackend().run(graph, messages, keep_states=True)
        assert found.states is not None and expected.states is not None
        for name, potentials in expected.states.potentials.items():
            assert torch.equal(found.states.potentials[name], potentials)
            assert torch.equal(found.states.spikes[name], expected.states.spikes[name])
        images, labels = messages / 255, torch.tensor([0, 1, 2])
        both = [
            value_and_gradient(n, images, cross_entropy(labels)) for n in (faulty(graph, kind, 0, 4), Emulator(graph))
        ]
        assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))
        assert float(both[0][2].abs().max()) > 0


@pytest.mark.parametrize("kind", ["stuck", "dropped"])
def test_without_any_spike_the_output_is_its_biases(kind: FaultKind) -> None:
    graph = build(GRADED)
    messages = random_messages(GRADED, graph, 2)
    bias = torch.from_numpy(graph.output.neurons.bias).long() << graph.output.neurons.bias_exponent
    trace = run(graph, kind, 1, messages)
    assert torch.equal(trace.output, (bias * graph.time_steps).expand(2, -1))
    assert all(int(spikes.sum()) == 0 for spikes in trace.spikes.values())
    # Where nothing arrives nothing is computed; the input's own messages are not lost.
    assert [int(trace.synaptic_operations[name].sum()) for name in ("conv1", "output")] == [0, 0]
    assert int(trace.synaptic_operations["conv0"].sum()) > 0


def one_synapse(weight: np.ndarray, weight_bits: int) -> ProcessGraph:
    layer = GraphLayer(
        name="n",
        shape=(1,),
        synapses=(DenseSynapse(source=INPUT, weight=weight.reshape(1, -1).astype(np.int32)),),
        neurons=NeuronGroup(threshold=1000, bias=np.zeros(1, np.int32)),
    )
    contract = InputContract(shape=(weight.size,), coding="graded", message_bits=1)
    return ProcessGraph(
        input=contract,
        layers=(layer,),
        time_steps=2,
        numerics=NUMERICS,
        profile="loihi2",
        weight_bits=weight_bits,
    )


def weights_of(graph: ProcessGraph) -> list[int]:
    found: list[int] = graph.layers[0].synapses[0].weight.ravel().tolist()
    return found


@pytest.mark.parametrize("bits", sorted(NUMERICS.weight_bits))
@pytest.mark.parametrize("sign", ["mixed", "positive", "negative"])
def test_all_bits_flipped_is_the_complement_of_every_code(bits: int, sign: str) -> None:
    """Two's complement: -1 - code; unsigned: 2^bits - 1 - code. Counted in bits of text, over all codes there are."""
    step = 1 << (8 - bits + (sign == "mixed"))
    codes = range(-(1 << bits - 1), 1 << bits - 1) if sign == "mixed" else range(1 << bits)
    factor = -step if sign == "negative" else step
    graph = one_synapse(np.array([code * factor for code in codes]), bits)
    stored, signed = weight_codes(graph.layers[0].synapses[0], NUMERICS, bits)
    assert (stored.ravel().tolist(), signed) == (list(codes), sign == "mixed")
    for code, weight in zip(codes, weights_of(faulty_graph(graph, "bitflip", 1, 0)), strict=True):
        text = format(code & (1 << bits) - 1, f"0{bits}b").translate(str.maketrans("01", "10"))
        other = int(text, 2) - (int(text[0]) << bits if sign == "mixed" else 0)
        assert weight == other * factor


def test_each_bit_flips_as_often_as_the_rate_says() -> None:
    rate, size = 0.2, 20_000
    weight = 2 * np.random.default_rng(0).integers(-128, 128, size=size)
    graph = one_synapse(weight, 8)
    before, after = (np.array(weights_of(g)) // 2 & 255 for g in (graph, faulty_graph(graph, "bitflip", rate, 7)))
    flips = before ^ after
    share = np.array([(flips >> bit & 1).mean() for bit in range(8)])
    # Five standard deviations of each bit's share, and bits are independent of each other.
    assert np.abs(share - rate).max() < 5 * (rate * (1 - rate) / size) ** 0.5
    assert (flips == 0).mean() == pytest.approx((1 - rate) ** 8, rel=0.1)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    weight=st.lists(st.integers(-128, 127), min_size=1, max_size=6),
    rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_flipped_weights_are_always_legal(weight: list[int], rate: float, seed: int) -> None:
    """A graph checks its weights when it is made. Small layers change their sign rule."""
    doubled = np.array([2 * w for w in weight])
    if doubled.max() <= 0:
        doubled = doubled.clip(-254)
    faulty_graph(one_synapse(doubled, 8), "bitflip", rate, seed)


def test_a_mixed_layer_left_without_positive_weights_keeps_to_their_range() -> None:
    assert weights_of(faulty_graph(one_synapse(np.array([-2, 254, 4]), 8), "bitflip", 1, 0)) == [0, -254, -6]


def test_flips_beyond_the_accumulator_are_refused() -> None:
    graph = one_synapse(np.resize([-2, 2], 100_000), 8)
    with pytest.raises(DoesNotFitError, match="layer 'n': synaptic input could reach"):
        faulty_graph(graph, "bitflip", 0.5, 0)


def test_stuck_neurons_are_a_share_and_lost_spikes_another() -> None:
    graph = build(GRADED)
    stuck = [~spike_faults(graph, "stuck", 0.25, seed).working["conv0"] for seed in range(40)]  # type: ignore[union-attr]
    assert float(torch.stack(stuck).double().mean()) == pytest.approx(0.25, abs=5 * (0.1875 / (40 * 210)) ** 0.5)
    assert not torch.equal(stuck[0], stuck[1])
    lost = spike_faults(graph, "dropped", 0.25, 0)
    assert isinstance(lost, LostSpikes)
    encoded = random_messages(GRADED, graph, 20)
    arrives = lost.arrives("conv0", torch.zeros(6, 20, 6, 7, 5), encoded)
    assert float(arrives.double().mean()) == pytest.approx(0.75, abs=5 * (0.1875 / arrives.numel()) ** 0.5)
    # Steps, samples, neurons and layers have losses of their own.
    assert not torch.equal(arrives[0], arrives[1]) and not torch.equal(arrives[:, 0], arrives[:, 1])
    assert not torch.equal(arrives, lost.arrives("conv1", torch.zeros(6, 20, 6, 7, 5), encoded))


def test_drift_multiplies_each_threshold_by_a_normal_factor() -> None:
    graph = build(GRADED)
    drifted = [faulty_graph(graph, "drift", 0.1, seed) for seed in range(150)]
    factors = [[_threshold(g, name) / _threshold(graph, name) for g in drifted] for name in ("conv0", "conv1")]
    for found in factors:
        assert mean(found) == pytest.approx(1, abs=0.03)
        assert stdev(found) == pytest.approx(0.1, rel=0.2)
    assert abs(np.corrcoef(*factors)[0, 1]) < 0.25
    wild = [_threshold(faulty_graph(graph, "drift", 50.0, seed), "conv0") for seed in range(20)]
    assert min(wild) == 0 and max(wild) == NUMERICS.threshold_mantissa_max
    assert drifted[0].output is graph.output
    assert drifted[0].provenance["fault"] == "drift, rate 0.1, seed 0"


def _threshold(graph: ProcessGraph, name: str) -> int:
    return next(layer.neurons.threshold for layer in graph.layers if layer.name == name)


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_a_higher_rate_adds_faults(kind: FaultKind) -> None:
    graph = build(GRADED)
    few, more = (faulty(graph, kind, rate, 3) for rate in (0.1, 0.3))
    if kind == "bitflip":
        original, *changed = (
            weight_codes(n.graph.layers[1].synapses[0], NUMERICS, 8)[0] for n in (Emulator(graph), few, more)
        )
        first, second = (codes ^ original for codes in changed)
        assert bool((first & second == first).all()) and bool((first != second).any())
    elif kind == "drift":
        moved = [_threshold(n.graph, "conv0") - _threshold(graph, "conv0") for n in (few, more)]
        assert moved[1] == pytest.approx(3 * moved[0], abs=2) and moved[0] != 0
    else:
        spikes, encoded = torch.ones(6, 2, 6, 7, 5), random_messages(GRADED, graph, 2)
        assert few.faults is not None and more.faults is not None
        first, second = (n.faults("conv0", spikes, encoded) for n in (few, more))  # type: ignore[misc]
        assert bool((second <= first).all()) and bool((second < first).any())


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_batches_and_order_change_nothing(kind: FaultKind) -> None:
    graph = build(LEAKY)
    messages = random_messages(LEAKY, graph, 5)
    trace = run(graph, kind, 0.2, messages)
    assert torch.equal(run(graph, kind, 0.2, messages, batch_size=2).output, trace.output)
    order = torch.tensor([4, 0, 2])
    assert torch.equal(run(graph, kind, 0.2, messages[order]).output, trace.output[order])
    network, images = faulty(graph, kind, 0.2, 4), messages / 255
    logits = network(images)
    torch.testing.assert_close(logits, (trace.output / network.logit_unit).float(), rtol=0, atol=0)
    assert not torch.equal(faulty(graph, kind, 0.2, 5)(images), logits)


def test_a_stuck_neuron_is_one_that_nothing_listens_to() -> None:
    """Zero columns of the next layer are the same network: equal logits and equal gradients, under every kind of surrogate."""
    case = BY_NAME["dense only, graded"]
    graph = in_float_units(build(case))
    network = faulty(graph, "stuck", 0.4, 1)
    first, last = graph.layers
    assert isinstance(network.faults, StuckNeurons)
    working = network.faults.working["dense0"].numpy()
    assert 0 < working.sum() < len(working)
    deaf = dataclasses.replace(last.synapses[0], weight=last.synapses[0].weight * working.astype(np.int32))
    expected = Emulator(dataclasses.replace(graph, layers=(first, dataclasses.replace(last, synapses=(deaf,)))))
    images, labels = random_messages(case, graph, 6) / 255, torch.arange(6) % 5
    for text in ("triangular:1", "exponential:0.3,2", "backward-rate", "spike-time"):
        with surrogate_gradient(parse_surrogate(text)):
            both = [value_and_gradient(n, images, cross_entropy(labels)) for n in (network, expected)]
        for found, wanted in zip(*both, strict=True):
            torch.testing.assert_close(found, wanted)
        assert float(both[0][2].abs().max()) > 0, text


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_gradients_lead_an_attack_on_the_faulty_network(kind: FaultKind) -> None:
    graph = in_float_units(build(GRADED))
    network, images = faulty(graph, kind, 0.1, 2), random_messages(GRADED, graph, 16) / 255
    loss = cross_entropy(network(images).argmax(1))
    gradient = value_and_gradient(network, images, loss)[2]
    towards, away = (float(loss(network((images + s * gradient.sign()).clamp(0, 1))).mean()) for s in (0.1, -0.1))
    assert towards > 10 * away


def test_a_curve_is_the_accuracy_of_each_faulty_network() -> None:
    graph = build(GRADED)
    images = random_messages(GRADED, graph, 12) / 255
    labels = Emulator(graph)(images).argmax(1)
    sets = {"clean": (images, labels), "attacked": (1 - images[:7], labels[:7])}
    curve = fault_curve(graph, sets, "dropped", (0.0, 0.5), seeds=(1, 8), batch_size=5)
    for name, (shown, wanted) in sets.items():
        for rate, of_seeds in zip((0.0, 0.5), curve.accuracy[name], strict=True):
            expected = [
                float((faulty(graph, "dropped", rate, s)(shown).argmax(1) == wanted).double().mean()) for s in (1, 8)
            ]
            assert list(of_seeds) == expected
    assert curve.mean("clean")[0] == 1 > curve.mean("clean")[1] > curve.lowest("clean")[1]
    assert curve.images == {"clean": 12, "attacked": 7}
    facts = json.loads(json.dumps(curve.facts()))
    assert facts["accuracy"]["attacked"][1] == list(curve.accuracy["attacked"][1])
    assert facts["mean"]["clean"] == list(curve.mean("clean"))


def test_bad_arguments_are_one_line_errors() -> None:
    graph = build(GRADED)
    sets = {"clean": (torch.rand(2, 2, 7, 5), torch.zeros(2, dtype=torch.int64))}
    with pytest.raises(SettingsError, match="fault kind = 'melt' is not allowed; use stuck, bitflip, dropped, drift"):
        faulty(graph, "melt", 0.1, 0)  # type: ignore[arg-type]
    with pytest.raises(
        SettingsError, match="fault rate = 1.5 is not allowed; use a probability between 0 and 1 for stuck"
    ):
        fault_curve(graph, sets, "stuck", [0.1, 1.5])
    with pytest.raises(SettingsError, match="use a standard deviation of 0 or more"):
        faulty(graph, "drift", -0.1, 0)
    with pytest.raises(SettingsError, match="fault rates = .. is not allowed; give one or more"):
        fault_curve(graph, sets, "stuck", [])
    with pytest.raises(DataError, match=r"set 'clean': labels \(3,\) for 2 images"):
        fault_curve(graph, {"clean": (sets["clean"][0], torch.zeros(3))}, "stuck", [0.1])
