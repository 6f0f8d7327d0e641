"""Bringing images to the grid inside the ball, what is replayed, event counts, prices and the report's numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import CASES, GraphCase, build, random_messages

from hardspike.attack.ball import ROUNDING
from hardspike.deploy.compare import Counter, correlation
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.energy import neuron_updates, price, sum_layers
from hardspike.deploy.input_coding import append_constant_channels, quantize_images
from hardspike.deploy.process_graph import ConvSynapse, ProcessGraph
from hardspike.deploy.replay import Replayed, SetOrigin, on_grid_inside_ball
from hardspike.deploy.replay_file import load_replayed, save_replayed
from hardspike.deploy.report.numbers import distribution, proportion
from hardspike.deploy.trace import Trace, join_traces
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import SettingsError

PIXEL = st.floats(0, 1, width=32)


@settings(max_examples=300, deadline=None)
@given(clean=PIXEL, moved=st.floats(-1, 1), eps=st.floats(1 / 255, 0.5), bits=st.sampled_from([1, 4, 8]))
def test_grid_values_stay_inside_the_ball(clean: float, moved: float, eps: float, bits: int) -> None:
    top = 2**bits - 1
    x = torch.tensor([[[[clean]]]], dtype=torch.float64)
    attacked = (x + moved * eps).clamp(0, 1)
    found = float(on_grid_inside_ball(attacked, x, eps, bits))
    grid = [k / top for k in range(top + 1)]
    inside = [g for g in grid if abs(g - clean) <= eps + ROUNDING]
    assert found in grid
    if inside:
        nearest = min(abs(g - float(attacked)) for g in inside)
        assert found in inside and abs(found - float(attacked)) <= nearest + 1e-12
    else:
        assert found == float(quantize_images(x, bits))


def test_quantising_is_idempotent_on_every_8_bit_value() -> None:
    grid = (torch.arange(256).float() / 255).reshape(1, 1, 16, 16)
    assert torch.equal(quantize_images(grid, 8), grid)
    halves = torch.tensor([0.5, 1.5, 254.5]).double().reshape(1, 1, 1, 3) / 255
    assert torch.equal(quantize_images(halves, 8).flatten() * 255, torch.tensor([1.0, 2.0, 255.0]).double())


def _slow_operations(
    graph: ProcessGraph, trace: Trace, encoded: torch.Tensor, sample: int, step: int
) -> dict[str, int]:
    """Operations at one step by walking every synapse of every message that arrives."""
    assert trace.states is not None
    result = {}
    for layer in graph.layers:
        (synapse,) = layer.synapses
        if synapse.source == INPUT:
            sent = encoded[step, sample] if graph.input.coding == "binary" else encoded[sample]
        else:
            sent = trace.states.spikes[synapse.source][step, sample]
        count = 0
        if isinstance(synapse, ConvSynapse):
            out_channels, per_group, rows, columns = synapse.weight.shape
            for o, y, x in np.ndindex(layer.shape):
                group = o // (out_channels // synapse.groups)
                for i, ky, kx in np.ndindex(per_group, rows, columns):
                    iy = y * synapse.stride[0] - synapse.padding[0] + ky * synapse.dilation[0]
                    ix = x * synapse.stride[1] - synapse.padding[1] + kx * synapse.dilation[1]
                    if 0 <= iy < sent.shape[1] and 0 <= ix < sent.shape[2] and synapse.weight[o, i, ky, kx]:
                        count += int(sent[group * per_group + i, iy, ix] != 0)
        else:
            active = sent.flatten() != 0
            count = int((synapse.weight[:, active.numpy()] != 0).sum())
        result[layer.name] = count
    return result


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_synaptic_operations_equal_a_walk_over_all_synapses(case: GraphCase) -> None:
    graph = build(case)
    messages = random_messages(case, graph, 2)
    trace = EmulatorBackend().run(graph, messages, keep_states=True)
    encoded = append_constant_channels(messages, graph.input)
    for step in (0, graph.time_steps - 1):
        slow = _slow_operations(graph, trace, encoded, 1, step)
        assert slow == {name: int(counts[step, 1]) for name, counts in trace.synaptic_operations.items()}
    for name, counts in trace.spikes.items():
        assert trace.states is not None
        assert torch.equal(counts, trace.states.spikes[name].flatten(2).sum(2))
        assert torch.equal(trace.active[name], (trace.states.spikes[name].sum(0) > 0).flatten(1).sum(1))


def test_batches_join_to_the_same_trace() -> None:
    graph = build(CASES[1])
    messages = random_messages(CASES[1], graph, 7)
    whole = EmulatorBackend(batch_size=7).run(graph, messages, keep_states=True)
    parts = EmulatorBackend(batch_size=2).run(graph, messages, keep_states=True)
    assert torch.equal(whole.output, parts.output) and torch.equal(whole.messages, parts.messages)
    for group in ("spikes", "active", "synaptic_operations"):
        for name, value in getattr(whole, group).items():
            assert torch.equal(value, getattr(parts, group)[name])
    assert whole.states is not None and parts.states is not None
    assert all(torch.equal(whole.states.potentials[n], parts.states.potentials[n]) for n in whole.states.potentials)
    assert len(join_traces([parts, parts])) == 14


def test_energy_is_the_price_list_times_the_counts() -> None:
    graph = build(CASES[0])
    trace = EmulatorBackend().run(graph, random_messages(CASES[0], graph, 3))
    layers = price(graph, trace, load_profile("loihi1"))
    convolution, readout = graph.layers[1], graph.layers[2]
    operations, spikes = int(trace.synaptic_operations["conv1"][:, 2].sum()), int(trace.spikes["conv1"][:, 2].sum())
    idle = neuron_updates(convolution, graph.time_steps) - spikes
    assert neuron_updates(convolution, graph.time_steps) == 4 * 7 * 5 * 6
    davies = (operations * 23.6 + spikes * 81 + idle * 52) * 1e-12
    sanafe = (operations * 24.0 + spikes * (72.8 + 69.3) + idle * 72.8) * 1e-12
    assert float(layers["conv1"].by_set["davies2018"][2]) == pytest.approx(davies, rel=1e-12, abs=0)
    assert float(layers["conv1"].by_set["sanafe"][2]) == pytest.approx(sanafe, rel=1e-12, abs=0)
    assert float(layers["conv1"].low_j[2]) == pytest.approx(min(davies, sanafe))
    dense = (
        int(trace.synaptic_operations["output"][:, 0].sum()) * 35.5 + neuron_updates(readout, graph.time_steps) * 72.8
    )
    assert float(layers["output"].by_set["sanafe"][0]) == pytest.approx(dense * 1e-12, rel=1e-12, abs=0)
    total = sum_layers(layers)
    assert float(total.high_j[1]) == pytest.approx(sum(float(e.by_set["sanafe"][1]) for e in layers.values()))


def test_no_energy_is_invented_for_loihi2() -> None:
    graph = build(CASES[0])
    trace = EmulatorBackend().run(graph, random_messages(CASES[0], graph, 1))
    with pytest.raises(
        SettingsError, match=r"'loihi2' has no cost sets .no per-operation energy is public.; use loihi1"
    ):
        price(graph, trace, load_profile("loihi2"))


def test_replayed_sets_come_back_from_disk(tmp_path: Path) -> None:
    graph = build(CASES[0])
    trace = EmulatorBackend().run(graph, random_messages(CASES[0], graph, 4))
    right = torch.tensor([True, False, True, True])
    made = Replayed(
        origin=SetOrigin(name="attack on snn eps 0.1", kind="attack", eps=0.1, made_on="snn"),
        trace=trace,
        right_deployed=right,
        right_snn=~right,
        right_ann=right,
        right_snn_exact=right,
        agreement=0.25,
    )
    save_replayed(tmp_path / "set.safetensors", made)
    found = load_replayed(tmp_path / "set.safetensors")
    assert found.origin == made.origin and found.agreement == 0.25
    assert torch.equal(found.trace.predicted, trace.predicted) and torch.equal(found.right_snn, ~right)
    assert found.trace.spikes.keys() == trace.spikes.keys()


def test_differences_name_layer_step_sample_and_neuron() -> None:
    expected = torch.zeros(3, 2, 4)
    found = expected.clone()
    found[1, 1, 2] = 5
    counter = Counter()
    counter.add("spike of a", found, expected)
    row = counter.row("x", "y")
    assert (row.compared, row.differing, row.verdict) == (24, 1, "DIFFERS")
    assert row.first == "spike of a step 2, sample 1, neuron (2,): 5 instead of 0"
    assert replace(row, reason="no Lava").verdict == "not compared"
    with pytest.raises(ValueError, match="cannot be compared"):
        counter.add("b", found, expected[:1])


def test_intervals_and_distributions() -> None:
    """Wilson's interval for 90 of 100 (computed by hand from the formula), and quantiles of a known list."""
    share = proportion(torch.arange(100) < 90)
    assert (share["value"], share["n"]) == (0.9, 100)
    assert share["low"] == pytest.approx(0.8256, abs=1e-4) and share["high"] == pytest.approx(0.9448, abs=1e-4)
    assert proportion(torch.ones(5, dtype=torch.bool))["high"] == 1.0
    assert distribution(torch.arange(101)) == {"mean": 50.0, "p50": 50.0, "p95": 95.0, "max": 100.0}
    assert correlation(torch.ones(4), torch.arange(4)) is None
    assert correlation(torch.arange(4), 3 * torch.arange(4) + 1) == pytest.approx(1)
