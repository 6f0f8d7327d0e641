"""What training minimises, against the formulas written out: values, gradients, and which images they are of."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small_networks import FLAT, block, image
from torch import Tensor
from torch.nn import functional as F

from hardspike.attack.ball import Ball
from hardspike.attack.gradient import cross_entropy, divergence_from, gradient
from hardspike.attack.pgd import rfgsm
from hardspike.attack.problem import Problem
from hardspike.snn.architecture import Dense, Spiking, chain
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.surrogate import surrogate_gradient
from hardspike.train.crafting import crafting
from hardspike.train.draws import whole
from hardspike.train.objectives import objective
from hardspike.train.settings import FitSettings

SHAPE = (1, 4, 3)
PLAIN = chain(image(*SHAPE), [*FLAT, ("a", Dense(out_features=9)), ("s", Spiking()), ("out", Dense(out_features=4))])
NORMED = chain(image(*SHAPE), [*FLAT, *block("a", Dense(out_features=9)), ("out", Dense(out_features=4, bias=True))])
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-14}


def _random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


IMAGES, ATTACKED, LABELS = _random(1, 6, *SHAPE), _random(2, 6, *SHAPE), torch.tensor([0, 1, 2, 3, 1, 2])


def _network(time_steps: int | None = 3, *, normed: bool = False) -> SpikingNetwork:
    return SpikingNetwork(NORMED if normed else PLAIN, time_steps).double().train()


def _produced(
    settings: FitSettings, network: SpikingNetwork, seed: int = 0, images: Tensor = IMAGES, labels: Tensor = LABELS
) -> Iterator[Tensor]:
    return objective(settings)(network, images, labels, whole(torch.Generator().manual_seed(seed), len(images)))


def _single(settings: FitSettings, network: SpikingNetwork, seed: int = 0) -> Tensor:
    (loss,) = _produced(settings, network, seed)
    return loss


def _seen(network: SpikingNetwork) -> list[tuple[bool, Tensor]]:
    """(in training mode, images) of each forward pass to come."""
    seen: list[tuple[bool, Tensor]] = []
    network.register_forward_pre_hook(lambda net, inputs: seen.append((net.training, inputs[0].detach().clone())))
    return seen


def _softmax(logits: Tensor) -> Tensor:
    powers = torch.exp(logits)
    return powers / powers.sum(1, keepdim=True)


def _entropy(p: Tensor) -> Tensor:
    return -sum(torch.log(p[i, label]) for i, label in enumerate(LABELS.tolist())) / len(LABELS)  # type: ignore[return-value]


def _divergence(p: Tensor, q: Tensor, i: int) -> Tensor:
    return sum(p[i, k] * (torch.log(p[i, k]) - torch.log(q[i, k])) for k in range(4))  # type: ignore[return-value]


def _trades(p: Tensor, q: Tensor) -> Tensor:
    return _entropy(p) + 3.0 / 6 * sum(_divergence(p, q, i) for i in range(6))


def _mart(p: Tensor, q: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for i, label in enumerate(LABELS.tolist()):
        wrong = [(value, k) for k, value in enumerate(q[i].tolist()) if k != label]
        _, k = max(wrong)
        distance = sum(p[i, j] * (torch.log(p[i, j]) - torch.log(q[i, j] + 1e-12)) for j in range(4))
        margin = -torch.log(1.0001 - q[i, k] + 1e-12)
        total = total - torch.log(q[i, label]) + margin + 3.0 * distance * (1.0000001 - p[i, label])
    return total / 6


WRITTEN_OUT = {
    "natural": lambda p, q: _entropy(p),
    "adversarial": lambda p, q: _entropy(q),
    "trades": _trades,
    "robust_kl": _trades,
    "mart": _mart,
}


def _with_gradients(loss: Tensor, network: SpikingNetwork) -> list[Tensor]:
    parameters = [p for p in network.parameters() if p.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, parameters)]


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("time_steps", [None, 3])
@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_loss_and_gradient_are_the_formula(
    name: str, time_steps: int | None, penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardspike.train.objectives.crafting", lambda settings, draws: lambda *_: ATTACKED)
    network = _network(time_steps)
    settings = FitSettings(objective=name, beta=3.0, sign_penalty=penalty)  # type: ignore[arg-type]
    found = _with_gradients(_single(settings, network), network)
    loss = WRITTEN_OUT[name](_softmax(network(IMAGES)), _softmax(network(ATTACKED)))
    for layer in ("a", "out"):
        weight = network.get_parameter(f"layers.{layer}.weight")
        positive = max(torch.stack([w for w in row if w > 0]).sum() for row in weight)
        negative = max(-torch.stack([w for w in row if w < 0]).sum() for row in weight)
        loss = loss + penalty * (positive + negative)
    for mine, expected in zip(found, _with_gradients(loss, network), strict=True):
        torch.testing.assert_close(mine, expected, **EXACT)


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_gradient_of_an_ann_is_the_slope_of_the_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Central differences along one direction in the space of weights."""
    monkeypatch.setattr("hardspike.train.objectives.crafting", lambda settings, draws: lambda *_: ATTACKED)
    network = _network(None)
    settings = FitSettings(objective=name, beta=3.0)  # type: ignore[arg-type]
    weights = [p for p in network.parameters() if p.requires_grad]
    direction = [_random(9, *p.shape) - 0.5 for p in weights]
    slopes = _with_gradients(_single(settings, network), network)[1:]
    slope = sum(float((g * d).sum()) for g, d in zip(slopes, direction, strict=True))

    def moved(step: float) -> float:
        with torch.no_grad():
            for weight, d in zip(weights, direction, strict=True):
                weight += step * d
            value = float(_single(settings, network))
            for weight, d in zip(weights, direction, strict=True):
                weight -= step * d
        return value

    assert (moved(1e-6) - moved(-1e-6)) / 2e-6 == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("natural", [True]),
        ("adversarial", [False, False, True]),
        ("trades", [True, False, False, False, True]),
        ("mart", [True, False, False, True]),
        ("robust_kl", [True, False, False, True]),
    ],
)
def test_images_are_crafted_in_evaluation_mode_after_the_clean_pass(name: str, passes: list[bool]) -> None:
    """TRADES and robust_kl look at the clean image once more, for the constant side of the KL."""
    network = _network(normed=True)
    attack = () if name == "robust_kl" else ("pgd2",)
    seen = _seen(network)
    settings = FitSettings(objective=name, attack=attack, eps=0.2)  # type: ignore[arg-type]
    torch.autograd.backward(_single(settings, network))
    assert [training for training, _ in seen] == passes and network.training
    trained = [images for training, images in seen if training]
    if name != "adversarial":
        assert torch.equal(trained[0], IMAGES)
    if name != "natural":
        assert 0 < float((trained[-1] - IMAGES).abs().max()) <= 0.2 + 1e-12


@dataclass(frozen=True)
class Given:
    """The random numbers of one attack."""

    noise: Tensor

    def uniform(self, purpose: int, like: Tensor) -> Tensor:
        return self.noise


def _problem(model: SpikingNetwork, noise: Tensor = IMAGES) -> Problem:
    return Problem(model=model, labels=LABELS, ball=Ball.around(IMAGES, 0.2), draws=Given(noise))  # type: ignore[arg-type]


def test_attack_of_a_mix_is_drawn_for_each_batch() -> None:
    """Replayed with the same generator on a copy in evaluation mode; each of the three comes up."""
    settings = FitSettings(objective="adversarial", attack=("fgsm/backward-rate", "rfgsm", "pgd2"), eps=0.2)
    drawn = set()
    for seed in range(12):
        network = _network(normed=True)
        with torch.no_grad():
            network(ATTACKED)  # so that running statistics are not those of the batch
        judge = deepcopy(network).eval()
        seen = _seen(network)
        loss = _single(settings, network, seed)
        generator = torch.Generator().manual_seed(seed)
        index = int(torch.randint(3, (), generator=generator))
        member = settings.members()[index]
        noise = torch.rand(IMAGES.shape, generator=generator).double()
        expected = member.perturb(_problem(judge, noise), loss=cross_entropy)
        assert seen[-1][0] and torch.equal(seen[-1][1], expected)
        torch.testing.assert_close(loss, F.cross_entropy(deepcopy(network).train()(expected), LABELS), **EXACT)
        drawn.add(index)
    assert drawn == {0, 1, 2}


def test_rfgsm_of_training_takes_its_share_of_eps_at_random() -> None:
    settings = FitSettings(objective="robust_kl", eps=0.2, alpha_share=0.25)
    network = _network(None).eval()
    found = crafting(settings, whole(torch.Generator().manual_seed(4), 6))(network, IMAGES, LABELS)
    noise = 2 * torch.rand(IMAGES.shape, generator=torch.Generator().manual_seed(4)).double() - 1
    loss = divergence_from(network(IMAGES))
    assert torch.equal(found, rfgsm(_problem(network), lambda _: loss, alpha=0.05, noise=noise))


def test_kl_has_no_gradient_at_the_clean_image() -> None:
    """So RFGSM with alpha = 0 would do nothing; the settings refuse it, and FGSM on the KL."""
    for time_steps in (None, 3):
        network = _network(time_steps).eval()
        loss = divergence_from(network(IMAGES))
        assert float(gradient(network, IMAGES, loss).abs().max()) <= 1e-14
        start = (IMAGES + 0.1 * (_random(5, *IMAGES.shape) - 0.5).sign()).clamp(0, 1)
        assert float(gradient(network, start, loss).abs().max()) > 1e-4


@pytest.mark.parametrize("name", ["trades", "mart"])
def test_pgd_of_trades_and_mart_starts_next_to_the_image(name: str) -> None:
    network = _network(None)
    settings = FitSettings(objective=name, attack=("pgd1",), eps=0.2)  # type: ignore[arg-type]
    seen = _seen(network)
    _single(settings, network, seed=8)
    generator = torch.Generator().manual_seed(8)
    torch.rand(IMAGES.shape, generator=generator)
    normal = torch.randn(IMAGES.shape, generator=generator).double()
    start = [images for training, images in seen if not training][-1]
    assert torch.equal(start, Ball.around(IMAGES, 0.2).project(IMAGES + 0.001 * normal))
    assert not torch.equal(start, IMAGES) and float((start - IMAGES).abs().max()) < 0.01


def test_pgd_of_the_others_starts_anywhere_in_the_ball() -> None:
    network = _network(None)
    seen = _seen(network)
    _single(FitSettings(objective="adversarial", attack=("pgd1",), eps=0.2), network, seed=8)
    uniform = torch.rand(IMAGES.shape, generator=torch.Generator().manual_seed(8)).double()
    assert torch.equal(seen[0][1], Ball.around(IMAGES, 0.2).project(IMAGES + 0.2 * (2 * uniform - 1)))


def test_restarts_keep_the_strongest_image_of_each_sample() -> None:
    settings = FitSettings(objective="adversarial", attack=("pgd2",), restarts=3, eps=0.2)
    network = _network(3).eval()
    found = crafting(settings, whole(torch.Generator().manual_seed(6), 6))(network, IMAGES, LABELS)
    generator, member = torch.Generator().manual_seed(6), settings.members()[0]
    attempts = [
        member.perturb(_problem(network, torch.rand(IMAGES.shape, generator=generator).double()), loss=cross_entropy)
        for _ in range(3)
    ]
    with torch.no_grad():
        losses = [[float(cross_entropy(LABELS[i : i + 1])(network(a[i : i + 1]))) for a in attempts] for i in range(6)]
    strongest = [max(range(3), key=row.__getitem__) for row in losses]
    assert torch.equal(found, torch.stack([attempts[best][i] for i, best in enumerate(strongest)]))
    assert len(set(strongest)) > 1


def test_attacks_of_training_use_its_surrogate_unless_they_name_one() -> None:
    settings = FitSettings(attack=("pgd3", "fgsm/backward-rate"), surrogate="linear:0.3", alpha_share=0.3)
    one, other = settings.members()
    assert (one.surrogate, one.steps, one.alpha_share) == (settings.spike_gradient(), 3, 0.3)
    assert type(other.surrogate).__name__ == "BackwardRate"


HIRE = FitSettings(objective="hire", periods=2, eps=0.1, hire_step=0.06)


def _trained(settings: FitSettings, rate: float = 0.5) -> tuple[list[float], list[Tensor], SpikingNetwork]:
    """Losses, images of each training pass and the network after one batch, one SGD step for each loss."""
    network = _network(4)
    seen, losses = _seen(network), []
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=rate)
    for loss in _produced(settings, network):
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert network.time_steps == 4 and all(neuron.carried is None for neuron in network.neurons().values())
    return losses, [images for _, images in seen], network


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("which", ["updated", "same"])
def test_each_period_of_hire_is_a_step_and_makes_noise_for_the_next(which: str, carry: bool) -> None:
    """`updated` takes the image gradient at the weights after the step, in another pass of the same period; `same` at the old."""
    settings = FitSettings(
        objective="hire",
        periods=2,
        eps=0.1,
        hire_step=0.06,
        hire_gradient=which,
        hire_carry_potential=carry,  # type: ignore[arg-type]
    )
    losses, _, network = _trained(settings)

    reference = _network(4)
    reference.set_time_steps(2)
    parameters = [p for p in reference.parameters() if p.requires_grad]
    potential: Tensor | None = None
    noise, expected = torch.zeros_like(IMAGES), []
    for period in range(2):
        noisy = (IMAGES + noise).clamp(0, 1).requires_grad_(True)
        before = potential
        loss, potential = _period(reference, noisy, before if carry else None)
        expected.append(float(loss.detach()))
        of_image, *of_weights = torch.autograd.grad(loss, [noisy, *parameters])
        with torch.no_grad():
            for parameter, slope in zip(parameters, of_weights, strict=True):
                parameter -= 0.5 * slope
        if which == "updated":
            loss, _ = _period(reference, noisy, before if carry else None)
            (of_image,) = torch.autograd.grad(loss, noisy)
        noise = (noise + 0.06 * of_image.sign()).clamp(-0.1, 0.1)
        assert period or float(noise.abs().max()) > 0
    assert losses == pytest.approx(expected, rel=1e-12) and len(losses) == 2
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, **EXACT)


def _period(network: SpikingNetwork, images: Tensor, potential: Tensor | None) -> tuple[Tensor, Tensor]:
    """Loss of a period that starts from `potential`, and the potential it leaves."""
    with network.carrying():
        network.neurons()["s"].carried = potential
        loss = F.cross_entropy(network(images), LABELS)
        left = network.neurons()["s"].carried
    assert left is not None
    return loss, left


def test_gradients_at_updated_and_at_old_weights_differ() -> None:
    same = FitSettings(objective="hire", eps=0.1, hire_step=0.06, hire_gradient="same")
    assert _trained(HIRE)[0][0] == _trained(same)[0][0]
    assert not torch.equal(_trained(HIRE, rate=5.0)[1][-1], _trained(same, rate=5.0)[1][-1])


def test_carried_potentials_join_the_periods_to_one_run() -> None:
    """Without steps and with noise too small to matter, the mean of the periods' logits is the logits of all timesteps."""
    settings = FitSettings(objective="hire", eps=0.1, hire_step=1e-30, hire_gradient="same", hire_carry_potential=True)
    logits: list[Tensor] = []
    network = _network(4)
    handle = network.register_forward_hook(lambda net, inputs, output: logits.append(output.detach()))
    for loss in _produced(settings, network):
        loss.backward()
    handle.remove()
    torch.testing.assert_close(torch.stack(logits).mean(0), network(IMAGES).detach(), **EXACT)
    assert not torch.equal(logits[0], logits[1])


def test_noise_stays_within_eps_and_images_within_their_range() -> None:
    settings = FitSettings(objective="hire", periods=4, eps=0.1, hire_step=0.07, hire_gradient="same")
    network = _network(4)
    seen = _seen(network)
    for loss in _produced(settings, network):
        loss.backward()
    (_, clean), *noisy = seen
    assert torch.equal(clean, IMAGES) and len(noisy) == 3
    for _, images in noisy:
        assert (
            0 < float((images - IMAGES).abs().max()) <= 0.1 + 1e-15
            and 0 <= float(images.min()) <= float(images.max()) <= 1
        )
    sizes = {round(abs(x), 12) for x in (noisy[1][1] - IMAGES).flatten().tolist()}
    assert 0.1 in sizes  # 2 * 0.07, clipped


@pytest.mark.parametrize("keep", [False, True])
def test_noise_is_kept_from_batch_to_batch_where_asked(keep: bool) -> None:
    settings = FitSettings(objective="hire", eps=0.1, hire_step=0.06, hire_gradient="same", hire_keep_noise=keep)
    network, made = _network(4), objective(settings)
    seen = _seen(network)
    for count in (6, 4, 6):  # the last batch of an epoch is smaller
        for loss in made(network, IMAGES[:count], LABELS[:count], whole(torch.Generator(), count)):
            loss.backward()
    first = [seen[index][1] for index in (0, 2, 4)]
    assert torch.equal(first[0], IMAGES)
    assert torch.equal(first[1], IMAGES[:4]) != keep
    assert torch.equal(first[2], IMAGES)  # the noise of four images does not reach six
    if keep:
        assert 0 < float((first[1] - IMAGES[:4]).abs().max()) <= 0.1 + 1e-15


def test_hire_refuses_what_has_no_equal_periods() -> None:
    for steps, found in ((None, "no"), (3, "3")):
        with pytest.raises(SettingsError, match=f"objective hire: {found} timesteps do not fall into 2 equal periods"):
            next(_produced(HIRE, _network(steps)))


def test_a_stopped_batch_of_hire_leaves_the_network_as_it_was() -> None:
    network = _network(4)
    produced = _produced(FitSettings(objective="hire", hire_carry_potential=True), network)
    next(produced)
    produced.close()  # type: ignore[attr-defined]
    assert network.time_steps == 4 and all(neuron.carried is None for neuron in network.neurons().values())


def test_losses_are_made_with_the_surrogate_in_force() -> None:
    network = _network(3)
    slopes = []
    for text in ("triangular:1", "linear:0.3"):
        with surrogate_gradient(FitSettings(surrogate=text).spike_gradient()):
            slopes.append(_with_gradients(_single(FitSettings(), network), network)[1])
    assert not torch.equal(*slopes)
