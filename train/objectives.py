"""From settings to an objective: what one batch adds to the loss, once or several times.

An objective yields losses; the loop makes one optimiser step for each (all but HIRE-SNN have one). `network` is in training
mode before and after.
"""

from collections.abc import Callable, Iterator

from torch import Tensor

from hardspike.snn.network import SpikingNetwork
from hardspike.train.crafting import crafting
from hardspike.train.draws import Draws
from hardspike.train.hire import HireObjective
from hardspike.train.losses import adversarial_loss, mart_loss, natural_loss, trades_loss
from hardspike.train.orthogonal import sign_penalty
from hardspike.train.settings import FitSettings

Objective = Callable[[SpikingNetwork, Tensor, Tensor, Draws], Iterator[Tensor]]


def objective(settings: FitSettings) -> Objective:
    """The objective of one epoch. Any of them works with any network, but `hire` needs timesteps."""
    hire = HireObjective(settings)

    def losses(network: SpikingNetwork, images: Tensor, labels: Tensor, draws: Draws) -> Iterator[Tensor]:
        craft = crafting(settings, draws)
        match settings.objective:
            case "natural":
                found = iter([natural_loss(network, images, labels)])
            case "adversarial":
                found = iter([adversarial_loss(network, images, labels, craft)])
            case "mart":
                found = iter([mart_loss(network, images, labels, craft, settings.beta)])
            case "hire":
                found = hire.losses(network, images, labels)
            case "trades" | "robust_kl":
                found = iter([trades_loss(network, images, labels, craft, settings.beta)])
        for loss in found:
            yield loss + settings.sign_penalty * sign_penalty(network) if settings.sign_penalty else loss

    return losses
