"""Loihi 1 as nengo-loihi fills it (block.py, conv.py, builder/split_blocks.py): rows of 64-bit words, lists shared by axons.

An axon's weights lie in blocks of up to 64, each with 10 bits of its own and rounded up to 64 bits. Dense rows need no index.
A convolution's list serves every pixel that meets the same taps; its index tells the compartment from a base, and a base is
below 256, so that a core with more positions than that keeps lists more than once.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product

from hardspike.deploy.placement_demand import Box, Cut, Range, axis_taps, even, groups_of, part_counts
from hardspike.deploy.process_graph import ConvSynapse, GraphLayer, Synapse
from hardspike.snn.architecture import Shape

WORD = 64
BLOCK = 64
BLOCK_HEADER = 10  # 4 bits for the format, 6 for the number of synapses
INDEX_BITS = (0, 6, 7, 8, 9, 10, 11, 12)
BASES = 256
# A message of 16 bits tells this many channels and pixels apart; longer ones take two slots of the sender's table.
SHORT_CHANNELS, SHORT_PIXELS = 32, 1024


def list_words(weights: int, bits_each: int) -> int:
    """Words of one axon's list (`SynapseConfig.bits_per_axon`)."""
    full, rest = divmod(weights, BLOCK)
    words = full * -(-(BLOCK * bits_each + BLOCK_HEADER) // WORD)
    return words + (-(-(rest * bits_each + BLOCK_HEADER) // WORD) if rest else 0)


def synapse_words(synapse: Synapse, source: Shape, box: Box, weight_bits: int) -> int:
    """Of a core with these target neurons."""
    if not isinstance(synapse, ConvSynapse):
        return math.prod(source) * list_words(box[0][1] - box[0][0], weight_bits)
    rows, columns = (_patterns(synapse, source, axis, box[axis]) for axis in (1, 2))
    size = synapse.weight.shape[0] // synapse.groups
    words = 0
    for group in range(*groups_of(synapse, box[0])):
        filters = min(box[0][1], (group + 1) * size) - max(box[0][0], group * size)
        words += _list_words_of_patterns(
            rows, columns, (box[1][1] - box[1][0], box[2][1] - box[2][0]), filters, synapse.weight.shape[1], weight_bits
        )
    return words


def _patterns(synapse: ConvSynapse, source: Shape, axis: int, span: Range) -> tuple[tuple[int, tuple[bool, ...]], ...]:
    """Of each source position that reaches the span: the first target position, from the span's start, and the taps it meets."""
    found = axis_taps(synapse, source, axis, span)
    used = found >= 0
    return tuple(
        (int(targets[mask].min()) - span[0], tuple(mask.tolist()))
        for targets, mask in zip(found, used, strict=True)
        if mask.any()
    )


@lru_cache(maxsize=8192)
def _list_words_of_patterns(
    rows: tuple[tuple[int, tuple[bool, ...]], ...],
    columns: tuple[tuple[int, tuple[bool, ...]], ...],
    size: tuple[int, int],
    filters: int,
    channels: int,
    weight_bits: int,
) -> int:
    lists: set[tuple[tuple[bool, ...], tuple[bool, ...], int]] = set()
    for (row, row_taps), (column, column_taps) in product(rows, columns):
        base = row * size[1] + column
        lists.add((row_taps, column_taps, base - base % BASES))
    positions = size[0] * size[1]
    if not lists:
        return 0
    largest = max((filters - 1) * positions + (sum(r) - 1) * size[1] + sum(c) - 1 + base for r, c, base in lists)
    # A box of more neurons than the longest index tells apart does not fit anyway.
    index_bits = next((bits for bits in INDEX_BITS if bits >= largest.bit_length()), INDEX_BITS[-1])
    return sum(list_words(channels * sum(r) * sum(c) * filters, weight_bits + index_bits) for r, c, _ in lists)


def entry_slots(synapse: Synapse, source: Shape) -> int:
    """Slots of the sender's table that one outgoing entry takes."""
    if not isinstance(synapse, ConvSynapse):
        return 1
    return 1 if synapse.weight.shape[1] <= SHORT_CHANNELS and source[1] * source[2] <= SHORT_PIXELS else 2


def even_cuts(layer: GraphLayer) -> Iterator[Cut]:
    """Ways to cut a layer into even boxes, those of fewest cores first; among equals, fewer cuts through the channels."""
    counts = [part_counts(side) for side in layer.shape]
    for chosen in sorted(product(*counts), key=lambda parts: (math.prod(parts), parts)):
        yield tuple(even(side, parts) for side, parts in zip(layer.shape, chosen, strict=True))
