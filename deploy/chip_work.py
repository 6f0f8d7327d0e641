"""What test images cost a placed network on a chip: exact events first, then energy by every cost set and time by every time set.

Dynamic energy is an interval over the cost sets. Static energy is power times time and stands apart; a total is only there where
nothing inside the chip is left without a price.
"""

from collections import defaultdict
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from hardspike.deploy.busiest_core import NANOSECOND, step_seconds
from hardspike.deploy.energy_report import Spread
from hardspike.deploy.placement import Placement
from hardspike.deploy.placement_events import CoreEvents, PlacedNetwork
from hardspike.deploy.placement_price import PlacedEnergy, energy_of_events, power_energy_j
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPrice:
    """By one cost set, joule per sample. parts: synapses, neurons, messages, hops. layers: mean of each, `input` for the host's messages.

    static, total: by time set; a cost set that holds the chip's static power has one total, `all in`. no_total: why there is none.
    """

    costs: str
    title: str
    dynamic: Spread
    parts: dict[str, Spread]
    layers: dict[str, float]
    unpriced: tuple[str, ...]
    static: dict[str, Spread]
    total: dict[str, Spread]
    no_total: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTime:
    """By one time set, seconds per sample. barrier: of them waiting for each other. busiest_*: the core that decides most steps,
    its layer, and the share of all steps of all samples that it decides.
    """

    times: str
    title: str
    sample: Spread
    barrier: float
    busiest_core: int
    busiest_layer: str
    busiest_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipWork:
    """events: mean of each count per sample, hops only where the mesh is known. dynamic: of each sample the lowest and highest
    joule over the cost sets.

    power: least and most watt of the chips in use, as measured or quoted; None where neither is known.
    missing: what the profile does not give.
    """

    events: dict[str, float]
    prices: tuple[SetPrice, ...]
    dynamic: tuple[Spread, Spread] | None
    times: tuple[SetTime, ...]
    power: tuple[float, float] | None
    missing: tuple[str, ...]


ALL_IN = "all in"


class WorkCounter:
    """Collects the work of batch after batch on one placement; keeps numbers per sample, not events."""

    def __init__(self, graph: ProcessGraph, profile: Profile, placement: Placement) -> None:
        self.profile, self.placement = profile, placement
        self.network = PlacedNetwork(graph, placement)
        self.steps = graph.time_steps
        self._kept: defaultdict[tuple[str, ...], list[Tensor]] = defaultdict(list)
        self._decided = {name: torch.zeros(len(placement.cores), dtype=torch.int64) for name in profile.times}
        self._unpriced: dict[str, dict[str, None]] = {name: {} for name in profile.costs}
        self._no_total: dict[str, str] = {}

    def add(self, sent: dict[str, Tensor]) -> None:
        """What was sent in one batch, see `PlacedNetwork.count`."""
        events = self.network.count(sent)
        for item in fields(CoreEvents):
            if self.placement.mesh_known or not item.name.startswith("hops"):
                self._keep(getattr(events, item.name).sum((0, 2)), "events", item.name)
        seconds = {}
        for name, times in self.profile.times.items():
            by_step, core = step_seconds(events, times, self.placement.tiles)
            self._keep(by_step.sum(0), "seconds", name)
            self._decided[name] += torch.bincount(core.flatten(), minlength=len(self.placement.cores))
            seconds[name] = by_step.sum(0)
        for name, costs in self.profile.costs.items():
            energy = energy_of_events(events, self.network, self.profile, costs)
            self._keep(energy.dynamic_j.sum((0, 2)), "dynamic", name)
            for part, joule in energy.parts.items():
                self._keep(joule.sum((0, 2)), "parts", name, part)
            for layer, joule in energy.per_layer_j().items():
                self._keep(joule.sum(0), "layers", name, layer)
            self._unpriced[name] |= dict.fromkeys(energy.unpriced)
            all_in = {ALL_IN: torch.zeros(joule.shape[1], dtype=torch.float64)}
            self._keep_totals(name, energy, all_in if costs.includes_static else seconds)

    def _keep_totals(self, name: str, energy: PlacedEnergy, seconds: dict[str, Tensor]) -> None:
        if energy.static_w is not None and ALL_IN not in seconds:
            for times, each in seconds.items():
                self._keep(energy.static_j(each), "static", name, times)
        try:
            for times, each in seconds.items():
                self._keep(energy.total_j(each), "total", name, times)
        except SettingsError as refused:
            self._no_total[name] = str(refused)

    def _keep(self, values: Tensor, *key: str) -> None:
        self._kept[key].append(values)

    def _spread(self, *key: str) -> Spread:
        return Spread.of(torch.cat(self._kept[key]))

    def _last(self, *key: str) -> list[str]:
        return [found[-1] for found in self._kept if found[:-1] == key]

    def work(self) -> ChipWork:
        """Of all batches so far, at least one."""
        profile, costs = self.profile, list(self.profile.costs)
        dynamic = None
        if costs:
            by_set = torch.stack([torch.cat(self._kept["dynamic", name]) for name in costs])
            dynamic = Spread.of(by_set.amin(0)), Spread.of(by_set.amax(0))
        return ChipWork(
            events={
                name: float(torch.cat(self._kept["events", name]).double().mean()) for name in self._last("events")
            },
            prices=tuple(self._price(name) for name in costs),
            dynamic=dynamic,
            times=tuple(self._time(name) for name in profile.times),
            power=self._power(),
            missing=self._missing(),
        )

    def _price(self, name: str) -> SetPrice:
        no_total = self._no_total.get(name)
        total = {} if no_total else {key: self._spread("total", name, key) for key in self._last("total", name)}
        if not total and no_total is None:
            no_total = f"profile '{self.profile.name}' has no time per event, so static energy and totals are not known"
        return SetPrice(
            costs=name,
            title=self.profile.costs[name].title,
            dynamic=self._spread("dynamic", name),
            parts={part: self._spread("parts", name, part) for part in self._last("parts", name)},
            layers={
                key: float(torch.cat(self._kept["layers", name, key]).mean()) for key in self._last("layers", name)
            },
            unpriced=tuple(self._unpriced[name]),
            static={key: self._spread("static", name, key) for key in self._last("static", name)},
            total=total,
            no_total=no_total,
        )

    def _time(self, name: str) -> SetTime:
        times, decided = self.profile.times[name], self._decided[name]
        core = self.placement.cores[int(decided.argmax())]
        return SetTime(
            times=name,
            title=times.title,
            sample=self._spread("seconds", name),
            barrier=self.steps * times.barrier_ns(self.placement.tiles) * NANOSECOND,
            busiest_core=core.number,
            busiest_layer=core.layer,
            busiest_share=int(decided.max()) / int(decided.sum()),
        )

    def _power(self) -> tuple[float, float] | None:
        try:
            low, high = power_energy_j(self.profile, self.placement, torch.ones(1, dtype=torch.float64))
        except SettingsError:
            return None
        return float(low), float(high)

    def _missing(self) -> tuple[str, ...]:
        """Lines about the sections that the profile's file does not have."""
        profile = self.profile
        lines = []
        if profile.integers is None:
            lines.append(
                f"{profile.name}: no arithmetic ([numerics]), so weights, messages and cores are checked and no thresholds"
            )
        if not profile.costs:
            lines.append(
                f"{profile.name}: no energy per event is public ([costs]), so events are counted and not priced"
            )
        if not profile.times:
            lines.append(f"{profile.name}: no time per event is public ([times]), so there is no time per sample")
        if profile.power.static_chip is None and not all(one.includes_static for one in profile.costs.values()):
            lines.append(f"{profile.name}: no static power of a chip is known (power.static_chip)")
        return tuple(lines)
