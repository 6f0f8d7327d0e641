"""What a core needs for a box of a layer's neurons: table entries for incoming and outgoing connections, by exact geometry.

A convolution's incoming entry is one pixel of one group of its input channels: the channels are told apart by a number in the
message (population spikes, nengo-loihi conv.py). A dense layer's is one neuron. Several senders may share one where their weights
are equal (`stored_shared`). The sender keeps one outgoing entry for each incoming one that it feeds on each core. Weights of 0 are
entries too: nothing is culled.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hardspike.deploy.block_kernels import split_block_kernel
from hardspike.deploy.process_graph import ConvSynapse, IntArray, ProcessGraph, Synapse
from hardspike.snn.architecture import Shape
from hardspike.snn.errors import DoesNotFitError

Range = tuple[int, int]
Box = tuple[Range, ...]  # of channels, rows, columns; or of units
Cut = tuple[tuple[Range, ...], ...]  # per axis; a layer's cores are the product


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Of one core. neurons: with the second compartment that a reset by subtraction takes where the chip has none of its own."""

    neurons: int
    synapse_words: int
    axons_in: int
    axons_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one core; None where none is published."""

    neurons: int
    synapse_words: int | None
    axons_in: int | None
    axons_out: int | None

    def exceeded(self, demand: Demand) -> str | None:
        """The first resource of which a core has too little."""
        for name in ("neurons", "synapse_words", "axons_in", "axons_out"):
            limit = getattr(self, name)
            if limit is not None and getattr(demand, name) > limit:
                return name
        return None

    def ratios(self, demand: Demand) -> dict[str, float]:
        """Used over limit, of each resource that has one."""
        limits = {name: getattr(self, name) for name in ("neurons", "synapse_words", "axons_in", "axons_out")}
        return {name: getattr(demand, name) / limit for name, limit in limits.items() if limit is not None}


def box_size(box: Box) -> int:
    """Neurons in a box."""
    return math.prod(stop - start for start, stop in box)


def boxes(cut: Cut) -> list[Box]:
    """Of all cores, first axis slowest."""
    return list(product(*cut))


def whole(shape: Shape) -> Cut:
    """One core."""
    return tuple(((0, side),) for side in shape)


def even(side: int, parts: int) -> tuple[Range, ...]:
    """`parts` or fewer ranges of the same length, the last one shorter."""
    return slabs(side, -(-side // parts))


def slabs(side: int, length: int) -> tuple[Range, ...]:
    return tuple((start, min(start + length, side)) for start in range(0, side, length))


def part_counts(side: int) -> list[int]:
    """Numbers of parts that give different lengths, ascending."""
    lengths = {-(-side // parts) for parts in range(1, side + 1)}
    return sorted(-(-side // length) for length in lengths)


def stored_weight_bits(weight: IntArray, allowed: tuple[int, ...], layer: str) -> int:
    """Fewest bits of the chip that hold the layer's weights after the power of two they share is taken out.

    Raises DoesNotFitError where even the most do not.
    """
    shared = np.bitwise_or.reduce(np.abs(weight.astype(np.int64)), axis=None)
    step = int(shared & -shared) or 1
    low, high = int(weight.min()) // step, int(weight.max()) // step
    needed = max((-low - 1).bit_length(), high.bit_length()) + 1 if low < 0 < high else max(-low, high).bit_length()
    for bits in sorted(allowed):
        if bits >= needed:
            return bits
    raise DoesNotFitError(
        f"layer '{layer}': weights {int(weight.min())}..{int(weight.max())} in steps of {step} need {needed} bits; "
        f"the chip stores at most {max(allowed)}; compile with fewer weight bits"
    )


@lru_cache(maxsize=4096)
def taps(side: int, kernel: int, stride: int, padding: int, dilation: int, start: int, stop: int) -> NDArray[np.int64]:
    """On one axis, which target position in [start, stop) each source position reaches through each tap, or -1; [side, kernel]."""
    position = np.arange(side)[:, None] + padding - dilation * np.arange(kernel)[None, :]
    target = position // stride
    found = np.where((position % stride == 0) & (target >= start) & (target < stop), target, -1)
    found.setflags(write=False)
    return found


def axis_taps(synapse: ConvSynapse, source: Shape, axis: int, span: Range) -> NDArray[np.int64]:
    """`taps` of axis 1 (rows) or 2 (columns)."""
    geometry = (synapse.stride[axis - 1], synapse.padding[axis - 1], synapse.dilation[axis - 1])
    return taps(source[axis], synapse.weight.shape[axis + 1], *geometry, *span)


def groups_of(synapse: ConvSynapse, channels: Range) -> Range:
    """Groups that a range of output channels belongs to."""
    size = synapse.weight.shape[0] // synapse.groups
    return channels[0] // size, -(-channels[1] // size)


def axons_in(synapse: Synapse, source: Shape, box: Box) -> int:
    """Incoming entries of a core with these target neurons."""
    if not isinstance(synapse, ConvSynapse):
        return math.prod(source)
    used = [int((axis_taps(synapse, source, axis, box[axis]) >= 0).any(1).sum()) for axis in (1, 2)]
    first, last = groups_of(synapse, box[0])
    return used[0] * used[1] * (last - first)


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A synapse as cores store it. Where senders share incoming entries, `source` is the shape of what they share.

    block: rows and columns of pixels that share one, as folded average pooling leaves them. shared: of each sender of a dense
    layer, in its layer's shape, the number of its entry; None where each has its own.
    """

    synapse: Synapse
    source: Shape
    block: tuple[int, int] = (1, 1)
    shared: NDArray[np.int64] | None = None


def stored_apart(synapse: Synapse, source: Shape) -> Stored:
    """Every sender has entries of its own."""
    return Stored(synapse, source)


def stored_shared(synapse: Synapse, source: Shape) -> Stored:
    """Senders whose weights are the same everywhere send to the same entry: folded pooling costs nothing."""
    if isinstance(synapse, ConvSynapse):
        block, weight, stride, padding = split_block_kernel(synapse, source)
        small = replace(synapse, weight=weight, stride=stride, padding=padding)
        return Stored(small, (source[0], source[1] // block[0], source[2] // block[1]), block)
    columns = np.ascontiguousarray(synapse.weight.T)
    _, number = np.unique(
        columns.view(np.dtype((np.void, columns.dtype.itemsize * columns.shape[1]))), return_inverse=True
    )
    return Stored(synapse, (int(number.max()) + 1,), (1, 1), number.reshape(source))


class Outgoing:
    """Outgoing entries that a layer's neurons need for one of their readers, whose cut is known."""

    def __init__(self, stored: Stored, cut: Cut, entry_slots: int) -> None:
        """entry_slots: table slots of one entry to a convolution."""
        synapse, source = stored.synapse, stored.source
        self._stored = stored
        if not isinstance(synapse, ConvSynapse):
            self._cores = math.prod(len(ranges) for ranges in cut)
            return
        self._slots = entry_slots
        # How many ranges of the reader each position of the axis, and each group, feeds.
        self._spatial = [
            np.sum([(axis_taps(synapse, source, axis, span) >= 0).any(1) for span in cut[axis]], axis=0, dtype=np.int64)
            for axis in (1, 2)
        ]
        self._groups = np.zeros(synapse.groups, np.int64)
        for channels in cut[0]:
            first, last = groups_of(synapse, channels)
            self._groups[first:last] += 1
        self._group_size = source[0] // synapse.groups

    def entries(self, box: Box) -> int:
        """Of one core of the sender."""
        if not isinstance(self._stored.synapse, ConvSynapse):
            shared = self._stored.shared
            senders = box_size(box) if shared is None else len(np.unique(shared[tuple(slice(*span) for span in box)]))
            return self._cores * senders
        counts = [
            int(feeds[start // side : -(-stop // side)].sum())
            for feeds, (start, stop), side in zip(self._spatial, box[1:], self._stored.block, strict=True)
        ]
        first, last = box[0][0] // self._group_size, -(-box[0][1] // self._group_size)
        return self._slots * counts[0] * counts[1] * int(self._groups[first:last].sum())


def readers(graph: ProcessGraph, name: str) -> Iterator[tuple[str, Synapse]]:
    """Layers that read a layer, with each synapse that does."""
    for layer in graph.layers:
        for synapse in layer.synapses:
            if synapse.source == name:
                yield layer.name, synapse
