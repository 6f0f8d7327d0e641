"""Values and gradients of the network, tdBN and surrogates equal the authors' code."""

import golden_rsc as rsc
import pytest
import torch
from torch.nn import functional as F

from hardspike.snn.surrogate import Surrogate, parse_surrogate, surrogate_gradient

DATA = rsc.arrays("rsc_conv2_if_T4")
IMAGES, LABELS = DATA["in_x"], DATA["in_y"].long()
SURROGATES = {
    **{f"pcw_{w}": f"triangular:{w}" for w in ("1", "2", "3", "0.5", "0.25")},
    **{f"exp_{d}_{s}": f"exponential:{d},{s}" for d in ("0.3", "1") for s in ("0.5", "1", "2")},
    **{f"rect_{w}": f"rectangular:{w}" for w in ("0.25", "0.5", "1", "2", "4")},
    "ste": "straight-through",
}


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_forward_and_all_gradients(mode: str) -> None:
    net = rsc.network()
    net.train(mode == "train")
    images = IMAGES.clone().requires_grad_(True)
    with net.recording() as (spikes, _):
        logits = net(images)
    loss = F.cross_entropy(logits, LABELS)
    loss.backward()
    rsc.assert_golden(logits, f"{mode}_logits")
    rsc.assert_golden(loss, f"{mode}_loss_ce")
    assert images.grad is not None
    rsc.assert_golden(images.grad, f"{mode}_grad_x")
    parameters = dict(net.named_parameters())
    for key in [key for key in DATA if key.startswith(f"{mode}_grad_") and not key.endswith("grad_x")]:
        grad = parameters[rsc.parameter_name(key.removeprefix(f"{mode}_grad_"))].grad
        assert grad is not None
        rsc.assert_golden(grad, key)
    if mode == "eval":
        for layer in ("lif1", "lif2"):
            assert torch.equal(spikes[layer], DATA[f"eval_spikes_{layer}"])
    else:
        state = net.state_dict()
        for key in [key for key in DATA if key.startswith("train_after_")]:
            rsc.assert_golden(state[rsc.parameter_name(key.removeprefix("train_after_"))], key)


@pytest.mark.parametrize(("golden", "text"), SURROGATES.items())
def test_image_gradient_of_each_surrogate(golden: str, text: str) -> None:
    net = rsc.network()
    images = IMAGES.clone().requires_grad_(True)
    with surrogate_gradient(parse_surrogate(text)):
        loss = F.cross_entropy(net(images), LABELS)
    (grad,) = torch.autograd.grad(loss, images)
    rsc.assert_golden(grad, f"sur_grad_x_{golden}")


def test_as_ann_every_neuron_is_a_relu() -> None:
    net = rsc.network(time_steps=None)
    images = IMAGES.clone().requires_grad_(True)
    logits = net(images)
    rsc.assert_golden(logits, "sur_logits_relu")
    (grad,) = torch.autograd.grad(F.cross_entropy(logits, LABELS), images)
    rsc.assert_golden(grad, "sur_grad_x_relu")


def test_surrogate_applies_only_inside_its_block() -> None:
    net = rsc.network()
    images = IMAGES.clone().requires_grad_(True)
    odd: Surrogate = parse_surrogate("rectangular:4")
    with surrogate_gradient(odd):
        inside = F.cross_entropy(net(images), LABELS)
    outside = F.cross_entropy(net(images), LABELS)
    rsc.assert_golden(torch.autograd.grad(outside, images)[0], "sur_grad_x_pcw_1")
    rsc.assert_golden(torch.autograd.grad(inside, images)[0], "sur_grad_x_rect_4")
