"""Faults of a deployed network: what a chip that has aged, or a cheaper one, would make of it.

Each kind has a rate and a seed; at rate 0 the network is the faultless one, bit for bit.

- `stuck`: each neuron that can fire never does, with probability `rate`; the same neurons at every step and for all samples.
  The output layer where it does not fire has no spike to lose.
- `bitflip`: each bit of each weight's code is inverted with probability `rate`, once for all samples; weights that are zero are
  stored too, and a convolution's kernel once. See `weight_codes` for what the bits are.
- `dropped`: each spike is lost with probability `rate` on its way to whatever reads it; its neuron has fired and is reset. What
  the host sends is not lost. The losses of one image are drawn from the seed and from its own integer messages (Philox): the same
  image meets the same losses in any batch or order, and any other image meets its own. To average over losses, as an
  attacker may (expectation over transformation), take networks of several seeds.
- `drift`: each layer's threshold mantissa is multiplied by 1 + `rate` * N(0, 1), rounded and kept within the register. A layer
  has one mantissa, so its neurons drift together.

Flipped bits and thresholds make another valid ProcessGraph, which a chip or a `.net` file could hold; spikes that are lost need the
emulator. Raising the rate at one seed adds faults to those that are there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hardspike.attack.evaluation import predict
from hardspike.attack.problem import SampleDraws
from hardspike.deploy.emulator import Emulator, SpikeFaults
from hardspike.deploy.process_graph import IntArray, ProcessGraph, Synapse, weight_limits, weight_step
from hardspike.hw_profiles.profile import Numerics
from hardspike.snn.errors import DataError
from hardspike.snn.progress import Progress, Silent
from hardspike.snn.ranges import require

FaultKind = Literal["stuck", "bitflip", "dropped", "drift"]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
# One purpose of the seed for each kind and layer.
_PURPOSES_PER_KIND = 1 << 20


def faulty(graph: ProcessGraph, kind: FaultKind, rate: float, seed: int) -> Emulator:
    """The network with faults: images to logits, differentiable by surrogate gradients as the faultless one.

    As a backend: `EmulatorBackend(faults=network.faults).run(network.graph, messages)`, whose trace counts spikes that arrive.

    Raises:
        SettingsError: unknown kind; a rate outside 0..1 (drift: below 0).
        DoesNotFitError: flipped weights could add up beyond the accumulator, which a graph does not describe: at high rates
            in layers with thousands of inputs or with large messages.
    """
    return Emulator(faulty_graph(graph, kind, rate, seed), faults=spike_faults(graph, kind, rate, seed))


def faulty_graph(graph: ProcessGraph, kind: FaultKind, rate: float, seed: int) -> ProcessGraph:
    """What the chip holds: with flipped bits or drifted thresholds, the graph itself for faults of spikes. Raises as `faulty`."""
    _check_fault(kind, rate)
    if kind not in ("bitflip", "drift"):
        return graph
    layers = []
    for index, layer in enumerate(graph.layers):
        random = _generator(kind, index, seed)
        if kind == "bitflip":
            synapses = tuple(_flipped(s, rate, random, graph.numerics, graph.weight_bits) for s in layer.synapses)
            layer = replace(layer, synapses=synapses)
        elif layer.neurons.spiking:
            drifted = round(layer.neurons.threshold * (1 + rate * random.standard_normal()))
            threshold = min(max(drifted, 0), graph.numerics.threshold_mantissa_max)
            layer = replace(layer, neurons=replace(layer.neurons, threshold=threshold))
        layers.append(layer)
    provenance = graph.provenance | {"fault": f"{kind}, rate {rate:g}, seed {seed}"}
    return replace(graph, layers=tuple(layers), provenance=provenance)


def spike_faults(graph: ProcessGraph, kind: FaultKind, rate: float, seed: int) -> SpikeFaults | None:
    """What becomes of spikes, for `Emulator` and `EmulatorBackend`; None for faults that the graph itself holds."""
    _check_fault(kind, rate)
    if kind == "stuck":
        return StuckNeurons(graph, rate, seed)
    return LostSpikes(graph, rate, seed) if kind == "dropped" else None


class StuckNeurons:
    """working: per firing layer, which neurons do fire; bool, of the layer's shape."""

    def __init__(self, graph: ProcessGraph, rate: float, seed: int) -> None:
        self.working: dict[str, Tensor] = {}
        for index, layer in enumerate(graph.layers):
            if layer.neurons.spiking:
                uniform = _generator("stuck", index, seed).random(layer.shape)
                self.working[layer.name] = torch.from_numpy(uniform >= rate)

    def __call__(self, name: str, spikes_TB: Tensor, encoded_B: Tensor) -> Tensor:
        """Gradients of stuck neurons are zero."""
        return spikes_TB * self.working[name].to(spikes_TB)


class LostSpikes:
    """Which spikes arrive, drawn for each sample from its own messages."""

    def __init__(self, graph: ProcessGraph, rate: float, seed: int) -> None:
        self.rate, self.seed = rate, seed
        self._purposes = {layer.name: _purpose("dropped", index) for index, layer in enumerate(graph.layers)}

    def __call__(self, name: str, spikes_TB: Tensor, encoded_B: Tensor) -> Tensor:
        """Gradients pass with the spikes that arrive."""
        return spikes_TB * self.arrives(name, spikes_TB, encoded_B).to(spikes_TB)

    def arrives(self, name: str, spikes_TB: Tensor, encoded_B: Tensor) -> Tensor:
        """Whether a spike of each neuron and step would, bool [T, B, ...]. encoded_B: input with constant channels, batch first."""
        draws = SampleDraws(self.seed, _fingerprints(encoded_B))
        uniform_BT = draws.uniform(self._purposes[name], spikes_TB.transpose(0, 1).detach())
        return uniform_BT.transpose(0, 1) >= self.rate


def weight_codes(synapse: Synapse, numerics: Numerics, weight_bits: int) -> tuple[IntArray, bool]:
    """The codes a chip stores, and whether they are signed.

    Where both signs occur, code = weight / step in two's complement of `weight_bits` bits; the step is even, so the weights
    are. Otherwise the layer has one sign, and code = |weight| / step is unsigned of `weight_bits` bits.
    """
    mixed = _is_mixed(synapse.weight)
    codes: IntArray = (synapse.weight >> synapse.exponent) // weight_step(mixed, numerics, weight_bits)
    return (codes, True) if mixed else (np.abs(codes), False)


def _is_mixed(weight: IntArray) -> bool:
    return bool(weight.min() < 0 < weight.max())


def _flipped(
    synapse: Synapse, rate: float, random: np.random.Generator, numerics: Numerics, weight_bits: int
) -> Synapse:
    codes, signed = weight_codes(synapse, numerics, weight_bits)
    flips = np.zeros_like(codes)
    for bit in range(weight_bits):
        flips |= (random.random(codes.shape) < rate).astype(codes.dtype) << bit
    codes = (codes & (1 << weight_bits) - 1) ^ flips
    step, unit = weight_step(signed, numerics, weight_bits), 1 << synapse.exponent
    if not signed:
        sign = -1 if synapse.weight.min() < 0 else 1
        return replace(synapse, weight=(sign * step * codes * unit).astype(np.int32))
    half = 1 << (weight_bits - 1)
    weight = ((codes ^ half) - half) * step
    if not _is_mixed(weight):
        # The sign rule is read from the values, and layers of one sign reach less far: the one code out of range is put next to it.
        low, high = weight_limits(False, bool(weight.max() > 0), numerics)
        weight = weight.clip(int(low / step) * step, high)
    return replace(synapse, weight=(weight * unit).astype(np.int32))


def _check_fault(kind: str, rate: float) -> None:
    require("fault kind", kind, kind in FAULT_KINDS, f"use {', '.join(FAULT_KINDS)}")
    if kind == "drift":
        require("fault rate", rate, 0 <= rate < float("inf"), "use a standard deviation of 0 or more for drift")
    else:
        require("fault rate", rate, 0 <= rate <= 1, f"use a probability between 0 and 1 for {kind}")


def _purpose(kind: FaultKind, layer: int) -> int:
    return _PURPOSES_PER_KIND * (1 + FAULT_KINDS.index(kind)) + layer


def _generator(kind: FaultKind, layer: int, seed: int) -> np.random.Generator:
    """For faults that all samples share."""
    return SampleDraws(seed, torch.zeros(0, dtype=torch.int64)).shared(_purpose(kind, layer))


def _fingerprints(encoded_B: Tensor) -> Tensor:
    """One number in 0 .. 2^63 - 1 for each sample's integers, int64 [B]."""
    rows = np.ascontiguousarray(encoded_B.detach().to(torch.int64).numpy())
    found = [int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest(), "little") >> 1 for row in rows]
    return torch.tensor(found, dtype=torch.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultCurve:
    """accuracy: by name of the set, then [rate][seed], in [0, 1]. images: how many each set has."""

    kind: FaultKind
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    accuracy: dict[str, tuple[tuple[float, ...], ...]]
    images: dict[str, int]

    def mean(self, name: str) -> tuple[float, ...]:
        """Over the seeds, by rate."""
        return tuple(float(np.mean(of_seeds)) for of_seeds in self.accuracy[name])

    def lowest(self, name: str) -> tuple[float, ...]:
        """Of the seeds, by rate."""
        return tuple(min(of_seeds) for of_seeds in self.accuracy[name])

    def facts(self) -> dict[str, object]:
        """Everything, for json.dumps."""
        return {
            "kind": self.kind,
            "rates": list(self.rates),
            "seeds": list(self.seeds),
            "accuracy": {name: [list(of_seeds) for of_seeds in found] for name, found in self.accuracy.items()},
            "mean": {name: list(self.mean(name)) for name in self.accuracy},
            "images": self.images,
        }


def fault_curve(
    graph: ProcessGraph,
    sets: Mapping[str, tuple[Tensor, Tensor]],
    kind: FaultKind,
    rates: Sequence[float],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    batch_size: int = 256,
    progress: Progress | None = None,
) -> FaultCurve:
    """Accuracy of the network against the rate of one kind of fault; a seed's faults are the same for all sets.

    Images that were attacked on the faultless network fit a faulty one less and less, so accuracy on them may rise with the rate.
    That is no robustness: attack `faulty(...)` itself for the worst case.

    Args:
        sets: by name, float images (N, C, H, W) in [0, 1] and labels int64 [N]; say clean and attacked images.
        rates: see the module.

    Raises DataError for labels that do not fit, SettingsError and DoesNotFitError as `faulty`.
    """
    for rate in rates:
        _check_fault(kind, rate)
    require("fault rates", tuple(rates), len(rates) > 0, "give one or more")
    require("fault seeds", tuple(seeds), len(seeds) > 0, "give one or more")
    for name, (images, labels) in sets.items():
        if len(images) == 0 or labels.shape != images.shape[:1]:
            raise DataError(
                f"set '{name}': labels {tuple(labels.shape)} for {len(images)} images; give one label per image"
            )
    progress = progress or Silent()
    progress.begin(f"faults: {kind}", len(rates) * len(seeds) * sum(len(labels) for _, labels in sets.values()))
    found: dict[str, list[list[float]]] = {name: [] for name in sets}
    for rate in rates:
        for of_rates in found.values():
            of_rates.append([])
        for seed in seeds:
            network = faulty(graph, kind, rate, seed)
            for name, (images, labels) in sets.items():
                right = (predict(network, images, batch_size) == labels).double().mean()
                found[name][-1].append(float(right))
                progress.advance(len(labels), f"rate {rate:g}, {name} {100 * right:.1f} %")
    return FaultCurve(
        kind=kind,
        rates=tuple(rates),
        seeds=tuple(seeds),
        accuracy={name: tuple(tuple(of_seeds) for of_seeds in of_rates) for name, of_rates in found.items()},
        images={name: len(labels) for name, (_, labels) in sets.items()},
    )
