"""Networks of the VGG kind: 3x3 convolutions with neurons, average pooling of spikes, dense layers."""

from collections.abc import Sequence

from hardspike.snn.architecture import Architecture, AveragePool, Dense, Flatten
from hardspike.snn.blueprint import Blueprint, Drawing

POOL = "A"
Plan = Sequence[int | str]


def _vgg(
    blueprint: Blueprint, plan: Plan, widths: Sequence[int], *, dense_norm: bool = False, pool_all: bool = False
) -> Architecture:
    """plan: channels of each convolution, POOL for a 2x2 average pooling. widths: of the hidden dense layers."""
    drawing = Drawing(blueprint)
    index = 0
    for position, item in enumerate(plan):
        if isinstance(item, str):
            drawing.add(f"pool{index}", AveragePool(kernel_size=(2, 2)))
            continue
        index += 1
        drawing.convolve(f"conv{index}", item)
        drawing.normalise(f"norm{index}")
        drawing.spike(f"spike{index}")
        if position + 1 < len(plan) and plan[position + 1] != POOL:
            drawing.drop(f"drop{index}", blueprint.dropout_convolution)
    if pool_all:
        drawing.pool_all("pool_all")
    drawing.add("flatten", Flatten())
    for width in widths:
        index += 1
        drawing.add(f"dense{index}", Dense(out_features=blueprint.dense_width or width, bias=blueprint.bias == "all"))
        if dense_norm:
            drawing.normalise(f"norm{index}")
        drawing.spike(f"spike{index}")
        drawing.drop(f"drop{index}", blueprint.dropout_dense)
    return drawing.classify(f"dense{index + 1}")


def vgg_digits(blueprint: Blueprint) -> Architecture:
    """For the 8x8 digits: C16 A C40 A FC512. 94,090 weights with output bias and 2,176 neurons."""
    return _vgg(blueprint, [16, POOL, 40, POOL], [512], dense_norm=True)


def vgg_mini(blueprint: Blueprint) -> Architecture:
    """For 28x28 on a CPU: C16 A C32 A FC128. 207,098 weights with one channel, ten classes, output bias; 18,944 neurons."""
    return _vgg(blueprint, [16, POOL, 32, POOL], [128], dense_norm=True)


def vgg5(blueprint: Blueprint) -> Architecture:
    """ECCV 2020: C64 A C128 C128 A FC1024 FC1024; 133,120 neurons at 32x32. (Hybrid conversion's own has FC4096.)"""
    return _vgg(blueprint, [64, POOL, 128, 128, POOL], [1024, 1024])


def vgg9(blueprint: Blueprint) -> Architecture:
    """BNTT: C64 C64 A C128 C128 A C256 C256 C256 A FC1024, batch norm on the dense layer too."""
    plan: Plan = [64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL]
    return _vgg(blueprint, plan, [1024], dense_norm=blueprint.norm == "per-step")


VGG11_PLAN: Plan = [64, POOL, 128, 256, POOL, 512, 512, 512, POOL, 512, 512]


def vgg11(blueprint: Blueprint) -> Architecture:
    """arXiv 2311.09266, SNN-RAT, HIRE-SNN: C64 A C128 C256 A C512 C512 C512 A C512 C512 FC4096 FC4096.

    286,720 neurons at 32x32; 61,365,824 weights with ten classes and no bias.
    """
    return _vgg(blueprint, VGG11_PLAN, [4096, 4096])


def vgg11_hybrid(blueprint: Blueprint) -> Architecture:
    """The network in hybrid conversion's VGG11 checkpoints: convolutions as `vgg11`, then FC1024 FC1024."""
    return _vgg(blueprint, VGG11_PLAN, [1024, 1024])


def vgg11_a(blueprint: Blueprint) -> Architecture:
    """Configuration A with average pooling (ECCV 2020, CIFAR-100): five poolings, then FC4096 FC4096 (width unconfirmed).

    151,552 neurons in the convolutions at 32x32.
    """
    plan: Plan = [64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL]
    return _vgg(blueprint, plan, [4096, 4096])


def vgg11_tiny(blueprint: Blueprint) -> Architecture:
    """TinyImageNet (arXiv 2311.09266, BNTT, SAM): four poolings, global average pooling, FC4096; 610,304 neurons at 64x64."""
    plan: Plan = [64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512]
    return _vgg(blueprint, plan, [4096], dense_norm=blueprint.norm == "per-step", pool_all=True)
