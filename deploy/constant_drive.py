"""Neurons whose drive never changes, as in a first layer that is sent the same image at every step: exact bounds.

Such a neuron starts again from zero after every spike, with the same drive: it fires every p steps, or never. The larger the
drive, the shorter p, so an interval of drives allows the periods between those of its ends - and only those that some integer
drive of the interval has.
"""

import torch
from torch import Tensor

from hardspike.deploy.bounds import Interval
from hardspike.deploy.spike_bounds import NeuronRule, SpikeBounds, floor_of, least_of

NEVER = 1 << 53


def first_drives(rule: NeuronRule, steps: int) -> list[int]:
    """Per p = 1 .. steps the smallest constant drive (state units) that makes a neuron fire within p steps; NEVER if none does."""
    found = []
    for within in range(1, steps + 1):
        low, high = 1, NEVER  # a drive of 0 or less never fires
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if _fires(rule, middle, within) else (middle + 1, high)
        found.append(low)
    return found


def _fires(rule: NeuronRule, drive: int, steps: int) -> bool:
    numerics, potential = rule.numerics, 0
    for _ in range(steps):
        leaked = (potential * (numerics.decay_one - rule.neurons.potential_decay)) >> numerics.decay_bits
        potential = min(leaked + drive, numerics.state_max)
        if potential > rule.threshold:
            return True
    return False


def periods(rule: NeuronRule, current: Interval, bias: Tensor, steps: int) -> SpikeBounds:
    """Exact bounds on the spikes of every window. current: constant, without memory, in state units; bias broadcasts to it."""
    first = first_drives(rule, steps)
    impossible: dict[int, Tensor] = {}
    for period in range(1, steps + 2):  # one more than there are steps: never
        least = first[period - 1] - bias if period <= steps else current.low
        most = first[period - 2] - 1 - bias if period > 1 else current.high
        least, most = torch.maximum(current.low, least), torch.minimum(current.high, most)
        # Currents are multiples of the unit.
        impossible[period] = torch.ceil(least / rule.unit) > torch.floor(most / rule.unit)
    never = steps + 1
    floors = {period: floor_of(ruled_out, never) for period, ruled_out in impossible.items()}
    windows = {}
    for start in range(steps):
        for stop in range(start + 1, steps + 1):
            counts = {period: stop // period - start // period for period in floors}
            fewest = least_of([floor.clamp(min=counts[period]) for period, floor in floors.items()])
            most = least_of([floor.clamp(min=-counts[period]) for period, floor in floors.items()])
            windows[start, stop] = Interval(fewest, -most)
    return SpikeBounds(windows)
