"""CIFAR-10 and CIFAR-100, as https://www.cs.toronto.edu/~kriz/cifar.html has them: 32x32 colour, uint8.

The binary version is taken where it is there (ROOT/cifar-10-batches-bin, ROOT/cifar-100-binary), else the Python version, which
is also what torchvision unpacks (ROOT/cifar-10-batches-py, ROOT/cifar-100-python).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hardspike.snn.data_source import Labelled, Source, checked_labels, not_found
from hardspike.snn.errors import FileError
from hardspike.snn.pickled_arrays import read_pickled_dict

PIXELS = 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class _Layout:
    """label_bytes: before each image of the binary version; the last one is the class. label_key: of the Python version."""

    name: str
    num_classes: int
    label_bytes: int
    label_key: str
    binary: str
    python: str
    train: tuple[str, ...]
    test: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


CIFAR10 = _Layout(
    name="cifar10",
    num_classes=10,
    label_bytes=1,
    label_key="labels",
    binary="cifar-10-batches-bin",
    python="cifar-10-batches-py",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
)
CIFAR100 = _Layout(
    name="cifar100",
    num_classes=100,
    label_bytes=2,
    label_key="fine_labels",
    binary="cifar-100-binary",
    python="cifar-100-python",
    train=("train",),
    test="test",
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
)


def load_cifar10(root: Path, image_size: int) -> Source:
    """Raises DataError when the files are not there, FileError when one is damaged."""
    return _load(CIFAR10, root)


def load_cifar100(root: Path, image_size: int) -> Source:
    """The 100 fine classes. Raises DataError when the files are not there, FileError when one is damaged."""
    return _load(CIFAR100, root)


def _load(layout: _Layout, root: Path) -> Source:
    names = (*layout.train, layout.test)
    binary = [f"{layout.binary}/{name}.bin" for name in names]
    python = [f"{layout.python}/{name}" for name in names]
    if all((root / name).is_file() for name in binary):
        return _source(layout, [root / name for name in binary], _read_binary)
    if all((root / name).is_file() for name in python):
        return _source(layout, [root / name for name in python], _read_python)
    listed = "{" + ",".join(names) + "}"
    raise not_found(layout.name, root, [f"{layout.binary}/{listed}.bin or {layout.python}/{listed}"])


def _source(layout: _Layout, paths: Sequence[Path], read: Callable[[_Layout, Path], Labelled]) -> Source:
    *train, test = [read(layout, path) for path in paths]
    joined = Labelled(np.concatenate([part.pixels for part in train]), np.concatenate([part.labels for part in train]))
    return Source(joined, None, test, layout.num_classes, layout.mean, layout.std)


def _read_binary(layout: _Layout, path: Path) -> Labelled:
    """Records of `label_bytes` labels and 3072 pixels, colour plane by colour plane."""
    content = np.fromfile(path, dtype=np.uint8)
    record = layout.label_bytes + PIXELS
    if not len(content) or len(content) % record:
        raise FileError(f"{path}: {len(content)} bytes found; a multiple of {record} is allowed; get it again")
    records = content.reshape(-1, record)
    labels = checked_labels(path, records[:, layout.label_bytes - 1], layout.num_classes)
    return Labelled(np.ascontiguousarray(records[:, layout.label_bytes :]).reshape(-1, 3, 32, 32), labels)


def _read_python(layout: _Layout, path: Path) -> Labelled:
    """A dict with `data`, uint8 (N, 3072), and a list of N labels."""
    content = read_pickled_dict(path)
    pixels, labels = content.get("data"), content.get(layout.label_key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise FileError(f"{path}: no uint8 array 'data' of {PIXELS} columns in it; it is damaged, get it again")
    if not isinstance(labels, list | np.ndarray) or not all(isinstance(one, int | np.integer) for one in labels):
        raise FileError(f"{path}: no list '{layout.label_key}' of whole numbers in it; it is damaged, get it again")
    if len(labels) != len(pixels):
        raise FileError(f"{path}: {len(labels)} labels for {len(pixels)} images; it is damaged, get it again")
    return Labelled(pixels.reshape(-1, 3, 32, 32), checked_labels(path, labels, layout.num_classes))
