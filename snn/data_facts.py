"""What is known of each data set without its files: how many images, of which shape and classes."""

from dataclasses import dataclass
from pathlib import Path

from hardspike.snn.data import NEED_ROOT, DataSettings, data_root, load_dataset
from hardspike.snn.data_cifar import CIFAR10, CIFAR100
from hardspike.snn.data_idx import DEBIAN

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """As the files have it: shape (C, H, W), number of images in the training and test files.

    validation: images of a part of its own; None where a share of the training images is held out. files: of which one, in the
    data set's folder or absolute, says that it is there; empty where it comes with a package.
    """

    shape: Shape
    num_classes: int
    train: int
    test: int
    validation: int | None = None
    files: tuple[str, ...] = ()


DATASET_FACTS: dict[str, DatasetFacts] = {
    "digits": DatasetFacts(shape=(1, 8, 8), num_classes=10, train=1077, validation=360, test=360),
    "fashion_mnist": DatasetFacts(
        shape=(1, 28, 28),
        num_classes=10,
        train=60_000,
        test=10_000,
        files=(
            "FashionMNIST/raw/train-images-idx3-ubyte*",
            "train-images-idx3-ubyte*",
            f"{DEBIAN}/train-images-idx3-ubyte*",
        ),
    ),
    "cifar10": DatasetFacts(
        shape=(3, 32, 32), num_classes=10, train=50_000, test=10_000, files=(CIFAR10.binary, CIFAR10.python)
    ),
    "cifar100": DatasetFacts(
        shape=(3, 32, 32), num_classes=100, train=50_000, test=10_000, files=(CIFAR100.binary, CIFAR100.python)
    ),
    "svhn": DatasetFacts(shape=(3, 32, 32), num_classes=10, train=73_257, test=26_032, files=("train_32x32.mat",)),
    "tinyimagenet": DatasetFacts(
        shape=(3, 64, 64), num_classes=200, train=100_000, test=10_000, files=("tiny-imagenet-200",)
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedSplits:
    """What `load_dataset` gives for the same settings: number of images in each part. missing: why there are no files, or ''."""

    shape: Shape
    num_classes: int
    train: int
    validation: int
    test: int
    missing: str = ""


def expected_splits(settings: DataSettings) -> ExpectedSplits:
    """From `DATASET_FACTS`; images of one's own (folder, npz) are loaded, with the errors of `load_dataset`."""
    if settings.dataset in NEED_ROOT:
        splits = load_dataset(settings)
        counts = [len(part) for part in (splits.train, splits.validation, splits.test)]
        return ExpectedSplits(
            shape=splits.shape,
            num_classes=splits.num_classes,
            train=counts[0],
            validation=counts[1],
            test=counts[2],
        )
    facts = DATASET_FACTS[settings.dataset]
    channels, height, width = facts.shape
    size = settings.image_size
    held = facts.validation
    train = facts.train
    if held is None:
        held = min(max(round(settings.validation * train), 1), train - 1)
        train -= held
    return ExpectedSplits(
        shape=(channels, size or height, size or width),
        num_classes=facts.num_classes,
        train=min(settings.train_images or train, train),
        validation=held,
        test=min(settings.test_images or facts.test, facts.test),
        missing=_missing(facts, settings),
    )


def _missing(facts: DatasetFacts, settings: DataSettings) -> str:
    root = data_root(settings)
    if not facts.files or any(_is_there(root, name) for name in facts.files):
        return ""
    return (
        f"the files of '{settings.dataset}' are not in {root}; nothing here needs them, a run does: put them there, or say where "
        "they are with data.root or the environment variable HARDSPIKE_DATA"
    )


def _is_there(root: Path, name: str) -> bool:
    path = root / name  # an absolute name stays what it is
    return any(path.parent.glob(path.name)) if path.parent.is_dir() else False
