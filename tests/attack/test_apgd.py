"""APGD: equal to a slow copy of the authors' loop, breaks what its budget reaches, stays in it, and never depends on batches."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from weak_classifiers import Smooth, band_logits, constant_logits, grey, last_class_falls, problem, random_images

from hardspike.attack.apgd import apgd, apgd_targeted, check_points
from hardspike.attack.ball import Ball, Norm, overshoot
from hardspike.attack.gradient import cross_entropy, logits_ratio
from hardspike.attack.members import parse_member
from hardspike.attack.pgd import LossOfLabels
from hardspike.attack.problem import Problem
from hardspike.snn.errors import SettingsError

ATTACKS: dict[str, Callable[..., Tensor]] = {
    "ce": partial(apgd, loss=cross_entropy),
    "dlr": partial(apgd, loss=logits_ratio),
    "targeted": partial(apgd_targeted, targets=3),
}
NORMS: tuple[Norm, ...] = ("linf", "l2")
SHAPE = (2, 4, 5)


def slow_apgd(
    model: Smooth, image: Tensor, label: int, start: Tensor, eps: float, norm: Norm, steps: int, loss: LossOfLabels
) -> Tensor:
    """One image and one line per step of the algorithm; the last iterate that fools the model, or else the image."""

    def project(point: Tensor) -> Tensor:
        if norm == "linf":
            return torch.max(torch.min(point, image + eps), image - eps).clamp(0, 1)
        length = float((point - image).norm())
        return (image + (point - image) * min(1.0, eps * (1 - 1e-6) / max(length, 1e-12))).clamp(0, 1)

    def measured(point: Tensor) -> tuple[float, Tensor, bool]:
        point = point.clone().requires_grad_(True)
        logits = model(point[None])
        value = loss(torch.tensor([label]))(logits)[0]
        (slope,) = torch.autograd.grad(value, point)
        return (
            float(value.detach()),
            slope.sign() if norm == "linf" else slope / slope.norm(),
            int(logits.argmax()) != label,
        )

    now, before, size = start, start, 2 * eps
    value, slope, wrong = measured(now)
    result = now if wrong else image
    best, best_slope, best_value = now, slope, value
    losses = [0.0]
    halved, best_then, window, since = True, value, max(int(0.22 * steps), 1), 0
    for step in range(steps):
        share = 0.75 if step else 1.0
        target = project(now + size * slope)
        now, before = project(now + share * (target - now) + (1 - share) * (now - before)), now
        value, slope, wrong = measured(now)
        losses.append(value)
        if wrong:
            result = now
        if value > best_value:
            best, best_slope, best_value = now, slope, value
        since += 1
        if since == window:
            rises = sum(
                later > earlier for earlier, later in zip(losses[-window - 1 : -1], losses[-window:], strict=True)
            )
            halved, best_then = rises <= 0.75 * window or (not halved and best_then >= best_value), best_value
            if halved:
                size, now, slope = size / 2, best, best_slope
            since, window = 0, max(window - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return result


@pytest.mark.parametrize(
    ("norm", "loss", "steps", "eps", "seed", "sharpness"),
    [
        ("linf", cross_entropy, 1, 0.03, 0, 3.0),
        ("linf", cross_entropy, 30, 0.03, 0, 3.0),
        ("linf", logits_ratio, 10, 0.03, 0, 3.0),
        ("l2", cross_entropy, 10, 0.18, 0, 3.0),
        ("l2", cross_entropy, 30, 0.18, 0, 3.0),
        ("linf", cross_entropy, 5, 0.2, 2, 30.0),  # the first step lowers the loss
    ],
)
def test_it_is_the_authors_loop(
    norm: Norm, loss: LossOfLabels, steps: int, eps: float, seed: int, sharpness: float
) -> None:
    model, images = Smooth(SHAPE, sharpness=sharpness), random_images(SHAPE, 6)
    case = problem(model, images, eps=eps, norm=norm, seed=seed)
    starts = case.ball.surface(case.draws.uniform(0, images))
    slow = [
        slow_apgd(model, image, int(label), start, case.ball.eps, norm, steps, loss)
        for image, label, start in zip(images, case.labels, starts, strict=True)
    ]
    found = apgd(case, loss, steps=steps, stop_early=False)
    assert case.fools(found).any()
    torch.testing.assert_close(found, torch.stack(slow), rtol=0, atol=1e-9)
    early = apgd(case, loss, steps=steps)
    assert torch.equal(case.fools(early), case.fools(found))
    still = ~case.fools(found)
    assert torch.equal(early[still], images[still])


def test_check_points() -> None:
    """Those printed in the paper for 100 steps: 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 of them."""
    assert [step + 1 for step, _ in check_points(100)] == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(check_points(10)) == [(1, 2), *((step, 1) for step in range(2, 10))]


LEVELS = [0.12, 0.165, 0.33, 0.44, 0.5, 0.68, 0.75, 0.95]
REACHABLE = [0.08, 0.035, 0.07, 0.04, 0.1, 0.08, 0.05, 0.15]


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.03, 0.0401, 0.0751, 0.12, 0.2])
def test_breaks_exactly_what_its_budget_reaches(name: str, norm: Norm, eps: float) -> None:
    """REACHABLE: how far the nearest border is. The image in a band's middle has no gradient to start with."""
    case = problem(band_logits, grey(LEVELS), eps=eps * (1 if norm == "linf" else 24**0.5), norm=norm)
    fooled = case.fools(ATTACKS[name](case, steps=10))
    assert fooled.tolist() == [distance < eps for distance in REACHABLE]


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_breaks_a_constant_classifier(name: str) -> None:
    images = random_images(SHAPE, 4)
    case = problem(constant_logits, images, torch.tensor([0, 1, 0, 2]), eps=0.5)
    assert torch.equal(ATTACKS[name](case, steps=5), images)  # those in a wrong class already return as they are


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    eps=st.sampled_from([1e-8, 1e-3, 1 / 255, 8 / 255, 0.3, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    ball=st.sampled_from([("linf", None), ("linf", 15), ("linf", 255), ("l2", None)]),
    steps=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_the_budget_is_kept(
    shape: tuple[int, int, int], eps: float, dtype: torch.dtype, ball: tuple[Norm, int | None], steps: int, seed: int
) -> None:
    model, images = Smooth(shape, seed=seed, dtype=dtype), random_images(shape, 4, seed, dtype)
    images[0] = (images[0] > 0.5).to(dtype)
    case = problem(model, images, eps=eps, norm=ball[0], grid=ball[1], seed=seed)
    for name, attack in ATTACKS.items():
        found = attack(case, steps=steps)
        assert found.shape == images.shape and found.dtype == dtype and not found.requires_grad
        assert overshoot(found, case.ball) <= 1e-6, name
        changed = (found != images).flatten(1).any(1)
        assert not (changed & ~case.fools(found)).any(), name
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("norm", NORMS)
def test_batches_change_nothing_and_seeds_do(name: str, norm: Norm) -> None:
    images, eps = random_images(SHAPE, 9), 0.04 if norm == "linf" else 0.2
    case = problem(Smooth(SHAPE, sharpness=9.0), images, eps=eps, norm=norm)
    attack = partial(ATTACKS[name], steps=4)
    whole = attack(case)
    assert 1 <= int(case.fools(whole).sum()) <= 8
    parts = [attack(case.take(torch.arange(9)[part])) for part in (slice(1), slice(1, 4), slice(4, 9))]
    assert torch.equal(whole, torch.cat(parts)) and torch.equal(whole, attack(case))
    other = problem(case.model, images, eps=eps, norm=norm, seed=1)
    assert not torch.equal(whole, attack(other))
    assert attack(case.take(torch.arange(0))).shape == (0, *SHAPE)


def test_fooled_samples_leave() -> None:
    asked: list[int] = []

    def counting(images: Tensor) -> Tensor:
        if images.requires_grad:
            asked.append(len(images))
        return band_logits(images)

    images = grey([0.19, 0.15, 0.15])
    case = replace(problem(band_logits, images, eps=0.02), model=counting)
    apgd(case, cross_entropy, steps=3)
    # The last step needs no gradient; the first image falls at the first or second iterate.
    assert asked[0] == 3 and asked[2:] == [2]
    asked.clear()
    apgd(case, cross_entropy, steps=3, stop_early=False)
    assert asked == [3, 3, 3]


def test_each_restart_starts_elsewhere() -> None:
    """The model is fooled only near one corner of the ball, where one random start in 16 lies."""

    def corner(images: Tensor) -> Tensor:
        inside = (images.flatten(1) > 0.5).all(1).to(images.dtype)
        return torch.stack([torch.full_like(inside, 0.5), inside, 0 * inside], 1) + 0 * images.sum((1, 2, 3))[:, None]

    images = torch.full((20, 1, 2, 2), 0.5, dtype=torch.float64)
    case = problem(corner, images, eps=0.1)
    attacks = [parse_member(name) for name in ("apgd-ce1", "apgd-ce1+restarts=40")]
    fooled = [int(case.fools(attack.perturb(case)).sum()) for attack in attacks]
    assert fooled[0] < 6 and fooled[1] > 15


def test_targets_are_tried_in_turn_until_one_falls() -> None:
    """Only the class ranked last on the clean image can be reached, so three targets are not enough and four are."""
    case = problem(last_class_falls, torch.full((2, 1, 6, 6), 0.5, dtype=torch.float64), eps=0.1)
    for targets, fallen in ((3, False), (4, True), (9, True)):
        assert case.fools(apgd_targeted(case, steps=10, targets=targets)).tolist() == [fallen] * 2


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(classes: int) -> None:
    """The targeted DLR loss has no fourth logit there, the plain one no third."""
    case: Problem = problem(partial(band_logits, bands=classes), grey([0.05, 0.3, 0.9]), eps=0.25)
    reached = [distance < 0.25 for distance in ([0.45, 0.2, 0.4] if classes == 2 else [0.28, 0.03, 0.23])]
    assert case.fools(apgd_targeted(case, steps=10)).tolist() == reached
    if classes == 2:
        with pytest.raises(
            SettingsError, match="the DLR loss needs three classes, the model has 2; use the cross entropy"
        ):
            apgd(case, logits_ratio, steps=2)


@pytest.mark.parametrize("norm", NORMS)
def test_starts_lie_on_the_surface(norm: Norm) -> None:
    ball = Ball.around(torch.full((3, 2, 4, 4), 0.5, dtype=torch.float64), 0.1, norm)
    moves = (ball.surface(random_images((2, 4, 4), 3)) - 0.5).flatten(1)
    used = moves.abs().amax(1) if norm == "linf" else moves.norm(dim=1)
    torch.testing.assert_close(used, torch.full_like(used, 0.1), rtol=2e-6, atol=0)
