"""Stage `train`: the ANN, naturally or adversarially (arXiv 2311.09266 section 3: SGD, cosine, inner PGD)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hardspike.snn.data import Splits
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.ranges import require
from hardspike.snn.settings import NetworkSettings
from hardspike.train.loop import Optimisation, check_optimisation, fit
from hardspike.train.objectives import Objective, adversarial, natural


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """objective: `natural` (cross entropy) or `adversarial` (cross entropy on PGD images of budget eps, `steps` steps)."""

    objective: Literal["natural", "adversarial"] = "adversarial"
    eps: float = 0.1
    steps: int = 10
    epochs: int = 30
    learning_rate: float = 0.1
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        require(
            "train.objective",
            self.objective,
            self.objective in ("natural", "adversarial"),
            "use natural or adversarial",
        )
        require("train.eps", self.eps, 0 < self.eps < 1, "use a value in (0, 1)")
        require("train.steps", self.steps, self.steps >= 1, "use 1 or more")
        check_optimisation("train", self)


def train_ann(
    settings: TrainSettings,
    network: NetworkSettings,
    splits: Splits,
    *,
    state_path: Path,
    identity: str,
    on_epoch: Callable[[dict[str, Any]], None],
) -> SpikingNetwork:
    """The trained ANN of the best validation epoch, in evaluation mode; see `loop.fit` for the rest."""
    ann = SpikingNetwork(network.build(), time_steps=None, seed=network.seed)
    robust = settings.objective == "adversarial"
    objective: Objective = adversarial(eps=settings.eps, steps=settings.steps) if robust else natural
    optimisation = Optimisation.of(settings, score_eps=settings.eps if robust else 0.0, seed=network.seed)
    fit(ann, objective, splits, optimisation, state_path=state_path, identity=identity, on_epoch=on_epoch)
    return ann
