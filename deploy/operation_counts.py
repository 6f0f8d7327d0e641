"""Bare arithmetic, for comparison with papers: accumulates and multiply-accumulates of the integer network and of its ANN form.

Effective operations pair a nonzero input with a nonzero weight, at borders exactly; biases, norms, pooling of their own and neuron
updates are none. They are accumulates where all inputs of the step are -1, 0 or 1 and multiply-accumulates elsewhere: NeuroBench's
rule (neurobench 2.3.0, metrics/utils/layers/macs.py). Energies by a profile of bare arithmetic (`cmos45`) leave out memory, routing
and updates: a ratio between networks, never beside a chip's energy.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.trace import fan_out
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operations:
    """Of each sample over all its steps, int64 [B]."""

    multiply_accumulates: Tensor
    accumulates: Tensor

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(
            multiply_accumulates=self.multiply_accumulates + other.multiply_accumulates,
            accumulates=self.accumulates + other.accumulates,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnnOperations:
    """Multiply-accumulates of an ANN layer. dense: of every sample; zero_skipping: of nonzero inputs and weights, int64 [B]."""

    dense: int
    zero_skipping: Tensor


def effective_operations(graph: ProcessGraph, sent: Mapping[str, Tensor]) -> dict[str, Operations]:
    """Of each layer of the integer network.

    sent: input messages, [B, *shape] or [T, B, *shape], under `input`, constant channels included; and the spikes of every
    firing layer, [T, B, *shape].
    """
    shapes, found = graph.shapes, {}
    constant = sent[INPUT].ndim == 1 + len(graph.input.encoded_shape)
    messages = sent[INPUT].expand(graph.time_steps, *sent[INPUT].shape) if constant else sent[INPUT]
    batch = messages.shape[1]
    for layer in graph.layers:
        total = Operations(
            multiply_accumulates=torch.zeros(batch, dtype=torch.int64),
            accumulates=torch.zeros(batch, dtype=torch.int64),
        )
        for synapse in layer.synapses:
            values = (messages if synapse.source == INPUT else sent[synapse.source]).flatten(2)
            pairs = ((values != 0).double() @ fan_out(synapse, shapes[synapse.source]).flatten()).long()
            adds = (values.double().abs().amax((1, 2)) <= 1)[:, None]
            total = total + Operations(multiply_accumulates=(pairs * ~adds).sum(0), accumulates=(pairs * adds).sum(0))
        found[layer.name] = total
    return found


def ann_operations(network: SpikingNetwork, images: Tensor) -> dict[str, AnnOperations]:
    """Of each convolution and dense layer of the network as an ANN (activations for neurons), on float images (B, C, H, W).

    Inputs are the layer's own, after normalisation: a black pixel is a nonzero input of the first layer.

    Raises SettingsError for a network that has no form without spikes (BNTT).
    """
    ann = copy.deepcopy(network).eval()
    ann.set_time_steps(None)
    found: dict[str, AnnOperations] = {}

    def count(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        (value,) = inputs
        assert isinstance(module, nn.Conv2d | nn.Linear)
        ones, there = torch.ones_like(value[:1]), (value != 0).double()
        weight = module.weight.detach()
        found[name] = AnnOperations(
            dense=int(_pairs(module, ones.double(), torch.ones_like(weight).double()).sum()),
            zero_skipping=_pairs(module, there, (weight != 0).double()).flatten(1).sum(1).long(),
        )

    handles = [
        module.register_forward_pre_hook(partial(count, name))
        for name, module in ann.layers.items()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        ann(images)
    for handle in handles:
        handle.remove()
    return found


def _pairs(module: nn.Conv2d | nn.Linear, inputs: Tensor, weight: Tensor) -> Tensor:
    """How many pairs of an input and a weight each output sums."""
    if isinstance(module, nn.Linear):
        return F.linear(inputs, weight)
    padding = module.padding
    assert not isinstance(padding, str)
    return F.conv2d(inputs, weight, None, module.stride, padding, module.dilation, module.groups)


def operation_energy_j(operations: Operations, profile: Profile) -> dict[str, Tensor]:
    """Joule of each sample by each arithmetic of the profile, float64 [B].

    Raises SettingsError for a chip's profile.
    """
    if not profile.arithmetic:
        raise SettingsError(
            f"profile '{profile.name}' is a chip, not bare arithmetic; use cmos45 for counts of operations"
        )
    return {
        name: (
            operations.multiply_accumulates.double() * one.multiply_accumulate.value
            + operations.accumulates.double() * one.accumulate.value
        )
        * 1e-12
        for name, one in profile.arithmetic.items()
    }
