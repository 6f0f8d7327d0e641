"""Each way to convert by thresholds, against a slow version of itself, and its published slips; the choice of method."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import FLAT, block, conv, image, pool
from torch import Tensor

from hardspike.convert import conversion
from hardspike.convert.ann_to_snn import convert_network
from hardspike.convert.conversion import ConvertSettings, converted
from hardspike.convert.thresholds import batch_statistics, find_thresholds, percentile
from hardspike.snn.architecture import Dense, Spiking, chain
from hardspike.snn.blueprint import Blueprint
from hardspike.snn.data import ImageSet, Splits
from hardspike.snn.errors import SettingsError
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.zoo import build_architecture

SHAPE = (2, 6, 4)
STEPS = 6


def _random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _batches(count: int, size: int = 3, shape: tuple[int, ...] = SHAPE) -> list[Tensor]:
    return [_random(100 + index, size, *shape) for index in range(count)]


def _chain(coding: Any = "direct", neuron: NeuronSettings | None = None) -> SpikingNetwork:
    spiking = Spiking(neuron=neuron or NeuronSettings(reset="soft"))
    layers = [
        ("a", conv(4)),
        ("s1", spiking),
        ("p", pool(2, 2)),
        ("b", conv(5)),
        ("s2", spiking),
        *FLAT,
        ("c", Dense(out_features=8)),
        ("s3", spiking),
        ("out", Dense(out_features=3, bias=True)),
    ]
    return SpikingNetwork(chain(replace(image(*SHAPE), coding=coding), layers)).double()


@torch.no_grad()
def _currents(net: SpikingNetwork, batch: Tensor, thresholds: list[float]) -> list[list[Tensor]]:
    """Input current of each balanced layer at each step, and of the next one; IF neurons with soft reset that integrate first."""
    found: list[list[Tensor]] = [[] for _ in range(len(thresholds) + 1)]
    potentials: dict[str, Any] = {}
    for _ in range(STEPS):
        value, depth = (batch - net.mean) / net.std, 0
        if net.architecture.input.coding == "poisson":
            draws = torch.rand((1, *value.shape), generator=net.noise.generator, dtype=torch.float64)[0]
            value = (draws <= value.abs()).double() * value.sign()
        for node in net.architecture.nodes:
            if not isinstance(node.layer, Spiking):
                value = net.layers[node.name](value)
                continue
            found[depth].append(value)
            if depth == len(thresholds):
                break
            potential = potentials.get(node.name, 0.0) + value
            value = (potential >= thresholds[depth]).double()
            potentials[node.name] = potential - thresholds[depth] * value
            depth += 1
    return found


def _smallest(values: Tensor, percent: float) -> float:
    ordered = sorted(values.flatten().tolist())
    return float(ordered[round(0.01 * percent * (len(ordered) - 1))])


@pytest.mark.parametrize("coding", ["direct", "poisson"])
def test_max_balancing_is_the_largest_current_layer_by_layer(coding: str) -> None:
    net, slow = _chain(coding), _chain(coding)
    found = find_thresholds(net, _batches(2), percent=100, steps=STEPS)
    thresholds: list[float] = []
    for _ in range(3):
        largest = [float(torch.stack(_currents(slow, batch, thresholds)[-1]).max()) for batch in _batches(2)]
        thresholds.append(max(largest))
    assert list(found.values()) == pytest.approx(thresholds, rel=1e-12) and list(found) == ["s1", "s2", "s3"]
    assert [float(neuron.threshold.detach()) for neuron in net.neurons().values()] == pytest.approx(
        thresholds, rel=1e-12
    )


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("percent", [50.0, 90.0, 99.7])
def test_percentile_over_all_steps_or_the_largest_of_each(percent: float, per_step: bool) -> None:
    found = find_thresholds(_chain(), _batches(2), percent=percent, steps=STEPS, per_step=per_step)
    net, thresholds = _chain(), list[float]()
    for _ in range(3):
        highest = []
        for batch in _batches(2):
            currents = _currents(net, batch, thresholds)[-1]
            whole = _smallest(torch.stack(currents), percent)
            highest.append(max(_smallest(current, percent) for current in currents) if per_step else whole)
        thresholds.append(max(highest))
    assert list(found.values()) == pytest.approx(thresholds, rel=1e-12)


def test_largest_value_needs_no_memory_for_all_steps() -> None:
    by_steps = find_thresholds(_chain(), _batches(2), percent=100, steps=STEPS, per_step=True)
    assert by_steps == find_thresholds(_chain(), _batches(2), percent=100, steps=STEPS)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40),
    repeats=st.integers(1, 30),
    percent=st.one_of(st.sampled_from([50.0, 99.7, 99.9, 100.0]), st.floats(0.01, 100)),
)
def test_percentile_of_repetitions_is_that_of_the_repeated_tensor(
    values: list[float], repeats: int, percent: float
) -> None:
    tensor = torch.tensor(values)
    assert percentile(tensor, percent, repeats) == percentile(tensor.repeat(repeats), percent)
    assert float(percentile(tensor, percent, repeats)) == _smallest(tensor.repeat(repeats), percent)


def test_a_percentile_is_not_interpolated() -> None:
    values = torch.tensor([4.0, 1.0, 3.0, 2.0, 5.0])
    assert [float(percentile(values, percent)) for percent in (1, 12, 13, 50, 87, 88, 100)] == [1, 1, 2, 3, 4, 5, 5]


@pytest.mark.parametrize("layers", [1, 2])
def test_only_the_first_layers_are_balanced(layers: int) -> None:
    """The others keep 1, and the scale is not for them."""
    whole = find_thresholds(_chain(), _batches(1), percent=100, steps=STEPS)
    ann = _chain()
    snn = convert_network(
        ann, _batches(1), time_steps=5, percent=100, calibration_steps=STEPS, scale=0.5, layers=layers
    )
    expected = [0.5 * value for value in whole.values()][:layers] + [1.0] * (3 - layers)
    assert [float(neuron.threshold.detach()) for neuron in snn.neurons().values()] == pytest.approx(expected, rel=1e-12)
    assert snn.time_steps == 5 and ann.time_steps is None  # the ANN stays one
    assert all(float(neuron.threshold.detach()) == 1 for neuron in ann.neurons().values())


def test_search_has_a_leak_of_its_own() -> None:
    leaky = NeuronSettings(reset="soft", leak=0.5)
    own = find_thresholds(_chain(neuron=leaky), _batches(1), percent=100, steps=STEPS)
    net = _chain(neuron=leaky)
    found = find_thresholds(net, _batches(1), percent=100, steps=STEPS, leak=1.0)
    assert found == find_thresholds(_chain(), _batches(1), percent=100, steps=STEPS) != own
    assert [float(neuron.leak) for neuron in net.neurons().values()] == [0.5] * 3


@pytest.mark.parametrize("wrong", [{"percent": 0.0}, {"percent": 101.0}, {"steps": 0}])
def test_impossible_searches_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="thresholds: percent = .* are not allowed"):
        find_thresholds(_chain(), _batches(1), **wrong)
    with pytest.raises(SettingsError, match="thresholds: .* 0 batches are not allowed"):
        find_thresholds(_chain(), [])
    with pytest.raises(SettingsError, match="convert: scale = 0 is not allowed; use a positive factor"):
        convert_network(_chain(), _batches(1), time_steps=2, scale=0)
    with pytest.raises(SettingsError, match="shared_maximum measures .* give 2 or more"):
        find_thresholds(_chain(), _batches(1), shared_maximum=True)


def test_a_layer_without_positive_current_is_named() -> None:
    net = _chain()
    net.get_parameter("layers.b.weight").data.zero_()
    with pytest.raises(
        SettingsError, match="the 99.7 percentile of layer 's2' is 0, not positive; train the ANN first"
    ):
        find_thresholds(net, _batches(1), steps=2)
    assert net.time_steps is None


def _residual() -> SpikingNetwork:
    drawn = build_architecture("resnet_mini", Blueprint(image=image(1, 8, 8), num_classes=3))
    net = SpikingNetwork(drawn).double()
    for name, parameter in net.named_parameters():
        if "_norm" in name and name.endswith("bias"):  # every layer fires, first neurons of blocks receive more
            parameter.data.fill_(1.0)
    return net


@pytest.mark.slow
def test_shared_maximum_takes_in_the_first_neurons_later_batches() -> None:
    """Batches 0..10 are for first neurons; V2 = max(p(h2) over batches 11..20, p(h1) over batches 11..19)."""
    batches = _batches(21, 2, (1, 8, 8))
    batches[20] = (
        batches[20] > 0.95
    ).double()  # few bright pixels: h1 is largest on the last batch, which must not count
    found = find_thresholds(_residual(), batches, percent=99.0, steps=STEPS, shared_maximum=True)
    apart = find_thresholds(_residual(), batches[:11], percent=99.0, steps=STEPS)

    net, expected = _residual().eval(), dict[str, float]()
    net.set_time_steps(STEPS)
    for neuron in net.neurons().values():
        neuron.threshold.data.fill_(1.0)

    def measured(name: str, chosen: range) -> float:
        with torch.no_grad(), batch_statistics(net), net.recording() as (_, currents):
            highest = float("-inf")
            for index in chosen:
                net(batches[index])
                highest = max(highest, _smallest(currents[name], 99.0))
        return highest

    with_last = 0.0
    for name, neuron in net.neurons().items():
        if name.endswith("_spike2"):
            first = name.replace("_spike2", "_spike1")
            expected[name] = max(measured(name, range(11, 21)), measured(first, range(11, 20)))
            with_last = max(with_last, measured(first, range(11, 21)) - expected[name])
            assert expected[name] > measured(name, range(11, 21))
        else:
            expected[name] = measured(name, range(11))
        neuron.threshold.data.fill_(expected[name])
    assert found == pytest.approx(expected, rel=1e-12)
    assert found["spike1"] == apart["spike1"] and found["stage1_block1_spike2"] != apart["stage1_block1_spike2"]
    assert with_last > 0


def _splits(count: int = 90) -> Splits:
    pixels = _random(1, count, *SHAPE).float()
    data = ImageSet(pixels, torch.arange(count) % 3, 3)
    return Splits(data, data.first(6), data.first(6))


@pytest.mark.parametrize(("eleventh", "shared", "count"), [(0, 0, 4), (1, 0, 5), (0, 1, 8), (1, 1, 9)])
def test_eleventh_batch_is_one_more(eleventh: int, shared: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Second neurons of blocks go on with batches that follow, without the one more."""
    given: dict[str, Any] = {}

    def record(ann: SpikingNetwork, batches: list[Tensor], **others: Any) -> SpikingNetwork:
        given.update(others, batches=batches)
        return ann

    monkeypatch.setattr(conversion, "convert_network", record)
    chosen = ConvertSettings(
        calibration_batches=4,
        calibration_batch_size=10,
        slip_eleventh_batch=bool(eleventh),
        slip_shared_maximum=bool(shared),
    )
    converted(chosen, _chain(), _splits(), seed=3)
    assert [len(batch) for batch in given["batches"]] == [10] * count and given["shared_maximum"] == bool(shared)
    rows = torch.randperm(90, generator=torch.Generator().manual_seed(3))
    assert torch.equal(torch.cat(given["batches"]), _splits().train.images[rows[: 10 * count]])


def test_too_few_images_for_the_shared_maximum_are_refused() -> None:
    chosen = ConvertSettings(calibration_batches=4, calibration_batch_size=20, slip_shared_maximum=True)
    with pytest.raises(
        SettingsError, match="convert.slip_shared_maximum needs 8 batches of 20 images, but there are 90"
    ):
        converted(chosen, _chain(), _splits(), seed=0)


def _first(method: str) -> SpikingNetwork:
    clip_floor = NeuronSettings(activation="clip-floor", reset="soft", initial_potential=0.5, levels=4)
    neuron = clip_floor if method == "qcfs" else NeuronSettings()
    layers = [*block("a", conv(4), neuron), ("p", pool(2, 2)), *FLAT, ("out", Dense(out_features=3, bias=True))]
    net = SpikingNetwork(chain(image(*SHAPE), layers), 4 if method == "none" else None).train()
    with torch.no_grad():
        net(_random(2, 9, *SHAPE).float())
    net.neurons()["a_spike"].threshold.data.fill_(1.3)
    return net.eval()


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("method", ["robust", "max", "diet", "qcfs", "none"])
def test_every_method_makes_a_spiking_network(method: Any, trainable: bool) -> None:
    chosen = ConvertSettings(
        method=method,
        time_steps=4,
        percentile=90.0,
        calibration_steps=3,
        calibration_batches=2,
        batch_size=8,
        threshold_scale=0.5,
        trainable_thresholds=trainable,
        trainable_leaks=trainable,
    )
    first = _first(method)
    snn = converted(chosen, first, _splits(), seed=1)
    neuron = snn.neurons()["a_spike"]
    assert snn.time_steps == 4 and neuron.threshold.requires_grad == neuron.leak.requires_grad == trainable
    forgotten = torch.equal(snn.layers["a_norm"].running_mean, torch.zeros(4))
    assert forgotten == (method == "robust")
    rows = torch.randperm(90, generator=torch.Generator().manual_seed(1)).split(8)[:2]
    batches = [_splits().train.images[part] for part in rows]
    percent = 100.0 if method == "max" else 90.0
    with torch.no_grad(), batch_statistics(first):
        currents = [first.input_current(batch, "a_spike")[0] for batch in batches]
    steps = 1 if method == "diet" else 3  # of one step, or of all: not the same number without interpolation
    threshold = 0.5 * max(_smallest(current.repeat(steps, 1, 1, 1), percent) for current in currents)
    expected = 1.3 if method in ("qcfs", "none") else threshold
    assert float(neuron.threshold.detach()) == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(snn.eval()(batches[0])).all()


@pytest.mark.parametrize(
    ("method", "first", "message"),
    [
        ("none", "robust", "convert.method = 'none': the first network is an ANN"),
        ("robust", "none", "convert.method = 'robust': the first network is a spiking network of 4 timesteps"),
        ("none", "none", "convert.time_steps = 8, but train.time_steps = 4; use the same"),
        ("qcfs", "robust", "layer 'a_spike': activation, reset, leak, initial_potential = .'relu'"),
    ],
)
def test_method_and_first_network_must_go_together(method: Any, first: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        converted(ConvertSettings(method=method, time_steps=8), _first(first), _splits(), seed=0)
    assert "\n" not in str(caught.value)
