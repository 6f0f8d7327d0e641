"""The loops of `fused_neuron`, compiled (numba). All in one file: numba's cache knows no other files' changes.

A chunk of neurons small enough for the cache goes through all timesteps at once. Memory is seen as rows of `row` neurons,
whatever the layout: rows x (kernel height, width, inner), inner being the channels of a channels-last tensor, else 1.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

CHUNK = 2048  # neurons; 8 timesteps of their potentials fit the level-2 cache
FIRST_ADAPTIVE = 3  # kinds of slopes below it have no state

# numba has no types of its own for mypy.
_compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = njit(nogil=True, cache=True)
# Reductions are only vectorised where the order of their sums is free.
_reduction: Callable[[Callable[..., Any]], Callable[..., Any]] = njit(nogil=True, cache=True, fastmath={"reassoc"})
# A check that raises where a divisor is zero would keep a loop from being vectorised.
_dividing: Callable[[Callable[..., Any]], Callable[..., Any]] = njit(nogil=True, cache=True, error_model="numpy")


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
def forward(
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
    """Surrogate derivative of the spike; `kind` and `shape`: see `fused_neuron._coded`."""
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


@_dividing
def _adaptive_slope(
    kind: int, shape: Any, potential: Any, mean: Any, spread: Any, out: Any, n: int, constants: Any
) -> None:
    """The same for the kinds whose sharpness follows `mean` and `spread`, see `fused_neuron._ADAPTIVE`."""
    threshold, zero, one = constants[1], constants[3], constants[4]
    width, share, factor, smallest, gain, a = shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]
    for i in range(n):
        distance = abs(potential[i] - threshold)
        m = mean[i] + share * (distance - mean[i])
        d = spread[i] + share * (abs(distance - m) - spread[i])
        mean[i] = m
        spread[i] = d
        out[i] = width / (m + factor * d + smallest)
    if kind == 3:
        for i in range(n):
            x = out[i] * (potential[i] - threshold)
            out[i] = gain * out[i] / (one + a * (x * x))
    elif kind == 4:
        for i in range(n):
            height = one - abs(out[i] * (potential[i] - threshold))
            out[i] = gain * out[i] * (height if height > zero else zero)
    elif kind == 5:
        for i in range(n):
            out[i] = gain * out[i] if abs(out[i] * (potential[i] - threshold)) < one else zero
    elif kind == 6:
        for i in range(n):
            x = out[i] * (potential[i] - threshold)
            out[i] = gain * out[i] * np.exp(a * (x * x))
    else:
        for i in range(n):
            falling = np.exp(-abs(out[i] * (potential[i] - threshold)))
            out[i] = gain * out[i] * falling / ((one + falling) * (one + falling))


@_reduction
def _dot(a: Any, b: Any, n: int) -> Any:
    total = a[0] * b[0]
    for i in range(1, n):
        total += a[i] * b[i]
    return total


@_compiled
def backward(
    grad_out: Any,
    current: Any,
    grad_current: Any,
    sums: Any,
    constants: Any,
    flags: Any,
    layout: Any,
    kind: int,
    shape: Any,
    mean: Any,
    spread: Any,
    first_row: int,
    last_row: int,
    steps: int,
) -> None:
    """Writes grad_current [1 or T, rows * row]; adds to sums (float64) d threshold, d leak and d potential before step 0.

    mean, spread: state of adaptive slopes, [T or more, rows * row], moved on by the share in `shape`; not read for the other kinds.
    """
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
            if kind < FIRST_ADAPTIVE:
                _slope(kind, shape, u, through, n, threshold, zero)
            else:
                m, d = mean[t, start * row : start * row + n], spread[t, start * row : start * row + n]
                _adaptive_slope(kind, shape, u, m, d, through, n, constants)
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
