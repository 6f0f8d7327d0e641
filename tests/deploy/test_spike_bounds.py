"""Intervals of single neurons against every sequence of inputs, run in plain integers."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from random_graphs import NUMERICS

from hardspike.deploy.bounds import Interval
from hardspike.deploy.constant_drive import periods
from hardspike.deploy.oracle import update
from hardspike.deploy.process_graph import NeuronGroup
from hardspike.deploy.spike_bounds import NeuronRule, SpikeBounds, by_last_reset, by_steps
from hardspike.hw_profiles.profile import Numerics

# Without shift, so that neighbouring integers are neighbouring states, and so narrow that potentials clip at 15.
TINY = replace(NUMERICS, state_bits=5, state_shift=0)
STEPS = 4


def rule(threshold: int, potential_decay: int = 0, numerics: Numerics = TINY, current_decay: int = 4096) -> NeuronRule:
    neurons = NeuronGroup(
        threshold=threshold,
        bias=np.zeros(1, np.int32),
        current_decay=current_decay,
        potential_decay=potential_decay,
    )
    return NeuronRule(neurons, numerics, wraps=False)


def run(found: NeuronRule, drives: Iterable[int], bias: int = 0) -> tuple[list[int], list[int]]:
    """Potentials before the reset, and spikes. The drive is given as a current that does not wrap."""
    potential, potentials, spikes = 0, [], []
    for drive in drives:
        neurons = replace(found.neurons, bias_exponent=0)
        _, potential, spike, _ = update(0, 0, potential, drive + bias, neurons, found.numerics)
        potentials.append(potential)
        spikes.append(spike)
        potential = 0 if spike else potential
    return potentials, spikes


def exact_windows(trains: list[list[int]], steps: int) -> dict[tuple[int, int], tuple[int, int]]:
    windows = [(a, b) for a in range(steps) for b in range(a + 1, steps + 1)]
    return {(a, b): (min(sum(t[a:b]) for t in trains), max(sum(t[a:b]) for t in trains)) for a, b in windows}


def found_windows(bounds: SpikeBounds, neuron: int, steps: int) -> dict[tuple[int, int], tuple[int, int]]:
    windows = [(a, b) for a in range(steps) for b in range(a + 1, steps + 1)]
    ends = {w: bounds.window(*w) for w in windows}
    return {w: (int(e.low[0, neuron]), int(e.high[0, neuron])) for w, e in ends.items()}


def random_drives(seed: int, neurons: int) -> list[Interval]:
    rng = np.random.default_rng(seed)
    low = torch.from_numpy(rng.integers(-9, 10, (STEPS, 1, neurons))).double()
    return [Interval(a, a + b) for a, b in zip(low, torch.from_numpy(rng.integers(0, 3, low.shape)), strict=True)]


@pytest.mark.parametrize(("threshold", "potential_decay"), [(5, 0), (0, 0), (6, 1024), (4, 4096), (15, 0)])
def test_last_reset_is_exact_for_inputs_that_know_nothing_of_each_other(threshold: int, potential_decay: int) -> None:
    """Against every sequence of drives; the merged intervals hold too, and give every potential."""
    found = rule(threshold, potential_decay)
    drives = random_drives(threshold, 40)
    apart, merged = by_last_reset(found, drives), by_steps(found, drives)
    wider = 0
    for neuron in range(40):
        ranges = [range(int(d.low[0, neuron]), int(d.high[0, neuron]) + 1) for d in drives]
        runs = [run(found, sequence) for sequence in product(*ranges)]
        exact = exact_windows([spikes for _, spikes in runs], STEPS)
        assert found_windows(apart, neuron, STEPS) == exact
        for window, (low, high) in found_windows(merged, neuron, STEPS).items():
            assert low <= exact[window][0] and exact[window][1] <= high
            wider += (low, high) != exact[window]
        for step, potential in enumerate(merged.potentials):
            seen = [potentials[step] for potentials, _ in runs]
            assert potential.low[0, neuron] <= min(seen) and max(seen) <= potential.high[0, neuron]
    assert wider or threshold != 5, "merging lost nothing, so this compares nothing"


def test_sums_over_windows_narrow_the_counts() -> None:
    """One input spike at step 1 or 2, of weight 4 on a threshold of 3: single steps do not say that it surely comes."""
    either, no = Interval(*torch.tensor([[[0.0]], [[4.0]]])), Interval(*torch.zeros(2, 1, 1))
    total = {(0, 1): either, (0, 2): Interval(either.high, either.high), (1, 2): either, (2, 3): no, (1, 3): either}

    def summed(start: int, stop: int) -> Interval:
        return total.get((start, stop), total[0, 2])

    with_sums, without = (by_last_reset(rule(3), [either, either, no], s) for s in (summed, None))
    assert found_windows(without, 0, 3)[0, 3] == (0, 2)
    assert found_windows(with_sums, 0, 3)[0, 3] == (1, 2)  # the sum is 4 where it has not fired at step 1


def test_sums_are_left_out_where_the_potential_was_clipped() -> None:
    """Down to -15 instead of -40, then up by 20: it fires, though the sum is -20."""
    drives = [Interval(*torch.full((2, 1, 1), value)) for value in (-40.0, 20.0)]

    def summed(start: int, stop: int) -> Interval:
        value = torch.full((1, 1), -20.0)
        return Interval(value, value)

    assert run(rule(3), [-40, 20])[1] == [0, 1]
    assert found_windows(by_last_reset(rule(3), drives, summed), 0, 2)[0, 2] == (1, 1)


@pytest.mark.parametrize("potential_decay", [0, 410, 2048, 4096])
@pytest.mark.parametrize("threshold", [0, 3])
def test_constant_drive_is_exact(threshold: int, potential_decay: int) -> None:
    """Every interval of inputs -2 .. 7 (64 state units each) and every window, against every input of the interval."""
    found, steps = rule(threshold, potential_decay, NUMERICS), 6
    pairs = [(a, b) for a in range(-2, 8) for b in range(a, 8)]
    for bias in (-64, -1, 1, 37):
        trains = {a: run(found, [64 * a] * steps, bias)[1] for a in range(-2, 8)}
        current = Interval(*(64 * torch.tensor([[pair[side] for pair in pairs]]).double() for side in (0, 1)))
        bounds = periods(found, current, torch.tensor([float(bias)]), steps)
        for neuron, (a, b) in enumerate(pairs):
            exact = exact_windows([trains[value] for value in range(a, b + 1)], steps)
            assert found_windows(bounds, neuron, steps) == exact


def test_a_threshold_that_clipping_keeps_out_of_reach_is_never_passed() -> None:
    bounds = periods(rule(15), Interval(*torch.full((2, 1, 1), 200.0)), torch.zeros(1), 3)
    assert found_windows(bounds, 0, 3)[0, 3] == (0, 0)


def test_wrapped_intervals_are_the_hull_of_wrapped_integers() -> None:
    """Every interval within -60 .. 60 where the current's range is -15 .. 16: once around, not more."""
    found = rule(3)
    pairs = [(a, b) for a in range(-60, 61) for b in range(a, 61)]
    wrapped = found.wrapped(Interval(*torch.tensor(pairs).double().t()))
    once = {a: update(a, 0, 0, 0, found.neurons, TINY)[0] for a in range(-60, 61)}
    assert {once[a] for a in (-16, 16, 17)} == {16, -15}
    hulls = []
    for a in range(-60, 61):
        low = high = once[a]
        for b in range(a, 61):
            low, high = min(low, once[b]), max(high, once[b])
            hulls.append((low, high))
    assert torch.stack([wrapped.low, wrapped.high], 1).tolist() == torch.tensor(hulls).tolist()


@pytest.mark.parametrize("current_decay", [0, 1500, 4096])
def test_current_memory_contains_every_sequence(current_decay: int) -> None:
    found = replace(rule(3, current_decay=current_decay), wraps=True)
    drives = random_drives(current_decay, 25)
    currents = found.currents(drives)
    for neuron in range(25):
        ranges = [range(int(d.low[0, neuron]), int(d.high[0, neuron]) + 1) for d in drives]
        for sequence in product(*ranges):
            current = 0
            for step, value in enumerate(sequence):
                current, *_ = update(value, current, 0, 0, found.neurons, TINY)
                assert currents[step].low[0, neuron] <= current <= currents[step].high[0, neuron]
