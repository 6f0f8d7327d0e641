"""Intervals through a whole `ProcessGraph`: from a box of messages to what every layer may fire and what the output may be."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from hardspike.deploy.bounds import Interval, SynapseInterval
from hardspike.deploy.constant_drive import periods
from hardspike.deploy.process_graph import (
    EXTENSIONS,
    ConvSynapse,
    GraphLayer,
    ProcessGraph,
    Synapse,
    magnitude_bound,
)
from hardspike.deploy.spike_bounds import NeuronRule, SpikeBounds, by_last_reset, by_steps
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import UnsupportedLayerError

# Decays multiply a state by up to 2^12, and float64 holds integers up to 2^53.
STATE_EXACT = 1 << 41


class Messages(Protocol):
    """What a source may send. Windows as in `SpikeBounds`."""

    def window(self, start: int, stop: int) -> Interval: ...


@dataclass(frozen=True, slots=True, eq=False)
class ConstantMessages:
    """The same message at every step."""

    message: Interval

    def window(self, start: int, stop: int) -> Interval:
        return self.message.times(stop - start)


@dataclass(frozen=True, slots=True, eq=False)
class NetworkBounds:
    """spikes: per firing layer. output: potential after the last step, or number of spikes, float64 [B, classes].

    sums: whether the output potential is surely the plain sum of what arrived, bool [B].
    """

    image: Interval
    spikes: dict[str, SpikeBounds]
    output: Interval
    sums: Tensor

    @property
    def sent(self) -> dict[str, Messages]:
        return {INPUT: ConstantMessages(self.image), **self.spikes}


class IntervalNetwork:
    """Prepared once per graph. windows: bound the spikes of every window of steps, not only of every step (spike_bounds.py)."""

    def __init__(self, graph: ProcessGraph, *, windows: bool = True) -> None:
        self.graph, self.windows = graph, windows
        _check_provable(graph)
        self.synapses = {layer.name: [self._prepared(s) for s in layer.synapses] for layer in graph.layers}
        self.bias = {
            layer.name: torch.from_numpy(layer.neurons.bias).double() * (1 << layer.neurons.bias_exponent)
            for layer in graph.layers
        }
        for layer in graph.layers:
            drive = (self._reach(layer) << graph.numerics.state_shift) + int(self.bias[layer.name].abs().max())
            assert 2 * graph.time_steps * drive + graph.numerics.state_max < STATE_EXACT, "float64 would round"

    def _prepared(self, synapse: Synapse) -> SynapseInterval:
        most = self.graph.messages_max(synapse.source) * self.graph.time_steps
        return SynapseInterval(synapse, self.graph.shapes[synapse.source], most)

    def _reach(self, layer: GraphLayer) -> int:
        return sum(magnitude_bound(s, self.graph.messages_max(s.source)) for s in layer.synapses)

    def bounds(self, image: Interval) -> NetworkBounds:
        """image: of the encoded messages with constant channels, integers [B, *encoded shape]."""
        sent: dict[str, Messages] = {INPUT: ConstantMessages(image)}
        spikes: dict[str, SpikeBounds] = {}
        for layer in self.graph.layers[:-1]:
            spikes[layer.name] = sent[layer.name] = self._spikes(layer, self._arrivals(layer, sent))
        last = self.graph.output
        arrivals = self._arrivals(last, sent)
        if last.neurons.spiking:
            spikes[last.name] = self._spikes(last, arrivals)
            count = spikes[last.name].window(0, self.graph.time_steps)
            output = Interval(count.low.double(), count.high.double())
            return NetworkBounds(image, spikes, output, torch.zeros(len(output.low), dtype=torch.bool))
        output, sums = self._readout(last, arrivals)
        return NetworkBounds(image, spikes, output, sums)

    def _arrivals(self, layer: GraphLayer, sent: dict[str, Messages]) -> "_Arrivals":
        found = _Arrivals()
        for synapse, run in zip(layer.synapses, self.synapses[layer.name], strict=True):
            source = sent[synapse.source]
            if isinstance(source, ConstantMessages):
                part = run(source.message)
                found.constant = part if found.constant is None else found.constant.plus(part)
            else:
                found.varying.append((run, source))
        return found

    def _rule(self, layer: GraphLayer) -> NeuronRule:
        numerics = self.graph.numerics
        return NeuronRule(layer.neurons, numerics, wraps=self._reach(layer) > numerics.input_max)

    def _drives(self, layer: GraphLayer, rule: NeuronRule, arrivals: "_Arrivals") -> list[Interval]:
        """Current plus bias, per step."""
        bias = self.bias[layer.name]
        currents = rule.currents([arrivals.window(step, step + 1) for step in range(self.graph.time_steps)])
        return [Interval(current.low + bias, current.high + bias) for current in currents]

    def _spikes(self, layer: GraphLayer, arrivals: "_Arrivals") -> SpikeBounds:
        rule, steps, bias = self._rule(layer), self.graph.time_steps, self.bias[layer.name]
        if self.windows and not arrivals.varying and rule.forgets_current:
            (current,) = rule.currents([arrivals.window(0, 1)])
            return periods(rule, current, bias, steps)
        drives = self._drives(layer, rule, arrivals)
        if not self.windows:
            return by_steps(rule, drives)

        def summed(start: int, stop: int) -> Interval:
            current = arrivals.window(start, stop).times(rule.unit)
            return Interval(current.low + bias * (stop - start), current.high + bias * (stop - start))

        return by_last_reset(rule, drives, summed if rule.sums_drives else None)

    def _readout(self, layer: GraphLayer, arrivals: "_Arrivals") -> tuple[Interval, Tensor]:
        """Potential after the last step, [B, classes], and whether it is surely an unclipped sum, [B]."""
        rule, top = self._rule(layer), self.graph.numerics.state_max
        zero = torch.zeros_like(self.bias[layer.name])
        potential = Interval(zero, zero)
        clipped = torch.zeros(1, dtype=torch.bool)
        for drive in self._drives(layer, rule, arrivals):
            potential = rule.leaked(potential).plus(drive)
            clipped = clipped | ((potential.low < -top) | (potential.high > top)).flatten(1).any(1)
            potential = rule.clipped(potential)
        sums = ~clipped if rule.sums_drives else torch.zeros_like(clipped)
        return Interval(potential.low.flatten(1), potential.high.flatten(1)), sums

    def margins(self, bounds: NetworkBounds, labels: Tensor) -> Tensor:
        """Lower bound of output[label] - output[class], int64 [B, classes]; 0 for the label itself. labels: int64 [B]."""
        own = labels[:, None]
        margins = bounds.output.low.gather(1, own) - bounds.output.high
        if self._is_linear():
            for label in labels.unique().tolist():
                rows = (labels == label) & bounds.sums
                # One difference of weights instead of two intervals: a spike that both classes count cancels.
                margins[rows] = torch.maximum(margins[rows], self._difference(bounds, label, rows))
        return margins.scatter(1, own, 0).long()

    def _is_linear(self) -> bool:
        layer = self.graph.output
        grouped = any(isinstance(s, ConvSynapse) and s.groups > 1 for s in layer.synapses)
        return not layer.neurons.spiking and not grouped

    def _difference(self, bounds: NetworkBounds, label: int, rows: Tensor) -> Tensor:
        layer, steps, sent = self.graph.output, self.graph.time_steps, bounds.sent
        bias = self.bias[layer.name].expand(layer.shape)
        total = (bias[label] - bias) * steps
        for synapse in layer.synapses:
            messages = sent[synapse.source].window(0, steps)
            apart = self._prepared(replace(synapse, weight=synapse.weight[label] - synapse.weight))
            sums = apart(Interval(messages.low[rows], messages.high[rows]))
            total = total + sums.low * (1 << self.graph.numerics.state_shift)
        return total.flatten(1)


class _Arrivals:
    """Synaptic input of one layer, unit weight; what never changes is multiplied once."""

    def __init__(self) -> None:
        self.constant: Interval | None = None
        self.varying: list[tuple[SynapseInterval, Messages]] = []

    def window(self, start: int, stop: int) -> Interval:
        parts = [run(source.window(start, stop)) for run, source in self.varying]
        if self.constant is not None:
            parts.append(self.constant.times(stop - start))
        total = parts[0]
        for part in parts[1:]:
            total = total.plus(part)
        return total


def _check_provable(graph: ProcessGraph) -> None:
    """Raise UnsupportedLayerError for what the bounds of this module do not describe."""
    if graph.input.coding != "graded":
        raise UnsupportedLayerError(
            f"layer 'input': coding '{graph.input.coding}' cannot be certified; only graded pixels, the same at every step, can"
        )
    for layer in graph.layers:
        if layer.neurons.extensions:
            raise UnsupportedLayerError(
                f"layer '{layer.name}': {EXTENSIONS[layer.neurons.extensions[0]]} cannot be certified; "
                "only neurons that integrate first from 0 and reset to 0 can"
            )
