"""Square: asks for logits only, keeps its budget of queries and pixels, and gives a sample the same squares in any batch."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from weak_classifiers import Smooth, band_logits, constant_logits, grey, problem, random_images

from hardspike.attack import square as module
from hardspike.attack.ball import Ball, Norm, overshoot
from hardspike.attack.square import square, square_queries

NORMS: tuple[Norm, ...] = ("linf", "l2")
SHAPE = (2, 6, 7)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@pytest.mark.parametrize(("proposals", "stretch"), [(10_000, 1), (5000, 2), (100, 100)])
def test_the_area_halves_as_in_the_published_schedule(proposals: int, stretch: int) -> None:
    """After 10, 50, 200, ... of 10,000 proposals; with fewer, at the same shares of them."""

    def published(at: int) -> float:
        for exponent, last in enumerate((10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)):
            if at <= last:
                return 0.5**exponent
        return 0.5**9

    assert [module._halved(i, proposals) for i in range(proposals)] == [
        published(i * stretch) for i in range(proposals)
    ]


@pytest.mark.parametrize("area", [0.8, 0.1, 0.001])
def test_a_square_moves_to_the_ends_of_the_ball(area: float) -> None:
    ball = Ball.around(torch.full((3, 2, 7, 5), 0.5, dtype=torch.float64), 0.1)
    start = module._stripes(problem(band_logits, ball.clean, eps=0.1), generator())
    assert torch.equal(start, start[:, :, :1].expand_as(start)) and (start - 0.5).abs().allclose(
        torch.tensor(0.1).double()
    )
    assert 0 < int((start > 0.5).sum()) < start.numel() and not torch.equal(start[0], start[1])
    side = min(max(round(math.sqrt(area * 35)), 1), 5)
    places, colours, noise = set(), set(), generator()
    for _ in range(200):
        move = module._recoloured(ball, ball.clean, area, noise) - 0.5
        rows, columns = ((move[0, 0] != 0).any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
        assert len(rows) == rows[-1] - rows[0] + 1 == side == len(columns)
        assert torch.equal(move[0], move[2]) and int((move != 0).sum()) == 3 * 2 * side**2
        places.add((rows[0], columns[0]))
        colours.add(tuple(move[0, :, rows[0], columns[0]].sign().tolist()))
        recoloured = module._recoloured(ball, start, area, noise) - 0.5
        assert recoloured.abs().allclose(torch.tensor(0.1).double())
    assert len(places) == (8 - side) * (6 - side) and len(colours) == 4  # every place, the last row and column too


def slow_pyramid(height: int, width: int) -> np.ndarray:
    """Rectangles around the middle, each one pixel wider on all sides and thinner than the one before."""
    result = np.zeros((height, width))
    for k in range(max(height, width)):
        for i in range(height):
            for j in range(width):
                wide = max(height, width) // 2 + 1
                if k < wide and abs(i - height // 2) <= k and abs(j - width // 2) <= k:
                    result[i, j] += 1 / (k + 1) ** 2
    return result / np.sqrt((result**2).sum())


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8])
def test_pyramids(side: int) -> None:
    upper = side // 2
    halves = [slow_pyramid(upper, side)] * (upper > 0) + [-slow_pyramid(side - upper, side)]
    expected = np.concatenate(halves)
    expected /= np.sqrt((expected**2).sum())
    like, noise, turned = torch.zeros(1, dtype=torch.float64), generator(), 0
    for _ in range(20):
        found = module._pyramids(side, like, noise).numpy()
        is_turned = not np.allclose(found, expected)
        turned += is_turned
        np.testing.assert_allclose(found.T if is_turned else found, expected, atol=1e-12)
    assert 0 < turned < 20 or side == 1


@pytest.mark.parametrize(("area", "side"), [(0.06, 5), (1e-4, 3)])  # 0.06 * 17 * 15 = 3.9 * 3.9, and 4 is even
def test_the_l2_form_moves_its_budget_between_windows(area: float, side: int) -> None:
    eps = 0.3
    case = problem(band_logits, torch.full((3, 2, 17, 15), 0.5, dtype=torch.float64), eps=eps, norm="l2")
    start = module._tiles(case, generator())
    assert (start[0, 0] != 0.5).all(1).tolist() == [False, *[True] * 15, False]  # 5 x 5 tiles of 3 x 3 in the middle
    assert not torch.equal(start[0], start[1])
    lengths = (start - 0.5).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, eps), rtol=2e-6, atol=0)
    # Half of the way there, three quarters of the squared budget are left. They go into one window, with what another held.
    half = 0.5 + (start - 0.5) / 2
    noise, replay = generator(5), generator(5)
    move = module._moved_mass(case.ball, half, area, noise) - 0.5
    to, taken = module._place(17, 15, side, replay), module._place(17, 15, side, replay)
    inside, emptied = torch.zeros(17, 15, dtype=torch.bool), torch.zeros(17, 15, dtype=torch.bool)
    inside[to[0], to[1]], emptied[taken[0], taken[1]] = True, True
    emptied &= ~inside
    both = inside | emptied
    assert emptied.any() and not move[:, :, emptied].any()
    torch.testing.assert_close(move[:, :, ~both], half[:, :, ~both] - 0.5, rtol=0, atol=1e-6)
    held = ((half - 0.5)[:, :, both] ** 2).sum(2)
    torch.testing.assert_close((move[:, :, inside] ** 2).sum(2), 0.75 * eps**2 / 2 + held, rtol=1e-5, atol=0)
    assert not torch.allclose(move[:, :, inside].sign(), half[:, :, inside].sub(0.5).sign())


@pytest.mark.parametrize("rescale", [False, True])
def test_the_schedule_is_followed(rescale: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    areas: list[float] = []
    monkeypatch.setattr(module, "_recoloured", lambda ball, images, area, noise: areas.append(area) or images)
    square(problem(constant_logits, random_images(SHAPE, 1), eps=0.1), queries=101, p_init=0.5, rescale=rescale)
    assert areas == [0.5 * module._halved(i, 101 if rescale else 10_000) for i in range(100)]


LEVELS = [0.12, 0.165, 0.33, 0.44, 0.5, 0.68, 0.75, 0.95]
REACHABLE = [0.08, 0.035, 0.07, 0.04, 0.1, 0.08, 0.05, 0.15]


@pytest.mark.parametrize("eps", [0.03, 0.0401, 0.0751, 0.12, 0.2])
def test_breaks_exactly_what_its_budget_reaches(eps: float) -> None:
    """REACHABLE: how far the nearest border is. One large square of the right colour reaches all of eps."""
    case = problem(band_logits, grey(LEVELS), eps=eps)
    fooled = case.fools(square(case, queries=200))
    assert fooled.tolist() == [distance < eps for distance in REACHABLE]


def test_the_l2_form_breaks_near_borders() -> None:
    """Its pyramids never have one sign only, so it needs more than the shortest move."""
    case = problem(band_logits, grey(LEVELS), eps=0.15 * 24**0.5, norm="l2")
    fooled = case.fools(square(case, queries=100)).tolist()
    assert fooled[1] and fooled[3] and fooled[6]
    less = problem(band_logits, grey(LEVELS), eps=0.03 * 24**0.5, norm="l2")
    assert not less.fools(square(less, queries=30)).any()


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_breaks_a_constant_classifier(norm: Norm) -> None:
    images = random_images(SHAPE, 4)
    found, queries = square_queries(
        problem(constant_logits, images, torch.tensor([0, 1, 0, 2]), eps=0.5, norm=norm), queries=9
    )
    assert torch.equal(found, images) and queries.tolist() == [-1, 0, -1, 0]


def test_it_asks_an_integer_model_without_gradient_and_counts_the_questions() -> None:
    asked: list[int] = []

    def chip(images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        asked.append(len(images))
        return (band_logits(images) * 1000).long()

    images = grey(LEVELS)
    case = problem(chip, images, eps=0.0751)
    asked.clear()
    found, queries = square_queries(case, queries=40)
    assert case.fools(found).tolist() == [distance < 0.0751 for distance in REACHABLE]
    # A clean question for all, then one for each sample until it is fooled.
    standing = [sum(int(used) < 0 or used > q for used in queries) for q in range(40)]
    assert asked[:41] == [8, *standing] and len(set(queries.tolist())) > 3
    for i, used in enumerate(queries.tolist()):
        asked.clear()
        square(case.take(torch.tensor([i])), queries=40)
        assert len(asked) - 1 == (40 if used < 0 else used)


def test_it_keeps_what_raises_the_margin() -> None:
    """The second proposal lowers the margin that the first raised, so the third starts from the first."""
    shown: list[Tensor] = []
    margins = iter([0.0, 0.2, 0.5, 0.3, 0.4])

    def model(images: Tensor) -> Tensor:
        shown.append(images)
        return torch.tensor([[1.0, next(margins)]], dtype=images.dtype)

    case = problem(model, torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64), torch.tensor([0]), eps=0.1)
    replay = case.draws.shared(0)
    square(case, queries=4)
    clean, start, first, second, third = shown
    assert torch.equal(first, module._recoloured(case.ball, start, 0.8, replay))
    assert torch.equal(second, module._recoloured(case.ball, first, 0.8, replay))
    assert torch.equal(third, module._recoloured(case.ball, first, 0.8, replay))
    assert not torch.equal(second, first) and torch.equal(clean, case.clean)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    eps=st.sampled_from([1e-8, 1e-3, 1 / 255, 8 / 255, 0.3, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    ball=st.sampled_from([("linf", None), ("linf", 15), ("linf", 255), ("l2", None)]),
    rescale=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_budget_is_kept(
    shape: tuple[int, int, int],
    eps: float,
    dtype: torch.dtype,
    ball: tuple[Norm, int | None],
    rescale: bool,
    seed: int,
) -> None:
    images, shown = random_images(shape, 4, seed, dtype), []
    images[0] = (images[0] > 0.5).to(dtype)
    model = Smooth(shape, seed=seed, dtype=dtype)

    def watched(asked: Tensor) -> Tensor:
        shown.append(asked)
        return model(asked)

    case = problem(watched, images, model(images).argmax(1), eps=eps, norm=ball[0], grid=ball[1], seed=seed)
    found = square(case, queries=20, rescale=rescale)
    assert found.shape == images.shape and found.dtype == dtype and not found.requires_grad
    assert overshoot(found, case.ball) <= 1e-6
    # No question is wasted on an image outside the ball either.
    assert all(overshoot(asked, case.ball) <= 1e-6 for asked in shown if len(asked) == len(images))
    changed = (found != images).flatten(1).any(1)
    assert not (changed & ~case.fools(found)).any()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("norm", NORMS)
def test_batches_change_nothing_and_seeds_do(norm: Norm) -> None:
    images, eps = random_images(SHAPE, 9), 0.05 if norm == "linf" else 0.3
    model: Callable[[Tensor], Tensor] = Smooth(SHAPE, sharpness=9.0)
    case = problem(model, images, eps=eps, norm=norm)
    whole, queries = square_queries(case, queries=40)
    assert 2 <= int(case.fools(whole).sum()) <= 8 and len(set(queries.tolist())) > 2
    parts = [square(case.take(torch.arange(9)[part]), queries=40) for part in (slice(1), slice(1, 4), slice(4, 9))]
    assert torch.equal(whole, torch.cat(parts)) and torch.equal(whole, square(case, queries=40))
    assert not torch.equal(whole, square(problem(model, images, eps=eps, norm=norm, seed=1), queries=40))
    assert square(case.take(torch.arange(0))).shape == (0, *SHAPE)
