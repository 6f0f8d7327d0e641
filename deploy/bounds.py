"""Interval bounds on what a synapse can add up to: exact integer arithmetic, so they prove things about the chip."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hardspike.deploy.process_graph import InputContract, Synapse, magnitude_bound
from hardspike.deploy.run_synapse import FLOAT32_EXACT, RunSynapse
from hardspike.snn.architecture import Shape

Bound = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """Smallest and largest possible value of every element, both included; integers, whatever the dtype."""

    low: Tensor
    high: Tensor

    def plus(self, other: "Interval") -> "Interval":
        return Interval(self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> "Interval":
        """factor: at least 0."""
        return Interval(self.low * factor, self.high * factor)


class SynapseInterval:
    """Interval of a synapse's sums for intervals of the messages, on batches.

    With W the weights, the ends are (W (low + high) -+ |W| (high - low)) / 2: two products instead of the four that positive
    and negative weights apart would take. Both numerators are even, and with every partial sum below 2^24 float32 is exact.
    """

    def __init__(self, synapse: Synapse, source: Shape, message_max: int) -> None:
        """message_max: the largest message, or sum of messages, that will be given."""
        small = 2 * magnitude_bound(synapse, message_max) < FLOAT32_EXACT
        self.run = RunSynapse(synapse, source, torch.float32 if small else torch.float64)
        self.magnitude = self.run.weight.abs()

    def __call__(self, messages: Interval) -> Interval:
        """messages: [B, *source shape]; returns float64 [B, *target shape]."""
        middle = self.run(messages.low + messages.high).double()
        spread = (messages.high - messages.low).to(self.magnitude.dtype)
        reach = self.run.respond(spread, self.magnitude).double()
        return Interval((middle - reach) / 2, (middle + reach) / 2)


def input_bounds(contract: InputContract) -> tuple[Bound, Bound]:
    """Smallest and largest message per element of the encoded input, int64."""
    low = np.full(contract.encoded_shape, contract.message_min, dtype=np.int64)
    high = np.full(contract.encoded_shape, contract.message_max, dtype=np.int64)
    for channel, message in enumerate(contract.constant_messages, start=contract.shape[0]):
        low[channel] = high[channel] = message  # constant channels never change
    return low, high


def spike_bounds(shape: Shape) -> tuple[Bound, Bound]:
    return np.zeros(shape, dtype=np.int64), np.ones(shape, dtype=np.int64)


def synapse_bounds(synapse: Synapse, low: Bound, high: Bound) -> tuple[Bound, Bound]:
    """Smallest and largest accumulated input of each target neuron, given bounds on one sample's messages; int64, exact."""
    messages = Interval(torch.from_numpy(low)[None], torch.from_numpy(high)[None])
    sums = SynapseInterval(synapse, low.shape, int(high.max()))(messages)
    return _integers(sums.low), _integers(sums.high)


def accumulate(synapse: Synapse, messages: Bound, weight: NDArray[np.int32]) -> Bound:
    """`synapse` with other weights, on one sample; float64 is exact here because |sum| stays far below 2^53."""
    run = RunSynapse(replace(synapse, weight=weight), messages.shape, torch.float64)
    return _integers(run(torch.from_numpy(messages)[None]))


def _integers(sums: Tensor) -> Bound:
    result: Bound = sums[0].numpy().astype(np.int64)
    return result
