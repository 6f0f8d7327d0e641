"""HIRE-SNN (Kundu et al., ICCV 2021): the timesteps of one batch fall into periods with crafted noise between them.

Its training code was never published; this is a reconstruction from the abstract and the figure of the training procedure,
and what is not known is a field: `periods` (the figure has two in four steps), `eps` and `hire_step` (budget and step of the
noise), `hire_carry_potential` (whether membrane potentials run on between periods), `hire_keep_noise` (whether the noise
stays from batch to batch, as in "free" adversarial training) and `hire_gradient`: the caption says that the input gradient is
taken with the `updated` weights, which costs another forward and backward pass of the period; `same` takes it from the pass
that updated them.
"""

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork
from hardspike.train.settings import FitSettings


class HireObjective:
    """One loss, and so one optimiser step, per period: CE of the period's own logits on clean, then on noisy images."""

    def __init__(self, settings: FitSettings) -> None:
        self.settings = settings
        self._noise: Tensor | None = None

    def losses(self, network: SpikingNetwork, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """Raises SettingsError for an ANN, or timesteps that do not fall into equal periods."""
        settings, steps = self.settings, network.time_steps
        if steps is None or steps % settings.periods:
            raise SettingsError(
                f"objective hire: {steps or 'no'} timesteps do not fall into {settings.periods} equal periods; "
                "use a spiking network and a multiple"
            )
        noise = self._first_noise(images)
        network.set_time_steps(steps // settings.periods)
        try:
            with network.carrying() if settings.hire_carry_potential else nullcontext():
                for period in range(settings.periods):
                    noisy = (images + noise).clamp(0, 1).requires_grad_(True)
                    start = {name: neuron.carried for name, neuron in network.neurons().items()}
                    loss = F.cross_entropy(network(noisy), labels)
                    yield loss
                    if period + 1 < settings.periods or settings.hire_keep_noise:
                        gradient = self._gradient(network, noisy, labels, start)
                        noise = (noise + settings.hire_step * gradient.sign()).clamp(-settings.eps, settings.eps)
        finally:
            network.set_time_steps(steps)
        self._noise = noise.detach()

    def _first_noise(self, images: Tensor) -> Tensor:
        kept = self._noise
        if not self.settings.hire_keep_noise or kept is None or len(kept) < len(images):
            return torch.zeros_like(images)
        return kept[: len(images)]

    def _gradient(
        self, network: SpikingNetwork, noisy: Tensor, labels: Tensor, start: dict[str, Tensor | None]
    ) -> Tensor:
        """With respect to the period's images; start: the potentials it began with, where they are carried."""
        if self.settings.hire_gradient == "same":
            assert noisy.grad is not None, "the loop has not run the backward pass of the period"
            return noisy.grad
        with torch.enable_grad():
            again = noisy.detach().requires_grad_(True)
            reached = {name: neuron.carried for name, neuron in network.neurons().items()}
            _set_carried(network, start)
            (result,) = torch.autograd.grad(F.cross_entropy(network(again), labels), again)
            _set_carried(network, reached)  # the look at the gradient is no period of its own
        return result


def _set_carried(network: SpikingNetwork, potentials: dict[str, Tensor | None]) -> None:
    for name, neuron in network.neurons().items():
        neuron.carried = potentials[name]
