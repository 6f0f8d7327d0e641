"""TrueNorth: crossbars of axons of four types. A neuron has one weight per type, and sends to one axon in all."""

import math

import numpy as np

from hardspike.deploy.placement_demand import Box, Cut, axons_in, readers
from hardspike.deploy.process_graph import ConvSynapse, GraphLayer, ProcessGraph, Synapse
from hardspike.hw_profiles.profile import Cores
from hardspike.snn.architecture import Shape
from hardspike.snn.errors import DoesNotFitError


def weight_values(synapse: Synapse) -> int:
    """Different weights but 0: each source needs an axon of a type of its own for each."""
    return len(np.setdiff1d(synapse.weight, 0))


def crossbar_axons(synapse: Synapse, source: Shape, box: Box) -> int:
    """Of a core with these target neurons."""
    senders = axons_in(synapse, source, box)
    if isinstance(synapse, ConvSynapse):
        senders *= synapse.weight.shape[1]  # channels are axons of their own
    return senders * max(weight_values(synapse), 1)


def check_types(layer: GraphLayer, cores: Cores, profile: str) -> None:
    """Raise DoesNotFitError for a layer of more different weights than there are types of axons."""
    values = sum(weight_values(synapse) for synapse in layer.synapses)
    if cores.axon_types is not None and values > cores.axon_types:
        raise DoesNotFitError(
            f"layer '{layer.name}': {values} different weights, over {cores.axon_types} ({profile}: cores.axon_types); "
            "train with that few, e.g. -1, 0 and 1"
        )


def check_single_destination(graph: ProcessGraph, name: str, cuts: dict[str, Cut], profile: str) -> None:
    """Raise DoesNotFitError for a layer whose neurons would need more than one axon. Neurons that only copy are not placed."""
    axons = sum(
        math.prod(len(ranges) for ranges in cuts[reader]) * weight_values(synapse)
        for reader, synapse in readers(graph, name)
    )
    if axons > 1:
        raise DoesNotFitError(
            f"layer '{name}': each neuron would send to {axons} axons, over 1 ({profile}: a neuron has one destination); neurons "
            "that copy spikes are not placed; use another profile"
        )
