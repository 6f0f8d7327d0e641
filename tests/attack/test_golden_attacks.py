"""FGSM, RFGSM and PGD equal the authors' code, image by image."""

import golden_rsc as rsc
import torch

from hardspike.attack.gradient import cross_entropy, divergence_from, fgsm, gradient, pgd, rfgsm

DATA = rsc.arrays("rsc_conv2_if_T4")
IMAGES, LABELS, GAUSS = DATA["in_x"], DATA["in_y"].long(), DATA["in_gauss"]
# Adversarial images: the README's absolute tolerance for double precision.
ABSOLUTE = 1e-9


def _assert_images(found: torch.Tensor, name: str) -> None:
    assert float((found - DATA[name]).abs().max()) <= ABSOLUTE


def test_fgsm() -> None:
    _assert_images(fgsm(rsc.network(), IMAGES, cross_entropy(LABELS), eps=8 / 255), "fgsm_adv")


def test_rfgsm_on_cross_entropy() -> None:
    loss = cross_entropy(LABELS)
    _assert_images(rfgsm(rsc.network(), IMAGES, loss, eps=8 / 255, alpha=2 / 255, noise=GAUSS), "rfgsm_ce_adv")


def test_rfgsm_on_divergence() -> None:
    net = rsc.network()
    with torch.no_grad():
        loss = divergence_from(net(IMAGES))
    start = (IMAGES + 1 / 255 * GAUSS.sign()).clamp(0, 1)
    rsc.assert_golden(loss(net(start)), "rfgsm_kl_value")
    rsc.assert_golden(gradient(net, start, loss), "rfgsm_kl_grad")
    _assert_images(rfgsm(net, IMAGES, loss, eps=2 / 255, alpha=1 / 255, noise=GAUSS), "rfgsm_kl_adv")


def test_pgd7() -> None:
    eps = 8 / 255
    start = IMAGES + (2 * DATA["in_unif"] - 1) * eps
    attacked = pgd(rsc.network(), IMAGES, cross_entropy(LABELS), eps=eps, steps=7, step_size=2.5 * eps / 7, start=start)
    _assert_images(attacked, "pgd7_adv")


def test_pgd_from_a_near_start_as_mart_uses_it() -> None:
    start = (IMAGES + 0.001 * GAUSS).clamp(0, 1)
    attacked = pgd(
        rsc.network(), IMAGES, cross_entropy(LABELS), eps=2 / 255, steps=10, step_size=0.5 / 255, start=start
    )
    _assert_images(attacked, "mart_pgd_adv")
