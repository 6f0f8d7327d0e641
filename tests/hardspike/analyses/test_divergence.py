"""Where networks part: every number against a loop over neurons and steps, and runs without an ANN, a chip or a spike."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hand_made_run import hand_made_subject, silenced, zoo_network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hardspike.analyses.divergence import compare_networks, divergence, spread
from hardspike.analyses.layer_activity import batches, noise_of, observers, sent_images
from hardspike.analyses.mean_interval import mean_interval
from hardspike.analyses.options import AnalyseOptions
from hardspike.analyses.spike_divergence import (
    LayerPair,
    RunningCorrelation,
    diverged_by,
    equal_share,
    first_difference,
    largest_drop,
)
from hardspike.analyses.subject import Subject
from hardspike.deploy.compare import correlation
from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.report.chart import LineChart
from hardspike.run_folder import RunFolder


def slow_correlation(pairs: list[tuple[float, float]]) -> float | None:
    n = len(pairs)
    mean_a, mean_b = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    if len({a for a, _ in pairs}) == 1 or len({b for _, b in pairs}) == 1:
        return None
    top = sum((a - mean_a) * (b - mean_b) for a, b in pairs)
    low = sum((a - mean_a) ** 2 for a, _ in pairs) * sum((b - mean_b) ** 2 for _, b in pairs)
    return float(top / low**0.5)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-8, 8), st.integers(-8, 8)), min_size=1, max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
)
def test_correlation_of_batches_is_that_of_the_whole(pairs: list[tuple[int, int]], cuts: list[int]) -> None:
    values = [(a / 7, b / 3 + 1e3) for a, b in pairs]
    whole, running = torch.tensor(values, dtype=torch.float64), RunningCorrelation()
    ends = sorted({0, *(min(cut, len(pairs)) for cut in cuts), len(pairs)})
    for start, end in zip([0, *ends], ends, strict=False):  # the first batch is empty
        running.add(whole[start:end, 0], whole[start:end, 1])
    expected = slow_correlation([(float(a), float(b)) for a, b in whole.tolist()])
    assert (running.value is None) == (expected is None)
    if running.value is not None and expected is not None:
        assert running.value == pytest.approx(expected, abs=1e-9)


def test_a_constant_side_correlates_with_nothing() -> None:
    running = RunningCorrelation()
    for size in (3, 5, 7):  # 0.1 does not add up exactly
        running.add(torch.full((size,), 0.1, dtype=torch.float64), torch.rand(size))
    assert running.value is None
    assert RunningCorrelation().value is None


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_first_difference_and_equal_share_are_those_of_loops(steps: int, samples: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(steps, samples, 2, 2, generator=generator) < 0.5
    second = first ^ (torch.rand(steps, samples, 2, 2, generator=generator) < 0.1)
    firsts, shares = first_difference(first, second).tolist(), equal_share(first, second).tolist()
    for b in range(samples):
        expected, same = 0, 0
        for t in range(steps):
            for i in range(4):
                equal = bool(first[t, b].flatten()[i] == second[t, b].flatten()[i])
                same += equal
                if not equal and expected == 0:
                    expected = t + 1
        assert firsts[b] == expected
        assert shares[b] == pytest.approx(same / (4 * steps))
    counts = diverged_by(torch.tensor(firsts), steps)
    assert counts == [sum(0 < one <= t for one in firsts) for t in range(1, steps + 1)]


def test_largest_drop() -> None:
    assert largest_drop([0.9, 0.7, 0.75, 0.6]) == (1, 0.9, 0.7)
    assert largest_drop([0.5, None, 0.45]) == (0, 1.0, 0.5)
    assert largest_drop([0.99, None, 0.5]) == (2, 0.99, 0.5)
    assert largest_drop([1.0, 1.0 - 1e-15]) is None
    assert largest_drop([None]) is None and largest_drop([]) is None


def test_mean_interval() -> None:
    found = mean_interval(torch.tensor([1.0, 2.0, 4.0, 5.0]))
    assert found["mean"] == 3.0
    half = 1.959964 * (10 / 3) ** 0.5 / 2
    assert found["low"] == pytest.approx(3 - half) and found["high"] == pytest.approx(3 + half)
    assert mean_interval(torch.tensor([0.0, 1.0]), high=1.0) == {"mean": 0.5, "low": 0.0, "high": 1.0}
    assert mean_interval(torch.tensor([0.5])) == {"mean": 0.5, "low": None, "high": None}


def _spikes(subject: Subject) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All spikes of the float SNN and of the emulator, straight from the networks."""
    images = sent_images(subject, subject.test.images)
    with torch.no_grad(), subject.snn.recording() as (spikes, _):
        subject.snn(images)
    graph = subject.graph
    trace = EmulatorBackend().run(graph, encode_images(images, graph), keep_states=True)
    assert trace.states is not None
    return spikes, trace.states.spikes


def test_of_a_run(run: Path) -> None:
    subject = Subject(RunFolder.open(run), AnalyseOptions(images=12))
    found = divergence(subject)
    pairs = {(one["first"], one["second"]): one for one in found.values["pairs"]}
    assert list(pairs) == [("ann", "snn"), ("snn", "quantised"), ("quantised", "deployed"), ("snn", "deployed")]
    floats, integers = _spikes(subject)
    for layer in pairs["snn", "deployed"]["layers"]:
        mine, theirs = floats[layer["layer"]], integers[layer["layer"]]
        assert layer["correlation"] == pytest.approx(correlation(mine.sum(0), theirs.sum(0)), abs=1e-9)
        same = (mine.bool() == theirs).double().mean()
        assert layer["equal_spikes"]["mean"] == pytest.approx(float(same))
        by_step = [
            sum(bool((mine[:t, b].bool() != theirs[:t, b]).any()) for b in range(12)) for t in range(1, len(mine) + 1)
        ]
        assert layer["diverged_by_step"] == by_step
        assert layer["first_step"] == next((t + 1 for t, count in enumerate(by_step) if count), None)
    ann = pairs["ann", "snn"]["layers"][1]
    with torch.no_grad(), subject.ann.recording() as (_, currents):
        subject.ann(sent_images(subject, subject.test.images))
    expected = correlation(currents[ann["layer"]][0].clamp(min=0), floats[ann["layer"]].mean(0))
    assert ann["correlation"] == pytest.approx(expected, abs=1e-9)
    assert found.values["accuracy"]["snn"]["n"] == 12
    drops = pairs["ann", "snn"]["largest_drop"]
    assert any(f"drops most at layer {drops}" in text for text in found.found)
    json.dumps(found.values, allow_nan=False)
    for chart in found.charts:
        chart.table()


def test_batches_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = divergence(hand_made_subject(tmp_path / "whole", zoo_network("resnet_mini"), images=5))
    monkeypatch.setattr("hardspike.analyses.layer_activity.LARGEST_BATCH", 2)
    split = divergence(hand_made_subject(tmp_path / "split", zoo_network("resnet_mini"), images=5))
    for one, other in zip(whole.values["pairs"], split.values["pairs"], strict=True):
        assert one["agreement"] == other["agreement"]
        for layer, twin in zip(one["layers"], other["layers"], strict=True):
            assert layer.pop("correlation") == pytest.approx(twin.pop("correlation"), abs=1e-6)
            assert layer.pop("equal_spikes", None) == pytest.approx(twin.pop("equal_spikes", None))
            assert layer == twin
    assert len(whole.charts) == 4 and len(whole.values["layers"]) > 4
    firsts = whole.charts[3]
    assert isinstance(firsts, LineChart) and len(firsts.lines) == 4 and "layers are shown" in firsts.caption


def test_poisson_networks_see_the_same_spikes(tmp_path: Path) -> None:
    subject = hand_made_subject(tmp_path, zoo_network("vgg_mini", coding="poisson"), images=4)
    noise = subject.snn.noise
    found = divergence(subject)
    assert subject.snn.noise is noise and next(subject.snn.parameters()).dtype == torch.float32
    floats = found.values["pairs"][1]["layers"][0]
    assert floats["correlation"] > 0.95, "with other draws the first layers would not be alike"
    assert floats["equal_spikes"]["mean"] > 0.9
    again = divergence(subject)
    assert asdict(again) == asdict(found)
    other = hand_made_subject(tmp_path / "b", zoo_network("vgg_mini", coding="poisson"), images=4, seed=9)
    assert divergence(other).values != found.values


def test_without_ann_and_without_deployment(tmp_path: Path) -> None:
    net = zoo_network("vgg_mini", norm="per-step", norm_steps=4)
    alone = divergence(hand_made_subject(tmp_path / "a", net, has_ann=False, deployed=False))
    assert alone.charts == () and "one network only" in alone.found[0] and len(alone.notes) == 2
    pair = divergence(hand_made_subject(tmp_path / "b", zoo_network("vgg_mini"), deployed=False))
    assert [one["first"] for one in pair.values["pairs"]] == ["ann"]
    assert len(pair.charts) == 2 and "backend" not in pair.conditions


def test_silent_networks_have_no_correlation_but_equal_spikes(tmp_path: Path) -> None:
    net = silenced(zoo_network("vgg_mini", time_steps=1))
    found = divergence(hand_made_subject(tmp_path, net, images=1))
    json.dumps(found.values, allow_nan=False)
    last = found.values["pairs"][-1]
    assert all(layer["correlation"] is None and layer["first_step"] is None for layer in last["layers"])
    assert all(layer["equal_spikes"] == {"mean": 1.0, "low": None, "high": None} for layer in last["layers"])
    assert "Every spike of the deployed network is the float SNN's." in found.found
    assert any("no correlation in" in note for note in found.notes)


class _Twisted:
    """A backend that inverts the first neuron of one layer in the last step of sample 1."""

    name = "lava"

    def __init__(self, layer: str) -> None:
        self.layer = layer

    def run(self, graph: object, messages: Tensor, **options: object) -> object:
        trace = EmulatorBackend().run(graph, messages, keep_states=True)  # type: ignore[arg-type]
        assert trace.states is not None
        trace.states.spikes[self.layer].flatten(2)[-1, 1, 0] ^= True
        return replace(trace, backend=self.name)


def test_another_backend_is_compared_with_the_emulator(tmp_path: Path) -> None:
    subject = hand_made_subject(tmp_path, zoo_network("vgg_mini"), images=3, backend="lava")
    layers = [node.name for node in subject.snn.architecture.spiking]
    subject.backend = _Twisted(layers[1])  # type: ignore[assignment]
    compared, right = compare_networks(subject)
    with torch.no_grad():
        classes = [network(subject.test.images).argmax(1) for network in (subject.ann, subject.snn)]
    assert torch.equal(compared[0].agrees, classes[0] == classes[1])
    assert torch.equal(right["ann"], classes[0] == subject.test.labels)
    last = compared[-1]
    assert last.agrees.all()
    assert (last.first, last.second) == ("deployed", "lava")
    assert [last.first_steps(layer).tolist() for layer in layers[:3]] == [[0, 0, 0], [0, 4, 0], [0, 0, 0]]
    assert len(divergence(subject).values["pairs"]) == 5


def test_the_quantised_network_has_the_emulators_spikes_where_nothing_decays(tmp_path: Path) -> None:
    net = zoo_network("vgg_mini")
    with torch.no_grad():
        for neuron in net.neurons().values():
            neuron.leak.fill_(1.0)
    compared, _ = compare_networks(hand_made_subject(tmp_path, net))
    pair = next(one for one in compared if (one.first, one.second) == ("quantised", "deployed"))
    assert all(not pair.first_steps(layer).any() for layer in pair.layers)
    assert "every spike is the same" in " ".join(divergence(hand_made_subject(tmp_path, net)).found)


def test_helpers_of_batches(tmp_path: Path) -> None:
    net = zoo_network("vgg_mini")
    assert [(rows.start, rows.stop) for rows in batches(300, net)] == [(0, 128), (128, 256), (256, 300)]
    assert noise_of(3, 128) != noise_of(3, 0)
    assert spread(list("abcdefg"), 4) == ["a", "c", "e", "g"] and spread(["a"], 4) == ["a"]
    assert list(observers(hand_made_subject(tmp_path, net))) == ["ann", "snn", "quantised", "deployed"]
    pair = LayerPair()
    pair.add(torch.rand(1, 2, 3), torch.ones(4, 2, 3), spikes=False)
    assert pair.equal == [] and pair.correlation.count == 6
