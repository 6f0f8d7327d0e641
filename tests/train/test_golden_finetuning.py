"""One step of robust finetuning equals the authors' code: images, loss, gradients, running statistics, updated weights."""

import golden_rsc as rsc
import pytest
import torch

from hardspike.train.objectives import robust_kl_loss

DATA = rsc.arrays("rsc_conv2_if_T4")


def test_one_step_of_robust_finetuning() -> None:
    net = rsc.network().train()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9, weight_decay=0.001)
    loss, attacked = robust_kl_loss(
        net, DATA["in_x"], DATA["in_y"].long(), DATA["in_gauss"], eps=2 / 255, alpha=1 / 255, beta=2.0
    )
    assert float((attacked - DATA["ft_adv"]).abs().max()) <= 1e-9
    rsc.assert_golden(loss, "ft_loss")
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = dict(net.named_parameters())
    for key in [key for key in DATA if key.startswith("ft_grad_")]:
        grad = parameters[rsc.parameter_name(key.removeprefix("ft_grad_"))].grad
        assert grad is not None
        rsc.assert_golden(grad, key)
    optimiser.step()
    state = net.state_dict()
    for key in [key for key in DATA if key.startswith("ft_after_")]:
        rsc.assert_golden(state[rsc.parameter_name(key.removeprefix("ft_after_"))], key)


def test_the_clean_batch_has_moved_the_statistics_before_the_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    net = rsc.network().train()
    seen = {}

    def spy(network: torch.nn.Module, *args: object, **kwargs: object) -> torch.Tensor:
        seen.update({key: value.clone() for key, value in network.state_dict().items()})
        assert not network.training
        return DATA["ft_adv"]

    monkeypatch.setattr("hardspike.train.objectives.rfgsm", spy)
    robust_kl_loss(net, DATA["in_x"], DATA["in_y"].long(), DATA["in_gauss"], eps=2 / 255, alpha=1 / 255, beta=2.0)
    for key in [key for key in DATA if key.startswith("ft_mid_")]:
        rsc.assert_golden(seen[rsc.parameter_name(key.removeprefix("ft_mid_"))], key)
