"""Checks for gradient masking: each fires on a model made to deceive in just that way, and none on an honest one."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hardspike import attack
from hardspike.attack.masking import zero_gradient_share
from hardspike.attack.members import parse_member
from hardspike.attack.robustness import Robustness, listens_to_surrogates
from hardspike.attack.suites import distinct
from hardspike.snn.checkpoint import load_network
from hardspike.snn.data import ImageSet

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand((60, 1, 4, 4), generator=GENERATOR)
WEIGHT = torch.randn((3, 16), generator=GENERATOR)
SUITE = ("fgsm", "pgd20")


def honest(images: Tensor) -> Tensor:
    return (images - 0.5).flatten(1) @ WEIGHT.T


LABELS = honest(IMAGES).argmax(1)


def quantised(images: Tensor) -> Tensor:
    """The same classes, but no gradient: the input is rounded first."""
    return honest((images * 255).round() / 255)


def random(images: Tensor) -> Tensor:
    return honest(images) + 0.05 * torch.randn(len(images), 3)


def certain(images: Tensor) -> Tensor:
    return 1000 * honest(images)


def probabilities(images: Tensor) -> Tensor:
    return honest(images).softmax(1)


def stubborn(images: Tensor) -> Tensor:
    """Right whatever is shown, by looking up what it should say."""
    return nn.functional.one_hot(LABELS[: len(images)], 3).float() + 0 * images.flatten(1).sum(1, keepdim=True)


def evaluated(model: object, eps: float = 0.05) -> Robustness:
    return attack.evaluate(model, IMAGES, LABELS, suite=SUITE, eps=eps)  # type: ignore[arg-type]


def fired(result: Robustness) -> set[str]:
    return {check.name for check in result.fired}


def test_an_honest_model_raises_nothing() -> None:
    result = evaluated(honest)
    assert fired(result) == set()
    assert len({check.name for check in result.checks}) == len(result.checks) == 9
    assert all(check.detail and check.anchor for check in result.checks)
    assert 0.2 < result.robust_accuracy < 0.9


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (quantised, {"gradients vanish", "black box or transfer stronger than white box"}),
        (random, {"outputs are random"}),
        (certain, {"logits are saturated"}),
        (probabilities, {"logits are saturated"}),
    ],
)
def test_deception_is_noticed(model: object, expected: set[str]) -> None:
    assert expected <= fired(evaluated(model))


def test_a_model_that_cannot_be_broken_is_suspect() -> None:
    result = attack.evaluate(stubborn, IMAGES[:4], LABELS[:4], suite=SUITE, eps=0.05)
    assert "an unbounded attack does not reach 0" in fired(result)


def test_what_fired_is_printed_with_a_link() -> None:
    text = str(evaluated(quantised))
    assert "suspect: gradients vanish" in text and "docs/attacks.md#vanishing-gradients" in text


def test_every_check_is_explained() -> None:
    """Headings of docs/attacks.md as GitHub makes anchors of them, for what a check links to."""
    root = Path(__file__).parents[2]
    text = (root / "docs" / "attacks.md").read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.split("\n")
        if line[:1] == "#"
    }
    sources = "".join((root / name).read_text() for name in ("attack/masking.py", "deploy/deployed_robustness.py"))
    anchors = set(re.findall(r'anchor="([^"]+)"', sources))
    assert len(anchors) == 10 and anchors <= headings


def test_zero_gradients_are_counted_over_all_surrogates() -> None:
    data = ImageSet(IMAGES, LABELS, 3)
    assert zero_gradient_share(quantised, data, [parse_member("fgsm")]) == 1.0
    assert zero_gradient_share(honest, data, [parse_member("fgsm")]) == 0.0


def test_only_spikes_of_ours_listen_to_surrogates(golden_network: nn.Module) -> None:
    images = torch.rand((4, 1, 8, 8), generator=GENERATOR)
    assert listens_to_surrogates(golden_network, images)
    assert not listens_to_surrogates(honest, IMAGES[:4])
    names = ("pgd20/triangular:1", "pgd20/rectangular:2", "pgd20+restarts=2/relu", "fgsm", "fgsm/relu")
    assert [member.name for member in distinct([parse_member(name) for name in names])] == [
        "pgd20",
        "pgd20+restarts=2",
        "fgsm",
    ]


@pytest.fixture(scope="module")
def golden_network() -> nn.Module:
    return load_network(Path(__file__).parents[1] / "golden" / "small_snn_natural.safetensors")
