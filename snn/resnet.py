"""Residual networks. Their shortcut merge is a weighted sum, c1 * shortcut + c2 * branch, with trainable c = (1/2, 1/2) in

arXiv 2311.09266 and SNN-RAT (where c is kept on the simplex), and a plain sum in hybrid conversion.
"""

from collections.abc import Sequence

from hardspike.snn.architecture import Architecture, AveragePool, Flatten, WeightedSum
from hardspike.snn.blueprint import Blueprint, Drawing

CONVEX = WeightedSum(initial=(0.5, 0.5), trainable=True)
PLAIN = WeightedSum(initial=(1.0, 1.0))


def _post_activation(
    drawing: Drawing, name: str, channels: int, stride: int, merge: WeightedSum, *, dropout: float = 0.0
) -> None:
    """conv norm LIF conv norm, merged with the shortcut (1x1 convolution and norm where shapes differ), LIF."""
    start, inside = drawing.end, drawing.shapes[drawing.end]
    drawing.convolve(f"{name}_conv1", channels, stride=stride)
    drawing.normalise(f"{name}_norm1")
    drawing.spike(f"{name}_spike1")
    drawing.drop(f"{name}_drop1", dropout)
    drawing.convolve(f"{name}_conv2", channels)
    branch = drawing.normalise(f"{name}_norm2")
    shortcut = start
    if stride != 1 or inside[0] != channels:
        drawing.convolve(f"{name}_shortcut", channels, start, kernel=1, stride=stride)
        shortcut = drawing.normalise(f"{name}_shortcut_norm")
    drawing.add(f"{name}_sum", merge, shortcut, branch)
    drawing.spike(f"{name}_spike2")


def _resnet(blueprint: Blueprint, widths: Sequence[int], blocks: int, strides: Sequence[int]) -> Architecture:
    drawing = Drawing(blueprint)
    drawing.convolve("conv1", widths[0])
    drawing.normalise("norm1")
    drawing.spike("spike1")
    for stage, (channels, stride) in enumerate(zip(widths, strides, strict=True), start=1):
        for block in range(1, blocks + 1):
            _post_activation(drawing, f"stage{stage}_block{block}", channels, stride if block == 1 else 1, CONVEX)
    drawing.pool_all("pool_all")
    drawing.add("flatten", Flatten())
    return drawing.classify("dense")


def resnet20(blueprint: Blueprint) -> Architecture:
    """arXiv 2311.09266 (SVHN): widths 16, 32, 64, three blocks each; 188,416 neurons at 32x32."""
    return _resnet(blueprint, [16, 32, 64], 3, [1, 2, 2])


def resnet_mini(blueprint: Blueprint) -> Architecture:
    """For 28x28 on a CPU: widths 8, 16, 32, one block each; 19,816 weights with one channel, ten classes, output bias; 28,224 neurons."""
    return _resnet(blueprint, [8, 16, 32], 1, [1, 2, 2])


def resnet20_hybrid(blueprint: Blueprint) -> Architecture:
    """ECCV 2020 (CIFAR-10), as hybrid conversion has it: three 3x3 convolutions of 64, pooling, then two blocks each of 64, 128,

    256, 512 channels, merged by a plain sum. Made for `norm = "none"`; Poisson rate 0.9.
    """
    drawing = Drawing(blueprint)
    for index in (1, 2, 3):
        drawing.convolve(f"conv{index}", 64)
        drawing.normalise(f"norm{index}")
        drawing.spike(f"spike{index}")
        if index < 3:
            drawing.drop(f"drop{index}", blueprint.dropout_convolution)
    drawing.add("pool3", AveragePool(kernel_size=(2, 2)))
    for stage, channels in enumerate([64, 128, 256, 512], start=1):
        for block in (1, 2):
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            _post_activation(drawing, name, channels, stride, PLAIN, dropout=blueprint.dropout_convolution)
    drawing.add("flatten", Flatten())
    return drawing.classify("dense")


def _pre_activation(drawing: Drawing, name: str, channels: int, stride: int) -> None:
    """norm LIF conv norm LIF conv; the shortcut is the raw sum, or a 1x1 convolution of the first spikes where shapes differ."""
    start, inside = drawing.end, drawing.shapes[drawing.end]
    drawing.normalise(f"{name}_norm1")
    first = drawing.spike(f"{name}_spike1")
    drawing.convolve(f"{name}_conv1", channels, stride=stride)
    drawing.normalise(f"{name}_norm2")
    drawing.spike(f"{name}_spike2")
    branch = drawing.convolve(f"{name}_conv2", channels)
    shortcut = start
    if inside[0] != channels:
        shortcut = drawing.convolve(f"{name}_shortcut", channels, first, kernel=1, stride=stride)
    drawing.add(f"{name}_sum", CONVEX, shortcut, branch)


def wrn16_4(blueprint: Blueprint) -> Architecture:
    """arXiv 2311.09266 (CIFAR-100): C16, groups of two pre-activation blocks of 64, 128, 256 channels; 475,136 neurons at 32x32.

    Identity shortcuts carry the sum itself, an analog value, past the neurons.
    """
    drawing = Drawing(blueprint)
    drawing.convolve("conv1", 16)
    for group, channels in enumerate([64, 128, 256], start=1):
        for block in (1, 2):
            stride = 2 if group > 1 and block == 1 else 1
            _pre_activation(drawing, f"group{group}_block{block}", channels, stride)
    drawing.normalise("norm_last")
    drawing.spike("spike_last")
    drawing.pool_all("pool_all")
    drawing.add("flatten", Flatten())
    return drawing.classify("dense")
