"""Image sets: images in [0, 1], (N, C, H, W), kept as uint8 or float32, with int64 labels; fixed train, validation, test parts.

Files are looked for under `data.root`, else under the folder that the environment variable HARDSPIKE_DATA names, else under
~/.cache/hardspike/data. Nothing is downloaded. Which files: see the module of each data set (data_cifar, data_svhn, ...).
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hardspike.snn.data_cifar import load_cifar10, load_cifar100
from hardspike.snn.data_digits import load_digits_images
from hardspike.snn.data_folder import load_folder, load_tiny_imagenet
from hardspike.snn.data_idx import load_fashion_mnist
from hardspike.snn.data_npz import load_npz
from hardspike.snn.data_source import Labelled, Source, fixed_order, hold_out, stratified_rows
from hardspike.snn.data_svhn import load_svhn
from hardspike.snn.errors import DataError, SettingsError, unknown_name
from hardspike.snn.ranges import require

# Each takes (root, image_size).
DATASETS: dict[str, Callable[[Path, int], Source]] = {
    "digits": load_digits_images,
    "fashion_mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "svhn": load_svhn,
    "tinyimagenet": load_tiny_imagenet,
    "folder": load_folder,
    "npz": load_npz,
}
RESIZABLE = ("folder", "tinyimagenet")
NEED_ROOT = ("folder", "npz")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """dataset: name of the image set. root: its folder (npz: its file); empty for $HARDSPIKE_DATA or ~/.cache/hardspike/data.

    validation: share of the training images held out where the set has no validation part of its own (a folder without a test
    part: also the share held out for it). train_images, test_images: how many to use, 0 for all. image_size: side length that
    images from picture files are resized to, 0 to leave them.
    """

    dataset: str = "digits"
    root: str = ""
    validation: float = 0.1
    train_images: int = 0
    test_images: int = 0
    image_size: int = 0

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise SettingsError(unknown_name("data.dataset", self.dataset, DATASETS))
        given = bool(self.root) or self.dataset not in NEED_ROOT
        require("data.root", self.root, given, f"'{self.dataset}' is read from a place of your own; say where")
        require("data.validation", self.validation, 0 < self.validation < 1, "use a share between 0 and 1")
        require("data.train_images", self.train_images, self.train_images >= 0, "use 0 (all) or more")
        require("data.test_images", self.test_images, self.test_images >= 0, "use 0 (all) or more")
        resizable = self.dataset in RESIZABLE or self.image_size == 0
        require("data.image_size", self.image_size, self.image_size >= 0, "use 0 (as they are) or more")
        require("data.image_size", self.image_size, resizable, f"only {' and '.join(RESIZABLE)} are resized; use 0")


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """pixels: uint8, or float in [0, 1], (N, C, H, W). labels: int64, (N,).

    Checked on creation: raises DataError for wrong shapes, NaN, values outside [0, 1] or labels out of range.
    """

    pixels: Tensor
    labels: Tensor
    num_classes: int

    def __post_init__(self) -> None:
        if self.pixels.dtype == torch.uint8:
            _check_shape(self.pixels)
        else:
            check_images(self.pixels)
        if self.labels.shape != self.pixels.shape[:1]:
            raise DataError(
                f"labels: {tuple(self.labels.shape)} for {len(self.pixels)} images; give one label per image"
            )
        if self.labels.dtype != torch.int64:
            raise DataError(f"labels: dtype {self.labels.dtype} is not allowed; use int64")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.num_classes:
            raise DataError(
                f"labels: values {int(self.labels.min())}..{int(self.labels.max())} are not allowed; use 0..{self.num_classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def images(self) -> Tensor:
        """All images as float in [0, 1]; 8-bit ones are converted at every call, so use `take` for batches."""
        return _as_float(self.pixels)

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(images as float in [0, 1], labels) of these rows; only these are converted."""
        return _as_float(self.pixels[indices]), self.labels[indices]

    def select(self, indices: Tensor) -> "ImageSet":
        """These rows, stored as they are here."""
        return ImageSet(self.pixels[indices], self.labels[indices], self.num_classes)

    def first(self, count: int) -> "ImageSet":
        """The first `count` images (all of them when there are fewer)."""
        return ImageSet(self.pixels[:count], self.labels[:count], self.num_classes)


def _as_float(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32) / 255 if pixels.dtype == torch.uint8 else pixels


def _check_shape(images: Tensor) -> None:
    if images.ndim != 4:
        raise DataError(f"images: shape {tuple(images.shape)} is not allowed; use (count, channels, height, width)")


def check_images(images: Tensor) -> None:
    """Raise DataError unless `images` is float, (N, C, H, W), finite and in [0, 1]."""
    _check_shape(images)
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
    """Model choice uses `validation`; `test` is looked at once, by the evaluation stages.

    mean, std: per channel, of the training images, for normalisation; 0.5 each where not given. Raises DataError for parts of
    different shapes or classes, and for a mean or std that does not fit.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, part in (("validation", self.validation), ("test", self.test)):
            found = (*part.pixels.shape[1:], part.num_classes)
            if found != (*self.shape, self.num_classes):
                raise DataError(
                    f"{name} images: (channels, height, width, classes) = {found}; "
                    f"the training images have {(*self.shape, self.num_classes)}; use the same"
                )
        for field in ("mean", "std"):
            values = getattr(self, field) or (0.5,) * self.shape[0]
            object.__setattr__(self, field, values)
            if len(values) != self.shape[0]:
                raise DataError(f"{field}: {len(values)} values for {self.shape[0]} channels; give one per channel")
        if min(self.std) <= 0:
            raise DataError(f"std: {self.std} found; all must be positive; a channel that never changes has to go")

    @property
    def num_classes(self) -> int:
        return self.train.num_classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)"""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width


def data_root(settings: DataSettings) -> Path:
    """Where files are looked for."""
    return Path(settings.root or os.environ.get("HARDSPIKE_DATA") or "~/.cache/hardspike/data").expanduser()


def load_dataset(settings: DataSettings) -> Splits:
    """Load the data set from its files; the same settings always give the same parts.

    Raises:
        DataError: the files are not there (the message says where to put them), or hold fewer images than asked for.
        FileError: a file is damaged.
    """
    source = DATASETS[settings.dataset](data_root(settings), settings.image_size)
    train, test = source.train, source.test
    if test is None:
        train, test = hold_out(train, settings.validation)
    if source.validation is None:
        train, validation = hold_out(train, settings.validation)
    else:
        validation = source.validation
    if settings.train_images:
        _require_enough("train", settings.train_images, train)
        train = train.rows(np.sort(stratified_rows(train.labels, settings.train_images)))
    if settings.test_images:
        _require_enough("test", settings.test_images, test)
        test = test.rows(fixed_order(len(test))[: settings.test_images])
    parts = {"training": train, "validation": validation, "test": test}
    sets = {name: _image_set(settings.dataset, name, part, source.num_classes) for name, part in parts.items()}
    mean, std = (source.mean, source.std) if source.mean else channel_statistics(sets["training"].pixels)
    return Splits(sets["training"], sets["validation"], sets["test"], mean, std)


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, standard deviation) per channel of images as `ImageSet` stores them, summed in float64."""
    count = pixels.numel() / pixels.shape[1]
    means, variances = torch.zeros(2, pixels.shape[1], dtype=torch.float64)
    for part in pixels.split(1024):
        means += _as_float(part).double().sum((0, 2, 3)) / count
    for part in pixels.split(1024):
        variances += (_as_float(part).double() - means.view(1, -1, 1, 1)).square().sum((0, 2, 3)) / count
    return tuple(means.tolist()), tuple(variances.sqrt().tolist())


def _require_enough(part: str, asked: int, found: Labelled) -> None:
    if asked > len(found):
        raise DataError(
            f"data.{part}_images = {asked}: only {len(found)} are there; use at most that many, or 0 for all"
        )


def _image_set(dataset: str, name: str, part: Labelled, num_classes: int) -> ImageSet:
    try:
        return ImageSet(torch.from_numpy(part.pixels), torch.from_numpy(part.labels), num_classes)
    except DataError as error:
        raise DataError(f"data set '{dataset}', {name} {error}") from None
