"""The chip's integers at library speed, with surrogate gradients through them.

Integers are carried as integer-valued floats. A synapse runs in float32 where `magnitude_bound` proves every partial
sum below 2^24 (float64 otherwise); neuron state runs in float32 where no decay multiplies it: then every value is an integer
below 2^24 until it is wrapped or clipped back into 24 bits, and float64 otherwise (|state| * 2^12 < 2^53). So each number
equals the chip's, bit for bit (tests compare with oracle.py and with Lava).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hardspike.deploy.bounds import input_bounds, spike_bounds, synapse_bounds
from hardspike.deploy.fake_quantised import FakeQuantised
from hardspike.deploy.input_coding import append_constant_channels, check_image_input, check_messages
from hardspike.deploy.poisson_coding import poisson_messages
from hardspike.deploy.process_graph import GraphLayer, NeuronGroup, ProcessGraph, magnitude_bound
from hardspike.deploy.run_synapse import FLOAT32_EXACT, RunSynapse
from hardspike.deploy.trace import States, Trace, count_events, join_traces
from hardspike.hw_profiles.profile import Numerics
from hardspike.snn.architecture import INPUT
from hardspike.snn.encoding import NoiseSource
from hardspike.snn.membrane import NeuronSettings, Reset, through_time
from hardspike.snn.surrogate import (
    Activation,
    LayerSurrogate,
    RateGradient,
    active_surrogate,
    detaches_reset,
    surrogate_of,
)

# What is left of a layer's spikes, [T, B, ...], on their way: from its name, the spikes and the encoded input, batch first.
SpikeFaults = Callable[[str, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Dynamics:
    """Constants of one neuron layer. unit: state units per float unit of potential; wraps: whether the current can wrap."""

    neurons: NeuronGroup
    numerics: Numerics
    unit: float
    wraps: bool

    @property
    def surrogate_threshold(self) -> int:
        # v > mantissa << shift is v >= (mantissa + 1) << shift wherever v is a multiple of 1 << shift (no leak).
        return (self.neurons.threshold + 1) << self.numerics.state_shift

    @property
    def subtracted(self) -> float | None:
        """What a soft reset takes away, in state units; None with a hard one."""
        return None if self.neurons.reset_by is None else float(self.neurons.reset_by << self.numerics.state_shift)

    @property
    def reset(self) -> Reset:
        return "hard" if self.neurons.reset_by is None else "soft"

    @property
    def initial_share(self) -> float:
        """The first potential as a share of the threshold, as float neurons have it; rounding may have made it 1, which they may not."""
        return min(max(self.neurons.initial / self.surrogate_threshold, 0.0), 1 - 2**-10)

    def kept(self, decay: int) -> float:
        return self.numerics.kept(decay)

    def decayed(self, state: Tensor, decay: int) -> Tensor:
        """sign(x) * ((|x| * (2^D - decay)) >> D). Exact in float64."""
        return state if decay == 0 else torch.trunc(state * self.kept(decay))

    def wrapped(self, current: Tensor) -> Tensor:
        """Once around, into (-2^(B-1), 2^(B-1)]."""
        half = float(self.numerics.state_max + 1)
        low = torch.where(current <= -half, current + 2 * half, current)
        return torch.where(current > half, current - 2 * half, low)


class _Fire(torch.autograd.Function):
    """Integer neuron dynamics forward; backpropagation through time on the potentials mapped back to float units.

    Input: synaptic input already shifted to state units, effective bias, and the threshold, a scalar, in the same units; all
    three have gradients. Truncation, wrap and saturation pass the gradient straight through.
    """

    @staticmethod
    def forward(
        ctx: Any,
        added_TB: Tensor,
        bias: Tensor,
        threshold_state: Tensor,
        dynamics: _Dynamics,
        surrogate: LayerSurrogate,
        detach_reset: bool,
        record: dict[str, Tensor] | None,
    ) -> Tensor:
        neurons, top = dynamics.neurons, dynamics.numerics.state_max
        forgets = neurons.current_decay == dynamics.numerics.decay_one
        potentials = torch.empty(added_TB.shape, dtype=bias.dtype)
        by_rate = isinstance(surrogate, RateGradient)
        currents = torch.empty_like(potentials) if record is not None or by_rate else None
        wrapped = torch.zeros(potentials.shape, dtype=torch.bool) if record is not None and dynamics.wraps else None
        spikes = torch.empty_like(potentials) if neurons.spiking else torch.zeros(1)
        threshold, subtracted = float(threshold_state), dynamics.subtracted
        fires_first = neurons.order == "fire-first" and neurons.spiking
        current, after = torch.zeros_like(potentials[0]), torch.full_like(potentials[0], neurons.initial)
        for t, added in enumerate(added_TB):
            added = added.to(bias.dtype)
            current = added if forgets else dynamics.decayed(current, neurons.current_decay) + added
            if dynamics.wraps:
                arriving, current = current, dynamics.wrapped(current)
                if wrapped is not None:
                    wrapped[t] = arriving != current
            if currents is not None:
                currents[t] = current
            if fires_first:
                potentials[t] = after
                spike = torch.gt(after, threshold, out=spikes[t])
                kept = torch.addcmul(after, after, spike, value=-1) if subtracted is None else after
                after = dynamics.decayed(kept, neurons.potential_decay) + current
                after = after if subtracted is None else after - subtracted * spike
                after = after.add_(bias).clamp_(-top, top)
                continue
            before = torch.add(dynamics.decayed(after, neurons.potential_decay), current, out=potentials[t])
            before.add_(bias).clamp_(-top, top)
            after = before
            if neurons.spiking:
                spike = torch.gt(before, threshold, out=spikes[t])
                if subtracted is None:
                    after = torch.addcmul(before, before, spike, value=-1)
                else:
                    after = torch.add(before, spike, alpha=-subtracted)
        if record is not None and currents is not None:
            record.update(currents=currents, potentials=potentials)
            if wrapped is not None:
                record["wrapped"] = wrapped
        ctx.dynamics, ctx.surrogate, ctx.detach_reset = dynamics, surrogate, detach_reset
        ctx.mean_current = currents.mean(0) + bias if currents is not None and by_rate else None
        ctx.save_for_backward(potentials, spikes)
        ctx.dtype, ctx.bias_shape = added_TB.dtype, bias.shape
        return spikes if neurons.spiking else potentials

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        potentials, spikes = ctx.saved_tensors
        dynamics: _Dynamics = ctx.dynamics
        neurons = dynamics.neurons
        _, need_bias, need_threshold, *_ = ctx.needs_input_grad
        grad_threshold = None
        if neurons.spiking:
            grad_current, grad_threshold, _ = through_time(
                grad_outputs[0],
                potentials,
                spikes,
                torch.tensor(dynamics.surrogate_threshold, dtype=potentials.dtype),
                dynamics.kept(neurons.potential_decay),
                NeuronSettings(
                    detach_reset=ctx.detach_reset,
                    reset=dynamics.reset,
                    order=neurons.order,
                    initial_potential=dynamics.initial_share if need_threshold else 0.0,
                ),
                ctx.surrogate,
                need_threshold=need_threshold,
                mean_current=ctx.mean_current,
                unit=dynamics.unit,
            )
            grad_current /= dynamics.unit
            grad_threshold = None if grad_threshold is None else grad_threshold / dynamics.unit
        else:  # the output is v itself
            grad_current = _discounted(grad_outputs[0], dynamics.kept(neurons.potential_decay))
        grad_bias = grad_current.sum(0).sum_to_size(ctx.bias_shape) if need_bias else None
        grad_current = _discounted(grad_current, dynamics.kept(neurons.current_decay))
        return grad_current.to(ctx.dtype), grad_bias, grad_threshold, None, None, None, None


def _discounted(grad_TB: Tensor, kept: float) -> Tensor:
    """Gradient of x(t) = kept * x(t-1) + input(t) with respect to the input."""
    if kept == 0:
        return grad_TB
    total = grad_TB.clone()
    for t in range(len(total) - 2, -1, -1):
        total[t] += kept * total[t + 1]
    return total


class _Round(torch.autograd.Function):
    """Nearest integer, halves upwards; straight-through."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return torch.floor(values + 0.5)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]


_fire: Callable[..., Tensor] = _Fire.apply
_round: Callable[..., Tensor] = _Round.apply


class Emulator(nn.Module):
    """Runs one graph on many samples.

    `forward` is the deployed network as a classifier of images in [0, 1], differentiable by surrogate gradients;
    `run` is the backend that reports spikes and events. detach_reset: leave the reset out of the gradient.
    faults: of spikes, see faults.py; they do not reach the network without spikes that runs under an `Activation`.
    seed: of the Poisson spikes that `forward` draws, anew at each call, where the input is made of them.
    """

    def __init__(
        self, graph: ProcessGraph, *, detach_reset: bool = False, faults: SpikeFaults | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.noise = NoiseSource(seed)
        self.graph = graph
        self.detach_reset = detach_reset
        self.faults = faults
        shapes = graph.shapes
        self.synapses = nn.ModuleDict(
            {
                layer.name: nn.ModuleList(
                    RunSynapse(s, shapes[s.source], self._exact_dtype(layer), 1 << graph.numerics.state_shift)
                    for s in layer.synapses
                )
                for layer in graph.layers
            }
        )
        self._bias = {layer.name: self._effective_bias(layer) for layer in graph.layers}
        self._threshold = {
            layer.name: torch.tensor(float(layer.neurons.threshold << graph.numerics.state_shift))
            for layer in graph.layers
        }
        self._dynamics = {layer.name: self._constants(layer) for layer in graph.layers}
        self._watched: dict[str, Tensor] | None = None

    def _reach(self, layer: GraphLayer) -> int:
        return sum(magnitude_bound(s, self.graph.messages_max(s.source)) for s in layer.synapses)

    def _may_wrap(self, layer: GraphLayer) -> bool:
        """Whether some messages make the current of a neuron without memory wrap; exact, each input taken for itself."""
        limit = self.graph.numerics.input_max
        if self._reach(layer) <= limit:
            return False
        ends = {INPUT: input_bounds(self.graph.input)}
        ends |= {s.source: spike_bounds(self.graph.shapes[s.source]) for s in layer.synapses if s.source != INPUT}
        bounds = [synapse_bounds(synapse, *ends[synapse.source]) for synapse in layer.synapses]
        low, high = (np.sum([bound[side] for bound in bounds], axis=0) for side in (0, 1))
        return max(int(high.max()), -int(low.min())) > limit

    def _exact_dtype(self, layer: GraphLayer) -> torch.dtype:
        """The cheapest; sums are shifted to state units at once, for a factor 2^state_shift changes no mantissa."""
        return torch.float32 if self._reach(layer) < FLOAT32_EXACT else torch.float64

    def _constants(self, layer: GraphLayer) -> _Dynamics:
        numerics = self.graph.numerics
        wraps = layer.neurons.current_decay != numerics.decay_one or self._may_wrap(layer)
        return _Dynamics(layer.neurons, numerics, layer.scale * (1 << numerics.state_shift), wraps)

    def _effective_bias(self, layer: GraphLayer) -> Tensor:
        neurons, numerics = layer.neurons, self.graph.numerics
        no_decay = neurons.current_decay == numerics.decay_one and neurons.potential_decay in (0, numerics.decay_one)
        dtype = torch.float32 if no_decay else torch.float64
        return torch.from_numpy(neurons.bias).to(dtype) * float(1 << neurons.bias_exponent)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Float images (B, C, H, W) in [0, 1], rounded to the input's grid first; returns float logits (B, classes).

        Logits are in the float network's units: final potential / (scale * 2^state_shift * T), or mean spikes per step.
        """
        contract = self.graph.input
        check_image_input(images_BCHW.detach(), contract)
        if isinstance(active_surrogate(), Activation):
            logits: Tensor = self._without_spikes(images_BCHW)
            return logits
        if contract.poisson is not None:
            messages = poisson_messages(images_BCHW, contract, self.graph.time_steps, self.noise)
        else:
            messages = _round(images_BCHW * contract.message_max)
        output = self._propagate(append_constant_channels(messages, contract))
        return output.to(images_BCHW.dtype) / self.logit_unit

    @contextmanager
    def watching(self) -> Iterator[dict[str, Tensor]]:
        """Inside the block each forward pass leaves what was sent, with the gradient's path: messages [B, ...] and spikes [T, B, ...]."""
        self._watched = {}
        try:
            yield self._watched
        finally:
            self._watched = None

    @cached_property
    def _without_spikes(self) -> FakeQuantised:
        """What runs under an `Activation`: neurons without spikes have no integers."""
        return FakeQuantised(self.graph)

    @property
    def logit_unit(self) -> float:
        """Divide an output of a trace by this for logits."""
        layer = self.graph.output
        shift = 1 << self.graph.numerics.state_shift
        steps = self.graph.time_steps if self.graph.readout == "mean" else 1
        return steps * (1.0 if layer.neurons.spiking else layer.scale * shift)

    def _propagate(self, encoded: Tensor, states: States | None = None, *, keep_states: bool = False) -> Tensor:
        """Final potentials of the output layer [B, K], or its spike counts. encoded: [B, ...] constant, or [T, B, ...].

        `states` receives the spikes, and with `keep_states` currents and potentials too.
        """
        graph = self.graph
        steps = graph.time_steps
        if self._watched is not None:
            self._watched[INPUT] = encoded
        is_static = not graph.input.has_time
        batch = encoded.shape[0] if is_static else encoded.shape[1]
        sent: dict[str, tuple[Tensor, bool]] = {INPUT: (encoded if is_static else encoded.flatten(0, 1), is_static)}
        for layer in graph.layers:
            accumulated = self._accumulate(layer, sent, batch)
            bias = self._bias[layer.name]
            if not layer.synapses:
                bias = encoded.to(bias.dtype) * float(1 << layer.neurons.bias_exponent)
            record: dict[str, Tensor] | None = {} if keep_states else None
            differentiated = surrogate_of((self, layer.name)), detaches_reset(self.detach_reset)
            threshold, dynamics = self._threshold[layer.name], self._dynamics[layer.name]
            fired_TB: Tensor = _fire(accumulated, bias, threshold, dynamics, *differentiated, record)
            if self.faults is not None and layer.neurons.spiking:
                fired_TB = self.faults(layer.name, fired_TB, encoded if is_static else encoded.transpose(0, 1))
            if states is not None:
                spikes = fired_TB if layer.neurons.spiking else torch.zeros_like(fired_TB)
                states.spikes[layer.name] = spikes.bool()
            if states is not None and record is not None:
                states.currents[layer.name] = record["currents"].long()
                states.potentials[layer.name] = record["potentials"].long()
                if "wrapped" in record:
                    states.wrapped[layer.name] = record["wrapped"]
            if self._watched is not None and layer.neurons.spiking:
                self._watched[layer.name] = fired_TB
            sent[layer.name] = (fired_TB.flatten(0, 1), False)
        return fired_TB.sum(0) if graph.output.neurons.spiking else fired_TB[steps - 1]

    def _accumulate(self, layer: GraphLayer, sent: dict[str, tuple[Tensor, bool]], batch: int) -> Tensor:
        """Synaptic input of a layer in state units, [T, B, *shape]; messages that never change are multiplied once."""
        steps = self.graph.time_steps
        total = torch.zeros(1, batch, *layer.shape)
        for index, (synapse, run) in enumerate(zip(layer.synapses, self.synapses[layer.name], strict=True)):
            messages, is_static = sent[synapse.source]
            part = run(messages)
            part = part.unsqueeze(0) if is_static else part.unflatten(0, (steps, batch))
            total = part if index == 0 else total + part
        return total.expand(steps, batch, *layer.shape)


class EmulatorBackend:
    """`Backend` on this machine's CPU, in batches. faults: of spikes; traces then count the spikes that arrive."""

    name = "emulator"

    def __init__(self, batch_size: int = 256, faults: SpikeFaults | None = None) -> None:
        self.batch_size = batch_size
        self.faults = faults

    def run(
        self,
        graph: ProcessGraph,
        messages: Tensor,
        *,
        keep_states: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Trace:
        """See `Backend`. Raises DataError for messages that do not fit the input contract."""
        check_messages(messages, graph.input, graph.time_steps)
        emulator = Emulator(graph, faults=self.faults)
        dim = 1 if graph.input.has_time else 0
        traces = []
        with torch.no_grad():
            for batch in messages.split(self.batch_size, dim):
                encoded = append_constant_channels(batch, graph.input)
                states = States({}, {}, {})
                output = emulator._propagate(encoded.to(torch.float64), states, keep_states=keep_states)
                traces.append(count_events(graph, self.name, encoded, states, output.long(), keep_states=keep_states))
                if progress is not None:
                    progress(batch.shape[dim])
        return join_traces(traces)
