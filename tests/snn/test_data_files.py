"""CIFAR, SVHN and Fashion-MNIST from small files in their true formats, and one line for each way these can be missing or damaged."""

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_files import Bytes, assert_refused, load_from, random_pixels
from numpy.typing import NDArray
from scipy.io import savemat

from hardspike.snn import data_idx
from hardspike.snn.data import Splits, channel_statistics
from hardspike.snn.data_cifar import load_cifar10, load_cifar100
from hardspike.snn.errors import DataError, FileError

CIFAR10_NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
LAYOUTS: dict[str, tuple[tuple[str, ...], str, str, str]] = {
    "cifar10": (CIFAR10_NAMES, "cifar-10-batches-bin", "cifar-10-batches-py", "labels"),
    "cifar100": (("train", "test"), "cifar-100-binary", "cifar-100-python", "fine_labels"),
}


def _check_parts(splits: Splits, images: NDArray[Any], labels: NDArray[Any], held: int) -> None:
    """Training and validation images are those of `images`, each once, each with its own label."""
    assert len(splits.validation) == held and len(splits.train) + held == len(images)
    pixels = torch.cat([splits.train.pixels, splits.validation.pixels]).numpy()
    found = torch.cat([splits.train.labels, splits.validation.labels]).numpy()
    rows = {image.tobytes(): label for image, label in zip(pixels, found, strict=True)}
    assert rows == {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert pixels.dtype == np.uint8


def _cifar_content(dataset: str, seed: int) -> tuple[Bytes, NDArray[np.int64]]:
    """20 images of one file."""
    return random_pixels(seed, 20, 3, 32, 32), np.arange(20) % (10 if dataset == "cifar10" else 20)


def _write_cifar_binary(dataset: str, root: Path) -> Path:
    names, folder, _, _ = LAYOUTS[dataset]
    (root / folder).mkdir()
    for seed, name in enumerate(names):
        images, labels = _cifar_content(dataset, seed)
        columns = [labels[:, None]] if dataset == "cifar10" else [labels[:, None] // 5, labels[:, None]]
        records = np.concatenate([*columns, images.reshape(20, -1)], axis=1).astype(np.uint8)
        (root / folder / f"{name}.bin").write_bytes(records.tobytes())
    return root / folder


def _write_cifar_python(dataset: str, root: Path) -> Path:
    names, _, folder, key = LAYOUTS[dataset]
    (root / folder).mkdir()
    for seed, name in enumerate(names):
        images, labels = _cifar_content(dataset, seed)
        files = [f"{number}.png".encode() for number in range(20)]
        content = {
            b"data": images.reshape(20, -1),
            key.encode(): labels.tolist(),
            b"filenames": files,
            b"batch_label": b"x",
        }
        (root / folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return root / folder


@pytest.mark.parametrize("write", [_write_cifar_binary, _write_cifar_python])
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_cifar(tmp_path: Path, dataset: str, write: Callable[[str, Path], Path]) -> None:
    write(dataset, tmp_path)
    splits = load_from(dataset, tmp_path, validation=0.2)
    contents = [_cifar_content(dataset, seed) for seed in range(len(LAYOUTS[dataset][0]))]
    images, labels = (np.concatenate([content[at] for content in contents[:-1]]) for at in (0, 1))
    _check_parts(splits, images, labels, len(images) // 5)
    assert torch.equal(splits.test.pixels, torch.from_numpy(contents[-1][0]))
    assert splits.test.labels.tolist() == contents[-1][1].tolist()
    assert splits.num_classes == (10 if dataset == "cifar10" else 100) and splits.shape == (3, 32, 32)
    assert splits.mean == ((0.4914, 0.4822, 0.4465) if dataset == "cifar10" else (0.5071, 0.4867, 0.4408))


def test_the_binary_version_is_preferred(tmp_path: Path) -> None:
    _write_cifar_binary("cifar10", tmp_path)
    for path in _write_cifar_python("cifar10", tmp_path).iterdir():
        path.write_bytes(b"damaged")
    assert len(load_cifar10(tmp_path, 0).train) == 100
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    with pytest.raises(FileError, match="cifar-10-batches-py/data_batch_1: "):
        load_cifar10(tmp_path, 0)


def test_cifar_that_is_not_there(tmp_path: Path) -> None:
    assert_refused(
        DataError,
        r"'cifar10': not in .*; looked for cifar-10-batches-bin/{data_batch_1,.*data.root",
        "cifar10",
        tmp_path,
    )
    assert_refused(
        DataError, r"cifar-100-binary/{train,test}.bin or cifar-100-python/{train,test}; put", "cifar100", tmp_path
    )


def test_damaged_binary_cifar(tmp_path: Path) -> None:
    path = _write_cifar_binary("cifar10", tmp_path) / "data_batch_2.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert_refused(FileError, "data_batch_2.bin: 61459 bytes found; a multiple of 3073", "cifar10", tmp_path)
    path.write_bytes(b"")
    assert_refused(FileError, "data_batch_2.bin: 0 bytes found", "cifar10", tmp_path)
    path.write_bytes(b"\x0a" + whole[1:])
    assert_refused(FileError, r"data_batch_2.bin: labels 0..10 found; 0..9 are allowed", "cifar10", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "no uint8 array 'data' of 3072 columns"),
        ({"data": np.zeros((20, 3072), np.int64)}, "no uint8 array 'data'"),
        ({"data": np.zeros((20, 3071), np.uint8)}, "no uint8 array 'data'"),
        ({"data": np.zeros((19, 3072), np.uint8)}, "20 labels for 19 images"),
        ({"fine_labels": None}, "no list 'fine_labels' of whole numbers"),
        ({"fine_labels": ["1"] * 20}, "no list 'fine_labels' of whole numbers"),
        ({"fine_labels": [100] * 20}, r"labels 100..100 found; 0..99 are allowed"),
        ({"fine_labels": [-1] * 20}, r"labels -1..-1 found"),
        ({"more": print}, "wants to call '.* print'; only NumPy arrays are read"),
    ],
)
def test_damaged_python_cifar(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = _write_cifar_python("cifar100", tmp_path) / "train"
    content = {"data": np.zeros((20, 3072), np.uint8), "fine_labels": list(range(20))} | changes
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert_refused(FileError, message, "cifar100", tmp_path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(FileError):
        load_cifar100(tmp_path, 0)


def _write_svhn(root: Path, **changes: Any) -> tuple[Bytes, Bytes]:
    images, labels = random_pixels(1, 32, 32, 3, 40), (np.arange(40) % 10 + 1).astype(np.uint8)[:, None]
    for name in ("train_32x32.mat", "test_32x32.mat"):
        content = {"X": images, "y": labels} | (changes if name.startswith("train") else {})
        savemat(root / name, {key: value for key, value in content.items() if value is not None}, do_compression=True)
    return images, labels


def test_svhn(tmp_path: Path) -> None:
    images, labels = _write_svhn(tmp_path)
    splits = load_from("svhn", tmp_path, validation=0.25)
    _check_parts(splits, images.transpose(3, 2, 0, 1), labels[:, 0] % 10, 10)
    assert int(splits.test.labels[9]) == 0 and labels[9] == 10
    assert int(splits.test.pixels[7, 2, 30, 5]) == images[30, 5, 2, 7]
    assert splits.mean == splits.std == (0.5, 0.5, 0.5)


def test_svhn_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    assert_refused(DataError, "'svhn': not in .*; looked for train_32x32.mat, test_32x32.mat; put", "svhn", tmp_path)
    _write_svhn(tmp_path)
    path = tmp_path / "train_32x32.mat"
    for content in (path.read_bytes()[:-200], path.read_bytes()[:100], b"", b"no MATLAB file" * 20):
        path.write_bytes(content)
        assert_refused(FileError, "train_32x32.mat: (not readable as a MATLAB file|arrays X and y)", "svhn", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": None}, "arrays X and y are not both in it"),
        ({"X": np.zeros((32, 32, 3, 40))}, r"X is float64 \(32, 32, 3, 40\); uint8 \(32, 32, 3, N\) is allowed"),
        ({"X": np.zeros((16, 32, 3, 40), np.uint8)}, r"X is uint8 \(16, 32, 3, 40\)"),
        ({"y": np.ones((39, 1), np.uint8)}, "39 labels for 40 images"),
        ({"y": np.full((40, 1), 11, np.uint8)}, r"labels 11..11 found"),
    ],
)
def test_svhn_with_wrong_arrays(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    _write_svhn(tmp_path, **changes)
    assert_refused(FileError, message, "svhn", tmp_path)


@pytest.fixture
def no_debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data_idx, "DEBIAN", tmp_path / "nothing")


def _idx(array: NDArray[Any]) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def _write_idx(folder: Path, packed: bool) -> tuple[Bytes, NDArray[np.int64]]:
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = random_pixels(2, 30, 28, 28), np.arange(30) % 10
    for name, array in zip(data_idx.FILES, (images, labels, images[:20], labels[:20]), strict=True):
        content = _idx(array)
        (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    return images, labels


@pytest.mark.usefixtures("no_debian")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["FashionMNIST/raw", "."])
def test_fashion_mnist(tmp_path: Path, place: str, packed: bool) -> None:
    images, labels = _write_idx(tmp_path / place, packed)
    splits = load_from("fashion_mnist", tmp_path, validation=1 / 3)
    _check_parts(splits, images[:, None], labels, 10)
    assert torch.equal(splits.test.pixels, torch.from_numpy(images[:20, None]))
    assert splits.validation.labels.sort().values.tolist() == list(range(10))


@pytest.mark.usefixtures("no_debian")
def test_fashion_mnist_that_is_not_there(tmp_path: Path) -> None:
    message = (
        "looked for train-images-idx3-ubyte,.*FashionMNIST/raw.*; on Debian and Ubuntu: apt install dataset-fashion"
    )
    assert_refused(DataError, message, "fashion_mnist", tmp_path)
    _write_idx(tmp_path, packed=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert_refused(DataError, message, "fashion_mnist", tmp_path)


def test_fashion_mnist_of_debian_is_found_by_itself(tmp_path: Path) -> None:
    if not data_idx.DEBIAN.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    splits = load_from("fashion_mnist", tmp_path)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [54000, 6000, 10000]
    assert splits.shape == (1, 28, 28) and splits.num_classes == 10
    for part in (splits.train, splits.validation, splits.test):
        assert len(set(torch.bincount(part.labels).tolist())) == 1
    mean, std = channel_statistics(torch.cat([splits.train.pixels, splits.validation.pixels]))
    assert (round(mean[0], 4), round(std[0], 4)) == (*splits.mean, *splits.std)


@pytest.mark.usefixtures("no_debian")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", lambda old: old[:-1], "23535 bytes found; its header promises 23536"),
        ("train-images-idx3-ubyte", lambda old: old + b"x", "23537 bytes found"),
        ("train-images-idx3-ubyte", lambda old: b"", "begins with nothing; an idx file of 3-dimensional .* 00000803"),
        ("train-images-idx3-ubyte", lambda old: old[:9], "begins with 00000803"),
        ("train-images-idx3-ubyte", lambda old: b"\x00\x00\x08\x01" + old[4:], "begins with 00000801"),
        ("train-images-idx3-ubyte", lambda old: old[:4] + b"\xff" * 12, "16 bytes found; its header promises"),
        ("train-labels-idx1-ubyte", lambda old: old[:-1] + b"\x0a", r"labels 0..10 found; 0..9 are allowed"),
        ("train-labels-idx1-ubyte", lambda old: old[:7] + b"\x1d" + old[8:-1], "29 labels for 30 images"),
    ],
)
def test_damaged_fashion_mnist(tmp_path: Path, name: str, content: Callable[[bytes], bytes], message: str) -> None:
    _write_idx(tmp_path, packed=False)
    path = tmp_path / name
    path.write_bytes(content(path.read_bytes()))
    assert_refused(FileError, f"{name}: {message}", "fashion_mnist", tmp_path)


@pytest.mark.usefixtures("no_debian")
def test_damaged_packed_files(tmp_path: Path) -> None:
    _write_idx(tmp_path, packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:-9], whole[:5], b"plain", whole[:50] + b"\x00" * 50 + whole[100:]):
        path.write_bytes(content)
        assert_refused(FileError, "train-images-idx3-ubyte.gz: not readable", "fashion_mnist", tmp_path)
