"""FGSM, RFGSM, PGD and the surrogate ensemble equal the authors' code, image by image."""

import golden_rsc as rsc
import pytest
import torch

from hardspike.attack.ball import Ball
from hardspike.attack.gradient import divergence_from, gradient
from hardspike.attack.members import parse_member
from hardspike.attack.pgd import fgsm, pgd, rfgsm
from hardspike.attack.problem import Problem, SampleDraws
from hardspike.attack.suites import SURROGATES
from hardspike.snn.network import SpikingNetwork

DATA = rsc.arrays("rsc_conv2_if_T4")
IMAGES, LABELS, GAUSS = DATA["in_x"], DATA["in_y"].long(), DATA["in_gauss"]
# Adversarial images: the README's absolute tolerance for double precision.
ABSOLUTE = 1e-9


def problem(eps: float, network: SpikingNetwork | None = None) -> Problem:
    model = rsc.network() if network is None else network
    draws = SampleDraws(0, torch.arange(len(LABELS)))
    return Problem(model=model, labels=LABELS, ball=Ball.around(IMAGES, eps), draws=draws)


def _assert_images(found: torch.Tensor, name: str) -> None:
    assert float((found - DATA[name]).abs().max()) <= ABSOLUTE


def test_fgsm() -> None:
    _assert_images(fgsm(problem(8 / 255)), "fgsm_adv")


def test_rfgsm_on_cross_entropy() -> None:
    _assert_images(rfgsm(problem(8 / 255), alpha=2 / 255, noise=GAUSS), "rfgsm_ce_adv")


def test_rfgsm_on_divergence() -> None:
    net = rsc.network()
    with torch.no_grad():
        loss = divergence_from(net(IMAGES))
    start = (IMAGES + 1 / 255 * GAUSS.sign()).clamp(0, 1)
    rsc.assert_golden(loss(net(start)).sum(), "rfgsm_kl_value")
    rsc.assert_golden(gradient(net, start, loss), "rfgsm_kl_grad")
    attacked = rfgsm(problem(2 / 255, net), lambda labels: loss, alpha=1 / 255, noise=GAUSS)
    _assert_images(attacked, "rfgsm_kl_adv")


def test_pgd7() -> None:
    eps = 8 / 255
    start = IMAGES + (2 * DATA["in_unif"] - 1) * eps
    attacked = pgd(problem(eps), steps=7, step_size=2.5 * eps / 7, start=start, stop_early=False)
    _assert_images(attacked, "pgd7_adv")


def test_pgd_from_a_near_start_as_mart_uses_it() -> None:
    start = (IMAGES + 0.001 * GAUSS).clamp(0, 1)
    attacked = pgd(problem(2 / 255), steps=10, step_size=0.5 / 255, start=start, stop_early=False)
    _assert_images(attacked, "mart_pgd_adv")


@pytest.mark.parametrize(("attack", "golden"), [("fgsm", "ensemble_fgsm"), ("pgd7+last", "ensemble_pgd")])
def test_the_ensemble_of_nineteen_surrogates(attack: str, golden: str) -> None:
    """Counted as the authors count: each member on the samples that the spiking network still gets right, from the same start."""
    eps, network = 1 / 255, rsc.network()
    start = IMAGES + (2 * DATA["in_unif"] - 1) * eps
    images = IMAGES.clone()
    broken = torch.zeros(len(LABELS), dtype=torch.bool)
    for name in SURROGATES:
        member = parse_member(f"{attack}/{name}")
        for row in (~broken).nonzero().flatten().split(1):
            attacked = member.perturb(problem(eps, network).take(row), start=start[row])
            if bool((network(attacked).argmax(1) != LABELS[row]).all()):
                images[row], broken[row] = attacked, True
    assert broken.tolist() == DATA[f"{golden}_success"].bool().tolist()
    _assert_images(images, f"{golden}_adv")
