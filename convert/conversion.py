"""Stage `convert`: the first network becomes the spiking network that is deployed, and is finetuned."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hardspike.convert.ann_to_snn import convert_clip_floor, convert_network
from hardspike.snn.data import Splits
from hardspike.snn.errors import SettingsError
from hardspike.snn.network import SpikingNetwork
from hardspike.snn.ranges import require
from hardspike.train.settings import FitSettings, ObjectiveName, check_fit

Method = Literal["robust", "max", "diet", "qcfs", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSettings(FitSettings):
    """method: `robust` (arXiv 2311.09266), `max` (threshold balancing of Sengupta et al.), `diet`, `qcfs` (the ANN was trained

    with clip-floor activations), or `none` for a network that was trained with timesteps.
    time_steps: T of the SNN. percentile, calibration_steps, calibration_batches, calibration_batch_size (0: batch_size),
        threshold_scale: of the threshold search; `max` takes the largest value in place of the percentile.
    calibration_leak: of the neurons during the search, in (0, 1]; 0 for their own (hybrid conversion has 1 there, and 0.99 later).
    balance_layers: how many neuron layers are balanced, from the first; 0 for all.
    trainable_thresholds, trainable_leaks: in the finetuning, whose other fields are those of every training (`FitSettings`);
        epochs = 0 leaves it out.
    slip_eleventh_batch, slip_shared_maximum: reproduce two slips of the code of arXiv 2311.09266: one calibration batch more
        than the paper says, and second neurons of residual blocks whose maximum takes in the first neurons' values.
    """

    method: Method = "robust"
    objective: ObjectiveName = "robust_kl"
    time_steps: int = 8
    percentile: float = 99.7
    calibration_steps: int = 100
    calibration_batches: int = 10
    calibration_batch_size: int = 0
    threshold_scale: float = 0.3
    calibration_leak: float = 0.0
    balance_layers: int = 0
    trainable_thresholds: bool = True
    trainable_leaks: bool = False
    slip_eleventh_batch: bool = False
    slip_shared_maximum: bool = False
    epochs: int = 10
    learning_rate: float = 0.01
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        require("convert.time_steps", self.time_steps, self.time_steps >= 1, "use 1 or more")
        require("convert.percentile", self.percentile, 0 < self.percentile <= 100, "use a value in (0, 100]")
        require("convert.calibration_steps", self.calibration_steps, self.calibration_steps >= 1, "use 1 or more")
        require("convert.calibration_batches", self.calibration_batches, self.calibration_batches >= 1, "use 1 or more")
        size = self.calibration_batch_size
        require("convert.calibration_batch_size", size, size >= 0, "use 0 (batch_size) or more")
        require("convert.threshold_scale", self.threshold_scale, self.threshold_scale > 0, "use a positive factor")
        require("convert.calibration_leak", self.calibration_leak, 0 <= self.calibration_leak <= 1, "use 0 to 1")
        require("convert.balance_layers", self.balance_layers, self.balance_layers >= 0, "use 0 (all) or more")
        check_fit("convert", self, least_epochs=0)


def converted(settings: ConvertSettings, first: SpikingNetwork, splits: Splits, seed: int) -> SpikingNetwork:
    """The spiking network before any finetuning. Raises SettingsError where method and network do not go together."""
    if (settings.method == "none") != (first.time_steps is not None):
        found = "an ANN" if first.time_steps is None else f"a spiking network of {first.time_steps} timesteps"
        raise SettingsError(
            f"convert.method = '{settings.method}': the first network is {found}; 'none' is for spiking networks, and only for them"
        )
    if settings.method == "none":
        if settings.time_steps != first.time_steps:
            raise SettingsError(
                f"convert.time_steps = {settings.time_steps}, but train.time_steps = {first.time_steps}; use the same"
            )
        snn = first
    elif settings.method == "qcfs":
        snn = convert_clip_floor(
            first, time_steps=settings.time_steps, trainable_thresholds=settings.trainable_thresholds
        )
    else:
        snn = convert_network(
            first,
            _calibration(settings, splits, seed),
            time_steps=settings.time_steps,
            percent=100.0 if settings.method == "max" else settings.percentile,
            calibration_steps=settings.calibration_steps,
            scale=settings.threshold_scale,
            trainable_thresholds=settings.trainable_thresholds,
            per_step=settings.method == "diet",
            layers=settings.balance_layers or None,
            shared_maximum=settings.slip_shared_maximum,
            reset_statistics=settings.method == "robust",
            leak=settings.calibration_leak or None,
        )
    for neuron in snn.neurons().values():
        neuron.threshold.requires_grad_(settings.trainable_thresholds)
        neuron.leak.requires_grad_(settings.trainable_leaks)
    return snn


def _calibration(settings: ConvertSettings, splits: Splits, seed: int) -> list[Tensor]:
    size = settings.calibration_batch_size or settings.batch_size
    count = settings.calibration_batches + settings.slip_eleventh_batch
    if settings.slip_shared_maximum:  # the loader is not restarted for the second neurons
        count += settings.calibration_batches
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed))
    chosen = order.split(size)[:count]
    if settings.slip_shared_maximum and len(chosen) < count:  # which batches are whose is what the slip is about
        raise SettingsError(
            f"convert.slip_shared_maximum needs {count} batches of {size} images, but there are {len(splits.train)} training "
            "images; use a smaller calibration_batch_size, or fewer calibration_batches"
        )
    return [splits.train.take(rows)[0] for rows in chosen]
