"""The neuron dynamics of `membrane` as one pass over memory, forward and backward, for CPU tensors (numba).

A plain loop over timesteps reads and writes every potential, spike and gradient of the layer several times per step, and its
large temporaries cost page faults. Here a chunk of neurons small enough for the cache goes through all timesteps at once; only
the input current is kept for the backward pass, which computes the potentials anew. Where an average pooling follows, the
pooled rates are written and the spikes never are. Values equal those of `membrane.MultiStep` bit for bit; gradients differ
by the order of sums only.

Memory is seen as rows of `row` neurons, whatever the layout: rows x (kernel height, width, inner), inner being the channels
of a channels-last tensor, else 1.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hardspike.snn.membrane import NeuronSettings, refuse_second_derivative
from hardspike.snn.surrogate import (
    Exponential,
    Linear,
    NormalisedExponential,
    Pointwise,
    Rectangular,
    StraightThrough,
    Surrogate,
    Triangular,
)

CHUNK = 2048  # neurons; 8 timesteps of their potentials fit the level-2 cache
Pool = tuple[int, int]

# numba has no types of its own for mypy.
_compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = njit(nogil=True, cache=True)
# Reductions are only vectorised where the order of their sums is free.
_reduction: Callable[[Callable[..., Any]], Callable[..., Any]] = njit(nogil=True, cache=True, fastmath={"reassoc"})


@_compiled
def _step(
    cur: Any, state: Any, potential: Any, spike: Any, n: int, constants: Any, soft: bool, fire_first: bool
) -> None:
    """One timestep of n neurons: potential and spike are written, state is moved on."""
    leak, threshold, fires_at, zero, one = constants[0], constants[1], constants[2], constants[3], constants[4]
    if fire_first:
        for i in range(n):
            u = state[i]
            s = one if u >= fires_at else zero
            potential[i] = u
            spike[i] = s
            state[i] = leak * u + cur[i] - threshold * s if soft else leak * (u * (one - s)) + cur[i]
    else:
        for i in range(n):
            u = leak * state[i] + cur[i]
            s = one if u >= fires_at else zero
            potential[i] = u
            spike[i] = s
            state[i] = u - threshold * s if soft else u * (one - s)


@_compiled
def _pool(spike: Any, lines: Any, out: Any, rows: int, kh: int, width: int, kw: int, inner: int, window: Any) -> None:
    """Mean over kh x kw windows of `rows` pooled rows; out has rows x (width / kw) x inner. `lines` is scratch."""
    line, groups = width * inner, rows * (width // kw)
    for r in range(rows):
        for i in range(line):
            first = r * kh * line + i
            lines[r * line + i] = spike[first] + spike[first + line] if kh > 1 else spike[first]
        for a in range(2, kh):
            for i in range(line):
                lines[r * line + i] += spike[(r * kh + a) * line + i]
    if inner == 1 and kw == 2:  # its own loop, because it vectorises
        for g in range(groups):
            out[g] = (lines[2 * g] + lines[2 * g + 1]) / window
        return
    for g in range(groups):
        base, base_in = g * inner, g * kw * inner
        for i in range(inner):
            out[base + i] = lines[base_in + i] + lines[base_in + inner + i] if kw > 1 else lines[base_in + i]
        for b in range(2, kw):
            for i in range(inner):
                out[base + i] += lines[base_in + b * inner + i]
    for i in range(groups * inner):
        out[i] /= window


@_compiled
def _unpool(grad: Any, lines: Any, out: Any, rows: int, kh: int, width: int, kw: int, inner: int, window: Any) -> None:
    """The gradient of `_pool`."""
    line, groups = width * inner, rows * (width // kw)
    if inner == 1 and kw == 2:
        for g in range(groups):
            each = grad[g] / window
            lines[2 * g] = each
            lines[2 * g + 1] = each
    else:
        for g in range(groups):
            for b in range(kw):
                for i in range(inner):
                    lines[(g * kw + b) * inner + i] = grad[g * inner + i] / window
    for r in range(rows):
        for a in range(kh):
            for i in range(line):
                out[(r * kh + a) * line + i] = lines[r * line + i]


@_compiled
def _forward(
    current: Any, out: Any, constants: Any, flags: Any, layout: Any, first_row: int, last_row: int, steps: int
) -> None:
    """Rows first_row..last_row - 1 of current [1 or T, rows * row] into out [T, rows * pooled row]."""
    soft, fire_first, static = flags[0] == 1, flags[1] == 1, flags[2] == 1
    kh, width, kw, inner = layout[0], layout[1], layout[2], layout[3]
    row, pooled = kh * width * inner, (width // kw) * inner
    chunk_rows = max(1, CHUNK // row)
    pooling = kh * kw > 1
    size = chunk_rows * row
    state, potential = np.empty(size, current.dtype), np.empty(size, current.dtype)
    spike, lines = np.empty(size, current.dtype), np.empty(size, current.dtype)
    for start in range(first_row, last_row, chunk_rows):
        rows = min(chunk_rows, last_row - start)
        n = rows * row
        state[:n] = constants[5]
        for t in range(steps):
            cur = current[0 if static else t, start * row : start * row + n]
            target = out[t, start * pooled : (start + rows) * pooled]
            if pooling:
                _step(cur, state, potential, spike, n, constants, soft, fire_first)
                _pool(spike, lines, target, rows, kh, width, kw, inner, constants[6])
            else:
                _step(cur, state, potential, target, n, constants, soft, fire_first)


@_compiled
def _slope(kind: int, shape: Any, potential: Any, out: Any, n: int, threshold: Any, zero: Any) -> None:
    """Surrogate derivative of the spike; `kind` and `shape`: see `_coded`."""
    scale, gain, a = shape[0], shape[1], shape[2]
    if kind == 0:
        for i in range(n):
            height = a - abs((potential[i] - threshold) * scale)
            out[i] = gain * (height if height > zero else zero)
    elif kind == 1:
        for i in range(n):
            out[i] = gain * np.exp(-a * abs((potential[i] - threshold) * scale))
    else:
        for i in range(n):
            out[i] = gain if abs((potential[i] - threshold) * scale) < a else zero


@_reduction
def _dot(a: Any, b: Any, n: int) -> Any:
    total = a[0] * b[0]
    for i in range(1, n):
        total += a[i] * b[i]
    return total


@_compiled
def _backward(
    grad_out: Any,
    current: Any,
    grad_current: Any,
    sums: Any,
    constants: Any,
    flags: Any,
    layout: Any,
    kind: int,
    shape: Any,
    first_row: int,
    last_row: int,
    steps: int,
) -> None:
    """Writes grad_current [1 or T, rows * row]; adds to sums (float64) d threshold, d leak and d potential before step 0."""
    soft, fire_first, static = flags[0] == 1, flags[1] == 1, flags[2] == 1
    detach, normalised, need_threshold, need_leak = flags[3] == 1, flags[4] == 1, flags[5] == 1, flags[6] == 1
    kh, width, kw, inner = layout[0], layout[1], layout[2], layout[3]
    row, pooled = kh * width * inner, (width // kw) * inner
    chunk_rows = max(1, CHUNK // row)
    pooling = kh * kw > 1
    leak, threshold, fires_at, zero, one = constants[0], constants[1], constants[2], constants[3], constants[4]
    # d reset / d spike is -(by_constant + by_potential u), d reset / d u is 1 - emptied s.
    by_constant = threshold if soft and not detach else zero
    by_potential = zero if soft or detach else (leak if fire_first else one)
    emptied = zero if soft else one
    size = chunk_rows * row
    potentials = np.empty((steps, size), current.dtype)
    spike, state, lines = np.empty(size, current.dtype), np.empty(size, current.dtype), np.empty(size, current.dtype)
    grad_state, grad_spike = np.empty(size, current.dtype), np.empty(size, current.dtype)
    through, ones = np.empty(size, current.dtype), np.ones(size, current.dtype)
    for start in range(first_row, last_row, chunk_rows):
        rows = min(chunk_rows, last_row - start)
        n = rows * row
        state[:n] = constants[5]
        for t in range(steps):
            cur = current[0 if static else t, start * row : start * row + n]
            _step(cur, state, potentials[t], spike, n, constants, soft, fire_first)
        grad_state[:n] = zero
        if static:
            grad_current[0, start * row : start * row + n] = zero
        for t in range(steps - 1, -1, -1):
            u = potentials[t]
            given = grad_out[t, start * pooled : (start + rows) * pooled]
            if pooling:
                _unpool(given, lines, grad_spike, rows, kh, width, kw, inner, constants[6])
                given = grad_spike
            into = grad_current[0 if static else t, start * row : start * row + n]
            _slope(kind, shape, u, through, n, threshold, zero)
            for i in range(n):
                spike[i] = one if u[i] >= fires_at else zero
                through[i] *= given[i] - grad_state[i] * (by_constant + by_potential * u[i])
            if need_threshold:
                sums[0] -= _dot(through, u, n) / threshold if normalised else _dot(through, ones, n)
                if soft:
                    sums[0] -= _dot(grad_state, spike, n)
            if fire_first:
                if need_leak:
                    for i in range(n):
                        lines[i] = u[i] * (one - emptied * spike[i])
                    sums[1] += _dot(grad_state, lines, n)
                for i in range(n):
                    into[i] = grad_state[i] + (into[i] if static else zero)
                for i in range(n):
                    grad_state[i] = through[i] + grad_state[i] * leak * (one - emptied * spike[i])
            else:
                for i in range(n):
                    through[i] += grad_state[i] * (one - emptied * spike[i])
                for i in range(n):
                    into[i] = through[i] + (into[i] if static else zero)
                    grad_state[i] = through[i] * leak
                if need_leak:
                    for i in range(n):
                        before = potentials[t - 1 if t else 0, i]
                        fired = one if before >= fires_at else zero
                        left = before - threshold * fired if soft else before * (one - fired)
                        lines[i] = left if t else constants[5]
                    sums[1] += _dot(through, lines, n)
        sums[2] += _dot(grad_state, ones, n)


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
        surrogate: Pointwise,
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
        _in_parts(layout.rows, lambda a, b, _: _forward(source, target, constants, flags, numbers, a, b, steps))
        ctx.save_for_backward(current_TB)
        ctx.kernel = (constants, flags, numbers, layout, steps, settings, surrogate)
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (current_TB,) = ctx.saved_tensors
        constants, flags, numbers, layout, steps, settings, surrogate = ctx.kernel
        more = [settings.detach_reset, surrogate.normalised, *ctx.needs_input_grad[1:3]]
        flags = np.concatenate([flags, np.array(more, np.int64)])
        grad_current = _empty(current_TB.shape, current_TB.dtype, layout)
        kind, slope = _coded(surrogate, float(constants[1]))
        shape = np.array(slope, constants.dtype)
        arrays = _flat(grad_outputs[0], layout), _flat(current_TB, layout), _flat(grad_current, layout)
        sums = np.zeros((torch.get_num_threads(), 3))
        _in_parts(
            layout.rows,
            lambda first, last, part: _backward(
                *arrays, sums[part], constants, flags, numbers, kind, shape, first, last, steps
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


def fusable(current_TB: Tensor, surrogate: Surrogate, pool: Pool) -> _Layout | None:
    """The memory layout the fused kernel would use, or None where `membrane.MultiStep` has to do the work."""
    if not isinstance(surrogate, Pointwise) or current_TB.device.type != "cpu":
        return None
    if current_TB.dtype not in (torch.float32, torch.float64) or not current_TB.numel():
        return None
    return _layout(current_TB, pool)
