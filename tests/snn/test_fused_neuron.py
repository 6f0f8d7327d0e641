"""The fused kernel against the plain torch operations: layouts, pooling, precision, threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Literal, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from hardspike.snn.adaptive_surrogate import AdaptiveSharpness, Shape, SharpnessRun
from hardspike.snn.fused_kernels import CHUNK
from hardspike.snn.fused_neuron import fusable
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.neuron import Pool, fire, plain_torch
from hardspike.snn.surrogate import Surrogate, parse_surrogate, surrogate_gradient

Order = Literal["integrate-first", "fire-first"]
Reset = Literal["hard", "soft"]
MEMORY = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
# One rounding of the mean of the window where its size is no power of two.
ULP = 2.0**-23


def currents(
    shape_TB: tuple[int, ...], memory: str = "contiguous", dtype: torch.dtype = torch.float32, seed: int = 3
) -> Tensor:
    merged = torch.randn((shape_TB[0] * shape_TB[1], *shape_TB[2:]), generator=torch.Generator().manual_seed(seed))
    return merged.to(dtype).contiguous(memory_format=MEMORY[memory]).unflatten(0, shape_TB[:2])


def run(
    current_TB: Tensor,
    neuron: NeuronSettings,
    steps: int,
    pool: Pool = (1, 1),
    surrogate: str | Surrogate = "triangular:1",
) -> list[Tensor]:
    """Output, gradients by current, threshold and leak."""
    leaves = [current_TB.detach().requires_grad_(True)]
    leaves += [torch.tensor(value, dtype=current_TB.dtype, requires_grad=True) for value in (0.5, neuron.leak)]
    with surrogate_gradient(parse_surrogate(surrogate) if isinstance(surrogate, str) else surrogate):
        out_TB = fire(leaves[0], leaves[1], neuron, leak=leaves[2], steps=steps, pool=pool, layer="n")
    upstream = torch.randn(out_TB.shape, generator=torch.Generator().manual_seed(4)).to(out_TB.dtype)
    return [out_TB.detach(), *torch.autograd.grad((upstream * out_TB).sum(), leaves)]


def run_plain(
    current_TB: Tensor,
    neuron: NeuronSettings,
    steps: int,
    pool: Pool = (1, 1),
    surrogate: str | Surrogate = "triangular:1",
) -> list[Tensor]:
    with plain_torch():
        return run(current_TB, neuron, steps, pool, surrogate)


def assert_near(found: list[Tensor], wanted: list[Tensor], relative: float) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert float((ours - theirs).abs().max()) <= relative * max(1.0, float(theirs.abs().max()))


@settings(max_examples=60, deadline=None)
@given(
    order=st.sampled_from(["integrate-first", "fire-first"]),
    reset=st.sampled_from(["hard", "soft"]),
    strict=st.booleans(),
    leak=st.sampled_from([1.0, 0.9, 0.3]),
    is_static=st.booleans(),
    steps=st.integers(1, 6),
    pool=st.sampled_from([(1, 1), (2, 2), (1, 2), (2, 1), (3, 3), (4, 2)]),
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    batch=st.integers(1, 3),
    channels=st.integers(1, 5),
    memory=st.sampled_from(list(MEMORY)),
    surrogate=st.sampled_from(["triangular:1", "assg"]),
)
def test_any_shape_equals_plain_torch(
    order: Order,
    reset: Reset,
    strict: bool,
    leak: float,
    is_static: bool,
    steps: int,
    pool: Pool,
    sides: tuple[int, int],
    batch: int,
    channels: int,
    memory: str,
    surrogate: str,
) -> None:
    sides = max(sides[0], pool[0]), max(sides[1], pool[1])
    neuron = NeuronSettings(order=order, reset=reset, strict=strict, leak=leak, initial_potential=0.25)
    current_TB = currents((1 if is_static else steps, batch, channels, *sides), memory)
    found, wanted = (side(current_TB, neuron, steps, pool, surrogate) for side in (run, run_plain))
    if pool == (3, 3):
        assert_near(found[:1], wanted[:1], ULP)
    else:
        assert torch.equal(found[0], wanted[0])
    assert_near(found[1:], wanted[1:], 2e-5)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("pool", [(1, 1), (2, 2), (1, 2), (3, 3)])
def test_pooling_equals_pooled_spikes(pool: Pool, memory: str) -> None:
    """More than one chunk of neurons, both with the same current at every step and another at each."""
    for steps, given_steps in ((4, 4), (4, 1)):
        current_TB = currents((given_steps, 3, 4, 24, 36), memory)
        assert fusable(current_TB, pool) is not None and current_TB[0].numel() > 2 * CHUNK
        pooled, by_current, *_ = run(current_TB, NeuronSettings(leak=0.9), steps, pool)
        spikes, *_ = run(current_TB, NeuronSettings(leak=0.9), steps)
        assert set(spikes.unique().tolist()) == {0.0, 1.0}
        wanted = F.avg_pool2d(spikes.flatten(0, 1), pool).unflatten(0, spikes.shape[:2])
        assert float((pooled - wanted).abs().max()) <= (ULP if pool == (3, 3) else 0)
        merged = (pooled.flatten(0, 1), by_current.flatten(0, 1))
        assert all(tensor.is_contiguous(memory_format=MEMORY[memory]) for tensor in merged)


def test_windows_that_do_not_tile_the_image_are_left_to_plain_pooling() -> None:
    current_TB = currents((4, 2, 3, 7, 9))
    assert fusable(current_TB, (2, 2)) is None
    assert fusable(current_TB, (7, 3)) is not None
    pooled, *_ = run(current_TB, NeuronSettings(), 4, (2, 2))
    assert pooled.shape == (4, 2, 3, 3, 4)


@pytest.mark.parametrize("kind", ["every second step", "the same step, expanded", "columns", "rank 3"])
def test_currents_that_are_views(kind: str) -> None:
    current_TB = currents((6, 2, 3, 4, 4))
    views = {
        "every second step": current_TB[::2],
        "the same step, expanded": current_TB[:1].expand(3, -1, -1, -1, -1),
        "columns": current_TB[:3, ..., ::2],
        "rank 3": current_TB[:3].flatten(2),
    }
    for pool in ((1, 1), (2, 2)):
        if kind == "rank 3" and pool != (1, 1):
            continue
        found, wanted = (side(views[kind], NeuronSettings(), 3, pool) for side in (run, run_plain))
        assert torch.equal(found[0], wanted[0])
        assert_near(found[1:], wanted[1:], 1e-5)


@pytest.mark.parametrize(
    "surrogate",
    ["triangular:0.7", "exponential", "rectangular", "straight-through", "linear", "normalised-exponential"],
)
def test_single_precision_gradients(surrogate: str) -> None:
    current_TB = currents((5, 8, 700))
    neuron = NeuronSettings(leak=0.9, reset="soft", initial_potential=0.5)
    found, wanted = (side(current_TB, neuron, 5, surrogate=surrogate) for side in (run, run_plain))
    assert torch.equal(found[0], wanted[0])
    assert_near(found[1:], wanted[1:], 2e-5)


def test_adaptive_sharpness_is_fused() -> None:
    for surrogate in (AdaptiveSharpness(), AdaptiveSharpness().begin()):
        with surrogate_gradient(surrogate):
            out_TB = fire(currents((3, 2, 5)).requires_grad_(), torch.tensor(1.0), NeuronSettings(), layer="n")
        assert "Fused" in type(out_TB.grad_fn).__name__


@pytest.mark.parametrize("shape", get_args(Shape))
def test_a_run_of_adaptive_sharpness_equals_plain_torch(shape: Shape) -> None:
    """Every neuron (half of them beside `atan`: any two settings meet), with each layout, pooling and precision."""
    variants = product(get_args(Order), get_args(Reset), (False, True), (False, True))
    layouts = list(product(MEMORY, ((1, 1), (2, 1)), (torch.float32, torch.float64)))
    for index, (order, reset, strict, detach) in enumerate(variants):
        if shape != "atan" and index.bit_count() % 2:
            continue
        memory, pool, dtype = layouts[3 * (index // 2) % 8]
        neuron = NeuronSettings(
            order=order, reset=reset, strict=strict, detach_reset=detach, leak=0.9, initial_potential=0.25
        )
        runs = tuple(AdaptiveSharpness(0.4, shape).begin() for _ in range(2))
        for iteration, steps in enumerate((3, 5, 5, 3, 5, 5, 5)):
            now, batch = runs, 4
            if iteration == 2:
                now = tuple(kept.held() for kept in runs)
            elif iteration in (4, 5):
                parts = tuple(kept.take(torch.tensor([True, False, True, True])) for kept in runs)
                now, batch = parts, 3
                if iteration == 5:
                    now, batch = tuple(kept.take(torch.tensor([2, 0])) for kept in parts), 2
            current_TB = currents((steps if iteration % 3 else 1, batch, 3, 4, 5), memory, dtype, seed=iteration)
            found = run(current_TB, neuron, steps, pool, now[0])
            wanted = run_plain(current_TB, neuron, steps, pool, now[1])
            assert torch.equal(found[0], wanted[0])
            assert_near(found[1:], wanted[1:], 2e-5 if dtype == torch.float32 else 1e-12)


def test_a_run_of_adaptive_sharpness_goes_on_in_any_layout_and_implementation() -> None:
    mixed, plain = AdaptiveSharpness().begin(), AdaptiveSharpness().begin()
    sides = ((run, "channels-last"), (run_plain, "channels-last"), (run, "contiguous"), (run, "channels-last"))
    for iteration, (side, memory) in enumerate(sides):
        current_TB = currents((3, 2, 5, 4, 6), memory, torch.float64, iteration)
        found = side(current_TB, NeuronSettings(), 3, (2, 2), mixed)
        assert_near(found, run_plain(current_TB, NeuronSettings(), 3, (2, 2), plain), 1e-12)
        assert abs(found[1] - run_plain(current_TB, NeuronSettings(), 3, (2, 2), "assg")[1]).max() > (
            0.01 if iteration else -1
        )


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("surrogate", ["triangular:1", "assg"])
def test_threads_change_nothing(memory: str, surrogate: str) -> None:
    """Also for the second iteration, where more than one chunk of neurons has a state."""
    current_TB = currents((4, 3, 5, 16, 24), memory, torch.float64)
    neuron, results = NeuronSettings(leak=0.9), []
    for count in (1, 2, 3):
        specification = parse_surrogate(surrogate)
        kept = specification.begin() if isinstance(specification, AdaptiveSharpness) else specification
        with threads(count):
            run(current_TB * 0.5, neuron, 4, (2, 2), kept)
            results.append(run(current_TB, neuron, 4, (2, 2), kept))
    if isinstance(kept, SharpnessRun):
        kept = kept.begin()
        run_plain(current_TB * 0.5, neuron, 4, (2, 2), kept)
        assert_near(results[0], run_plain(current_TB, neuron, 4, (2, 2), kept), 1e-12)
    for found in results[1:]:
        assert torch.equal(found[0], results[0][0]) and torch.equal(found[1], results[0][1])
        assert_near(found[2:], results[0][2:], 1e-12)


@pytest.mark.parametrize("shape", [(3, 0, 4, 6, 6), (3, 2, 0)])
def test_nothing_in_nothing_out(shape: tuple[int, ...]) -> None:
    out_TB = fire(torch.zeros(shape), torch.tensor(1.0), NeuronSettings())
    assert out_TB.shape == shape
