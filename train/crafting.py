"""How training makes adversarial images: which attack, on which loss, from where."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.attack.ball import Ball
from hardspike.attack.gradient import cross_entropy, divergence_from
from hardspike.attack.members import Member
from hardspike.attack.pgd import LossOfLabels
from hardspike.attack.problem import Problem
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


def _loss(name: str, network: SpikingNetwork, images: Tensor, labels: Tensor) -> LossOfLabels:
    if name == "cross_entropy":
        return cross_entropy
    with torch.no_grad():
        divergence = divergence_from(network(images))
    return lambda labels: divergence


def _attempt(
    settings: FitSettings,
    member: Member,
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    loss: LossOfLabels,
    draws: Draws,
) -> Tensor:
    given = _BatchDraws(draws.uniform(images))
    start = None
    if member.kind == "pgd" and settings.crafting_start() == "gaussian":
        start = images + GAUSSIAN_START * draws.normal(images)
    problem = Problem(model=network, labels=labels, ball=Ball.around(images, settings.eps), draws=given)
    return member.perturb(problem, loss=loss, start=start)


@dataclass(frozen=True, slots=True, eq=False)
class _BatchDraws:
    """The training batch's own random numbers, as attacks ask for them; training attacks ask once, for all of the batch."""

    noise: Tensor

    def uniform(self, purpose: int, like: Tensor) -> Tensor:
        return self.noise

    def take(self, which: Tensor) -> "_BatchDraws":
        return _BatchDraws(self.noise[which])

    def restarted(self, restart: int) -> "_BatchDraws":
        return self

    def shared(self, purpose: int) -> np.random.Generator:
        raise AssertionError("training has no attack that shares random numbers")


def _strongest(network: SpikingNetwork, attempts: list[Tensor], labels: Tensor) -> Tensor:
    """Per sample the attempt of the largest cross entropy."""
    with torch.no_grad():
        losses = torch.stack([F.cross_entropy(network(images), labels, reduction="none") for images in attempts])
    chosen = losses.argmax(0)
    return torch.stack(attempts)[chosen, torch.arange(len(chosen), device=chosen.device)]
