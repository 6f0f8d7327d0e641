"""Each measure against loops written from its formula, and what it gives where there is nothing to see."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hardspike.analyses.activation_maps import (
    LOG_CLAMP,
    distances,
    gradient_weighted,
    has_contrast,
    localisation_errors,
    normalised,
    resized,
    spike_activation,
    variance,
)


def slow_activation(spikes_TBCHW: Tensor, gamma: float, variant: str) -> Tensor:
    steps, batch, channels, height, width = spikes_TBCHW.shape
    maps = torch.zeros(steps, batch, height, width, dtype=torch.float64)
    for t, b, k, i, j in itertools.product(range(steps), range(batch), range(channels), range(height), range(width)):
        if variant == "paper":
            firing = [u for u in range(t) if spikes_TBCHW[u, b, k, i, j]]
            contribution = sum(math.exp(-gamma * abs(t - u)) for u in firing)
        else:
            contribution = sum(math.exp(-gamma * (t - u * int(spikes_TBCHW[u, b, k, i, j]))) for u in range(t + 1))
        maps[t, b, i, j] += contribution * int(spikes_TBCHW[t, b, k, i, j])
    return maps


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 7)], *[st.integers(1, 3)] * 4),
    gamma=st.sampled_from([0.5, 0.1, 1.0, 0.0, 1000.0]),
    share=st.sampled_from([0.5, 0.2, 0.0, 1.0]),
    variant=st.sampled_from(["paper", "code"]),
)
def test_activation_equals_the_formula(shape: tuple[int, ...], gamma: float, share: float, variant: str) -> None:
    spikes = torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) < share
    found = spike_activation(spikes, gamma, variant)
    assert found.dtype == torch.float64
    assert torch.allclose(found, slow_activation(spikes, gamma, variant), rtol=0, atol=1e-9)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_every_spike_train_of_a_neuron(variant: str) -> None:
    trains = torch.tensor(list(itertools.product([0, 1], repeat=7))).T[:, :, None, None, None]
    found = spike_activation(trains.to(torch.uint8), 0.5, variant)
    assert torch.allclose(found, slow_activation(trains, 0.5, variant), rtol=0, atol=1e-9)


def test_an_earlier_spike_counts_by_its_distance() -> None:
    train = torch.tensor([1, 0, 1, 1])[:, None, None, None, None]
    by_step = spike_activation(train, 0.5).flatten().tolist()
    assert by_step == pytest.approx([0, 0, math.exp(-1), math.exp(-1.5) + math.exp(-0.5)], abs=1e-12)


def test_one_timestep_has_no_earlier_spike() -> None:
    spikes = torch.ones(1, 2, 3, 4, 5)
    assert not spike_activation(spikes, 0.5).any()
    assert bool((spike_activation(spikes, 0.5, "code") == 3).all())


def test_gradient_weighted_equals_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    values, gradients = torch.randn(2, 3, 2, 4, 3, 5, generator=generator, dtype=torch.float64)
    found = gradient_weighted(values, gradients)
    steps, batch, channels, height, width = values.shape
    for t, b, i, j in itertools.product(range(steps), range(batch), range(height), range(width)):
        total = 0.0
        for k in range(channels):
            plane = itertools.product(range(steps), range(height), range(width))
            alpha = sum(float(gradients[u, b, k, y, x]) for u, y, x in plane) / (height * width)
            total += alpha * float(values[t, b, k, i, j])
        assert float(found[t, b, i, j]) == pytest.approx(max(0.0, total), abs=1e-9)
    assert bool((found == 0).any()) and bool((found > 0).any())


def test_normalised_maps_go_from_zero_to_one_each_by_itself() -> None:
    maps = torch.tensor([[[3.0, 5.0], [4.0, 7.0]], [[0.0, 0.0], [0.0, -2.0]]], dtype=torch.float64)[:, None]
    assert normalised(maps).tolist() == [[[[0, 0.5], [0.25, 1]]], [[[1, 1], [1, 0]]]]


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, 1e30])
def test_a_map_that_is_the_same_everywhere_becomes_zero(value: float) -> None:
    flat = torch.full((2, 3, 4, 4), value, dtype=torch.float64)
    flat[0, 0, 0, 0] *= 1 + 1e-14  # rounding is no contrast
    maps = normalised(flat)
    assert not maps.any() and not has_contrast(maps).any()
    assert variance(maps).tolist() == [0, 0, 0]


def test_a_faint_map_keeps_its_contrast() -> None:
    maps = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    maps[0, 0, 1, 0] = 1e-250
    assert normalised(maps).flatten().tolist() == [0, 0, 1, 0]


def test_variance_is_the_largest_over_time() -> None:
    maps = torch.rand(3, 4, 2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for b, found in enumerate(variance(maps).tolist()):
        by_step = []
        for t in range(3):
            pixels = maps[t, b].flatten().tolist()
            mean = sum(pixels) / len(pixels)
            by_step.append(sum((pixel - mean) ** 2 for pixel in pixels) / len(pixels))
        assert found == pytest.approx(max(by_step), abs=1e-12)


def test_localisation_errors_equal_the_formula() -> None:
    generator = torch.Generator().manual_seed(2)
    maps, reference = (
        torch.rand(3, 2, 2, 3, generator=generator, dtype=torch.float64),
        torch.rand(2, 2, 3, generator=generator),
    )
    maps[0, 0, 0, 0], maps[0, 0, 0, 1] = 0, 1
    found = localisation_errors(maps, reference.double())
    for t, b in itertools.product(range(3), range(2)):
        total = 0.0
        for i, j in itertools.product(range(2), range(3)):
            m = min(max(float(maps[t, b, i, j]), LOG_CLAMP), 1 - LOG_CLAMP)
            g = float(reference[b, i, j])
            total += g * math.log(m) + (1 - g) * math.log(1 - m)
        assert float(found[t, b]) == pytest.approx(-total / 6, abs=1e-9)


def test_the_error_of_a_grey_map_is_log_two_and_of_an_exact_one_almost_zero() -> None:
    reference = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    assert float(localisation_errors(torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64), reference)) == pytest.approx(
        math.log(2)
    )
    assert float(localisation_errors(reference[None], reference)) == pytest.approx(-math.log(1 - LOG_CLAMP))
    assert float(localisation_errors(1 - reference[None], reference)) == pytest.approx(-math.log(LOG_CLAMP))


def test_distances_are_means_over_pixels() -> None:
    first = torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]])
    second = torch.tensor([[[[1.0, 0.0], [0.5, 0.75]]]])
    assert distances(first, second).tolist() == [[0.625]]
    assert distances(first, first).tolist() == [[0]]


def test_resizing_keeps_the_range_and_leaves_maps_of_the_same_size() -> None:
    maps = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert resized(maps, (4, 5)) is maps
    larger = resized(maps, (8, 9))
    assert larger.shape == (2, 3, 8, 9)
    assert float(larger.min()) >= float(maps.min()) and float(larger.max()) <= float(maps.max())
    doubled = resized(torch.tensor([[[[0.0, 1.0]]]]), (1, 4))
    assert doubled.flatten().tolist() == [0, 0.25, 0.75, 1]  # centres at 1/4 and 3/4 of the row
