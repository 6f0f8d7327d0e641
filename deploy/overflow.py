"""How often states leave their range on data: currents that wrap, potentials that are clipped. For scales that no bound protects."""

from dataclasses import dataclass

from torch import Tensor

from hardspike.deploy.emulator import EmulatorBackend
from hardspike.deploy.process_graph import ProcessGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class Overflow:
    """Of one layer, over all samples, steps and neurons: how many currents wrapped, potentials were clipped, of how many."""

    wrapped: int
    clipped: int
    of: int


def count_overflows(graph: ProcessGraph, messages: Tensor, *, batch_size: int = 8) -> dict[str, Overflow]:
    """Per layer, on integer messages as `Backend.run` takes them. Raises DataError for messages that do not fit."""
    counts = {layer.name: [0, 0, 0] for layer in graph.layers}
    backend, limit = EmulatorBackend(batch_size), graph.numerics.state_max
    for batch in messages.split(batch_size, 1 if graph.input.has_time else 0):
        states = backend.run(graph, batch, keep_states=True).states
        assert states is not None
        for name, potentials in states.potentials.items():
            counts[name][0] += int(states.wrapped[name].sum()) if name in states.wrapped else 0
            counts[name][1] += int((potentials.abs() == limit).sum())
            counts[name][2] += potentials.numel()
    return {name: Overflow(wrapped=w, clipped=c, of=n) for name, (w, c, n) in counts.items()}
