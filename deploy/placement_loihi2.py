"""Loihi 2 as Lava's compiler fills it, inferred from the tables it printed for PilotNet (lava-dl 0.6, pilotnet_snn and
pilotnet_sdnn, benchmark.ipynb; the compiler is closed).

- A convolution's kernel lies whole on each core: taps * input channels rows of weights, one per output channel, each row rounded
  up to 64 bits. All five kernels of both tables follow.
- A dense layer's row has 8 bits of index for each weight and 10 bits of its own. The tables' 26, 13, 5, 3 and 1 words per row of
  100, 50, 17, 10 and 1 weights follow; a row of 15 words for 50 weights in one of them does not.
- A convolution is cut along its width into slabs of a power of two, with all rows and channels, and a slab that ends beyond the
  layer counts as a whole one: every slab of both tables follows, also the two of 16 for a width of 20.
- Where not even one column fits, it is cut along the rows too, and before that, where the kernel alone is too large, through its
  output channels, which those tables do not show.
- A dense layer is cut into as many parts as it exceeds the memory, then into twice as many until it fits.
"""

import math
from collections.abc import Iterator
from itertools import product

from hardspike.deploy.placement_demand import Box, Cut, even, groups_of, part_counts, slabs, whole
from hardspike.deploy.process_graph import ConvSynapse, GraphLayer, Synapse
from hardspike.hw_profiles.profile import Cores
from hardspike.snn.architecture import Shape

WORD = 64
INDEX_BITS, ROW_HEADER = 8, 10


def synapse_words(synapse: Synapse, source: Shape, box: Box, weight_bits: int) -> int:
    """Of a core with these target neurons."""
    if not isinstance(synapse, ConvSynapse):
        targets = box[0][1] - box[0][0]
        return math.prod(source) * -(-(targets * (weight_bits + INDEX_BITS) + ROW_HEADER) // WORD)
    size = synapse.weight.shape[0] // synapse.groups
    rows = math.prod(synapse.weight.shape[1:])
    return sum(
        rows * -(-(min(box[0][1], (group + 1) * size) - max(box[0][0], group * size)) * weight_bits // WORD)
        for group in range(*groups_of(synapse, box[0]))
    )


def lava_cuts(layer: GraphLayer, words: int, cores: Cores) -> Iterator[Cut]:
    """Cuts in the order in which they are tried. words: of the whole layer on one core."""
    limit = cores.synapse_words or words
    if len(layer.shape) == 1:
        (size,) = layer.shape
        parts = 1
        yield whole(layer.shape)
        while parts < size:
            parts = min(-(-words // limit), size) if parts == 1 and words > limit else min(2 * parts, size)
            yield (even(size, parts),)
        return
    channels, height, width = layer.shape
    spatial = [
        (slabs(height, height), slabs(width, length))
        for length in _powers_of_two(width)
        # A slab has the addresses of its whole length, also where the layer ends in it.
        if length * height * channels <= cores.neurons_per_core or length == 1
    ]
    spatial += [(slabs(height, length), slabs(width, 1)) for length in _powers_of_two(height) if length < height]
    for parts, rest in product(part_counts(channels), spatial):
        yield (even(channels, parts), *rest)


def _powers_of_two(side: int) -> list[int]:
    """From the smallest that is at least `side` down to 1."""
    top = max(side - 1, 0).bit_length()
    return [1 << power for power in range(top, -1, -1)]
