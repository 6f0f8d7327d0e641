"""Fashion-MNIST in idx files, packed (.gz) or not: 28x28 grey, uint8.

On Debian and Ubuntu `apt install dataset-fashion-mnist` puts it where it is found without any setting. Otherwise the four files
go to ROOT/FashionMNIST/raw (torchvision's place) or ROOT.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hardspike.snn.data_source import Labelled, Source, checked_labels, not_found
from hardspike.snn.errors import FileError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def load_fashion_mnist(root: Path, image_size: int) -> Source:
    """Raises DataError when the files are not there, FileError when one is damaged."""
    for folder in (root / "FashionMNIST" / "raw", root, DEBIAN):
        found = [path for name in FILES for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
        chosen = {path.name.removesuffix(".gz"): path for path in reversed(found)}
        if len(chosen) == len(FILES):
            train, test = (_read(chosen[FILES[at]], chosen[FILES[at + 1]]) for at in (0, 2))
            # Mean and deviation of the 60000 training images: 0.28604 and 0.35302.
            return Source(train, None, test, 10, mean=(0.2860,), std=(0.3530,))
    places = f"in it, in its folder FashionMNIST/raw and in {DEBIAN}"
    looked_for = [f"{', '.join(FILES)} (each with or without .gz) {places}"]
    raise not_found("fashion_mnist", root, looked_for, "; on Debian and Ubuntu: apt install dataset-fashion-mnist")


def _read(images: Path, labels: Path) -> Labelled:
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise FileError(f"{labels}: {len(classes)} labels for {len(pixels)} images; get both files again")
    return Labelled(pixels[:, None], checked_labels(labels, classes, 10))


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The uint8 array of an idx file. Raises FileError unless it is whole and has so many dimensions."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path}: not readable ({' '.join(str(error).split())}); it is damaged, get it again") from None
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))
    if content[:4] != magic or len(content) < start:
        raise FileError(
            f"{path}: begins with {content[:4].hex() or 'nothing'}; an idx file of {dimensions}-dimensional bytes begins with "
            f"{magic.hex()}; get it again"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    expected = start + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise FileError(f"{path}: {len(content)} bytes found; its header promises {expected}; get it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
