"""SA-PGD, the mixtures and the tuning of adaptive surrogates, each against its rule written out slowly."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hardspike.attack.ball import Ball
from hardspike.attack.evaluation import Attacker
from hardspike.attack.gradient import cross_entropy, gradient, margin
from hardspike.attack.greedy import greedy
from hardspike.attack.members import parse_member
from hardspike.attack.pgd import pgd
from hardspike.attack.problem import Problem, SampleDraws
from hardspike.attack.sa_pgd import halvings, sa_pgd
from hardspike.attack.tuning import WIDTHS, ternary_search, tuned
from hardspike.snn.checkpoint import load_network
from hardspike.snn.data import ImageSet, load_dataset
from hardspike.snn.settings import DataSettings
from hardspike.snn.surrogate import Triangular, surrogate_gradient

GOLDEN = Path(__file__).parents[1] / "golden"
DIGITS = load_dataset(DataSettings(dataset="digits"))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return load_network(GOLDEN / "small_snn_adversarial.safetensors").double()


def problem(network: nn.Module, count: int, eps: float) -> Problem:
    images, labels = DIGITS.validation.images[:count].double(), DIGITS.validation.labels[:count]
    return Problem(
        model=network, labels=labels, ball=Ball.around(images, eps), draws=SampleDraws(5, torch.arange(count))
    )


def test_the_step_size_halves_when_the_paper_says() -> None:
    assert list(halvings(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert all(list(halvings(steps)) == sorted(set(halvings(steps))) for steps in range(1, 60))


def by_hand(network: nn.Module, image: Tensor, label: Tensor, eps: float, steps: int, uniform: Tensor) -> Tensor:
    """One image, the formulas of arXiv 2512.22522; the last iterate that fools, else the last."""
    low, high = (image - eps).clamp(min=0), (image + eps).clamp(max=1)
    t = 2 * uniform - 1
    x = (image + eps * t / t.abs().max()).clamp(low, high)
    m = v = torch.zeros_like(x)
    eta, halve_at, fooling = eps, [], None
    k = int(0.22 * steps)
    done = k
    while done <= steps:
        halve_at.append(done)
        k = max(k - int(0.03 * steps), int(0.06 * steps))
        done += k
    for step in range(1, steps + 1):
        if int(network(x[None]).argmax()) != int(label):
            fooling = x
        g = gradient(network, x[None], cross_entropy(label[None]))[0]
        m = 0.5 * m + g / g.abs().mean()
        v = 0.8 * v + g**2 / (g**2).mean()
        x = (x + (eta * m / (v.sqrt() + 1e-12)).clamp(-eta, eta)).clamp(low, high)
        eta = eta / 2 if step in halve_at else eta
    if int(network(x[None]).argmax()) != int(label):
        fooling = x
    return x if fooling is None else fooling


def test_sa_pgd_follows_its_rule(network: nn.Module) -> None:
    given = problem(network, 8, 0.12)
    uniform = given.draws.uniform(0, given.clean)
    found = sa_pgd(given, steps=14, uniform=uniform, stop_early=False)
    for row in range(8):
        expected = by_hand(network, given.clean[row], given.labels[row], 0.12, 14, uniform[row])
        assert float((found[row] - expected).abs().max()) <= 1e-9
    early = sa_pgd(given, steps=14, uniform=uniform)
    fooled = given.fools(found)
    assert torch.equal(given.fools(early), fooled) and 0 < int(fooled.sum()) < 8
    assert torch.equal(early[~fooled], found[~fooled])


def test_the_start_touches_the_ball(network: nn.Module) -> None:
    ball = Ball.around(torch.full((3, 1, 4, 4), 0.5), 0.1)
    start = ball.surface(SampleDraws(0, torch.arange(3)).uniform(0, ball.clean))
    torch.testing.assert_close((start - 0.5).abs().flatten(1).amax(1), torch.full((3,), 0.1))


def test_greedy_keeps_the_candidate_with_the_largest_margin(network: nn.Module) -> None:
    given, surrogates = problem(network, 10, 0.1), (Triangular(0.5), Triangular(2.0))
    found = greedy(given, surrogates=surrogates, steps=3, step_size=0.04, start=given.clean)
    for row in range(10):
        x, label = given.clean[row : row + 1], given.labels[row : row + 1]
        for _ in range(3):
            candidates = []
            for surrogate in surrogates:
                with surrogate_gradient(surrogate):
                    g = gradient(network, x, cross_entropy(label))
                candidates.append(given.take(torch.tensor([row])).ball.project(x + 0.04 * g.sign()))
            x = max(candidates, key=lambda c: float(margin(network(c), label).detach()))
            if float(margin(network(x), label).detach()) > 0:
                break
        assert float((found[row] - x[0]).abs().max()) <= 1e-12


def test_the_joint_step_follows_the_mean_gradient(network: nn.Module) -> None:
    given, surrogates = problem(network, 10, 0.1), (Triangular(0.5), Triangular(2.0))
    found = pgd(given, surrogates=surrogates, steps=1, step_size=0.05, start=given.clean)
    total = torch.zeros_like(given.clean)
    for surrogate in surrogates:
        with surrogate_gradient(surrogate):
            total += gradient(network, given.clean, cross_entropy(given.labels))
    expected = given.ball.project(given.clean + 0.05 * total.sign())
    already = given.fools(given.clean)
    assert torch.equal(found, torch.where(already.view(-1, 1, 1, 1), given.clean, expected))


def test_ternary_search_finds_a_single_peak() -> None:
    found = ternary_search(lambda a: (-abs(a - 0.437), 0.0), (0.35, 0.49), 8)
    assert abs(found - 0.437) < 0.14 * (2 / 3) ** 8
    level = ternary_search(lambda a: (0.0, -abs(a - 0.4)), (0.35, 0.49), 8)
    assert abs(level - 0.4) < 0.14 * (2 / 3) ** 8, "the margin decides among equals"


def test_only_what_has_no_parameter_is_tuned_and_only_on_validation_images(network: nn.Module) -> None:
    validation = ImageSet(DIGITS.validation.images[:20].double(), DIGITS.validation.labels[:20], 10)
    dark: list[Tensor] = []

    def watched(images: Tensor) -> Tensor:
        dark.extend(image for image in images.detach() if float(image.max()) < 0.5)
        return network(images)

    forbidden = ImageSet(torch.zeros((1, 1, 8, 8), dtype=torch.float64), torch.tensor([0]), 10)
    attacker = Attacker(model=watched, data=forbidden, eps=0.1, batch_size=20)
    names = ("pgd5/triangular:1", "sa-pgd4+detached/assg", "apgd-ce3/assg:0.41", "apgd-t3/assg", "pgd2/hart")
    found = tuned([parse_member(name) for name in names], attacker, validation)
    assert found[0].name == names[0] and found[2].name == names[2]
    sharpness = found[1].name.rpartition(":")[2]
    assert found[1].name == f"sa-pgd4+detached/assg:{sharpness}" and 0.35 <= float(sharpness) <= 0.49
    assert found[3].name == f"apgd-t3/assg:{sharpness}", "searched once"
    assert found[4].name.startswith("pgd2/hart:") and float(found[4].name.rpartition(":")[2]) in WIDTHS
    assert found[1].detach_reset is True
    assert not dark, "the black image that is to be evaluated was never shown"
