"""The one training loop: SGD with momentum and a cosine schedule, the best epoch by validation score, resumed bit for bit.

All randomness of an epoch comes from a generator seeded with (seed, epoch), so a resumed run needs no random state; weights,
momentum and the best weights so far are written after every epoch (safetensors, no pickle).
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from hardspike.attack.evaluate import accuracy, evaluate
from hardspike.attack.members import parse_member
from hardspike.snn.checkpoint import load_tensors, save_tensors
from hardspike.snn.data import Splits
from hardspike.snn.errors import FileError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.ranges import require
from hardspike.train.objectives import Objective

KIND = "training state"
# Validation attack of robust objectives: cheap, and only used to compare epochs of one run with each other.
SCORING_ATTACK = "pgd5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation:
    """SGD settings. learning_rate is the first epoch's; it falls to 0 along a cosine. score_eps: validation attack budget, 0 for clean."""

    epochs: int
    learning_rate: float
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4
    score_eps: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_optimisation("training", self)

    @staticmethod
    def of(settings: "OptimisationFields", *, score_eps: float, seed: int) -> "Optimisation":
        """From the settings of a training stage."""
        return Optimisation(
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            score_eps=score_eps,
            seed=seed,
        )


class OptimisationFields(Protocol):
    """What the settings of every training stage have in common."""

    @property
    def epochs(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def check_optimisation(stage: str, settings: OptimisationFields) -> None:
    """Raise SettingsError, naming `stage`, for a value out of range."""
    epochs, batch_size = settings.epochs, settings.batch_size
    require(f"{stage}.epochs", epochs, epochs >= 1, "use 1 or more")
    require(f"{stage}.learning_rate", settings.learning_rate, settings.learning_rate > 0, "use a positive value")
    require(f"{stage}.batch_size", batch_size, batch_size >= 2, "use 2 or more (batch norm needs a batch)")
    require(f"{stage}.momentum", settings.momentum, 0 <= settings.momentum < 1, "use a value in [0, 1)")
    require(f"{stage}.weight_decay", settings.weight_decay, settings.weight_decay >= 0, "use 0 or more")


@dataclass(slots=True)
class _Progress:
    epoch: int
    best_score: float
    best: dict[str, Tensor]
    momentum: dict[str, Tensor]


def fit(
    network: SpikingNetwork,
    objective: Objective,
    splits: Splits,
    settings: Optimisation,
    *,
    state_path: Path,
    identity: str,
    on_epoch: Callable[[dict[str, Any]], None],
) -> None:
    """Train in place; on return the network has the weights of the best epoch and is in evaluation mode.

    Args:
        state_path: where the state after each epoch is kept; an existing one is continued.
        identity: says what is being trained; a state made for something else is refused.
        on_epoch: called after each epoch with its metrics.

    Raises:
        FileError: `state_path` holds the state of another training.
    """
    progress = _resume(network, state_path, identity)
    optimiser = torch.optim.SGD(
        (p for p in network.parameters() if p.requires_grad),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    for name, buffer in progress.momentum.items():
        optimiser.state[named[name]]["momentum_buffer"] = buffer
    for epoch in range(progress.epoch, settings.epochs):
        rate = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / settings.epochs))
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = _train_epoch(network, objective, splits, settings, optimiser, epoch)
        score = _score(network, splits, settings)
        if score["score"] >= progress.best_score:
            progress.best_score, progress.best = score["score"], _copy(network.state_dict())
        progress.epoch = epoch + 1
        momenta = {name: optimiser.state[p].get("momentum_buffer") for name, p in named.items()}
        progress.momentum = {name: buffer for name, buffer in momenta.items() if buffer is not None}
        _save(network, state_path, identity, progress)
        on_epoch({"epoch": epoch + 1, "epochs": settings.epochs, "loss": loss, "learning_rate": rate, **score})
    network.load_state_dict(progress.best)
    network.eval()


def _train_epoch(
    network: SpikingNetwork,
    objective: Objective,
    splits: Splits,
    settings: Optimisation,
    optimiser: torch.optim.Optimizer,
    epoch: int,
) -> float:
    """Mean loss over the epoch's batches. A last batch smaller than half is joined to the one before (batch statistics)."""
    generator = torch.Generator().manual_seed(settings.seed * 100_003 + epoch)
    order = torch.randperm(len(splits.train), generator=generator)
    batches = list(order.split(settings.batch_size))
    if len(batches) > 1 and len(batches[-1]) < settings.batch_size // 2:
        batches[-2:] = [torch.cat(batches[-2:])]
    network.train()
    total = 0.0
    for batch in batches:
        optimiser.zero_grad(set_to_none=True)
        loss = objective(network, splits.train.images[batch], splits.train.labels[batch], generator)
        torch.autograd.backward(loss)
        optimiser.step()
        total += float(loss.detach())
    return total / len(batches)


def _score(network: SpikingNetwork, splits: Splits, settings: Optimisation) -> dict[str, float]:
    """Validation accuracy, and the score that picks the epoch: clean accuracy, or its mean with the one under attack."""
    network.eval()
    clean = accuracy(network, splits.validation)
    if settings.score_eps == 0:
        return {"validation_accuracy": clean, "score": clean}
    member = parse_member(SCORING_ATTACK)
    attacked = evaluate(network, splits.validation, [member], eps=settings.score_eps).robust_accuracy
    return {"validation_accuracy": clean, "validation_robust_accuracy": attacked, "score": (clean + attacked) / 2}


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _save(network: SpikingNetwork, path: Path, identity: str, progress: _Progress) -> None:
    tensors = {f"now/{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in progress.best.items()}
    tensors |= {f"momentum/{name}": value for name, value in progress.momentum.items()}
    counters = json.dumps({"epoch": progress.epoch, "best_score": progress.best_score})
    save_tensors(path, tensors, {"kind": KIND, "identity": identity, "counters": counters})


def _resume(network: SpikingNetwork, path: Path, identity: str) -> _Progress:
    if not path.exists():
        return _Progress(0, -1.0, _copy(network.state_dict()), {})
    tensors, metadata = load_tensors(path, KIND)
    if metadata.get("identity") != identity:
        raise FileError(f"{path}: is the state of another training; delete it to start anew")
    parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "momentum": {}}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        parts[part][name] = tensor
    network.load_state_dict(parts["now"])
    counters = json.loads(metadata["counters"])
    return _Progress(counters["epoch"], counters["best_score"], parts["best"], parts["momentum"])
