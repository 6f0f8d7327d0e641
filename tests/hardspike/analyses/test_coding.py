"""Coding efficiency: sums against loops over spikes, what a replay left used again, and kinds of images that are not there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hand_made_run import hand_made_subject, silenced, zoo_network

from hardspike.analyses.coding import coding
from hardspike.analyses.layer_activity import layer_sizes
from hardspike.analyses.looked_at_images import attacked_images, energy_images, noise_images
from hardspike.analyses.spike_counts import SpikeCounts, class_means, histogram_counts, histogram_edges
from hardspike.analyses.subject import Subject
from hardspike.deploy.input_coding import encode_images, quantize_images
from hardspike.deploy.replay import ReplaySet, SetOrigin, replay
from hardspike.deploy.replay_file import save_replayed
from hardspike.deploy.report.chart import BarChart, Histogram
from hardspike.snn.architecture import ImageInput, chain
from hardspike.snn.checkpoint import save_tensors
from hardspike.snn.network import SpikingNetwork


def test_counts_are_those_of_loops() -> None:
    generator = torch.Generator().manual_seed(1)
    spikes = {
        "a": torch.rand(3, 4, 2, 2, 2, generator=generator) < 0.3,
        "b": torch.rand(3, 4, 5, generator=generator) < 0.1,
    }
    sizes = {"a": 8, "b": 5}
    counts = SpikeCounts.of_spikes({**spikes, "output": torch.ones(3, 4, 9)}, sizes)
    for b in range(4):
        total, active, by_step = 0, 0, [0, 0, 0]
        for name, size in sizes.items():
            rows = spikes[name].flatten(2)
            in_layer = sum(int(rows[t, b, i]) for t in range(3) for i in range(size))
            assert float(counts.layer_shares(name)[b]) == pytest.approx(in_layer / (size * 3))
            total += in_layer
            active += sum(any(bool(rows[t, b, i]) for t in range(3)) for i in range(size))
            by_step = [by_step[t] + int(rows[t, b].sum()) for t in range(3)]
        assert int(counts.totals[b]) == total
        assert float(counts.shares[b]) == pytest.approx(total / (13 * 3))
        assert float(counts.active_shares[b]) == pytest.approx(active / 13)
        assert counts.step_shares()[:, b].tolist() == pytest.approx([one / 13 for one in by_step])
    halves = [
        SpikeCounts.of_spikes({k: v[:, rows] for k, v in spikes.items()}, sizes) for rows in (slice(3), slice(3, 4))
    ]
    assert torch.equal(SpikeCounts.joined(halves).totals, counts.totals) and len(counts) == 4 and counts.steps == 3


def test_paper_counts_are_reached() -> None:
    """VGG11 of arXiv 2311.09266: 286,720 neurons and 8 steps give 2,293,760 possible spikes; 148,490 of them are 6.47 %."""
    spikes = torch.zeros(8, 1, dtype=torch.int64)
    spikes[0, 0] = 148_490
    counts = SpikeCounts(spikes={"all": spikes}, active={"all": torch.zeros(1)}, sizes={"all": 286_720})
    assert round(100 * float(counts.shares[0]), 2) == 6.47


def test_histograms_hold_every_image_once() -> None:
    series = [torch.tensor([3, 5, 5, 9]), torch.tensor([4, 11])]
    edges = histogram_edges(series, 4)
    assert edges == (3.0, 5.0, 7.0, 9.0, 11.0)
    assert histogram_counts(series[0], edges) == (1.0, 2.0, 0.0, 1.0)
    assert histogram_counts(series[1], edges) == (1.0, 0.0, 0.0, 1.0)
    assert histogram_edges([torch.tensor([7, 7])], 4) == (6.5, 7.5)
    assert histogram_counts(torch.tensor([7, 7]), (6.5, 7.5)) == (2.0,)


def test_class_means() -> None:
    assert class_means(torch.tensor([4, 6, 9]), torch.tensor([2, 2, 0]), 4) == [9.0, None, 5.0, None]


def _direct(subject: Subject, network: str, images: torch.Tensor) -> list[int]:
    """Spikes per image, from the networks themselves."""
    hidden = list(layer_sizes(subject.snn.architecture))
    if network == "snn":
        with torch.no_grad(), subject.snn.recording() as (spikes, _):
            subject.snn(images)
        return [int(sum(spikes[name][:, b].sum() for name in hidden)) for b in range(len(images))]
    trace = subject.backend.run(subject.graph, encode_images(images, subject.graph))
    return [int(sum(trace.spikes[name][:, b].sum() for name in hidden)) for b in range(len(images))]


def test_of_a_residual_network(tmp_path: Path) -> None:
    subject = hand_made_subject(tmp_path, zoo_network("resnet_mini"), images=5)
    found = coding(subject)
    json.dumps(found.values, allow_nan=False)
    clean = quantize_images(subject.test.images, 8)
    for network, sets in found.values["networks"].items():
        assert list(sets) == ["clean", "noise", "attack"]
        for kind, images in (
            ("clean", clean),
            ("noise", noise_images(subject)),
            ("attack", attacked_images(subject, network).images),
        ):
            totals = _direct(subject, network, images)
            assert sets[kind]["spikes"]["mean"] == pytest.approx(sum(totals) / 5)
            assert sets[kind]["spikes"]["max"] == max(totals)
            assert sets[kind]["share"]["mean"] == pytest.approx(sum(totals) / 5 / (found.values["neurons"] * 4))
        totals = _direct(subject, network, clean)
        assert sets["clean"]["classes"][:3] == [
            pytest.approx(sum(totals[0::2]) / 3),
            pytest.approx(sum(totals[1::2]) / 2),
            None,
        ]
    with torch.no_grad(), subject.ann.recording() as (_, currents):
        subject.ann(clean)
    above = sum(int((current > 0).sum()) for current in currents.values())
    assert found.values["ann_active_units"]["all"]["mean"] == pytest.approx(above / (5 * found.values["neurons"]))
    assert any("hardspike energy" in note for note in found.notes) and any(
        "class 2, 3, 4" in note for note in found.notes
    )
    histogram = found.charts[0]
    assert isinstance(histogram, Histogram) and [sum(v or 0 for v in bars.values) for bars in histogram.bars] == [
        5,
        5,
        5,
    ]
    assert isinstance(found.charts[-1], BarChart) and found.charts[-1].bars[0].values[2] is None
    for chart in found.charts:
        chart.table()


def test_images_of_an_attack_for_energy(tmp_path: Path) -> None:
    subject = hand_made_subject(tmp_path, zoo_network("vgg_mini"), images=4)
    assert energy_images(subject) is None
    for eps, grey in ((0.3, 0.0), (0.1, 1.0)):
        made = torch.full((3, *subject.test.images.shape[1:]), grey)
        tensors = {"energy-attack-class-kept": made, "energy-attack": made * 0}
        metadata = {"kind": "energy attack", "graph": subject.folder.key("deploy")}
        save_tensors(subject.folder.energy_set(eps), tensors, metadata | {"graph": "another network's"})
        assert energy_images(subject) is None or eps == 0.1, "images of a network that has changed since"
        save_tensors(subject.folder.energy_set(eps), tensors, metadata)
    found = energy_images(subject)
    assert found is not None and float(found.images.min()) == 1.0 and "eps 0.1" in found.member
    subject = Subject(subject.folder, replace(subject.options, eps=0.2))
    subject.splits = hand_made_subject(tmp_path / "b", zoo_network("vgg_mini"), images=4).splits
    other = energy_images(subject)
    assert other is not None and "eps 0.3" in other.member, "the largest where there is none of this budget"
    result = coding(subject)
    sets = result.values["networks"]["deployed"]
    assert sets["energy"]["n"] == 3 and sets["clean"]["n"] == 4
    assert sets["energy"]["spikes"]["max"] == max(_direct(subject, "deployed", other.images))
    assert any(text.startswith("Attacked for energy images cost the deployed network") for text in result.found)


def test_a_replay_is_used_where_it_fits(tmp_path: Path) -> None:
    subject = hand_made_subject(tmp_path, zoo_network("vgg_mini"), images=4)
    graph, data = subject.graph, subject.test
    made = replay(
        ReplaySet(origin=SetOrigin(name="clean", kind="clean"), images=data.images, clean=data),
        graph,
        subject.backend,
        ann=subject.ann,
        snn=subject.snn,
    )
    doubled = replace(made.trace, spikes={name: 2 * value for name, value in made.trace.spikes.items()})
    save_replayed(subject.folder.replayed_set("emulator", "clean"), replace(made, trace=doubled))
    plain = coding(subject).values["networks"]["deployed"]["clean"]["spikes"]["mean"]
    for stage in ("verify", "attack", "replay"):
        subject.folder.finish(stage, 0.0)
    assert coding(subject).values["networks"]["deployed"]["clean"]["spikes"]["mean"] == 2 * plain
    more = Subject(subject.folder, replace(subject.options, images=5))
    more.splits = hand_made_subject(tmp_path / "b", zoo_network("vgg_mini"), images=5).splits
    assert coding(more).values["networks"]["deployed"]["clean"]["n"] == 5, "too few were replayed"


def test_silent_single_step_poisson_and_without_deployment(tmp_path: Path) -> None:
    silent = coding(hand_made_subject(tmp_path / "a", silenced(zoo_network("vgg_mini", time_steps=1)), images=1))
    json.dumps(silent.values, allow_nan=False)
    assert silent.values["networks"]["deployed"]["clean"]["share"] == {"mean": 0.0, "low": None, "high": None}
    assert sum("fires no hidden spike" in note for note in silent.notes) == 2
    assert isinstance(silent.charts[0], Histogram) and silent.charts[0].edges == (-0.5, 0.5)
    net = zoo_network("vgg_mini", coding="poisson", norm="per-step", norm_steps=4)
    found = coding(hand_made_subject(tmp_path / "b", net, images=3, has_ann=False, deployed=False))
    assert list(found.values["networks"]) == ["snn"] and found.values["ann_active_units"] is None
    assert found.values["networks"]["snn"]["clean"]["spikes"]["mean"] > 0


def test_a_network_without_hidden_neurons(tmp_path: Path) -> None:
    from small_networks import HEAD

    image = ImageInput(shape=(1, 2, 2), mean=(0.5,), std=(0.5,))
    net = SpikingNetwork(chain(image, HEAD), 2)  # type: ignore[arg-type]
    found = coding(hand_made_subject(tmp_path, net, images=2, deployed=False))
    assert found.charts == () and "no hidden" in found.found[0]
