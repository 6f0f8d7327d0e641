"""Synapses of a `ProcessGraph` as Lava processes: `Dense`, `Conv`, or `Sparse` where that is faster.

Lava's `Conv` calls scipy once per pair of channels. A `Sparse` matrix of the same synapses gives the same integers 5 to 40
times faster (0.6 instead of 17 ms for 16 to 16 channels, 3 x 3, on 16 x 16; 12 instead of 177 ms for 64 to 64; 2 cores), but
holds each use of a weight by itself: 16 bytes, and 36 while it is built. So convolutions become `Sparse`, smallest first, as
long as a network's matrices together hold at most SPARSE_NONZEROS weights, and the rest stay `Conv`.

All of them take messages as numbers (num_message_bits 1 for spikes): a product with a sparse matrix is 5 to 20 times faster
than choosing its columns, which is what Lava does with 0 bits, and a spike is the number 1.
"""

import math
from typing import Any

import numpy as np

from hardspike.deploy.lava_limits import INT8_MAX
from hardspike.deploy.process_graph import ConvSynapse, IntArray, ProcessGraph, Synapse
from hardspike.snn.architecture import INPUT, Shape

SPARSE_NONZEROS = 1 << 25  # half a GB


def sparse_synapses(graph: ProcessGraph, nonzeros: int) -> set[tuple[str, int]]:
    """(layer, index of the synapse) of the convolutions that become `Sparse`: the smallest, together within `nonzeros`."""
    shapes = graph.shapes
    sizes = {
        (layer.name, index): num_nonzeros(synapse, shapes[synapse.source])
        for layer in graph.layers
        for index, synapse in enumerate(layer.synapses)
        if isinstance(synapse, ConvSynapse)
    }
    chosen, total = set(), 0
    for place in sorted(sizes, key=lambda place: sizes[place]):
        total += sizes[place]
        if total > nonzeros:
            break
        chosen.add(place)
    return chosen


def synapse_process(synapse: Synapse, source: Shape, message_bits: int, *, sparse: bool) -> Any:
    """source: (C, H, W) or (N,) of what it reads. Ports are in Lava's order (W, H, C), flat where the process is not a `Conv`."""
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import Dense
    from lava.proc.sparse.process import Sparse

    # Eight bits: of mixed weights Lava then only clears the lowest bit, which the graph keeps clear.
    matrix = {"num_weight_bits": 8, "weight_exp": synapse.exponent, "num_message_bits": message_bits}
    if not isinstance(synapse, ConvSynapse):
        return Dense(weights=synapse.weight >> synapse.exponent, **matrix)
    if sparse:
        return Sparse(weights=sparse_weights(synapse, source), **matrix)
    groups, weight = lava_groups(synapse)
    return Conv(  # it ignores exponents, and adds whatever weights it is given
        weight=weight[..., ::-1, ::-1].transpose(0, 3, 2, 1),  # a true convolution, over (W, H)
        input_shape=source[::-1],
        stride=synapse.stride[::-1],
        padding=synapse.padding[::-1],
        dilation=synapse.dilation[::-1],
        groups=groups,
        num_message_bits=message_bits,
    )


def relay_process(size: int, message_bits: int) -> Any:
    """Sends each message on one step later: every synapse takes a step, and this one has the weight 1."""
    from lava.proc.sparse.process import Sparse
    from scipy.sparse import identity

    return Sparse(weights=identity(size, dtype=np.int32, format="csr"), num_message_bits=message_bits)


def message_bits(graph: ProcessGraph, source: str) -> int:
    return graph.input.message_bits if source == INPUT else 1


def lava_groups(synapse: ConvSynapse) -> tuple[int, IntArray]:
    """At most INT8_MAX groups, larger ones where there are more: with zeros between what were groups of their own."""
    outputs, inputs = len(synapse.weight) // synapse.groups, synapse.weight.shape[1]
    together = next(
        n for n in range(1, synapse.groups + 1) if synapse.groups % n == 0 and synapse.groups // n <= INT8_MAX
    )
    weight = np.zeros((len(synapse.weight), inputs * together, *synapse.weight.shape[2:]), dtype=np.int32)
    for member in range(together):
        rows = np.arange(len(weight)) // outputs % together == member
        weight[rows, member * inputs : (member + 1) * inputs] = synapse.weight[rows]
    return synapse.groups // together, weight


def num_nonzeros(synapse: ConvSynapse, source: Shape) -> int:
    """Of the matrix of a convolution."""
    total = 0
    for y, x in np.ndindex(*synapse.weight.shape[2:]):
        positions = math.prod(len(outputs) for outputs, _ in _meetings(synapse, source, (y, x)))
        total += positions * int(np.count_nonzero(synapse.weight[:, :, y, x]))
    return total


def sparse_weights(synapse: ConvSynapse, source: Shape) -> Any:
    """The convolution as a csr_matrix of int32 weight codes (weight >> exponent), outputs x inputs, both flat in (W, H, C) order."""
    from scipy.sparse import csr_matrix

    target = synapse.output_shape(source)
    outputs, inputs = len(synapse.weight) // synapse.groups, synapse.weight.shape[1]
    rows, columns, values = [], [], []
    for y, x in np.ndindex(*synapse.weight.shape[2:]):
        (to_y, from_y), (to_x, from_x) = _meetings(synapse, source, (y, x))
        codes = synapse.weight[:, :, y, x] >> synapse.exponent
        o, i = np.nonzero(codes)
        channel = o // outputs * inputs + i
        row = (to_x[:, None, None] * target[1] + to_y[:, None]) * target[0] + o
        rows.append(row.ravel())
        columns.append(((from_x[:, None, None] * source[1] + from_y[:, None]) * source[0] + channel).ravel())
        values.append(np.broadcast_to(codes[o, i], row.shape).ravel())
    entries = tuple(np.concatenate(parts).astype(np.int32) for parts in (values, rows, columns))
    return csr_matrix((entries[0], entries[1:]), shape=(math.prod(target), math.prod(source)))


def _meetings(synapse: ConvSynapse, source: Shape, place: tuple[int, ...]) -> list[tuple[IntArray, IntArray]]:
    """Per side: output positions at which a kernel's place lies on the image, and the input positions there."""
    found = []
    for axis, at in enumerate(place):
        outputs = np.arange(synapse.output_shape(source)[1 + axis], dtype=np.int32)
        inputs = outputs * synapse.stride[axis] - synapse.padding[axis] + at * synapse.dilation[axis]
        inside = (inputs >= 0) & (inputs < source[1 + axis])
        found.append((outputs[inside], inputs[inside]))
    return found
