"""How long a sample takes at least: at every step all cores wait for the busiest one, then for each other.

Time of a step = max over cores of (neuron updates * t_update + synaptic operations * t_operation + messages that arrive *
t_message + spikes * t_spike + messages sent * t_message_out) + barrier. Sums over a chip do not show this: the busiest core
decides (arXiv 2511.21549). The messages' way through the mesh is not in it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from hardspike.deploy.placement import Placement, place
from hardspike.deploy.placement_events import CoreEvents, PlacedNetwork
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.hw_profiles.profile import Profile, TimeSet
from hardspike.snn.errors import DoesNotFitError

NANOSECOND = 1e-9


def core_seconds(events: CoreEvents, times: TimeSet) -> Tensor:
    """Busy time of each core at each step, float64 [T, B, cores]; without the host and the barrier."""
    message_out = 0.0 if times.message_out is None else times.message_out.value
    priced = (
        (events.operations, times.synaptic_operation.value),
        (events.operations_convolution, times.synaptic_operation_convolution.value),
        (events.messages_in, times.message_in.value),
        (events.active, times.neuron_update_active.value + times.spike_out.value),
        (events.idle, times.neuron_update_idle.value),
        (events.messages_out, message_out),
    )
    # A whole-number tensor times a float would be float32.
    nanoseconds = torch.stack([counts.double() * each for counts, each in priced]).sum(0)
    return nanoseconds[..., :-1] * NANOSECOND


def step_seconds(events: CoreEvents, times: TimeSet, tiles: int) -> tuple[Tensor, Tensor]:
    """Time of each step, float64 [T, B], and which of the placement's cores decides it, int64 [T, B]; of equal ones the first.

    tiles: in use, for the barrier.
    """
    most, core = core_seconds(events, times).max(2)
    return most + times.barrier_ns(tiles) * NANOSECOND, core


class BusiestCore:
    """Times of a graph's steps from what its senders sent."""

    def __init__(self, graph: ProcessGraph, placement: Placement, times: Mapping[str, TimeSet]) -> None:
        self.times, self.network = times, PlacedNetwork(graph, placement)
        self.cores, self.tiles = len(placement.cores), placement.tiles

    def seconds(self, sent: dict[str, Tensor]) -> dict[str, Tensor]:
        """Per time set, seconds of each sample over all steps, float64 [B]. sent: see `PlacedNetwork.count`."""
        with torch.no_grad():
            events = self.network.count(sent)
            return {key: step_seconds(events, times, self.tiles)[0].sum(0) for key, times in self.times.items()}


def busiest_core(graph: ProcessGraph, profile: Profile) -> tuple[BusiestCore | None, str | None]:
    """None, and why, for a network that has no place there. Messages longer than the chip's are priced as its own."""
    if profile.cores is None or not profile.times:
        return None, None
    try:
        return BusiestCore(graph, place(graph, profile, check_messages=False), profile.times), None
    except DoesNotFitError as error:
        return None, str(error)
