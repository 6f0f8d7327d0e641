"""SNN-RAT: values and gradients of both backward passes, the retraction of weights, the simplex and the penalty of its authors' code."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import golden_rsc as rsc
import pytest
import torch
from small_networks import image
from torch.nn import functional as F

from hardspike.snn.architecture import Convolution, Dense, Flatten, Spiking, chain
from hardspike.snn.membrane import NeuronSettings
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.neuron import plain_torch
from hardspike.snn.surrogate import BackwardRate, Surrogate, Triangular, surrogate_gradient
from hardspike.train.orthogonal import project_on_simplex, retract, sign_penalty

NET, PARTS = "rat_net_T8", "rat_retraction_and_neuron"
DATA, ALONE = rsc.arrays(NET), rsc.arrays(PARTS)
LABELS = DATA["in_y"].long()
FIRING: dict[str, tuple[NeuronSettings, Surrogate]] = {
    "bptt": (NeuronSettings(), Triangular(1.0)),
    "bptr": (NeuronSettings(strict=True), BackwardRate()),
}


def _network(neuron: NeuronSettings) -> SpikingNetwork:
    """The golden `conv2` with biases in its convolutions."""
    plain = rsc.architecture()
    layers = []
    for node in plain.nodes:
        layer = node.layer
        if isinstance(layer, Convolution):
            layer = Convolution(out_channels=layer.out_channels, kernel_size=(3, 3), padding=(1, 1), bias=True)
        layers.append((node.name, Spiking(neuron=neuron) if isinstance(layer, Spiking) else layer))
    net = SpikingNetwork(chain(plain.input, layers), 8).double()
    weights = {rsc.parameter_name(key[2:]): value for key, value in DATA.items() if key.startswith("w_")}
    missing = net.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    assert all(key.endswith(("num_batches_tracked", ".leak", ".threshold")) for key in missing.missing_keys)
    return net


@pytest.mark.parametrize("backward", FIRING)
@pytest.mark.parametrize("kernel", [nullcontext, plain_torch], ids=["fused", "plain"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_forward_and_all_gradients(
    mode: str, kernel: Callable[[], AbstractContextManager[None]], backward: str
) -> None:
    neuron, surrogate = FIRING[backward]
    net = _network(neuron).train(mode == "train")
    images = DATA["in_x"].clone().requires_grad_(True)
    with kernel(), surrogate_gradient(surrogate), net.recording() as (spikes, _):
        logits = net(images)
    loss = F.cross_entropy(logits, LABELS)
    loss.backward()
    prefix = f"{mode}_{backward}_"
    rsc.assert_golden(logits, f"{prefix}logits", NET)
    rsc.assert_golden(loss, f"{prefix}loss_ce", NET)
    if backward == "bptt":
        for name in ("lif1", "lif2"):
            assert torch.equal(spikes[name], DATA[f"{prefix}spikes_{name}"])
    parameters = {name: p for name, p in net.named_parameters() if p.requires_grad}
    keys = [key.removeprefix(f"{prefix}grad_") for key in DATA if key.startswith(f"{prefix}grad_")]
    assert {rsc.parameter_name(key) for key in keys if key != "x"} == set(parameters)
    for key in keys:
        found = images.grad if key == "x" else parameters[rsc.parameter_name(key)].grad
        assert found is not None
        if mode == "train" and key in ("conv1_bias", "conv2_bias"):  # 0 but for rounding: batch statistics take it away
            assert float((found - DATA[f"{prefix}grad_{key}"]).abs().max()) <= 1e-6
        else:
            rsc.assert_golden(found, f"{prefix}grad_{key}", NET)


def test_retraction_of_every_weight() -> None:
    net = _network(NeuronSettings())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for factor, times, golden in ((0.004, 1, "retract1"), (0.1, 2, "retract3")):
        for _ in range(times):
            retract(net, factor, torch.Generator())
        for layer in ("conv1", "conv2", "fc1"):
            rsc.assert_golden(net.get_parameter(f"layers.{layer}.weight"), f"{golden}_{layer}_weight", NET)
    for name, value in net.state_dict().items():
        kept = name.endswith("bias") or ".bn" in name or "lif" in name
        assert torch.equal(value, before[name]) == kept, name


def test_retraction_of_a_large_layer_moves_the_drawn_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ALONE["in_big_rows"].long()
    rest = [row for row in range(210) if row not in set(rows.tolist())]
    order = torch.cat([rows, torch.tensor(rest)])
    net = SpikingNetwork(chain(image(1, 3, 4), [("flat", Flatten()), ("big", Dense(out_features=210))])).double()
    weight = net.get_parameter("layers.big.weight")
    weight.data.copy_(ALONE["in_big_weight"])
    monkeypatch.setattr(torch, "randperm", lambda count, generator: order)
    retract(net, 0.05, torch.Generator())
    rsc.assert_golden(weight, "big_after", PARTS)


@pytest.mark.parametrize("size", [2, 3])
def test_scalars_of_a_merge_go_back_onto_the_simplex(size: int) -> None:
    for before, after in zip(ALONE[f"in_convex{size}"], ALONE[f"convex{size}_after"], strict=True):
        found = before.clone()
        project_on_simplex(found)
        assert float((found - after).abs().max()) <= 1e-9
        assert float(found.min()) >= 0 and float(found.sum()) == pytest.approx(1)


def test_sign_penalty_and_its_gradients() -> None:
    """The penalty's factor is 0.01; `sign_penalty` itself has none."""
    net = SpikingNetwork(
        chain(
            image(3, 3, 3),
            [
                ("conv", Convolution(out_channels=4, kernel_size=(3, 3), padding=(1, 1))),
                ("pool", Convolution(out_channels=7, kernel_size=(3, 3))),
                ("flat", Flatten()),
                ("fc", Dense(out_features=6, bias=True)),
            ],
        )
    ).double()
    with torch.no_grad():
        net.get_parameter("layers.conv.weight").copy_(ALONE["in_penalty_conv"])
        net.get_parameter("layers.pool.weight").zero_()
        net.get_parameter("layers.fc.weight").copy_(ALONE["in_penalty_fc"])
        net.get_parameter("layers.fc.bias").fill_(5.0)  # biases are no weights
    value = 0.01 * sign_penalty(net)
    value.backward()
    rsc.assert_golden(value, "penalty_value", PARTS)
    for name in ("conv", "fc"):
        found = net.get_parameter(f"layers.{name}.weight").grad
        assert found is not None
        rsc.assert_golden(found, f"penalty_grad_{name}", PARTS)
