"""The 15 corruptions of CIFAR-10-C at severities 1 to 5, on images of any size with one or three channels.

Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019, with the
parameters of the authors' make_cifar_c.py. Their lengths are pixels of 32 x 32 images and grow with the image's shorter side
(corruptions_grid.py). Results here stay float: the script cuts them to whole 8-bit values, downwards. Frost is drawn instead of
photographed (corruptions_weather.py). The package imagecorruptions is not used: it takes ImageNet's parameters, images of at
least 32 x 32 with three channels, and draws from NumPy's global generator.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hardspike.attack import corruptions_blur, corruptions_digital, corruptions_noise, corruptions_weather
from hardspike.attack.corruptions_grid import Image
from hardspike.attack.gradient import Logits
from hardspike.attack.problem import SampleDraws
from hardspike.snn.data import check_images
from hardspike.snn.errors import DataError, SettingsError, unknown_name
from hardspike.snn.progress import Progress, Silent

Family = Literal["noise", "blur", "weather", "digital"]
SEVERITIES = (1, 2, 3, 4, 5)
# Above the purposes of attacks, which are counted from 0: the same seed gives corruptions other numbers.
_FIRST_PURPOSE = 1 << 16


@dataclass(frozen=True, slots=True)
class Corruption:
    """apply: float64 image (C, H, W) in [0, 1], severity and the sample's random numbers to an image that is yet to be clipped."""

    family: Family
    apply: Callable[[Image, int, np.random.Generator], Image]


# In the order of the published tables, which the random numbers depend on.
CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption("noise", corruptions_noise.gaussian_noise),
    "shot_noise": Corruption("noise", corruptions_noise.shot_noise),
    "impulse_noise": Corruption("noise", corruptions_noise.impulse_noise),
    "defocus_blur": Corruption("blur", corruptions_blur.defocus_blur),
    "glass_blur": Corruption("blur", corruptions_blur.glass_blur),
    "motion_blur": Corruption("blur", corruptions_blur.motion_blur),
    "zoom_blur": Corruption("blur", corruptions_blur.zoom_blur),
    "snow": Corruption("weather", corruptions_weather.snow),
    "frost": Corruption("weather", corruptions_weather.frost),
    "fog": Corruption("weather", corruptions_weather.fog),
    "brightness": Corruption("weather", corruptions_weather.brightness),
    "contrast": Corruption("digital", corruptions_digital.contrast),
    "elastic_transform": Corruption("digital", corruptions_digital.elastic_transform),
    "pixelate": Corruption("digital", corruptions_digital.pixelate),
    "jpeg_compression": Corruption("digital", corruptions_digital.jpeg_compression),
}


def corrupt(images: Tensor, name: str, severity: int, *, seed: int, samples: Tensor | None = None) -> Tensor:
    """Corrupted images, as given: float (B, C, H, W) in [0, 1], same dtype and device.

    Args:
        images: C is 1 (grey) or 3 (RGB).
        name: a key of CORRUPTIONS.
        severity: 1 to 5.
        samples: index of each row in its data set, int64 [B]; 0, 1, ... where not given. With `seed`, name and severity it
            decides the random numbers, so neither batches nor order change an image.

    Raises:
        SettingsError: unknown name or severity.
        DataError: images that are not float in [0, 1], empty, or of other channel counts; samples that do not fit.
    """
    _check_choice([name], [severity])
    check_images(images)
    if images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise DataError(f"images: shape {tuple(images.shape)} cannot be corrupted; use (count, 1 or 3, height, width)")
    samples = torch.arange(len(images)) if samples is None else samples
    if samples.shape != images.shape[:1]:
        raise DataError(f"samples: {tuple(samples.shape)} for {len(images)} images; give one index per image")
    purpose = _FIRST_PURPOSE + len(SEVERITIES) * list(CORRUPTIONS).index(name) + severity
    draws = SampleDraws(seed, samples)
    result = torch.empty_like(images)
    for row, image in enumerate(images.detach().to("cpu", torch.float64).numpy()):
        corrupted = CORRUPTIONS[name].apply(image, severity, draws.generator(purpose, row))
        result[row] = torch.from_numpy(corrupted.clip(0, 1)).to(images)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionResult:
    """accuracy: by corruption, then severity, in [0, 1]; images: how many each of these numbers is over."""

    accuracy: dict[str, dict[int, float]]
    images: int
    seed: int

    @property
    def by_corruption(self) -> dict[str, float]:
        """Mean over the severities, a column of the published tables."""
        return {name: float(np.mean(list(values.values()))) for name, values in self.accuracy.items()}

    @property
    def mean(self) -> float:
        """Over all corruptions that were run; over the 15 it is the number CIFAR-10-C tables call mean accuracy."""
        return float(np.mean(list(self.by_corruption.values())))

    @property
    def mean_without_noise(self) -> float | None:
        """Over the 12 that are not of family noise; None where only noise was run."""
        rest = [value for name, value in self.by_corruption.items() if CORRUPTIONS[name].family != "noise"]
        return float(np.mean(rest)) if rest else None

    def facts(self) -> dict[str, object]:
        """Everything, for json.dumps; severities become text."""
        accuracy = {name: {str(s): value for s, value in values.items()} for name, values in self.accuracy.items()}
        return {
            "accuracy": accuracy,
            "by_corruption": self.by_corruption,
            "mean": self.mean,
            "mean_without_noise": self.mean_without_noise,
            "images": self.images,
            "seed": self.seed,
        }


def corruption_accuracy(
    logits: Logits,
    images: Tensor,
    labels: Tensor,
    *,
    severities: Sequence[int] = SEVERITIES,
    names: Iterable[str] | None = None,
    seed: int = 0,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> CorruptionResult:
    """Accuracy of any callable under corruptions; the network inside must be in evaluation mode.

    Args:
        logits: float images (B, C, H, W) in [0, 1] to logits (B, K).
        labels: int64 [B].
        names: keys of CORRUPTIONS; all 15 where not given.

    Raises SettingsError and DataError as `corrupt`, before anything is run.
    """
    chosen = list(CORRUPTIONS) if names is None else list(names)
    _check_choice(chosen, severities)
    if len(images) == 0 or labels.shape != images.shape[:1]:
        raise DataError(
            f"labels: {tuple(labels.shape)} for {len(images)} images; give one label per image, and an image"
        )
    progress = progress or Silent()
    progress.begin("corruptions", len(chosen) * len(severities) * len(images))
    accuracy: dict[str, dict[int, float]] = {name: {} for name in chosen}
    for name in chosen:
        for severity in severities:
            right = 0
            for rows in torch.arange(len(images)).split(batch_size):
                corrupted = corrupt(images[rows], name, severity, seed=seed, samples=rows)
                with torch.no_grad():
                    right += int((logits(corrupted).argmax(1) == labels[rows]).sum())
                progress.advance(len(rows), f"{name} {severity}")
            accuracy[name][severity] = right / len(images)
    return CorruptionResult(accuracy=accuracy, images=len(images), seed=seed)


def _check_choice(names: Sequence[str], severities: Sequence[int]) -> None:
    if not names or not severities:
        raise SettingsError("corruptions: no name or no severity is given; leave both out for all")
    for name in names:
        if name not in CORRUPTIONS:
            raise SettingsError(unknown_name("corruption", name, CORRUPTIONS))
    for severity in severities:
        if severity not in SEVERITIES:
            raise SettingsError(f"corruption: severity = {severity} is not allowed; use 1, 2, 3, 4 or 5")
