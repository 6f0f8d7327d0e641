"""Energy of exact event counts, priced by a profile's cost sets. Counts come first; prices come second and never alone.

Priced: synaptic operations, neuron updates, spike generation. Not priced, because they need a placement or a measurement:
messages between cores, barriers, static power, the host. So nothing here is a total (`hw_profiles`, trust of each constant).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.deploy.process_graph import ConvSynapse, GraphLayer, ProcessGraph
from hardspike.deploy.trace import Trace
from hardspike.hw_profiles.profile import CostSet, Profile
from hardspike.snn.errors import SettingsError

PICOJOULE = 1e-12
NOT_PRICED = ("messages between cores", "barrier synchronisation", "static power", "host and input/output")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyInterval:
    """Joule per sample over the cost sets of a profile: smallest and largest. Tensors are float64 [B]."""

    by_set: dict[str, Tensor]

    @property
    def low_j(self) -> Tensor:
        return torch.stack(list(self.by_set.values())).amin(0)

    @property
    def high_j(self) -> Tensor:
        return torch.stack(list(self.by_set.values())).amax(0)


def neuron_updates(layer: GraphLayer, time_steps: int) -> int:
    """Every neuron is updated at every step, whether or not anything arrived."""
    size = 1
    for side in layer.shape:
        size *= side
    return size * time_steps


def layer_energy_j(
    layer: GraphLayer, graph: ProcessGraph, operations: Tensor, spikes: Tensor, costs: CostSet
) -> Tensor:
    """Joule per sample, float64 [B], for its counts over all steps [B]: operations, active and idle updates, spikes."""
    convolution = any(isinstance(synapse, ConvSynapse) for synapse in layer.synapses)
    operation = costs.synaptic_operation_convolution if convolution else costs.synaptic_operation
    operations, spikes = operations.double(), spikes.double()
    idle = neuron_updates(layer, graph.time_steps) - spikes
    picojoule: Tensor = (
        operations * operation.value
        + spikes * (costs.neuron_update_active.value + costs.spike_out.value)
        + idle * costs.neuron_update_idle.value
    )
    return picojoule * PICOJOULE


def require_costs(profile: Profile) -> None:
    """Raise SettingsError for a profile without cost sets."""
    if not profile.costs:
        raise SettingsError(
            f"report.cost_profile = '{profile.name}' has no cost sets (no per-operation energy is public); use loihi1"
        )


def price(graph: ProcessGraph, trace: Trace, profile: Profile) -> dict[str, EnergyInterval]:
    """Energy interval per layer. Raises SettingsError for a profile without cost sets."""
    require_costs(profile)
    priced = {}
    for layer in graph.layers:
        operations = trace.synaptic_operations[layer.name].sum(0)
        spikes = trace.spikes[layer.name].sum(0) if layer.name in trace.spikes else torch.zeros(len(trace))
        by_set = {
            name: layer_energy_j(layer, graph, operations, spikes, costs) for name, costs in profile.costs.items()
        }
        priced[layer.name] = EnergyInterval(by_set=by_set)
    return priced


def sum_layers(layers: dict[str, EnergyInterval]) -> EnergyInterval:
    """All layers together, still without what `NOT_PRICED` lists."""
    names = next(iter(layers.values())).by_set
    return EnergyInterval(
        by_set={name: torch.stack([interval.by_set[name] for interval in layers.values()]).sum(0) for name in names}
    )
