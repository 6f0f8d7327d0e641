"""FAB-T: exact projections, the published loop, and a result that only counts within the ball."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from weak_classifiers import Smooth, band_logits, constant_logits, grey, last_class_falls, problem, random_images

from hardspike.attack.ball import Norm, overshoot
from hardspike.attack.fab import fab_targeted, move_onto_plane

NORMS: tuple[Norm, ...] = ("linf", "l2")
SHAPE = (2, 4, 5)


def planes(size: int, count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Points in [0, 1], some at its ends, normals with zeros, and what is missing: much, little, nothing, of either sign."""
    generator = torch.Generator().manual_seed(size)
    points = (torch.rand(count, size, generator=generator, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1)
    normal = torch.randn(count, size, generator=generator, dtype=torch.float64)
    normal = torch.where(torch.rand(count, size, generator=generator) < 0.2, 0.0, normal)
    normal[[0, 4]], normal[1] = 0.0, normal[1] * 1e-30
    missing = torch.randn(count, generator=generator, dtype=torch.float64) * 10.0 ** -torch.arange(count).remainder(4)
    missing[1], missing[2], missing[4] = missing[1] * 1e-30, 0, 0
    normal[3, 0] = 1e-320
    missing[3] = 1.001 * (normal[3] * furthest(points[3], normal[3])).sum()
    return points, normal, missing


def furthest(points: Tensor, normal: Tensor, cap: float | Tensor = 2.0) -> Tensor:
    """The move towards larger products whose pixels move by `cap` at most."""
    room = torch.where(normal > 0, 1 - points, points)
    return normal.sign() * room.clamp(max=torch.as_tensor(cap, dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_moves_onto_planes_are_the_shortest_inside_the_box(norm: Norm, size: int) -> None:
    points, normal, missing = planes(size)
    moves = move_onto_plane(points, normal, missing, norm)
    assert float((points + moves).min()) >= -1e-12 and float((points + moves).max()) <= 1 + 1e-12
    towards = torch.where(missing[:, None] < 0, -normal, normal)
    most = (towards * furthest(points, towards)).sum(1)
    reached = (towards * moves).sum(1)
    torch.testing.assert_close(reached, torch.minimum(most, missing.abs()), rtol=1e-9, atol=1e-12)
    if norm == "linf":
        # A little less in every pixel falls short of the plane, and what moves less than the rest is at its end.
        length = moves.abs().amax(1, keepdim=True)
        short = (towards * furthest(points, towards, length * (1 - 1e-9))).sum(1)
        assert ((short < missing.abs()) | (length[:, 0] == 0)).all()
    else:
        inside = most > missing.abs() * 1.01
        nearest = alternating_projections(points[inside], normal[inside], missing[inside])
        torch.testing.assert_close(moves[inside], nearest, rtol=0, atol=1e-6)


def alternating_projections(points: Tensor, normal: Tensor, missing: Tensor) -> Tensor:
    """Dykstra's algorithm: the move to the nearest point of the plane within the box."""
    unit = normal / normal.norm(dim=1, keepdim=True)
    offset = (unit * points).sum(1, keepdim=True) + (missing / normal.norm(dim=1))[:, None]
    current, kept = points, torch.zeros_like(points)
    for _ in range(1000):
        on_plane = current - ((unit * current).sum(1, keepdim=True) - offset) * unit
        current = (on_plane + kept).clamp(0, 1)
        kept = on_plane + kept - current
    return current - points


def slow_fab(
    model: Smooth, image: Tensor, label: int, target: int, start: Tensor, eps: float, norm: Norm, steps: int
) -> tuple[Tensor | None, Tensor | None]:
    """One image, one target: the first adversarial image within eps, and the nearest one until then."""

    def length(move: Tensor) -> float:
        return float(move.abs().max() if norm == "linf" else move.norm())

    def onto(point: Tensor, slope: Tensor, missing: Tensor) -> Tensor:
        return move_onto_plane(point.view(1, -1), slope.view(1, -1), missing.view(1), norm).view_as(point)

    now, nearest = start, None
    for _ in range(steps):
        now = now.clone().requires_grad_(True)
        logits = model(now[None])[0]
        lead = logits[target] - logits[label]
        (slope,) = torch.autograd.grad(lead, now)
        now, lead = now.detach(), lead.detach()
        offset = (slope * now).sum() - lead
        first = onto(now, slope, offset - (slope * now).sum())
        second = onto(image, slope, offset - (slope * image).sum())
        pull = min(length(first) / (length(first) + length(second)), 0.1)
        now = ((now + 1.05 * first) * (1 - pull) + (image + 1.05 * second) * pull).clamp(0, 1)
        if int(model(now[None]).argmax()) != label:
            if length(now - image) <= eps * (1 - 1e-6):
                return now, nearest
            if nearest is None or length(now - image) < length(nearest - image):
                nearest = now
            now = image + 0.9 * (now - image)
    return None, nearest


@pytest.mark.parametrize("norm", NORMS)
def test_it_is_the_published_loop(norm: Norm) -> None:
    model, images = Smooth(SHAPE, sharpness=30.0), random_images(SHAPE, 9)
    case = problem(model, images, eps=0.15 if norm == "linf" else 0.6, norm=norm)
    targets = model(images).detach().argsort(1, descending=True)[:, 1]
    halfway = (images + case.ball.surface(case.draws.uniform(0, images))) / 2
    expected, standing, by_restart = images.clone(), torch.ones(len(images), dtype=torch.bool), []
    for starts in (images, halfway):
        for i in standing.nonzero()[:, 0].tolist():
            label, target = int(case.labels[i]), int(targets[i])
            inside, nearest = slow_fab(model, images[i], label, target, starts[i], case.ball.eps, norm, 6)
            if inside is not None:
                expected[i] = inside
            elif nearest is not None:
                cut = case.take(torch.tensor([i])).ball.project(nearest[None])[0]
                expected[i] = cut if int(model(cut[None]).argmax()) != label else images[i]
        by_restart.append(int((standing & case.fools(expected)).sum()))
        standing = ~case.fools(expected)
    found = fab_targeted(case, steps=6, targets=1)
    left = ~case.fools(found)
    found[left] = fab_targeted(case.take(left), steps=6, targets=1, random_start=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert min(by_restart) >= 1 and standing.any()


LEVELS = [0.12, 0.165, 0.33, 0.44, 0.5, 0.68, 0.75, 0.95]
REACHABLE = [0.08, 0.035, 0.07, 0.04, 0.1, 0.08, 0.05, 0.15]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.03, 0.0401, 0.0751, 0.12, 0.2])
def test_breaks_exactly_what_its_budget_reaches(norm: Norm, eps: float) -> None:
    """REACHABLE: how far the nearest border is."""
    case = problem(band_logits, grey(LEVELS), eps=eps * (1 if norm == "linf" else 24**0.5), norm=norm)
    fooled = case.fools(fab_targeted(case, steps=10, targets=3))
    assert fooled.tolist() == [distance < eps for distance in REACHABLE]


@pytest.mark.parametrize("norm", NORMS)
def test_an_image_outside_the_ball_is_projected_and_judged_again(norm: Norm) -> None:
    """One step overshoots a border 0.1 away to 0.105."""
    case = problem(band_logits, grey([0.5]), eps=0.1045 * (1 if norm == "linf" else 24**0.5), norm=norm)
    found = fab_targeted(case, steps=1, targets=1)
    assert case.fools(found).all() and overshoot(found, case.ball) <= 1e-12
    assert not case.fools(fab_targeted(case, steps=1, targets=1, eta=0.99)).any()


def test_targets_are_tried_in_turn_until_one_falls() -> None:
    """Only the class ranked last on the clean image can be reached, so three targets are not enough and four are."""
    case = problem(last_class_falls, torch.full((2, 1, 6, 6), 0.5, dtype=torch.float64), eps=0.1)
    for targets, fallen in ((3, False), (4, True), (9, True)):
        assert case.fools(fab_targeted(case, steps=5, targets=targets)).tolist() == [fallen] * 2


def test_nothing_breaks_a_constant_classifier() -> None:
    images = random_images(SHAPE, 4)
    case = problem(constant_logits, images, torch.tensor([0, 1, 0, 2]), eps=0.5)
    assert torch.equal(fab_targeted(case, steps=5, random_start=True), images)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    eps=st.sampled_from([1e-8, 1e-3, 1 / 255, 8 / 255, 0.3, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    ball=st.sampled_from([("linf", None), ("linf", 15), ("linf", 255), ("l2", None)]),
    seed=st.integers(0, 99),
)
def test_the_budget_is_kept(
    shape: tuple[int, int, int], eps: float, dtype: torch.dtype, ball: tuple[Norm, int | None], seed: int
) -> None:
    model, images = Smooth(shape, seed=seed, dtype=dtype), random_images(shape, 4, seed, dtype)
    images[0] = (images[0] > 0.5).to(dtype)
    case = problem(model, images, eps=eps, norm=ball[0], grid=ball[1], seed=seed)
    found = fab_targeted(case, steps=3, targets=2, random_start=bool(seed % 2))
    assert found.shape == images.shape and found.dtype == dtype and not found.requires_grad
    assert overshoot(found, case.ball) <= 1e-6
    changed = (found != images).flatten(1).any(1)
    assert not (changed & ~case.fools(found)).any()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("norm", NORMS)
def test_batches_change_nothing(norm: Norm) -> None:
    images, eps = random_images(SHAPE, 9), 0.02 if norm == "linf" else 0.1
    case = problem(Smooth(SHAPE, sharpness=9.0), images, eps=eps, norm=norm)
    attack: Callable[..., Tensor] = partial(fab_targeted, steps=4, targets=2, random_start=True)
    whole = attack(case)
    assert 2 <= int(case.fools(whole).sum()) <= 8
    parts = [attack(case.take(torch.arange(9)[part])) for part in (slice(1), slice(1, 4), slice(4, 9))]
    assert torch.equal(whole, torch.cat(parts)) and torch.equal(whole, attack(case))
    assert attack(case.take(torch.arange(0))).shape == (0, *SHAPE)


def test_found_samples_leave() -> None:
    asked: list[int] = []

    def counting(images: Tensor) -> Tensor:
        if images.requires_grad:
            asked.append(len(images))
        return band_logits(images)

    fab_targeted(problem(counting, grey([0.19, 0.15, 0.1]), eps=0.02), steps=2, targets=2)
    assert asked == [3, 2, 2, 2]
