"""What each core of a placement must hold, from lists of connections written out one by one."""

from collections import defaultdict
from dataclasses import replace
from itertools import product
from math import prod

import numpy as np

from hardspike.deploy.block_kernels import split_block_kernel
from hardspike.deploy.placement import LayerPlacement, Placement
from hardspike.deploy.process_graph import ConvSynapse, DenseSynapse, ProcessGraph, Synapse
from hardspike.hw_profiles.profile import Profile
from hardspike.snn.architecture import INPUT, Shape

Position = tuple[int, ...]
Entries = dict[Position, list[tuple[Position, Position]]]


def _connections(synapse: Synapse, source: Shape, target: Shape) -> Entries:
    """Each target neuron's (source neuron, place in the weight), one by one."""
    found: Entries = defaultdict(list)
    if isinstance(synapse, DenseSynapse):
        senders = list(np.ndindex(*source))
        for unit in range(target[0]):
            found[(unit,)] = [(sender, (unit, number)) for number, sender in enumerate(senders)]
        return found
    out, inputs, height, width = synapse.weight.shape
    for o, r, c in np.ndindex(*target):
        for i, ky, kx in product(range(inputs), range(height), range(width)):
            y = r * synapse.stride[0] - synapse.padding[0] + ky * synapse.dilation[0]
            x = c * synapse.stride[1] - synapse.padding[1] + kx * synapse.dilation[1]
            if 0 <= y < source[1] and 0 <= x < source[2]:
                channel = o // (out // synapse.groups) * inputs + i
                found[(o, r, c)].append(((channel, y, x), (o, i, ky, kx)))
    return found


def _shares(synapse: Synapse, source: Shape, packing: str | None) -> tuple[Synapse, Shape, dict[Position, Position]]:
    """The synapse as stored, the shape of what its senders share, and what each sender shares: on Loihi 1 only, equal weights."""
    alone = {sender: sender for sender in np.ndindex(*source)}
    if packing != "loihi1":
        return synapse, source, alone
    if isinstance(synapse, DenseSynapse):
        columns: dict[bytes, int] = {}
        number = {
            sender: (columns.setdefault(synapse.weight[:, index].tobytes(), len(columns)),)
            for index, sender in enumerate(np.ndindex(*source))
        }
        small = np.stack([np.frombuffer(column, np.int32) for column in columns], 1)
        return replace(synapse, weight=small), (len(columns),), number
    (rows, across), small, stride, padding = split_block_kernel(synapse, source)
    pooled = (source[0], source[1] // rows, source[2] // across)
    within = {(c, y, x): (c, y // rows, x // across) for c, y, x in alone}
    return replace(synapse, weight=small, stride=stride, padding=padding), pooled, within


def _owner(layer: LayerPlacement) -> dict[tuple[int, ...], int]:
    """Core of each neuron; every neuron has exactly one."""
    owner: dict[tuple[int, ...], int] = {}
    for index, core in enumerate(layer.cores):
        for neuron in product(*(range(*span) for span in core.box)):
            assert neuron not in owner
            owner[neuron] = index
    assert len(owner) == prod(layer.shape)
    return owner


def _words_loihi1(synapse: Synapse, entries: Entries, layer: LayerPlacement, index: int, bits: int) -> int:
    """Lists of a core, written out: one per axon of a dense layer, one per pattern of taps of a convolution."""

    def in_words(weights: int, each: int) -> int:
        return sum(-(-(min(64, weights - start) * each + 10) // 64) for start in range(0, weights, 64))

    box = layer.cores[index].box
    axons: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    rows, columns = (box[1][1] - box[1][0], box[2][1] - box[2][0]) if len(box) == 3 else (1, 1)
    for neuron in product(*(range(*span) for span in box)):
        for sender, place_in_weight in entries[neuron]:
            if isinstance(synapse, DenseSynapse):
                axons[sender].append((0, place_in_weight))
                continue
            group = sender[0] // synapse.weight.shape[1]
            compartment = (
                (neuron[0] - box[0][0]) * rows * columns + (neuron[1] - box[1][0]) * columns + neuron[2] - box[2][0]
            )
            axons[(group, *sender[1:])].append((compartment, place_in_weight))
    if isinstance(synapse, DenseSynapse):
        return sum(in_words(len(found), bits) for found in axons.values())
    lists: dict[tuple[object, ...], int] = {}
    largest: dict[int, int] = defaultdict(int)
    size = synapse.weight.shape[0] // synapse.groups
    for (group, *_), found in axons.items():
        first = max(box[0][0], group * size) - box[0][0]
        inside = [(compartment - first * rows * columns, weight) for compartment, weight in found]
        base = min(compartment for compartment, _ in inside)
        taps = frozenset(weight[2:] for _, weight in inside)
        lists[(group, taps, base - base % 256)] = len(found)
        largest[group] = max(largest[group], *(compartment - base % 256 for compartment, _ in inside))
    total = 0
    for key, count in lists.items():
        group = key[0]
        assert isinstance(group, int)
        index_bits = min(b for b in (0, 6, 7, 8, 9, 10, 11, 12) if (1 << b) > largest[group])
        total += in_words(count, bits + index_bits)
    return total


def check_placement(graph: ProcessGraph, profile: Profile, made: Placement) -> None:
    """Assert every number of `made`, and that no limit is exceeded."""
    cores = profile.cores
    assert cores is not None
    limits = dict(
        neurons=cores.neurons_per_core,
        synapse_words=cores.synapse_words,
        axons_in=cores.axons_in,
        axons_out=cores.axons_out,
    )
    shapes, placed = graph.shapes, {layer.name: layer for layer in made.layers}
    owners = {name: _owner(layer) for name, layer in placed.items()}
    axons_in: dict[tuple[str, int], int] = defaultdict(int)
    axons_out: dict[tuple[str, int], int] = defaultdict(int)
    words: dict[tuple[str, int], int] = defaultdict(int)
    for layer in graph.layers:
        for synapse in layer.synapses:
            stored, pooled, share = _shares(synapse, shapes[synapse.source], cores.packing)
            entries = _connections(stored, pooled, layer.shape)
            sharing: dict[Position, set[int]] = defaultdict(set)
            for sender, shared in share.items():
                if synapse.source != INPUT:
                    sharing[shared].add(owners[synapse.source][sender])
            taken: dict[int, set[tuple[int, ...]]] = defaultdict(set)
            sent: dict[tuple[int, int], set[tuple[int, ...]]] = defaultdict(set)
            for neuron, found in entries.items():
                core = owners[layer.name][neuron]
                for sender, _ in found:
                    axon = sender
                    if isinstance(synapse, ConvSynapse):
                        axon = (sender[0] // synapse.weight.shape[1], *sender[1:])
                    taken[core].add(axon)
                    for sender_core in sharing[sender]:
                        sent[sender_core, core].add(axon)
            for core, axons in taken.items():
                axons_in[layer.name, core] += len(axons)
            for (sender_core, _), axons in sent.items():
                axons_out[synapse.source, sender_core] += len(axons)
            if cores.packing == "loihi1":
                for core in range(len(placed[layer.name].cores)):
                    words[layer.name, core] += _words_loihi1(
                        stored, entries, placed[layer.name], core, placed[layer.name].weight_bits
                    )
    for number, core in enumerate(made.cores):
        index = number - placed[core.layer].cores[0].number
        assert core.number == number
        assert (
            core.chip == number // cores.cores_per_chip
            and core.tile == number % cores.cores_per_chip // cores.cores_per_tile
        )
        if cores.tiles_high is not None:
            assert core.tile == core.column * cores.tiles_high + core.row and 0 <= core.row < cores.tiles_high
        assert core.demand.neurons == sum(1 for owner in owners[core.layer].values() if owner == index)
        assert core.demand.axons_in == axons_in[core.layer, index]
        assert core.demand.axons_out == axons_out[core.layer, index]
        if cores.packing == "loihi1":
            assert core.demand.synapse_words == words[core.layer, index]
        for name, limit in limits.items():
            assert limit is None or getattr(core.demand, name) <= limit
    assert made.chips <= cores.chips_max
