"""What training minimises: small functions from a batch to a loss. Each leaves the network in training mode.

Adversarial images are crafted in evaluation mode (batch-norm running statistics) with the triangular surrogate of width 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.attack.gradient import cross_entropy, divergence_from, pgd, rfgsm
from hardspike.attack.members import STEP_RATIO
from hardspike.snn.network import SpikingNetwork

Objective = Callable[[SpikingNetwork, Tensor, Tensor, torch.Generator], Tensor]


def natural(network: SpikingNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Cross entropy on clean images, mean over the batch."""
    return F.cross_entropy(network(images), labels)


def adversarial(*, eps: float, steps: int) -> Objective:
    """Cross entropy on PGD images (Madry et al. 2018): start x + U(-eps, eps), step 2.5 eps / steps."""

    def objective(network: SpikingNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        start = images + eps * (2 * torch.rand(images.shape, generator=generator) - 1)
        network.eval()
        attacked = pgd(
            network,
            images,
            cross_entropy(labels),
            eps=eps,
            steps=steps,
            step_size=STEP_RATIO * eps / steps,
            start=start,
        )
        network.train()
        return F.cross_entropy(network(attacked), labels)

    return objective


def robust_kl(*, eps: float, alpha: float, beta: float) -> Objective:
    """CE(f(x), y) + beta * KL(f(x) || f(x~)) / B with x~ by RFGSM on that KL (arXiv 2311.09266 eq. 11 and 12)."""

    def objective(network: SpikingNetwork, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(images.shape, generator=generator)
        return robust_kl_loss(network, images, labels, noise, eps=eps, alpha=alpha, beta=beta)[0]

    return objective


def robust_kl_loss(
    network: SpikingNetwork, images: Tensor, labels: Tensor, noise: Tensor, *, eps: float, alpha: float, beta: float
) -> tuple[Tensor, Tensor]:
    """Loss and adversarial images for given noise. Order as in the authors' code: the clean forward comes first and its

    batch has already moved the running statistics with which the adversarial image is crafted.
    """
    clean = network(images)
    network.eval()
    with torch.no_grad():
        reference = network(images)
    attacked = rfgsm(network, images, divergence_from(reference), eps=eps, alpha=alpha, noise=noise)
    network.train()
    perturbed = network(attacked)
    divergence = F.kl_div(F.log_softmax(perturbed, 1), F.log_softmax(clean, 1), reduction="batchmean", log_target=True)
    return F.cross_entropy(clean, labels) + beta * divergence, attacked
