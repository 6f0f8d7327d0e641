"""Stage `convert`: ANN to SNN, then finetuning (arXiv 2311.09266 Alg. 1: thresholds, tdBN, RFGSM and KL)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from hardspike.convert.ann_to_snn import convert_network
from hardspike.snn.data import Splits
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.ranges import require
from hardspike.train.loop import Optimisation, check_optimisation, fit
from hardspike.train.objectives import Objective, natural, robust_kl


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSettings:
    """time_steps: T of the SNN. percentile, calibration_steps, calibration_batches, threshold_scale: of the threshold search.

    objective: `robust_kl`, CE + beta * KL between clean and RFGSM images (budget eps, random step alpha), or `natural`, CE.
    """

    time_steps: int = 8
    percentile: float = 99.7
    calibration_steps: int = 100
    calibration_batches: int = 10
    threshold_scale: float = 0.3
    trainable_thresholds: bool = True
    objective: Literal["natural", "robust_kl"] = "robust_kl"
    eps: float = 0.1
    alpha: float = 0.05
    beta: float = 2.0
    epochs: int = 10
    learning_rate: float = 0.01
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        require("convert.time_steps", self.time_steps, self.time_steps >= 1, "use 1 or more")
        require("convert.percentile", self.percentile, 0 < self.percentile <= 100, "use a value in (0, 100]")
        require("convert.calibration_steps", self.calibration_steps, self.calibration_steps >= 1, "use 1 or more")
        require("convert.calibration_batches", self.calibration_batches, self.calibration_batches >= 1, "use 1 or more")
        require("convert.threshold_scale", self.threshold_scale, self.threshold_scale > 0, "use a positive factor")
        require(
            "convert.objective", self.objective, self.objective in ("natural", "robust_kl"), "use natural or robust_kl"
        )
        require("convert.eps", self.eps, 0 < self.eps < 1, "use a value in (0, 1)")
        # At alpha = 0 the KL and its gradient are zero; at alpha = eps no step is left.
        require("convert.alpha", self.alpha, 0 < self.alpha < self.eps, f"use a value in (0, eps = {self.eps})")
        require("convert.beta", self.beta, self.beta >= 0, "use 0 or more")
        check_optimisation("convert", self)


def convert_ann(
    settings: ConvertSettings,
    ann: SpikingNetwork,
    splits: Splits,
    *,
    seed: int,
    state_path: Path,
    identity: str,
    on_epoch: Callable[[dict[str, Any]], None],
) -> SpikingNetwork:
    """The finetuned SNN of the best validation epoch, in evaluation mode; see `loop.fit` for the rest."""
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed))
    batches = list(splits.train.images[order].split(settings.batch_size))[: settings.calibration_batches]
    snn = convert_network(
        ann,
        batches,
        time_steps=settings.time_steps,
        percent=settings.percentile,
        calibration_steps=settings.calibration_steps,
        scale=settings.threshold_scale,
        trainable_thresholds=settings.trainable_thresholds,
    )
    robust = settings.objective == "robust_kl"
    objective: Objective = robust_kl(eps=settings.eps, alpha=settings.alpha, beta=settings.beta) if robust else natural
    optimisation = Optimisation.of(settings, score_eps=settings.eps if robust else 0.0, seed=seed + 1)
    fit(snn, objective, splits, optimisation, state_path=state_path, identity=identity, on_epoch=on_epoch)
    return snn
