"""Street View House Numbers, cropped digits (http://ufldl.stanford.edu/housenumbers): 32x32 colour, uint8, MATLAB files."""

from pathlib import Path

import numpy as np

from hardspike.snn.data_source import Labelled, Source, checked_labels, not_found
from hardspike.snn.errors import FileError

FILES = ("train_32x32.mat", "test_32x32.mat")


def load_svhn(root: Path, image_size: int) -> Source:
    """ROOT/train_32x32.mat and ROOT/test_32x32.mat. Raises DataError when they are not there, FileError when damaged."""
    if not all((root / name).is_file() for name in FILES):
        raise not_found("svhn", root, FILES)
    train, test = (_read(root / name) for name in FILES)
    return Source(train, None, test, 10, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _read(path: Path) -> Labelled:
    """X is (32, 32, 3, N) and y is (N, 1), in which 10 stands for the digit 0."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # SciPy's reader raises whatever the damaged bytes led it to
        reason = " ".join(str(error).split())[:80]
        raise FileError(f"{path}: not readable as a MATLAB file ({reason}); it is damaged, get it again") from None
    pixels, labels = content.get("X"), content.get("y")
    if pixels is None or labels is None:
        raise FileError(f"{path}: arrays X and y are not both in it; use the file of the cropped digits")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        raise FileError(f"{path}: X is {pixels.dtype} {pixels.shape}; uint8 (32, 32, 3, N) is allowed; get it again")
    if labels.size != pixels.shape[3]:
        raise FileError(f"{path}: {labels.size} labels for {pixels.shape[3]} images; it is damaged, get it again")
    digits = checked_labels(path, labels.reshape(-1), 11) % 10
    return Labelled(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), digits)
