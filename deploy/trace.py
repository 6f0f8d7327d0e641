"""What a backend observed: spikes per layer and step, the output, and the exact event counts that follow from them.

Backends only report spikes and outputs; events are counted here, by one rule for all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.deploy.process_graph import ConvSynapse, ProcessGraph, Synapse
from hardspike.snn.architecture import INPUT, Shape


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """Everything, for comparison: bool spikes and int64 currents and potentials (as compared with the threshold), [T, B, *shape] per layer.

    wrapped: bool, where a current left its range and came back at the other end; only of layers where one can.
    """

    spikes: dict[str, Tensor]
    currents: dict[str, Tensor] = field(default_factory=dict)
    potentials: dict[str, Tensor] = field(default_factory=dict)
    wrapped: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One run of B samples over T steps.

    output: int64 [B, classes]; the last layer's final potential (unit weight / 2^state_shift), or its spike counts if it fires.
    messages: int64 [T, B], nonzero input messages. spikes: int64 [T, B] per firing layer. active: int64 [B], neurons of a
    layer that fired at least once. synaptic_operations: int64 [T, B] per layer, counted where they arrive.
    """

    backend: str
    output: Tensor
    messages: Tensor
    spikes: dict[str, Tensor]
    active: dict[str, Tensor]
    synaptic_operations: dict[str, Tensor]
    states: States | None = None

    @property
    def predicted(self) -> Tensor:
        """Class per sample; of equal outputs the first."""
        return self.output.argmax(1)

    def __len__(self) -> int:
        return len(self.output)


class Backend(Protocol):
    """Runs a graph on integer messages (see `input_coding.check_messages` for their shape)."""

    name: str

    def run(
        self,
        graph: ProcessGraph,
        messages: Tensor,
        *,
        keep_states: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Trace: ...


def fan_out(synapse: Synapse, source: Shape) -> Tensor:
    """Synapses that each sender reaches, float64 of the source's shape; a zero weight is no synapse."""
    present = torch.from_numpy((synapse.weight != 0).astype("float64"))
    if not isinstance(synapse, ConvSynapse):
        return present.sum(0).reshape(source)
    ones = torch.ones(1, *synapse.output_shape(source), dtype=torch.float64)
    covered = F.conv_transpose2d(ones, present, None, synapse.stride, 0, (0, 0), synapse.groups, synapse.dilation)[0]
    # Without padding, and cut here: at the far side a stride may use only part of the padding, or leave rows that nothing reaches.
    rows, columns = (slice(pad, pad + side) for pad, side in zip(synapse.padding, source[1:], strict=True))
    inside = covered[:, rows, columns]
    return F.pad(inside, (0, source[2] - inside.shape[2], 0, source[1] - inside.shape[1]))


def count_events(
    graph: ProcessGraph, backend: str, encoded: Tensor, states: States, output: Tensor, *, keep_states: bool
) -> Trace:
    """Build a Trace. encoded: int64 messages with constant channels, [B, ...] or [T, B, ...]."""
    sent = {INPUT: (encoded != 0) if graph.input.has_time else (encoded != 0).expand(graph.time_steps, *encoded.shape)}
    sent |= states.spikes
    if graph.input.coding == "current":
        sent[INPUT] = torch.zeros_like(sent[INPUT])  # a bias is no message
    shapes = graph.shapes
    operations = {}
    for layer in graph.layers:
        total = torch.zeros(graph.time_steps, output.shape[0], dtype=torch.float64)
        for synapse in layer.synapses:
            reach = fan_out(synapse, shapes[synapse.source]).flatten()
            total += sent[synapse.source].flatten(2).double() @ reach
        operations[layer.name] = total.long()
    firing = {layer.name for layer in graph.layers if layer.neurons.spiking}
    spikes = {name: value for name, value in states.spikes.items() if name in firing}
    return Trace(
        backend=backend,
        output=output,
        messages=sent[INPUT].flatten(2).sum(2),
        spikes={name: value.flatten(2).sum(2) for name, value in spikes.items()},
        active={name: value.any(0).flatten(1).sum(1) for name, value in spikes.items()},
        synaptic_operations=operations,
        states=states if keep_states else None,
    )


def join_traces(traces: Sequence[Trace]) -> Trace:
    """Traces of consecutive batches as one."""

    def over(get: Callable[[Trace], dict[str, Tensor]], dim: int) -> dict[str, Tensor]:
        return {name: torch.cat([get(trace)[name] for trace in traces], dim) for name in get(traces[0])}

    states = None
    if all(trace.states is not None for trace in traces):
        kept = [trace.states for trace in traces if trace.states is not None]
        states = States(
            *(
                {name: torch.cat([getattr(s, part)[name] for s in kept], 1) for name in getattr(kept[0], part)}
                for part in ("spikes", "currents", "potentials", "wrapped")
            )
        )
    return Trace(
        backend=traces[0].backend,
        output=torch.cat([trace.output for trace in traces]),
        messages=torch.cat([trace.messages for trace in traces], 1),
        spikes=over(lambda trace: trace.spikes, 1),
        active=over(lambda trace: trace.active, 0),
        synaptic_operations=over(lambda trace: trace.synaptic_operations, 1),
        states=states,
    )
