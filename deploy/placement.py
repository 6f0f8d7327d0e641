"""`place`: which neurons of a network go to which core of a chip, and what each core then holds of what it can.

A core holds a box of one layer's neurons (ranges of channels, rows and columns, or of units). What its synapses take in memory
and how a layer is cut follows the chip's compiler, as far as it is known (`placement_loihi1`, `placement_loihi2`,
`placement_speck`, `placement_truenorth`). Layers are placed from the last to the first, because what a core needs for its
outgoing connections depends on the cores it sends to. Cores are then numbered in the order of the layers: as many to a tile as
the profile says, tiles down each column of the mesh, chip after chip.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hardspike.deploy import placement_loihi1, placement_loihi2
from hardspike.deploy.placement_demand import (
    Box,
    Cut,
    Demand,
    Limits,
    Outgoing,
    Stored,
    axons_in,
    box_size,
    boxes,
    readers,
    stored_apart,
    stored_shared,
    stored_weight_bits,
    whole,
)
from hardspike.deploy.placement_speck import speck_cores
from hardspike.deploy.placement_truenorth import check_single_destination, check_types, crossbar_axons
from hardspike.deploy.process_graph import GraphLayer, ProcessGraph, Synapse
from hardspike.hw_profiles.profile import Cores, Profile
from hardspike.snn.architecture import Shape
from hardspike.snn.errors import DoesNotFitError, SettingsError

HOST = (0, 0)  # where input enters the mesh: the first tile of the first chip


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedCore:
    """number: over all chips, from 0. tile: on its chip; column and row of it in the mesh, None where the mesh is not known."""

    number: int
    layer: str
    box: Box
    demand: Demand
    limits: Limits
    chip: int
    tile: int
    column: int | None
    row: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlacement:
    """parts: per axis of the layer's shape. weight_bits: as stored. words_once: of the layer's weights, each once and packed.

    binding: the resource of which a core of this layer uses the largest share, `used` of its limit.
    """

    name: str
    shape: Shape
    parts: tuple[int, ...]
    cores: tuple[PlacedCore, ...]
    weight_bits: int
    words_once: int
    binding: str
    used: float

    @property
    def synapse_words(self) -> int:
        return sum(core.demand.synapse_words for core in self.cores)

    @property
    def replicated_words(self) -> int:
        """What copies on other cores, indices and rounding add."""
        return self.synapse_words - self.words_once

    @property
    def largest(self) -> Demand:
        """The most of each resource that a core of the layer uses."""
        demands = [core.demand for core in self.cores]
        keys = ("neurons", "synapse_words", "axons_in", "axons_out")
        return Demand(**{key: max(getattr(demand, key) for demand in demands) for key in keys})


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """layers: in the graph's order. tiles: in use, over all chips."""

    profile: str
    layers: tuple[LayerPlacement, ...]
    cores_per_tile: int
    cores_per_chip: int

    @property
    def cores(self) -> tuple[PlacedCore, ...]:
        return tuple(core for layer in self.layers for core in layer.cores)

    @property
    def mesh_known(self) -> bool:
        """Whether hops can be counted."""
        return self.layers[0].cores[0].column is not None

    @property
    def chips(self) -> int:
        return 1 + max(core.chip for core in self.cores)

    @property
    def tiles(self) -> int:
        return len({(core.chip, core.tile) for core in self.cores})

    def table(self) -> list[dict[str, Any]]:
        """One row per layer: numbers for a report. Sums over its cores, the most on a core, and that core's limits."""
        rows = []
        for layer in self.layers:
            limits, largest = layer.cores[0].limits, layer.largest
            rows.append(
                {
                    "layer": layer.name,
                    "shape": layer.shape,
                    "parts": layer.parts,
                    "cores": len(layer.cores),
                    "first_core": layer.cores[0].number,
                    "weight_bits": layer.weight_bits,
                    "neurons": (largest.neurons, limits.neurons),
                    "synapse_words": (largest.synapse_words, limits.synapse_words),
                    "axons_in": (largest.axons_in, limits.axons_in),
                    "axons_out": (largest.axons_out, limits.axons_out),
                    "words_once": layer.words_once,
                    "replicated_words": layer.replicated_words,
                    "binding": layer.binding,
                    "used": layer.used,
                }
            )
        return rows

    def utilisation(self) -> dict[str, tuple[float, float]]:
        """Mean and largest share in use over all cores, of each resource with a limit."""
        shares = [core.limits.ratios(core.demand) for core in self.cores]
        return {
            name: (sum(one[name] for one in shares) / len(shares), max(one[name] for one in shares))
            for name in shares[0]
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packing:
    """A chip's rules. stored: which senders share entries. words(synapse, source shape, box, weight bits); slots of an outgoing
    entry; cuts in order of preference, from the words of the whole layer on one core.
    """

    stored: Callable[[Synapse, Shape], Stored]
    words: Callable[[Synapse, Shape, Box, int], int]
    axons_in: Callable[[Synapse, Shape, Box], int]
    slots: Callable[[Synapse, Shape], int]
    cuts: Callable[[GraphLayer, int, Cores], Iterable[Cut]]


_PACKINGS = {
    "loihi1": _Packing(
        stored=stored_shared,
        words=placement_loihi1.synapse_words,
        axons_in=axons_in,
        slots=placement_loihi1.entry_slots,
        cuts=lambda layer, words, cores: placement_loihi1.even_cuts(layer),
    ),
    "loihi2": _Packing(
        stored=stored_apart,
        words=placement_loihi2.synapse_words,
        axons_in=axons_in,
        slots=lambda synapse, source: 1,
        cuts=placement_loihi2.lava_cuts,
    ),
    "truenorth": _Packing(
        stored=stored_apart,
        words=lambda synapse, source, box, bits: 0,
        axons_in=crossbar_axons,
        slots=lambda synapse, source: 1,
        cuts=lambda layer, words, cores: placement_loihi1.even_cuts(layer),
    ),
}
REMEDIES = {
    "neurons": "use a smaller layer",
    "synapse_words": "use fewer inputs or smaller kernels (pooling folded into a layer enlarges both)",
    "axons_in": "make the layer before it smaller, e.g. pool more",
    "axons_out": "make the layers that read it smaller",
}


def place(graph: ProcessGraph, profile: Profile, *, check_messages: bool = True) -> Placement:
    """Put a network on the cores of a chip. Deterministic; no limit of the profile is exceeded.

    Args:
        check_messages: also refuse an input whose messages the chip does not send. Without, only its cores count.

    Raises:
        SettingsError: a profile without [cores], or without a packing rule.
        DoesNotFitError: messages or weights the chip does not have, one neuron that needs more than a core, or more chips
            than the largest system has.
    """
    cores = profile.cores
    if cores is None or cores.packing is None:
        raise SettingsError(
            f"profile '{profile.name}' says not how its cores are filled (cores.packing); use loihi1, loihi2, speck or truenorth"
        )
    if check_messages:
        _check_messages(graph, profile, cores)
    if cores.packing == "speck":
        return _on_speck(graph, profile, cores)
    allowed = profile.integers.weight_bits if profile.integers is not None else (cores.weight_bits or 8,)
    layers = _Layers(graph, cores, profile, allowed)
    for layer in reversed(graph.layers):
        layers.cut(layer)
    return layers.numbered()


def _check_messages(graph: ProcessGraph, profile: Profile, cores: Cores) -> None:
    bits = profile.integers.message_bits_max if profile.integers is not None else cores.message_bits
    if graph.input.coding == "graded" and bits is not None and graph.input.message_bits > bits:
        raise DoesNotFitError(
            f"layer 'input': {graph.input.message_bits}-bit graded messages exceed {bits} ({profile.name}: message bits); "
            "choose a profile with graded spikes (loihi2) or a binary input"
        )
    if graph.input.coding == "signed" and bits is not None and bits < 2:
        raise DoesNotFitError(
            f"layer 'input': signed spikes need 2 message bits, over {bits} ({profile.name}: message bits); "
            "send positive and negative spikes on channels of their own"
        )


class _Layers:
    """Cuts of the layers placed so far."""

    def __init__(self, graph: ProcessGraph, cores: Cores, profile: Profile, allowed: tuple[int, ...]) -> None:
        self.graph, self.cores, self.profile = graph, cores, profile
        self.packing = _PACKINGS[str(cores.packing)]
        self.limits = Limits(
            neurons=cores.neurons_per_core,
            synapse_words=cores.synapse_words,
            axons_in=cores.axons_in,
            axons_out=cores.axons_out,
        )
        self.shapes = graph.shapes
        self.weight_bits = {
            layer.name: max((stored_weight_bits(s.weight, allowed, layer.name) for s in layer.synapses), default=0)
            for layer in graph.layers
        }
        self.stored = {
            id(synapse): self.packing.stored(synapse, self.shapes[synapse.source])
            for layer in graph.layers
            for synapse in layer.synapses
        }
        self.cuts: dict[str, Cut] = {}
        self.demands: dict[str, list[Demand]] = {}

    def words(self, layer: GraphLayer, box: Box) -> int:
        bits, stored = self.weight_bits[layer.name], [self.stored[id(synapse)] for synapse in layer.synapses]
        return sum(self.packing.words(one.synapse, one.source, box, bits) for one in stored)

    def cut(self, layer: GraphLayer) -> None:
        """Choose the first cut of which every core stays within the limits."""
        if self.cores.packing == "truenorth":
            check_types(layer, self.cores, self.profile.name)
            check_single_destination(self.graph, layer.name, self.cuts, self.profile.name)
        outgoing = [
            Outgoing(one, self.cuts[name], self.packing.slots(one.synapse, one.source))
            for name, one in ((name, self.stored[id(synapse)]) for name, synapse in readers(self.graph, layer.name))
        ]
        incoming = [self.stored[id(synapse)] for synapse in layer.synapses]
        # A reset by subtraction takes a second compartment where the chip only resets to zero.
        soft = layer.neurons.reset_by is not None
        native = self.profile.integers is None or "soft" in self.profile.integers.resets
        compartments = 2 if soft and not native and self.cores.packing == "loihi1" else 1

        def demand(box: Box) -> Demand:
            return Demand(
                neurons=box_size(box) * compartments,
                synapse_words=self.words(layer, box),
                axons_in=sum(self.packing.axons_in(one.synapse, one.source, box) for one in incoming),
                axons_out=sum(out.entries(box) for out in outgoing),
            )

        words = self.words(layer, boxes(whole(layer.shape))[0])
        for cut in self.packing.cuts(layer, words, self.cores):
            found = []
            for box in boxes(cut):
                if box_size(box) * compartments > self.limits.neurons or self.limits.exceeded(made := demand(box)):
                    break
                found.append(made)
            else:
                self.cuts[layer.name], self.demands[layer.name] = cut, found
                return
        self._refuse(layer, [demand(box) for box in boxes(cut)])

    def _refuse(self, layer: GraphLayer, demands: list[Demand]) -> None:
        """Of the finest cut."""
        name, demand = next((name, one) for one in demands if (name := self.limits.exceeded(one)))
        key = "neurons_per_core" if name == "neurons" else name
        raise DoesNotFitError(
            f"layer '{layer.name}': one neuron on a core of its own needs {getattr(demand, name)} {name.replace('_', ' ')}, over "
            f"{getattr(self.limits, name)} ({self.profile.name}: cores.{key}); {REMEDIES[name]}"
        )

    def numbered(self) -> Placement:
        placed, number = [], 0
        for layer in self.graph.layers:
            cores = []
            for box, demand in zip(boxes(self.cuts[layer.name]), self.demands[layer.name], strict=True):
                cores.append(_core(number, layer.name, box, demand, self.limits, self.cores))
                number += 1
            weights = sum(synapse.weight.size for synapse in layer.synapses)
            once = -(-weights * self.weight_bits[layer.name] // 64)
            parts = tuple(len(ranges) for ranges in self.cuts[layer.name])
            placed.append(_layer(layer, parts, cores, self.weight_bits[layer.name], once))
        return _checked(placed, self.cores, self.profile)


def _core(number: int, layer: str, box: Box, demand: Demand, limits: Limits, cores: Cores) -> PlacedCore:
    chip, within = divmod(number, cores.cores_per_chip)
    tile = within // cores.cores_per_tile
    column, row = divmod(tile, cores.tiles_high) if cores.tiles_high is not None else (None, None)
    return PlacedCore(
        number=number, layer=layer, box=box, demand=demand, limits=limits, chip=chip, tile=tile, column=column, row=row
    )


def _layer(layer: GraphLayer, parts: tuple[int, ...], cores: list[PlacedCore], bits: int, once: int) -> LayerPlacement:
    ratios = [core.limits.ratios(core.demand) for core in cores]
    used, binding = max((share, name) for one in ratios for name, share in one.items())
    return LayerPlacement(
        name=layer.name,
        shape=layer.shape,
        parts=parts,
        cores=tuple(cores),
        weight_bits=bits,
        words_once=once,
        binding=binding,
        used=used,
    )


def _checked(layers: list[LayerPlacement], cores: Cores, profile: Profile) -> Placement:
    made = Placement(
        profile=profile.name,
        layers=tuple(layers),
        cores_per_tile=cores.cores_per_tile,
        cores_per_chip=cores.cores_per_chip,
    )
    if made.chips > cores.chips_max:
        most = max(layers, key=lambda layer: len(layer.cores))
        raise DoesNotFitError(
            f"network: {len(made.cores)} cores on {made.chips} chips, over {cores.chips_max} ({profile.name}: cores.chips_max); "
            f"layer '{most.name}' takes {len(most.cores)} (binding: {most.binding.replace('_', ' ')}); make it smaller"
        )
    return made


def _on_speck(graph: ProcessGraph, profile: Profile, cores: Cores) -> Placement:
    numbers, words = speck_cores(graph, cores, profile.name)
    kernels, memories = cores.kernel_words or (), cores.neuron_words or ()
    layers = []
    for layer in graph.layers:
        number, (kernel, neuron) = numbers[layer.name], words[layer.name]
        (box,) = boxes(whole(layer.shape))
        targets = len({name for name, _ in readers(graph, layer.name)})
        demand = Demand(neurons=neuron, synapse_words=kernel, axons_in=1, axons_out=targets)
        limits = Limits(
            neurons=memories[number], synapse_words=kernels[number], axons_in=None, axons_out=cores.axons_out
        )
        bits = stored_weight_bits(layer.synapses[0].weight, (cores.weight_bits or 8,), layer.name)
        core = _core(number, layer.name, box, demand, limits, cores)
        layers.append(_layer(layer, (1,) * len(layer.shape), [core], bits, layer.synapses[0].weight.size))
    return _checked(layers, cores, profile)
