"""Kernels made of equal blocks, as folding an average pool into a convolution leaves them, split back for speed.

A kernel whose k x k blocks are constant, with stride and padding multiples of k, is a k x k block sum followed by a kernel
k times smaller: the same integers with k^2 times fewer multiplications.
"""

import numpy as np

from hardspike.deploy.process_graph import ConvSynapse, IntArray
from hardspike.snn.architecture import Shape

Pair = tuple[int, int]


def expand_block_kernel(weight: IntArray, block: Pair) -> IntArray:
    """Each weight repeated over a block: shape (O, I, kH * block, kW * block)."""
    return np.repeat(np.repeat(weight, block[0], axis=2), block[1], axis=3)


def split_block_kernel(synapse: ConvSynapse, source: Shape) -> tuple[Pair, IntArray, Pair, Pair]:
    """Largest block, and the kernel, stride and padding that follow the block sum; block (1, 1) where there is none.

    With dilation the blocks do not touch, so none is looked for. With padding the image must be whole blocks: a last,
    partly filled block would be dropped by the block sum, but not by the kernel that reaches into the padding.
    """
    whole = ((1, 1), synapse.weight, synapse.stride, synapse.padding)
    if synapse.dilation != (1, 1):
        return whole
    height, width = synapse.weight.shape[2:]
    stride, padding = synapse.stride, synapse.padding
    for rows in range(height, 0, -1):
        for columns in range(width, 0, -1):
            if (rows, columns) == (1, 1) or height % rows or width % columns:
                continue
            if not all(_fits(*axis) for axis in zip((rows, columns), stride, padding, source[1:], strict=True)):
                continue
            small = np.ascontiguousarray(synapse.weight[:, :, ::rows, ::columns])
            if np.array_equal(expand_block_kernel(small, (rows, columns)), synapse.weight):
                return (
                    (rows, columns),
                    small,
                    (stride[0] // rows, stride[1] // columns),
                    (padding[0] // rows, padding[1] // columns),
                )
    return whole


def _fits(block: int, stride: int, padding: int, side: int) -> bool:
    return stride % block == 0 and padding % block == 0 and (padding == 0 or side % block == 0)
