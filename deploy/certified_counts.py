"""What a box of images can cost: intervals of spikes, synaptic operations and energy, per image."""

import torch
from torch import Tensor

from hardspike.deploy.bounds import Interval
from hardspike.deploy.energy import layer_energy_j
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.deploy.trace import fan_out
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.architecture import INPUT


def fan_outs(graph: ProcessGraph) -> dict[str, list[tuple[str, Tensor]]]:
    """Per layer, the source of each synapse and how many of its neurons each sender reaches, float64, flat."""
    shapes = graph.shapes
    return {
        layer.name: [(s.source, fan_out(s, shapes[s.source]).flatten()) for s in layer.synapses]
        for layer in graph.layers
    }


def sent_messages(image: Interval, spikes: dict[str, Interval], time_steps: int) -> dict[str, Interval]:
    """Nonzero messages of every sender over all steps, float64 [B, senders]. image: of the encoded messages; spikes: counts."""
    sent = {
        name: Interval(count.low.flatten(1).double(), count.high.flatten(1).double()) for name, count in spikes.items()
    }
    nonzero = Interval((image.low > 0).flatten(1).double(), (image.high > 0).flatten(1).double())
    return sent | {INPUT: nonzero.times(time_steps)}


def operations(sent: dict[str, Interval], reach: dict[str, list[tuple[str, Tensor]]]) -> dict[str, Interval]:
    """Synaptic operations per layer, int64 [B]."""
    found = {}
    for name, synapses in reach.items():
        low = torch.stack([sent[source].low @ fan for source, fan in synapses]).sum(0)
        high = torch.stack([sent[source].high @ fan for source, fan in synapses]).sum(0)
        found[name] = Interval(low.long(), high.long())
    return found


def energy_j(
    graph: ProcessGraph, spikes: dict[str, Interval], operated: dict[str, Interval], profile: Profile
) -> dict[str, Interval]:
    """Joule per cost set, all layers together, float64 [B]; see `energy.NOT_PRICED`.

    An operation costs 0 or more, but a spike may cost less than the idle update it replaces: the ends are at either count.
    """
    found = {}
    for name, costs in profile.costs.items():
        low, high = [], []
        for layer in graph.layers:
            done = operated[layer.name]
            count = spikes.get(layer.name, Interval(*torch.zeros(2, len(done.low))))
            least = [layer_energy_j(layer, graph, done.low, fired, costs) for fired in (count.low, count.high)]
            most = [layer_energy_j(layer, graph, done.high, fired, costs) for fired in (count.low, count.high)]
            low.append(torch.minimum(*least))
            high.append(torch.maximum(*most))
        found[name] = Interval(torch.stack(low).sum(0), torch.stack(high).sum(0))
    return found
