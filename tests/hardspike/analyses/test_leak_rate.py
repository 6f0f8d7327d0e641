"""Rates of leaky neurons: the values of the formula, a loop over steps, the oracle's integers, and the limits."""

import json
import math
from pathlib import Path

import pytest
import torch
from hand_made_run import hand_made_subject, zoo_network
from hypothesis import given, settings
from hypothesis import strategies as st

from hardspike.analyses.leak_rate import (
    LEAKS,
    RATIOS,
    STEPS,
    formula_rate,
    leak_rate,
    steps_to_fire,
    whole_step_rate,
)
from hardspike.analyses.one_neuron import FINE_THRESHOLD, float_rates, integer_rates, integer_twin
from hardspike.deploy.oracle import update
from hardspike.hw_profiles.profile import load_profile
from hardspike.snn.membrane import NeuronSettings

NUMERICS = load_profile("loihi2").numerics


@pytest.mark.parametrize(
    ("ratio", "rates"),
    [
        (2.0, (0.4975, 0.4868, 0.4722, 0.415)),
        (3.0, (0.33, 0.3156, 0.2954, 0.2075)),
        (5.0, (0.1959, 0.1783, 0.152, 0.0)),
    ],
)
def test_values_of_the_formula(ratio: float, rates: tuple[float, ...]) -> None:
    for leak, rate in zip((0.99, 0.95, 0.9, 0.75), rates, strict=True):
        assert formula_rate(ratio, leak) == pytest.approx(rate, abs=6e-5)


def test_limits_of_the_formula() -> None:
    assert formula_rate(5, 0.8) == 0 and whole_step_rate(5, 0.8) == 0, "the sum 5 is never reached"
    assert formula_rate(4, 1) == 0.25 and whole_step_rate(2.5, 1) == 1 / 3
    assert formula_rate(4, 0.9999999) == pytest.approx(0.25, abs=1e-5)
    assert formula_rate(0.5, 0.9) == 1 and formula_rate(0.5, 1) == 1, "no more than one spike a step"
    assert steps_to_fire(2.3125, 0.75) > 3 and whole_step_rate(2.3125, 0.75) == 1 / 3, (
        "n is 3 exactly: 1 + 0.75 + 0.5625"
    )
    assert whole_step_rate(1.75, 0.75) == 0.5, "n is 2 exactly, whatever the logarithms round to"
    assert math.isinf(steps_to_fire(10, 0.5))


@settings(derandomize=True, max_examples=80, deadline=None)
@given(st.floats(0.3, 6), st.floats(0.7, 1))
def test_the_formula_solves_the_sum(ratio: float, leak: float) -> None:
    """V_n = V (1 + leak + ... + leak^(n-1)) reaches the threshold first at ceil(n)."""
    steps, total = steps_to_fire(ratio, leak), 0.0
    if math.isinf(steps):
        assert ratio * (1 - leak) >= 1 - 1e-12
        return
    if steps > 400 or abs(steps - round(steps)) < 1e-6:
        return
    for n in range(math.ceil(steps)):
        assert total < ratio
        total += leak**n
    assert total >= ratio


def _slow_rate(current: float, leak: float, threshold: float, steps: int) -> float:
    potential, spikes = 0.0, 0
    for _ in range(steps):
        potential = leak * potential + current
        if potential >= threshold:
            potential, spikes = 0.0, spikes + 1
    return spikes / steps


def test_the_float_neuron_is_a_loop() -> None:
    currents = torch.tensor([-0.1, 0.0, 0.11, 0.3, 0.77, 1.5])
    for leak in (0.75, 0.93, 1.0):
        found = float_rates(currents, NeuronSettings(leak=leak), threshold=0.8, steps=37)
        assert found.tolist() == [_slow_rate(float(current), leak, 0.8, 37) for current in currents.double()]


def test_the_integer_neuron_is_the_oracles() -> None:
    drives = [-5, 0, 311, 600, 1000, 1500, 2000, 3000, 4000]
    for leak in (0.75, 0.8, 0.995, 1.0):
        neurons = integer_twin(leak, NUMERICS)
        found = integer_rates(torch.tensor(drives), neurons, NUMERICS, steps=60)
        for drive, rate in zip(drives, found.tolist(), strict=True):
            potential, spikes = 0, 0
            for _ in range(60):
                _, _, spike, potential = update(drive, 0, potential, 0, neurons, NUMERICS)
                spikes += spike
            assert rate == spikes / 60, (leak, drive)
    assert integer_twin(0.75, NUMERICS).potential_decay == 1024


def test_without_leak_and_resets_that_divide(tmp_path: Path) -> None:
    whole = integer_rates(torch.tensor([FINE_THRESHOLD // 4]), integer_twin(1.0, NUMERICS), NUMERICS, steps=40)
    assert whole.tolist() == [0.25], "fires at its threshold, not behind it"


def test_of_a_run(tmp_path: Path) -> None:
    found = leak_rate(hand_made_subject(tmp_path, zoo_network("vgg_mini")))
    json.dumps(found.values, allow_nan=False)
    values = found.values
    for i, leak in enumerate(LEAKS):
        for j, ratio in enumerate(RATIOS):
            assert abs(values["measured"][i][j] - values["whole_steps"][i][j]) <= 1 / STEPS, (leak, ratio)
            assert values["formula"][i][j] == formula_rate(ratio, leak)
            assert values["measured"][i][j] <= values["formula"][i][j] + 1e-12
    apart = max(
        abs(a - b)
        for one, other in zip(values["integer"], values["measured"], strict=True)
        for a, b in zip(one, other, strict=True)
    )
    assert apart < 0.03 and f"at most {apart:.4f}" in " ".join(found.found)
    assert "within one spike" in found.found[1] and "no leak up to 0.8" in found.found[0]
    assert [len(chart.table()[1]) for chart in found.charts] == [2 * 4 * len(LEAKS)] * 2
    assert set(values["own_leaks"]) == set(hand_made_subject(tmp_path / "b", zoo_network("vgg_mini")).snn.neurons())


def test_without_deployment(tmp_path: Path) -> None:
    found = leak_rate(hand_made_subject(tmp_path, zoo_network("vgg_mini"), deployed=False))
    assert len(found.charts) == 1 and found.values["integer"] is None and "no deployed network" in found.notes[0]
