"""Zip and .npz files whose bytes follow from their contents alone: fixed times, names in the order given, no pickle."""

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

TIME = (1980, 1, 1, 0, 0, 0)  # the first that the format knows
UNIX, FILE_MODE = 3, 0o100644


def zip_bytes(files: Mapping[str, bytes], *, compressed: bool = True) -> bytes:
    """A zip file of these files."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, TIME)
            entry.create_system, entry.external_attr = UNIX, FILE_MODE << 16
            entry.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
            archive.writestr(entry, content)
    return held.getvalue()


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An .npz file, not compressed, as `numpy.load(allow_pickle=False)` reads it; ValueError for arrays of objects."""
    files = {}
    for name, array in arrays.items():
        held = io.BytesIO()
        np.save(held, np.ascontiguousarray(array), allow_pickle=False)
        files[f"{name}.npy"] = held.getvalue()
    return zip_bytes(files, compressed=False)
