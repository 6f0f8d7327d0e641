"""The AutoAttack family equals torchattacks' image by image where it can, and leaves no more images standing where it cannot."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from weak_classifiers import random_images

from hardspike.attack import fab
from hardspike.attack.apgd import apgd, apgd_targeted
from hardspike.attack.ball import Ball, Norm
from hardspike.attack.evaluation import predict, worst_case
from hardspike.attack.fab import fab_targeted
from hardspike.attack.gradient import cross_entropy, logits_ratio
from hardspike.attack.members import parse_member
from hardspike.attack.pgd import LossOfLabels
from hardspike.attack.problem import Problem
from hardspike.attack.square import square
from hardspike.attack.suites import parse_suite
from hardspike.snn.checkpoint import load_network
from hardspike.snn.data import load_dataset
from hardspike.snn.settings import DataSettings

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(
        find_spec("torchattacks") is None,
        reason="torchattacks is not installed (requirements/peers.txt)",
    ),
]
THEIR_NORM = {"linf": "Linf", "l2": "L2"}
GOLDEN = Path(__file__).parents[1] / "golden"
CLASSES = 6
LEAST = -1 + 1e-6  # where our normal numbers are cut


class OneRow:
    """The same random numbers for every sample, others for every purpose: both packages can be given them, whoever still stands."""

    def uniform(self, purpose: int, like: Tensor) -> Tensor:
        return torch.from_numpy(self.shared(purpose).random(like.shape[1:])).to(like).expand_as(like)

    def take(self, which: Tensor) -> "OneRow":
        return self

    def shared(self, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(purpose))


def smooth_problem(eps: float, norm: Norm) -> Problem:
    """Float64; three of the images are in a wrong class already."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(2, 6, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(216, 20), nn.Tanh()]
        model = nn.Sequential(*layers, nn.Linear(20, CLASSES)).double().eval()
    for parameter in model.parameters():
        parameter.data *= 2
    images = random_images((2, 6, 6), 16)
    with torch.no_grad():
        labels = model(images).argmax(1)
    labels[:3] = (labels[:3] + 1) % CLASSES
    return Problem(model=model, labels=labels, ball=Ball.around(images, eps, norm), draws=OneRow())


def theirs(name: str, case: Problem, **settings: Any) -> Tensor:
    """With our random starts, one per call of a random function, and in the dtype of the images throughout."""
    import torchattacks

    calls = iter(range(1000))

    def uniform(shape: torch.Size) -> Tensor:
        return OneRow().uniform(next(calls), torch.empty(shape, dtype=case.clean.dtype))

    before = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        if name != "Square":  # its squares are not drawn as ours are
            patch.setattr(torch, "rand", uniform)
            patch.setattr(torch, "randn", lambda shape: torch.erfinv((2 * uniform(shape) - 1).clamp(LEAST, -LEAST)))
        patch.setattr(Tensor, "float", lambda tensor: tensor.to(case.clean.dtype))
        attack = getattr(torchattacks, name)(case.model, eps=case.ball.eps, norm=THEIR_NORM[case.ball.norm], **settings)
        torch.set_default_dtype(case.clean.dtype)
        try:
            found: Tensor = attack(case.clean, case.labels)
        finally:
            torch.set_default_dtype(before)
    return found


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
@pytest.mark.parametrize(("loss", "their_loss"), [(cross_entropy, "ce"), (logits_ratio, "dlr")])
def test_apgd_is_theirs(loss: LossOfLabels, their_loss: str, steps: int) -> None:
    case = smooth_problem(0.06, "linf")
    found = apgd(case, loss, steps=steps, stop_early=False)
    expected = theirs("APGD", case, steps=steps, loss=their_loss)
    assert 3 < int(case.fools(found).sum()) < 16
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [2, 10])
def test_targeted_apgd_is_theirs(steps: int) -> None:
    case = smooth_problem(0.06, "linf")
    found = apgd_targeted(case, steps=steps, stop_early=False)
    expected = theirs("APGDT", case, steps=steps, n_classes=CLASSES)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_apgd_l2_is_theirs() -> None:
    """Image by image: their L2 step takes the first image's step size for the whole batch. Without the DLR loss: it has plateaus
    whose gradient is rounding noise, which L2 steps magnify."""
    whole = smooth_problem(0.5, "l2")
    for i in range(3, 9):
        case = whole.take(torch.tensor([i]))
        found = apgd(case, cross_entropy, steps=30, stop_early=False)
        torch.testing.assert_close(found, theirs("APGD", case, steps=30), rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_is_theirs(norm: Norm, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a ball that holds every image, and without leaving at the first: the nearest adversarial images."""
    case = smooth_problem(1.0 if norm == "linf" else 9.0, norm)
    monkeypatch.setattr(fab, "_inside", lambda ball, images: torch.zeros(len(images), dtype=torch.bool))
    found = fab_targeted(case, steps=20)
    expected = theirs("FAB", case, steps=20, multi_targeted=True, n_classes=CLASSES)
    assert case.fools(found).all()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("network", ["natural", "adversarial"])
@pytest.mark.parametrize(
    ("ours", "name", "settings"),
    [
        (partial(apgd, loss=cross_entropy, steps=10), "APGD", {"steps": 10}),
        (partial(apgd, loss=logits_ratio, steps=10), "APGD", {"steps": 10, "loss": "dlr"}),
        (partial(apgd_targeted, steps=10), "APGDT", {"steps": 10}),
        (partial(fab_targeted, steps=5), "FAB", {"steps": 5, "multi_targeted": True}),
        (partial(square, queries=100), "Square", {"n_queries": 100, "resc_schedule": False}),
    ],
    ids=["APGD-CE", "APGD-DLR", "T-APGD", "FAB-T", "Square"],
)
def test_no_more_images_of_a_spiking_network_stand(
    ours: Any, name: str, settings: dict[str, Any], network: str
) -> None:
    model = load_network(GOLDEN / f"small_snn_{network}.safetensors").eval()
    data = load_dataset(DataSettings(dataset="digits")).test
    ball = Ball.around(data.images[:40], 0.1)
    case = Problem(model=model, labels=data.labels[:40], ball=ball, draws=OneRow())
    fallen, wrong = int(case.fools(ours(case)).sum()), int(case.fools(ball.clean).sum())
    assert wrong + 4 < fallen < 40
    assert fallen >= int(case.fools(theirs(name, case, **settings)).sum())


@pytest.mark.parametrize("network", ["natural", "adversarial"])
@pytest.mark.parametrize(
    ("member", "name", "settings"),
    [("fgsm", "FGSM", {}), ("pgd10", "PGD", {"steps": 10, "alpha": 0.025, "random_start": True})],
)
def test_no_more_stand_under_single_steps_and_many(
    member: str, name: str, settings: dict[str, Any], network: str
) -> None:
    """The same budget, steps, step size and surrogate; PGD from random starts of its own each."""
    import torchattacks

    model = load_network(GOLDEN / f"small_snn_{network}.safetensors").eval()
    data = load_dataset(DataSettings(dataset="digits")).test.first(200)
    torch.manual_seed(0)
    found = getattr(torchattacks, name)(model, eps=0.1, **settings)(data.images, data.labels)
    expected = float((predict(model, found) == data.labels).double().mean())
    assert worst_case(model, data, [parse_member(member)], eps=0.1).robust_accuracy <= expected


@pytest.mark.slow
@pytest.mark.parametrize("network", ["natural", "adversarial"])
def test_fewer_stand_under_our_suite_than_under_their_autoattack(network: str) -> None:
    """`strong` on the published sharpness, against AutoAttack as torchattacks has it, with the surrogate the network trained with."""
    import torchattacks

    model = load_network(GOLDEN / f"small_snn_{network}.safetensors").eval()
    data = load_dataset(DataSettings(dataset="digits")).test.first(30)
    theirs_ = torchattacks.AutoAttack(model, norm="Linf", eps=0.1, version="standard", n_classes=10, seed=0)
    theirs_._autoattack.attacks[-1].n_queries = 1000  # of Square; 5,000 take a minute
    expected = float((predict(model, theirs_(data.images, data.labels)) == data.labels).double().mean())
    assert worst_case(model, data, parse_suite("strong"), eps=0.1).robust_accuracy <= expected
