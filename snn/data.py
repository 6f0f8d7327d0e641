"""Image sets: float32 images in [0, 1], shape (N, C, H, W), with int64 labels; fixed train, validation and test parts."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hardspike.snn.errors import DataError, unknown_name


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Checked on creation: raises DataError for wrong shapes, NaN, values outside [0, 1] or labels out of range."""

    images: Tensor
    labels: Tensor
    num_classes: int

    def __post_init__(self) -> None:
        check_images(self.images)
        if self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"labels: {tuple(self.labels.shape)} for {len(self.images)} images; give one label per image"
            )
        if self.labels.dtype != torch.int64:
            raise DataError(f"labels: dtype {self.labels.dtype} is not allowed; use int64")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.num_classes:
            raise DataError(
                f"labels: values {int(self.labels.min())}..{int(self.labels.max())} are not allowed; use 0..{self.num_classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> "ImageSet":
        """The first `count` images (all of them when there are fewer)."""
        return ImageSet(self.images[:count], self.labels[:count], self.num_classes)


def check_images(images: Tensor) -> None:
    """Raise DataError unless `images` is float, (N, C, H, W), finite and in [0, 1]."""
    if images.ndim != 4:
        raise DataError(f"images: shape {tuple(images.shape)} is not allowed; use (count, channels, height, width)")
    if not images.is_floating_point():
        raise DataError(
            f"images: dtype {images.dtype} is not allowed; use float values in [0, 1] (divide 8-bit pixels by 255)"
        )
    if not torch.isfinite(images).all():
        count = int((~torch.isfinite(images)).sum())
        raise DataError(f"images: {count} values are NaN or infinite; all must be finite and in [0, 1]")
    if images.numel() and not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise DataError(
            f"images: values {float(images.min()):g}..{float(images.max()):g} are not allowed; scale them to [0, 1]"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """Model choice uses `validation`; `test` is looked at once, by the evaluation stages."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet


def _digits() -> Splits:
    """scikit-learn's 1797 handwritten digits, 8x8, 16 grey levels; stratified 1077 / 360 / 360, always the same."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    labels = np.asarray(source.target, dtype=np.int64)
    rest, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=360, stratify=labels[rest], random_state=0)
    images = torch.from_numpy(np.asarray(source.images, dtype=np.float32) / 16.0).unsqueeze(1)

    def part(indices: NDArray[np.int64]) -> ImageSet:
        return ImageSet(images[indices], torch.from_numpy(labels[indices]), 10)

    return Splits(part(train), part(validation), part(test))


DATASETS = {"digits": _digits}


def load_dataset(name: str) -> Splits:
    """Load a data set by name. Raises DataError for an unknown name. Nothing is downloaded."""
    if name not in DATASETS:
        raise DataError(unknown_name("data set", name, DATASETS))
    return DATASETS[name]()
