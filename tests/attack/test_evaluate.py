"""Worst-case evaluation: it must break weak classifiers, keep its budget, be judged from outside and never depend on batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hardspike.attack.evaluate import CLEAN_ERROR, SURVIVED, check_budget, evaluate
from hardspike.attack.masking import masking_checks, zero_gradient_share
from hardspike.attack.members import Member, parse_member
from hardspike.attack.settings import DEFAULT_MEMBERS, AttackSettings
from hardspike.snn.data import ImageSet
from hardspike.snn.errors import SettingsError
from hardspike.snn.surrogate import Exponential, Triangular


def brightness(images: Tensor) -> Tensor:
    """Class 1 where the mean exceeds 0.5: an attack of size eps flips exactly the images within eps of it."""
    mean = images.flatten(1).mean(1)
    return torch.stack([0.5 - mean, mean - 0.5], 1) * 10


def constant(images: Tensor) -> Tensor:
    return torch.tensor([[1.0, 0.0]]).repeat(len(images), 1) + 0 * images.flatten(1).sum(1, keepdim=True)


def grey(levels: list[float]) -> ImageSet:
    images = torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone()
    return ImageSet(images, (images.flatten(1).mean(1) > 0.5).long(), 2)


LEVELS = [0.2, 0.38, 0.44, 0.47, 0.53, 0.56, 0.62, 0.9]


@pytest.mark.parametrize("name", ["fgsm", "pgd5", "pgd20/rectangular:4"])
@pytest.mark.parametrize(("eps", "robust"), [(0.05, 6 / 8), (0.1, 4 / 8), (0.2, 2 / 8), (0.45, 0.0)])
def test_breaks_exactly_what_its_budget_reaches(name: str, eps: float, robust: float) -> None:
    result = evaluate(brightness, grey(LEVELS), [parse_member(name)], eps=eps)
    assert result.clean_accuracy == 1.0
    assert result.robust_accuracy == robust


def test_rfgsm_reaches_at_least_what_its_gradient_step_does() -> None:
    """Its random quarter may point away: within eps / 2 of the border it must succeed, beyond eps it cannot."""
    result = evaluate(brightness, grey(LEVELS), [parse_member("rfgsm")], eps=0.14)
    assert result.broken_by[2:6].tolist() == [0, 0, 0, 0]
    assert result.broken_by[[0, 7]].tolist() == [SURVIVED, SURVIVED]


def test_nothing_breaks_a_constant_classifier() -> None:
    data = ImageSet(torch.rand(6, 1, 4, 4), torch.tensor([0, 0, 1, 0, 1, 0]), 2)
    result = evaluate(constant, data, [parse_member(n) for n in DEFAULT_MEMBERS], eps=0.3)
    assert result.robust_accuracy == result.clean_accuracy == 4 / 6
    assert result.broken_by.tolist() == [SURVIVED, SURVIVED, CLEAN_ERROR, SURVIVED, CLEAN_ERROR, SURVIVED]
    assert torch.equal(result.images[2], data.images[2])  # clean errors stay clean


@settings(max_examples=15, deadline=None)
@given(eps=st.floats(0.01, 0.6), seed=st.integers(0, 99))
def test_every_member_keeps_its_budget(eps: float, seed: int) -> None:
    data = ImageSet(
        torch.rand(5, 1, 3, 4, generator=torch.Generator().manual_seed(seed)), torch.tensor([0, 1, 0, 1, 1]), 2
    )
    for name in (*DEFAULT_MEMBERS, "noise"):
        moved = evaluate(brightness, data, [parse_member(name)], eps=eps, seed=seed).images - data.images
        assert float(moved.abs().max()) <= eps + 1e-6


def test_an_attack_that_cheats_is_caught() -> None:
    clean = torch.full((1, 1, 2, 2), 0.5)
    with pytest.raises(AssertionError, match="its budget is 0.1"):
        check_budget(clean + 0.2, clean, 0.1)
    with pytest.raises(AssertionError, match="left .0, 1."):
        check_budget(clean * 0 - 0.05, clean * 0, 0.1)


def test_success_is_judged_from_the_returned_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Member, "perturb", lambda self, logits, clean, labels, noise, eps: clean)
    assert evaluate(brightness, grey(LEVELS), [parse_member("fgsm")], eps=0.3).robust_accuracy == 1.0


def test_samples_already_fooled_leave_the_batch() -> None:
    seen = []

    def counting(images: Tensor) -> Tensor:
        if images.requires_grad:
            seen.append(len(images))
        return brightness(images)

    evaluate(counting, grey(LEVELS), [parse_member("fgsm"), parse_member("fgsm")], eps=0.1)
    assert seen == [8, 4]


def test_batches_and_other_members_change_nothing() -> None:
    data = grey(LEVELS)
    members = [parse_member("pgd3"), parse_member("rfgsm")]
    whole = evaluate(brightness, data, members, eps=0.1, batch_size=8, seed=3)
    parts = evaluate(brightness, data, members, eps=0.1, batch_size=3, seed=3)
    assert torch.equal(whole.images, parts.images) and torch.equal(whole.broken_by, parts.broken_by)
    assert list(whole.accuracy_after().values()) == sorted(whole.accuracy_after().values(), reverse=True)


def test_members_are_parsed() -> None:
    member = parse_member("pgd20/exponential:1,2")
    assert (member.kind, member.steps, member.surrogate) == ("pgd", 20, Exponential(1, 2))
    assert parse_member("fgsm").surrogate == Triangular(1.0)
    for text, message in (
        ("pdg20", "attack 'pdg20' is unknown; did you mean 'pgd20'"),
        ("pgd0", "pgd takes its number of steps"),
        ("pgd7/rectangle:1", "surrogate 'rectangle' is unknown; did you mean 'rectangular'"),
    ):
        with pytest.raises(SettingsError, match=message):
            parse_member(text)


def test_the_ann_is_attacked_once_per_distinct_attack() -> None:
    assert [m.name for m in AttackSettings().members_for("ann")] == ["fgsm", "rfgsm", "pgd20"]
    assert len({repr(m.surrogate) for m in AttackSettings().members_for("snn") if m.kind == "pgd"}) >= 5


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"eps": (0.0,)}, r"attack.eps = \(0.0,\) is not allowed; give values in \(0, 1\)"),
        ({"eps": (0.1, 0.1)}, "give each value once"),
        ({"images": 0}, "attack.images = 0 is not allowed; use 1 or more"),
        ({"targets": ("ann", "chip")}, "choose from ann, snn, deployed"),
        ({"members": ()}, "name at least one attack"),
    ],
)
def test_settings_out_of_range(settings_: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(SettingsError, match=message):
        AttackSettings(**settings_)


def test_masking_is_noticed() -> None:
    """A classifier without gradient, broken more by noise than by its attack, stronger deployed than as a float."""
    data = grey(LEVELS)
    assert zero_gradient_share(constant, data, [parse_member("fgsm")]) == 1.0
    assert zero_gradient_share(brightness, data, [parse_member("fgsm")]) == 0.0
    fired = {
        check.name: check.fired
        for check in masking_checks(
            robust={0.1: 0.9, 0.2: 0.95},
            noise={0.1: 0.8, 0.2: 0.99},
            transferred={0.1: 0.7},
            float_robust={0.1: 0.85},
            zero_gradients=0.5,
        )
    }
    assert fired == {
        "noise beats the attack at eps 0.1": True,
        "transfer beats white-box at eps 0.1": True,
        "deployed looks more robust than float at eps 0.1": True,
        "noise beats the attack at eps 0.2": False,
        "a larger budget does not lower accuracy": True,
        "gradients vanish": True,
    }


def test_a_network_without_a_right_answer_is_asked_nothing_more() -> None:
    """No image stands, so no member may hand the network an empty batch (convolutions refuse one)."""
    asked: list[int] = []

    def wrong(images: Tensor) -> Tensor:
        asked.append(len(images))
        return torch.stack([torch.zeros(len(images)), torch.ones(len(images))], 1)

    data = ImageSet(torch.full((5, 1, 1, 1), 0.5), torch.zeros(5, dtype=torch.int64), 2)
    result = evaluate(wrong, data, [parse_member("fgsm"), parse_member("pgd2")], eps=0.1)
    assert (result.clean_accuracy, result.robust_accuracy) == (0, 0) and asked == [5]
