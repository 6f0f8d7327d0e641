"""Any image set in one .npz file: train_images, train_labels, test_images, test_labels, optional validation_images and _labels.

Images: uint8, or float in [0, 1]; (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels. Labels: whole numbers from 0.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardspike.snn.data_source import Labelled, Source, shuffled
from hardspike.snn.errors import DataError, FileError

CHANNELS = (1, 3)


def load_npz(root: Path, image_size: int) -> Source:
    """`root` is the file. Raises DataError when it is missing or an array is wrong, FileError when it is damaged."""
    if not root.is_file():
        raise DataError(
            f"data set 'npz': {root} is no file; looked for a .npz file there; say where it is with data.root"
        )
    arrays = _read(root)
    train, test = _part(root, arrays, "train"), _part(root, arrays, "test")
    own = any(name.startswith("validation_") for name in arrays)
    validation = shuffled(_part(root, arrays, "validation")) if own else None
    return Source(train, validation, shuffled(test), int(train.labels.max()) + 1)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name.endswith(("_images", "_labels"))}
    # AttributeError and TypeError: np.load gives a plain array where the file is .npy.
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        reason = " ".join(str(error).split())[:80]
        raise FileError(f"{path}: not readable as .npz of plain arrays ({reason}); write it with numpy.savez") from None


def _part(path: Path, arrays: dict[str, NDArray[Any]], part: str) -> Labelled:
    for name in (f"{part}_images", f"{part}_labels"):
        if name not in arrays:
            raise DataError(f"{path}: array '{name}' is missing; found {', '.join(sorted(arrays)) or 'none'}; add it")
    pixels, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    if pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise DataError(f"{path}: {part}_images has dtype {pixels.dtype}; use uint8, or float in [0, 1]")
    if labels.dtype.kind not in "ui" or labels.size != len(labels):
        raise DataError(f"{path}: {part}_labels is {labels.dtype} {labels.shape}; use whole numbers of shape (count,)")
    if len(pixels) != len(labels) or not len(labels):
        raise DataError(f"{path}: {len(labels)} {part}_labels for {len(pixels)} images; give one label per image")
    if int(labels.min()) < 0:
        raise DataError(f"{path}: {part}_labels begin at {int(labels.min())}; number the classes from 0")
    stored = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    ordered = _channels_first(path, f"{part}_images", stored)
    return Labelled(np.ascontiguousarray(ordered), labels.reshape(-1).astype(np.int64))


def _channels_first(path: Path, name: str, pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.ndim == 3:
        return pixels[:, None]
    if pixels.ndim == 4:
        first, last = pixels.shape[1] in CHANNELS, pixels.shape[3] in CHANNELS
        if first != last:
            return pixels if first else pixels.transpose(0, 3, 1, 2)
    raise DataError(
        f"{path}: {name} has shape {pixels.shape}; use (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels"
    )
