"""One step of robust finetuning, and MART's outer loss, equal the authors' code: images, loss, gradients, statistics, weights."""

import golden_rsc as rsc
import torch
from torch import Tensor

from hardspike.attack.ball import Ball
from hardspike.attack.gradient import divergence_from
from hardspike.attack.pgd import rfgsm
from hardspike.attack.problem import Problem, SampleDraws
from hardspike.snn.network import SpikingNetwork
from hardspike.train.losses import mart_loss, trades_loss

DATA = rsc.arrays("rsc_conv2_if_T4")
IMAGES, LABELS = DATA["in_x"], DATA["in_y"].long()


def _assert_gradients(net: SpikingNetwork, prefix: str) -> None:
    parameters = dict(net.named_parameters())
    for key in [key for key in DATA if key.startswith(prefix)]:
        grad = parameters[rsc.parameter_name(key.removeprefix(prefix))].grad
        assert grad is not None
        rsc.assert_golden(grad, key)


def test_one_step_of_robust_finetuning() -> None:
    net = rsc.network().train()
    seen: dict[str, Tensor] = {}

    def craft(network: SpikingNetwork, images: Tensor, labels: Tensor) -> Tensor:
        assert not network.training
        seen.update({key: value.clone() for key, value in network.state_dict().items()})
        with torch.no_grad():
            loss = divergence_from(network(images))
        draws = SampleDraws(0, torch.arange(len(labels)))
        problem = Problem(model=network, labels=labels, ball=Ball.around(images, 2 / 255), draws=draws)
        attacked = rfgsm(problem, lambda _: loss, alpha=1 / 255, noise=DATA["in_gauss"])
        assert float((attacked - DATA["ft_adv"]).abs().max()) <= 1e-9
        return attacked

    optimiser = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9, weight_decay=0.001)
    loss = trades_loss(net, IMAGES, LABELS, craft, 2.0)
    rsc.assert_golden(loss, "ft_loss")
    for key in [key for key in DATA if key.startswith("ft_mid_")]:  # the clean batch has moved the statistics before
        rsc.assert_golden(seen[rsc.parameter_name(key.removeprefix("ft_mid_"))], key)
    torch.autograd.backward(loss)
    _assert_gradients(net, "ft_grad_")
    optimiser.step()
    state = net.state_dict()
    for key in [key for key in DATA if key.startswith("ft_after_")]:
        rsc.assert_golden(state[rsc.parameter_name(key.removeprefix("ft_after_"))], key)


def test_outer_loss_of_mart() -> None:
    net = rsc.network().train()
    loss = mart_loss(net, IMAGES, LABELS, lambda *_: DATA["mart_pgd_adv"], 4.0)
    rsc.assert_golden(loss, "mart_loss")
    torch.autograd.backward(loss)
    _assert_gradients(net, "mart_grad_")
