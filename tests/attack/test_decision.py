"""HopSkipJump through foolbox: breaks what classes alone give away, within its budget of queries, whatever the batch."""

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

from hardspike.attack import decision
from hardspike.attack.evaluation import Attacker, Evaluation, run_members
from hardspike.attack.members import parse_member
from hardspike.snn.data import ImageSet
from hardspike.snn.errors import SettingsError

needs_foolbox = pytest.mark.skipif(importlib.util.find_spec("foolbox") is None, reason="foolbox is not installed")


def brightness(images: Tensor) -> Tensor:
    """Classes without any gradient: dark or bright."""
    bright = images.flatten(1).mean(1) > 0.5
    return torch.stack([~bright, bright], 1).float()


LEVELS = torch.tensor([0.1, 0.46, 0.53, 0.95])
IMAGES = LEVELS.view(-1, 1, 1, 1).expand(-1, 1, 3, 3).clone()
DATA = ImageSet(IMAGES, (LEVELS > 0.5).long(), 2)


def run(model: Any, eps: float, queries: int, **options: Any) -> Evaluation:
    member = parse_member(f"hop-skip-jump{queries}")
    *_, made = run_members(Attacker(model=model, data=DATA, eps=eps, **options), [member])
    return made


@pytest.mark.peers
@needs_foolbox
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.12), ("l2", 0.36)])
def test_breaks_what_lies_near_the_border(norm: str, eps: float) -> None:
    """Both borders are 0.04 away in every pixel; the far images are out of reach."""
    asked: list[int] = []

    def counted(images: Tensor) -> Tensor:
        asked.append(len(images))
        return brightness(images)

    made = run(counted, eps, 600, norm=norm)
    assert made.broken_by.tolist() == [-1, 0, 0, -1]
    assert sum(asked) <= 4 * 600 + 3 * 4  # and the judge's own
    assert torch.equal(made.images, run(brightness, eps, 600, norm=norm, batch_size=1).images)


@pytest.mark.peers
@needs_foolbox
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_constant_model_is_left_alone() -> None:
    def constant(images: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(torch.zeros(len(images), dtype=torch.int64), 2).float()

    assert run(constant, 0.5, 100).robust_accuracy == 0.5


def test_without_foolbox_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "foolbox", None)
    with pytest.raises(SettingsError, match=r"needs foolbox, which is not installed; install hardspike\[decision\]"):
        decision._foolbox()
