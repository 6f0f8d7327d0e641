"""How training makes adversarial images: which attack, on which loss, from where."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.attack.gradient import Loss, cross_entropy, divergence_from
from hardspike.attack.members import Member
from hardspike.snn.network import SpikingNetwork
from hardspike.train.draws import Draws
from hardspike.train.losses import Craft
from hardspike.train.settings import FitSettings

# TRADES and MART start PGD from here rather than from a uniform image of the ball (their papers' code).
GAUSSIAN_START = 0.001


def crafting(settings: FitSettings, draws: Draws) -> Craft:
    """The settings' attack with this batch's random numbers; `draws` is used when the result is called."""

    def craft(network: SpikingNetwork, images: Tensor, labels: Tensor) -> Tensor:
        members = settings.members()
        member = members[draws.index(len(members))]
        loss = _loss(settings.crafting_loss(), network, images, labels)
        attempts = [
            _attempt(settings, member, network, images, labels, loss, draws)
            for _ in range(settings.restarts if member.kind == "pgd" else 1)
        ]
        return attempts[0] if len(attempts) == 1 else _strongest(network, attempts, labels)

    return craft


def _loss(name: str, network: SpikingNetwork, images: Tensor, labels: Tensor) -> Loss:
    if name == "cross_entropy":
        return cross_entropy(labels)
    with torch.no_grad():
        return divergence_from(network(images))


def _attempt(
    settings: FitSettings,
    member: Member,
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    loss: Loss,
    draws: Draws,
) -> Tensor:
    noise = draws.uniform(images)
    start = None
    if member.kind == "pgd" and settings.crafting_start() == "gaussian":
        start = images + GAUSSIAN_START * draws.normal(images)
    return member.perturb(network, images, labels, noise, settings.eps, loss=loss, start=start)


def _strongest(network: SpikingNetwork, attempts: list[Tensor], labels: Tensor) -> Tensor:
    """Per sample the attempt of the largest cross entropy."""
    with torch.no_grad():
        losses = torch.stack([F.cross_entropy(network(images), labels, reduction="none") for images in attempts])
    chosen = losses.argmax(0)
    return torch.stack(attempts)[chosen, torch.arange(len(chosen), device=chosen.device)]
