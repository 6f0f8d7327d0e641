"""Batch norm per timestep, batch norm of what never changes, and dropout, each against the plain thing it stands for."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from small_networks import FLAT, conv, image
from torch import Tensor, nn
from torch.nn import functional as F

from hardspike.snn.architecture import Architecture, BatchNorm, Dense, Dropout, Spiking, chain
from hardspike.snn.errors import SettingsError, UnsupportedLayerError
from hardspike.snn.network import DropoutMask, SpikingNetwork, _norm_of_constant
from hardspike.snn.norms import BatchNormPerStep
from hardspike.snn.surrogate import Activation, surrogate_gradient

STEPS, BATCH, CHANNELS = 4, 3, 5
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _per_step(shift: bool) -> tuple[BatchNormPerStep, list[nn.BatchNorm2d]]:
    """The norm and one nn.BatchNorm2d for each of its steps, with the same parameters."""
    norm = BatchNormPerStep(CHANNELS, STEPS, 1e-4, shift).double()
    singles = [nn.BatchNorm2d(CHANNELS, eps=1e-4, momentum=0.1).double() for _ in range(STEPS)]
    with torch.no_grad():
        norm.weight.copy_(1 + 0.3 * _random(STEPS, CHANNELS, seed=1))
        if norm.bias is not None:
            norm.bias.copy_(_random(STEPS, CHANNELS, seed=2))
        for t, single in enumerate(singles):
            single.weight.copy_(norm.weight[t])
            single.bias.copy_(torch.zeros(CHANNELS) if norm.bias is None else norm.bias[t])
    return norm, singles


@pytest.mark.parametrize("shift", [False, True])
def test_norm_per_step_is_one_plain_norm_for_each(shift: bool) -> None:
    norm, singles = _per_step(shift)
    for training in (True, True, False):
        norm.train(training)
        merged = (2 + 3 * _random(STEPS * BATCH, CHANNELS, 4, 2, seed=3)).requires_grad_(True)
        parts = merged.detach().clone().requires_grad_(True)
        upstream = _random(STEPS * BATCH, CHANNELS, 4, 2, seed=4)
        value = norm(merged)
        plain = torch.cat([m.train(training)(x) for m, x in zip(singles, parts.chunk(STEPS), strict=True)])
        torch.testing.assert_close(value, plain, **EXACT)
        (upstream * value).sum().backward()
        (upstream * plain).sum().backward()
        torch.testing.assert_close(merged.grad, parts.grad, **EXACT)
    torch.testing.assert_close(norm.weight.grad, torch.stack([m.weight.grad for m in singles]), **EXACT)
    if shift:
        assert norm.bias is not None
        torch.testing.assert_close(norm.bias.grad, torch.stack([m.bias.grad for m in singles]), **EXACT)
    else:
        assert norm.bias is None
    assert norm.running_mean is not None and norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, torch.stack([m.running_mean for m in singles]), **EXACT)
    torch.testing.assert_close(norm.running_var, torch.stack([m.running_var for m in singles]), **EXACT)
    norm.reset_running_stats()
    assert torch.equal(norm.running_mean, torch.zeros(STEPS, CHANNELS).double())
    assert torch.equal(norm.running_var, torch.ones(STEPS, CHANNELS).double())


def _bntt() -> Architecture:
    norm = BatchNorm(steps=STEPS, eps=1e-4, shift=False)
    return chain(
        image(2, 6, 4),
        [
            ("conv", conv(CHANNELS)),
            ("norm", norm),
            ("spike", Spiking()),
            *FLAT,
            ("dense", Dense(out_features=6)),
            ("norm_dense", norm),
            ("spike_dense", Spiking()),
            ("out", Dense(out_features=3)),
        ],
    )


def test_network_with_norms_per_step_equals_a_loop_over_steps() -> None:
    """Also where the first convolution is computed once for all steps, and on a dense layer."""
    net = SpikingNetwork(_bntt(), STEPS).double().train()
    plain = deepcopy(net)
    images = _random(BATCH, 2, 6, 4, seed=5).sigmoid()
    convolved = plain.layers["conv"]((images - net.mean) / net.std)
    potentials, outputs = [torch.zeros(()).double(), torch.zeros(()).double()], []
    for t in range(STEPS):
        value = convolved
        for index, names in enumerate((("norm", "spike"), ("norm_dense", "spike_dense"))):
            norm = plain.layers[names[0]]
            value = F.batch_norm(value, None, None, norm.weight[t], None, True, 0.1, 1e-4)
            potentials[index] = potentials[index] + value
            value = (potentials[index] >= plain.neurons()[names[1]].threshold).double()
            potentials[index] = potentials[index] * (1 - value)
            value = plain.layers["dense"](value.flatten(1)) if index == 0 else plain.layers["out"](value)
        outputs.append(value)
    torch.testing.assert_close(net(images), torch.stack(outputs).mean(0), **EXACT)
    assert isinstance(net.layers["norm"], BatchNormPerStep) and net.layers["norm"].eps == 1e-4


@pytest.mark.parametrize(("steps", "found"), [(STEPS + 1, "5 timesteps"), (2, "2 timesteps"), (None, "an ANN")])
def test_norms_per_step_refuse_other_timesteps(steps: int | None, found: str) -> None:
    message = rf"network: {found} is not allowed; its batch norms .* are made for 4 timesteps"
    for attempt in (
        lambda: SpikingNetwork(_bntt(), steps),
        lambda: SpikingNetwork(_bntt(), STEPS).set_time_steps(steps),
    ):
        with pytest.raises(SettingsError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_norms_per_step_refuse_a_forward_pass_without_spikes() -> None:
    net = SpikingNetwork(_bntt(), STEPS)
    with surrogate_gradient(Activation("relu")), pytest.raises(SettingsError, match="have no form without spikes"):
        net(torch.zeros(1, 2, 6, 4))
    with pytest.raises(SettingsError, match="batch norm per step: made for 4 timesteps; run the network with these"):
        BatchNormPerStep(CHANNELS, STEPS, 1e-4, False)(torch.zeros(6, CHANNELS))


def test_a_norm_without_shift_must_have_steps() -> None:
    with pytest.raises(UnsupportedLayerError, match="a batch norm without shift needs `steps`"):
        SpikingNetwork(chain(image(1, 2, 2), [("norm", BatchNorm(shift=False))]))


@pytest.mark.parametrize("shape", [(6, CHANNELS, 3, 4), (2, CHANNELS, 1, 2), (7, CHANNELS)])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_norm_of_a_constant_is_the_norm_of_its_repetition(shape: tuple[int, ...], steps: int) -> None:
    make = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    short, plain = make(CHANNELS).double(), make(CHANNELS).double()
    with torch.no_grad():
        for module in (short, plain):
            module.weight.copy_(1 + 0.2 * _random(CHANNELS, seed=6))
            module.bias.copy_(_random(CHANNELS, seed=7))
    for seed in (8, 9):
        once = (1 + 2 * _random(*shape, seed=seed)).requires_grad_(True)
        often = once.detach().clone().requires_grad_(True)
        upstream = _random(steps, *shape, seed=10)
        value = _norm_of_constant(short, once, steps)
        repeated = plain(often.repeat(steps, *[1] * (len(shape) - 1))).unflatten(0, (steps, -1))
        torch.testing.assert_close(value.expand_as(repeated), repeated, **EXACT)
        (upstream * value).sum().backward()
        (upstream * repeated).sum().backward()
        torch.testing.assert_close(once.grad, often.grad, **EXACT)
    for name, value in short.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], msg=name, **EXACT)
    for name, parameter in short.named_parameters():
        torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad, **EXACT)


def _dropping(share: float, *, per_step: bool = False, on_image: bool = False) -> SpikingNetwork:
    drop = Dropout(share=share, per_step=per_step)
    layers = [("conv", conv(6)), ("spike", Spiking()), ("drop", drop), *FLAT, ("out", Dense(out_features=3))]
    if on_image:
        layers = [("drop", drop), *FLAT, ("out", Dense(out_features=3))]
    return SpikingNetwork(chain(image(2, 8, 8), layers), STEPS).double()


def _pictures() -> Tensor:
    return _random(BATCH, 2, 8, 8, seed=12).sigmoid()


def _masks(net: SpikingNetwork, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What each forward pass draws, as it draws it."""
    drawn: list[Tensor] = []
    plain = DropoutMask.draw

    def draw(self: DropoutMask, *arguments: Any) -> Tensor:
        drawn.append(plain(self, *arguments))
        return drawn[-1]

    monkeypatch.setattr(DropoutMask, "draw", draw)
    return drawn


@pytest.mark.parametrize("per_step", [False, True])
def test_dropout_multiplies_spikes_by_its_mask(per_step: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = _dropping(0.3, per_step=per_step).train()
    drawn = _masks(net, monkeypatch)
    with net.recording() as (spikes, _):
        logits = net(_pictures())
    (mask,) = drawn
    assert mask.shape == (STEPS if per_step else 1, BATCH, 6, 8, 8)
    kept = spikes["spike"] * mask  # one mask serves all steps, or each step has its own
    torch.testing.assert_close(logits, net.layers["out"](kept.flatten(2)).mean(0), **EXACT)
    assert sorted(mask.unique().tolist()) == [0, 1 / 0.7]
    if per_step:
        assert all(not torch.equal(mask[0], other) for other in mask[1:])
    assert all(not torch.equal(mask[0, 0], other) for other in mask[0, 1:])  # samples have masks of their own


def test_dropout_of_a_constant_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net = _dropping(0.3, on_image=True).train()
    drawn = _masks(net, monkeypatch)
    logits = net(_pictures())
    normalised = (_pictures() - net.mean) / net.std
    torch.testing.assert_close(logits, net.layers["out"]((normalised * drawn[0][0]).flatten(1)), **EXACT)


@pytest.mark.parametrize("per_step", [False, True])
def test_dropout_is_off_in_evaluation(per_step: bool) -> None:
    net, plain = _dropping(0.6, per_step=per_step), _dropping(0.0)
    plain.load_state_dict(net.state_dict())
    state = net.noise.generator.get_state()
    assert torch.equal(net.eval()(_pictures()), plain.eval()(_pictures()))
    assert torch.equal(net.noise.generator.get_state(), state)
    assert torch.equal(plain.train()(_pictures()), plain.eval()(_pictures()))  # a share of 0 does nothing


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_dropout_keeps_the_expected_value(share: float) -> None:
    net = _dropping(share)
    mask = net.layers["drop"].draw((1, 40_000), torch.zeros(1).double(), net.noise)
    error = (share / (1 - share) / mask.numel()) ** 0.5
    assert abs(float(mask.mean()) - 1) <= 4.5 * error


def test_dropout_is_fixed_by_the_noise_of_the_network() -> None:
    net = _dropping(0.5).train()
    state = net.noise.generator.get_state()
    first, second = net(_pictures()), net(_pictures())
    assert not torch.equal(first, second)
    net.noise.generator.set_state(state)
    torch.manual_seed(123)  # which has no part in it
    assert torch.equal(net(_pictures()), first)
    assert torch.equal(_dropping(0.5).train()(_pictures()), first)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_impossible_shares_are_refused(share: float) -> None:
    with pytest.raises(SettingsError, match=rf"dropout = {share} is not allowed; use a share in \[0, 1\)"):
        Dropout(share=share)
