"""Where a deployed network would sit on each of some chips and what images would cost there; and apart, its bare operations.

One run of the emulator serves all chips. What `hardspike place` and the report's page show is all in here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hardspike.deploy.ann_baseline import BareOperations, OperationCounter
from hardspike.deploy.chip_fit import ChipFit, fit_chip
from hardspike.deploy.chip_work import ChipWork, WorkCounter
from hardspike.deploy.emulator import Emulator
from hardspike.deploy.input_coding import quantize_images
from hardspike.deploy.placement import Placement
from hardspike.deploy.placement_price import OUTSIDE
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.hw_profiles.profile import Profile, load_profile
from hardspike.snn.data import ImageSet
from hardspike.snn.network import SpikingNetwork

BATCH = 32  # events of all senders, steps and images of a batch are in memory at once
CONVENTION = "cmos45"


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupied:
    """tiles: None where the mesh is not known. utilisation: mean and largest over the cores, of each resource with a limit.

    layers: see `Placement.table`.
    """

    cores: int
    chips: int
    tiles: int | None
    utilisation: dict[str, tuple[float, float]]
    binding: str
    binding_layer: str
    binding_share: float
    layers: list[dict[str, Any]]

    @staticmethod
    def by(placement: Placement) -> "Occupied":
        tightest = max(placement.layers, key=lambda layer: layer.used)
        return Occupied(
            cores=len(placement.cores),
            chips=placement.chips,
            tiles=placement.tiles if placement.mesh_known else None,
            utilisation=placement.utilisation(),
            binding=tightest.binding,
            binding_layer=tightest.name,
            binding_share=tightest.used,
            layers=placement.table(),
        )

    def line(self) -> str:
        """`17 cores on 1 chip; binding: synapse words of 'spike3' (53 % of a core's)`."""
        cores, chips = (
            f"{n:,} {what}{'' if n == 1 else 's'}" for n, what in ((self.cores, "core"), (self.chips, "chip"))
        )
        share = f"{100 * self.binding_share:.0f} % of a core's"
        return f"{cores} on {chips}; binding: {self.binding.replace('_', ' ')} of '{self.binding_layer}' ({share})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """fits, reasons: see `ChipFit`. occupied, work: also where only integers or messages stand in the way, as if they did not."""

    profile: str
    chip: str
    fits: bool | None
    reasons: tuple[str, ...]
    occupied: Occupied | None
    work: ChipWork | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipReport:
    """Of `images` images, `accuracy` of which the network gets right. outside: what no price here holds."""

    images: int
    accuracy: float
    compiled_for: str
    chips: tuple[Chip, ...]
    operations: BareOperations
    outside: tuple[str, ...] = OUTSIDE


def chip_report(
    graph: ProcessGraph,
    ann: SpikingNetwork,
    data: ImageSet,
    profiles: Sequence[Profile],
    *,
    progress: Callable[[int], None] | None = None,
) -> ChipReport:
    """Place and price the graph on every chip of `profiles`; count its operations and those of `ann`, its form without spikes.

    data: at least one image. Profiles of bare arithmetic price the operations alone; without one, cmos45 does.
    """
    chips = [profile for profile in profiles if not profile.arithmetic]
    conventions = [profile for profile in profiles if profile.arithmetic] or [load_profile(CONVENTION)]
    fits = [fit_chip(graph, profile) for profile in chips]
    counters = [
        None if fit.placement is None else WorkCounter(graph, profile, fit.placement)
        for profile, fit in zip(chips, fits, strict=True)
    ]
    operations, emulator = OperationCounter(graph, ann), Emulator(graph)
    images = quantize_images(data.images, graph.input.image_bits)
    right = 0
    for batch, labels in zip(images.split(BATCH), data.labels.split(BATCH), strict=True):
        with torch.no_grad(), emulator.watching() as sent:
            right += int((emulator(batch).argmax(1) == labels).sum())
        for counter in counters:
            if counter is not None:
                counter.add(sent)
        operations.add(sent, batch)
        if progress is not None:
            progress(len(batch))
    return ChipReport(
        images=len(images),
        accuracy=right / len(images),
        compiled_for=graph.profile,
        chips=tuple(map(_chip, chips, fits, counters)),
        operations=operations.operations(conventions),
    )


def _chip(profile: Profile, fit: ChipFit, counter: WorkCounter | None) -> Chip:
    return Chip(
        profile=profile.name,
        chip=profile.chip,
        fits=fit.fits,
        reasons=fit.reasons,
        occupied=None if fit.placement is None else Occupied.by(fit.placement),
        work=None if counter is None else counter.work(),
    )
