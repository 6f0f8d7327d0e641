"""From intervals of what reaches a layer's neurons to intervals of when and how often they fire.

Every operation of a neuron (process_graph.py) is monotone but for the wrap of the current and the reset, so the ends of an
interval are found at its ends. Three ways, each sound:

`by_steps`: one interval of the potential per step (S-IBP, Liang et al., NeurIPS 2022). A neuron that may or may not have fired
carries on from 0 or from a potential of at most the threshold, and the two are merged.
`by_last_reset`: the potential is kept apart for every step at which the neuron may have fired last. Between two spikes an
integrating neuron only adds up, so there the interval of the sum holds too, which is narrower than the sum of the intervals:
a spike that comes a step later is not one spike more. Which step may follow which as the next spike also bounds the counts.
`constant_drive.periods`: exact, where the drive never changes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from hardspike.deploy.bounds import Interval
from hardspike.deploy.process_graph import NeuronGroup
from hardspike.hw_profiles.profile import Numerics

Window = tuple[int, int]  # (a, b): the steps a + 1 .. b, counted from 1


@dataclass(frozen=True, slots=True, eq=False)
class SpikeBounds:
    """What a layer may do. windows: number of spikes in a window, int16 [B, *shape]; every single step is there.

    potentials: per step, before the reset; empty where they were not needed.
    """

    windows: dict[Window, Interval]
    potentials: tuple[Interval, ...] = ()

    def window(self, start: int, stop: int) -> Interval:
        """Number of spikes in steps start + 1 .. stop; from single steps where the window itself was not bounded."""
        if (start, stop) in self.windows:
            return self.windows[start, stop]
        total = self.windows[start, start + 1]
        for step in range(start + 1, stop):
            total = total.plus(self.windows[step, step + 1])
        return total


@dataclass(frozen=True, slots=True, eq=False)
class NeuronRule:
    """The arithmetic of one layer's neurons on intervals, in state units, float64. wraps: whether a step's input alone can wrap."""

    neurons: NeuronGroup
    numerics: Numerics
    wraps: bool

    @property
    def unit(self) -> int:
        """State units per unit of weight."""
        return 1 << self.numerics.state_shift

    @property
    def threshold(self) -> int:
        return self.neurons.threshold * self.unit

    @property
    def forgets_current(self) -> bool:
        return self.neurons.current_decay == self.numerics.decay_one

    @property
    def sums_drives(self) -> bool:
        """Whether the potential is the sum of the drives since the last spike, unless clipped."""
        return self.forgets_current and self.neurons.potential_decay == 0 and not self.wraps

    def decayed(self, state: Tensor, decay: int) -> Tensor:
        return state if decay == 0 else torch.trunc(state * self.numerics.kept(decay))

    def leaked(self, potential: Interval) -> Interval:
        decay = self.neurons.potential_decay
        return Interval(self.decayed(potential.low, decay), self.decayed(potential.high, decay))

    def clipped(self, potential: Interval) -> Interval:
        top = self.numerics.state_max
        return Interval(potential.low.clamp(-top, top), potential.high.clamp(-top, top))

    def wrapped(self, current: Interval) -> Interval:
        """Once around. The hull of up to three pieces: below, inside and above the current's range."""
        half = self.numerics.state_max + 1
        low, high = current.low, current.high
        below, above = low <= -half, high > half
        inside = (low <= half) & (high > -half)
        infinite = torch.full_like(low, torch.inf)
        least = torch.where(inside, low.clamp(min=1 - half), infinite)
        least = torch.where(below, torch.minimum(least, low + 2 * half), least)
        least = torch.where(above, torch.minimum(least, low.clamp(min=half + 1) - 2 * half), least)
        most = torch.where(inside, high.clamp(max=half), -infinite)
        most = torch.where(below, torch.maximum(most, high.clamp(max=-half) + 2 * half), most)
        most = torch.where(above, torch.maximum(most, high - 2 * half), most)
        return Interval(least, most)

    def currents(self, arriving: Sequence[Interval]) -> list[Interval]:
        """Current per step for the synaptic input per step (unit: weight)."""
        decay = self.neurons.current_decay
        found: list[Interval] = []
        for index, added in enumerate(arriving):
            current = added.times(self.unit)
            if index and not self.forgets_current:
                before = found[-1]
                current = current.plus(Interval(self.decayed(before.low, decay), self.decayed(before.high, decay)))
            found.append(self.wrapped(current) if self.wraps or not self.forgets_current else current)
        return found


def by_steps(rule: NeuronRule, drives: Sequence[Interval]) -> SpikeBounds:
    """drives: current plus bias per step, [B, *shape]."""
    zero = torch.zeros_like(drives[0].low)
    after = Interval(zero, zero)
    windows, potentials = {}, []
    for step, drive in enumerate(drives):
        before = rule.clipped(rule.leaked(after).plus(drive))
        surely, maybe = before.low > rule.threshold, before.high > rule.threshold
        low = torch.where(surely, zero, torch.where(maybe, before.low.clamp(max=0), before.low))
        high = torch.where(surely, zero, torch.where(maybe, zero + rule.threshold, before.high))
        after = Interval(low, high)
        windows[step, step + 1] = Interval(surely.to(torch.int16), maybe.to(torch.int16))
        potentials.append(before)
    return SpikeBounds(windows, tuple(potentials))


def by_last_reset(
    rule: NeuronRule, drives: Sequence[Interval], summed: Callable[[int, int], Interval] | None = None
) -> SpikeBounds:
    """drives: as for `by_steps`. summed: interval of the drives' sum over a window; None where `rule.sums_drives` is not so."""
    zero = torch.zeros_like(drives[0].low)
    history = _History.new(zero)
    held = [Interval(zero, zero)]  # per last reset: the potential, at most the threshold
    sums = [_Sum()]
    for step, drive in enumerate(drives):
        fires, stays = [], []
        for reset in range(step + 1):
            before = rule.leaked(held[reset]).plus(drive)
            if summed is not None and reset < step:
                before = sums[reset].meet(before, summed(reset, step + 1))
            sums[reset].note_clipping(before, rule.numerics.state_max)
            before = rule.clipped(before)
            impossible = history.impossible[reset] | (before.low > before.high)
            fires.append(impossible | (before.high <= rule.threshold))
            stays.append(impossible | (before.low > rule.threshold))
            held[reset] = Interval(before.low, before.high.clamp(max=rule.threshold))
        history.advance(fires, stays)
        held.append(Interval(zero, zero))
        sums.append(_Sum())
    return SpikeBounds(history.windows())


@dataclass(slots=True)
class _Sum:
    """Whether a potential is still the sum of its drives since the last reset. clipped: where it may not be; None for nowhere."""

    clipped: Tensor | None = None

    def meet(self, potential: Interval, total: Interval) -> Interval:
        """Both hold, but where clipped only the first."""
        low, high = torch.maximum(potential.low, total.low), torch.minimum(potential.high, total.high)
        if self.clipped is None:
            return Interval(low, high)
        return Interval(torch.where(self.clipped, potential.low, low), torch.where(self.clipped, potential.high, high))

    def note_clipping(self, potential: Interval, top: int) -> None:
        if float(potential.low.min()) < -top or float(potential.high.max()) > top:
            now = (potential.low < -top) | (potential.high > top)
            self.clipped = now if self.clipped is None else self.clipped | now


@dataclass(slots=True, eq=False)
class _History:
    """Which step may follow which as a neuron's next spike; step 0 stands for the start.

    impossible[r]: as of now, the last spike cannot have been at r. fires[t - 1][r], stays[t - 1][r]: with the last spike at r, the
    neuron cannot fire, or stay silent, at step t. All bool.
    """

    impossible: list[Tensor]
    fires: list[list[Tensor]]
    stays: list[list[Tensor]]

    @staticmethod
    def new(like: Tensor) -> "_History":
        return _History([torch.zeros_like(like, dtype=torch.bool)], [], [])

    def advance(self, fires: list[Tensor], stays: list[Tensor]) -> None:
        self.fires.append(fires)
        self.stays.append(stays)
        self.impossible = [*stays, reduce(torch.logical_and, fires)]

    def windows(self) -> dict[Window, Interval]:
        """Fewest and most spikes of every window, over all sequences of spikes that the history allows."""
        steps, found = len(self.fires), {}
        never = 2 * steps + 1  # what a spike per step cannot bring back among the counts
        fires = [[floor_of(impossible, never) for impossible in at] for at in self.fires]
        stays = [[floor_of(impossible, never) for impossible in at] for at in self.stays]
        begins = [torch.full_like(fires[0][0], -never)]
        for start in range(steps):
            # Per last spike, the fewest spikes since `start`, and the most of them negated.
            fewest = most = [floor.clamp(min=0) for floor in begins]
            for step in range(start, steps):
                fewest = _next_counts(fewest, 1, fires[step], stays[step])
                most = _next_counts(most, -1, fires[step], stays[step])
                found[start, step + 1] = Interval(least_of(fewest), -least_of(most))
            begins = [*stays[start], least_of(fires[start])]
        return found


def floor_of(impossible: Tensor, never: int) -> Tensor:
    """What to raise a count to, int16: `never` where it is impossible, else nothing. never: above any count."""
    return impossible.to(torch.int16) * (2 * never) - never


def _next_counts(counts: list[Tensor], spike: int, fires: list[Tensor], stays: list[Tensor]) -> list[Tensor]:
    fired = [torch.maximum(count + spike, floor) for count, floor in zip(counts, fires, strict=True)]
    return [*(torch.maximum(count, floor) for count, floor in zip(counts, stays, strict=True)), least_of(fired)]


def least_of(values: list[Tensor]) -> Tensor:
    """Elementwise."""
    return reduce(torch.minimum, values)
