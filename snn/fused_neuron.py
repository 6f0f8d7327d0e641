"""The neuron dynamics of `membrane` as one pass over memory, forward and backward, for CPU tensors.

A plain loop over timesteps reads and writes every potential, spike and gradient of the layer several times per step, and its
large temporaries cost page faults. Here each chunk of neurons goes through all timesteps at once (`fused_kernels`); only
the input current is kept for the backward pass, which computes the potentials anew. Where an average pooling follows, the
pooled rates are written and the spikes never are. Values equal those of `membrane.MultiStep` bit for bit; gradients differ
by the order of sums only.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hardspike.snn.adaptive_surrogate import (
    KEPT,
    SMALLEST_WIDTH,
    SPREAD_FACTOR,
    AdaptiveSharpness,
    LayerSharpness,
    Shape,
    SharpnessRun,
)
from hardspike.snn.fused_kernels import backward, forward
from hardspike.snn.membrane import NeuronSettings, refuse_second_derivative
from hardspike.snn.surrogate import (
    Exponential,
    Linear,
    NormalisedExponential,
    Pointwise,
    Rectangular,
    StraightThrough,
    Triangular,
)

Pool = tuple[int, int]


@cache
def _pool_of_threads(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="neuron")


if hasattr(os, "register_at_fork"):  # threads do not live on in a forked process
    os.register_at_fork(after_in_child=_pool_of_threads.cache_clear)


def _in_parts(rows: int, work: Callable[[int, int, int], None]) -> None:
    """Call work(first row, last row, part) over as many threads as PyTorch uses."""
    parts = min(torch.get_num_threads(), rows)
    if parts <= 1:
        work(0, rows, 0)
        return
    edges = [rows * k // parts for k in range(parts + 1)]
    list(_pool_of_threads(parts).map(lambda k: work(edges[k], edges[k + 1], k), range(parts)))


@dataclass(frozen=True, slots=True)
class _Layout:
    """How memory divides into rows: `numbers` are kernel height, width, kernel width, inner."""

    rows: int
    numbers: tuple[int, int, int, int]
    memory: torch.memory_format
    out_sides: Pool | None


def _layout(current_TB: Tensor, pool: Pool) -> _Layout | None:
    """None where memory is not dense, or the windows do not tile the image."""
    merged = current_TB.flatten(0, 1)
    memory, channels = torch.contiguous_format, 1
    if not merged.is_contiguous():
        if merged.ndim != 4 or not merged.is_contiguous(memory_format=torch.channels_last):
            return None
        memory, channels = torch.channels_last, merged.shape[1]
    if pool == (1, 1):
        return _Layout(current_TB[0].numel(), (1, 1, 1, 1), memory, None)
    height, width = merged.shape[2:]
    if height % pool[0] or width % pool[1]:
        return None
    numbers = (pool[0], width, pool[1], channels)
    rows = current_TB[0].numel() // (pool[0] * width * channels)
    return _Layout(rows, numbers, memory, (height // pool[0], width // pool[1]))


Fusable = Pointwise | AdaptiveSharpness | LayerSharpness
# Kind, gain and a of the adaptive slopes; x = alpha (u - threshold), alpha = w / (M + factor D + smallest width).
_ADAPTIVE: dict[Shape, tuple[int, float, float]] = {
    "atan": (3, 1 / 2, math.pi**2 / 4),  # gain alpha / (1 + a x^2)
    "triangular": (4, 1.0, 0.0),  # gain alpha max(0, 1 - |x|)
    "rectangular": (5, 1 / 2, 0.0),  # gain alpha where |x| < 1
    "gaussian": (6, 1 / math.sqrt(2 * math.pi), -1 / 2),  # gain alpha exp(a x^2)
    "sigmoid": (7, 1.0, 0.0),  # gain alpha e / (1 + e)^2, e = exp(-|x|)
}


def _coded_adaptive(run: SharpnessRun) -> tuple[int, tuple[float, ...]]:
    """Kind, and (w, how far the moments move, factor of D, smallest width, gain, a)."""
    kind, gain, a = _ADAPTIVE[run.sharpness.shape]
    return kind, (run.sharpness.mass_width, 1 - KEPT if run.updates else 0.0, SPREAD_FACTOR, SMALLEST_WIDTH, gain, a)


def _coded(surrogate: Pointwise, threshold: float) -> tuple[int, tuple[float, float, float]]:
    """Kind 0: gain max(0, a - |x|), 1: gain exp(-a |x|), 2: gain where |x| < a, with x = scale (u - threshold).

    Returns the kind and (scale, gain, a); the factor 1 / threshold of the normalised ones is in the gain.
    """
    match surrogate:
        case Triangular(width):
            return 0, (1.0, 1 / (width * width), width)
        case Linear(dampening):
            return 0, (1 / threshold, dampening / threshold, 1.0)
        case Exponential(dampening, sharpness):
            return 1, (1.0, dampening, sharpness)
        case NormalisedExponential(dampening, sharpness):
            return 1, (1 / threshold, dampening / threshold, sharpness)
        case Rectangular(width):
            return 2, (1.0, 1 / width, width / 2)
        case StraightThrough():
            return 2, (1.0, 1.0, float("inf"))


def _flat(tensor_TB: Tensor, layout: _Layout) -> Any:
    """[T, everything else in the layout's memory order]; a view where memory has that order, else a copy."""
    tensor_TB = tensor_TB.detach()
    if layout.memory == torch.channels_last:
        tensor_TB = tensor_TB.permute(0, 1, 3, 4, 2)
    return tensor_TB.reshape(len(tensor_TB), -1).numpy()


def _empty(shape_TB: tuple[int, ...], dtype: torch.dtype, layout: _Layout) -> Tensor:
    merged = (shape_TB[0] * shape_TB[1], *shape_TB[2:])
    empty_TB: Tensor = torch.empty(merged, dtype=dtype, memory_format=layout.memory).unflatten(0, shape_TB[:2])
    return empty_TB


class FusedMultiStep(torch.autograd.Function):
    """`membrane.MultiStep`, then average pooling by `pool`; returns [T, B, ...]."""

    @staticmethod
    def forward(
        ctx: Any,
        current_TB: Tensor,
        threshold: Tensor,
        leak: Tensor,
        steps: int,
        settings: NeuronSettings,
        surrogate: Fusable,
        pool: Pool,
        layout: _Layout,
    ) -> Tensor:
        dtype = np.dtype(str(current_TB.dtype).removeprefix("torch."))
        v_th = dtype.type(float(threshold))
        initial = dtype.type(settings.initial_potential) * v_th
        # u > threshold is u >= the next number above it.
        fires_at = np.nextafter(v_th, dtype.type(np.inf)) if settings.strict else v_th
        constants = np.array([float(leak), v_th, fires_at, 0, 1, initial, pool[0] * pool[1]], dtype)
        static = len(current_TB) < steps
        flags = np.array([settings.reset == "soft", settings.order == "fire-first", static], np.int64)
        shape = (steps, *current_TB.shape[1:])
        if layout.out_sides is not None:
            shape = (*shape[:3], *layout.out_sides)
        out = _empty(shape, current_TB.dtype, layout)
        source, target = _flat(current_TB, layout), _flat(out, layout)
        numbers = np.array(layout.numbers, np.int64)
        _in_parts(layout.rows, lambda a, b, _: forward(source, target, constants, flags, numbers, a, b, steps))
        ctx.save_for_backward(current_TB)
        ctx.kernel = (constants, flags, numbers, layout, steps, settings, surrogate)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (current_TB,) = ctx.saved_tensors
        constants, flags, numbers, layout, steps, settings, surrogate = ctx.kernel
        grad_current = _empty(current_TB.shape, current_TB.dtype, layout)
        mean = spread = np.empty((0, 0), constants.dtype)
        slope: tuple[float, ...]
        if isinstance(surrogate, AdaptiveSharpness | LayerSharpness):
            adaptive = surrogate if isinstance(surrogate, LayerSharpness) else surrogate.begin().of(None)
            mean, spread = (_flat(kept_TB, layout) for kept_TB in adaptive.moments(steps, current_TB[0], layout.memory))
            normalised = False
            kind, slope = _coded_adaptive(adaptive.run)
        else:
            normalised = surrogate.normalised
            kind, slope = _coded(surrogate, float(constants[1]))
        more = [settings.detach_reset, normalised, *ctx.needs_input_grad[1:3]]
        flags = np.concatenate([flags, np.array(more, np.int64)])
        shape = np.array(slope, constants.dtype)
        arrays = _flat(grad_outputs[0], layout), _flat(current_TB, layout), _flat(grad_current, layout)
        sums = np.zeros((torch.get_num_threads(), 3))
        _in_parts(
            layout.rows,
            lambda first, last, part: backward(
                *arrays, sums[part], constants, flags, numbers, kind, shape, mean, spread, first, last, steps
            ),
        )
        total = sums.sum(0)
        threshold_grad = total[0] + settings.initial_potential * total[2]
        to_scalar = current_TB.new_tensor
        return (
            grad_current,
            to_scalar(threshold_grad) if ctx.needs_input_grad[1] else None,
            to_scalar(total[1]) if ctx.needs_input_grad[2] else None,
            *[None] * 5,
        )


def fusable(current_TB: Tensor, pool: Pool) -> _Layout | None:
    """The memory layout the fused kernel would use, or None where `membrane.MultiStep` has to do the work."""
    if (
        current_TB.device.type != "cpu"
        or current_TB.dtype not in (torch.float32, torch.float64)
        or not current_TB.numel()
    ):
        return None
    return _layout(current_TB, pool)
