"""What training minimises on one batch, given how adversarial images are made.

Clean images come first, in training mode, so that their batch has already moved the running statistics with which the
adversarial images are crafted in evaluation mode; then the adversarial batch is run in training mode (the order of the
authors' code of arXiv 2311.09266, for its ANNs and SNNs alike). Losses are means over the batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.snn.network import SpikingNetwork

Craft = Callable[[SpikingNetwork, Tensor, Tensor], Tensor]
"""Adversarial images of (network in evaluation mode, clean images, labels)."""


def crafted(network: SpikingNetwork, images: Tensor, labels: Tensor, craft: Craft) -> Tensor:
    """Adversarial images, made in evaluation mode; the network is left in training mode."""
    network.eval()
    attacked = craft(network, images, labels)
    network.train()
    return attacked


def natural_loss(network: SpikingNetwork, images: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy on clean images."""
    return F.cross_entropy(network(images), labels)


def adversarial_loss(network: SpikingNetwork, images: Tensor, labels: Tensor, craft: Craft) -> Tensor:
    """Cross entropy on adversarial images only (Madry et al. 2018; SNN-RAT)."""
    return F.cross_entropy(network(crafted(network, images, labels, craft)), labels)


def divergence(clean_logits: Tensor, other_logits: Tensor) -> Tensor:
    """KL(softmax clean || softmax other) per sample, shape [B]; the gradient runs through both."""
    clean, other = F.log_softmax(clean_logits, 1), F.log_softmax(other_logits, 1)
    return F.kl_div(other, clean, reduction="none", log_target=True).sum(1)


def trades_loss(network: SpikingNetwork, images: Tensor, labels: Tensor, craft: Craft, beta: float) -> Tensor:
    """CE(f(x), y) + beta KL(f(x) || f(x~)) (TRADES, Zhang et al. 2019; arXiv 2311.09266 eq. 5 and 11)."""
    clean = network(images)
    perturbed = network(crafted(network, images, labels, craft))
    return F.cross_entropy(clean, labels) + beta * divergence(clean, perturbed).mean()


def mart_loss(network: SpikingNetwork, images: Tensor, labels: Tensor, craft: Craft, beta: float) -> Tensor:
    """CE(f(x~), y) - log(1.0001 - max wrong p(x~)) + beta KL_i (1 - p_i(x)[y]) (MART, Wang et al. 2020; constants of its code)."""
    clean = network(images).softmax(1)
    logits = network(crafted(network, images, labels, craft))
    attacked = logits.softmax(1)
    wrong = attacked.scatter(1, labels[:, None], -1.0).argmax(1)
    margin = F.nll_loss(torch.log(1.0001 - attacked + 1e-12), wrong)
    kl: Tensor = (clean * (clean.log() - torch.log(attacked + 1e-12))).sum(1)
    true = clean.gather(1, labels[:, None]).squeeze(1)
    loss: Tensor = F.cross_entropy(logits, labels) + margin + beta * (kl * (1.0000001 - true)).mean()
    return loss
