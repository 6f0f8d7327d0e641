"""The one training loop: SGD or Adam, the best epoch by validation score, resumed bit for bit.

All randomness of an epoch comes from generators seeded with (seed, epoch), so a resumed run needs no random state; weights,
optimiser state and the best weights so far are written after every epoch (safetensors, no pickle).
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hardspike.attack.evaluation import accuracy, worst_case
from hardspike.attack.members import parse_member
from hardspike.snn.augment import AUGMENTATIONS
from hardspike.snn.checkpoint import load_tensors, save_tensors
from hardspike.snn.data import Splits
from hardspike.snn.errors import FileError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.parallel import Group, current_group
from hardspike.snn.surrogate import surrogate_gradient
from hardspike.train.draws import Draws
from hardspike.train.objectives import objective
from hardspike.train.orthogonal import retract
from hardspike.train.settings import FitSettings

KIND = "training state"
# Validation attack of robust objectives: cheap, and only used to compare epochs of one run with each other.
SCORING_ATTACK = "pgd5"
NOISE_SEEDS = 50_000_000  # the network's own noise never shares a seed with the loop's


@dataclass(slots=True)
class _Progress:
    """Keys of `optimiser` are (name of the value, name of the parameter)."""

    epoch: int
    best_score: float
    best: dict[str, Tensor]
    optimiser: dict[tuple[str, str], Tensor]


def fit(
    network: SpikingNetwork,
    splits: Splits,
    settings: FitSettings,
    *,
    seed: int,
    state_path: Path,
    identity: str,
    on_epoch: Callable[[dict[str, Any]], None],
    device: str = "cpu",
) -> None:
    """Train in place; on return the network has the weights of the best epoch, on the CPU and in evaluation mode.

    Under torchrun every process calls this; each computes a part of every batch, and the leader alone writes the state.

    Args:
        seed: of the order of images, their augmentation, and all noise.
        state_path: where the state after each epoch is kept; an existing one is continued.
        identity: says what is being trained; a state made for something else is refused.
        on_epoch: called after each epoch with its metrics (on the leader).
        device: where to compute, e.g. `cpu` or `cuda`.

    Raises:
        FileError: `state_path` holds the state of another training.
    """
    group = current_group()
    progress = _resume(network, state_path, identity)
    group.wait()  # before the leader writes the next state
    network.to(device)
    if settings.channels_last:
        network.use_channels_last()
    group.same_everywhere(network.state_dict().values())
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimiser = make_optimiser(settings, list(named.values()))
    for (key, name), value in progress.optimiser.items():
        optimiser.state[named[name]][key] = value if key == "step" else value.to(device)
    epochs = _Epochs(network, splits, settings, seed, group, optimiser, torch.device(device))
    for epoch in range(progress.epoch, settings.epochs):
        rate = settings.learning_rate * settings.rate_factor(epoch)
        for parameters in optimiser.param_groups:
            parameters["lr"] = rate
        loss = epochs.train(epoch)
        score = epochs.score()
        if score["score"] >= progress.best_score:
            progress.best_score, progress.best = score["score"], _copy(network.state_dict())
        progress.epoch = epoch + 1
        progress.optimiser = {
            (key, name): value for name, p in named.items() for key, value in _tensors(optimiser.state[p]).items()
        }
        if group.leads:
            _save(network, state_path, identity, progress)
            on_epoch({"epoch": epoch + 1, "epochs": settings.epochs, "loss": loss, "learning_rate": rate, **score})
    network.to("cpu").load_state_dict(progress.best)
    network.eval()


def make_optimiser(settings: FitSettings, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The settings' optimiser at their first learning rate."""
    if settings.optimiser == "adam":
        # AMSGrad, as hybrid conversion has it.
        return torch.optim.Adam(
            parameters, settings.learning_rate, weight_decay=settings.weight_decay, amsgrad=True, foreach=False
        )
    return torch.optim.SGD(
        parameters, settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def next_loss(produced: Iterator[Tensor], settings: FitSettings, device: torch.device) -> Tensor | None:
    """Of an objective; its forward passes run with the training surrogate, and in mixed precision where asked for."""
    mixed = settings.mixed_precision == "bfloat16"
    with surrogate_gradient(settings.spike_gradient()), torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        return next(produced, None)


def update(
    network: SpikingNetwork, optimiser: torch.optim.Optimizer, settings: FitSettings, generator: torch.Generator
) -> None:
    """Change the weights by their gradients, and by what the settings do to weights after a step."""
    optimiser.step()
    if settings.orthogonal:
        retract(network, settings.orthogonal, generator)


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


@dataclass(frozen=True, slots=True)
class _Epochs:
    """What stays the same from epoch to epoch."""

    network: SpikingNetwork
    splits: Splits
    settings: FitSettings
    seed: int
    group: Group
    optimiser: torch.optim.Optimizer
    device: torch.device

    def train(self, epoch: int) -> float:
        """Mean loss over the epoch's batches. A last batch smaller than half is joined to the one before (batch statistics)."""
        settings, network = self.settings, self.network
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        network.noise.generator.manual_seed(NOISE_SEEDS + (self.seed * 100_003 + epoch) * 1_009 + self.group.rank)
        batches = list(torch.randperm(len(self.splits.train), generator=generator).split(settings.batch_size))
        if len(batches) > 1 and len(batches[-1]) < max(2, settings.batch_size // 2):
            batches[-2:] = [torch.cat(batches[-2:])]
        losses = objective(settings)
        network.train()
        total, count = 0.0, 0
        for batch in batches:
            rows = self.group.rows(len(batch))
            draws = Draws(generator, len(batch), rows)
            images, labels = self._images(batch[rows], draws)
            share = len(labels) / len(batch)
            produced = losses(network, images, labels, draws)
            while (loss := next_loss(produced, settings, self.device)) is not None:
                self.optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                self.group.average(network.parameters(), share)
                update(network, self.optimiser, settings, generator)
                total += self.group.total(float(loss.detach()) * share)
                count += 1
        return total / count

    def _images(self, rows: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        images, labels = self.splits.train.take(rows)
        augmentation = AUGMENTATIONS[self.settings.augment]
        drawn = augmentation.draw(draws.batch, draws.generator).part(draws.rows)
        images = augmentation.apply(images, drawn, self.splits.mean)
        return images.to(self.device), labels.to(self.device)

    def score(self) -> dict[str, float]:
        """Validation accuracy, and the score that picks the epoch: clean accuracy, or its mean with the one under attack."""
        settings, network = self.settings, self.network
        network.eval()
        network.noise.generator.manual_seed(NOISE_SEEDS - 1)
        validation = self.splits.validation
        validation = validation.first(settings.score_images or len(validation))
        logits = network.on_cpu_images()
        clean = accuracy(logits, validation)
        if settings.score_eps == 0:
            return {"validation_accuracy": clean, "score": clean}
        member = parse_member(SCORING_ATTACK, settings.spike_gradient())
        attacked = worst_case(logits, validation, [member], eps=settings.score_eps).robust_accuracy
        return {"validation_accuracy": clean, "validation_robust_accuracy": attacked, "score": (clean + attacked) / 2}


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


def _save(network: SpikingNetwork, path: Path, identity: str, progress: _Progress) -> None:
    tensors = {f"now/{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in progress.best.items()}
    tensors |= {f"optimiser:{key}/{name}": value for (key, name), value in progress.optimiser.items()}
    counters = json.dumps({"epoch": progress.epoch, "best_score": progress.best_score})
    save_tensors(path, tensors, {"kind": KIND, "identity": identity, "counters": counters})


def _resume(network: SpikingNetwork, path: Path, identity: str) -> _Progress:
    if not path.exists():
        return _Progress(0, -1.0, _copy(network.state_dict()), {})
    tensors, metadata = load_tensors(path, KIND)
    if metadata.get("identity") != identity:
        raise FileError(f"{path}: is the state of another training; delete it to start anew")
    parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}}
    optimiser: dict[tuple[str, str], Tensor] = {}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        if part.startswith("optimiser:"):
            optimiser[part.removeprefix("optimiser:"), name] = tensor
        else:
            parts[part][name] = tensor
    network.load_state_dict(parts["now"])
    counters = json.loads(metadata["counters"])
    return _Progress(counters["epoch"], counters["best_score"], parts["best"], optimiser)
