"""The bare operations of a deployed network beside those of its ANN, priced as arithmetic alone. Never beside a chip's energy."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hardspike.deploy.energy_report import Spread
from hardspike.deploy.operation_counts import (
    AnnOperations,
    Operations,
    ann_operations,
    effective_operations,
    operation_energy_j,
)
from hardspike.deploy.placement_price import PICOJOULE
from hardspike.deploy.process_graph import ProcessGraph
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.architecture import INPUT
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class ArithmeticPrice:
    """Joule per sample by one arithmetic. ratio_*: of each sample, the spiking network's over the ANN's; None without an ANN."""

    arithmetic: str
    title: str
    spiking: Spread
    ann_dense: float | None
    ann_zero_skipping: Spread | None
    ratio_dense: Spread | None
    ratio_zero_skipping: Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BareOperations:
    """Per sample. accumulates, multiply_accumulates: effective ones of the deployed network over all its steps.

    first_layer: mean of the operations in layers that read the input. ann_dense, ann_zero_skipping: multiply-accumulates of the
    ANN; None where `no_ann` says why it has none.
    """

    accumulates: Spread
    multiply_accumulates: Spread
    first_layer: float
    ann_dense: int | None
    ann_zero_skipping: Spread | None
    no_ann: str | None
    prices: tuple[ArithmeticPrice, ...]


class OperationCounter:
    """Collects the operations of batch after batch."""

    def __init__(self, graph: ProcessGraph, ann: SpikingNetwork) -> None:
        self.graph, self.ann = graph, ann
        self.no_ann: str | None = None
        self._reads_input = {layer.name for layer in graph.layers if any(s.source == INPUT for s in layer.synapses)}
        self._kept: defaultdict[str, list[Tensor]] = defaultdict(list)
        self._dense = 0

    def add(self, sent: Mapping[str, Tensor], images: Tensor) -> None:
        """sent: see `effective_operations`. images: the same ones, float (B, C, H, W)."""
        layers = effective_operations(self.graph, sent)
        self._kept["accumulates"].append(_sum([one.accumulates for one in layers.values()]))
        self._kept["macs"].append(_sum([one.multiply_accumulates for one in layers.values()]))
        first = [
            one.accumulates + one.multiply_accumulates for name, one in layers.items() if name in self._reads_input
        ]
        self._kept["first"].append(_sum(first))
        try:
            ann: dict[str, AnnOperations] = ann_operations(self.ann, images)
        except SettingsError as refused:
            self.no_ann = str(refused)
            return
        self._dense = sum(one.dense for one in ann.values())
        self._kept["skipping"].append(_sum([one.zero_skipping for one in ann.values()]))

    def operations(self, conventions: Sequence[Profile]) -> BareOperations:
        """Of all batches so far, at least one. conventions: profiles of bare arithmetic."""
        kept = {name: torch.cat(values) for name, values in self._kept.items()}
        spiking = Operations(multiply_accumulates=kept["macs"], accumulates=kept["accumulates"])
        skipping = None
        if self.no_ann is None:
            skipping = Operations(multiply_accumulates=kept["skipping"], accumulates=torch.zeros_like(kept["skipping"]))
        return BareOperations(
            accumulates=Spread.of(kept["accumulates"]),
            multiply_accumulates=Spread.of(kept["macs"]),
            first_layer=float(kept["first"].double().mean()),
            ann_dense=self._dense if skipping is not None else None,
            ann_zero_skipping=Spread.of(kept["skipping"]) if skipping is not None else None,
            no_ann=self.no_ann,
            prices=tuple(price for profile in conventions for price in self._prices(profile, spiking, skipping)),
        )

    def _prices(self, profile: Profile, spiking: Operations, skipping: Operations | None) -> list[ArithmeticPrice]:
        own = operation_energy_j(spiking, profile)
        theirs = operation_energy_j(skipping, profile) if skipping is not None else {}
        found = []
        for name, one in profile.arithmetic.items():
            one_mac = one.multiply_accumulate.value * PICOJOULE  # an ANN of which all is skipped counts as one
            dense = self._dense * one_mac if theirs else None
            found.append(
                ArithmeticPrice(
                    arithmetic=f"{profile.name}: {name}",
                    title=one.title,
                    spiking=Spread.of(own[name]),
                    ann_dense=dense,
                    ann_zero_skipping=Spread.of(theirs[name]) if theirs else None,
                    ratio_dense=Spread.of(own[name] / dense) if dense else None,
                    ratio_zero_skipping=Spread.of(own[name] / theirs[name].clamp(min=one_mac)) if theirs else None,
                )
            )
        return found


def _sum(counts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(counts)).sum(0)
