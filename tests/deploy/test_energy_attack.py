"""The energy attack against all images of small balls, its budget and class constraint, and the report's numbers."""

import itertools
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import small_networks
import torch
from random_graphs import CASES, NUMERICS, build, random_messages
from torch import Tensor

from hardspike.attack.ball import Ball, overshoot
from hardspike.deploy.emulator import Emulator, EmulatorBackend
from hardspike.deploy.energy import price, sum_layers
from hardspike.deploy.energy_attack import _Meter, _Target, counted_work, energy_attack, event_prices
from hardspike.deploy.energy_report import control_images, energy_report
from hardspike.deploy.fold import fold_network
from hardspike.deploy.input_coding import encode_images
from hardspike.deploy.process_graph import DenseSynapse, GraphLayer, InputContract, NeuronGroup, ProcessGraph
from hardspike.deploy.quantize import quantize_network
from hardspike.deploy.trace import Trace
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import DataError, SettingsError
from hardspike.snn.surrogate import Activation, Triangular, surrogate_gradient

LOIHI1 = load_profile("loihi1")
RADIUS = 5  # grey values


def _run(graph: ProcessGraph, images: Tensor) -> Trace:
    return EmulatorBackend().run(graph, encode_images(images, graph))


def _operations(trace: Trace) -> Tensor:
    return sum(counts.sum(0) for counts in trace.synaptic_operations.values())  # type: ignore[return-value]


def _even(rng: np.random.Generator, most: int, shape: tuple[int, int]) -> np.ndarray:
    weight = 2 * rng.integers(-most // 2, most // 2 + 1, size=shape).astype(np.int32)
    weight.flat[0], weight.flat[-1] = most, -most
    return weight


def _toy(seed: int) -> ProcessGraph:
    """Three pixels, so steep that a few grey values change most spikes."""
    rng = np.random.default_rng(seed)
    sparse = _even(rng, 120, (6, 8))
    sparse[1:-1][rng.random((4, 8)) < 0.4] = 0
    layers = []
    for name, source, weight, threshold, scale in (
        ("a", INPUT, _even(rng, 250, (8, 3)), int(rng.integers(3000, 12000)), 8000.0),
        ("b", "a", sparse, int(rng.integers(50, 150)), 100.0),
        ("output", "b", _even(rng, 100, (3, 6)), 131071, 50.0),
    ):
        bias = rng.integers(-threshold // 20, threshold // 20 + 1, size=len(weight)).clip(-300, 300).astype(np.int32)
        neurons = NeuronGroup(threshold=threshold, bias=bias, spiking=name != "output")
        synapse = DenseSynapse(source=source, weight=weight)
        layers.append(GraphLayer(name=name, shape=(len(weight),), synapses=(synapse,), neurons=neurons, scale=scale))
    contract = InputContract(shape=(1, 1, 3), coding="graded", message_bits=8)
    return ProcessGraph(input=contract, layers=tuple(layers), time_steps=5, numerics=NUMERICS, profile="loihi2")


def _ball(clean: list[int]) -> Tensor:
    """All 8-bit images of three pixels within RADIUS grey values."""
    near = [range(max(0, grey - RADIUS), grey + RADIUS + 1) for grey in clean]
    return torch.tensor(list(itertools.product(*near))).view(-1, 1, 1, 3) / 255


@pytest.mark.parametrize("seed", [0, 2])
def test_reaches_the_true_maximum_of_small_balls(seed: int) -> None:
    """Of every image of the ball; some pixels are black and send no message."""
    graph, rng = _toy(seed), np.random.default_rng(100 + seed)
    greys = rng.integers(0, 40, size=(6, 3)) * (rng.random((6, 3)) < 0.7)
    images = torch.from_numpy(greys).float().view(6, 1, 1, 3) / 255
    before = _run(graph, images)
    free, kept = (
        _run(graph, energy_attack(graph, images, eps=RADIUS / 255, keep_class=k, steps=40)) for k in (False, True)
    )
    assert torch.equal(kept.predicted, before.predicted)
    in_the_way = 0
    for index, clean in enumerate(greys.tolist()):
        every = _run(graph, _ball(clean))
        work, same = _operations(every), every.predicted == before.predicted[index]
        assert 0.95 * int(work.max()) <= int(_operations(free)[index]) <= int(work.max())
        assert 0.95 * int(work[same].max()) <= int(_operations(kept)[index]) <= int(work[same].max())
        in_the_way += int(work[same].max() < work.max())
    assert in_the_way >= 1, "the class never stood in the way"
    assert (_operations(free) / _operations(before)).mean() > 1.2


@pytest.fixture(scope="module")
def deployed() -> tuple[ProcessGraph, Tensor]:
    """A small convolutional network that sees several classes, and images with black pixels."""
    net = small_networks.build(small_networks.ARCHITECTURES["padded convolution, pool, dense"], seed=9)
    graph, _ = quantize_network(fold_network(net), load_profile("loihi2"))
    images = small_networks.images(net.architecture, 12).float()
    return graph, images * (images > 0.4)


def test_works_more_than_clean_and_every_control_in_the_budget(deployed: tuple[ProcessGraph, Tensor]) -> None:
    graph, images = deployed
    eps, before = 0.08, _run(graph, images)
    controls = control_images(images, eps=eps, draws=3)
    assert set(controls) == {"noise 1", "noise 2", "noise 3", "brighter", "ones", "grey"}
    assert not torch.equal(controls["noise 1"], controls["noise 2"])
    for made in controls.values():
        torch.testing.assert_close(made * 255, (made * 255).round(), rtol=0, atol=1e-4)
    torch.testing.assert_close(controls["grey"][:, 0, 0, 0], images.mean((1, 2, 3)), rtol=0, atol=0.5 / 255 + 1e-6)
    for keep_class in (False, True):
        attacked = energy_attack(graph, images, eps=eps, keep_class=keep_class, steps=12)
        assert attacked.dtype == images.dtype
        assert overshoot(attacked, Ball.around(images, eps, grid=255)) <= 1e-6
        torch.testing.assert_close(attacked * 255, (attacked * 255).round(), rtol=0, atol=1e-4)
        after = _run(graph, attacked)
        if keep_class:
            assert torch.equal(after.predicted, before.predicted)
        assert bool((_operations(after) > 1.02 * _operations(before)).all())
        for name in ("noise 1", "noise 2", "noise 3", "brighter"):
            assert overshoot(controls[name], Ball.around(images, eps, grid=255)) <= 1e-6
            assert bool((_operations(after) >= _operations(_run(graph, controls[name]))).all()), name


def test_the_judge_believes_no_search(deployed: tuple[ProcessGraph, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that returns images of other classes, or that cost less, is not followed."""
    graph, images = deployed
    before = _run(graph, images)
    arguments = dict(eps=0.9, steps=1)
    free = energy_attack(graph, images, keep_class=False, **arguments)  # type: ignore[arg-type]
    changed = _run(graph, free).predicted != before.predicted
    assert int(changed.sum()) >= 3
    monkeypatch.setattr("hardspike.deploy.energy_attack._search", lambda *_: free.double())
    kept = energy_attack(graph, images, keep_class=True, **arguments)  # type: ignore[arg-type]
    assert torch.equal(kept[~changed], free[~changed])
    assert torch.equal(encode_images(kept, graph)[changed], encode_images(images, graph)[changed])
    monkeypatch.setattr("hardspike.deploy.energy_attack._search", lambda *_: torch.zeros_like(free))
    cheaper = energy_attack(graph, images, keep_class=False, **arguments)  # type: ignore[arg-type]
    assert torch.equal(_operations(_run(graph, cheaper)), _operations(before))


def test_an_endangered_class_adds_its_margins_gradient(deployed: tuple[ProcessGraph, Tensor]) -> None:
    graph, images = deployed
    meter, images = _Meter(graph, Triangular(1.0), None), images.double()
    labels = _run(graph, images).predicted
    safe, endangered = torch.full((12,), -1e9), torch.full((12,), 1e9)
    endangered[6:] = -1e9
    free = meter.measure(images, _Target(labels, None)).direction
    assert torch.equal(meter.measure(images, _Target(labels, safe)).direction, free)
    added = meter.measure(images, _Target(labels, endangered)).direction - free
    assert not added[6:].any()
    with surrogate_gradient(Triangular(1.0)):
        logits = Emulator(graph)(images.requires_grad_(True))
    own = logits.gather(1, labels[:, None])[:, 0]
    (towards,) = torch.autograd.grad((own - logits.scatter(1, labels[:, None], -1e9).amax(1)).sum(), images)
    scale = towards.abs().flatten(1).mean(1).view(-1, 1, 1, 1)
    torch.testing.assert_close(added[:6], (towards / scale)[:6], rtol=1e-5, atol=1e-5)


def test_neither_batches_nor_company_change_a_result(deployed: tuple[ProcessGraph, Tensor]) -> None:
    graph, images = deployed
    images = images[:7]
    arguments = dict(eps=0.08, keep_class=True, steps=3, seed=3)
    done: list[int] = []
    whole = energy_attack(graph, images, **arguments)  # type: ignore[arg-type]
    parts = energy_attack(graph, images, batch_size=3, progress=done.append, **arguments)  # type: ignore[arg-type]
    assert torch.equal(whole, parts) and done == [3, 3, 1]
    assert torch.equal(whole[:4], energy_attack(graph, images[:4], **arguments))  # type: ignore[arg-type]
    assert not torch.equal(whole, energy_attack(graph, images, **{**arguments, "seed": 4}))  # type: ignore[arg-type]


@pytest.mark.parametrize("set_name", [None, "davies2018", "sanafe"])
def test_an_events_price_is_what_it_adds(set_name: str | None) -> None:
    """The sum over events of their prices is the trace's count, or differs from its energy by what silence costs."""
    graph = build(CASES[0])
    costs = LOIHI1.costs[set_name] if set_name is not None else None
    messages = random_messages(CASES[0], graph, 6)
    messages[:, :, ::3] = 0
    trace = EmulatorBackend().run(graph, messages, keep_states=True)
    assert trace.states is not None
    prices = event_prices(graph, costs)
    total = graph.time_steps * (messages != 0).flatten(1).double() @ prices[INPUT]
    for name in trace.spikes:
        total += trace.states.spikes[name].sum(0).flatten(1).double() @ prices[name]
    counted = counted_work(graph, trace, costs)
    if costs is None:
        assert torch.equal(counted, total) and torch.equal(counted, _operations(trace).double())
    else:
        torch.testing.assert_close(counted, sum_layers(price(graph, trace, LOIHI1)).by_set[costs.name])
        idle = sum(math.prod(layer.shape) for layer in graph.layers) * graph.time_steps * costs.neuron_update_idle.value
        torch.testing.assert_close(counted * 1e12, total + idle, rtol=1e-9, atol=0)


def test_a_cost_set_is_what_grows(deployed: tuple[ProcessGraph, Tensor]) -> None:
    graph, images = deployed
    dear = LOIHI1.costs["sanafe"]
    attacked = energy_attack(graph, images, eps=0.08, keep_class=False, steps=10, costs=dear)
    before, after = (counted_work(graph, _run(graph, x), dear) for x in (images, attacked))
    assert bool((after > before).all())


def test_watching_changes_nothing_and_gives_what_was_sent() -> None:
    graph = build(CASES[0])
    images = random_messages(CASES[0], graph, 3).double() / 255
    emulator = Emulator(graph)
    with emulator.watching() as sent:
        watched = emulator(images.requires_grad_(True))
    assert torch.equal(watched, emulator(images))
    emulator(torch.zeros_like(images))  # is not watched any more
    trace = EmulatorBackend().run(graph, encode_images(images.detach(), graph), keep_states=True)
    assert trace.states is not None
    assert torch.equal(sent[INPUT], encode_images(images.detach(), graph).double())
    assert set(sent) == {INPUT, "conv0", "conv1"}
    for name in ("conv0", "conv1"):
        assert torch.equal(sent[name].bool(), trace.states.spikes[name])
    (gradient,) = torch.autograd.grad(sent["conv1"].sum(), images)
    assert float(gradient.abs().max()) > 0


def test_the_report_compares_each_image_with_its_own_clean_one(deployed: tuple[ProcessGraph, Tensor]) -> None:
    graph, images = deployed
    sets = {"brighter": control_images(images, eps=0.1)["brighter"], "shuffled": images.flip(0)}
    done: list[int] = []
    report = energy_report(graph, images, sets, LOIHI1, batch_size=5, progress=done.append)
    assert done == [5, 5, 2] * 3 and (report.profile, report.samples) == ("loihi1", 12)
    clean, brighter, shuffled = report.sets
    assert [one.name for one in report.sets] == ["clean", "brighter", "shuffled"]
    assert clean.class_kept == 1 and clean.spikes.ratio.max == clean.time_s["sanafe"].ratio.mean == 1
    before, after = _run(graph, images), _run(graph, sets["brighter"])
    ratio = _operations(after).double() / _operations(before)
    found = brighter.synaptic_operations.ratio
    assert found.mean == pytest.approx(float(ratio.mean())) and found.max == pytest.approx(float(ratio.max()))
    assert found.p50 == pytest.approx(np.quantile(ratio, 0.5)) and found.p95 == pytest.approx(np.quantile(ratio, 0.95))
    assert found.p99 == pytest.approx(np.quantile(ratio, 0.99))
    assert brighter.class_kept == float((after.predicted == before.predicted).double().mean()) < 1
    energy = {name: sum_layers(price(graph, trace, LOIHI1)).by_set for name, trace in (("b", before), ("a", after))}
    for key in ("davies2018", "sanafe"):
        expected = energy["a"][key] / energy["b"][key]
        assert brighter.energy_j[key].ratio.mean == pytest.approx(float(expected.mean()))
        assert brighter.energy_j[key].mean == pytest.approx(float(energy["a"][key].mean()))
        assert shuffled.time_s[key].mean == pytest.approx(clean.time_s[key].mean)
        assert shuffled.time_s[key].ratio.max > 1 > brighter.time_s[key].mean
    assert (
        shuffled.spikes.mean
        == clean.spikes.mean
        == pytest.approx(sum(float(c.sum()) for c in before.spikes.values()) / 12)
    )
    assert json.loads(json.dumps(asdict(report)))["sets"][1]["energy_j"]["sanafe"]["ratio"]["max"] > 0
    assert report.cores == 3


def test_no_price_and_no_time_is_invented(deployed: tuple[ProcessGraph, Tensor]) -> None:
    graph, images = deployed
    report = energy_report(graph, images[:2], {}, load_profile("loihi2"))
    assert (report.cores, report.sets[0].energy_j, report.sets[0].time_s) == (None, {}, {})


def test_settings_and_sets_are_checked(deployed: tuple[ProcessGraph, Tensor]) -> None:
    graph, images = deployed
    with pytest.raises(SettingsError, match=r"eps = 0 is not allowed; choose a value in \(0, 1\)"):
        energy_attack(graph, images, eps=0, keep_class=True)
    with pytest.raises(SettingsError, match="choose one that keeps the spikes"):
        energy_attack(graph, images, eps=0.1, keep_class=True, surrogate=Activation("relu"))
    with pytest.raises(SettingsError, match="steps = 0 is not allowed"):
        energy_attack(graph, images, eps=0.1, keep_class=True, steps=0)
    with pytest.raises(DataError, match="does not fit this network"):
        energy_attack(graph, images[:, :1], eps=0.1, keep_class=True)
    with pytest.raises(DataError, match="set 'less': 3 images for 12 clean ones"):
        energy_report(graph, images, {"less": images[:3]}, LOIHI1)
