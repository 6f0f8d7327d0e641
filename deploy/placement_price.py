"""What a placed network's events cost on a chip: dynamic energy as an interval over cost sets, static energy apart, time.

Counts come first and are exact; each cost set prices them alone, and what it has no constant for is named, not guessed. A total
is dynamic and static energy together, and only where nothing is missing. Chips whose makers publish no energy per event have the
power of a chip over the time instead (`power_energy_j`): a bound, no estimate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.deploy.busiest_core import step_seconds
from hardspike.deploy.placement import Placement
from hardspike.deploy.placement_events import CoreEvents, PlacedNetwork
from hardspike.hw_profiles.profile import Constant, CostSet, Profile
from hardspike.snn.errors import SettingsError

PICOJOULE = 1e-12
# Outside every profile here.
OUTSIDE = ("host and input/output", "weight loading", "embedded processors")
BETWEEN_CHIPS = "messages between chips"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedEnergy:
    """By one cost set. Joule, float64 [T, B, cores + 1], the last column the host's input messages.

    parts: synapses, neurons, messages, hops. layer_of_core: of each column. unpriced: terms inside the chip without a constant.
    static_w: power of the chips in use, None where unknown, 0 where it is in the prices.
    """

    profile: str
    costs: str
    parts: dict[str, Tensor]
    layer_of_core: tuple[str, ...]
    unpriced: tuple[str, ...]
    static_w: float | None

    @property
    def dynamic_j(self) -> Tensor:
        """Of the priced terms, [T, B, cores + 1]."""
        return torch.stack(list(self.parts.values())).sum(0)

    def per_layer_j(self) -> dict[str, Tensor]:
        """Float64 [T, B] per layer, its cores together; `input` for what the host sends."""
        dynamic = self.dynamic_j
        return {
            name: dynamic[..., [index for index, layer in enumerate(self.layer_of_core) if layer == name]].sum(2)
            for name in dict.fromkeys(self.layer_of_core)
        }

    def static_j(self, seconds: Tensor) -> Tensor:
        """Power of the chips times a time. Raises SettingsError where no static power is known."""
        if self.static_w is None:
            raise SettingsError(
                f"profile '{self.profile}' has no static power (power.static_chip); show dynamic energy alone"
            )
        return self.static_w * seconds

    def total_j(self, seconds: Tensor) -> Tensor:
        """Dynamic and static energy of each sample, float64 [B], for its time. Raises SettingsError where a term is unknown."""
        if self.unpriced:
            raise SettingsError(
                f"cost set '{self.profile}: {self.costs}' does not price {' and '.join(self.unpriced)}, so there is no total; "
                "show the priced terms, or use a set that prices all"
            )
        return self.dynamic_j.sum((0, 2)) + self.static_j(seconds)


def _joule(counts: Tensor, constant: Constant | None) -> Tensor:
    """An unpriced term counts as 0; `CostSet.unpriced` names it."""
    return counts.double() * ((0.0 if constant is None else constant.value) * PICOJOULE)


def energy_of_events(events: CoreEvents, network: PlacedNetwork, profile: Profile, costs: CostSet) -> PlacedEnergy:
    """Price events with one cost set."""
    parts = {
        "synapses": _joule(events.operations, costs.synaptic_operation)
        + _joule(events.operations_convolution, costs.synaptic_operation_convolution),
        "neurons": _joule(events.active, costs.neuron_update_active)
        + _joule(events.active, costs.spike_out)
        + _joule(events.idle, costs.neuron_update_idle),
        "messages": _joule(events.messages_out, costs.message),
        "hops": _joule(events.hops_east_west, costs.hop_east_west)
        + _joule(events.hops_north_south, costs.hop_north_south),
    }
    unpriced = list(costs.unpriced)
    if not network.placement.mesh_known and "hops between tiles" not in unpriced and not costs.includes_static:
        unpriced.append("hops between tiles")
    if int(events.off_chip.sum()) and not costs.includes_static:
        unpriced.append(BETWEEN_CHIPS)
    static = profile.power.static_chip
    chips = network.placement.chips
    return PlacedEnergy(
        profile=profile.name,
        costs=costs.name,
        parts=parts,
        layer_of_core=tuple(network.layer_of_core),
        unpriced=tuple(unpriced),
        static_w=0.0 if costs.includes_static else None if static is None else static.value * chips,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedPrice:
    """By every cost set and time set of the profiles asked, keyed `profile: set`.

    step_s, busiest: time of each step, float64 [T, B], and the column of the core that decides it, int64 [T, B]. not_priced: what
    is outside all of it.
    """

    energies: dict[str, PlacedEnergy]
    step_s: dict[str, Tensor]
    busiest: dict[str, Tensor]
    not_priced: tuple[str, ...] = OUTSIDE

    def dynamic_interval_j(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest dynamic energy of each sample over the cost sets, float64 [B]. Of priced terms only."""
        by_set = torch.stack([energy.dynamic_j.sum((0, 2)) for energy in self.energies.values()])
        return by_set.amin(0), by_set.amax(0)

    def seconds_interval(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest time of each sample over the time sets, float64 [B]."""
        by_set = torch.stack([seconds.sum(0) for seconds in self.step_s.values()])
        return by_set.amin(0), by_set.amax(0)


def price_placed(network: PlacedNetwork, events: CoreEvents, profiles: Sequence[Profile]) -> PlacedPrice:
    """Energy by all cost sets of the profiles, time by all time sets, of the same events.

    Raises SettingsError for a profile that counts bare operations (`cmos45`), or where no profile has a cost set.
    """
    for profile in profiles:
        if profile.arithmetic:
            raise SettingsError(
                f"profile '{profile.name}' prices bare arithmetic and is never put beside a chip; use `operation_counts`"
            )
    if not any(profile.costs for profile in profiles):
        names = ", ".join(profile.name for profile in profiles)
        raise SettingsError(f"profiles {names} have no cost sets (no per-operation energy is public); use loihi1")
    energies, step_s, busiest = {}, {}, {}
    for profile in profiles:
        for name, costs in profile.costs.items():
            energies[f"{profile.name}: {name}"] = energy_of_events(events, network, profile, costs)
        for name, times in profile.times.items():
            key = f"{profile.name}: {name}"
            step_s[key], busiest[key] = step_seconds(events, times, network.placement.tiles)
    return PlacedPrice(energies=energies, step_s=step_s, busiest=busiest)


def power_energy_j(profile: Profile, placement: Placement, seconds: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the energy of a run that took `seconds`: chips in use times the least and the most power measured or quoted.

    Raises SettingsError for a profile without power.
    """
    power = profile.power
    known = [constant for constant in (power.static_chip, power.chip_max) if constant is not None]
    watts = [constant.value for constant in known]
    for one in power.measured:
        watts += [constant.value / one.chips for constant in (one.total, one.static) if constant is not None]
    if not watts:
        raise SettingsError(f"profile '{profile.name}' has no power ([power]); it bounds no energy")
    return min(watts) * placement.chips * seconds, max(watts) * placement.chips * seconds
