"""Interval bounds on what a synapse can add up to: exact integer arithmetic, so they prove things about the chip."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from hardspike.deploy.process_graph import ConvSynapse, InputContract, Synapse
from hardspike.snn.architecture import Shape

Bound = NDArray[np.int64]


def input_bounds(contract: InputContract) -> tuple[Bound, Bound]:
    """Smallest and largest message per element of the encoded input, int64."""
    low = np.zeros(contract.encoded_shape, dtype=np.int64)
    high = np.full(contract.encoded_shape, contract.message_max, dtype=np.int64)
    low[contract.shape[0] :] = contract.message_max  # constant channels never change
    return low, high


def spike_bounds(shape: Shape) -> tuple[Bound, Bound]:
    return np.zeros(shape, dtype=np.int64), np.ones(shape, dtype=np.int64)


def synapse_bounds(synapse: Synapse, low: Bound, high: Bound) -> tuple[Bound, Bound]:
    """Smallest and largest accumulated input of each target neuron, given bounds on the messages; int64, exact."""
    positive, negative = np.maximum(synapse.weight, 0), np.minimum(synapse.weight, 0)
    return (
        accumulate(synapse, low, positive) + accumulate(synapse, high, negative),
        accumulate(synapse, high, positive) + accumulate(synapse, low, negative),
    )


def accumulate(synapse: Synapse, messages: Bound, weight: NDArray[np.int32]) -> Bound:
    """`synapse` with other weights, on one sample; float64 is exact here because |sum| stays far below 2^53."""
    x, w = torch.from_numpy(messages.astype(np.float64))[None], torch.from_numpy(weight.astype(np.float64))
    if isinstance(synapse, ConvSynapse):
        out = F.conv2d(x, w, None, synapse.stride, synapse.padding, synapse.dilation, synapse.groups)
    else:
        out = F.linear(x.flatten(1), w)
    total: Bound = out[0].numpy().astype(np.int64)
    return total
